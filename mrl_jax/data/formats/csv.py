"""CSV files as arrays of the project's own layout: a header, then one line per instance.

Input is one file, or a folder with a file for each split. Columns go by their names or as the user says
(`columns.roles_of`); a cell may hold a list of numbers in brackets, `[0.5, 1]`. An empty cell is a missing value.
"""

import io
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mrl_jax.data.dataset import SPLITS
from mrl_jax.data.formats.arrow_table import Table, arrays_of_table
from mrl_jax.data.formats.columns import TEXT, check_modalities, kind_of, lacking
from mrl_jax.data.formats.errors import Read, RefusedError, input_errors
from mrl_jax.data.formats.limits import check_memory
from mrl_jax.data.formats.parquet import split_of_name
from mrl_jax.errors import DatasetWarning, InputError

__all__ = ["SUFFIXES", "open_csv"]

SUFFIXES = (".csv", ".tsv")
"""Names of files that are read as CSV, in lower case; a `.tsv` has tabs between its cells."""
_BLOCK = (1 << 31) - 1  # bytes from which the types of columns are known; Arrow allows no more
_COLUMNS = 1 << 16
_HEADER = re.compile(rb'(?:[^"\r\n]+|"[^"]*"?)*')  # the first line; quoted names may hold ends of lines
_INDEX = ("", "Unnamed: 0")  # headers of an index that pandas wrote


def open_csv(paths: Sequence[Path], named: Mapping[str, Any] | None = None) -> tuple[dict[str, Read], str]:
    """Read one CSV file, or a file for each split.

    Args:
        paths: one file; or several, whose names begin with their splits.
        named: as in `roles_of`.

    Returns:
        As `TableArrays.arrays`, each already read; and what the table lacks to be a data set, as `columns.lacking`.

    Raises:
        InputError: a file is no table, or its columns do not fit.

    Warns:
        DatasetWarning: columns of numbers are not used.
    """
    by_split = len(paths) > 1
    arrays, first, lacks = dict[str, np.ndarray](), dict[str, str](), ""
    for path in paths:
        split = split_of_name(path.name) if by_split else None
        if by_split and (split is None or SPLITS[split] in first):
            why = "no split" if split is None else f"the split {SPLITS[split]}, as {first[SPLITS[split]]!r} has,"
            raise InputError(
                f"data file {str(path)!r} has {why} in its name; name the files of the folder train.csv, valid.csv and "
                "test.csv, or give the path of one file"
            )
        with input_errors(path):
            read = arrays_of_table(_read_table(path), named)
            check_modalities(read.roles)
            if split is not None and read.roles.split is not None:
                raise RefusedError(
                    f"has a split in its name and a column {read.roles.split!r}; drop the column, or give the file by "
                    "itself"
                )
        if not named and (note := read.roles.unused_note(without=_INDEX)):
            warnings.warn(f"data file {str(path)!r}: {note}", DatasetWarning, stacklevel=2)
        lacks = lacks or lacking(read.roles)
        prefix = "" if split is None else f"{SPLITS[split]}_"
        first |= {} if split is None else {SPLITS[split]: path.name}
        arrays |= {key if key == "class_names" else f"{prefix}{key}": x for key, x in read.arrays.items()}
    return {key: partial(_given, x) for key, x in arrays.items()}, lacks


def _given(x: np.ndarray) -> np.ndarray:
    return x


def _read_table(path: Path) -> Table:
    import pyarrow as pa
    from pyarrow import csv

    raw = path.read_bytes()
    if not raw.strip():
        raise RefusedError("is empty; write a header and one line per instance")
    header = _HEADER.match(raw)[0]  # type: ignore[index]
    check_memory(16 * len(raw), len(raw), "the table")
    delimiter = "\t" if path.suffix.lower() == ".tsv" else _delimiter(header)
    if header.count(delimiter.encode()) >= _COLUMNS:  # each takes some kilobytes, however few bytes name it
        raise RefusedError(
            f"has more than {_COLUMNS} columns; write features as one column of lists per modality, or as Parquet"
        )
    blank = ("", "NaN", "nan", "NA", "N/A", "null", "NULL", "None")
    convert: dict[str, Any] = {"strings_can_be_null": True, "null_values": blank, "quoted_strings_can_be_null": False}
    try:
        table = csv.read_csv(
            io.BytesIO(raw.removeprefix(b"\xef\xbb\xbf")),
            read_options=csv.ReadOptions(use_threads=False, block_size=min(len(raw) + 1, _BLOCK)),
            parse_options=csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=csv.ConvertOptions(**convert, timestamp_parsers=[]),
        )
    except pa.ArrowInvalid as error:
        raise RefusedError(f"is no table ({error}); write a header, and as many cells in every line") from error
    names = table.column_names
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise RefusedError(f"has two columns {twice!r}; give every column a name of its own")
    columns = {name: table.column(name).combine_chunks() for name in names}
    return Table({name: _with_lists(name, array) for name, array in columns.items()})


def _delimiter(header: bytes) -> str:
    """The character of the header that separates cells, a comma if it has none of those in use."""
    counts = {mark: header.count(mark.encode()) for mark in (",", ";", "\t")}
    return max(counts, key=counts.__getitem__)


def _with_lists(name: str, array: Any) -> Any:
    """A column of lists in brackets as lists; any other column as it is."""
    import pyarrow as pa

    if kind_of(array.type) != TEXT:
        return array
    texts = array.to_pylist()
    first = next((text for text in texts if text is not None), "")
    if not (first.startswith("[") and first.endswith("]")):
        return array
    lists = list[Any]()
    for row, text in enumerate(texts):
        try:
            numbers = None if text is None else json.loads(text)
        except (ValueError, RecursionError):
            numbers = text
        if numbers is not None and not (
            isinstance(numbers, list) and all(isinstance(x, int | float) and not isinstance(x, bool) for x in numbers)
        ):
            raise RefusedError(
                f"column {name!r}, row {row} is no list of numbers: {str(text)[:40]!r}; write lists as [0.5, 1.0], or "
                "the table as Parquet"
            )
        lists.append(numbers)
    return pa.array(lists, pa.list_(pa.float64()))
