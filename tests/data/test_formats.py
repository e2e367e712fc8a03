"""Data files of every format: all give the same arrays, read one by one, and damaged or hostile files are refused."""

import io
import os
import pickle
import struct
import subprocess
import sys
import tracemalloc
import zipfile
import zlib

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.io
from fuzzing import samples

from mrl_jax.data.formats import errors, hdf5, open_arrays, read_float32
from mrl_jax.errors import InputError

ARRAYS = samples.sample_arrays()


def read_all(path):
    with open_arrays(path) as arrays:
        return {key: np.array(arrays[key]) for key in arrays if key not in samples.NEVER_READ}


def assert_same(found, expected):
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found, expected)


def write_plain_hdf5(path, **packing):
    with h5py.File(path, "w") as file:
        for key, array in ARRAYS.items():
            file.create_dataset(key, data=array, **packing)
    return path


def npz_stored(path):
    np.savez(path, **ARRAYS)
    return path


SAME = {
    "compressed npz": lambda d: samples.write_npz(d / "a.npz"),
    "stored npz": lambda d: npz_stored(d / "a.npz"),
    "npy folder": lambda d: samples.write_npy(d / "a"),
    "compressed mat5": lambda d: samples.write_mat5(d / "a.mat"),
    "stored mat5": lambda d: samples.write_mat5(d / "a.mat", compress=False),
    "mat73": lambda d: samples.write_mat73(d / "a.mat"),
    "contiguous hdf5": lambda d: write_plain_hdf5(d / "a.h5"),
    "gzip hdf5": lambda d: write_plain_hdf5(d / "a.h5", chunks=True, compression="gzip", shuffle=True),
    "lzf hdf5": lambda d: write_plain_hdf5(d / "a.h5", chunks=True, compression="lzf"),
    "another suffix": lambda d: samples.write_npz(d / "a.txt"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", SAME)
def test_every_format_gives_the_same_arrays(case, tmp_path):
    found = read_all(SAME[case](tmp_path))
    for key, array in ARRAYS.items():
        assert_same(found[key], array)


def test_both_matlab_versions_give_the_same_variables(tmp_path):
    old = read_all(samples.write_mat5(tmp_path / "old.mat"))
    new = read_all(samples.write_mat73(tmp_path / "new.mat"))
    assert old.keys() - new.keys() == {"rows"}
    assert new.keys() - old.keys() == {"nothing"}
    for key in old.keys() & new.keys():
        assert_same(new[key], old[key])
    for i, view in enumerate(samples.CELLS):
        assert_same(old[f"views[{i}]"], view)
    assert old["class_names"].tolist() == samples.NAMES
    assert old["title"].tolist() == ["emoji"]
    assert old["rows"].tolist() == ["ab", "cde"]
    assert_same(old["spread"], samples.sparse_sample())
    assert_same(new["nothing"], np.zeros((0, 3)))


def test_matlab_5_keeps_text_types_and_shapes_as_scipy_reads_them(tmp_path):
    path = tmp_path / "a.mat"
    given = {
        "emoji": "\U0001f600 a",
        "empty": np.zeros((0, 4)),
        "cube": np.arange(24.0).reshape(2, 3, 4),
        "column": samples.cell(["a", "", "b"]).T,
        "none": np.empty((0, 0), object),
        "mixed": samples.cell([np.ones((1, 1)), "text"]),
        "square": np.empty((2, 2), object),
        **{t: np.array([[0, 1, 100]], t) for t in ("int8", "uint16", "int64", "uint64", "float32")},
    }
    given["square"][:] = 1.0
    scipy.io.savemat(path, given)
    with open_arrays(path) as arrays:
        assert arrays["emoji"].tolist() == ["\U0001f600 a"]
        assert arrays["column"].tolist() == ["a", "", "b"]
        assert arrays["none"].tolist() == []
        assert arrays["mixed[1]"].tolist() == ["text"]
        for key in ("empty", "cube", "int8", "uint16", "int64", "uint64", "float32"):
            assert_same(arrays[key], given[key])
        with pytest.raises(InputError, match="several rows and columns"):
            arrays["square"]


def test_a_big_endian_matlab_file_gives_native_numbers(tmp_path):
    parts = [(6, struct.pack(">II", 6, 0)), (5, struct.pack(">ii", 1, 2)), (1, b"x"), (9, struct.pack(">dd", 1, 2))]
    body = b"".join(struct.pack(">II", kind, len(raw)) + raw + bytes(-len(raw) % 8) for kind, raw in parts)
    path = tmp_path / "a.mat"
    path.write_bytes(b"MATLAB 5.0".ljust(124) + b"\x01\x00MI" + struct.pack(">II", 14, len(body)) + body)
    assert_same(read_all(path)["x"], np.array([[1.0, 2.0]]))


@pytest.mark.slow
def test_what_was_never_written_to_hdf5_has_the_fill_value(tmp_path):
    x = np.zeros((100, 30))
    x[:10] = 1
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, options in {"plain": {}, "packed": {"compression": 1}, "five": {"fillvalue": 5}}.items():
            file.create_dataset(name, x.shape, "f8", chunks=(10, 7), **options)[:10] = 1
        file.create_dataset("contiguous", (50, 4), "i4")
        file.create_dataset("text", (20,), h5py.string_dtype(), chunks=(10,))[:10] = "ab"
    with open_arrays(tmp_path / "a.h5") as arrays:
        for name in ("plain", "packed"):
            np.testing.assert_array_equal(arrays[name], x)
            np.testing.assert_array_equal(arrays.read_float32(name), x)
        np.testing.assert_array_equal(arrays["five"], np.where(x == 1, 1, 5))
        np.testing.assert_array_equal(arrays["contiguous"], np.zeros((50, 4)))
        assert arrays["text"].tolist() == ["ab"] * 10 + [""] * 10


def sparse_logical(mask, order="<", kind=9, nzmax=0):
    """A MATLAB 5 file of a sparse logical as MATLAB writes it: values declared as double, one byte each."""

    def part(code, data):
        return struct.pack(order + "II", code, len(data)) + data + bytes(-len(data) % 8)

    matrix = scipy.sparse.csc_array(mask)
    room = max(nzmax, matrix.nnz)
    rows = np.zeros(room, order + "i4")
    rows[: matrix.nnz] = matrix.indices
    values = np.zeros(room, "u1")
    values[: matrix.nnz] = 1
    body = part(6, struct.pack(order + "II", 5 | 0x200, room)) + part(5, struct.pack(order + "2i", *mask.shape))
    body += part(1, b"x") + part(5, rows.tobytes()) + part(5, matrix.indptr.astype(order + "i4").tobytes())
    body += part(kind, values.tobytes())
    head = b"MATLAB 5.0 MAT-file".ljust(124) + (b"\x00\x01IM" if order == "<" else b"\x01\x00MI")
    return head + struct.pack(order + "II", 14, len(body)) + body


@pytest.mark.parametrize("nzmax", [0, 13, 40])
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_sparse_logical_of_matlab_holds_a_byte_per_value(tmp_path, order, nzmax):
    for count in range(34):
        mask = np.zeros((6, 7), bool)
        mask.flat[np.random.default_rng(count).permutation(42)[:count]] = True
        path = bytes_file(tmp_path / "a.mat", sparse_logical(mask, order, nzmax=nzmax))
        np.testing.assert_array_equal(read_all(path)["x"], mask)
        if not nzmax:
            np.testing.assert_array_equal(scipy.io.loadmat(path)["x"].toarray(), mask)
        scipy.io.savemat(tmp_path / "b.mat", {"x": scipy.sparse.csc_array(mask)}, do_compression=count % 2 > 0)
        np.testing.assert_array_equal(read_all(tmp_path / "b.mat")["x"], mask)


@pytest.mark.parametrize("change", [-1, 1, 8])
def test_a_sparse_logical_with_another_number_of_values_is_refused(tmp_path, change):
    mask = np.eye(9, dtype=bool)
    data = bytearray(sparse_logical(mask))
    at = data.rindex(struct.pack("<II", 9, 9))
    data[at : at + 8] = struct.pack("<II", 9, 9 + change)
    with pytest.raises(InputError, match="'x' is damaged"):
        read_all(bytes_file(tmp_path / "a.mat", bytes(data)))


@pytest.mark.parametrize("kind", [2, 9])
@pytest.mark.parametrize(("position", "value"), [(-1, 0), (3, 0), (0, 5), (4, -1), (5, 10**6)])
def test_a_sparse_matrix_whose_columns_do_not_follow_each_other_is_refused(tmp_path, kind, position, value):
    mask = np.eye(9, dtype=bool)
    starts = scipy.sparse.csc_array(mask).indptr.astype("<i4")
    other = starts.copy()
    other[position] = value
    data = sparse_logical(mask, kind=kind)
    assert data.count(starts.tobytes()) == 1
    path = bytes_file(tmp_path / "a.mat", data.replace(starts.tobytes(), other.tobytes()))
    with pytest.raises(InputError, match="'x' is damaged"):
        read_all(path)


def test_dimensions_may_be_unsigned(tmp_path):
    x = np.arange(12.0).reshape(3, 4)
    signed, unsigned = (struct.pack("<II", kind, 8) + dims(3, 4) for kind in (5, 6))
    np.testing.assert_array_equal(read_all(mat5_patched(tmp_path / "a.mat", signed, unsigned, x=x))["x"], x)
    huge = struct.pack("<II2I", 6, 8, 2**32 - 1, 4)
    with pytest.raises(InputError, match="a matrix of shape"):
        read_all(mat5_patched(tmp_path / "b.mat", signed, huge, x=x))


def test_hdf5_groups_text_and_numbers_are_read(tmp_path):
    found = read_all(samples.write_hdf5(tmp_path / "a.h5"))
    assert found["class_names"].tolist() == samples.NAMES
    assert found["fixed"].tolist() == ["ab", "c"]
    assert found["number"] == 3
    assert_same(found["group/text"], ARRAYS["train_text"])


def write_matlab_73(path, arrays, **packing):
    with h5py.File(path, "w", userblock_size=512) as file:
        for key, array in arrays.items():
            data = file.create_dataset(key, data=array.T, **packing)
            kind = {"float64": "double", "float32": "single"}.get(str(array.dtype), str(array.dtype))
            data.attrs["MATLAB_class"] = np.bytes_(kind)
    raw = bytearray(path.read_bytes())
    raw[:128] = b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\x02IM"
    path.write_bytes(raw)
    return path


def wide_arrays():
    rng = np.random.default_rng(0)
    numbers = {f"x_{t}": (100 * rng.normal(size=(103, 7))).astype(t) for t in ("f8", "f4", "i8", "u2", "i1")}
    numbers["x_f8"][5, 3:7] = 1e300, -1e300, np.nan, np.inf
    return numbers


@pytest.mark.slow
@pytest.mark.parametrize("block", [1, 500, 1 << 24])
@pytest.mark.parametrize("packing", [{}, {"chunks": (10, 3), "compression": "gzip"}])
@pytest.mark.parametrize("matlab", [False, True])
def test_matrices_are_narrowed_by_rows(tmp_path, monkeypatch, matlab, packing, block):
    monkeypatch.setattr(hdf5, "_BLOCK", block)
    given = wide_arrays()
    if matlab:
        if packing:
            packing = {**packing, "chunks": (3, 10)}
        path = write_matlab_73(tmp_path / "a.mat", given, **packing)
    else:
        path = tmp_path / "a.h5"
        with h5py.File(path, "w") as file:
            given |= {"big_endian": given["x_f8"].astype(">f8"), "half": given["x_f4"].astype("f2")}
            for key, array in given.items():
                file.create_dataset(key, data=array, **packing)
    with open_arrays(path) as arrays:
        for key, array in given.items():
            narrow = read_float32(arrays, key)
            with np.errstate(over="ignore"):
                assert_same(narrow, array.astype(np.float32))
            assert narrow.flags.c_contiguous
            np.testing.assert_array_equal(arrays[key], array)


@pytest.mark.slow
def test_what_is_no_matrix_of_real_numbers_is_never_narrowed(tmp_path):
    for path in (samples.write_hdf5(tmp_path / "a.h5"), samples.write_mat73(tmp_path / "a.mat")):
        with open_arrays(path) as arrays:
            for key in [key for key in arrays if key not in samples.NEVER_READ]:
                value = arrays[key]
                matrix = value.ndim == 2 and value.dtype.kind in "fiu" and value.size and key != "spread"
                assert_same(read_float32(arrays, key), value.astype(np.float32) if matrix else value)
            for key in set(samples.NEVER_READ) & set(arrays):
                with pytest.raises(InputError):
                    read_float32(arrays, key)


def test_other_formats_and_mappings_give_for_float32_what_they_hold(tmp_path):
    with open_arrays(samples.write_npz(tmp_path / "a.npz")) as arrays:
        for key in arrays:
            assert_same(read_float32(arrays, key), arrays[key])
    assert read_float32({"a": 3}, "a") == 3


@pytest.mark.slow
def test_narrowing_never_holds_the_wide_array(tmp_path):
    wide = np.random.default_rng(0).random((4000, 1000))  # 32 MB
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = wide
    for path in (tmp_path / "a.h5", write_matlab_73(tmp_path / "a.mat", {"x": wide})):
        with open_arrays(path) as arrays:
            tracemalloc.start()
            arrays.read_float32("x")
            narrow = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert narrow < 16e6 + 1.1 * hdf5._BLOCK


def test_damage_is_reported_when_narrowing(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.random.default_rng(0).random((500, 500)), chunks=(50, 500), fletcher32=True)
        at = file["x"].id.get_chunk_info(3).byte_offset
    raw = bytearray(path.read_bytes())
    raw[at + 9] ^= 1
    path.write_bytes(raw)
    with open_arrays(path) as arrays, pytest.raises(InputError, match="array 'x' is damaged"):
        read_float32(arrays, "x")


def test_arrays_are_a_mapping_in_the_order_of_the_file(tmp_path):
    with open_arrays(samples.write_npz(tmp_path / "a.npz")) as arrays:
        assert list(arrays) == [*ARRAYS, "class_names"]
        assert len(arrays) == 7
        assert "flags" in arrays
        assert "absent" not in arrays
        assert arrays["class_names"].tolist() == samples.NAMES
        assert arrays["flags"] is not arrays["flags"]
        with pytest.raises(KeyError):
            arrays["absent"]


def test_npy_files_are_read_only_memory_maps(tmp_path):
    with open_arrays(samples.write_npy(tmp_path / "a")) as arrays:
        assert isinstance(arrays["train_image"], np.memmap)
        assert not arrays["train_image"].flags.writeable
    np.save(tmp_path / "a" / "none.npy", np.zeros((0, 3)))
    with open_arrays(tmp_path / "a") as arrays:
        assert arrays["none"].shape == (0, 3)


def test_damage_of_one_array_shows_only_when_it_is_read(tmp_path):
    path = npz_stored(tmp_path / "a.npz")
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        data[archive.getinfo("train_text.npy").header_offset + 400] ^= 255
    path.write_bytes(data)
    with open_arrays(path) as arrays:
        assert_same(arrays["train_image"], ARRAYS["train_image"])
        with pytest.raises(InputError, match="'train_text' is damaged"):
            arrays["train_text"]
        assert_same(arrays["wave"], ARRAYS["wave"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["npz", "mat5", "mat73", "hdf5", "parquet"])
def test_truncated_files_are_refused(name, tmp_path):
    path = samples.WRITERS[name](tmp_path / "a")
    whole = path.read_bytes()
    for part in (0.02, 0.5, 0.98):
        path.write_bytes(whole[: int(part * len(whole))])
        with pytest.raises(InputError) as caught:
            read_all(path)
        assert "\n" not in str(caught.value)


class Mark:
    """An object that runs a command when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def test_pickles_are_refused_and_never_run(tmp_path):
    mark = Mark(tmp_path / "ran")
    np.savez(tmp_path / "a.npz", x=np.array([mark], object))
    (tmp_path / "a").mkdir()
    np.save(tmp_path / "a" / "x.npy", np.array([mark], object))
    with zipfile.ZipFile(tmp_path / "raw.npz", "w") as archive:
        archive.writestr("x.npy", pickle.dumps(mark))
    for name in ("a.npz", "a", "raw.npz"):
        with pytest.raises(InputError, match=r"pickled|damaged"):
            read_all(tmp_path / name)
    assert not mark.path.exists()


def npy_bytes(shape, data=b"", descr="'<f8'", version=1):
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(header)) + header + data


def npz_of(path, members, packing=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", packing) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def npz_patched(path, change):
    """A zip whose directory claims wrong sizes of its member."""
    npz_of(path, [("x.npy", npy_bytes((4,), bytes(32)))])
    data = bytearray(path.read_bytes())
    change(data, data.index(b"PK\x01\x02"))
    path.write_bytes(data)
    return path


def bytes_file(path, data):
    path.write_bytes(data)
    return path


def npy_folder(path, data):
    path.mkdir()
    (path / "x.npy").write_bytes(data)
    return path


def claim_huge(data, at):
    struct.pack_into("<I", data, at + 24, 2**31)


def encrypt(data, at):
    data[at + 8] |= 1


def record_npy():
    out = io.BytesIO()
    np.save(out, np.zeros(3, [("a", "f4")]))
    return out.getvalue()


def mat5_patched(path, old, new, compress=False, **arrays):
    """A MATLAB 5 file with bytes replaced inside its unpacked arrays."""
    scipy.io.savemat(path, arrays)
    data = path.read_bytes()
    assert data.count(old) == 1
    body = data[128:].replace(old, new)
    if compress:
        packed = zlib.compress(body)
        body = struct.pack("<II", 15, len(packed)) + packed
    path.write_bytes(data[:128] + body)
    return path


def dims(*n):
    return struct.pack(f"<{len(n)}i", *n)


def sparse_mat5(path, shape, indices=None):
    matrix = scipy.sparse.csc_array(samples.sparse_sample())
    if indices is not None:
        matrix.indices[0] = indices
    scipy.io.savemat(path, {"x": matrix})
    if shape:
        data = path.read_bytes()
        path.write_bytes(data.replace(dims(20, 15), dims(*shape), 1))
    return path


def hdf5_of(path, write, **options):
    with h5py.File(path, "w", **options) as file:
        write(file)
    return path


def virtual(file):
    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource("other.h5", "x", (3,))
    file.create_virtual_dataset("x", layout)


def virtual_inside(file):
    file["part"] = np.ones(3)
    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource(file["part"])
    file.create_virtual_dataset("x", layout)


def bomb73(file):
    file["refs"] = np.zeros((1, 1))
    file["refs"].attrs["MATLAB_class"] = np.bytes_("double")
    item = file.create_dataset("x", data=np.array([10**9, 10**9], np.uint64))
    item.attrs["MATLAB_class"], item.attrs["MATLAB_empty"] = np.bytes_("double"), np.uint8(1)


def no_fill_value(file):
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk((10, 10))
    plan.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_DOUBLE, h5py.h5s.create_simple((20, 20)), plan)


def cycle(file):
    file["a/x"] = np.ones(3, [("n", "f4")])
    file["a/b"] = file["a"]


def mat73_of(path, write):
    samples.write_mat73(path)
    with h5py.File(path, "r+") as file:
        write(file)
    return path


BAD_FILES = {
    "absent": (lambda d: d / "absent.npz", "does not exist"),
    "a pipe": (lambda d: os.mkfifo(d / "pipe") or d / "pipe", "is not a file"),
    "an empty file": (lambda d: bytes_file(d / "a.npz", b""), "is empty; the known formats are"),
    "text": (lambda d: bytes_file(d / "a.dat", b"1,2\n" * 99), "no known format; the known formats are .npz"),
    "one npy": (lambda d: bytes_file(d / "a.npy", npy_bytes((1,), bytes(8))), "is a single array"),
    "an empty folder": (lambda d: d, "neither .npy nor .parquet"),
    "two kinds in a folder": (
        lambda d: bytes_file(npy_folder(d / "a", b"") / "b.parquet", b"").parent,
        "both .npy and .parquet",
    ),
    "a pipe in a folder": (lambda d: os.mkfifo(d / "a.npy") or d, "'a.npy' is not a file"),
    "a zip of no arrays": (lambda d: npz_of(d / "a.npz", [("word/doc.xml", b"x")]), "without arrays"),
    "an empty zip": (lambda d: npz_of(d / "a.npz", []), "without arrays"),
    "a stray member": (lambda d: npz_of(d / "a.npz", [("x.npy", npy_bytes((0,))), ("y.txt", b"")]), "'y.txt' is no"),
    "a name twice": (lambda d: npz_of(d / "a.npz", [("x.npy", b""), ("x", b"")]), "two arrays are named 'x'"),
    "bzip2": (lambda d: npz_of(d / "a.npz", [("x.npy", b"")], zipfile.ZIP_BZIP2), "numpy never uses"),
    "an encrypted member": (lambda d: npz_patched(d / "a.npz", encrypt), "numpy never uses"),
    "a zip bomb": (lambda d: npz_patched(d / "a.npz", claim_huge), "the archive claims 2147483648 bytes"),
    "an npz of 10^15 rows": (lambda d: npz_of(d / "a.npz", [("x.npy", npy_bytes((10**15, 4)))]), "its header claims"),
    "an npz too long": (lambda d: npz_of(d / "a.npz", [("x.npy", npy_bytes((1,), bytes(16)))]), "its header claims"),
    "negative rows": (lambda d: npz_of(d / "a.npz", [("x.npy", npy_bytes((-1, -1), bytes(8)))]), "claims the shape"),
    "an npy of 10^15 rows": (lambda d: npy_folder(d / "a", npy_bytes((10**15, 4))), "its header claims"),
    "no width": (lambda d: npy_folder(d / "a", npy_bytes((10**15,), descr="'<U0'")), "its header claims"),
    "truth of 7": (lambda d: npy_folder(d / "a", npy_bytes((2,), b"\1\7", "'|b1'")), "booleans other than"),
    "no character": (lambda d: npy_folder(d / "a", npy_bytes((1,), b"\xff" * 4, "'<U1'")), "not characters"),
    "records": (lambda d: npy_folder(d / "a", record_npy()), "save plain arrays"),
    "version 3": (lambda d: npy_folder(d / "a", npy_bytes((1,), bytes(8), version=3)), "header of version"),
    "a header of 4 GB": (
        lambda d: npy_folder(d / "a", b"\x93NUMPY\2\0" + b"\xff" * 4 + b" " * 99),
        "'x' is damaged",
    ),
    "mat5 dims": (
        lambda d: mat5_patched(d / "a.mat", dims(3, 4), dims(2**31 - 1, 4), x=np.ones((3, 4))),
        r"shape \[2147483647, 4\] is claimed",
    ),
    "packed mat5 dims": (
        lambda d: mat5_patched(d / "a.mat", dims(3, 4), dims(2**31 - 1, 4), True, x=np.ones((3, 4))),
        r"shape \[2147483647, 4\] is claimed",
    ),
    "smaller mat5 dims": (
        lambda d: mat5_patched(d / "a.mat", dims(3, 4), dims(3, 2), x=np.ones((3, 4))),
        r"bytes of numbers",
    ),
    "huge mat5 cell": (
        lambda d: mat5_patched(d / "a.mat", dims(1, 3), dims(1, 2**31 - 1), x=samples.cell(["a", "bc", "def" * 9])),
        r"is claimed",
    ),
    "mat5 type code": (
        lambda d: mat5_patched(d / "a.mat", struct.pack("<II", 9, 96), struct.pack("<II", 999, 96), x=np.ones((3, 4))),
        "kind 999",
    ),
    "mat5 sparse dims": (lambda d: sparse_mat5(d / "a.mat", (2**31 - 1, 15)), "a sparse matrix .* would take"),
    "mat5 sparse index": (lambda d: sparse_mat5(d / "a.mat", None, 10**6), "'x' is damaged"),
    "mat5 struct": (lambda d: scipy.io.savemat(d / "a.mat", {"x": {"y": 1}}) or d / "a.mat", "'x' is a struct"),
    "mixed cell": (
        lambda d: scipy.io.savemat(d / "a.mat", {"x": samples.cell(["a", np.ones((2, 2))])}) or d / "a.mat",
        "cell 1, something else",
    ),
    "never written hdf5": (
        lambda d: hdf5_of(d / "a.h5", lambda f: f.create_dataset("x", (10**12, 4096), "f8", chunks=(64, 64))),
        "would take 32768000000000000 bytes",
    ),
    "never written contiguous hdf5": (
        lambda d: hdf5_of(d / "a.h5", lambda f: f.create_dataset("x", (10**6, 4096), "f8")),
        "would take 32768000000 bytes",
    ),
    "partly written hdf5 without a fill value": (lambda d: hdf5_of(d / "a.h5", no_fill_value), "no fill value"),
    "grown hdf5": (
        lambda d: hdf5_of(
            d / "a.h5",
            lambda f: f.create_dataset("x", (2**20, 64), "f8", chunks=(64, 64), compression=1).write_direct(
                np.ones((64, 64)), None, np.s_[:64]
            ),
        ),
        "would take 536870912 bytes",
    ),
    "external link": (
        lambda d: hdf5_of(d / "a.h5", lambda f: f.__setitem__("x", h5py.ExternalLink("/etc/other.h5", "/x"))),
        "links are not followed",
    ),
    "soft link": (
        lambda d: hdf5_of(d / "a.h5", lambda f: f.__setitem__("x", h5py.SoftLink("/x"))),
        "links are not followed",
    ),
    "external storage": (
        lambda d: hdf5_of(
            d / "a.h5", lambda f: f.create_dataset("x", (9,), "u1", external=[("/etc/passwd", 0, 9)]) and None
        ),
        "data in other files",
    ),
    "virtual": (lambda d: hdf5_of(d / "a.h5", virtual), "data in other files"),
    "virtual in the file": (
        lambda d: hdf5_of(d / "a.h5", virtual_inside),
        r"'x' is a virtual data set: it points to other data sets of this file, .*; save its values in a plain",
    ),
    "hdf5 records": (lambda d: hdf5_of(d / "a.h5", cycle), "save arrays of numbers"),
    "no dataspace": (lambda d: hdf5_of(d / "a.h5", lambda f: f.__setitem__("x", h5py.Empty("f8"))), "has no data"),
    "references": (
        lambda d: hdf5_of(d / "a.h5", lambda f: f.create_dataset("x", data=np.array([f.ref], h5py.ref_dtype)) and None),
        "save arrays of numbers",
    ),
    "scaled hdf5": (
        lambda d: hdf5_of(
            d / "a.h5", lambda f: f.create_dataset("x", (3,), "f8", chunks=(3,), scaleoffset=2).__setitem__(..., 1)
        ),
        "unknown filter",
    ),
    "mat73 empty that is full": (lambda d: mat73_of(d / "a.mat", bomb73), "an empty array of shape"),
    "mat73 struct": (
        lambda d: mat73_of(d / "a.mat", lambda f: f["wave"].attrs.__setitem__("MATLAB_class", np.bytes_("struct"))),
        "is a struct",
    ),
    "mat73 sparse dims": (
        lambda d: mat73_of(d / "a.mat", lambda f: f["spread"].attrs.__setitem__("MATLAB_sparse", np.uint64(2**40))),
        "would take",
    ),
    "mat73 sparse index": (
        lambda d: mat73_of(d / "a.mat", lambda f: f["spread/ir"].__setitem__(0, 10**6)),
        "'spread' is damaged",
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_are_refused_in_one_line_and_little_memory(case, tmp_path):
    build, message = BAD_FILES[case]
    path = build(tmp_path)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=message) as caught:
            read_all(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(str(caught.value).splitlines()) == 1
    assert str(tmp_path) in str(caught.value)
    assert peak < 32 << 20


def test_a_real_zip_bomb_is_refused_before_it_unpacks(tmp_path):
    rows = 1 << 24
    path = npz_of(tmp_path / "a.npz", [("x.npy", npy_bytes((10**15,), bytes(rows)))])
    assert path.stat().st_size < 20_000
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="its header claims"):
            read_all(path)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_a_virtual_or_external_source_is_never_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hdf5_of(tmp_path / "other.h5", lambda f: f.__setitem__("x", np.ones(3)))
    hdf5_of(tmp_path / "a.h5", virtual)
    hdf5_of(tmp_path / "b.h5", lambda f: f.__setitem__("x", h5py.ExternalLink("other.h5", "/x")))
    for name in ("a.h5", "b.h5"):
        with pytest.raises(InputError, match=r"other files|not followed"):
            read_all(tmp_path / name)


def test_a_file_that_may_not_be_read_is_refused(tmp_path, monkeypatch):
    path = samples.write_npz(tmp_path / "a.npz")

    def denied(*args, **kwargs):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(type(path), "open", denied)
    with pytest.raises(InputError, match=r"cannot be read \(Permission denied\); check path"):
        read_all(path)


def test_interrupts_and_errors_of_the_caller_pass_through(tmp_path, monkeypatch):
    path = samples.write_npz(tmp_path / "a.npz")
    with pytest.raises(ZeroDivisionError), open_arrays(path):
        raise ZeroDivisionError
    for raised, expected in ((KeyboardInterrupt, KeyboardInterrupt), (MemoryError, InputError)):

        def fail(*args, raised=raised, **kwargs):
            raise raised

        monkeypatch.setattr(np.lib.format, "read_array", fail)
        with pytest.raises(expected), open_arrays(path) as arrays:
            arrays["flags"]


def test_the_hdf5_library_is_probed_once_per_file_and_stopped_when_it_hangs(tmp_path, monkeypatch):
    path = write_plain_hdf5(tmp_path / "a.h5")
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, 3))
        with pytest.raises(InputError, match="excessive amount"):
            read_all(path)

        def hang(command, timeout, **options):
            raise subprocess.TimeoutExpired(command, timeout)

        patch.setattr(subprocess, "run", hang)
        with pytest.raises(InputError, match="does not finish"):
            read_all(path)
    read_all(path)
    monkeypatch.setattr(subprocess, "run", None)
    assert_same(read_all(path)["wave"], ARRAYS["wave"])


def test_large_blocks_are_not_read_by_a_probe(tmp_path):
    path = hdf5_of(tmp_path / "a.h5", lambda f: f.__setitem__("x", np.ones((600, 600))))
    source = hdf5._Hdf5(h5py.File(path), path.stat().st_size, False, True)
    with source.file:
        assert hdf5._stored(source, source.file["x"]).strides == (0, 0)
    assert_same(read_all(path)["x"], np.ones((600, 600)))


def test_importing_the_formats_imports_no_library_of_a_format():
    program = "import sys, mrl_jax.data.formats; print([m for m in ('scipy', 'h5py', 'pyarrow') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def split_tables():
    table = samples.parquet_table()
    return {"train": table.slice(0, 40), "valid": table.slice(40, 8), "test": table.slice(48, 12)}


def test_parquet_gives_the_own_layout(tmp_path):
    found = read_all(samples.write_parquet(tmp_path / "a.parquet"))
    assert list(found)[:6] == [
        "train_image", "train_text", "train_text_mask", "train_labels", "train_image_labels", "train_ids",
    ]  # fmt: skip
    table = samples.parquet_table().to_pydict()
    assert_same(found["train_image"], np.array(table["image"][:40]))
    assert_same(found["test_text"], np.array(table["text"][48:], np.float32))
    assert found["train_text_mask"].tolist() == [i != 3 for i in range(40)]
    assert found["valid_text_mask"].tolist() == [i != 5 for i in range(8)]
    assert "test_text_mask" not in found
    assert not found["train_text"][3].any()
    assert_same(found["train_text"][4:], np.array(table["text"][4:40], np.float32))
    assert found["valid_labels"].tolist() == table["label"][40:48]
    assert_same(found["test_image_labels"], np.array(table["image_labels"][48:]))
    assert found["test_ids"].tolist() == table["id"][48:]


@pytest.mark.slow
def test_a_folder_of_parquet_shards_is_the_same_as_one_file(tmp_path):
    expected = read_all(samples.write_parquet(tmp_path / "a.parquet"))
    folder = tmp_path / "b"
    folder.mkdir()
    for split, table in split_tables().items():
        name = {"valid": "validation"}.get(split, split)
        half = len(table) // 2
        for i, part in enumerate((table.slice(0, half), table.slice(half))):
            pq.write_table(part.drop_columns("split"), folder / f"{name}-0000{i}-of-00002.parquet")
    found = read_all(folder)
    assert found.keys() == expected.keys()
    for key, array in expected.items():
        assert_same(found[key], array)


def test_parquet_integers_plain_lists_and_dictionaries_are_read(tmp_path):
    table = {
        "split": pa.array(["train", "val", "test"]).dictionary_encode(),
        "a": pa.array([[1, 2], [3, 4], [5, 6]], pa.large_list(pa.int16())),
        "labels": pa.array(["x", "y", "x"]).dictionary_encode(),
        "ids": pa.array([7, 8, 9]),
        "caption": ["one", "two", "three"],
    }
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    found = read_all(tmp_path / "a.parquet")
    assert_same(found["valid_a"], np.array([[3.0, 4.0]]))
    assert found["test_labels"].tolist() == ["x"]
    assert found["train_ids"].tolist() == ["7"]
    assert len(found) == 9


def parquet_of(path, **columns):
    base = {"split": ["train", "valid", "test"], "a": [[1.0, 2.0]] * 3, "label": [0, 1, 2]} | columns
    pq.write_table(pa.table({k: v for k, v in base.items() if v is not None}), path)
    return path


def shards(folder, **changes):
    folder.mkdir()
    for name in ("train", "valid", "test"):
        parquet_of(folder / f"{name}.parquet", **{"split": None, **changes.get(name, {})})
    for name in changes.get("more", ()):
        parquet_of(folder / f"{name}.parquet", split=None)
    return folder


BAD_PARQUET = {
    "unknown split": ({"split": ["train", "query", "test"]}, "column 'split', row 1 is 'query'"),
    "null split": ({"split": ["train", None, "test"]}, "column 'split', row 1 is None"),
    "numbered split": ({"split": [0, 1, 2]}, "must be text"),
    "no lists": ({"a": None}, "no column of lists of numbers"),
    "lists of lists": ({"a": [[[1.0]]] * 3}, "no column of lists of numbers"),
    "unequal lists": ({"split": ["train"] * 3, "a": [[1.0], [1.0], [1.0, 2.0]]}, "column 'a' row 2 has 2 numbers"),
    "null in a list": ({"split": ["train"] * 3, "a": [[1.0], [None], [1.0]]}, "column 'a' row 1 has a null inside"),
    "null label": ({"label": [0, None, 1]}, "column 'label' row 1 is null"),
    "label lists": ({"label": [[0], [1], [2]]}, "column 'label' holds lists"),
    "labels of no modality": ({"b_label": [0, 1, 2]}, "column 'b_label' belongs to no modality"),
    "a mask": ({"a_mask": [True, False, True]}, "null in the column of a modality marks a missing sample"),
    "two labels": ({"labels": [0, 1, 2]}, "two columns hold labels"),
    "dates": ({"label": np.array([0, 1, 2], "M8[s]")}, "store whole numbers or text"),
    "nothing in a split": ({"a": [[1.0], None, [1.0]]}, "missing in every row of valid"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", BAD_PARQUET)
def test_bad_parquet_columns_are_refused(case, tmp_path):
    columns, message = BAD_PARQUET[case]
    with pytest.raises(InputError, match=message) as caught:
        read_all(parquet_of(tmp_path / "a.parquet", **columns))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.slow
def test_bad_parquet_folders_are_refused(tmp_path):
    assert set(read_all(shards(tmp_path / "good"))) == {
        f"{s}_{k}" for s in ("train", "valid", "test") for k in ("a", "labels")
    }
    with pytest.raises(InputError, match=r"extra\.parquet.* has no split in its name"):
        read_all(shards(tmp_path / "extra", more=["extra"]))
    with pytest.raises(InputError, match=r"valid\.parquet.* other columns than 'test\.parquet'"):
        read_all(shards(tmp_path / "other", valid={"b": [[1.0]] * 3}))
    with pytest.raises(InputError, match=r"a split in its name and a column"):
        read_all(shards(tmp_path / "both", train={"split": ["train"] * 3}))
    (tmp_path / "good" / "train.parquet").write_bytes(b"PAR1 damaged PAR1")
    with pytest.raises(InputError, match=r"train\.parquet.* is damaged"):
        read_all(tmp_path / "good")


def test_parquet_without_splits_has_keys_without_splits(tmp_path):
    columns = {"split": None, "id": ["x", "y", "z"], "b": [[1.0], None, [2.0]]}
    arrays = read_all(parquet_of(tmp_path / "a.parquet", **columns))
    assert set(arrays) == {"a", "b", "b_mask", "labels", "ids"}
    np.testing.assert_array_equal(arrays["b"], [[1.0], [0.0], [2.0]])
    (tmp_path / "parts").mkdir()
    for name in ("part-0", "part-1"):
        parquet_of(tmp_path / "parts" / f"{name}.parquet", **columns)
    assert len(read_all(tmp_path / "parts")["labels"]) == 6
    (tmp_path / "named").mkdir()
    for name in ("train", "dev", "test"):
        parquet_of(tmp_path / "named" / f"{name}-00000-of-00001.parquet", split=None)
    assert set(read_all(tmp_path / "named")) == {
        f"{s}_{k}" for s in ("train", "valid", "test") for k in ("a", "labels")
    }


def test_absurdly_wide_rows_among_missing_ones_are_refused(tmp_path):
    lists = pa.array([np.zeros(100_000)] + [None] * 50_000, pa.list_(pa.float64()))
    path = parquet_of(tmp_path / "a.parquet", split=["train"] * len(lists), a=lists, label=[0] * len(lists))
    with pytest.raises(InputError, match="column 'a' would take"):
        read_all(path)


def test_one_long_text_among_many_does_not_fill_the_memory(tmp_path):
    ids = ["x" * 100_000] + ["y"] * 49_999
    path = parquet_of(
        tmp_path / "a.parquet", split=["train"] * len(ids), a=[[0.0]] * len(ids), label=[0] * len(ids), id=ids
    )
    with pytest.raises(InputError, match="text would take"), open_arrays(path) as arrays:
        arrays["train_ids"]


def test_parquet_without_pyarrow_names_the_remedy(tmp_path, monkeypatch):
    path = samples.write_parquet(tmp_path / "a.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "pyarrow.parquet")
    with pytest.raises(InputError, match="pip install pyarrow"):
        read_all(path)


def test_library_messages_become_one_printable_line():
    assert errors.one_line("a\nb\x1b[0m\u2028c" + "d" * 999).startswith("a b?[0m c")
    assert len(errors.one_line("d" * 999)) == 200


def test_decimals_in_parquet_are_numbers(tmp_path):
    import decimal

    table = samples.parquet_table()
    at = table.column_names.index("label")
    labels = pa.array([decimal.Decimal(i % 3) for i in range(60)], pa.decimal128(5, 2))
    pq.write_table(table.set_column(at, "label", labels), tmp_path / "a.parquet", row_group_size=32)
    found = read_all(tmp_path / "a.parquet")
    assert found["train_labels"].dtype == np.float64
    np.testing.assert_array_equal(found["train_labels"], np.arange(40) % 3)
