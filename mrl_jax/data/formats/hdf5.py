"""HDF5 files, and MATLAB files of version 7.3, which are HDF5 files.

The HDF5 library crashes on some damaged files (fuzzing finds about 1 in 200). So a worker process reads each file
first, except for large blocks of numbers.
"""

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mrl_jax.data.formats.errors import DamagedError, Read, RefusedError, refuse
from mrl_jax.data.formats.limits import Header, check_claim, check_memory, check_size, text_array
from mrl_jax.data.formats.matlab import NO_ARRAY, NO_LIST, NO_TEXT, dense_array, one_text, text_rows
from mrl_jax.data.formats.sandbox import limit_process, probe_in_worker, ran_out

__all__ = ["open_hdf5", "probe"]

_NO_LINK = "is a link, and links are not followed; copy the data into the file"
_LARGE = 1 << 20  # bytes; a probe does not read larger arrays of numbers
_BLOCK = 1 << 24  # bytes read at once while numbers are converted to float32
_CLASSES = ("double", "single", "logical", "char", *(f"{u}int{n}" for u in ("", "u") for n in (8, 16, 32, 64)))
_FILTERS = {1, 2, 3, 4, 32000}  # deflate, shuffle, checksum, szip, lzf: those that come with h5py


@dataclass(frozen=True)
class _Hdf5:
    """An open HDF5 file, its size, whether MATLAB wrote it, and whether this is a probe in a worker process."""

    file: Any
    size: int
    matlab: bool
    probing: bool = False


@dataclass(frozen=True)
class _Item:
    """Reads the array at a key or reference of a file."""

    source: _Hdf5
    at: Any

    def __call__(self) -> np.ndarray:
        return self._read(narrow=False)

    def float32(self) -> np.ndarray:
        """A matrix of real numbers as float32, converted block by block; any other array in its own type."""
        return self._read(narrow=True)

    def header(self) -> Header | None:
        """Its shape and dtype; None for what has none before it is read, such as a sparse matrix."""
        import h5py

        item = self.source.file[self.at]
        if not isinstance(item, h5py.Dataset) or item.dtype.kind not in "biuf" or item.shape is None:
            return None
        return Header(item.shape[::-1] if self.source.matlab else item.shape, item.dtype)

    def _read(self, narrow: bool) -> np.ndarray:
        import h5py

        item = self.source.file[self.at]
        if self.source.matlab:
            return _matlab_value(self.source, item, narrow)
        if not isinstance(item, h5py.Dataset):
            raise RefusedError("is not an array; save datasets of numbers or text")
        return _plain(self.source, item, narrow)


def open_hdf5(path: Path, file: BinaryIO, size: int, stack: contextlib.ExitStack) -> dict[str, Read]:
    """List an HDF5 file or a MATLAB 7.3 file.

    Args:
        path: the file.
        file: the same file, open.
        size: its bytes.
        stack: closes it.
    """
    probe_in_worker("hdf5", path, file)
    return _open(path, size, stack)


def _open(path: Path, size: int, stack: contextlib.ExitStack, probing: bool = False) -> dict[str, Read]:
    import h5py

    with path.open("rb") as raw:
        matlab = raw.read(10) == b"MATLAB 7.3"
    source = _Hdf5(h5py.File(path, "r", locking=False), size, matlab, probing)
    stack.callback(_close, source.file)
    reads: dict[str, Read] = {}
    _list_group(source, source.file, "", reads, set())
    return reads


def probe(path: Path) -> int:
    """Read everything that could crash the HDF5 library, that is, all but large blocks of numbers.

    Called in a worker process by `probe_in_worker`.

    Args:
        path: the file.

    Returns:
        Exit status: 3 where memory ran out (a damaged file can make the library request any amount), else 0. Other
        errors are reported when the file is read.
    """
    import h5py  # noqa: F401 (imported before the limit is set)

    limit_process(path.stat().st_size)
    try:
        with contextlib.ExitStack() as stack:
            for read in _open(path, path.stat().st_size, stack, probing=True).values():
                try:
                    read()
                except Exception as error:
                    if ran_out(error):
                        return 3
    except Exception as error:
        return 3 if ran_out(error) else 0
    return 0


def _close(file: Any) -> None:
    with contextlib.suppress(Exception):  # closing a damaged file can fail
        file.close()


def _list_group(source: _Hdf5, group: Any, prefix: str, reads: dict[str, Read], seen: set[int]) -> None:
    import h5py

    address = h5py.h5o.get_info(group.id).addr
    if address in seen or prefix.count("/") > 32:  # hard links can form a cycle
        return
    seen.add(address)
    for name in group:
        key = prefix + name
        if source.matlab and name in ("#refs#", "#subsystem#"):
            continue
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            reads[key] = refuse(_NO_LINK)
            continue
        item = group[name]
        if isinstance(item, h5py.Group) and not (source.matlab and _attribute(item, "MATLAB_class") is not None):
            _list_group(source, item, key + "/", reads, seen)
        elif source.matlab and _attribute(item, "MATLAB_class") == "cell":
            reads |= _list_cells(source, item, key)
        else:
            reads[key] = _Item(source, key)


