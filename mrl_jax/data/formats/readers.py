"""Arrays out of data files, each read when it is asked for: `.npz`, folders of `.npy`, MATLAB, HDF5, Parquet.

Files come from elsewhere, so nothing in them is believed: formats are told by content, and every size that a header
claims is held against the size of the file before memory is taken. Nothing is unpickled, no other file is followed.
"""

import contextlib
import io
import math
import os
import stat
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np

from mrl_jax.errors import InputError

__all__ = [
    "FORMATS",
    "MAX_RATIO",
    "DamagedError",
    "LazyArrays",
    "Read",
    "RefusedError",
    "allowance",
    "check_claim",
    "check_memory",
    "open_arrays",
    "read_float32",
    "refuse",
    "text_array",
    "told",
]

FORMATS = ".npz, a folder of .npy files, MATLAB .mat (5 to 7.3), HDF5, .parquet or a folder of .parquet files"
MAX_RATIO = 1032  # deflate packs at most 1032 bytes into one
_SMALL = 1 << 26  # what may be taken whatever the size of the file
_HDF5 = b"\x89HDF\r\n\x1a\n"
_NPY_HEAD = 1 << 16  # a plain array's header is far shorter

Read = Callable[[], np.ndarray]


class DamagedError(ValueError):
    """The bytes break their format; `told` turns it into an `InputError` that names the file."""


class RefusedError(ValueError):
    """Content that is never read: what it is, and after a semicolon the remedy."""


class LazyArrays(Mapping[str, np.ndarray]):
    """Names of arrays in the order of the file; each access reads that array, and only it, anew."""

    def __init__(self, path: Path, reads: Mapping[str, Read]) -> None:
        """Keep how to read each array; nothing is read yet."""
        self._path, self._reads = path, dict(reads)

    def __getitem__(self, key: str) -> np.ndarray:
        """Read one array.

        Raises:
            KeyError: no such array.
            InputError: it is damaged, or of a kind that is never read.
        """
        read = self._reads[key]
        with told(self._path, f" array {key!r}"):
            return read()

    def read_float32(self, key: str) -> np.ndarray:
        """Read one array for use as float32.

        Returns:
            A matrix of real numbers in HDF5 or MATLAB 7.3 as float32 in C order, inf beyond its range, without ever
            taking the memory of its wider type; everything else just as `self[key]`.

        Raises:
            KeyError: no such array.
            InputError: it is damaged, or of a kind that is never read.
        """
        read = self._reads[key]
        with told(self._path, f" array {key!r}"):
            return getattr(read, "float32", read)()

    def __contains__(self, key: object) -> bool:
        return key in self._reads

    def __iter__(self) -> Iterator[str]:
        return iter(self._reads)

    def __len__(self) -> int:
        return len(self._reads)


def read_float32(arrays: Mapping[str, Any], key: str) -> Any:
    """An array for use as float32: by the mapping's own `read_float32` if it has one, such as `LazyArrays`'."""
    read = getattr(arrays, "read_float32", None)
    return arrays[key] if read is None else read(key)


@contextlib.contextmanager
def open_arrays(path: Path) -> Iterator[Mapping[str, np.ndarray]]:
    """The arrays of a data file or of a folder of `.npy` files, read one by one on access.

    Args:
        path: a file or folder in one of `FORMATS`, told by its content.

    Yields:
        A mapping in the order of the file. Each access reads that array anew (from `.npy` it is a read-only memory
        map); cells of a MATLAB cell array have the keys `NAME[0]`, `NAME[1]`, …; text comes as arrays of str.

    Raises:
        InputError: here or on access: absent, unreadable, unknown, damaged or absurd, or content that is never read.
    """
    path = Path(path)
    with contextlib.ExitStack() as stack:
        with told(path):
            reads = _open_folder(path, stack) if path.is_dir() else _open_file(path, stack)
        yield LazyArrays(path, reads)


