"""Labels in any form become 0..K-1; what is ambiguous is told, not guessed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import toy_arrays

from mrl_jax import InputError, load_dataset
from mrl_jax.data.labels import normalize_labels

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


def normalised(raw, num_classes=None):
    return normalize_labels(raw, ROWS, num_classes, "file")


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
    full = normalize_labels({"a": train, "b": train + 1}, {"a": 4, "b": 4}, None, "file")[0]
    np.testing.assert_array_equal(full["b"], train)
    partly = normalize_labels({"a": train, "b": np.array([2, 4])}, {"a": 4, "b": 2}, None, "file")[0]
    np.testing.assert_array_equal(partly["b"], [2, 4])  # the check of classes refuses label 4 later


def test_a_partly_shifted_split_is_refused_by_the_data_set():
    arrays = toy_arrays()
    arrays["test_labels"] = np.where(arrays["test_labels"] == 0, 2, arrays["test_labels"] + 1)
    with pytest.raises(InputError, match=r"class 3 .* no training sample"):
        load_dataset(arrays)


def test_the_number_of_classes_decides_where_the_labels_alone_do_not():
    raw = {"train": np.array([1, 2, 3]), "test": np.array([1, 3])}
    rows = {"train": 3, "test": 2}
    np.testing.assert_array_equal(normalize_labels(raw, rows, None, "f")[0]["train"], [0, 1, 2])
    np.testing.assert_array_equal(normalize_labels(raw, rows, 3, "f")[0]["train"], [0, 1, 2])
    np.testing.assert_array_equal(normalize_labels(raw, rows, 4, "f")[0]["train"], [1, 2, 3])


@given(
    labels=st.lists(st.integers(0, 5), min_size=6, max_size=40),
    base=st.integers(0, 1),
    cut=st.integers(1, 5),
    form=st.sampled_from(["vector", "column", "row", "float"]),
)
@settings(deadline=None, max_examples=150, derandomize=True, database=None)
def test_both_bases_and_all_forms_agree(labels, base, cut, form):
    y = np.array([0, *labels])  # class 0 shows somewhere
    parts = {"train": y[:-cut], "test": y[-cut:]}
    raw = {key: FORMS[form](part + base) for key, part in parts.items()}
    found, _ = normalize_labels(raw, {key: len(part) for key, part in parts.items()}, None, "file")
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
        (np.array([None] * 5), "must be integers"),
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
