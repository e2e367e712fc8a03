"""Labels of any form become 0..K-1; a warning or an error reports ambiguous ones."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import toy_arrays

from mrl_jax import InputError, load_dataset
from mrl_jax.data.label_forms import RawLabels, normalize_labels
from mrl_jax.errors import DatasetWarning

BASE = {"train": np.array([0, 1, 2, 3, 2]), "valid": np.array([1, 2, 0]), "test": np.array([3, 1])}
ROWS = {key: len(y) for key, y in BASE.items()}
FORMS = {
    "vector": lambda y: y,
    "column": lambda y: y[:, None],
    "row": lambda y: y[None],
    "float": lambda y: y.astype(float),
    "bytes": lambda y: y.astype(np.uint8),
    "one-hot": lambda y: np.eye(4)[y],
    "one-hot truth": lambda y: np.eye(4, dtype=bool)[y],
    "one-hot columns": lambda y: np.eye(4, dtype=int)[y].T,
    "from one": lambda y: y + 1,
    "column from one": lambda y: (y + 1)[:, None].astype(float),
    "names": lambda y: np.array(["ant", "bee", "cat", "dog"])[y],
}


def normalised(raw, num_classes=None, rows=ROWS, groups=None):
    labels = {
        key: RawLabels(y, np.ones(rows[key], bool), (groups or {}).get(key, ""), key.split("_")[0])
        for key, y in raw.items()
    }
    return normalize_labels(labels, num_classes, "file")


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_labels(form):
    labels, names = normalised({key: FORMS[form](y) for key, y in BASE.items()})
    for key, y in BASE.items():
        np.testing.assert_array_equal(labels[key], y)
        assert labels[key].dtype == np.int32
    assert names == (("ant", "bee", "cat", "dog") if form == "names" else None)


def test_forms_may_differ_between_splits():
    labels, _ = normalised({"train": np.eye(4)[BASE["train"]], "valid": BASE["valid"][:, None], "test": BASE["test"]})
    for key, y in BASE.items():
        np.testing.assert_array_equal(labels[key], y)


def test_a_split_that_lacks_class_0_is_not_shifted():
    labels, _ = normalised(BASE)
    np.testing.assert_array_equal(labels["test"], [3, 1])
    labels, _ = normalised({**BASE, "test": np.array([3, 2])})
    np.testing.assert_array_equal(labels["test"], [3, 2])


def test_a_split_that_counts_from_one_beside_others_from_zero_is_shifted_when_it_shows_every_class():
    train = np.array([0, 1, 2, 3])
    with pytest.warns(DatasetWarning, match="b count classes from 1, the others from 0"):
        full = normalised({"a": train, "b": train + 1}, rows={"a": 4, "b": 4})[0]
    np.testing.assert_array_equal(full["b"], train)
    partly = normalised({"a": train, "b": np.array([2, 4])}, rows={"a": 4, "b": 2})[0]
    np.testing.assert_array_equal(partly["b"], [2, 4])  # the check of classes refuses label 4 later
    with pytest.warns(DatasetWarning, match="b count classes from 1"):
        known = normalised({"a": train, "b": np.array([2, 4])}, 4, rows={"a": 4, "b": 2})[0]
    np.testing.assert_array_equal(known["b"], [1, 3])


def test_what_is_cut_from_one_array_counts_alike():
    # The validation rows, the first of the test rows, lack the last class.
    whole = np.array([1, 2, 3, 2, 4, 1, 3])
    raw = {"train": np.arange(4), "valid": whole[:4], "test": whole[4:]}
    with pytest.warns(DatasetWarning, match="test_file count classes from 1"):
        found, _ = normalised(
            raw, None, {"train": 4, "valid": 4, "test": 3}, dict.fromkeys(("valid", "test"), "test_file")
        )
    np.testing.assert_array_equal(found["valid"], whole[:4] - 1)
    np.testing.assert_array_equal(found["test"], whole[4:] - 1)


def test_modalities_of_a_split_count_alike_if_their_labels_agree_so():
    image = np.array([0, 1, 2, 0, 1, 2])
    rows = {"train_image": 6, "train_text": 6}
    with pytest.warns(DatasetWarning, match="train_text count classes from 1"):
        shifted = normalised({"train_image": image, "train_text": image + 1}, rows=rows)[0]
    np.testing.assert_array_equal(shifted["train_text"], image)
    text = np.array([3, 1, 2, 3, 1, 2])  # four classes, and modalities that differ where one has class 0
    kept = normalised({"train_image": image, "train_text": text}, rows=rows)[0]
    np.testing.assert_array_equal(kept["train_text"], text)


def test_one_hot_rows_count_from_zero_and_give_the_number_of_classes():
    numbers, hot = np.array([1, 2, 3, 4]), np.eye(4)[[1, 2, 3]]
    with pytest.warns(DatasetWarning, match="train count classes from 1"):
        found, _ = normalised({"train": numbers, "test": hot}, rows={"train": 4, "test": 3})
    np.testing.assert_array_equal(found["train"], numbers - 1)
    np.testing.assert_array_equal(found["test"], [1, 2, 3])
    with pytest.raises(InputError, match="differ in their number of classes: train has 4, test has 3"):
        normalised({"train": np.eye(4), "test": np.eye(3)[[0, 1]]}, rows={"train": 4, "test": 2})
    with pytest.raises(InputError, match="one-hot labels have 4 columns for 5 classes"):
        normalised({"train": np.eye(4)}, 5, {"train": 4})


def test_square_one_hot_labels_lie_as_those_of_the_other_splits():
    square, tall = np.eye(3)[[1, 2, 0]], np.eye(3)[[0, 1, 2, 2]]
    rows = {"train": 4, "test": 3}
    np.testing.assert_array_equal(normalised({"train": tall, "test": square}, rows=rows)[0]["test"], [1, 2, 0])
    np.testing.assert_array_equal(normalised({"train": tall.T, "test": square.T}, rows=rows)[0]["test"], [1, 2, 0])


def test_labels_of_missing_samples_do_not_matter():
    present = np.array([True, False, True, True])
    for odd in (-1, np.nan, 0, 99):
        labels, _ = normalize_labels({"a": RawLabels(np.array([1.0, odd, 2, 3]), present)}, None, "file")
        np.testing.assert_array_equal(labels["a"], [0, 0, 1, 2])
    labels, names = normalize_labels({"a": RawLabels(np.array(["x", "", "y", "x"]), present)}, None, "file")
    np.testing.assert_array_equal(labels["a"], [0, 0, 1, 0])
    assert names == ("x", "y")
    labels, _ = normalize_labels({"a": RawLabels(np.eye(3)[[0, 1, 2, 1]] * present[:, None], present)}, None, "file")
    np.testing.assert_array_equal(labels["a"], [0, 0, 2, 1])


def test_a_large_split_that_lacks_just_class_0_is_a_warning():
    train, test = np.arange(300) % 3, 1 + np.arange(100) % 2
    with pytest.warns(DatasetWarning, match=r"test holds every label 1\.\.2 and no 0; read as counted from 0"):
        found, _ = normalised({"train": train, "test": test}, rows={"train": 300, "test": 100})
    np.testing.assert_array_equal(found["test"], test)


def test_names_that_are_numbers_keep_their_order_and_bytes_are_names():
    labels, names = normalised({"train": np.array(["10", "2", "0", "2", "10"])}, rows={"train": 5})
    assert names == ("0", "2", "10")
    np.testing.assert_array_equal(labels["train"], [2, 1, 0, 1, 2])
    assert normalised({"train": np.array([b"cat", b"ant", b"cat", b"cat", b"bee"])}, rows={"train": 5})[1] == (
        "ant",
        "bee",
        "cat",
    )
    with pytest.raises(InputError, match="not UTF-8"):
        normalised({"train": np.array([b"\xff"] * 5)}, rows={"train": 5})


def test_a_partly_shifted_split_is_refused_by_the_data_set():
    arrays = toy_arrays()
    arrays["test_labels"] = np.where(arrays["test_labels"] == 0, 2, arrays["test_labels"] + 1)
    with pytest.raises(InputError, match=r"class 3 .* no training sample"):
        load_dataset(arrays)


def test_the_number_of_classes_decides_where_the_labels_alone_do_not():
    raw = {"train": np.array([1, 2, 3]), "test": np.array([1, 3])}
    rows = {"train": 3, "test": 2}
    np.testing.assert_array_equal(normalised(raw, None, rows)[0]["train"], [0, 1, 2])
    np.testing.assert_array_equal(normalised(raw, 3, rows)[0]["train"], [0, 1, 2])
    np.testing.assert_array_equal(normalised(raw, 4, rows)[0]["train"], [1, 2, 3])


@given(
    labels=st.lists(st.integers(0, 5), min_size=6, max_size=40),
    base=st.integers(0, 1),
    cut=st.integers(1, 5),
    form=st.sampled_from(["vector", "column", "row", "float"]),
)
@settings(deadline=None, max_examples=150, derandomize=True, database=None)
def test_both_bases_and_all_forms_agree(labels, base, cut, form):
    y = np.array([0, *labels])  # class 0 occurs once
    parts = {"train": y[:-cut], "test": y[-cut:]}
    raw = {key: FORMS[form](part + base) for key, part in parts.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DatasetWarning)
        found, _ = normalised(raw, None, {key: len(part) for key, part in parts.items()})
    for key, part in parts.items():
        np.testing.assert_array_equal(found[key], part)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (np.array([0, -1, 2, 3, 2]), "holds the label -1"),
        (np.array([0, 2**40, 2, 3, 2]), "labels must be 0..K-1 or 1..K"),
        (np.array([0, 1, 2, 3]), "for 5 instances"),
        (np.array(["a", "b", "c", "d", "e"]), "train holds names, valid holds numbers"),
        (np.array([0.5, 1, 2, 3, 2]), "not whole numbers"),
        (np.array([True, False, True, True, False]), "true and false"),
        (np.array([0j, 1, 2, 3, 2]), "must be integers, one-hot rows or names"),
        (np.zeros((5, 4)), "row 0 is not one-hot"),
        (np.array([[0, 1], [1, 1], [0, 1], [1, 0], [1, 0]]), "row 1 is not one-hot"),
        (np.array([[0, 2], [1, 0], [0, 1], [1, 0], [1, 0]]), "row 0 is not one-hot"),
        (np.zeros((5, 4, 2)), "must be integers"),
        (np.array([None] * 5), "the value 0 is missing"),
    ],
)
def test_what_is_no_label_is_refused(train, message):
    with pytest.raises(InputError, match=message) as caught:
        normalised({**BASE, "train": train})
    assert "\n" not in str(caught.value)


def test_names_of_a_file_give_the_order_of_its_classes():
    arrays = toy_arrays()
    words = np.array(["fox", "cat", "dog"])
    named = {k: words[v] if k.endswith("labels") else v for k, v in arrays.items()}
    assert load_dataset(named).class_names == ("cat", "dog", "fox")
    data = load_dataset({**named, "class_names": words})
    assert data.class_names == ("fox", "cat", "dog")
    np.testing.assert_array_equal(data.splits["train"].labels["sound"], arrays["train_labels"])
    with pytest.raises(InputError, match="label 'fox' is not in class_names"):
        load_dataset({**named, "class_names": np.array(["cat", "dog", "eel"])})
