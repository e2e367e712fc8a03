"""Fuzzing of the file formats: damaged files must load or be refused in one line, quickly and in little memory.

    python tests/data/fuzz.py [--format npz|npy|mat5|mat5z|mat73|hdf5|parquet|all]
                         [--format layouts|"load: LAYOUT"|labels|"noise: KIND"|"matrix: KIND"]
                         [--mutations 2000] [--seed 0] [--start 0] [--no-probe]

Arrays of a format are read one by one; a layout (of `layout_files`) is loaded by `load_dataset`; files of noisy labels
and of transition matrices (`labels`: all of them) are read by the functions for these.

`--no-probe` reads HDF5 and Parquet without a probe in a worker process, which is faster and shows the failures that the
probe must catch. Prints one line per format, and one per failure with format, seed and number of the mutation, which
reproduce it.
"""

import argparse
import dataclasses
import json
import random
import resource
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[i]) for i in (1, 2)]  # shared test modules, when run as a program

from layout_files import CELLS as CELLS_OF_LAYOUTS  # noqa: E402
from layout_files import LAYOUT_FILES, SIZES, small_set, write_layout  # noqa: E402

SECONDS = 10  # for one mutation
NEVER_READ = ("options", "soft")  # a struct and a link, refused in valid files too
GROWTH = 512 << 20  # bytes of memory that one mutation may take
ROOM = 3 << 30  # bytes of address space in addition to those at the start of a process


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


WRITERS: dict[str, Callable[[Path], Path]] = {
    "npz": write_npz,
    "npy": write_npy,
    "mat5": partial(write_mat5, compress=False),
    "mat5z": write_mat5,
    "mat73": write_mat73,
    "hdf5": write_hdf5,
    "parquet": write_parquet,
}
NOISE = (*(f"noise: {kind}" for kind in ("json", "own json", "mat", "h5", "npz", "npy")),
         *(f"matrix: {kind}" for kind in ("csv", "json", "npy")))  # fmt: skip
LOADS = {f"load: {name}": name for name in LAYOUT_FILES}


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Damage one to four places, half of them within 512 bytes of the start or the end."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 4))):
        if not out:
            break
        where = rng.random()
        edge = min(512, len(out))
        at = rng.randrange(edge) if where < 0.25 else rng.randrange(len(out))
        if 0.25 <= where < 0.5:
            at = len(out) - 1 - rng.randrange(edge)
        span = rng.choice((1, 2, 4, 8, 16, 64, 512))
        kind = rng.randrange(10)
        if kind <= 1:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            out[at] = rng.randrange(256)
        elif kind == 3:
            del out[at:]
        elif kind == 4:
            out[at:at] = out[at : at + span]
        elif kind == 5:
            del out[at : at + span]
        elif kind == 6:
            out[at : at + span] = bytes(len(out[at : at + span]))
        elif kind == 7:
            out[at:at] = b"\xff" * span
        elif kind == 8:  # an aligned number
            size = rng.choice((2, 4, 8))
            number = rng.choice(
                (0, 1, 2**15, 2**24, 2**31 - 1, 2**32 - 1, 2**40, 2**63, 2**64 - 1, rng.getrandbits(40))
            )
            at -= at % size
            out[at : at + size] = (number % (1 << 8 * size)).to_bytes(size, rng.choice(("little", "big")))
        else:  # decimal digits, as in the header of an .npy
            digits = [i for i in range(min(4096, len(out))) if 48 <= out[i] < 58] or [at]
            at = rng.choice(digits)
            out[at : at + 1] = str(rng.getrandbits(rng.choice((3, 16, 50)))).encode()
    return bytes(out)


def write_valid(name: str, folder: Path) -> tuple[Path, dict[Path, bytes]]:
    """Write a valid file or folder; returns its path and the content of the files to mutate in turn."""
    if name in LOADS:
        path = write_layout(LOADS[name], folder, small_set(CELLS_OF_LAYOUTS))[0]
    else:
        path = write_noise(name, folder) if name in NOISE else WRITERS[name](folder / name)
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return path, {file: file.read_bytes() for file in files}


def place_mutation(name: str, seed: int, index: int, valid: dict[Path, bytes]) -> None:
    """Overwrite one of the files with a mutation, and restore the previous one."""
    files = list(valid)
    before, target = files[(index - 1) % len(files)], files[index % len(files)]
    before.write_bytes(valid[before])
    target.write_bytes(mutate(valid[target], random.Random(f"{name} {seed} {index}")))


