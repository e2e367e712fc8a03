"""Cuts of data into splits: by class, whole groups, the same for every container; and the splits that files have."""

import dataclasses
import itertools
import json
import re

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.io
from layout_files import CLASSES, DIMS, SIZES, pascal, small_set, xmedia
from toy import toy_arrays, toy_config

from mrl_jax import InputError, load_dataset
from mrl_jax.cut_options import parse_split
from mrl_jax.data.__main__ import main as data_main
from mrl_jax.data.published.catalog import CATALOG
from mrl_jax.data.splits import cut_rows, first_per_class, strata
from mrl_jax.errors import DatasetWarning
from mrl_jax.train import main as train_main

THREE = {"train": 0.6, "test": 0.25, "valid": 0.15}


def counts(parts, classes):
    k = classes.max() + 1
    return {part: np.bincount(classes[rows], minlength=k).tolist() for part, rows in parts.items()}


def test_a_cut_has_the_right_rows():
    classes = np.array([0, 1, 0, 1, 0, 1, 0, 1, 0, 1])
    parts = cut_rows(classes, {"train": 0.6, "test": 0.2, "valid": 0.2}, seed=0)
    assert {part: rows.tolist() for part, rows in parts.items()} == {
        "train": [0, 1, 2, 5, 8, 9],
        "test": [3, 4],
        "valid": [6, 7],
    }  # the values of the first version: a run must find its test split again


def test_a_cut_is_a_partition_by_class():
    rng = np.random.default_rng(0)
    classes = rng.choice(12, 700, p=rng.dirichlet(np.ones(12)))
    classes = strata(classes)
    for seed in range(5):
        parts = cut_rows(classes, THREE, seed)
        assert sorted(np.concatenate(list(parts.values()))) == list(range(700))
        assert all((np.diff(rows) > 0).all() for rows in parts.values())
        assert {part: len(rows) for part, rows in parts.items()} == {"train": 420, "test": 175, "valid": 105}
        for part, there in counts(parts, classes).items():
            exact = THREE[part] * np.bincount(classes)
            assert np.abs(np.array(there) - exact).max() < 2
    first, second = (cut_rows(classes, THREE, seed)["test"] for seed in (0, 1))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(("size", "expected"), [(1, (1, 0, 0)), (2, (1, 1, 0)), (3, (1, 1, 1)), (5, (3, 1, 1))])
def test_small_classes_are_trained_then_tested_then_validated(size, expected):
    classes = np.repeat(np.arange(6), size)
    parts = counts(cut_rows(classes, {"train": 0.8, "test": 0.1, "valid": 0.1}, 3), classes)
    assert [parts[part] for part in ("train", "test", "valid")] == [[n] * 6 for n in expected]


def test_groups_stay_together():
    rng = np.random.default_rng(1)
    groups = rng.integers(0, 150, 600)
    classes = strata(groups % 7)
    parts = cut_rows(classes, THREE, 0, np.array([f"id {g}" for g in groups]))
    of_group = {part: set(groups[rows]) for part, rows in parts.items()}
    assert all(not of_group[a] & of_group[b] for a, b in itertools.combinations(of_group, 2))
    assert sum(map(len, parts.values())) == 600
    assert np.abs(np.array([len(parts[p]) for p in THREE]) - 600 * np.array(list(THREE.values()))).max() < 15
    alone = cut_rows(classes, THREE, 0, np.arange(600))
    assert all(np.array_equal(alone[p], rows) for p, rows in cut_rows(classes, THREE, 0).items())


def test_a_cut_does_not_depend_on_the_form_of_the_labels():
    y = np.random.default_rng(2).permutation(np.arange(90) % 11)
    forms = [y, y + 1, y[:, None], y[None], np.eye(11)[y], np.eye(11)[y].T, np.array([f"class {k}" for k in y])]
    cuts = [cut_rows(strata(form), THREE, 5) for form in forms]
    for cut in cuts[1:]:
        assert all(np.array_equal(cut[part], cuts[0][part]) for part in THREE)


def test_first_per_class():
    sorted_by_class = np.repeat(np.arange(20), 10)
    chosen = first_per_class(sorted_by_class, 100)
    np.testing.assert_array_equal(chosen.reshape(20, 10), np.arange(10)[None].repeat(20, 0) < 5)
    uneven = strata(np.random.default_rng(0).integers(0, 9, 100))
    assert first_per_class(uneven, 37).sum() == 37


def test_parse_split():
    assert parse_split("0.6/0.15/0.25") == pytest.approx(THREE)
    assert list(parse_split("60/15/25")) == ["train", "test", "valid"]


