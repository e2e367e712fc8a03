"""Open a data file of any format as a mapping of arrays, each read on access.

Files come from unknown sources, so nothing in them is trusted: the format is recognised from the content, and every
size that a header claims is checked against the size of the file before memory is allocated. Nothing is unpickled, and
no link to another file is followed.
"""

import contextlib
import os
import stat
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from mrl_jax.data.formats.csv import SUFFIXES as CSV_SUFFIXES
from mrl_jax.data.formats.csv import open_csv
from mrl_jax.data.formats.errors import Read, input_errors
from mrl_jax.data.formats.foreign import HEAD, refuse_foreign
from mrl_jax.data.formats.hdf5 import open_hdf5
from mrl_jax.data.formats.limits import Header
from mrl_jax.data.formats.matlab import open_mat5
from mrl_jax.data.formats.npz import MappedFile, open_npz
from mrl_jax.data.formats.parquet import open_parquet, split_of_name
from mrl_jax.errors import InputError
from mrl_jax.files import refuse_address

__all__ = ["FORMATS", "LazyArrays", "csv_files", "header_of", "open_arrays", "read_float32", "split_folders"]

FORMATS = ".npz, a folder of .npy files, MATLAB .mat (5 to 7.3), HDF5, .csv, .parquet or a folder of .parquet files"
"""What can be read as data, in words, for messages and help."""
_SMALL = 1 << 30  # bytes
_HDF5 = b"\x89HDF\r\n\x1a\n"


class LazyArrays(Mapping[str, np.ndarray]):
    """Arrays of a file by name, in the order of the file; each access reads one array from the file again.

    Attributes:
        is_own: whether the names are those of the own layout, since columns were named or go by their names.
        lacks: what a table lacks to be a data set, and the remedy; empty if nothing, or for other files.
    """

    def __init__(self, path: Path, reads: Mapping[str, Read], is_own: bool = False, lacks: str = "") -> None:
        """Store the function that reads each array; nothing is read yet."""
        self._path, self._reads, self.is_own, self.lacks = path, dict(reads), is_own, lacks

    @property
    def is_small(self) -> bool:
        """Whether an array may be read only to look at it: whether the file has at most 1 GiB, unpacked too."""
        files = [*self._path.glob("*"), *self._path.glob("*/*.parquet")] if self._path.is_dir() else [self._path]
        stored = sum(file.stat().st_size for file in files if file.is_file())
        return stored <= _SMALL and sum(h.nbytes for key in self if (h := self.header(key)) is not None) <= _SMALL

    def header(self, key: str) -> Header | None:
        """Shape and dtype of an array, of which almost nothing is read; None where it has to be read, or is damaged.

        Raises:
            KeyError: there is no such array.
        """
        header = getattr(self._reads[key], "header", None)
        if header is None:
            return None
        with contextlib.suppress(InputError), input_errors(self._path):  # reported where it is read
            return header()
        return None

    def __getitem__(self, key: str) -> np.ndarray:
        """Read one array.

        Raises:
            KeyError: there is no such array.
            InputError: it is damaged, or of a kind that is never read.
        """
        read = self._reads[key]
        with input_errors(self._path, f" array {key!r}"):
            return read()

    def read_float32(self, key: str) -> np.ndarray:
        """Read one array for use as float32.

        Returns:
            A matrix of real numbers in HDF5 or MATLAB 7.3 as float32 in C order, inf beyond its range, converted block
            by block so that the wider type is never in memory whole; any other array as `self[key]` gives it.

        Raises:
            KeyError: there is no such array.
            InputError: it is damaged, or of a kind that is never read.
        """
        read = self._reads[key]
        with input_errors(self._path, f" array {key!r}"):
            return getattr(read, "float32", read)()

    def __contains__(self, key: object) -> bool:
        return key in self._reads

    def __iter__(self) -> Iterator[str]:
        return iter(self._reads)

    def __len__(self) -> int:
        return len(self._reads)


def read_float32(arrays: Mapping[str, Any], key: str) -> Any:
    """An array for use as float32: by the `read_float32` of the mapping if it has one, as `LazyArrays` does."""
    read = getattr(arrays, "read_float32", None)
    return arrays[key] if read is None else read(key)


def header_of(arrays: Mapping[str, Any], key: str) -> Header | None:
    """Shape and dtype of an array by the `header` of the mapping, if it has one, as `LazyArrays` does; else None."""
    header = getattr(arrays, "header", None)
    return None if header is None else header(key)


@contextlib.contextmanager
def open_arrays(path: Path, named: Mapping[str, Sequence[str]] | None = None) -> Iterator[Mapping[str, np.ndarray]]:
    """Open a data file or a folder of `.npy`, Parquet or CSV files; its arrays are read one by one on access.

    Args:
        path: a file or folder in one of `FORMATS`, recognised from its content; CSV by the end of its name.
        named: of tables: name -> columns, as in `columns.roles_of`; of Parquet also keys of its arrays, which it then
            has without them. Other formats ignore it.

    Yields:
        A mapping in the order of the file. Each access reads that array again (an `.npy` gives a read-only memory map);
        cells of a MATLAB cell array have the keys `NAME[0]`, `NAME[1]`, …; text comes as arrays of str.

    Raises:
        InputError: here or on access: the file is absent, unreadable, damaged or of an unknown format, claims
            impossible sizes, or holds content that is never read.
    """
    path = Path(path)
    with contextlib.ExitStack() as stack:
        with input_errors(path):
            tables, splits = _tables(path)
        if tables and tables[0].suffix.lower() in CSV_SUFFIXES:
            from_csv, lacks = open_csv(tables, named)
            yield LazyArrays(path, from_csv, True, lacks)
            return
        with input_errors(path):
            reads: Mapping[str, Read]
            lacks = ""
            if tables:
                reads, is_own, lacks = open_parquet(tables, stack, splits, named)
            else:
                reads, is_own = (_open_folder if path.is_dir() else _open_file)(path, stack), False
        yield LazyArrays(path, reads, is_own, lacks)