@contextlib.contextmanager
def told(path: Path, what: str = "") -> Iterator[None]:
    """Turn every error within into an `InputError` of one line, and keep warnings of the libraries to ourselves."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except InputError:
        raise
    except RefusedError as error:
        raise InputError(f"data file {str(path)!r}:{what} {_line(error)}") from error
    except MemoryError as error:
        raise InputError(
            f"data file {str(path)!r}:{what} does not fit into memory; split it or use fewer rows"
        ) from error
    except OSError as error:
        if error.errno and error.filename is not None:  # the system's own word, for example permission denied
            raise InputError(
                f"data file {str(path)!r}{what} cannot be read ({_line(error.strerror)}); check path and permissions"
            ) from error
        _damaged(path, what, error)
    except Exception as error:  # the libraries raise almost anything on bytes that are not theirs
        _damaged(path, what, error)


def _damaged(path: Path, what: str, error: Exception) -> NoReturn:
    reason = _line(error) or type(error).__name__
    raise InputError(f"data file {str(path)!r}:{what} is damaged ({reason}); get or write it anew") from error


def _line(text: object) -> str:
    """One printable line of at most 200 characters."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(str(text).split()))[:200]


def refuse(reason: str) -> Read:
    """How to read what is listed but never read: by a refusal with this reason and remedy."""

    def read() -> np.ndarray:
        raise RefusedError(reason)

    return read


def check_claim(needed: int, stored: int, what: str) -> None:
    """Refuse a claim of `needed` bytes that `stored` bytes cannot hold, however well packed.

    Raises:
        DamagedError: the claim is absurd.
    """
    if needed < 0 or needed > MAX_RATIO * stored + 4096:
        raise DamagedError(f"{what} claims {needed} bytes, but only {stored} are stored")


def allowance(stored: int) -> int:
    """Bytes that `stored` bytes may reasonably become."""
    return _SMALL + MAX_RATIO * stored


def check_memory(needed: int, stored: int, what: str) -> None:
    """Refuse an array made larger than its stored form where that is absurd or beyond half of the memory.

    Raises:
        RefusedError: too large.
    """
    half = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    limit = min(half, allowance(stored))
    if needed > limit:
        raise RefusedError(f"{what} would take {needed} bytes, more than {limit}; store fewer rows or columns")


def text_array(texts: list[str], stored: int) -> np.ndarray:
    """An array of str [len(texts)].

    Args:
        texts: what it holds.
        stored: bytes of the file; one long text among many short ones must not blow it up.

    Raises:
        RefusedError: the array would be absurdly larger than the file.
    """
    longest = max(map(len, texts), default=1) or 1
    check_memory(4 * longest * len(texts), stored, "text")
    return np.array(texts, f"<U{longest}")


def _open_file(path: Path, stack: contextlib.ExitStack) -> Mapping[str, Read]:
    # Deferred: these bring other libraries, and they use this module.
    from mrl_jax.data.formats import hdf5, matlab, parquet

    if not path.exists():
        raise InputError(f"data file {str(path)!r} does not exist; give the path of {FORMATS}")
    if not path.is_file():
        raise InputError(f"data file {str(path)!r} is no file; give the path of {FORMATS}")
    file = stack.enter_context(path.open("rb"))
    size = os.fstat(file.fileno()).st_size
    head = file.read(4096)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _open_npz(file, size, stack)
    if any(head[at : at + 8] == _HDF5 for at in (0, 512, 1024, 2048)):
        return hdf5.open_hdf5(path, file, size, stack)
    if len(head) >= 128 and head[124:128] in (b"\x00\x01IM", b"\x01\x00MI"):
        return matlab.open_mat5(file, size)
    if head.startswith(b"PAR1"):
        return parquet.open_parquet([path], stack)
    kind = "is empty" if not size else "is one array" if head.startswith(b"\x93NUMPY") else "is of no known format"
    raise InputError(f"data file {str(path)!r} {kind}; known are {FORMATS}; write it anew in one of these")


