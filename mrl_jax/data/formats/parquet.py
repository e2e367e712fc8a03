"""Parquet files as arrays of the project's own layout; columns of lists and numbered columns become features.

Columns go by their names, or as the user says (`columns.roles_of`). Input is one file, or a folder of shards. A column
`split`, the names of the shards (`train*.parquet`, `valid*.parquet`,
`test*.parquet`) or those of their folders give the split of each row; without them the arrays have no splits.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mrl_jax.data.dataset import SPLITS
from mrl_jax.data.formats.arrow_table import float_type, floats
from mrl_jax.data.formats.columns import (
    EMPTY,
    LISTS,
    NUMBER,
    SPLIT_NUMBERS,
    Roles,
    is_labels,
    is_shown,
    is_text,
    kind_of,
    lacking,
    roles_of,
    value_type,
)
from mrl_jax.data.formats.errors import DamagedError, Read, RefusedError, input_errors
from mrl_jax.data.formats.limits import allowance, check_memory, text_array
from mrl_jax.data.formats.sandbox import limit_process, probe_in_worker
from mrl_jax.errors import InputError

__all__ = ["open_parquet", "probe", "split_of_name"]

_PREFIXES = (*(f"{s}_" for s in SPLITS), "")  # of the keys of rows in each split, and of rows without a split
_NONE = len(SPLITS)  # of rows without a split
_ROWS, _VALUES = 4096, 1 << 22  # upper bounds on the rows and numbers in memory while a column is read


@dataclass(frozen=True)
class _Shard:
    """One file.

    Attributes:
        path: where it is.
        file: the open file.
        size: its size in bytes.
        roles: what its columns are.
        leaves: column -> number of its values in the footer.
        splits: the split of each row as an index into `_PREFIXES` [rows].
    """

    path: Path
    file: Any
    size: int
    roles: Roles
    leaves: dict[str, int]
    splits: np.ndarray


def split_of_name(name: str) -> int | None:
    """Index in `SPLITS` of the split that the name of a file or folder begins with; None if there is none."""
    name = name.lower().removeprefix("split=")  # as partitioned tables name folders
    return next((split for word, split in SPLIT_NUMBERS.items() if name.startswith(word)), None)


def open_parquet(
    paths: Sequence[Path],
    stack: contextlib.ExitStack,
    named: Callable[[Path], str] | None = None,
    keys: Mapping[str, Sequence[str]] | None = None,
) -> tuple[dict[str, Read], bool, str]:
    """List one Parquet file, or the shards of a folder.

    Args:
        paths: the files, in order.
        stack: closes them.
        named: the name that may give the split of a file, instead of a column `split`; None if there is none.
        keys: as `named` of `roles_of`, or names of the arrays without keys.

    Returns:
        `{split}_{modality}` float [N, D]; `{split}_labels` or `{split}_{modality}_labels` [N]; `{split}_ids` str [N];
        and, where a modality has missing rows (which become zeros), `{split}_{modality}_mask` bool [N], True = present.
        Without `{split}_` where nothing gives the split. Whether the keys are columns. And what the table lacks to be
        a data set, as `columns.lacking`.

    Raises:
        InputError: pyarrow is missing, or the columns do not have this layout.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise InputError(f"data file {str(paths[0])!r} is Parquet, which needs pyarrow; pip install pyarrow") from error
    if keys:
        try:
            reads, lacks = _open_shards(paths, stack, named, keys)
            return reads, True, lacks
        except InputError:
            with contextlib.suppress(InputError):
                reads, _ = _open_shards(paths, stack, named, None)
                if all(key in reads for of_one in keys.values() for key in of_one):
                    return reads, False, ""
            raise
    reads, lacks = _open_shards(paths, stack, named, None)
    return reads, False, lacks


