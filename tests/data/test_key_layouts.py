"""Every public file layout loads to the same arrays; ambiguous and contradictory files are refused."""

import dataclasses

import h5py
import numpy as np
import pytest
import scipy.io
from layout_files import CELLS, CLASSES, DIMS, LAYOUT_FILES, SIZES, pascal, small_set, wikipedia_2010, write_layout

from mrl_jax import InputError, load_dataset
from mrl_jax.data.published.catalog import CATALOG
from mrl_jax.data.published.key_layouts import recognise
from mrl_jax.errors import DatasetWarning


@pytest.fixture
def small_catalog(monkeypatch):
    """The catalog with the sizes of the small test files."""
    for name, facts in CATALOG.items():
        small = dataclasses.replace(
            facts, classes=CLASSES, sizes=SIZES, dims={m: DIMS[m] for m in ("image", "text")}, class_names=()
        )
        monkeypatch.setitem(CATALOG, name, small)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*count classes from 1:mrl_jax.errors.DatasetWarning")
@pytest.mark.parametrize("layout", LAYOUT_FILES)
def test_every_layout_loads_to_the_same_arrays(layout, tmp_path, small_catalog):
    arrays = small_set(CELLS if "five views" in layout else ("image", "text"))
    path, set_name = write_layout(layout, tmp_path, arrays)
    data = load_dataset(path, set_name=set_name)
    expected = load_dataset(arrays)
    assert data.modalities == expected.modalities
    for s in SIZES:
        for m in data.modalities:
            np.testing.assert_array_equal(data.splits[s].features[m], expected.splits[s].features[m])
            np.testing.assert_array_equal(data.splits[s].labels[m], expected.splits[s].labels[m])
            assert data.splits[s].features[m].dtype == np.float32
            assert data.splits[s].labels[m].dtype == np.int32
    assert data.digest() == expected.digest()


def test_the_views_of_a_cell_array_can_be_chosen(tmp_path, small_catalog):
    path, _ = write_layout("xmedianet, five views", tmp_path, small_set(CELLS))
    data = load_dataset(path, ("video", "image"), set_name="xmedianet")
    assert data.dims == {"video": 2, "image": 6}


def test_a_layout_without_validation_rows_needs_the_name_of_its_set(tmp_path):
    path, _ = write_layout("wikipedia, follow-ups", tmp_path, small_set())
    with pytest.raises(
        InputError, match=r"no validation rows, and 32 test rows; take them .* or name a published set by"
    ):
        load_dataset(path)
    message = (
        r"no validation rows; wikipedia takes 231 of the test rows for validation, and there are 32 in all: take .*0\.1"
    )
    with pytest.raises(InputError, match=message):
        load_dataset(path, set_name="wikipedia")


def test_the_set_is_recognised_by_its_number_of_training_rows(tmp_path, monkeypatch):
    path, _ = write_layout("wikipedia, follow-ups", tmp_path, small_set())
    monkeypatch.setitem(CATALOG, "wikipedia", dataclasses.replace(CATALOG["wikipedia"], sizes=SIZES))
    assert {s: len(x) for s, x in load_dataset(path).splits.items()} == SIZES


def test_what_differs_from_the_published_set_is_a_warning(tmp_path, small_catalog, monkeypatch):
    facts = dataclasses.replace(
        CATALOG["inria-websearch"], classes=100, sizes={**SIZES, "test": 4366}, dims={"image": 4096, "text": 5}
    )
    monkeypatch.setitem(CATALOG, "inria-websearch", facts)
    path, _ = write_layout("inria, short", tmp_path, small_set())
    with pytest.warns(DatasetWarning) as caught:
        data = load_dataset(path, set_name="inria-websearch")
    [message] = [str(w.message) for w in caught]
    assert "4 classes; INRIA-Websearch has 100" in message
    assert "40 / 12 / 20 instances (train / valid / test); INRIA-Websearch has 40 / 12 / 4,366" in message
    assert "6 image features; INRIA-Websearch has 4096" in message
    assert "text features" not in message
    assert len(data.metadata["deviations"]) == 3


def test_what_contradicts_itself_is_an_error(tmp_path, small_catalog):
    arrays = small_set()
    arrays["test_text"] = arrays["test_text"][:, :-1]
    path, name = write_layout("inria, short", tmp_path, arrays)
    with pytest.raises(InputError, match="test_text has 4"):
        load_dataset(path, set_name=name)
    arrays = small_set()
    arrays["train_text"] = arrays["train_text"][:-1]
    path, name = write_layout("inria, short", tmp_path, arrays)
    with pytest.raises(InputError, match="train_text has 39"):
        load_dataset(path, set_name=name)


def test_the_release_of_2010_brings_class_names_and_ids(tmp_path, small_catalog):
    folder = wikipedia_2010(tmp_path / "w", small_set())
    data = load_dataset(folder, set_name="wikipedia")
    assert data.class_names == ("art", "biology", "geography", "history")
    assert data.splits["valid"].ids[0] == "text0 image0"
    assert data.splits["test"].ids[0] == "text12 image12"
    assert load_dataset(folder / "raw_features.mat", set_name="wikipedia").digest() == data.digest()
    (folder / "testset_txt_img_cat.list").unlink()
    with pytest.raises(InputError, match=r"testset_txt_img_cat.list does not exist"):
        load_dataset(folder, set_name="wikipedia")