def _open_folder(path: Path, stack: contextlib.ExitStack) -> Mapping[str, Read]:
    from mrl_jax.data.formats import parquet

    arrays = sorted(p for p in path.iterdir() if p.suffix == ".npy")
    shards = sorted(p for p in path.iterdir() if p.suffix == ".parquet")
    if bool(arrays) == bool(shards):
        told_of = "both .npy and .parquet files" if arrays else "neither .npy nor .parquet files"
        raise InputError(f"data folder {str(path)!r} holds {told_of}; put the files of one kind there")
    for file in [*arrays, *shards]:
        if not stat.S_ISREG(file.stat().st_mode):
            raise InputError(f"data folder {str(path)!r}: {file.name!r} is no file; leave only files of arrays there")
    if shards:
        return parquet.open_parquet(shards, stack, named=True)
    return {file.stem: partial(_map_npy, file) for file in arrays}


def _map_npy(path: Path) -> np.ndarray:
    """A read-only memory map of an `.npy`."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        shape, dtype = _npy_header(file, size)
    if 0 in shape:  # nothing to map
        array = np.empty(shape, dtype)
        array.flags.writeable = False
    else:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    return _sound(array)


def _open_npz(file: BinaryIO, size: int, stack: contextlib.ExitStack) -> dict[str, Read]:
    archive = stack.enter_context(zipfile.ZipFile(file))
    reads: dict[str, Read] = {}
    for info in archive.infolist():
        key = info.filename.removesuffix(".npy")
        if key in reads:
            raise DamagedError(f"two arrays are named {_line(key)!r}")
        if info.filename.endswith(".npy"):
            reads[key] = partial(_read_member, archive, info, size)
        else:
            reads[key] = refuse("is no array; write the .npz with numpy.savez")
    if not any(info.filename.endswith(".npy") for info in archive.infolist()):
        raise RefusedError("is a zip archive without arrays; write it with numpy.savez")
    return reads


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, size: int) -> np.ndarray:
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 1:
        raise RefusedError("is packed in a way that numpy never uses; write it with numpy.savez or savez_compressed")
    if info.compress_size > size:
        raise DamagedError(f"{info.compress_size} bytes are claimed, the file has {size}")
    if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
        raise DamagedError("its two sizes in the archive differ")
    check_claim(info.file_size, info.compress_size, "the archive")
    with archive.open(info) as file:
        _npy_header(file, info.file_size)
    with archive.open(info) as file:
        array = np.lib.format.read_array(file, allow_pickle=False)
        if file.read(1):  # reading to the end also compares the checksum
            raise DamagedError("bytes are left over")
    return _sound(array)


def _npy_header(file: Any, size: int) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of an `.npy` of `size` bytes, with which they must agree."""
    # A copy of the head: a header's claimed length must not make a read take memory.
    head = io.BytesIO(file.read(min(size, _NPY_HEAD)))
    version = np.lib.format.read_magic(head)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(head)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(head)
    else:
        raise RefusedError(
            f"has a header of version {version}, that of record arrays; save plain arrays of numbers or text"
        )
    if dtype.hasobject:
        raise RefusedError("holds pickled objects, which are never loaded; save plain arrays of numbers or text")
    if dtype.kind not in "biufcSU" or dtype.subdtype is not None:
        raise RefusedError(f"is of type {_line(dtype)}; save plain arrays of numbers or text")
    if any(type(n) is not int or n < 0 for n in shape):
        raise DamagedError(f"its header claims the shape {_line(shape)}")
    count = math.prod(shape)
    if head.tell() + count * dtype.itemsize != size or (count and not dtype.itemsize):
        raise DamagedError(f"its header claims {_line(shape)} of {dtype}, which {size} bytes do not hold")
    return shape, dtype


def _sound(array: np.ndarray) -> np.ndarray:
    """The array, if its bytes are values of its type: numpy believes any."""
    flat = array.reshape(-1, order="A").view(np.ndarray)
    if array.dtype.kind == "b" and array.size and int(flat.view(np.uint8).max()) > 1:
        raise DamagedError("truth values other than 0 and 1")
    if array.dtype.kind == "U" and array.size:
        codes = flat.view(array.dtype.str[0] + "u4")
        if int(codes.max()) > 0x10FFFF or bool(((codes >= 0xD800) & (codes < 0xE000)).any()):
            raise DamagedError("numbers that are no characters")
    return array
