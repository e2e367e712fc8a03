"""Parquet files as arrays of the project's own layout; columns of lists become features.

Input is one file, or a folder of shards. A column `split`, the names of the shards (`train*.parquet`, `valid*.parquet`,
`test*.parquet`) or those of their folders give the split of each row; without them the arrays have no splits.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mrl_jax.data.dataset import SPLITS
from mrl_jax.data.formats.errors import DamagedError, Read, RefusedError, input_errors
from mrl_jax.data.formats.limits import allowance, check_memory, text_array
from mrl_jax.data.formats.sandbox import limit_process, probe_in_worker
from mrl_jax.errors import InputError

__all__ = ["open_parquet", "probe", "split_of_name"]

_SPLIT_NAMES = {"train": 0, "valid": 1, "validation": 1, "val": 1, "dev": 1, "test": 2}
_PREFIXES = (*(f"{s}_" for s in SPLITS), "")  # of the keys of rows in each split, and of rows without a split
_NONE = len(SPLITS)  # of rows without a split
_ROWS, _VALUES = 4096, 1 << 22  # upper bounds on the rows and numbers in memory while a column is read


@dataclass(frozen=True)
class _Shard:
    """One file, its size in bytes, and the split of each of its rows as an index into `_PREFIXES` [rows]."""

    path: Path
    file: Any
    size: int
    splits: np.ndarray


def split_of_name(name: str) -> int | None:
    """Index in `SPLITS` of the split that the name of a file or folder begins with; None if there is none."""
    name = name.lower().removeprefix("split=")  # as partitioned tables name folders
    return next((split for word, split in _SPLIT_NAMES.items() if name.startswith(word)), None)


def open_parquet(
    paths: Sequence[Path], stack: contextlib.ExitStack, named: Callable[[Path], str] | None = None
) -> dict[str, Read]:
    """List one Parquet file, or the shards of a folder.

    Args:
        paths: the files, in order.
        stack: closes them.
        named: the name that may give the split of a file, instead of a column `split`; None if there is none.

    Returns:
        `{split}_{modality}` float [N, D]; `{split}_labels` or `{split}_{modality}_labels` [N]; `{split}_ids` str [N];
        and, where a modality has missing rows (which become zeros), `{split}_{modality}_mask` bool [N], True = present.
        Without `{split}_` where nothing gives the split.

    Raises:
        InputError: pyarrow is missing, or the columns do not have this layout.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise InputError(f"data file {str(paths[0])!r} is Parquet, which needs pyarrow; pip install pyarrow") from error
    shards = []
    for path in paths:
        with input_errors(path):
            shards.append(_open_shard(path, stack, named))
            if _columns(shards[-1].file) != _columns(shards[0].file):
                raise RefusedError(f"has other columns than {paths[0].name!r}; write all files with the same columns")
    without = [shard for shard in shards if (shard.splits == _NONE).all()]
    if 0 < len(without) < len(shards):
        raise InputError(
            f"data file {str(without[0].path)!r} has no split in its name and no column 'split', but other files of "
            "the folder have; name the files train*.parquet, valid*.parquet and test*.parquet"
        )
    known = _columns(shards[0].file)
    columns = {column: key for column, (key, _, _) in known.items()}
    absent = {column: _absent(shards, column) for column, (_, _, features) in known.items() if features}
    reads: dict[str, Read] = {}
    for index, prefix in enumerate(_PREFIXES):
        if not any((shard.splits == index).any() for shard in shards):
            continue
        for column, key in columns.items():
            if column not in absent:
                reads[f"{prefix}{key}"] = partial(_read_plain, shards, column, index, key == "ids")
                continue
            reads[f"{prefix}{key}"] = partial(_read_features, shards, column, index)
            if absent[column][index]:
                reads[f"{prefix}{key}_mask"] = partial(_read_mask, shards, column, index)
    return reads


