"""Prepare a feature set once from the user's file: memory-mapped arrays and TFDS records in a folder of the cache."""

import contextlib
import errno
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mrl_jax.checksums import file_checksum, json_checksum
from mrl_jax.cut_options import CutOptions, key_entries, split_text
from mrl_jax.data.cache import cache_folder
from mrl_jax.data.dataset import Dataset, array_sha256
from mrl_jax.data.published.catalog import check_name
from mrl_jax.data.published.copy_folders import INDEX, array_file, copy_folder, replace_copy, staging
from mrl_jax.data.published.load_file import load_arrays
from mrl_jax.data.published.prepared import read_index, verify
from mrl_jax.errors import InputError
from mrl_jax.names import printable

__all__ = ["prepare"]

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, None)  # None: array_record gives no number


def prepare(
    name: str,
    source: str | os.PathLike[str],
    modalities: Sequence[str] = (),
    data_dir: str | os.PathLike[str] | None = None,
    *,
    overwrite: bool = False,
    progress: bool = False,
    keys: Sequence[str] | Mapping[str, Any] = (),
    split: str | Sequence[float] | None = None,
    split_seed: int = 0,
    valid_share: float | None = None,
) -> Path:
    """Prepare a set from its published file; after that it can be loaded by its name.

    The write is atomic: even if the process is killed, the new copy is complete or absent, and a copy that it replaces
    stays until then. A damaged copy is replaced without `overwrite`.

    Arrays are read, checked and written one by one. So memory is bounded by the largest array (usually the training
    images) as float32, times 1 for HDF5, MATLAB 7.3, `.npy` and float32 `.npz`; 3 for float64 `.npz`; about 3 for
    MATLAB 5 in single precision and 6 in double; 2 to 6 for Parquet. The operating system also reports pages of mapped
    files, up to the size of the set (and of an `.npy` source), and frees them when memory is short.

    Args:
        name: the set, a key of `CATALOG`.
        source: its file or folder, in any layout that `load_dataset` reads.
        modalities: which to keep; empty for all.
        data_dir: folder of prepared sets, see `cache_folder`.
        overwrite: replace a copy that was prepared from other data.
        progress: print the steps on standard error.
        keys: as in `load_dataset`.
        split: as in `load_dataset`.
        split_seed: as in `load_dataset`.
        valid_share: as in `load_dataset`.

    Returns:
        The folder of the prepared copy.

    Raises:
        InputError: unknown set, unusable source, no space, or a copy of other data exists.
    """
    check_name(name)
    keys, options = key_entries(keys) if keys else (), CutOptions(split_text(split), split_seed, valid_share)
    options.check()
    root = cache_folder(data_dir)
    say = (
        (lambda text: print(f"{name}: {printable(text)}", file=sys.stderr, flush=True))
        if progress
        else (lambda text: None)
    )
    with _input_errors(root, source), staging(root, name) as stage:
        say(f"reading {source}")
        data = _read_into(stage / "arrays", name, source, modalities, keys, options)
        folder = copy_folder(root, name, data.modalities)
        existing = _state_of(folder, data.digest())
        if existing == "same":
            say(f"{folder} holds the same data already")
            return folder
        if existing == "other" and not overwrite:
            origin = read_index(folder)["metadata"].get("source", "unknown")
            raise InputError(f"{folder} was prepared from other data ({origin}); --overwrite replaces it")
        if existing == "damaged":
            say(f"{folder} is damaged and is prepared again")
        say("writing TFDS records")
        from mrl_jax.data.published.tfds_builders import write_records  # deferred: imports TFDS

        made = write_records(name, data, stage / "records")
        records = {file.name: file.stat().st_size for file in made.iterdir()}
        (stage / "arrays").rename(made / "arrays")
        _write_index(made, data, records)
        replace_copy(made, folder)
    say(f"prepared in {folder}")
    return folder


@contextlib.contextmanager
def _input_errors(root: Path, source: str | os.PathLike[str]) -> Iterator[None]:
    """Turn errors of the file system into an `InputError` that names the source or the folder of prepared sets."""
    try:
        yield
    except BrokenPipeError:  # the reader of the progress output closed it
        raise
    except OSError as error:
        reason = error.strerror or error
        if isinstance(error.filename, str) and Path(error.filename).is_relative_to(Path(source).expanduser()):
            raise InputError(f"{error.filename} cannot be read ({reason}); check path and permissions") from error
        space = "a prepared set needs about twice the size of its features there; free space, or "
        raise InputError(
            f"data folder {root} cannot be written ({reason}): {space if error.errno in _FULL else ''}name another "
            "folder with the environment variable MRL_JAX_DATA_DIR"
        ) from error


def _state_of(folder: Path, digest: str) -> str:
    """Content of the folder of a copy: "nothing", the "same" data, "other" data, or a "damaged" copy."""
    if not folder.exists():
        return "nothing"
    try:
        if read_index(folder)["sha256"] != digest:
            return "other"
        return "damaged" if verify(folder) else "same"
    except InputError:
        return "damaged"


def _read_into(
    folder: Path,
    name: str,
    source: str | os.PathLike[str],
    modalities: Sequence[str],
    keys: Sequence[str],
    options: CutOptions,
) -> Dataset:
    """Read a source and write its arrays as `.npy` files to a new folder; the data set maps these files."""
    folder.mkdir()
    path = Path(source).expanduser()

    def keep(key: str, array: np.ndarray) -> np.ndarray:
        _save(folder / array_file(key), array)
        return np.load(folder / array_file(key), mmap_mode="r")

    data = load_arrays(path, modalities, set_name=name, keep=keep, keys=keys, options=options)
    for split_name, split in data.splits.items():
        for m in data.modalities:
            keep(f"{split_name}_{m}_labels", split.labels[m])
            if m in split.masks:
                keep(f"{split_name}_{m}_mask", split.masks[m])
        if split.ids is not None:
            keep(f"{split_name}_ids", split.ids)
    facts = {"source": str(path.absolute()), "source_sha256": _file_digest(path)}
    data = replace(data, metadata={**data.metadata, **{k: v for k, v in facts.items() if v is not None}})
    return replace(data, sha256={key: array_sha256(array) for key, array in data.arrays().items()})


def _save(path: Path, array: np.ndarray) -> None:
    """Like `numpy.save`, but in blocks; `numpy.save` does not report an error if the last bytes do not fit."""
    rows = max(1, (1 << 24) // max(1, array.dtype.itemsize * int(np.prod(array.shape[1:]))))
    with path.open("wb") as file:
        header = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, len(array), rows):
            file.write(np.ascontiguousarray(array[start : start + rows]).tobytes())
        file.flush()
        os.fsync(file.fileno())


def _file_digest(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_index(folder: Path, data: Dataset, records: Mapping[str, int]) -> None:
    index: dict[str, Any] = {
        "name": data.name,
        "modalities": list(data.modalities),
        "class_names": list(data.class_names),
        "sha256": data.digest(),
        "metadata": dict(data.metadata),
        "arrays": {
            key: {"shape": list(array.shape), "dtype": array.dtype.str, "sha256": data.sha256[key]}
            for key, array in data.arrays().items()
        },
        "ids": {s: array_sha256(ids) for s, split in data.splits.items() if (ids := split.ids) is not None},
        "records": dict(records),  # file -> bytes
        "record_checksums": {name: file_checksum(folder / name) for name in records},
    }
    index["checksum"] = json_checksum(index)
    (folder / INDEX).write_text(json.dumps(index, indent=2, ensure_ascii=False) + "\n", "utf-8")