def _open_shards(
    paths: Sequence[Path],
    stack: contextlib.ExitStack,
    named: Callable[[Path], str] | None,
    keys: Mapping[str, Sequence[str]] | None,
) -> tuple[dict[str, Read], str]:
    shards = []
    for path in paths:
        with input_errors(path):
            shards.append(_open_shard(path, stack, named, keys))
            if _described(shards[-1]) != _described(shards[0]):
                raise RefusedError(f"has other columns than {paths[0].name!r}; write all files with the same columns")
    without = [shard for shard in shards if (shard.splits == _NONE).all()]
    if 0 < len(without) < len(shards):
        raise InputError(
            f"data file {str(without[0].path)!r} has no split in its name and no column 'split', but other files of "
            "the folder have; name the files train*.parquet, valid*.parquet and test*.parquet"
        )
    roles, reads = shards[0].roles, dict[str, Read]()
    absent = {columns: _absent(shards, columns[0]) for columns in roles.features.values()}
    for index, prefix in enumerate(_PREFIXES):
        if not any((shard.splits == index).any() for shard in shards):
            continue
        for modality, columns in roles.features.items():
            one = partial(_read_features, shards, columns[0], index)
            is_lists = _kinds(shards[0].file)[columns[0]] == LISTS
            reads[f"{prefix}{modality}"] = one if is_lists else partial(_read_numbers, shards, columns, index)
            if absent[columns][index]:
                reads[f"{prefix}{modality}_mask"] = partial(_read_mask, shards, columns[0], index)
        for role, columns in roles.plain.items():
            one = partial(_read_plain, shards, columns[0], index, not is_labels(role), is_shown(role))
            reads[f"{prefix}{role}"] = (
                one if len(columns) == 1 else partial(_read_numbers, shards, columns, index, False)
            )
        if len(names := next((c for role, c in roles.plain.items() if role == "labels"), ())) > 1:
            reads["class_names"] = partial(np.array, names)
    return reads, lacking(roles)


def _open_shard(
    path: Path,
    stack: contextlib.ExitStack,
    named: Callable[[Path], str] | None,
    keys: Mapping[str, Sequence[str]] | None,
) -> _Shard:
    import pyarrow.parquet as pq

    raw = stack.enter_context(path.open("rb"))
    size = os.fstat(raw.fileno()).st_size
    probe_in_worker("parquet", path, raw)
    limits = {"thrift_string_size_limit": size, "thrift_container_size_limit": size, "pre_buffer": False}
    file = pq.ParquetFile(raw, **limits)
    _check_metadata(file.metadata, size)
    texts = [field.name for field in file.schema_arrow if is_text(field.type)]
    # Texts stay dictionary-encoded: a long text that few bytes repeat must not be expanded for every row.
    file = pq.ParquetFile(raw, read_dictionary=texts, **limits)
    stack.callback(file.close)
    rows, roles = file.metadata.num_rows, roles_of(_kinds(file), keys)
    leaves = dict[str, int]()
    for c in range(file.metadata.num_columns):
        parts = file.metadata.schema.column(c).path.split(".")  # of lists NAME.list.element
        for end in range(1, len(parts) + 1):
            leaves.setdefault(".".join(parts[:end]), c)
    split = None if named is None else split_of_name(named(path))
    if split is not None:
        if roles.split is not None:
            raise RefusedError(
                f"has a split in its name and a column {roles.split!r}; drop the column, or give the file by itself"
            )
        return _Shard(path, file, size, roles, leaves, np.full(rows, split, np.int8))
    shard = _Shard(path, file, size, roles, leaves, np.full(rows, _NONE, np.int8))
    if roles.split is None:
        return shard
    splits, column = np.empty(rows, np.int8), roles.split
    for start, array in _batches(shard, column):
        if not is_text(array.type):
            raise RefusedError(f"column {column!r} is of type {array.type}; it must be text: train, valid or test")
        names = array.dictionary.to_pylist()
        codes = np.array([SPLIT_NUMBERS.get(name, -1) for name in names] + [-1], np.int8)
        numbers = codes[array.indices.fill_null(len(names)).to_numpy(zero_copy_only=False)]
        if (numbers < 0).any():
            row = int(np.flatnonzero(numbers < 0)[0])
            raise RefusedError(
                f"column {column!r}, row {start + row} is {array[row].as_py()!r}; use train, valid or test"
            )
        splits[start : start + len(array)] = numbers
    return replace(shard, splits=splits)


def probe(path: Path) -> int:
    """Read the metadata of every column in the footer, which can end the process.

    Called in a worker process by `probe_in_worker`.

    Args:
        path: the file.

    Returns:
        Exit status 0; errors are reported when the file is read.
    """
    import pyarrow.parquet as pq

    limit_process(path.stat().st_size)
    with contextlib.suppress(Exception):
        metadata = pq.read_metadata(path)
        for g in range(metadata.num_row_groups):
            group = metadata.row_group(g)
            for c in range(group.num_columns):
                str(group.column(c).statistics)
    return 0


def _check_metadata(metadata: Any, size: int) -> None:
    """Check the claims of the footer against the size of the file."""
    limit, packed, rows = allowance(size), 0, 0
    for g in range(metadata.num_row_groups):
        group = metadata.row_group(g)
        rows += group.num_rows
        for c in range(group.num_columns):
            chunk = group.column(c)
            packed += chunk.total_compressed_size
            claims = (8 * chunk.num_values, chunk.total_uncompressed_size, 8 * group.num_rows)
            if chunk.file_path:
                raise RefusedError("refers to data in other files, which are not read; write it as one file")
            if min(*claims, chunk.total_compressed_size) < 0 or max(claims) > limit:
                raise DamagedError(f"row group {g}, column {c} claims {max(claims)} bytes for a file of {size}")
    if packed > size or rows != metadata.num_rows or not 0 <= 8 * rows <= limit:
        raise DamagedError(f"{metadata.num_rows} rows in {packed} bytes are claimed for a file of {size}")