def _open_shard(path: Path, stack: contextlib.ExitStack, named: Callable[[Path], str] | None) -> _Shard:
    import pyarrow as pa
    import pyarrow.parquet as pq

    raw = stack.enter_context(path.open("rb"))
    size = os.fstat(raw.fileno()).st_size
    probe_in_worker("parquet", path, raw)
    limits = {"thrift_string_size_limit": size, "thrift_container_size_limit": size, "pre_buffer": False}
    file = pq.ParquetFile(raw, **limits)
    _check_metadata(file.metadata, size)
    texts = [field.name for field in file.schema_arrow if _is_text(field.type)]
    # Texts stay dictionary-encoded: a long text that few bytes repeat must not be expanded for every row.
    file = pq.ParquetFile(raw, read_dictionary=texts, **limits)
    stack.callback(file.close)
    rows = file.metadata.num_rows
    split = None if named is None else split_of_name(named(path))
    if split is not None:
        if "split" in file.schema_arrow.names:
            raise RefusedError(
                "has a split in its name and a column 'split'; drop the column, or give the file by itself"
            )
        return _Shard(path, file, size, np.full(rows, split, np.int8))
    if "split" not in file.schema_arrow.names:
        return _Shard(path, file, size, np.full(rows, _NONE, np.int8))
    splits = np.empty(rows, np.int8)
    for start, array in _batches(_Shard(path, file, size, splits), "split"):
        if not pa.types.is_dictionary(array.type):
            raise RefusedError(f"column 'split' is of type {array.type}; it must be text: train, valid or test")
        names = array.dictionary.to_pylist()
        codes = np.array([_SPLIT_NAMES.get(name, -1) for name in names] + [-1], np.int8)
        numbers = codes[array.indices.fill_null(len(names)).to_numpy(zero_copy_only=False)]
        if (numbers < 0).any():
            row = int(np.flatnonzero(numbers < 0)[0])
            raise RefusedError(f"column 'split', row {start + row} is {array[row].as_py()!r}; use train, valid or test")
        splits[start : start + len(array)] = numbers
    return _Shard(path, file, size, splits)


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


def _columns(file: Any) -> dict[str, tuple[str, str, bool]]:
    """For each column that is read: key in the layout (without the split), type, and whether it holds features."""
    import pyarrow.types as pt

    schema = file.schema_arrow
    if len(set(schema.names)) != len(schema.names):
        raise RefusedError("has several columns of one name; name each once")
    keys: dict[str, tuple[str, str, bool]] = {}
    modalities = [field.name for field in schema if _is_features(field.type)]
    for field in schema:
        name, stem, features = field.name, field.name.removesuffix("s"), field.name in modalities
        owner = stem.removesuffix("_label")
        if name == "split" or stem in ("label", "id"):
            key, features = {"label": "labels", "id": "ids"}.get(stem, ""), False
        elif features:
            key = name
        else:
            _check_owner(name, owner, stem, modalities)
            key = f"{owner}_labels" if owner != stem else ""
        if key and not features and pt.is_nested(field.type):
            raise RefusedError(f"column {name!r} holds lists; give one value per row")
        if key and key in [other for other, _, _ in keys.values()]:
            raise RefusedError(f"two columns hold {key}; keep one")
        if key:
            keys[name] = (key, str(field.type.value_type if features else field.type), features)
    if not any(features for _, _, features in keys.values()):
        raise RefusedError(
            "has no column of lists of numbers; store each modality as such a column, one list per row (for pictures "
            "and texts run python -m mrl_jax.data featurize first)"
        )
    return keys


def _check_owner(name: str, owner: str, stem: str, modalities: Sequence[str]) -> None:
    """Refuse columns that would be labels or a mask, but of no modality."""
    if owner != stem and owner not in modalities:
        raise RefusedError(
            f"column {name!r} belongs to no modality (columns of lists of numbers: {', '.join(modalities) or 'none'}); "
            "rename or drop it"
        )
    if name.endswith("_mask"):
        raise RefusedError(
            f"column {name!r}: in Parquet, null in the column of a modality marks a missing sample; drop it"
        )


def _is_text(kind: Any) -> bool:
    import pyarrow.types as pt

    return pt.is_string(kind) or pt.is_large_string(kind) or (pt.is_dictionary(kind) and _is_text(kind.value_type))


def _is_number(kind: Any) -> bool:
    import pyarrow.types as pt

    return pt.is_integer(kind) or pt.is_floating(kind) or pt.is_boolean(kind)


def _is_features(kind: Any) -> bool:
    import pyarrow.types as pt

    is_list = pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind)
    return is_list and _is_number(kind.value_type)


