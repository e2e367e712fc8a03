"""The project's own layout of arrays: its keys, and arrays of a file under these keys."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from mrl_jax.data.formats import header_of, read_float32
from mrl_jax.data.formats.limits import Header
from mrl_jax.data.values import plain_array
from mrl_jax.errors import InputError

__all__ = ["ENDS", "LARGE", "LAYOUT", "SPLIT_WORDS", "Renamed", "Rows", "own_modalities", "transposed"]

LAYOUT = "{train,valid,test}_MODALITY and {train,valid,test}_labels (or {train,valid,test}_MODALITY_labels)"
"""Keys of the own layout, for messages."""
SPLIT_WORDS = {
    "train": ("train", "training", "tr"),
    "valid": ("valid", "val", "validation", "dev"),
    "test": ("test", "testing", "te"),
}
"""Split -> the words for it in keys of files; the first is that of the own layout."""
LARGE = 1 << 26
"""Bytes of an array above which its shape is checked before it is read."""
ENDS = ("labels", "mask", "ids", "shown")
"""Last words of keys of arrays that are no features."""


class Rows(NamedTuple):
    """Rows of an array of a file that belong to a split.

    Attributes:
        chosen: the rows, as NumPy indexes them.
        total: how many rows the array must have; None if it may have any number.
    """

    chosen: slice | np.ndarray
    total: int | None = None


class Renamed(Mapping[str, Any]):
    """Arrays of a file under the keys of the own layout; an own key may stand for a range of rows.

    Args:
        arrays: the arrays of the file.
        keys: own key -> key in the file.
        rows: own key -> its rows in the array of the file; all rows for keys without an entry.
        source: where the arrays come from, for messages.
    """

    def __init__(
        self, arrays: Mapping[str, Any], keys: Mapping[str, str], rows: Mapping[str, Rows], source: str
    ) -> None:
        self._arrays, self._keys, self._rows, self._source = arrays, keys, rows, source

    @property
    def file(self) -> Mapping[str, Any]:
        """The arrays under their keys in the file."""
        return self._arrays

    def origin(self, key: str) -> str:
        """The key in the file."""
        return self._keys[key]

    def __getitem__(self, key: str) -> Any:
        self._check_rows(key)
        return self._part(key, self._arrays[self._keys[key]])

    def __contains__(self, key: object) -> bool:
        return key in self._keys  # `Mapping` would read the array

    def read_float32(self, key: str) -> Any:
        """As `formats.read_float32`."""
        self._check_rows(key)
        return self._part(key, read_float32(self._arrays, self._keys[key]))

    def header(self, key: str) -> Header | None:
        """As `formats.header_of`; None for a range of rows."""
        return None if key in self._rows else header_of(self._arrays, self._keys[key])

    def _check_rows(self, key: str) -> None:
        """Refuse a large array that has not as many rows as there are labels, before it is read."""
        total = self._rows[key].total if key in self._rows else None
        header = None if total is None else header_of(self._arrays, self._keys[key])
        if header is not None and header.nbytes > LARGE and total not in header.shape:
            raise InputError(
                f"{self._source}: {self._keys[key]} is {header.dtype} {list(header.shape)} for {total} labels; row j "
                "of every array must be instance j: name the arrays to use as modalities, or save only these"
            )

    def _part(self, key: str, value: Any) -> Any:
        if key not in self._rows:
            return value
        name, (chosen, total) = f"{self._source}: {self._keys[key]}", self._rows[key]
        value = plain_array(value, name)
        if not value.ndim:
            raise InputError(f"{name} is a single {value.dtype}; give an array with a row per instance")
        is_features = not key.endswith(ENDS)
        if value.ndim == 2 and value.shape[0] == 1 and not is_features:
            value = value.ravel()  # labels as a row
        if total is not None and len(value) != total:
            if value.ndim != 2 or value.shape[1] != total:
                raise InputError(
                    f"{name} is {value.dtype} {list(value.shape)} for {total} labels; row j of every array must be "
                    "instance j: name the arrays to use as modalities, or save only these"
                )
            if is_features:
                raise InputError(f"{self._source}: {transposed(self._alike(key, value), total)}")
            value = value.T  # one-hot columns
        return value[chosen]

    def _alike(self, key: str, value: np.ndarray) -> dict[str, np.ndarray]:
        """Key in the file -> array, of a transposed array and of the others that are transposed like it."""
        split, found = key.partition("_")[0], {self._keys[key]: value}
        others = own_modalities(f"train_{k.partition('_')[2]}" for k in self._keys if k.startswith(f"{split}_"))
        for name in (self._keys[f"{split}_{m}"] for m in others if getattr(self._arrays, "is_small", True)):
            x = plain_array(self._arrays[name], f"{self._source}: {name}")
            if x.ndim == 2 and x.shape[1] == value.shape[1] != len(x):
                found[name] = x
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def own_modalities(keys: Iterable[str]) -> list[str]:
    """Names of the modalities in keys of the own layout, in the order of the keys.

    Names whose last word is `labels`, `mask`, `ids` or `shown` are none: arrays with these names belong to a modality.
    """
    names = [k.removeprefix("train_") for k in keys if k.startswith("train_")]
    return [name for name in names if name.rpartition("_")[2] not in ENDS]


def transposed(arrays: Mapping[str, np.ndarray], rows: int) -> str:
    """The message for transposed matrices.

    Args:
        arrays: name -> the matrix [D, N].
        rows: N.
    """
    shapes = " and ".join(f"{name} is {x.dtype} {list(x.shape)}" for name, x in arrays.items())
    they, them = ("they are", "them") if len(arrays) > 1 else ("it is", "it")
    lines = "; ".join(f"{name} = {name}.T" for name in arrays)
    return (
        f"{shapes} for {rows} labels: {they} transposed, with an instance per column; rows must be instances: "
        f"transpose {them}, in NumPy {lines}"
    )
