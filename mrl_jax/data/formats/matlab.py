"""MATLAB files of version 5, up to `-v7`.

scipy decodes the numbers, but trusts the sizes and type codes in the file. So this module parses the tags first and
passes scipy one checked array at a time. That also makes it possible to read one cell of a cell array alone.
"""

import io
import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

import numpy as np

from mrl_jax.data.formats.errors import DamagedError, Read, RefusedError, refuse
from mrl_jax.data.formats.limits import MAX_RATIO, Header, check_memory, check_size, text_array

__all__ = ["NO_ARRAY", "NO_LIST", "NO_TEXT", "dense_array", "one_text", "open_mat5", "text_rows"]

_MATRIX, _PACKED = 14, 15  # the two kinds of top-level elements of version 5
_SIZES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8}  # bytes of one number, by type code
_TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16-", 16: "utf-8", 17: "utf-16-", 18: "utf-32-"}  # + byte order
_CELL, _CHAR, _SPARSE, _NUMBERS, _OPAQUE = 1, 4, 5, range(6, 16), 17  # classes of version 5
_PIECE = 1 << 20  # bytes read at once
NO_ARRAY = "is a struct, object or function of MATLAB, which is not read; save arrays or cell arrays of numbers"
"""Reason for refusing a variable that is not an array."""
NO_TEXT = "is a {} array of MATLAB, which only MATLAB can read; save cellstr({}) in its place"
"""Reason for refusing a variable of a class that holds text."""
NO_LIST = "is a cell array of several rows and columns; save one of shape 1xV"
"""Reason for refusing a cell array that is not a list."""


class _Stream:
    """The bytes of one top-level element, unpacked while they are read; forward only."""

    def __init__(self, file: BinaryIO, start: int, size: int, packed: bool) -> None:
        self._file, self._at, self._end = file, start, start + size
        self._unpack = zlib.decompressobj() if packed else None
        self.pos = 0

    def pieces(self, size: int) -> Iterator[bytes]:
        """The next `size` bytes in pieces, so that memory grows with the bytes read and not with the claimed size."""
        while size:
            piece = self._some(min(size, _PIECE))
            size -= len(piece)
            self.pos += len(piece)
            yield piece

    def read(self, size: int) -> bytes:
        return b"".join(self.pieces(size))

    def skip(self, size: int) -> None:
        if self._unpack:
            for _ in self.pieces(size):
                pass
        else:
            self._at += size
            self.pos += size

    def check_end(self) -> None:
        """Check that a packed element ends here and that its checksum is right."""
        if self._unpack and not self._unpack.eof and (self._some(1, end=True) or not self._unpack.eof):
            raise DamagedError("its packed bytes do not end with the array")

    def _some(self, size: int, end: bool = False) -> bytes:
        while True:
            fed = self._unpack.unconsumed_tail if self._unpack else b""
            if not fed:
                self._file.seek(self._at)
                fed = self._file.read(max(0, min(size if not self._unpack else _PIECE, self._end - self._at)))
                self._at += len(fed)
            piece = self._unpack.decompress(fed, size) if self._unpack else fed
            if piece or (end and not fed):
                return piece
            if not fed:
                raise DamagedError("it is truncated")


@dataclass(frozen=True)
class _Element:
    """Position of a top-level element without its tag, whether it is packed, and the byte order as in `struct`."""

    file: BinaryIO
    start: int
    size: int
    packed: bool
    order: str


@dataclass(frozen=True)
class _Matrix:
    """Header of a matrix; `rest` is the number of bytes after it. `cls` 0 means an empty cell."""

    cls: int
    flags: bytes
    dims: tuple[int, ...]
    name: str
    rest: int

    @property
    def count(self) -> int:
        return math.prod(self.dims)


def open_mat5(file: BinaryIO, size: int) -> dict[str, Read]:
    """List a MATLAB 5 file.

    Args:
        file: the open file, at any position; it stays open while arrays are read.
        size: its bytes.

    Raises:
        DamagedError: the tags do not match the size of the file.
    """
    file.seek(0)
    preamble = file.read(128)
    order = "<" if preamble[126:128] == b"IM" else ">"
    reads: dict[str, Read] = {}
    at = 128
    while at < size:
        file.seek(at)
        tag = file.read(8)
        kind, length = struct.unpack(order + "II", tag) if len(tag) == 8 else (0, 0)
        if kind not in (_MATRIX, _PACKED) or not 0 < length <= size - at - 8:
            raise DamagedError(f"no valid array at byte {at}: the file is truncated or changed")
        for key, read in _list_variable(_Element(file, at + 8, length, kind == _PACKED, order)).items():
            if key in reads:
                raise DamagedError(f"two arrays are named {key!r}")
            reads[key] = read
        at += 8 + length
    return reads