def _batches(shard: _Shard, column: str) -> Iterator[tuple[int, Any]]:
    """Batches of a column, each with the number of its first row."""
    metadata = shard.file.metadata
    values = max((_chunk(metadata, g, column).num_values for g in range(metadata.num_row_groups)), default=0)
    rows = max(1, min(_ROWS, _VALUES * max(1, metadata.num_rows) // max(1, values)))
    start = 0
    for batch in shard.file.iter_batches(batch_size=rows, columns=[column], use_threads=False):
        if batch.schema.names != [column]:
            raise DamagedError(f"no column {column!r}")
        array = batch.column(0)
        array.validate(full=True)
        if start + len(array) > len(shard.splits):
            break
        yield start, array
        start += len(array)
    if start != len(shard.splits):
        raise DamagedError(f"column {column!r} does not have {len(shard.splits)} rows as the others do")


def _chunk(metadata: Any, group: int, column: str) -> Any:
    """Metadata of a column in a row group, from the footer."""
    row_group = metadata.row_group(group)
    chunks = (row_group.column(c) for c in range(row_group.num_columns))
    return next(c for c in chunks if c.path_in_schema == column or c.path_in_schema.startswith(column + "."))


def _of_split(shards: Sequence[_Shard], column: str, split: int) -> Iterator[tuple[_Shard, np.ndarray, Any]]:
    """Batches of the rows of a split: their file, their row numbers in it, their values."""
    import pyarrow as pa

    for shard in shards:
        batches = _batches(shard, column) if (shard.splits == split).any() else iter(())
        while True:
            with input_errors(shard.path, f" column {column!r}"):  # not around `yield`: it hides warnings of the caller
                start, array = next(batches, (0, None))
                if array is None:
                    break
                keep = shard.splits[start : start + len(array)] == split
                chosen = array.filter(pa.array(keep))
            if len(chosen):
                yield shard, start + np.flatnonzero(keep), chosen


def _absent(shards: Sequence[_Shard], column: str) -> list[bool]:
    """For each split, whether rows of the column are missing."""
    absent = np.zeros(len(_PREFIXES), bool)
    for shard in shards:
        metadata = shard.file.metadata
        statistics = [_chunk(metadata, g, column).statistics for g in range(metadata.num_row_groups)]
        if all(s is not None and s.has_null_count and s.null_count == 0 for s in statistics):
            continue
        with input_errors(shard.path):
            for start, array in _batches(shard, column):
                null = array.is_null().to_numpy(zero_copy_only=False)
                absent |= np.bincount(shard.splits[start : start + len(array)][null], minlength=len(_PREFIXES)) > 0
    return absent.tolist()


def _read_mask(shards: Sequence[_Shard], column: str, split: int) -> np.ndarray:
    return np.concatenate(
        [array.is_valid().to_numpy(zero_copy_only=False) for _, _, array in _of_split(shards, column, split)]
    )


def _read_features(shards: Sequence[_Shard], column: str, split: int) -> np.ndarray:
    """Features of a split [N, D]; missing rows are zeros."""
    count = sum(int((shard.splits == split).sum()) for shard in shards)
    out, first = None, 0
    for shard, rows, array in _of_split(shards, column, split):
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


def _read_plain(shards: Sequence[_Shard], column: str, split: int, as_text: bool) -> np.ndarray:
    """Labels or ids of a split [N]."""
    import pyarrow.types as pt

    texts: list[str] = []
    numbers: list[np.ndarray] = []
    for shard, rows, array in _of_split(shards, column, split):
        with input_errors(shard.path, f" column {column!r}"):
            if array.null_count:
                null = np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))
                raise RefusedError(f"row {rows[null[0]]} is null; every row needs a value")
            if pt.is_dictionary(array.type) and _is_text(array.type):
                names = array.dictionary.to_pylist()
                texts += [names[i] for i in array.indices.to_pylist()]
            elif _is_number(array.type):
                numbers.append(array.to_numpy(zero_copy_only=False))
                texts += map(str, numbers[-1].tolist()) if as_text else ()
            else:
                raise RefusedError(f"is of type {array.type}; store whole numbers or text")
    return np.concatenate(numbers) if numbers and not as_text else text_array(texts, sum(s.size for s in shards))
