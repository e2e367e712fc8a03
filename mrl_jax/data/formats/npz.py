"""`.npz` and `.npy` files; headers are checked against the size of the file before an array is read."""

import contextlib
import io
import math
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mrl_jax.data.formats.errors import DamagedError, Read, RefusedError, one_line, refuse
from mrl_jax.data.formats.limits import Header, check_claim, check_size

__all__ = ["MappedFile", "Member", "map_npy", "open_npz", "read_npz_array"]

_DATA = (".mat", ".npz", ".h5", ".hdf5", ".h5py", ".parquet")  # ends of names of data files of other formats
_HEADER = 1 << 16  # bytes; the header of a plain array is far shorter


def open_npz(file: BinaryIO, size: int, stack: contextlib.ExitStack, surrogates: bool = False) -> dict[str, Read]:
    """List an `.npz` file.

    Args:
        file: the open file; it stays open while arrays are read.
        size: its bytes.
        stack: closes the archive.
        surrogates: whether text may hold lone surrogates, as names of files that are no UTF-8 do in Python.

    Raises:
        DamagedError: two arrays have the same name.
        RefusedError: the archive holds no arrays.
    """
    archive = stack.enter_context(zipfile.ZipFile(file))
    reads: dict[str, Read] = {}
    for info in archive.infolist():
        key = info.filename.removesuffix(".npy")
        if key in reads:
            raise DamagedError(f"two arrays are named {one_line(key)!r}")
        if info.filename.endswith(".npy"):
            reads[key] = Member(archive, info, size, surrogates)
        else:
            reads[key] = refuse("is not an array; write the .npz with numpy.savez")
    if not any(info.filename.endswith(".npy") for info in archive.infolist()):
        inside = [info.filename for info in archive.infolist() if info.filename.endswith(_DATA)]
        if inside:
            raise RefusedError(
                f"is a zip archive that holds {one_line(inside[0])}; unpack it and give the path of that file"
            )
        raise RefusedError("is a zip archive without arrays; write it with numpy.savez")
    return reads


def read_npz_array(path: Path, key: str) -> np.ndarray:
    """One array of an `.npz` file.

    Raises:
        KeyError: it has no such array.
        Exception: of almost any type, if the file is another one or is damaged.
    """
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(path.open("rb"))
        read = open_npz(file, os.fstat(file.fileno()).st_size, stack)[key]
        return np.asarray(read())


@dataclass(frozen=True)
class MappedFile:
    """Maps an `.npy` file."""

    path: Path

    def __call__(self) -> np.ndarray:
        """The map, read-only."""
        return map_npy(self.path)

    def header(self) -> Header:
        """Its shape and dtype."""
        with self.path.open("rb") as file:
            return _read_header(file, os.fstat(file.fileno()).st_size)


def map_npy(path: Path) -> np.ndarray:
    """A read-only memory map of an `.npy` file."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        shape, dtype = _read_header(file, size)
    if 0 in shape:  # an empty file cannot be mapped
        array = np.empty(shape, dtype)
        array.flags.writeable = False
    else:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    return _check_values(array)


@dataclass(frozen=True)
class Member:
    """Reads a member of an archive of `size` bytes."""

    archive: zipfile.ZipFile
    info: zipfile.ZipInfo
    size: int
    surrogates: bool = False

    def __call__(self) -> np.ndarray:
        """The array."""
        header = self.header()
        check_size(header.nbytes, f"shape {list(header.shape)} of {header.dtype}")
        with self.archive.open(self.info) as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
            if file.read(1):  # reading to the end also verifies the checksum
                raise DamagedError("bytes remain after the array")
        return _check_values(array, self.surrogates)

    def header(self) -> Header:
        """Its shape and dtype, after a check that they match the sizes in the archive; little of it is unpacked."""
        info = self.info
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 1:
            raise RefusedError(
                "is packed in a way that numpy never uses; write it with numpy.savez or savez_compressed"
            )
        if info.compress_size > self.size:
            raise DamagedError(f"{info.compress_size} bytes are claimed, the file has {self.size}")
        if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
            raise DamagedError("its two sizes in the archive differ")
        check_claim(info.file_size, info.compress_size, "the archive")
        with self.archive.open(info) as file:
            return _read_header(file, info.file_size)


def _read_header(file: Any, size: int) -> Header:
    """Shape and dtype from the header of an `.npy` of `size` bytes, after a check that they match that size."""
    # Parsed from a bounded copy: the header's own claim of its length must not make a read allocate memory.
    head = io.BytesIO(file.read(min(size, _HEADER)))
    version = np.lib.format.read_magic(head)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(head)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(head)
    else:
        raise RefusedError(
            f"has a header of version {version}, which only record arrays need; save plain arrays of numbers or text"
        )
    if dtype.hasobject:
        raise RefusedError("holds pickled objects, which are never loaded; save plain arrays of numbers or text")
    if dtype.kind not in "biufcSU" or dtype.subdtype is not None:
        raise RefusedError(f"is of type {one_line(dtype)}; save plain arrays of numbers or text")
    if any(type(n) is not int or n < 0 for n in shape):
        raise DamagedError(f"its header claims the shape {one_line(shape)}")
    count = math.prod(shape)
    if head.tell() + count * dtype.itemsize != size or (count and not dtype.itemsize):
        raise DamagedError(f"its header claims {one_line(shape)} of {dtype}, which does not match its {size} bytes")
    return Header(shape, dtype)


def _check_values(array: np.ndarray, surrogates: bool = False) -> np.ndarray:
    """The array, after a check that its bytes are values of its dtype, which numpy does not check."""
    flat = array.reshape(-1, order="A").view(np.ndarray)
    if array.dtype.kind == "b" and array.size and int(flat.view(np.uint8).max()) > 1:
        raise DamagedError("booleans other than 0 and 1")
    if array.dtype.kind == "U" and array.size:
        codes = flat.view(array.dtype.str[0] + "u4")
        if int(codes.max()) > 0x10FFFF or (not surrogates and ((codes >= 0xD800) & (codes < 0xE000)).any()):
            raise DamagedError("code points that are not characters")
    return array