def _list_variable(element: _Element) -> dict[str, Read]:
    """Keys of one variable: its name, or one key per cell."""
    stream, matrix = _open_element(element)
    name = matrix.name
    if not name:  # the data that MATLAB stores for objects and functions
        return {}
    if matrix.cls == _CELL:
        if matrix.count and matrix.count != max(matrix.dims):
            return {name: refuse(NO_LIST)}
        if not matrix.count or _matrix(stream, element.order, matrix.rest).cls == _CHAR:
            return {name: partial(_read_strings, element)}
        return {f"{name}[{i}]": partial(_read_matrix, element, i) for i in range(matrix.count)}
    if matrix.cls in _NUMBERS:
        return {name: _Variable(element, Header(matrix.dims, _dtype_of(matrix)))}
    if matrix.cls in (_CHAR, _SPARSE):
        return {name: partial(_read_matrix, element, None)}
    if matrix.cls == _OPAQUE and (text := _class_of_object(stream, element.order)) in ("string", "categorical"):
        return {name: refuse(NO_TEXT.format(text, name))}
    return {name: refuse(NO_ARRAY)}


@dataclass(frozen=True)
class _Variable:
    """Reads a variable of numbers."""

    element: _Element
    known: Header

    def __call__(self) -> np.ndarray:
        return _read_matrix(self.element, None)

    def header(self) -> Header:
        """Its shape and dtype."""
        return self.known


def _dtype_of(matrix: _Matrix) -> np.dtype:
    """The type of an array of numbers by its class, as it is in memory."""
    return np.dtype(("f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")[matrix.cls - _NUMBERS[0]])


def _class_of_object(stream: _Stream, order: str) -> str:
    """Name of the class of an object of MATLAB, at whose contents the stream stands; empty if there is none."""
    try:
        _part(stream, order, 64)  # the type system, MCOS
        return _part(stream, order, 64)[1].decode("latin-1")
    except (DamagedError, struct.error):
        return ""


def _open_element(element: _Element) -> tuple[_Stream, _Matrix]:
    """The stream of an element, positioned after its header, and the header."""
    stream = _Stream(element.file, element.start, element.size, element.packed)
    if element.packed:
        return stream, _matrix(stream, element.order, MAX_RATIO * element.size + 4096)
    return stream, _header(stream, element.order, element.size)


def _matrix(stream: _Stream, order: str, room: int) -> _Matrix:
    """Read tag and header of a matrix that has at most `room` bytes."""
    kind, size, _ = _tag(stream, order)
    if kind != _MATRIX or size > room:
        raise DamagedError(f"a matrix of {size} bytes (kind {kind}) where at most {room} fit")
    return _header(stream, order, size) if size else _Matrix(0, b"", (0, 0), "", 0)