def _list_cells(source: _Hdf5, item: Any, key: str) -> Mapping[str, Read]:
    if _attribute(item, "MATLAB_empty") is not None:
        return {key: partial(text_array, [], 0)}
    if math.prod(item.shape) != max(item.shape):
        return {key: refuse(NO_LIST)}
    references = _references(source, item)
    if _attribute(source.file[references[0]], "MATLAB_class") == "char":
        return {key: partial(_read_cell_strings, source, key)}
    return {f"{key}[{i}]": _Item(source, reference) for i, reference in enumerate(references)}


def _attribute(item: Any, name: str) -> Any:
    """The value of a small attribute, text as str; None if there is no such attribute."""
    import h5py

    if not h5py.h5a.exists(item.id, name.encode()):
        return None
    attribute = h5py.h5a.open(item.id, name.encode())
    if attribute.get_storage_size() > 4096 or attribute.dtype.kind not in "Siu":
        raise DamagedError(f"the attribute {name} has an unexpected type or size")
    value = item.attrs[name]
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _references(source: _Hdf5, item: Any) -> np.ndarray:
    import h5py

    if h5py.check_ref_dtype(item.dtype) is not h5py.Reference:
        raise DamagedError("a cell array without references")
    return np.ravel(_stored(source, item))


def _read_cell_strings(source: _Hdf5, key: str) -> np.ndarray:
    references = _references(source, source.file[key])
    texts = [one_text(_matlab_value(source, source.file[r]), i) for i, r in enumerate(references)]
    return text_array(texts, source.size)


def _plain(source: _Hdf5, item: Any, narrow: bool) -> np.ndarray:
    """A dataset in its own type, text as str; if `narrow`, a matrix of other numbers as float32."""
    import h5py

    text = h5py.check_string_dtype(item.dtype)
    if text is None and (item.dtype.kind not in "biufc" or item.dtype.subdtype is not None):
        raise RefusedError(f"is of type {item.dtype}; save arrays of numbers or text")
    if narrow and _is_matrix(item) and item.dtype != np.float32:
        return _as_float32(source, item, transposed=False)
    array = _stored(source, item)
    if text is None:
        return array
    texts, total = [], 0
    for one in np.ravel(array):
        raw = one if isinstance(one, bytes) else one.encode()
        total += len(raw)
        texts.append(raw.decode())
    check_claim(total, source.size, "text")
    return text_array(texts, source.size).reshape(array.shape)


def _stored(source: _Hdf5, item: Any) -> np.ndarray:
    """A complete dataset, after a check that its header matches what is stored."""
    _check_stored(item, source.size)
    if source.probing and item.dtype.kind in "biufc" and math.prod(item.shape) * item.dtype.itemsize > _LARGE:
        return np.broadcast_to(np.zeros((), item.dtype), item.shape)
    return np.asarray(item[()])


def _is_matrix(item: Any) -> bool:
    return item.dtype.kind in "fiu" and item.shape is not None and len(item.shape) == 2


