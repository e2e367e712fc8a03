"""A table in memory as arrays of the project's own layout.

Rows of a modality without a value are missing samples: null, NaN or None in its column of lists, or in all of its
columns of numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from mrl_jax.data.dataset import SPLITS
from mrl_jax.data.formats.columns import (
    LISTS,
    NUMBER,
    OTHER,
    SPLIT_NUMBERS,
    TEXT,
    NoNumbersError,
    Roles,
    is_labels,
    is_shown,
    kind_of,
    roles_of,
    value_type,
)
from mrl_jax.data.formats.errors import RefusedError
from mrl_jax.data.formats.limits import text_array

__all__ = ["Table", "TableArrays", "arrays_of_table", "float_type", "floats", "in_splits"]


@dataclass(frozen=True)
class Table:
    """Columns of a table.

    Attributes:
        columns: name -> Arrow array, all of one length; or a matrix of numbers, like a column of lists.
        refused: name -> the kind of its first value, and why it cannot be read; for columns that are not in `columns`.
        class_names: column -> names of the classes that its numbers stand for.
        ids: a name for every row that is not in a column, or None.
        on_request: columns that are there only for a user who names them.
        named: what the columns are, where their names do not say it: as in `roles_of`.
    """

    columns: dict[str, Any]
    refused: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ids: np.ndarray | None = None
    on_request: frozenset[str] = frozenset()
    named: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def kinds(self) -> dict[str, str]:
        """Column -> its kind."""
        kinds = {n: LISTS if isinstance(x, np.ndarray) else kind_of(x.type) for n, x in self.columns.items()}
        return kinds | {name: kind for name, (kind, _) in self.refused.items()}

    def __len__(self) -> int:
        return max((len(array) for array in self.columns.values()), default=0)


class TableArrays(NamedTuple):
    """Arrays of a table.

    Attributes:
        arrays: `{split}_{modality}` float [N, D]; `{split}_labels` or `{split}_{modality}_labels` [N] (one-hot
            [N, K] from several columns); `{split}_ids` str [N]; `{split}_{modality}_mask` bool [N] where rows are
            missing. Without `{split}_` where the table has no column of splits. And `class_names` [K], if known.
        roles: what the columns are.
    """

    arrays: dict[str, np.ndarray]
    roles: Roles


def arrays_of_table(table: Table, named: Mapping[str, Any] | None = None) -> TableArrays:
    """Read a table.

    Args:
        table: its columns.
        named: as in `roles_of`.

    Raises:
        RefusedError: the columns do not have this layout; names the column and the first row (counted from 0).
    """
    if not len(table):
        raise RefusedError("has no rows; give one per instance")
    try:
        asked = {name for columns in (named or {}).values() for name in columns}
        there = {name: kind for name, kind in table.kinds.items() if name not in table.on_request - asked}
        roles = roles_of(there, named)
    except NoNumbersError as error:
        raise _with_row(table, error) from None
    used = [*roles.features.values(), *roles.plain.values(), (roles.split,)]
    if bad := next((name for columns in used for name in columns if name in table.refused), None):
        raise RefusedError(f"column {bad!r} {table.refused[bad][1]}")
    arrays, present = dict[str, np.ndarray](), dict[str, np.ndarray]()
    for modality, columns in roles.features.items():
        x = _lists(table, columns[0]) if table.kinds[columns[0]] == LISTS else _numbers(table, columns)
        present[modality] = _check_present(x, modality, columns)
        arrays[modality] = x
        if not present[modality].all():
            arrays[f"{modality}_mask"] = present[modality]
    for role, columns in roles.plain.items():
        needed = present.get(role.removesuffix("_labels"), np.ones(len(table), bool))
        if is_labels(role):
            arrays[role] = _labels(table, columns, needed)
        else:
            arrays[role] = _shown(table, columns[0]) if is_shown(role) else _ids(table, columns[0])
    if "ids" not in arrays and table.ids is not None:
        arrays["ids"] = table.ids
    if (names := _class_names(table, roles)) is not None:
        arrays["class_names"] = np.array(names)
    if roles.split is not None:
        arrays = in_splits(arrays, _splits(table, roles.split))
    return TableArrays(arrays, roles)


def _with_row(table: Table, error: NoNumbersError) -> RefusedError:
    """The error with the first value that is no number."""
    column = error.column
    if column in table.refused:
        return RefusedError(f"column {column!r} {table.refused[column][1]}")
    if table.kinds[column] == TEXT:
        for row, text in enumerate(_without_dictionary(table.columns[column]).to_pylist()):
            if text is not None and not _is_float(text):
                return RefusedError(f"column {column!r}, row {row} is {text[:40]!r}: the column {error.problem}")
    if table.kinds[column] == OTHER:
        return RefusedError(f"column {column!r} is of type {table.columns[column].type}: the column {error.problem}")
    return error


def _is_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def in_splits(arrays: Mapping[str, np.ndarray], splits: np.ndarray) -> dict[str, np.ndarray]:
    """Arrays of all rows, cut into the splits whose index in `SPLITS` each row has [N]."""
    cut = {key: x for key, x in arrays.items() if key == "class_names"}
    for number in np.unique(splits).tolist():
        rows = splits == number
        cut |= {f"{SPLITS[number]}_{key}": x[rows] for key, x in arrays.items() if key != "class_names"}
    return cut


def _numbers(table: Table, columns: tuple[str, ...]) -> np.ndarray:
    """Columns of numbers as a matrix [N, D], NaN where a value is missing."""
    out: np.ndarray = np.empty((len(table), len(columns)), float_type([table.columns[c].type for c in columns]))
    for j, column in enumerate(columns):
        out[:, j] = floats(table.columns[column])
    return out


def float_type(kinds: list[Any]) -> type:
    """The type of a matrix of columns: float32 where it holds all values of these types exactly, else float64."""
    return np.float32 if all(str(kind) in _SHORT for kind in kinds) else np.float64


_SHORT = ("float", "float16", "float32", "halffloat", "int8", "int16", "uint8", "uint16", "bool")


def floats(array: Any) -> np.ndarray:
    """A column of numbers as floats of `float_type`, NaN where it is null [N]."""
    import pyarrow as pa
    import pyarrow.types as pt

    array = _without_dictionary(array)
    if pt.is_boolean(array.type):
        array = array.cast(pa.int8())
    kind = pa.float32() if float_type([array.type]) is np.float32 else pa.float64()
    return array.cast(kind, safe=False).to_numpy(zero_copy_only=False)


def _lists(table: Table, column: str) -> np.ndarray:
    """A column of lists as a matrix [N, D], NaN in rows and places without a value."""
    import pyarrow.compute as pc

    array = table.columns[column]
    if isinstance(array, np.ndarray):
        return array.astype(np.float32 if array.dtype.name in _SHORT else np.float64)
    lengths = pc.list_value_length(array).to_numpy(zero_copy_only=False)
    rows = np.flatnonzero(array.is_valid().to_numpy(zero_copy_only=False))
    if not len(rows):
        return np.full((len(array), 1), np.nan, np.float32)
    width = int(lengths[rows[0]])
    if (empty := lengths[rows] == 0).any():
        raise RefusedError(
            f"column {column!r}, row {rows[empty.argmax()]} is an empty list; give null where a sample is missing"
        )
    if (other := lengths[rows] != width).any():
        row = rows[other.argmax()]
        raise RefusedError(
            f"column {column!r}, row {row} has {int(lengths[row])} numbers, but row {rows[0]} has {width}; give lists "
            "of one length"
        )
    values = floats(pc.list_flatten(array))
    out: np.ndarray = np.full((len(array), width), np.nan, float_type([value_type(array.type)]))
    out[rows] = values.reshape(len(rows), width)
    return out


def _check_present(x: np.ndarray, modality: str, columns: tuple[str, ...]) -> np.ndarray:
    """bool [N], which rows have a sample; the rows of others become zeros, in place.

    Raises:
        RefusedError: a row misses some of its values, or all rows do, or a value is infinite.
    """
    missing = np.isnan(x)
    absent = missing.all(axis=1)
    if absent.all():
        raise RefusedError(f"{_of(columns)}: {modality} is missing in every row; fill some, or leave it out")
    for bad, problem in (
        (
            missing & ~absent[:, None],
            f"is missing (null or NaN), but other values of {modality} are there; fill it, or empty all of {modality} "
            "in this row, which marks a missing sample",
        ),
        (np.isinf(x), "is infinite; features must be finite: correct it, or leave the row out"),
    ):
        if bad.any():
            row = int(bad.any(axis=1).argmax())
            column = int(bad[row].argmax())
            place = f", number {column}" if len(columns) == 1 and x.shape[1] > 1 else ""
            raise RefusedError(f"column {columns[min(column, len(columns) - 1)]!r}, row {row}{place} {problem}")
    x[absent] = 0
    return ~absent


def _of(columns: tuple[str, ...]) -> str:
    return f"column {columns[0]!r}" if len(columns) == 1 else f"columns {columns[0]!r} to {columns[-1]!r}"


def _plain(table: Table, column: str, needed: np.ndarray, what: str) -> np.ndarray:
    """Numbers or text [N]; values that are missing and not needed become one of the others."""
    import pyarrow as pa

    array = _without_dictionary(table.columns[column])
    kind = kind_of(array.type)
    if kind not in (TEXT, NUMBER):
        raise RefusedError(f"column {column!r} is of type {array.type}; {what} must be whole numbers or text")
    gone = array.is_null(nan_is_null=True).to_numpy(zero_copy_only=False)
    if (gone & needed).any():
        row, count = int((gone & needed).argmax()), int((gone & needed).sum())
        raise RefusedError(
            f"column {column!r}, row {row} is missing ({count} such row{'s' * (count > 1)}); every row needs a value: "
            "fill it, or drop the row"
        )
    if kind == TEXT:
        texts = array.cast(pa.large_string()).to_pylist()
        other = next((text for text in texts if text is not None), "")
        return text_array([other if text is None else text for text in texts], array.nbytes)
    if pa.types.is_decimal(array.type):
        array = array.cast(pa.float64())
    values = array.fill_null(pa.scalar(0).cast(array.type)).to_numpy(zero_copy_only=False)
    return np.where(gone, values[~gone][0] if not gone.all() else 0, values) if gone.any() else values


def _without_dictionary(array: Any) -> Any:
    import pyarrow.types as pt

    return array.dictionary_decode() if pt.is_dictionary(array.type) else array


def _labels(table: Table, columns: tuple[str, ...], needed: np.ndarray) -> np.ndarray:
    """Labels [N], or one-hot [N, K] from several columns."""
    if len(columns) == 1:
        return _plain(table, columns[0], needed, "labels")
    return np.stack([_plain(table, column, needed, "one-hot labels") for column in columns], axis=1).astype(np.float64)


def _ids(table: Table, column: str) -> np.ndarray:
    return _plain(table, column, np.ones(len(table), bool), "ids").astype(np.str_)


def _shown(table: Table, column: str) -> np.ndarray:
    """Texts [N], empty where there is none."""
    import pyarrow as pa

    texts = _without_dictionary(table.columns[column]).cast(pa.large_string())
    return np.array(texts.fill_null("").to_pylist(), np.str_)


def _class_names(table: Table, roles: Roles) -> tuple[str, ...] | None:
    """The names of the classes, if the table has some for all of its labels, or labels are columns named by class."""
    labels = [columns for role, columns in roles.plain.items() if is_labels(role)]
    names = {columns if len(columns) > 1 else table.class_names.get(columns[0]) for columns in labels}
    return names.pop() if len(names) == 1 else None


def _splits(table: Table, column: str) -> np.ndarray:
    """The split of each row as an index in `SPLITS` [N]."""
    array = _without_dictionary(table.columns[column])
    if kind_of(array.type) != TEXT:
        raise RefusedError(f"column {column!r} is of type {array.type}; it must be text: train, valid or test")
    names = array.to_pylist()
    numbers = np.array([SPLIT_NUMBERS.get(str(name).strip().lower(), -1) for name in names], np.int8)
    if (numbers < 0).any():
        row = int((numbers < 0).argmax())
        raise RefusedError(f"column {column!r}, row {row} is {names[row]!r}; use train, valid or test")
    return numbers