def _header(stream: _Stream, order: str, size: int) -> _Matrix:
    start = stream.pos
    kind, flags = _part(stream, order, 8)
    if kind != 6 or len(flags) != 8:
        raise DamagedError("a matrix without flags")
    cls = struct.unpack(order + "I", flags[:4])[0] & 0xFF
    dims: tuple[int, ...] = ()
    if cls != _OPAQUE:
        kind, raw = _part(stream, order, 256)
        dims = struct.unpack(f"{order}{len(raw) // 4}i", raw[: len(raw) // 4 * 4])
        if kind not in (5, 6) or len(dims) < 2 or len(raw) % 4 or min(dims) < 0:  # 6: unsigned, by other writers
            raise DamagedError(f"a matrix of shape {dims}")
    _, name = _part(stream, order, 4096)
    rest = size - (stream.pos - start)
    matrix = _Matrix(cls, flags, dims, name.decode("latin-1"), rest)
    entry = {_CELL: 8, _SPARSE: 0, _OPAQUE: 0}.get(cls, 1)  # smallest number of bytes of one entry
    if rest < 0 or (cls in (_CELL, _CHAR, *_NUMBERS) and matrix.count * entry > rest):
        raise DamagedError(f"shape {list(dims)} is claimed for {max(rest, 0)} bytes")
    return matrix


def _tag(stream: _Stream, order: str) -> tuple[int, int, bytes | None]:
    """Type code, size, and the data themselves where the tag contains them (4 bytes at most)."""
    raw = stream.read(8)
    kind, size = struct.unpack(order + "II", raw)
    if kind >> 16:
        kind, size = kind & 0xFFFF, kind >> 16
        if size > 4:
            raise DamagedError(f"a small part of {size} bytes, more than 4")
        return kind, size, raw[4 : 4 + size]
    return kind, size, None


def _part(stream: _Stream, order: str, limit: int) -> tuple[int, bytes]:
    """Type code and data of a part of at most `limit` bytes."""
    kind, size, data = _tag(stream, order)
    if data is None:
        if size > limit:
            raise DamagedError(f"a part of {size} bytes where at most {limit} fit")
        data = stream.read(size)
        stream.read(min(-size % 8, limit - size))  # every part but the last is padded to a multiple of 8 bytes
    return kind, data


def _read_matrix(element: _Element, index: int | None) -> np.ndarray:
    """Read a variable, or one of its cells."""
    stream, matrix = _open_element(element)
    if index is None:
        array = _value(stream, element, matrix)
        stream.check_end()
        return array
    room = matrix.rest
    for _ in range(index):
        start = stream.pos
        kind, size, _ = _tag(stream, element.order)
        if kind != _MATRIX or size > room:
            raise DamagedError("the cells before it do not fit")
        stream.skip(size)
        room -= stream.pos - start
    return _value(stream, element, _matrix(stream, element.order, room))


def _read_strings(element: _Element) -> np.ndarray:
    """Read a cell array of strings as one array of str."""
    stream, matrix = _open_element(element)
    room, texts = matrix.rest, []
    for index in range(matrix.count):
        start = stream.pos
        cell = _matrix(stream, element.order, room)
        texts.append(one_text(_value(stream, element, cell) if cell.count else np.array([], "<U1"), index))
        stream.skip(cell.rest if not cell.count else 0)
        room -= stream.pos - start
    stream.check_end()
    return text_array(texts, element.size)


def one_text(array: np.ndarray, index: int) -> str:
    """The single str in a cell; "" if the cell is empty.

    Args:
        array: the content of the cell.
        index: number of the cell, for the message.

    Raises:
        RefusedError: the cell holds numbers or several rows of text.
    """
    if array.size == 0:
        return ""
    if array.dtype.kind != "U" or array.size > 1:
        raise RefusedError(f"holds text and, in cell {index}, something else; save cells of one kind")
    return str(array.ravel()[0])


def _value(stream: _Stream, element: _Element, matrix: _Matrix) -> np.ndarray:
    """Read the array that follows the header `matrix`."""
    end = stream.pos + matrix.rest
    if matrix.cls == 0:
        array = np.zeros((0, 0))
    elif matrix.cls == _CHAR:
        check_size(4 * matrix.count, "text")
        kind, raw = _part(stream, element.order, matrix.rest - 8)
        array = text_rows(_codes(kind, raw, matrix, element.order), matrix.rest)
    elif matrix.cls in _NUMBERS or matrix.cls == _SPARSE:
        array = _numbers(stream, element, matrix)
    else:
        raise RefusedError(NO_ARRAY)
    if stream.pos != end:
        raise DamagedError(f"its parts end {abs(end - stream.pos)} bytes away from the end of the array")
    return array


def _codes(kind: int, raw: bytes, matrix: _Matrix, order: str) -> np.ndarray:
    """Codes of a text in MATLAB's shape: UTF-16, or UTF-32 where the shape counts whole characters."""
    if kind not in _TEXTS:
        raise DamagedError(f"text of kind {kind}")
    encoding = _TEXTS[kind]
    if encoding.endswith("-"):
        encoding += "le" if order == "<" else "be"
    text = raw.decode(encoding, "surrogatepass")
    for coding, size in (("utf-16-le", 2), ("utf-32-le", 4)):
        packed = text.encode(coding, "surrogatepass")
        if len(packed) == size * matrix.count:
            return np.frombuffer(packed, f"<u{size}").reshape(matrix.dims, order="F")
    raise DamagedError(f"{len(text)} characters for the shape {list(matrix.dims)}")


def text_rows(codes: np.ndarray, stored: int) -> np.ndarray:
    """One str per row of a matrix of codes [rows, characters].

    Of several rows, trailing spaces are dropped, because MATLAB pads rows to equal length.

    Args:
        codes: UTF-16 or UTF-32 codes.
        stored: bytes that the text takes in the file.

    Raises:
        RefusedError: more than two dimensions, or an array too large for the stored bytes.
    """
    if codes.ndim != 2:
        raise RefusedError("is text of more than two dimensions; save a cell array of strings")
    coding = f"utf-{8 * codes.dtype.itemsize}-le"
    rows = [row.tobytes().decode(coding) for row in codes] if codes.size else []
    return text_array(rows if len(rows) < 2 else [row.rstrip(" ") for row in rows], stored)


def _numbers(stream: _Stream, element: _Element, matrix: _Matrix) -> np.ndarray:
    """Check the parts of one array, then let scipy decode it as a file of its own."""
    import scipy.io

    sparse = matrix.cls == _SPARSE
    if not sparse:
        check_size(_dtype_of(matrix).itemsize * matrix.count, f"shape {list(matrix.dims)}")
    if sparse:
        check_memory(8 * matrix.count, matrix.rest, f"a sparse matrix of shape {list(matrix.dims)}")
    order, end = element.order, stream.pos + matrix.rest
    body = io.BytesIO()
    body.write(b"MATLAB 5.0 MAT-file".ljust(124) + (b"\x00\x01IM" if order == "<" else b"\x01\x00MI") + bytes(8))
    body.write(struct.pack(order + "II", 6, 8) + matrix.flags)
    dims = struct.pack(f"{order}{len(matrix.dims)}i", *matrix.dims)
    body.write(struct.pack(order + "II", 5, len(dims)) + dims + bytes(-len(dims) % 8))
    body.write(struct.pack(order + "II", 1, 1) + b"x" + bytes(7))
    flags = struct.unpack(order + "I", matrix.flags[:4])[0]
    is_complex, is_logical = flags & 0x800, flags & 0x200
    entries, last = 0, b""  # of a sparse matrix: size of the part with the rows, last bytes of the previous part
    for i in range((3 if sparse else 1) + bool(is_complex)):
        kind, size, data = _tag(stream, order)
        if sparse and is_logical and i == 2 and kind == 9 and _is_bytes(size, last, entries, order):
            kind = 2  # MATLAB declares the values of a sparse logical as double, and stores one byte each
        if kind not in _SIZES or size > end - stream.pos + 4 * (data is not None) or size % _SIZES[kind]:
            raise DamagedError(f"{size} bytes of numbers (kind {kind}) where at most {end - stream.pos} fit")
        if (not sparse and size != matrix.count * _SIZES[kind]) or (sparse and i < 2 and kind not in (5, 6)):
            raise DamagedError(f"{size} bytes of numbers (kind {kind}) for the shape {list(matrix.dims)}")
        body.write(struct.pack(order + "II", kind, size))
        for piece in stream.pieces(size) if data is None else [data]:
            body.write(piece)
            last = (last + piece)[-4:] if sparse else b""
        if data is None:
            stream.read(min(-size % 8, end - stream.pos))
        body.write(bytes(-size % 8))
        entries = size // 4 if i == 0 else entries
    tag = struct.pack(order + "II", _MATRIX, body.tell() - 136)
    body.seek(128)
    body.write(tag)
    body.seek(0)
    # mat_dtype gives MATLAB's types, not the smaller ones in which it stores integers; it drops imaginary parts.
    array = scipy.io.loadmat(body, mat_dtype=not is_complex)["x"]
    if sparse:
        return dense_array(array.data, array.indices, array.indptr, matrix.dims)
    if array.shape != matrix.dims:
        raise DamagedError(f"shape {array.shape} instead of {matrix.dims}")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _is_bytes(size: int, last: bytes, allocated: int, order: str) -> bool:
    """Whether the values of a sparse logical take one byte each.

    Args:
        size: their bytes.
        last: the last four bytes of the positions of the columns, which are the number of entries.
        allocated: number of entries that the file has room for.
        order: byte order.
    """
    count = struct.unpack(order + "i", last)[0] if len(last) == 4 else -1
    return size in (count, allocated)


def dense_array(data: np.ndarray, rows: np.ndarray, starts: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """A dense array [rows, columns] from compressed sparse columns; indices are checked, which scipy does not do.

    Args:
        data: values of the stored entries.
        rows: row of each entry.
        starts: position of the first entry of each column, and the number of entries.
        shape: rows and columns.

    Raises:
        ValueError: indices are outside of `shape`.
    """
    import scipy.sparse

    # `check_format` leaves the positions unchecked where the last of them is 0.
    if len(starts) != shape[1] + 1 or starts[0] != 0 or (np.diff(starts) < 0).any():
        raise ValueError("positions of columns that decrease")
    matrix = scipy.sparse.csc_array((data, rows, starts), shape=tuple(shape))
    matrix.check_format(full_check=True)
    return matrix.toarray()