def _as_float32(source: _Hdf5, item: Any, transposed: bool) -> np.ndarray:
    """A matrix as float32 (inf beyond its range), read in blocks so that only one block is held in the wider type."""
    if source.probing:
        return _stored(source, item)
    _check_stored(item, source.size)
    array = np.empty(item.shape[::-1] if transposed else item.shape, np.float32)
    rows = max(1, _BLOCK // max(1, item.dtype.itemsize * item.shape[1]))
    if item.chunks:
        rows = -(-rows // item.chunks[0]) * item.chunks[0]  # whole chunks, so that none is unpacked twice
    target = array.T if transposed else array
    with np.errstate(over="ignore"):
        for start in range(0, len(target), rows):
            target[start : start + rows] = item[start : start + rows]
    return array


def _check_stored(item: Any, size: int) -> None:
    """Check that the header of a dataset matches what is stored in a file of `size` bytes."""
    import h5py

    plan, shape = item.id.get_create_plist(), item.shape
    layout = plan.get_layout()
    if layout == h5py.h5d.VIRTUAL and all(plan.get_virtual_filename(i) == "." for i in range(plan.get_virtual_count())):
        raise RefusedError(
            "is a virtual data set: it points to other data sets of this file, and is not read; save its values in a "
            "plain data set of another name: file[name] = file[virtual][()]"
        )
    if plan.get_external_count() or layout not in (h5py.h5d.COMPACT, h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED):
        raise RefusedError("refers to data in other files, which are not read; copy the data into the file")
    if shape is None:
        raise RefusedError("has no data; save an array")
    filters = [plan.get_filter(i)[0] for i in range(plan.get_nfilters())]
    if not _FILTERS.issuperset(filters) or filters.count(1) > 1:
        raise RefusedError("is packed with an unknown filter; save it with gzip or unpacked")
    item_size = item.id.get_type().get_size()
    needed, stored = math.prod(shape) * item_size, item.id.get_storage_size()
    chunk = plan.get_chunk() if layout == h5py.h5d.CHUNKED else ()
    chunks = math.prod(-(-n // c) for n, c in zip(shape, chunk, strict=False)) if needed else 0
    written = chunks if not chunk or not needed else item.id.get_num_chunks()
    complete = written == chunks if chunk else bool(stored) or not needed
    expected = written * math.prod(chunk) * item_size if chunk else needed
    # Text lies elsewhere in the file.
    mismatch = stored < expected if chunk or item.dtype.hasobject else stored != expected
    if written > chunks or (mismatch and not filters and (chunk or stored)):
        raise DamagedError(f"shape {shape} of {item.dtype} is claimed for {stored} bytes")
    check_size(needed, f"shape {list(shape)} of {item.dtype}")
    if complete:
        check_claim(needed, stored, f"shape {shape}")
    elif plan.fill_value_defined() == h5py.h5d.FILL_VALUE_UNDEFINED or plan.get_fill_time() == h5py.h5d.FILL_TIME_NEVER:
        raise DamagedError(f"shape {shape} is claimed, but only a part was written, and there is no fill value")
    else:  # what was never written has the fill value
        check_memory(needed, size, f"shape {shape}")
    if chunk and written:
        check_claim(math.prod(chunk) * item_size, stored, f"a chunk of shape {chunk}")
    # HDF5 can describe a number type bit by bit; the library crashes when it converts unusual ones.
    if item.dtype.kind in "biufc" and not item.id.get_type().equal(h5py.h5t.py_create(item.dtype, logical=True)):
        raise RefusedError(f"is of an unusual number type close to {item.dtype}; save it as {item.dtype}")


def _matlab_value(source: _Hdf5, item: Any, narrow: bool = False) -> np.ndarray:
    """A variable or cell of version 7.3 in MATLAB's shape and type; if `narrow`, a matrix as float32."""
    import h5py

    cls = _attribute(item, "MATLAB_class")
    if cls in ("string", "categorical"):
        raise RefusedError(NO_TEXT.format(cls, str(item.name).lstrip("/")))
    if cls not in _CLASSES:
        raise RefusedError(NO_ARRAY)
    dtype = {"double": "f8", "single": "f4", "logical": "?", "char": "u2"}.get(cls, cls)
    if _attribute(item, "MATLAB_sparse") is not None:
        return _sparse(source, item, np.dtype(dtype))
    if not isinstance(item, h5py.Dataset):
        raise RefusedError(NO_ARRAY)
    empty = _attribute(item, "MATLAB_empty") is not None
    if narrow and not empty and cls != "char" and _is_matrix(item) and item.dtype == dtype:
        return _as_float32(source, item, transposed=True)
    raw = _stored(source, item)
    if empty:
        shape = tuple(int(n) for n in np.ravel(raw))
        if math.prod(shape) or len(shape) > 32 or min(shape, default=0) < 0:
            raise DamagedError(f"an empty array of shape {shape}")
        return np.zeros(shape, dtype) if cls != "char" else text_array([], 0)
    if raw.dtype.names == ("real", "imag"):
        raw = raw["real"] + 1j * raw["imag"]
    elif raw.dtype.kind not in "biuf":
        raise DamagedError(f"{raw.dtype} where MATLAB stores {cls}")
    array = raw.T  # MATLAB stores arrays in column-major order
    if cls == "char":
        return text_rows(array.astype("<u2"), source.size)
    return array if array.dtype.kind == "c" else array.astype(dtype, copy=False)


def _sparse(source: _Hdf5, item: Any, dtype: np.dtype) -> np.ndarray:
    import h5py

    if not isinstance(item, h5py.Group) or not all(
        isinstance(item.get(name, getlink=True), h5py.HardLink) for name in item
    ):
        raise DamagedError("a sparse matrix without its parts")
    starts = _stored(source, item["jc"])
    shape = (int(_attribute(item, "MATLAB_sparse")), len(starts) - 1)
    rows = _stored(source, item["ir"]) if "ir" in item else np.zeros(0, np.int64)
    data = _stored(source, item["data"]) if "data" in item else np.zeros(0, dtype)
    if source.probing:
        return data
    stored = rows.nbytes + data.nbytes + starts.nbytes
    check_memory(shape[0] * shape[1] * dtype.itemsize, stored, f"a sparse matrix of shape {list(shape)}")
    return dense_array(data.astype(dtype), rows.astype(np.int64), starts.astype(np.int64), shape)
