"""Text, tables, sparse and masked arrays of every container become plain arrays, or are refused in one line."""

from collections import ChainMap, UserDict
from types import MappingProxyType

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from toy import toy_arrays

from mrl_jax import InputError, load_dataset
from mrl_jax.data.values import plain_array
from mrl_jax.errors import DatasetWarning
from mrl_jax.eval.embedded import check_embedded

WORDS = np.array(["fox", "cat", "dog"])
TEXTS = {
    "list": lambda y: y.tolist(),
    "tuple": lambda y: tuple(y.tolist()),
    "objects": lambda y: y.astype(object),
    "bytes": lambda y: np.char.encode(y),
    "objects of bytes": lambda y: np.char.encode(y).astype(object),
    "variable width": lambda y: y.astype(np.dtypes.StringDType()),
    "column of objects": lambda y: y.astype(object)[:, None],
    "numpy words": lambda y: np.array([np.str_(one) for one in y], object),
    "Series": pd.Series,
    "Series of strings": lambda y: pd.Series(y, dtype="string"),
    "Series with an index": lambda y: pd.Series(y, index=np.arange(len(y))[::-1]),
    "Categorical": pd.Categorical,
    "Series of categories": lambda y: pd.Series(y, dtype="category"),
    "Index": pd.Index,
    "one column of a table": lambda y: pd.DataFrame({"label": y}),
}


@pytest.mark.parametrize("container", TEXTS)
def test_names_are_labels_whatever_holds_them(container):
    arrays = toy_arrays()
    expected = load_dataset({k: WORDS[v] if k.endswith("labels") else v for k, v in arrays.items()})
    held = {k: TEXTS[container](WORDS[v]) if k.endswith("labels") else v for k, v in arrays.items()}
    data = load_dataset(held)
    assert data.class_names == ("cat", "dog", "fox")
    assert data.digest() == expected.digest()


def torch():
    """PyTorch, which the extra `bench` brings."""
    return pytest.importorskip("torch")


NUMBERS = {
    "list": lambda x: x.tolist(),
    "tuple of rows": lambda x: tuple(map(tuple, x.tolist())),
    "objects": lambda x: x.astype(object),
    "objects of rows": lambda x: pd.Series(list(x)).to_numpy(),
    "Series of rows": lambda x: pd.Series(list(x)),
    "DataFrame": pd.DataFrame,
    "DataFrame of several types": lambda x: pd.DataFrame(
        {i: c.astype(f"f{4 * (i % 2 + 1)}") for i, c in enumerate(x.T)}
    ),
    "DataFrame of nullable numbers": lambda x: pd.DataFrame(x).astype("Float64"),
    "sparse": scipy.sparse.csr_array,
    "sparse matrix": scipy.sparse.csc_matrix,
    "unmasked": np.ma.masked_invalid,
    "tensor": lambda x: torch().tensor(x, requires_grad=True),
    "list of tensors": lambda x: [torch().tensor(row, requires_grad=True) for row in x],
    "sparse tensor": lambda x: torch().tensor(x).to_sparse(),
}


@pytest.mark.parametrize("container", NUMBERS)
def test_features_are_read_whatever_holds_them(container):
    arrays = toy_arrays()
    held = {k: v if k.endswith("labels") else NUMBERS[container](v) for k, v in arrays.items()}
    assert load_dataset(held).digest() == load_dataset(arrays).digest()


@pytest.mark.parametrize("blank", ["", "  "])
def test_empty_names_of_classes_are_refused(blank):
    arrays = toy_arrays()
    names = np.array(["fox", blank, "dog"])
    held = {k: names[v] if k.endswith("labels") else v for k, v in arrays.items()}
    row = int((arrays["train_labels"] == 1).argmax())
    with pytest.raises(InputError, match=f"train_labels: the label of row {row} is empty .* give it the name of its"):
        load_dataset(held)
    with pytest.raises(InputError, match="class_names: the name of class 1 is empty; give every class a name"):
        load_dataset(arrays | {"class_names": names})
    z = np.ones((3, 2))
    with pytest.raises(InputError, match=r"the label of row 1 of a is empty \(1 such rows\); give it the name"):
        check_embedded({"a": z, "b": z}, names)
    with pytest.raises(InputError, match="class_names: the name of class 1 is empty; give every class a name"):
        check_embedded({"a": z, "b": z}, [0, 1, 2], class_names=names)