def load_outcome(name: str, path: Path) -> str:
    """Load the data set: "ok", "refused", or a description of the failure."""
    from mrl_jax.data.load import load_dataset
    from mrl_jax.errors import InputError

    try:
        load_dataset(path, set_name=LAYOUT_FILES[LOADS[name]][2]).digest()
        return "ok"
    except InputError as error:
        return _checked(error)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def noise_outcome(name: str, path: Path) -> str:
    """Read the labels or the matrix: "ok", "refused", or a description of the failure."""
    from mrl_jax.errors import InputError
    from mrl_jax.noise.files import read_noise_file, read_transition_matrix

    try:
        if name.startswith("matrix"):
            matrix = np.array(read_transition_matrix(path, 3))
            assert matrix.shape == (3, 3)
            assert np.allclose(matrix.sum(axis=1), 1, atol=2e-6)
        else:
            noisy, described = read_noise_file(path, noisy_labels()[0], ("image", "text"), 3)
            assert noisy.labels.shape == noisy.clean.shape == (2, 60)
            assert np.isin(noisy.labels, range(3)).all()
            json.dumps(described, allow_nan=False)
        return "ok"
    except InputError as error:
        return _checked(error)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def outcome(path: Path) -> str:
    """Read every array: "ok", "refused", or a description of the failure."""
    from mrl_jax.data.formats import open_arrays
    from mrl_jax.errors import InputError

    result = "ok"
    try:
        with open_arrays(path) as arrays:
            for key in arrays:
                try:
                    value = arrays[key]
                    assert isinstance(value, np.ndarray) and value.dtype.kind in "biufcSU"  # noqa: PT018
                    value.tolist() if value.size < 10_000 else value.max()
                except InputError as error:
                    result = result if key in NEVER_READ else _checked(error)
                if result not in ("ok", "refused"):
                    break
    except InputError as error:
        result = _checked(error)
    except Exception as error:
        result = f"{type(error).__name__}: {error}"
    return result


def _checked(error: Exception) -> str:
    if len(str(error).splitlines()) != 1:
        return f"several lines: {error!r}"
    text, cause = str(error), error.__cause__
    if isinstance(cause, MemoryError | RecursionError) or "unable to alloc" in text.lower():
        return f"memory: {text}"
    return "refused"


def child(name: str, seed: int, start: int, stop: int, probe: int) -> None:
    """Test mutations; prints a line of JSON before and after each. An alarm ends the process if it hangs."""
    import h5py  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import scipy.io
    import scipy.sparse  # noqa: F401

    from mrl_jax.data.formats import hdf5, parquet
    from mrl_jax.errors import DatasetWarning

    if name in NOISE:
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", DatasetWarning)
    if not probe:
        hdf5.probe_in_worker = parquet.probe_in_worker = lambda *args: None
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        path, valid = write_valid(name, base)
        if name in LOADS:
            _small_catalog()
        judge = outcome
        if name in LOADS or name in NOISE:
            judge = partial(load_outcome if name in LOADS else noise_outcome, name)
        if (result := judge(path)) != "ok":
            raise SystemExit(f"the valid file fails: {result}")
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, used + ROOM))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        for index in range(start, stop):
            print(json.dumps([index, "started"]), flush=True)
            place_mutation(name, seed, index, valid)
            before = _peak()
            signal.alarm(SECONDS)
            result = judge(path)
            signal.alarm(0)
            if _peak() - before > GROWTH:
                result = f"{(_peak() - before) >> 20} MiB of memory ({result})"
            print(json.dumps([index, result]), flush=True)


def _small_catalog() -> None:
    """Give the catalog the small sizes of the layout files, and ignore warnings of differences."""
    from mrl_jax.data.published.catalog import CATALOG

    warnings.simplefilter("ignore")
    for name, facts in CATALOG.items():
        CATALOG[name] = dataclasses.replace(facts, sizes=SIZES, class_names=())


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def fuzz(name: str, seed: int, start: int, stop: int, probe: bool = True) -> dict[int, str]:
    """Outcome of each mutation, tested in child processes; if one dies, its last mutation has failed."""
    results: dict[int, str] = {}
    while start < stop:
        command = [sys.executable, __file__, "--child", name, str(seed), str(start), str(stop), str(int(probe))]
        run = subprocess.run(command, capture_output=True, text=True, timeout=3600, check=False)
        lines = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("[")]
        results.update({index: result for index, result in lines if result != "started"})
        if run.returncode == 0:
            break
        if not lines:
            raise RuntimeError(run.stderr)
        last = lines[-1][0]
        results[last] = f"process ended by {run.returncode}: {(run.stderr.strip().splitlines() or [''])[-1][:200]}"
        start = last + 1
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--format", choices=[*WRITERS, "all", *LOADS, "layouts", *NOISE, "labels"], default="all")
    parser.add_argument("--mutations", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--no-probe", action="store_true")
    args = parser.parse_args()
    failed = 0
    for name in {"all": list(WRITERS), "layouts": list(LOADS), "labels": NOISE}.get(args.format, [args.format]):
        results = fuzz(name, args.seed, args.start, args.start + args.mutations, not args.no_probe)
        kinds = list(results.values())
        bad = {i: r for i, r in results.items() if r not in ("ok", "refused")}
        ok, refused = kinds.count("ok"), kinds.count("refused")
        print(f"{name}: {len(results)} mutations, {ok} ok, {refused} refused, {len(bad)} failures", flush=True)
        for index, result in bad.items():
            print(f"  ({name!r}, {args.seed}, {index}): {result[:300]}", flush=True)
        failed += len(bad)
    return 1 if failed else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], *map(int, sys.argv[3:7]))
    else:
        sys.exit(main())
