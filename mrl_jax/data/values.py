"""Turn what users hold in memory into plain NumPy arrays: tables, sparse matrices, masked arrays, text of any kind."""

import numbers
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from mrl_jax.errors import InputError, first_line
from mrl_jax.tensors import from_tensor

__all__ = ["plain_array"]


def plain_array(value: Any, what: str) -> np.ndarray:
    """An array of numbers, truth values or text.

    Args:
        value: an array, a list or tuple, a pandas Series, Categorical or DataFrame, a SciPy sparse matrix, a tensor, an
            HDF5 dataset, or an array of Python objects.
        what: what it is, for messages.

    Returns:
        The same values; objects that are all text become str, objects that are all numbers become numbers, a sparse
        matrix becomes dense.

    Raises:
        InputError: masked or missing values, objects of other kinds or of several kinds, rows that differ in length, or
            a sparse matrix that does not fit into memory.
    """
    if isinstance(value, np.ma.MaskedArray):
        return _unmasked(value, what)
    if hasattr(value, "tocsr") and hasattr(value, "toarray"):  # SciPy sparse
        return _dense(value, what)
    value = from_tensor(value)
    _refuse_text_columns(value, what)
    try:
        array = np.asarray(value)
    except Exception as error:  # foreign types raise almost any error; nested lists of different lengths a ValueError
        reason = "rows differ in length" if "inhomogeneous" in str(error) else first_line(error)
        raise InputError(f"{what} is no array ({reason}); give an array of numbers or text") from error
    if array.dtype.kind == "T" or array.dtype.kind == "O":
        return _from_objects(array.astype(object), what)
    return array


def _unmasked(array: np.ma.MaskedArray, what: str) -> np.ndarray:
    hidden = np.ma.getmaskarray(array)
    if hidden.any():
        remedy = "leave their rows out of every array, or give them their true values (for labels, a class)"
        if (
            array.ndim == 2
            and 1 not in array.shape
            and not what.endswith(("labels", "mask", "ids", "shown", "class_names"))
        ):
            remedy = (
                "fill them (x.filled(0)), and mark rows without a sample in an array {train,valid,test}_MODALITY_mask"
            )
        raise InputError(
            f"{what} is a masked array with {int(hidden.sum())} masked values, which would be read as numbers; {remedy}"
        )
    return np.asarray(array.data)


def _dense(matrix: Any, what: str) -> np.ndarray:
    needed = int(np.prod(matrix.shape)) * matrix.dtype.itemsize
    half = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    if needed > half:
        raise InputError(
            f"{what} is a sparse matrix of shape {list(matrix.shape)}, which would take {needed >> 30} GiB as a dense "
            "one, as features must be; keep fewer columns"
        )
    return np.asarray(matrix.toarray())


def _refuse_text_columns(value: Any, what: str) -> None:
    """Refuse a table that has columns of numbers and of text, which is not features."""
    columns, dtypes = getattr(value, "columns", None), getattr(value, "dtypes", None)
    if columns is None or dtypes is None or len(columns) < 2:
        return
    kinds = [getattr(dtype, "kind", "O") in "iufb" for dtype in dtypes]
    if any(kinds) and not all(kinds):
        name = str(list(columns)[kinds.index(False)])
        raise InputError(f"{what}: column {name!r} holds no numbers, others do; give the columns of numbers alone")


def _from_objects(array: np.ndarray, what: str) -> np.ndarray:
    flat = array.ravel().tolist()
    for index, one in enumerate(flat):
        if _is_missing(one):
            raise InputError(f"{what}: the value {index} is missing ({one!r}); fill it, or leave its row out")
    if all(isinstance(one, str) for one in flat):
        return np.array(flat, np.str_).reshape(array.shape)
    if all(isinstance(one, bytes) for one in flat):
        return _decoded(flat, what).reshape(array.shape)
    if all(isinstance(one, numbers.Real | np.bool_) for one in flat):
        return _numbers(flat, what).reshape(array.shape)
    if array.ndim == 1 and all(isinstance(one, np.ndarray | list | tuple) for one in flat):  # a column of lists
        try:
            return plain_array(np.array([np.asarray(row) for row in flat]), what)
        except ValueError as error:
            raise InputError(f"{what}: rows differ in length; give lists of one length") from error
    kinds = sorted({type(one).__name__ for one in flat})
    raise InputError(f"{what} holds objects of the types {', '.join(kinds[:4])}; give numbers alone or text alone")


def _is_missing(one: Any) -> bool:
    # NaN differs from itself, and pandas.NA compares to itself.
    return one is None or type(one).__name__ in ("NAType", "NaTType") or (isinstance(one, float) and one != one)


def _decoded(flat: Sequence[bytes], what: str) -> np.ndarray:
    try:
        return np.array([one.decode() for one in flat], np.str_)
    except UnicodeDecodeError as error:
        raise InputError(f"{what} holds bytes that are not UTF-8; decode them first") from error


def _numbers(flat: Sequence[Any], what: str) -> np.ndarray:
    try:
        array = np.array(flat)
    except (OverflowError, ValueError) as error:
        raise InputError(f"{what} holds numbers beyond 64 bits; give smaller ones") from error
    if array.dtype.kind not in "iufb":
        array = array.astype(np.float64)  # fractions and integers beyond 64 bits
    return array
