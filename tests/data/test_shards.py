"""Numbered files of one name are one modality: never scored against each other without a word."""

import json
import re
from itertools import pairwise

import numpy as np
import pytest
from toy import toy_arrays

from mrl_jax import InputError, load_dataset
from mrl_jax.errors import DatasetWarning
from mrl_jax.eval.__main__ import main as eval_main
from mrl_jax.eval.embeddings import read_embeddings

RNG = np.random.default_rng(0)
IMAGE, TEXT, LABELS = RNG.normal(size=(24, 8)), RNG.normal(size=(24, 8)), np.arange(24) % 3


def parts(name, form="{}_{}", at=(0, 10, 15, 24), first=0):
    """Files of rows of an array: the second and third are out of alphabetical order from ten files on."""
    x = {"img_emb": IMAGE, "text_emb": TEXT, "labels": LABELS, "ids": np.arange(24)}[name]
    return {form.format(name, i): x[a:b] for i, (a, b) in enumerate(pairwise(at), start=first)}


def folder(path, arrays):
    for name, x in arrays.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(path / f"{name}.npy", x)
    return path


def checked(path, **scores):
    data = read_embeddings(path)
    assert list(data.embeddings) == ["img_emb", "text_emb"]
    np.testing.assert_array_equal(data.embeddings["img_emb"], IMAGE.astype(np.float32))
    np.testing.assert_array_equal(data.embeddings["text_emb"], TEXT.astype(np.float32))
    return data


@pytest.mark.parametrize(
    ("form", "first"), [("{}_{}", 0), ("{}_{:04}", 1), ("{}-{:05}-of-00003", 0), ("{}-{}-of-3", 1), ("{}.{:02}", 0)]
)
def test_shards_are_joined_in_numeric_order(tmp_path, form, first):
    arrays = {**parts("img_emb", form, first=first), **parts("text_emb", form, first=first), "labels": LABELS}
    data = checked(folder(tmp_path, arrays))
    np.testing.assert_array_equal(data.labels["img_emb"], LABELS)
    keys = list(parts("img_emb", form, first=first))
    assert data.notes[0].startswith(f"img_emb: 3 numbered files, {keys[0]} to {keys[2]}, are joined in numeric order")


def test_more_than_ten_shards_labels_and_ids_too(tmp_path):
    at = [*range(0, 24, 2), 24]
    arrays = {k: v for name in ("img_emb", "text_emb", "labels", "ids") for k, v in parts(name, at=at).items()}
    data = checked(folder(tmp_path, arrays))
    assert len(data.notes) == 2
    np.testing.assert_array_equal(data.labels["text_emb"], LABELS)
    np.testing.assert_array_equal(data.ids["img_emb"], np.arange(24))
    own = {k.replace("labels_", "img_emb_") + "_labels": v for k, v in parts("labels").items()}
    arrays = {**parts("img_emb"), **parts("text_emb"), **own, "text_emb_labels": LABELS}
    np.testing.assert_array_equal(checked(folder(tmp_path / "own", arrays)).labels["img_emb"], LABELS)


def test_folders_of_clip_retrieval_are_read(tmp_path, capsys):
    arrays = {f"{k[: k.rfind('_')]}/{k}": v for name in ("img_emb", "text_emb") for k, v in parts(name).items()}
    folder(tmp_path / "out", arrays)
    (tmp_path / "out" / "metadata").mkdir()
    (tmp_path / "out" / "metadata" / "metadata_0.parquet").write_bytes(b"PAR1")
    checked(tmp_path / "out")
    assert eval_main(["--embeddings", str(tmp_path / "out"), "--bootstrap", "0"]) == 0
    out = capsys.readouterr().out
    assert "img_emb->text_emb" in out
    assert "note: img_emb: 3 numbered files, img_emb_0 to img_emb_2, are joined in numeric order" in out
    np.savez(tmp_path / "e.npz", img_emb=IMAGE, text_emb=TEXT)
    assert eval_main(["--compare", str(tmp_path / "out"), str(tmp_path / "e.npz")]) == 2
    assert "has no labels" in capsys.readouterr().err
    np.save(tmp_path / "out" / "text_emb" / "img_emb_0.npy", IMAGE)
    assert eval_main(["--embeddings", str(tmp_path / "out")]) == 2
    assert "two of its folders hold img_emb_0.npy; give names that differ" in capsys.readouterr().err