def whole_arrays(names=("sound", "touch"), labels="labels"):
    """Toy data without splits, sorted by class, with ids of which two rows each are equal."""
    arrays = toy_arrays()
    y = np.concatenate([arrays[f"{s}_labels"] for s in ("train", "valid", "test")])
    order = np.argsort(y, kind="stable")
    whole = {
        name: np.concatenate([arrays[f"{s}_{m}"] for s in ("train", "valid", "test")])[order]
        for name, m in zip(names, ("sound", "touch"), strict=True)
    }
    return whole | {labels: y[order]}


def write_mat(path, arrays):
    scipy.io.savemat(path, arrays)


def write_h5(path, arrays):
    with h5py.File(path, "w") as file:
        for key, value in arrays.items():
            file[key] = value


def write_parquet(path, arrays):
    columns = {"label" if k == "labels" else k: v.tolist() for k, v in arrays.items()}
    pq.write_table(pa.table(columns), path)


def write_folder(path, arrays):
    path.mkdir()
    for key, value in arrays.items():
        np.save(path / f"{key}.npy", value)


WRITERS = {
    "a.npz": lambda path, arrays: np.savez(path, **arrays),
    "a.mat": write_mat,
    "a.h5": write_h5,
    "a.parquet": write_parquet,
    "folder": write_folder,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_is_cut_to_the_same_splits(tmp_path, name):
    arrays = whole_arrays()
    WRITERS[name](tmp_path / name, arrays)
    data = load_dataset(tmp_path / name, split="60/15/25", split_seed=4)
    expected = load_dataset(arrays, split="60/15/25", split_seed=4)
    assert data.digest() == expected.digest()
    assert data.metadata["cut"] == {
        "split": "60/15/25",
        "seed": 4,
        "by": "class",
        "instances": {"train": 66, "valid": 17, "test": 28},
    }
    parts = cut_rows(strata(arrays["labels"]), parse_split("60/15/25"), 4)
    for s, rows in parts.items():
        np.testing.assert_array_equal(data.splits[s].features["touch"], arrays["touch"][rows])
        np.testing.assert_array_equal(data.splits[s].labels["sound"], arrays["labels"][rows])
        assert set(data.splits[s].labels["sound"]) == {0, 1, 2}
    assert load_dataset(arrays, split="60/15/25", split_seed=5).digest() != data.digest()
    with pytest.raises(InputError, match=r"has no splits .* cut it by class with split 60/15/25 \(--split\)"):
        load_dataset(tmp_path / name)


def test_masks_ids_and_names_are_cut_with_the_features():
    arrays = whole_arrays()
    n = len(arrays["labels"])
    more = {"ids": np.arange(n) // 2, "touch_mask": np.arange(n) % 9 > 0, "class_names": ["a", "b", "c"]}
    data = load_dataset({**arrays, **more}, split="60/15/25")
    assert data.class_names == ("a", "b", "c")
    ids = {s: set(split.ids) for s, split in data.splits.items()}
    assert all(not ids[a] & ids[b] for a, b in itertools.combinations(ids, 2))
    assert sum((~split.present("touch")).sum() for split in data.splits.values()) == (~more["touch_mask"]).sum()
    assert data.metadata["cut"]["by"] == "class, equal ids together"


def test_modalities_with_labels_of_their_own_are_cut_together():
    arrays = whole_arrays()
    y = arrays.pop("labels")
    arrays |= {"sound_labels": y, "touch_labels": np.roll(y, 1), "sound_mask": np.arange(len(y)) % 5 > 0}
    data = load_dataset(arrays, split="60/15/25")
    assert sum(map(len, data.splits.values())) == len(y)


def test_a_share_of_train_becomes_the_validation_split():
    arrays = {k: v for k, v in toy_arrays().items() if not k.startswith("valid")}
    data = load_dataset(arrays, valid_share=0.2)
    assert {s: len(x) for s, x in data.splits.items()} == {"train": 48, "valid": 12, "test": SIZES_OF_TOY["test"]}
    assert data.metadata["cut"] == {
        "valid_share": 0.2, "from": "train", "seed": 0, "by": "class", "instances": {"train": 48, "valid": 12},
    }  # fmt: skip
    np.testing.assert_array_equal(data.splits["test"].features["sound"], arrays["test_sound"])
    rows = np.concatenate([data.splits[s].features["touch"] for s in ("train", "valid")])
    np.testing.assert_array_equal(np.sort(rows, axis=0), np.sort(arrays["train_touch"], axis=0))
    with pytest.raises(InputError, match=r"no validation rows, .* valid_share, such as 0.1"):
        load_dataset(arrays)


SIZES_OF_TOY = {"train": 60, "valid": 24, "test": 27}


@pytest.mark.parametrize("word", ["val", "validation", "dev"])
@pytest.mark.parametrize("end", [False, True])
def test_other_words_for_the_validation_split(word, end):
    arrays = toy_arrays()
    renamed = {}
    for key, value in arrays.items():
        split, _, rest = key.partition("_")
        split = word if split == "valid" else split
        renamed[f"{rest}_{split}" if end else f"{split}_{rest}"] = value
    assert load_dataset(renamed).digest() == load_dataset(arrays).digest()
    key = f"sound_{word}" if end else f"{word}_sound"
    with pytest.raises(InputError, match="both mean"):
        load_dataset({**renamed, key.replace(word, "valid"): arrays["valid_sound"]})


def lettered(letters=("I", "T", "L"), words=("tr", "te")):
    arrays = small_set()
    parts = ("image", "text", "labels")
    return arrays, {
        f"{letter}_{word}": arrays[f"{s}_{part}"]
        for s, word in zip(("train", "test"), words, strict=True)
        for letter, part in zip(letters, parts, strict=True)
    }


@pytest.mark.parametrize("letters", [("I", "T", "L"), ("img", "txt", "lab"), ("image", "text", "label")])
@pytest.mark.parametrize("words", [("tr", "te"), ("train", "test"), ("Train", "Test")])
def test_one_file_with_the_split_at_the_end_of_its_keys(letters, words, tmp_path):
    arrays, file = lettered(letters, words)
    scipy.io.savemat(tmp_path / "a.mat", file)
    data = load_dataset(tmp_path / "a.mat", valid_share=0.1)
    assert data.modalities == ("image", "text")
    assert {s: len(x) for s, x in data.splits.items()} == {"train": 36, "valid": 4, "test": 20}
    np.testing.assert_array_equal(data.splits["test"].features["text"], arrays["test_text"])


@pytest.mark.parametrize(("cells", "label"), [("X", "Y"), ("fea", "gt"), ("data", "truth")])
def test_a_cell_array_of_views_without_splits(tmp_path, cells, label):
    arrays = whole_arrays()
    views = np.empty((1, 2), object)
    views[0, 0], views[0, 1] = arrays["sound"], arrays["touch"]
    scipy.io.savemat(tmp_path / "a.mat", {cells: views, label: arrays["labels"][:, None] + 1})
    data = load_dataset(tmp_path / "a.mat", split="60/15/25")
    assert data.modalities == ("view1", "view2")
    same = load_dataset({"view1": arrays["sound"], "view2": arrays["touch"], "gnd": arrays["labels"]}, split="60/15/25")
    assert data.digest() == same.digest()
    numbered = {"X1": arrays["sound"], "X2": arrays["touch"], "gt": arrays["labels"]}
    assert load_dataset(numbered, split="60/15/25").digest() == same.digest()
    views[0, 1] = arrays["touch"].T
    scipy.io.savemat(tmp_path / "b.mat", {cells: views, label: arrays["labels"]})
    with pytest.raises(InputError, match=rf"{cells}\[1\] is float32 \[4, 111\] for 111 labels: it is transposed"):
        load_dataset(tmp_path / "b.mat", split="60/15/25")


@pytest.mark.parametrize(
    ("names", "options"),
    [
        (("X[0]", "X[1]"), {"split": "60/15/25"}),
        (("X1", "X2"), {"split": "60/15/25"}),
        (("img", "txt"), {"split": "60/15/25"}),
        (("img_tr", "txt_tr"), {"valid_share": 0.1}),
        (("train_sound", "train_touch"), {}),
        (("Train_sound", "Train_touch"), {}),
    ],
)
def test_all_transposed_views_are_named_with_the_line_that_mends_each(tmp_path, names, options):
    """However the views lie in the file, the message is the same, and its lines make the file right."""
    arrays = whole_arrays()
    views = dict(zip(names, (arrays["sound"], arrays["touch"]), strict=True))
    label = {"img_tr": "L_tr", "train_sound": "train_labels", "Train_sound": "Train_labels"}.get(names[0], "Y")
    content = {**views, label: arrays["labels"][:, None]}
    if not options.get("split"):  # the same rows for the other splits
        words = ("te",) if "valid_share" in options else ("valid", "test")
        content |= {re.sub("tr$|(?i:train)", word, key): x for word in words for key, x in content.items()}

    def saved(transposed):
        held = {key: x.T if key in transposed else x for key, x in content.items()}
        if "X[0]" in held:
            cells = np.empty((1, 2), object)
            cells[0, 0], cells[0, 1] = held.pop("X[0]"), held.pop("X[1]")
            held["X"] = cells
        scipy.io.savemat(tmp_path / "a.mat", held)
        return tmp_path / "a.mat"

    one, other = names
    both = rf"{one} is float32 [6, 111] and {other} is float32 [4, 111] for 111 labels: they are transposed, with an "
    with pytest.raises(InputError, match=re.escape(both)) as caught:
        load_dataset(saved(names), **options)
    assert str(caught.value).endswith(f"transpose them, in NumPy {one} = {one}.T; {other} = {other}.T")
    with pytest.raises(InputError, match=re.escape(f"transpose it, in NumPy {other} = {other}.T")):
        load_dataset(saved([other]), **options)
    load_dataset(saved([]), **options)


def test_y_is_a_modality_beside_labels_of_another_name():
    arrays = whole_arrays()
    for label in ("labels", "gt", "L"):
        named = {"X": arrays["sound"], "Y": arrays["touch"], label: arrays["labels"]}
        data = load_dataset(named, split="60/15/25")
        assert data.modalities == ("X", "Y")
        assert data.digest() != load_dataset(named, ("Y", "X"), split="60/15/25").digest()


def test_labels_may_be_one_cell_per_view(tmp_path):
    arrays = whole_arrays()
    cells = {"X": ("sound", "touch"), "Y": ("labels", "labels")}
    file = {}
    for name, parts in cells.items():
        file[name] = np.empty((2, 1), object)
        for i, part in enumerate(parts):
            file[name][i, 0] = arrays[part].reshape(len(arrays["labels"]), -1)
    scipy.io.savemat(tmp_path / "a.mat", file)
    same = {"view1": arrays["sound"], "view2": arrays["touch"], "labels": arrays["labels"]}
    data = load_dataset(tmp_path / "a.mat", split="60/15/25")
    assert data.digest() == load_dataset(same, split="60/15/25").digest()


def test_what_is_no_matrix_of_instances_is_left_out_and_named():
    arrays = {**whole_arrays(), "words": np.array(["a", "b"]), "n": np.array(7)}
    with pytest.warns(DatasetWarning, match="no matrices with a row for each of the 111 labels: words, n"):
        data = load_dataset(arrays, split="60/15/25")
    assert data.modalities == ("sound", "touch")
    assert load_dataset(arrays, ("touch", "sound"), split="60/15/25").modalities == ("touch", "sound")
    with pytest.raises(InputError, match="no modality 'smell'; found: sound, touch, words, n"):
        load_dataset(arrays, ("touch", "smell"), split="60/15/25")


@pytest.mark.parametrize("change", [lambda x: np.ma.masked_less(x, 0), lambda x: np.where(x < 0, None, x)])
def test_a_modality_with_missing_values_is_not_left_out(change):
    arrays = whole_arrays() | {"smell": change(np.random.default_rng(0).normal(size=(111, 3)))}
    with pytest.raises(InputError, match=r"arrays: smell.* (masked|missing).*; to load the others alone"):
        load_dataset(arrays, split="60/15/25")
    assert load_dataset(arrays, ("sound", "touch"), split="60/15/25").modalities == ("sound", "touch")


def test_a_damaged_modality_is_not_left_out(tmp_path):
    np.savez(tmp_path / "a.npz", **whole_arrays(), smell=np.full((111, 3), 7.125))
    content = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(content.replace(np.float64(7.125).tobytes(), np.float64(8.125).tobytes(), 1))
    with pytest.raises(InputError, match=r"array 'smell' is damaged .*; to load the others alone, name the modalities"):
        load_dataset(tmp_path / "a.npz", split="60/15/25")


def renamed(form, arrays=None):
    """Arrays with the keys that a form gives, from a split, `i`, `t` or `l`, and a running number of splits."""
    arrays = toy_arrays() if arrays is None else arrays
    of = {"i": "sound", "t": "touch", "l": "labels"}
    return {form(s, part): arrays[f"{s}_{name}"] for s in ("train", "test") for part, name in of.items()}


OTHER_KEYS = {
    "camel case": (
        lambda s, p: s[:2] + {"i": "Img", "t": "Txt", "l": "Lab"}[p],
        "--keys image=trImg,teImg text=trTxt,teTxt labels=trLab,teLab",
    ),
    "query": (
        lambda s, p: {"i": "A", "t": "B", "l": "L"}[p] + {"train": "_tr", "test": "_q"}[s],
        "--keys A=A_tr,A_q B=B_tr,B_q labels=L_tr,L_q",
    ),
    "train and query": (
        lambda s, p: {"train": "train_", "test": "query_"}[s] + {"i": "image", "t": "text", "l": "labels"}[p],
        "--keys image=train_image,query_image text=train_text,query_text labels=train_labels,query_labels",
    ),
    "query and database": (
        lambda s, p: p.upper() + {"train": "_tr", "test": "_query"}[s],
        "--keys image=I_tr,I_query text=T_tr,T_query labels=L_tr,L_query",
    ),
}


@pytest.mark.parametrize("case", OTHER_KEYS)
@pytest.mark.parametrize("cut", [{}, {"valid_share": 0.1}, {"split": "60/15/25"}])
def test_unknown_keys_name_the_flag_that_works(case, cut):
    form, hint = OTHER_KEYS[case]
    arrays = renamed(form)
    if "database" in case:
        arrays |= {f"{p}_database": np.ones((9, 2)) for p in "IT"}
    if case == "train and query" and "split" in cut:
        return  # it has a training split
    with pytest.raises(InputError) as caught:
        load_dataset(arrays, **cut)
    assert f"name the arrays with keys, such as {hint}" in str(caught.value)
    entries = hint.removeprefix("--keys ").split()
    assert len(load_dataset(arrays, keys=entries, valid_share=0.1).splits["test"]) == 27


def test_unknown_keys_without_splits_name_the_flag_that_works():
    whole = whole_arrays(("IAll", "TAll"), "LAll")
    with pytest.raises(InputError, match=r"no arrays of known names; .* --keys image=IAll text=TAll labels=LAll"):
        load_dataset(whole, split="60/15/25")
    entries = ["image=IAll", "text=TAll", "labels=LAll"]
    assert load_dataset(whole, keys=entries, split="60/15/25").modalities == ("image", "text")
    for names, labels in ((("X", "Z"), "y0"), (("feats", "other"), "lab9")):
        with pytest.raises(InputError, match="name the arrays with keys"):
            load_dataset(whole_arrays(names, labels), split="60/15/25")


def test_the_flag_for_keys_may_be_repeated(tmp_path, capsys):
    whole = whole_arrays(("IAll", "TAll"), "LAll")
    np.savez(tmp_path / "a.npz", **whole)
    flags = ["--data-path", str(tmp_path / "a.npz"), "--split", "60/15/25"]
    keys = ["--keys", "image=IAll", "--keys", "text=TAll", "labels=LAll"]
    assert data_main(["info", "mine", *flags, *keys]) == 0
    assert "image: " in capsys.readouterr().out
    assert data_main(["info", "mine", *flags, *keys, "--keys", "image=TAll"]) == 2
    assert "keys: image is given twice; name it once" in capsys.readouterr().err
    assert (
        train_main(
            [
                *flags,
                *keys,
                "--epochs",
                "1",
                "--hidden-dims",
                "4",
                "--batch-size",
                "30",
                "--workdir",
                str(tmp_path / "run"),
            ]
        )
        == 0
    )


@pytest.mark.parametrize("name", ["y", "target", "class", "gt", "id", "sound_id", "sound_label"])
def test_a_modality_of_one_column_may_have_any_name(name):
    arrays = toy_arrays()
    for s in ("train", "valid", "test"):
        arrays[f"{s}_{name}"] = arrays[f"{s}_sound"][:, :1]
    assert load_dataset(arrays, ("touch", name)).modalities == ("touch", name)
    given = {"id": ["ids"], "sound_id": ["ids"], "sound_label": ["sound_labels", "touch_labels"]}.get(name, [])
    for s in ("train", "valid", "test"):
        arrays |= {f"{s}_{x}": arrays[f"{s}_labels"] for x in given}
    assert load_dataset(arrays).modalities == ("sound", "touch", name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": "label"}, "train_label has shape [60], and is no modality; rename it to train_labels"),
        ({"ids": "id"}, "train_id has shape [60], and is no modality; rename it to train_ids"),
        ({"sound_ids": "sound_id"}, "train_sound_id has shape [60], and is no modality; rename it to train_ids"),
        ({"sound_labels": "sound_label"}, "sound_label has shape [60], and is no modality; rename it to train_sound_l"),
        ({"sound_mask": "sound_masks"}, "train_sound_masks has shape [60], and is no modality; rename it to train_sou"),
        ({"mask": "masks"}, "train_masks has shape [60], and is no modality; rename it to train_MODALITY_mask"),
    ],
)
@pytest.mark.parametrize("column", [False, True])
def test_other_words_for_labels_ids_and_masks_are_named(change, message, column):
    ((old, new),) = change.items()
    arrays = toy_arrays() if old != "labels" else {k: v for k, v in toy_arrays().items() if not k.endswith("labels")}
    for s in ("train", "valid", "test"):
        y = toy_arrays()[f"{s}_labels"] if "mask" not in old else np.ones(len(toy_arrays()[f"{s}_labels"]), bool)
        arrays[f"{s}_{new}"] = y[:, None] if column else y
    with pytest.raises(InputError) as caught:
        load_dataset(arrays)
    assert message.replace("[60]", "[60, 1]" if column else "[60]") in str(caught.value)
    if old != "labels":
        assert load_dataset(arrays, ("sound", "touch")).digest() == load_dataset(toy_arrays()).digest()


def test_arrays_are_named_by_keys(tmp_path):
    arrays, _ = whole_arrays(), None
    odd = {"A": arrays["sound"], "B": arrays["touch"], "C": arrays["labels"], "D": np.ones(3)}
    expected = load_dataset(arrays, split="60/15/25").digest()
    named = {"sound": "A", "touch": "B", "labels": "C"}
    (tmp_path / "keys.json").write_text(json.dumps(named))
    for keys in (named, ["sound=A", "touch=B", "labels=C"], str(tmp_path / "keys.json")):
        assert load_dataset(odd, keys=keys, split="60/15/25").digest() == expected
    splits = toy_arrays()
    keys = {m: [f"{s}_{m}" for s in ("train", "valid", "test")] for m in ("sound", "touch", "labels")}
    assert load_dataset(splits, keys=keys).digest() == load_dataset(splits).digest()
    two = {m: [f"train_{m}", f"test_{m}"] for m in ("sound", "touch", "labels")}
    assert load_dataset(splits, keys=two, valid_share=0.1).modalities == ("sound", "touch")
    with pytest.raises(InputError, match="no array 'Z'; found: A, B, C, D"):
        load_dataset(odd, keys={"sound": "A", "touch": "Z", "labels": "C"})
    with pytest.raises(InputError, match="keys sound=A,B,C,D: give NAME=KEY"):
        load_dataset(odd, keys={"sound": [*"ABCD"], "touch": "B", "labels": "C"})
    with pytest.raises(InputError, match="keys give one array for labels and one per split for others"):
        load_dataset({**odd, "E": arrays["touch"]}, keys={"sound": ("A", "A"), "touch": ("B", "E"), "labels": "C"})


def test_options_that_do_not_fit_are_refused_unless_taken_as_needed():
    arrays, train = toy_arrays(), {k: v for k, v in toy_arrays().items() if not k.startswith("valid")}
    with pytest.raises(InputError, match="has the splits train, valid, test; split 60/15/25 cuts data without splits"):
        load_dataset(arrays, split="60/15/25")
    with pytest.raises(InputError, match=r"has a validation split; valid_share 0.1 would make another"):
        load_dataset(arrays, valid_share=0.1)
    with pytest.raises(InputError, match=r"has the splits train, test; .* take validation from .* valid_share"):
        load_dataset(train, split="60/15/25")
    with pytest.raises(InputError, match=r"valid_share 0.1 needs a training split"):
        load_dataset(whole_arrays(), valid_share=0.1)
    with pytest.raises(InputError, match="leave valid_share out"):
        load_dataset(whole_arrays(), split="60/15/25", valid_share=0.1)
    with pytest.raises(InputError, match="emoji has its splits already, and valid_share is for files and arrays"):
        load_dataset("emoji", valid_share=0.1)
    with pytest.raises(InputError, match="leave it out, or give the file with --data-path, to the run or to prepare"):
        load_dataset("xmedia", valid_share=0.1)
    with pytest.raises(InputError, match="arrays has its splits already"):
        load_dataset(load_dataset(arrays), split="60/15/25")
    lenient = load_dataset(arrays, keys={"x": ("a", "b")}, split="60/15/25", as_needed=True)
    assert lenient.digest() == load_dataset(arrays).digest()
    with pytest.raises(InputError, match="2 instances are too few for the split test"):
        load_dataset({k: v[::60] for k, v in whole_arrays().items()}, split="60/15/25")


@pytest.mark.parametrize("split", [(60, 15, 25), [0.6, 0.15, 0.25], np.array([60, 15, 25])])
def test_a_split_may_be_three_numbers(split):
    expected = load_dataset(whole_arrays(), split="60/15/25")
    assert load_dataset(whole_arrays(), split=split).digest() == expected.digest()


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"split": 60}, "split 60: give the percentages"),
        ({}, {"split": (60, 40)}, r"split \(60, 40\): give the percentages"),
        ({}, {"split": "100/0/0"}, "each above 0 and with the sum 100"),
        ({}, {"split": "60/15/25", "split_seed": "a"}, "split_seed 'a': must be an integer"),
        ({}, {"valid_share": "x"}, "valid_share 'x': must be a number greater than 0 and less than 1"),
        ({}, {"valid_share": 0.0}, r"valid_share 0\.0: must be a number greater than 0 and less than 1"),
        ({}, {"valid_share": 1}, "valid_share 1: must be a number greater than 0 and less than 1"),
        ({}, {"split_seed": 1}, "split_seed 1 needs split or valid_share"),
        ({}, {"keys": 5}, "keys 5: give a mapping of names to keys"),
        ({}, {"keys": [5]}, r"keys \[5\]: give a mapping"),
        ({5: np.ones(3)}, {}, "the key 5 is no text"),
    ],
)
def test_arguments_of_other_types_are_refused_in_one_line(change, options, message):
    with pytest.raises(InputError, match=message) as caught:
        load_dataset({**whole_arrays(), **change}, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("held", ["sorted by class", "shuffled"])
def test_validation_and_test_of_the_published_sets_have_the_same_classes(tmp_path, monkeypatch, held):
    """Pascal Sentence and XMedia: the first test rows of each class, in whatever order the rows lie."""
    arrays = small_set()
    y = np.concatenate([arrays["valid_labels"], arrays["test_labels"]])
    order = np.argsort(y, kind="stable") if held == "sorted by class" else np.arange(len(y))
    for part in ("labels", "image", "text"):
        rows = np.concatenate([arrays[f"valid_{part}"], arrays[f"test_{part}"]])[order]
        arrays[f"valid_{part}"], arrays[f"test_{part}"] = rows[: SIZES["valid"]], rows[SIZES["valid"] :]
    y = y[order]
    rows = np.concatenate([arrays["valid_image"], arrays["test_image"]])
    for name, write, valid in (("pascal-sentence", pascal, 16), ("xmedia", xmedia, 12)):
        sizes = {**SIZES, "valid": valid, "test": 32 - valid}
        dims = {m: DIMS[m] for m in ("image", "text")}
        facts = dataclasses.replace(CATALOG[name], classes=CLASSES, sizes=sizes, dims=dims)
        monkeypatch.setitem(CATALOG, name, facts)
        path = tmp_path / name
        data = load_dataset(write(path, arrays), set_name=name)
        chosen = first_per_class(y, valid)
        np.testing.assert_array_equal(data.splits["valid"].features["image"], rows[chosen])
        np.testing.assert_array_equal(data.splits["test"].features["image"], rows[~chosen])
        assert [np.bincount(data.splits[s].labels["text"]).tolist() for s in ("valid", "test")] == [
            np.bincount(y[part]).tolist() for part in (chosen, ~chosen)
        ]
        assert data.metadata["cut"]["rule"] == "the first rows of each class"


def test_classes_that_only_one_of_validation_and_test_has_are_a_warning():
    arrays = toy_arrays()
    arrays["valid_labels"] = arrays["valid_labels"] % 2
    arrays["class_names"] = ["ant", "bee", "cat"]
    with pytest.warns(DatasetWarning, match=r"1 of 3 classes have test samples but no validation sample \(cat\);"):
        load_dataset(arrays)
    arrays["test_labels"] = np.full(27, 2)
    with pytest.warns(DatasetWarning, match=r"\(cat\), and 2 of 3 classes have validation .*\(ant, bee\)"):
        load_dataset(arrays)


def test_classes_of_a_single_modality_without_validation_samples_are_a_warning():
    arrays = toy_arrays()
    message = r"sound: 1 of 3 classes have test samples but no validation sample \(0\); validation then"
    with pytest.warns(DatasetWarning, match=message):
        load_dataset(arrays | {"valid_sound_mask": arrays["valid_labels"] != 0})
    own = {f"{s}_{m}_labels": arrays[f"{s}_labels"] for s in ("train", "valid", "test") for m in ("sound", "touch")}
    own |= {k: v for k, v in arrays.items() if not k.endswith("labels")}
    own["valid_touch_labels"] = own["valid_touch_labels"] % 2
    with pytest.warns(
        DatasetWarning, match=r": touch: 1 of 3 classes have test samples but no validation sample \(2\)"
    ):
        load_dataset(own)


def test_arrays_that_look_like_a_modality_and_are_not_used_are_named():
    arrays = toy_arrays()
    more = {"valid_smell": np.ones((24, 2)), "smell_train": np.ones((60, 2)), "tr_smell": np.ones((60, 2))}
    with pytest.warns(DatasetWarning, match="not used: valid_smell, smell_train, tr_smell, train_touch_ids;"):
        load_dataset({**arrays, **more, "train_touch_ids": np.arange(60), "note": np.ones(3)})


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_the_word_for_a_split_may_be_in_upper_case(split):
    arrays = toy_arrays(("sound", "touch", "smell"))
    for old in (f"{split}_smell", f"{split}_"):
        named = {k.replace(k, k.capitalize()) if k.startswith(old) else k: v for k, v in arrays.items()}
        assert load_dataset(named).digest() == load_dataset(arrays).digest()
    with pytest.raises(InputError, match="arrays has a validation split; valid_share"):
        load_dataset({k.replace("valid_", "Val_"): v for k, v in arrays.items()}, valid_share=0.1)
    with pytest.raises(InputError, match="both mean valid_sound"):
        load_dataset({**arrays, "Val_sound": arrays["valid_sound"]})


def test_matrices_with_the_rows_of_a_split_that_are_not_used_are_named(tmp_path):
    arrays = toy_arrays() | {"dev2_smell": np.ones((24, 2)), "rest": np.ones((60, 2)), "centres": np.ones((3, 2))}
    np.savez(tmp_path / "a.npz", **arrays)
    for source in (arrays, tmp_path / "a.npz"):
        with pytest.warns(DatasetWarning, match="not used: dev2_smell, rest; the layout is"):
            data = load_dataset(source)
        assert data.digest() == load_dataset(toy_arrays()).digest()
    load_dataset(arrays, ("sound", "touch"))  # chosen by the user
    with pytest.warns(DatasetWarning, match="not used: TEST_touch_x, Tr_smell;"):
        load_dataset(toy_arrays() | {"TEST_touch_x": np.ones((27, 2)), "Tr_smell": np.ones((60, 2))})


def test_matrices_with_the_columns_of_a_modality_and_labels_without_a_split_are_named():
    arrays = toy_arrays()
    touch, sound = (np.ones((99, arrays[f"train_{m}"].shape[1])) for m in ("touch", "sound"))
    more = {"database_touch": touch, "database_sound": sound, "database_labels": np.ones(99, int)}
    without = {k: v for k, v in arrays.items() if not k.startswith("valid")}
    for data, cut in ((arrays, {}), (without, {"valid_share": 0.1})):
        with pytest.warns(
            DatasetWarning, match="not used: database_labels, database_touch, database_sound; the layout is"
        ):
            load_dataset(data | more, **cut)
        with pytest.warns(
            DatasetWarning, match="not used: sound_labels, foo_labels, touch_mask, unlabeled; the layout is"
        ):
            load_dataset(
                data
                | {"sound_labels": np.ones(60, int), "foo_labels": np.ones(9, int), "touch_mask": np.ones(60, bool)}
                | {"unlabeled": sound},
                **cut,
            )


def test_statistics_of_a_modality_are_not_named():
    arrays = toy_arrays()
    d = arrays["train_sound"].shape[1]
    assert d not in (len(arrays["train_labels"]), len(arrays["valid_labels"]), len(arrays["test_labels"]))
    statistics = {"sound_mean": np.ones((1, d)), "pca": np.eye(d), "centres": np.ones((3, d))}
    assert load_dataset(arrays | statistics).digest() == load_dataset(arrays).digest()  # warnings are errors
    with pytest.warns(DatasetWarning, match="not used: more; the layout is"):
        load_dataset(arrays | statistics | {"more": np.ones((d + 1, d))})


def test_matrices_beside_a_published_layout_are_named():
    arrays = small_set()
    short = {
        f"{n}_{a}": arrays[f"{s}_{b}"]
        for s, n in (("train", "tr"), ("test", "te"))
        for a, b in (("img", "image"), ("txt", "text"), ("img_lab", "labels"))
    }
    short["retrieval_img"] = np.ones((33, arrays["train_image"].shape[1]))
    with pytest.warns(DatasetWarning, match="not used: retrieval_img; the layout is"):
        load_dataset(short, valid_share=0.1)
    whole = whole_arrays(("X1", "X2"), "Y") | {"Z": np.ones((111, 3)), "note": np.ones(4)}
    assert len(whole["Y"]) == 111
    with pytest.warns(DatasetWarning, match="not used: Z; to use them, name the arrays with keys"):
        load_dataset(whole, split="60/15/25")


@pytest.mark.slow
def test_a_run_is_scored_and_searched_on_the_split_that_it_was_cut_to(tmp_path):
    from mrl_jax import evaluate, grid, sweep, train
    from mrl_jax.search.searcher import search

    arrays = whole_arrays()
    np.savez(tmp_path / "whole.npz", a=arrays["sound"], b=arrays["touch"], c=arrays["labels"])
    cut = {"data_path": str(tmp_path / "whole.npz"), "keys": ("sound=a", "touch=b", "labels=c"), "split": "60/15/25"}
    config = toy_config(**cut, split_seed=2)
    result = train(config, tmp_path / "run")
    described = json.loads((tmp_path / "run/data.json").read_text())
    assert described["metadata"]["cut"]["seed"] == 2
    assert described["instances"] == {"train": 66, "valid": 17, "test": 28}
    again = evaluate(tmp_path / "run")
    assert again["map"] == result.scores["test"]["best"]["map"]
    assert search(tmp_path / "run", row="sound:test:27")["results"]
    other = {k: v for k, v in toy_arrays().items()}
    assert evaluate(tmp_path / "run", data=other)["map"]  # other data have splits of their own
    runs = sweep(grid(config, split_seed=[2, 3]), tmp_path / "sweep")
    assert len(runs.runs) == 2
    tests = [json.loads(p.read_text())["sha256"] for p in sorted((tmp_path / "sweep/runs").glob("*/data.json"))]
    assert len(set(tests)) == 2