def dummies(names, columns=None):
    """One-hot labels as a DataFrame, its columns in this order."""
    table = pd.get_dummies(pd.Series(names))
    return table if columns is None else table[columns]


ORDERS = {
    "equal": (None, None),
    "another order": (["fox", "dog", "cat"], ["cat", "fox", "dog"]),
    "a split in another order": (None, ["dog", "fox", "cat"]),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("cut", [{}, {"valid_share": 0.2}, {"split": "60/20/20"}])
def test_columns_of_labels_are_classes_whatever_their_order(order, cut):
    arrays = {k: WORDS[v] if k.endswith("labels") else v for k, v in toy_arrays().items()}
    if "valid_share" in cut:
        arrays = {k: v for k, v in arrays.items() if not k.startswith("valid")}
    if "split" in cut:
        arrays = {k.removeprefix("train_"): v for k, v in arrays.items() if k.startswith("train")}
    expected = load_dataset(arrays, **cut)
    orders = dict(zip(("train_labels", "test_labels"), ORDERS[order], strict=True)) | {"labels": ORDERS[order][1]}
    held = {k: dummies(v, orders.get(k)) if k.endswith("labels") else v for k, v in arrays.items()}
    data = load_dataset(held, **cut)
    for split in ("train", "valid", "test"):
        for m in data.modalities:
            names = [np.array(d.class_names)[d.splits[split].labels[m]] for d in (data, expected)]
            np.testing.assert_array_equal(*names)


def test_columns_of_labels_may_be_numbers_or_lack_classes():
    arrays = toy_arrays()
    for values in (WORDS, np.array([7, 2, 5])):
        held = {k: dummies(values[v]) if k.endswith("labels") else v for k, v in arrays.items()}
        held["test_labels"] = dummies(values[arrays["test_labels"] % 2])  # without a third class
        with pytest.warns(DatasetWarning, match="1 of 3 classes have validation samples but no test sample"):
            data = load_dataset(held)
        assert data.class_names == tuple(sorted(map(str, values)))
        expected = values.astype(str)[arrays["test_labels"] % 2]
        np.testing.assert_array_equal(np.array(data.class_names)[data.splits["test"].labels["touch"]], expected)
    order = ["dog", "fox", "cat"]
    held = {k: dummies(WORDS[v]) if k.endswith("labels") else v for k, v in arrays.items()} | {"class_names": order}
    data = load_dataset(held)
    assert data.class_names == tuple(order)
    np.testing.assert_array_equal(np.array(order)[data.splits["valid"].labels["sound"]], WORDS[arrays["valid_labels"]])
    numbered = {k: pd.get_dummies(v) if k.endswith("labels") else v for k, v in arrays.items()} | {"class_names": order}
    numbered["test_labels"] = numbered["test_labels"][[2, 0, 1]]
    data = load_dataset(numbered)
    np.testing.assert_array_equal(data.splits["test"].labels["sound"], arrays["test_labels"])
    with pytest.raises(
        InputError, match="train_labels has the column 'fox', which is not in class_names; add it there"
    ):
        load_dataset(held | {"class_names": ["dog", "cat", "cow"]})
    twice = dummies(WORDS[arrays["test_labels"]]).set_axis(["fox", "dog", "fox"], axis=1)
    with pytest.raises(InputError, match="test_labels has two columns 'fox'; give every column a name of its own"):
        load_dataset(held | {"test_labels": twice})


@pytest.mark.parametrize("mapping", [MappingProxyType, UserDict, lambda x: ChainMap({}, x)])
def test_columns_are_found_by_name_in_any_mapping(mapping):
    arrays = toy_arrays()
    columns = [f"f{i}" for i in range(arrays["train_sound"].shape[1])]
    held = {k: dummies(WORDS[v]) if k.endswith("labels") else v for k, v in arrays.items()}
    held["test_labels"] = held["test_labels"][["fox", "cat", "dog"]]
    held |= {k: pd.DataFrame(v, columns=columns) for k, v in arrays.items() if k.endswith("sound")}
    held["test_sound"] = held["test_sound"][columns[::-1]]
    assert load_dataset(mapping(held)).digest() == load_dataset(held).digest()


def test_columns_of_features_are_the_same_in_every_split():
    arrays = toy_arrays()
    width = arrays["train_sound"].shape[1]
    columns = [f"f{i}" for i in range(width)]
    held = {k: pd.DataFrame(v, columns=columns) if k.endswith("sound") else v for k, v in arrays.items()}
    held["test_sound"] = held["test_sound"][columns[::-1]]
    data = load_dataset(held)
    assert data.digest() == load_dataset(arrays).digest()
    held["test_sound"] = held["test_sound"].rename(columns={"f0": "g"})
    with pytest.raises(InputError, match="test_sound has no column 'f0', which train_sound has; a modality needs the"):
        load_dataset(held)
    held["test_sound"] = arrays["test_sound"]
    assert load_dataset(held).digest() == data.digest()


def test_columns_of_labels_of_embeddings_are_classes():
    y, z = WORDS[np.arange(30) % 3], np.random.default_rng(0).normal(size=(30, 4))
    expected = check_embedded({"a": z, "b": z}, y)
    for labels in (dummies(y), {"a": dummies(y), "b": dummies(y, ["dog", "fox", "cat"])}):
        found = check_embedded({"a": z, "b": z}, labels)
        assert sorted(found.class_names) == list(expected.class_names)
        for m in ("a", "b"):
            np.testing.assert_array_equal(np.array(found.class_names)[found.labels[m].argmax(axis=1)], y)


def test_integers_in_objects_and_a_series_are_labels():
    arrays = toy_arrays()
    for change in (lambda y: y.astype(object), lambda y: pd.Series(y, dtype="Int64")):
        held = {k: change(v) if k.endswith("labels") else v for k, v in arrays.items()}
        assert load_dataset(held).digest() == load_dataset(arrays).digest()


def test_integers_in_tensors_are_labels():
    arrays = toy_arrays()
    held = {k: torch().tensor(v) if k.endswith("labels") else v for k, v in arrays.items()}
    assert load_dataset(held).digest() == load_dataset(arrays).digest()


def test_an_open_hdf5_file_is_a_mapping_of_arrays(tmp_path):
    arrays = toy_arrays()
    named = {k: WORDS[v].astype(object) if k.endswith("labels") else v for k, v in arrays.items()}
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for key, value in named.items():
            file[key] = value
    with h5py.File(tmp_path / "a.h5") as file:
        assert load_dataset(file).digest() == load_dataset(named).digest()
    assert load_dataset(tmp_path / "a.h5").digest() == load_dataset(named).digest()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.ma.masked_equal([1, 2, 3], 2), "x is a masked array with 1 masked values"),
        (["a", None], "the value 1 is missing (None)"),
        (np.array([1.5, np.nan, "a"], object), "the value 1 is missing (nan)"),
        (pd.Series(["a", pd.NA], dtype="string"), "the value 1 is missing"),
        (np.array([1, "a"], object), "holds objects of the types int, str"),
        (np.array([{"a": 1}], object), "holds objects of the types dict"),
        ([[1, 2], [3]], "rows differ in length"),
        (pd.Series([[1, 2], [3]]), "rows differ in length"),
        (np.array([b"\xff"], object), "not UTF-8"),
        (pd.DataFrame({"a": [1], "b": ["x"]}), "column 'b' holds no numbers"),
        (scipy.sparse.csr_array((10**6, 10**9)), "sparse matrix of shape [1000000, 1000000000], which would take"),
    ],
)
def test_what_is_no_plain_array_is_refused(value, message):
    with pytest.raises(InputError) as caught:
        plain_array(value, "x")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "shape", "filled"),
    [
        ("test_labels", (6,), False),
        ("Y", (6, 1), False),
        ("test_labels", (3, 2), False),
        ("test_a_mask", (6,), False),
        ("test_a", (3, 2), True),
    ],
)
def test_only_features_are_advised_to_be_filled(name, shape, filled):
    with pytest.raises(InputError) as caught:
        plain_array(np.ma.masked_equal(np.arange(6).reshape(shape), 2), name)
    assert ("x.filled(0)" in str(caught.value)) == filled
    assert ("leave their rows out of every array, or give them their true values" in str(caught.value)) != filled


@pytest.mark.parametrize("source", [(1, 2), None, 3])
def test_a_source_of_another_type_is_refused(source):
    with pytest.raises(
        InputError, match=r"give a mapping of arrays, a table .*, a path, the name of a set, or a Dataset"
    ):
        load_dataset(source)