def _tables(path: Path) -> tuple[list[Path], Callable[[Path], str] | None]:
    """The Parquet or CSV files that this is, and what may name the split of each; none if it is anything else."""
    if path.is_dir():
        return _tables_of_folder(path)
    if path.is_file() and path.suffix.lower() in CSV_SUFFIXES:
        with path.open("rb") as file:
            refuse_foreign(file.read(HEAD), path)
        return [path], None
    if path.is_file():
        with path.open("rb") as file:
            return ([path] if file.read(4) == b"PAR1" else []), None
    return [], None


def _tables_of_folder(path: Path) -> tuple[list[Path], Callable[[Path], str] | None]:
    shards, named = sorted(p for p in path.iterdir() if p.suffix == ".parquet"), attrgetter("name")
    if any(p.suffix == ".npy" for p in path.iterdir()):
        return [], None
    if not shards:
        shards, named = split_folders(path), attrgetter("parent.name")
    shards = shards or csv_files(path)
    for file in shards:
        _check_file(file, path)
    return shards, named


def csv_files(path: Path) -> list[Path]:
    """The CSV files in a folder."""
    return sorted(p for p in path.iterdir() if p.suffix.lower() in CSV_SUFFIXES)


def _check_file(file: Path, folder: Path) -> None:
    """Refuse what is no file in a folder of arrays, and a page or pointer instead of its content."""
    if not stat.S_ISREG(file.stat().st_mode):
        raise InputError(
            f"data folder {str(folder)!r}: {file.name!r} is not a file; keep only files of arrays in this folder"
        )
    with file.open("rb") as opened:
        refuse_foreign(opened.read(HEAD), file)


def _open_file(path: Path, stack: contextlib.ExitStack) -> Mapping[str, Read]:
    refuse_address(path, "data")
    if not path.exists():
        raise InputError(f"data file {str(path)!r} does not exist; give the path of {FORMATS}")
    if not path.is_file():
        raise InputError(f"data file {str(path)!r} is not a file; give the path of {FORMATS}")
    file = stack.enter_context(path.open("rb"))
    size = os.fstat(file.fileno()).st_size
    head = file.read(4096)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return open_npz(file, size, stack)
    if any(head[at : at + 8] == _HDF5 for at in (0, 512, 1024, 2048)):
        return open_hdf5(path, file, size, stack)
    if len(head) >= 128 and head[124:128] in (b"\x00\x01IM", b"\x01\x00MI"):
        return open_mat5(file, size)
    refuse_foreign(head, path)
    if _is_mat4(head):
        raise InputError(f"data file {str(path)!r} is of MATLAB 4, which is not read; save it again with -v7")
    kind = "is empty" if not size else "is a single array" if head.startswith(b"\x93NUMPY") else "is of no known format"
    raise InputError(f"data file {str(path)!r} {kind}; the known formats are {FORMATS}; write it in one of these")


def _is_mat4(head: bytes) -> bool:
    """Whether a file begins with the header of a MATLAB 4 matrix: type, rows, columns, parts, length of the name."""
    if len(head) < 20:
        return False
    for order, machine in (("<", 0), (">", 1)):
        kind, rows, columns, parts, length = struct.unpack(f"{order}5i", head[:20])
        thousands, rest = divmod(kind, 1000)
        name = head[20 : 20 + length]
        if (
            (thousands, rest // 100) == (machine, 0)
            and rest % 10 <= 2
            and rest // 10 <= 5
            and min(rows, columns) >= 0
            and parts in (0, 1)
            and 2 <= length <= 64
            and name.endswith(b"\0")
            and name[:-1].replace(b"_", b"a").isalnum()
        ):
            return True
    return False


def split_folders(path: Path) -> list[Path]:
    """The Parquet files in the folders below this one that are named by splits, such as `train/0000.parquet`."""
    folders = [folder for folder in path.iterdir() if folder.is_dir() and split_of_name(folder.name) is not None]
    return sorted(file for folder in folders for file in folder.glob("*.parquet"))


def _open_folder(path: Path, stack: contextlib.ExitStack) -> Mapping[str, Read]:
    arrays = sorted(p for p in path.iterdir() if p.suffix == ".npy")
    shards = any(p.suffix == ".parquet" for p in path.iterdir())
    if bool(arrays) == shards:
        content = "both .npy and .parquet files" if arrays else "neither .npy nor .parquet files"
        raise InputError(f"data folder {str(path)!r} holds {content}; put the files of one kind there")
    for file in arrays:
        _check_file(file, path)
    return {file.stem: MappedFile(file) for file in arrays}
