"""Text, tables, sparse and masked arrays of every container become plain arrays, or are refused in one line."""

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from toy import toy_arrays

from mrl_jax import InputError, load_dataset
from mrl_jax.data.values import plain_array

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


@pytest.mark.parametrize("source", [(1, 2), None, 3, pd.DataFrame({"a": [1]})])
def test_a_source_of_another_type_is_refused(source):
    with pytest.raises(InputError, match="give a mapping of arrays, a path, the name of a set, or a Dataset"):
        load_dataset(source)