@pytest.mark.parametrize("line", ["a b 3", "a\tb\tx", "a\tb\t³", "a\tb\t-1", "a\tb", "a\tb\t99999999999"])
def test_a_damaged_list_is_reported_with_its_line(tmp_path, small_catalog, line):
    folder = wikipedia_2010(tmp_path / "w", small_set())
    path = folder / "trainset_txt_img_cat.list"
    lines = path.read_text().splitlines()
    lines[4] = line
    path.write_text("\n".join(lines))
    with pytest.raises(InputError, match="line 5 is not text id, image id and class number"):
        load_dataset(folder, set_name="wikipedia")


def test_a_folder_with_one_data_file_is_read_as_this_file(tmp_path, small_catalog):
    (tmp_path / "deep/er").mkdir(parents=True)
    path, name = write_layout("inria, short", tmp_path / "deep/er", small_set())
    (tmp_path / "deep/readme.txt").write_text("hello")
    assert load_dataset(tmp_path, set_name=name).digest() == load_dataset(path, set_name=name).digest()
    write_layout("own npz", tmp_path / "deep", small_set(seed=1))
    assert load_dataset(tmp_path, set_name=name).digest() == load_dataset(path, set_name=name).digest()
    with pytest.raises(InputError, match=r"one data file .* is needed; .*INRIA-Websearch\.mat.*own\.npz"):
        load_dataset(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="data files found: none"):
        load_dataset(tmp_path / "empty")


def test_a_pascal_file_with_two_arrays_is_refused(tmp_path, small_catalog):
    folder = pascal(tmp_path / "p", small_set())
    scipy.io.savemat(folder / "train_txt.mat", {"a": np.ones((40, 5)), "b": np.ones(3)})
    with pytest.raises(InputError, match=r"train_txt\.mat must hold one array; found: a, b"):
        load_dataset(folder, set_name="pascal-sentence")


def test_unknown_keys_are_listed_with_the_known_layouts(tmp_path):
    np.savez(tmp_path / "odd.npz", foo=np.ones(3), bar=np.ones(2))
    with pytest.raises(InputError, match=r"the layout is \{train.*published layouts.*keys found: foo, bar"):
        load_dataset(tmp_path / "odd.npz")


def test_a_complete_own_layout_is_not_taken_for_a_public_one(tmp_path):
    arrays = small_set(("image", "text", "audio"))
    names = {"image": "imgs_deep", "text": "text", "audio": "imgs"}
    own = {}
    for key, value in arrays.items():
        split, part = key.split("_")
        if part != "labels":
            own[f"{split}_{names[part]}"] = value
            own[f"{split}_{names[part]}_labels"] = arrays[f"{split}_labels"]
    own["train_text_mask"] = np.arange(40) > 2
    np.savez(tmp_path / "own.npz", **own)
    data = load_dataset(tmp_path / "own.npz")
    assert data.modalities == ("imgs_deep", "text", "imgs")
    assert "text" in data.splits["train"].masks


def test_what_a_public_layout_leaves_out_is_reported(tmp_path, small_catalog):
    arrays = small_set(("image", "text", "audio"))
    short = {}
    for s, n in (("train", "train"), ("valid", "valid"), ("test", "test")):
        short |= {f"{n}_img": arrays[f"{s}_image"], f"{n}_txt": arrays[f"{s}_text"]}
        short |= {f"{n}_img_lab": arrays[f"{s}_labels"], f"{n}_audio": arrays[f"{s}_audio"]}
    with pytest.warns(DatasetWarning, match=r"not used: train_audio, valid_audio, test_audio; to use them, rename"):
        assert load_dataset(short).modalities == ("image", "text")
    with pytest.raises(InputError, match="train_txt_mask marks missing samples"):
        load_dataset({**short, "train_txt_mask": np.arange(40) > 2})
    names = np.array(["ant", "bee", "cat", "dog"])
    with pytest.warns(DatasetWarning):
        data = load_dataset({**short, "class_names": names, "train_ids": np.arange(40)})
    assert data.class_names == tuple(names)
    assert data.splits["train"].ids[3] == "3"


def test_half_a_validation_split_is_refused(tmp_path, small_catalog):
    path, name = write_layout("nus-wide", tmp_path, small_set())
    with h5py.File(path, "a") as file:
        del file["valid_imgs_deep"]
    with pytest.raises(InputError, match="lacks a key for valid_image"):
        load_dataset(path, set_name=name)


def test_the_class_names_of_a_file_stay(tmp_path, small_catalog, monkeypatch):
    facts = dataclasses.replace(CATALOG["wikipedia"], class_names=("art", "biology", "geography", "history"))
    monkeypatch.setitem(CATALOG, "wikipedia", facts)
    assert load_dataset(small_set(), set_name="wikipedia").class_names == facts.class_names
    own = {**small_set(), "class_names": np.array(["w", "x", "y", "z"])}
    assert load_dataset(own, set_name="wikipedia").class_names == ("w", "x", "y", "z")


def test_recognition_needs_all_of_a_layout():
    assert recognise(["train_imgs_deep", "train_texts", "test_imgs_deep"])[0] == "own"
    assert recognise(["train_image", "train_labels"])[0] == "own"


def test_masks_of_numbered_views_are_read():
    rng = np.random.default_rng(0)
    arrays = {"X1": rng.normal(size=(60, 4)), "X2": rng.normal(size=(60, 3)), "Y": np.arange(60) % 3}
    data = load_dataset(arrays | {"X1_mask": np.arange(60) % 7 != 0}, split="60/15/25")
    present = [split.present("view1").sum() for split in data.splits.values()]
    assert sum(present) == 60 - 9
    assert all(split.present("view2").all() for split in data.splits.values())
