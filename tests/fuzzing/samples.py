"""Small valid files of every format, written by this package or by the libraries of their formats."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np


def sample_arrays() -> dict[str, np.ndarray]:
    """Arrays of several types, 2-D as MATLAB needs them; a few tens of KB in a file."""
    rng = np.random.default_rng(0)
    return {
        "train_image": rng.normal(size=(40, 24)),
        "train_text": rng.integers(0, 5, (40, 16)).astype(np.float32),
        "train_labels": rng.integers(0, 3, (1, 40)).astype(np.int32),
        "flags": rng.integers(0, 2, (5, 7)) > 0,
        "bytes": rng.integers(0, 255, (9, 3)).astype(np.uint8),
        "wave": rng.normal(size=(4, 3)) + 1j * rng.normal(size=(4, 3)),
    }


CELLS = [np.arange(12.0).reshape(3, 4), np.ones((2, 5), np.float32), np.zeros((3, 1), np.int16)]
NAMES = ["cat", "dog", "señor fox"]


def cell(values: list) -> np.ndarray:
    """A MATLAB cell array 1xV."""
    out = np.empty((1, len(values)), object)
    out[0, :] = values
    return out


def sparse_sample() -> np.ndarray:
    """A matrix, mostly of zeros."""
    return np.where(np.arange(300).reshape(20, 15) % 7 == 0, np.arange(300.0).reshape(20, 15), 0.0)


def write_npz(path: Path) -> Path:
    with path.open("wb") as file:  # savez would add .npz to the name
        np.savez_compressed(file, **{**sample_arrays(), "class_names": np.array(NAMES)})  # type: ignore[arg-type]
    return path


def write_npy(path: Path) -> Path:
    """A folder; the first array is the one that is mutated."""
    path.mkdir()
    for name, array in sample_arrays().items():
        np.save(path / f"{name}.npy", array)
    return path


def write_mat5(path: Path, compress: bool = True) -> Path:
    import scipy.io
    import scipy.sparse

    more = {"views": cell(CELLS), "class_names": cell(NAMES), "title": "emoji", "rows": np.array(["ab ", "cde"])}
    more |= {"spread": scipy.sparse.csc_array(sparse_sample()), "options": {"a": 1.0, "b": "text"}}
    scipy.io.savemat(path, sample_arrays() | more, do_compression=compress, appendmat=False)
    return path


def write_mat73(path: Path, more: dict | None = None) -> Path:
    """MATLAB's -v7.3: a user block with text, arrays transposed, classes as attributes, cells as references."""
    import h5py

    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in (sample_arrays() | (more or {})).items():
            put_mat73(file, name, array)
        refs = file.create_group("#refs#")
        cells: dict[str, list[Any]] = {"views": CELLS, "class_names": NAMES}
        for name, values in cells.items():
            places = [put_mat73(refs, f"{name}{i}", value) for i, value in enumerate(values)]
            item = file.create_dataset(name, data=np.array([[p.ref] for p in places], h5py.ref_dtype))
            item.attrs["MATLAB_class"] = np.bytes_("cell")
        empty = file.create_dataset("nothing", data=np.array([0, 3], np.uint64))
        empty.attrs["MATLAB_class"], empty.attrs["MATLAB_empty"] = np.bytes_("double"), np.uint8(1)
        put_mat73(file, "title", "emoji")
        options = file.create_group("options")
        options.attrs["MATLAB_class"] = np.bytes_("struct")
        put_mat73(options, "a", np.ones((1, 1)))
        put_sparse73(file, "spread", sparse_sample())
    head = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Mon Jan  1 00:00:00 2024 HDF5 schema 1.00 ."
    with path.open("r+b") as file:
        file.write(head.ljust(124) + b"\x00\x02IM")
    return path


def put_mat73(group: Any, name: str, value: Any) -> Any:
    """Write one array or str as MATLAB does."""
    kinds = {"f8": "double", "f4": "single", "b1": "logical", "c16": "double"}
    if isinstance(value, str):
        data, kind = np.frombuffer(value.encode("utf-16-le"), "<u2")[:, None], "char"
    else:
        data, kind = value.T, kinds.get(value.dtype.str[1:], value.dtype.name)
    if data.dtype.kind == "c":
        data = np.ascontiguousarray(data).view([("real", "f8"), ("imag", "f8")])
    packing = {"chunks": data.shape, "compression": "gzip"} if data.size > 100 else {}
    item = group.create_dataset(name, data=data.astype(np.uint8) if kind == "logical" else data, **packing)
    item.attrs["MATLAB_class"] = np.bytes_(kind)
    if kind in ("char", "logical"):
        item.attrs["MATLAB_int_decode"] = np.int32(2 if kind == "char" else 1)
    return item