def _kinds(file: Any) -> dict[str, str]:
    """Column -> its kind."""
    schema = file.schema_arrow
    if len(set(schema.names)) != len(schema.names):
        raise RefusedError("has several columns of one name; name each once")
    return {field.name: kind_of(field.type) for field in schema}


def _described(shard: _Shard) -> tuple[Roles, list[str]]:
    """What the columns of a file are, and the types of those that are read."""
    roles, schema = shard.roles, shard.file.schema_arrow
    read = [column for columns in (*roles.features.values(), *roles.plain.values()) for column in columns]
    return Roles(*roles[:3]), [str(value_type(schema.field(column).type)) for column in read]


def _batches(shard: _Shard, column: str) -> Iterator[tuple[int, Any]]:
    """Batches of a column, each with the number of its first row."""
    for start, batch in _record_batches(shard, (column,)):
        yield start, batch.column(0)


def _record_batches(shard: _Shard, columns: tuple[str, ...]) -> Iterator[tuple[int, Any]]:
    """Batches of columns, each with the number of its first row."""
    metadata, what = shard.file.metadata, _of(columns)
    values = max((_chunk(shard, g, columns[0]).num_values for g in range(metadata.num_row_groups)), default=0)
    rows = max(1, min(_ROWS, _VALUES * max(1, metadata.num_rows) // max(1, values * len(columns))))
    start = 0
    for batch in shard.file.iter_batches(batch_size=rows, columns=list(columns), use_threads=False):
        if {*batch.schema.names} != {*columns}:
            raise DamagedError(f"no {what}")
        for array in batch.columns:
            array.validate(full=True)
        if start + len(batch) > len(shard.splits):
            break
        yield start, batch
        start += len(batch)
    if start != len(shard.splits):
        raise DamagedError(f"{what}: not {len(shard.splits)} rows as the others have")


def _of(columns: tuple[str, ...]) -> str:
    return f"column {columns[0]!r}" if len(columns) == 1 else f"columns {columns[0]!r} to {columns[-1]!r}"


def _chunk(shard: _Shard, group: int, column: str) -> Any:
    """Metadata of a column in a row group, from the footer."""
    return shard.file.metadata.row_group(group).column(shard.leaves[column])


def _of_split(
    shards: Sequence[_Shard], columns: tuple[str, ...], split: int
) -> Iterator[tuple[_Shard, np.ndarray, Any]]:
    """Batches of the rows of a split: their file, their row numbers in it, the values of the columns."""
    import pyarrow as pa

    for shard in shards:
        batches = _record_batches(shard, columns) if (shard.splits == split).any() else iter(())
        while True:
            with input_errors(shard.path, f" {_of(columns)}"):  # not around `yield`: it hides warnings of the caller
                start, batch = next(batches, (0, None))
                if batch is None:
                    break
                keep = shard.splits[start : start + len(batch)] == split
                chosen = batch.filter(pa.array(keep))
            if len(chosen):
                yield shard, start + np.flatnonzero(keep), chosen


def _absent(shards: Sequence[_Shard], column: str) -> list[bool]:
    """For each split, whether rows of the column are missing."""
    absent = np.zeros(len(_PREFIXES), bool)
    for shard in shards:
        groups = range(shard.file.metadata.num_row_groups)
        statistics = [_chunk(shard, g, column).statistics for g in groups]
        if all(s is not None and s.has_null_count and s.null_count == 0 for s in statistics):
            continue
        with input_errors(shard.path):
            for start, array in _batches(shard, column):
                null = array.is_null().to_numpy(zero_copy_only=False)
                absent |= np.bincount(shard.splits[start : start + len(array)][null], minlength=len(_PREFIXES)) > 0
    return absent.tolist()


def _read_mask(shards: Sequence[_Shard], column: str, split: int) -> np.ndarray:
    return np.concatenate(
        [batch.column(0).is_valid().to_numpy(zero_copy_only=False) for *_, batch in _of_split(shards, (column,), split)]
    )


def _read_features(shards: Sequence[_Shard], column: str, split: int) -> np.ndarray:
    """Features of a split [N, D]; missing rows are zeros."""
    count = sum(int((shard.splits == split).sum()) for shard in shards)
    out, first = None, 0
    for shard, rows, batch in _of_split(shards, (column,), split):
        array = batch.column(0)
        present = array.is_valid().to_numpy(zero_copy_only=False)
        with input_errors(shard.path, f" column {column!r}"):
            values = _list_values(array, rows[present], out.shape[1] if out is not None else None)
        if len(values):
            if out is None:
                size = sum(s.size for s in shards)
                check_memory(count * values.shape[1] * values.itemsize, size, f"column {column!r}")
                out = np.zeros((count, values.shape[1]), values.dtype)
            out[first + np.flatnonzero(present)] = values
        first += len(rows)
    if out is None:
        of = "" if split == _NONE else f" of {SPLITS[split]}"
        raise RefusedError(f"is missing in every row{of}; fill some, or leave the column out")
    return out


def _read_numbers(shards: Sequence[_Shard], columns: tuple[str, ...], split: int, missing: bool = True) -> np.ndarray:
    """Columns of numbers of a split as a matrix [N, D]; rows without a number are zeros, if they may be missing."""
    count = sum(int((shard.splits == split).sum()) for shard in shards)
    schema = shards[0].file.schema_arrow  # made anew at every access
    kind = float_type([schema.field(column).type for column in columns])
    with input_errors(shards[0].path, f" {_of(columns)}"):
        size = sum(shard.size for shard in shards)
        check_memory(count * len(columns) * np.dtype(kind).itemsize, size, _of(columns))
    out: np.ndarray = np.empty((count, len(columns)), kind)
    first = 0
    for shard, rows, batch in _of_split(shards, columns, split):
        block = out[first : first + len(rows)]
        with input_errors(shard.path):
            nulls = np.empty(block.shape, bool)
            for j, column in enumerate(columns):
                array = batch.column(column)
                nulls[:, j] = array.is_null().to_numpy(zero_copy_only=False)
                block[:, j] = floats(array)
            partial_row = nulls.any(axis=1) & ~(nulls.all(axis=1) & missing)
            if partial_row.any():
                row = int(partial_row.argmax())
                raise RefusedError(
                    f"column {columns[int(nulls[row].argmax())]!r}, row {rows[row]} is null; fill it"
                    + (f", or set all of {_of(columns)} to null there for a missing sample" if missing else "")
                )
            block[nulls.all(axis=1)] = 0
        first += len(rows)
    return out


def _list_values(array: Any, rows: np.ndarray, width: int | None) -> np.ndarray:
    """The lists that are present, as one array [lists, width]; `rows` are their row numbers, for messages."""
    import pyarrow.types as pt

    if pt.is_fixed_size_list(array.type):
        lengths = np.full(len(rows), array.type.list_size)
    else:
        lengths = array.drop_null().value_lengths().to_numpy(zero_copy_only=False)
    width = int(lengths[0]) if width is None and len(lengths) else width
    bad = np.flatnonzero(lengths != width)
    if len(bad):
        raise RefusedError(
            f"row {rows[bad[0]]} has {lengths[bad[0]]} numbers, but rows before it have {width}; store lists of one "
            "length"
        )
    values = array.flatten()
    if values.null_count:
        row = int(np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))[0]) // max(1, width or 0)
        raise RefusedError(
            f"row {rows[row]} has a null inside its list; store numbers only, or null for the whole list"
        )
    numbers = values.to_numpy(zero_copy_only=False).reshape(len(rows), width or 0)
    return numbers if numbers.dtype.kind == "f" else numbers.astype(np.float64)