def test_one_file_in_a_folder_of_its_name_has_the_name_of_the_folder(tmp_path):
    own = {f"labels/{m}_0_labels": LABELS for m in ("img_emb", "text_emb")}
    arrays = {"img_emb/img_emb_0": IMAGE, "text_emb/text_emb_0": TEXT, **own}
    data = checked(folder(tmp_path, arrays))
    assert list(data.embeddings) == ["img_emb", "text_emb"]
    np.testing.assert_array_equal(data.embeddings["text_emb"], TEXT.astype(np.float32))
    np.testing.assert_array_equal(data.labels["img_emb"], LABELS)
    assert not data.notes
    assert list(read_embeddings(tmp_path, ["text_emb"]).embeddings) == ["text_emb"]
    assert list(read_embeddings(tmp_path, ["text_emb_0", "img_emb_0"]).embeddings) == ["text_emb_0", "img_emb_0"]


def test_shards_of_one_modality_are_not_two(tmp_path, capsys):
    folder(tmp_path, {**parts("img_emb", at=(0, 12, 24)), "labels": LABELS})
    assert eval_main(["--embeddings", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "img_emb is the only modality (img_emb: 2 numbered files, img_emb_0 to img_emb_1, are joined" in error
    assert len(error.strip().splitlines()) == 1
    (tmp_path / "labels.npy").unlink()
    flags = ["--embeddings", str(tmp_path), "--modalities", "img_emb_0", "img_emb_1", "--bootstrap", "0", "--json"]
    assert eval_main(flags) == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report["instances"]) == ["img_emb_0->img_emb_1", "img_emb_1->img_emb_0"]
    assert report["notes"][-1:] == ["there are no labels: only instance-level scores are reported"]


@pytest.mark.parametrize(
    "forms",
    [
        ("image0", "image1"),
        ("image_part0", "image_part1"),
        ("image.part0", "image.part1"),
        ("image_chunk000", "image_chunk001"),
        ("image-shard-1", "image-shard-2"),
        ("rank0_image", "rank1_image"),
        ("0_image", "1_image"),
        ("000-image", "001-image"),
        ("image_shard0of2", "image_shard1of2"),
        ("0000_of_0002_image", "0001_of_0002_image"),
        ("image0_clip", "image1_clip"),
    ],
)
@pytest.mark.parametrize("labels", ["own", "numbered", "shared"])
def test_numbers_anywhere_in_a_name_are_joined(tmp_path, capsys, forms, labels):
    arrays = {key: IMAGE[at] for key, at in zip(forms, (slice(0, 10), slice(10, 24)), strict=True)}
    arrays["text"] = TEXT
    if labels == "own":
        arrays |= {f"{key}_labels": LABELS[at] for key, at in zip(forms, (slice(0, 10), slice(10, 24)), strict=True)}
        arrays["text_labels"] = LABELS
    elif labels == "shared":
        arrays["labels"] = LABELS
    else:
        split = dict(zip(forms, (slice(0, 10), slice(10, 24)), strict=True))
        arrays |= {key.replace("image", "labels").removesuffix("_clip"): LABELS[at] for key, at in split.items()}
    folder(tmp_path, arrays)
    data = read_embeddings(tmp_path)
    name = "image_clip" if "clip" in forms[0] else "image"
    assert sorted(data.embeddings) == sorted(["text", name])
    np.testing.assert_array_equal(data.embeddings[name], IMAGE.astype(np.float32))
    np.testing.assert_array_equal(data.labels[name], LABELS)
    np.testing.assert_array_equal(data.labels["text"], LABELS)
    assert data.notes[0].startswith(f"{name}: 2 numbered files, {forms[0]} to {forms[1]}, are joined in numeric order")
    if labels == "own":
        assert list(read_embeddings(tmp_path, forms).embeddings) == list(forms)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("image0", "image1"), "image: 2 numbered files, image0 to image1, are joined in"),
        (("0", "1"), "0, 1 have only numbers for names; if they are parts of one modality, rename them to image_0"),
        (("000", "001"), "000, 001 have only numbers for names"),
        (("0000_of_0002", "0001_of_0002"), "have only numbers for names"),
        (("image_0_20", "image_20_40"), "differ only in their numbers; if they are parts of one modality, rename them"),
        (("part0", "part1"), "part: 2 numbered files, part0 to part1, are joined in"),
    ],
)
@pytest.mark.parametrize("labels", ["own", "shared"])
def test_names_that_differ_in_numbers_are_never_scored_in_silence(tmp_path, capsys, names, message, labels):
    own = {f"{name}_labels": LABELS for name in names}
    folder(tmp_path, {names[0]: IMAGE, names[1]: TEXT, **(own if labels == "own" else {"labels": LABELS})})
    assert eval_main(["--embeddings", str(tmp_path), "--bootstrap", "0"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert f"--modalities {' '.join(names)} takes each as a modality of its own" in error
    assert len(error.strip().splitlines()) == 1
    assert eval_main(["--embeddings", str(tmp_path), "--bootstrap", "0", "--modalities", *names]) == 0


@pytest.mark.parametrize("form", ["img_{}_gpu{}", "gpu{}_img_{}", "layer{}_part_{}"])
def test_files_with_two_numbers_are_never_scored_in_silence(tmp_path, capsys, form):
    files = {form.format(i, k): IMAGE[12 * k : 12 * k + 12] for i in (0, 1) for k in (0, 1)}
    folder(tmp_path, {**files, "labels": LABELS})
    assert eval_main(["--embeddings", str(tmp_path), "--bootstrap", "0"]) == 2
    error = capsys.readouterr().err
    assert "differ only in their numbers; if they are parts of one modality, rename them to" in error
    names = re.search("--modalities (.*) takes each as a modality of its own", error)[1].split()
    assert eval_main(["--embeddings", str(tmp_path), "--bootstrap", "0", "--modalities", *names]) == 0


def test_other_numbers_in_names_are_noted(tmp_path):
    for names in (("resnet50", "resnet101"), ("vit16_224", "vit32_384"), ("image", "image (1)"), ("x", "x_1")):
        data = read_embeddings(folder(tmp_path / names[0], dict(zip(names, (IMAGE, TEXT), strict=True))))
        assert sorted(data.embeddings) == sorted(names)
        assert "differ only in their numbers, and each is a modality of its own" in data.notes[0]
    arrays = {f"{m}_{i}": x for m, x in (("mp3", IMAGE), ("mp4", TEXT)) for i in (0, 1)}
    assert list(read_embeddings(folder(tmp_path / "mp", arrays)).embeddings) == ["mp3", "mp4"]
    np.savez(tmp_path / "e.npz", image0=IMAGE, image1=TEXT)
    assert "image0, image1 differ only in their numbers" in read_embeddings(tmp_path / "e.npz").notes[0]


def test_years_views_of_a_file_and_single_shards_stay_apart(tmp_path):
    data = read_embeddings(folder(tmp_path / "years", {"clip_2023": IMAGE, "clip_2024": TEXT}))
    assert list(data.embeddings) == ["clip_2023", "clip_2024"]
    assert data.notes[0].startswith("clip_2023, clip_2024 differ only in their numbers, and each is a modality")
    data = read_embeddings(folder(tmp_path / "single", {"img_emb_0": IMAGE, "text_emb_0": TEXT}))
    assert list(data.embeddings) == ["img_emb_0", "text_emb_0"]
    assert not data.notes
    np.savez(tmp_path / "e.npz", view_1=IMAGE, view_2=TEXT)
    data = read_embeddings(tmp_path / "e.npz")
    assert list(data.embeddings) == ["view_1", "view_2"]
    assert len(data.notes) == 1
    assert not read_embeddings(tmp_path / "e.npz", ["view_1", "view_2"]).notes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"img_emb_1": None},
            "numbered files of img_emb, number 1 is missing; add it, or --modalities img_emb_0",
        ),
        ({"img_emb_2": None}, "differ between modalities: img_emb 0 to 1, text_emb 0 to 2; add the missing files"),
        ({"text_emb_1": None, "text_emb_2": None}, "img_emb 0 to 2, text_emb 0; add the missing files"),
        ({"img_emb_01": IMAGE[:1]}, "img_emb_01 and img_emb_1 have the same number; keep one"),
        ({"img_emb": IMAGE}, "img_emb and img_emb_0 are both there; keep one"),
        ({"img_emb_1": IMAGE[:5, :3]}, "img_emb_0 is float64 [10, 8], img_emb_1 is float64 [5, 3]; write rows of one"),
        ({"img_emb_1": np.array(3.0)}, "the files of img_emb do not fit together"),
        (
            {"img_emb-3-of-4": IMAGE[:2]},
            "the files of img_emb do not all give the same total; keep the files of one export",
        ),
    ],
)
def test_files_that_do_not_fit_together_are_refused_in_one_line(tmp_path, capsys, change, message):
    arrays = {**parts("img_emb"), **parts("text_emb"), **change}
    folder(tmp_path, {k: v for k, v in arrays.items() if v is not None})
    assert eval_main(["--embeddings", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a-0-of-3", "a-2-of-3"], "number 1 is missing"),
        (["a-0-of-3", "a-1-of-3"], "number 2 is missing"),
        (["a-0-of-2", "a-1-of-2", "a-2-of-2"], "a-2-of-2 is beyond the number of files in its name; rename it"),
        (["a-0-of-1", "a-7-of-1"], "beyond the number of files in its name"),
    ],
)
def test_stated_numbers_of_files_must_be_there(tmp_path, capsys, names, message):
    folder(tmp_path, {**dict.fromkeys(names, IMAGE), "b": TEXT})
    assert eval_main(["--embeddings", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def sharded(arrays, *names, at=2, number="_{}"):
    """The arrays of a data set, in which those with these names are in files with numbers."""
    files = {}
    for key, x in arrays.items():
        if key.endswith(names):
            for i, part in enumerate(np.array_split(x, at)):
                files[key + number.format(i)] = part
        else:
            files[key] = x
    return files


@pytest.mark.parametrize("number", ["_{}", "-{:05}-of-00002"])
@pytest.mark.parametrize("names", [("sound", "touch"), ("sound", "touch", "labels"), ("touch",), ("train_sound",)])
def test_shards_of_data_are_joined(tmp_path, names, number):
    folder(tmp_path, sharded(toy_arrays(), *names, number=number))
    with pytest.warns(DatasetWarning, match=r"numbered files of one name are joined: \w+ \(2\)") as caught:
        data = load_dataset(tmp_path)
    assert data.digest() == load_dataset(toy_arrays()).digest()
    assert len(caught) == 1
    one = "(sound|touch)" + number.replace("{}", "0").replace("{:05}", "00000")
    advice = re.search(f"--modalities {one} .* takes each as a modality of its own", str(caught[0].message))
    assert bool(advice) == (names != ("train_sound",))  # the other splits have no such files


def test_splits_may_have_different_numbers_of_shards_and_layouts_of_their_own(tmp_path):
    arrays = toy_arrays()
    files = sharded({k: x for k, x in arrays.items() if k.startswith("train")}, "sound", "touch", at=12)
    files |= sharded({k: x for k, x in arrays.items() if not k.startswith("train")}, "sound", "touch", at=1)
    with pytest.warns(DatasetWarning, match=r"train_sound \(12\), train_touch \(12\)$"):
        data = load_dataset(folder(tmp_path / "a", files))
    assert data.digest() == load_dataset(arrays).digest()
    swapped = {"_".join(k.split("_")[::-1]): x for k, x in arrays.items()}
    with pytest.warns(DatasetWarning, match=r"sound_train \(2\), touch_train \(2\)$"):
        data = load_dataset(folder(tmp_path / "b", sharded(swapped, "train")))
    assert data.digest() == load_dataset(swapped).digest()
    whole = {m: arrays[f"train_{m}"] for m in ("sound", "touch", "labels")}
    with pytest.warns(DatasetWarning, match=r"joined: sound \(2\), touch \(2\); "):
        data = load_dataset(folder(tmp_path / "c", sharded(whole, "sound", "touch")), split="60/15/25")
    assert data.digest() == load_dataset(whole, split="60/15/25").digest()


def test_numbered_modalities_of_data_are_never_taken_in_silence(tmp_path):
    arrays = {k.replace("sound", "x_0").replace("touch", "x_1"): x for k, x in toy_arrays().items()}
    folder(tmp_path, arrays)
    with pytest.raises(InputError, match=r"joined: test_x \(2\), .* --modalities x_0 x_1 takes each as a modality"):
        load_dataset(tmp_path)
    third = {k.replace("x_0", "y"): x for k, x in arrays.items() if "x_0" in k}
    with pytest.raises(InputError, match="the files of train_x do not fit together: train_x_0 is float32"):
        load_dataset(folder(tmp_path / "third", arrays | third))
    data = load_dataset(tmp_path, ("x_0", "x_1"))
    assert data.digest() == load_dataset(arrays).digest()
    equal = arrays | {f"{s}_x_1": arrays[f"{s}_x_0"] for s in ("train", "valid", "test")}
    message = r"two or more modalities .* joined: test_x \(2\), train_x \(2\), .* --modalities x_0 x_1 takes each"
    with pytest.raises(InputError, match=message):
        load_dataset(folder(tmp_path / "equal", equal))
    np.save(tmp_path / "train_x_3.npy", arrays["train_x_0"])
    with pytest.raises(InputError, match="of the numbered files of train_x, number 2 is missing"):
        load_dataset(tmp_path)
    years = {k.replace("sound", "x_1998").replace("touch", "x_2014"): x for k, x in toy_arrays().items()}
    with pytest.warns(DatasetWarning, match="x_1998, x_2014 differ only in their numbers"):
        load_dataset(folder(tmp_path / "years", years))


def test_modalities_of_data_may_end_with_a_number(tmp_path):
    arrays = {k.replace("sound", "mic1").replace("touch", "mic2"): x for k, x in toy_arrays().items()}
    with pytest.warns(DatasetWarning, match="mic1, mic2 differ only in their numbers"):
        assert load_dataset(folder(tmp_path, arrays)).modalities == ("mic1", "mic2")


def test_views_and_named_keys_stay_apart(tmp_path):
    arrays = toy_arrays()
    views = {"X_0": arrays["train_sound"], "X_1": arrays["train_touch"], "Y": arrays["train_labels"]}
    assert load_dataset(folder(tmp_path / "a", views), split="60/15/25").modalities == ("view1", "view2")
    files = {k.replace("sound", "a_0").replace("touch", "a_1"): x for k, x in arrays.items()}
    keys = {m: [f"{s}_{m}" for s in ("train", "valid", "test")] for m in ("a_0", "a_1", "labels")}
    data = load_dataset(folder(tmp_path / "b", files), keys=keys)
    assert data.digest() == load_dataset(files).digest()