def put_sparse73(group: Any, name: str, value: np.ndarray) -> Any:
    import scipy.sparse

    matrix = scipy.sparse.csc_array(value)
    item = group.create_group(name)
    item.attrs["MATLAB_class"], item.attrs["MATLAB_sparse"] = np.bytes_("double"), np.uint64(len(value))
    item["data"], item["ir"], item["jc"] = matrix.data, matrix.indices.astype("u8"), matrix.indptr.astype("u8")
    return item


def write_hdf5(path: Path) -> Path:
    import h5py

    arrays = sample_arrays()
    with h5py.File(path, "w") as file:
        file["class_names"] = NAMES
        file["fixed"] = np.array([b"ab", b"c"])
        file["train_image"] = arrays["train_image"]
        file["number"] = 3
        group = file.create_group("group")
        group.create_dataset("text", data=arrays["train_text"], chunks=(16, 8), compression="gzip", shuffle=True)
        group.create_dataset("labels", data=arrays["train_labels"], chunks=(1, 16), fletcher32=True)
        file["flags"] = arrays["flags"]
        file["soft"] = h5py.SoftLink("/group/text")
    return path


def parquet_table() -> Any:
    import pyarrow as pa

    rng = np.random.default_rng(0)
    image, text = rng.normal(size=(60, 16)), rng.normal(size=(60, 8)).astype(np.float32)
    lists: list = text.tolist()
    lists[3] = lists[45] = None
    return pa.table(
        {
            "split": ["train"] * 40 + ["valid"] * 8 + ["test"] * 12,
            "image": pa.FixedSizeListArray.from_arrays(pa.array(image.ravel()), 16),
            "text": pa.array(lists, pa.list_(pa.float32())),
            "label": pa.array([NAMES[i % 3] for i in range(60)]),
            "image_labels": pa.array([i % 3 for i in range(60)]),
            "id": pa.array([f"row {i}" for i in range(60)]),
        }
    )


def write_parquet(path: Path) -> Path:
    import pyarrow.parquet as pq

    pq.write_table(
        parquet_table(), path, row_group_size=32, compression={"image": "zstd", "text": "none", "id": "none"}
    )
    return path


def noisy_labels() -> tuple[np.ndarray, np.ndarray]:
    """Clean and given labels [M, N] of 3 classes."""
    rng = np.random.default_rng(0)
    clean = rng.integers(0, 3, (2, 60)).astype(np.int32)
    return clean, np.where(rng.random(clean.shape) < 0.2, rng.integers(0, 3, clean.shape), clean)


MATRIX = np.full((3, 3), 0.1) + 0.7 * np.eye(3)


def write_own_json(path: Path) -> Path:
    """A `noise.json` with all optional parts: a matrix, and partners."""
    import jax

    from mrl_jax.noise.files import noise_record
    from mrl_jax.noise.inject import NoiseSpec, inject_noise

    noisy = inject_noise(noisy_labels()[0], NoiseSpec(0.5, "pair-mismatch"), jax.random.key(0), 3)
    record = noise_record(NoiseSpec(0.5, "matrix", matrix=MATRIX), noisy, 0, ("image", "text"), NAMES)  # type: ignore[arg-type]
    path.write_text(json.dumps(record))
    return path


def write_array(path: Path, array: np.ndarray) -> Path:
    """One array of noisy labels, or a matrix, in the format of the suffix."""
    import h5py
    import scipy.io

    if path.suffix == ".json":
        path.write_text(json.dumps(array.tolist()))
    elif path.suffix == ".csv":
        np.savetxt(path, array, "%g", ",")
    elif path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez_compressed(path, noisy_label=array)
    elif path.suffix == ".mat":
        scipy.io.savemat(path, {"noisy_label": array})
    else:
        with h5py.File(path, "w") as file:
            file.create_dataset("noisy_label", data=array, chunks=array.shape, compression="gzip")
    return path


def write_noise(name: str, folder: Path) -> Path:
    """The file of a name in `NOISE`."""
    what, _, kind = name.partition(": ")
    if kind == "own json":
        return write_own_json(folder / "noise.json")
    given = noisy_labels()[1] + (1.0 if kind == "mat" else 0)  # MATLAB: doubles from 1
    return write_array(folder / f"noise_labels_0.2_sym.{kind}", given if what == "noise" else MATRIX)


NOISE = (
    *(f"noise: {kind}" for kind in ("json", "own json", "mat", "h5", "npz", "npy")),
    *(f"matrix: {kind}" for kind in ("csv", "json", "npy")),
)
"""Names of files of noisy labels and of transition matrices."""

WRITERS: dict[str, Callable[[Path], Path]] = {
    "npz": write_npz,
    "npy": write_npy,
    "mat5": partial(write_mat5, compress=False),
    "mat5z": write_mat5,
    "mat73": write_mat73,
    "hdf5": write_hdf5,
    "parquet": write_parquet,
}
"""Format -> how a file of arrays is written."""

NEVER_READ = ("options", "soft")
"""Arrays of these files that are refused: a struct and a link."""