def _read_plain(shards: Sequence[_Shard], column: str, split: int, as_text: bool, optional: bool = False) -> np.ndarray:
    """Labels, ids, or what is shown, of a split [N]; "" for null where values are optional."""
    import pyarrow.types as pt

    texts: list[str] = []
    numbers: list[np.ndarray] = []
    for shard, rows, batch in _of_split(shards, (column,), split):
        array = batch.column(0)
        with input_errors(shard.path, f" column {column!r}"):
            if array.null_count and not optional:
                null = np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))
                raise RefusedError(f"row {rows[null[0]]} is null; every row needs a value")
            if pt.is_dictionary(array.type) and is_text(array.type):
                names = array.dictionary.to_pylist()
                texts += ["" if i is None else names[i] for i in array.indices.to_pylist()]
            elif optional and kind_of(array.type) == EMPTY:
                texts += [""] * len(array)
            elif kind_of(array.type) == NUMBER:
                plain = array.cast("float64") if pt.is_decimal(array.type) else array
                numbers.append(plain.to_numpy(zero_copy_only=False))
                texts += map(str, numbers[-1].tolist()) if as_text else ()
            else:
                raise RefusedError(f"is of type {array.type}; store whole numbers or text")
    return np.concatenate(numbers) if numbers and not as_text else text_array(texts, sum(s.size for s in shards))
