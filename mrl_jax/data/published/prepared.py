"""Load and verify prepared copies of feature sets; their arrays are memory maps.

Every array is compared with its digest before a process first uses it, in blocks.
"""

import hashlib
import os
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from mrl_jax.checksums import file_checksum, json_checksum
from mrl_jax.data.arrays import warn_of_classes
from mrl_jax.data.cache import cache_folder
from mrl_jax.data.dataset import SPLITS, Dataset, Split, array_head
from mrl_jax.data.formats.npz import map_npy
from mrl_jax.data.published.catalog import CATALOG, check_name
from mrl_jax.data.published.copy_folders import INDEX, array_file, copies
from mrl_jax.errors import DatasetWarning, InputError, first_line
from mrl_jax.json_files import ANY, Number, read_json

__all__ = ["copies", "load", "read_index", "verify"]

_BLOCK = 1 << 20
_COUNT = Number(0, whole=True)
_SCHEMA = {
    "name": str,
    "modalities": [str],
    "class_names": [str],
    "sha256": str,
    "metadata": {"deviations?": (None, [ANY])},
    "arrays": {str: {"shape": [_COUNT], "dtype": str, "sha256": str}},
    "ids": {str: str},
    "records": {str: _COUNT},
    "record_checksums?": {str: str},
    "checksum?": str,
}


def load(name: str, modalities: Sequence[str] = (), data_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """Load a prepared set. Its arrays are memory maps; the first time in a process they are read for their digests.

    Args:
        name: the set, a key of `CATALOG`.
        modalities: which to use, in this order; empty for all of the copy.
        data_dir: folder of prepared sets, see `cache_folder`.

    Raises:
        InputError: unknown set, no prepared copy with these modalities, or a damaged one.

    Warns:
        DatasetWarning: the set differs from the published one, as when its file is loaded; or the copy with the fewest
            modalities is damaged and another copy with the wanted modalities is used.
    """
    check_name(name)
    root = cache_folder(data_dir)
    prepared = {folder: _modalities(folder) for folder in copies(name, root)}
    matching = [folder for folder, names in prepared.items() if set(modalities) <= set(names)]
    matching.sort(key=lambda folder: len(prepared[folder]))
    if prepared and not matching:
        have = "; ".join(" ".join(names) for names in prepared.values())
        raise InputError(
            f"{name}: prepared with the modalities {have}, not with {' '.join(modalities)}; choose with --modalities, "
            "or prepare those"
        )
    if not matching:
        files = CATALOG[name].files[0].names
        raise InputError(
            f"{name} is not prepared (looked in {root}); run: python -m mrl_jax.data prepare {name} --data-path FILE, "
            f"with {files}, or give the file with --data-path; python -m mrl_jax.data info {name} describes the files"
        )
    # Without chosen modalities only the smallest copy is tried: another copy would be another data set.
    data = _first_sound(matching if modalities else matching[:1], modalities)
    flags = "--data-path FILE --valid-share 0.1"
    again = f"python -m mrl_jax.data prepare {name} {flags} --overwrite"
    remedy = f"with a file that has no valid arrays run {again}, or give the run {flags}"
    warn_of_classes(data, f"{data.metadata['prepared']}", remedy)
    if deviations := data.metadata.get("deviations"):
        warnings.warn(f"{data.metadata['prepared']}: {'; '.join(map(str, deviations))}", DatasetWarning, stacklevel=3)
    return data


def verify(folder: Path) -> list[str]:
    """Read a prepared copy completely and compare it with its index: digests of arrays and of TFDS files.

    Args:
        folder: the copy, one of `copies`.

    Returns:
        The names of arrays and files that are missing or changed.

    Raises:
        InputError: the index is damaged.
    """
    index = read_index(folder)
    expected = {key: facts["sha256"] for key, facts in index["arrays"].items()}
    expected |= {f"{name}/ids": digest for name, digest in index["ids"].items()}
    bad = []
    for key, digest in expected.items():
        try:
            if _sha256_of(_file(folder, key), _map(folder, key, index["arrays"].get(key))) != digest:
                bad.append(key)
        except (InputError, OSError):
            bad.append(key)
    digests = index.get("record_checksums", {})  # earlier versions wrote sizes alone
    for name, size in index["records"].items():
        path = folder / name
        if (
            not path.is_file()
            or path.stat().st_size != size
            or digests.get(name, file_checksum(path)) != (file_checksum(path))
        ):
            bad.append(name)
    return bad


def _first_sound(folders: Sequence[Path], modalities: Sequence[str]) -> Dataset:
    """The first copy that is not damaged; a `DatasetWarning` reports damaged copies before it."""
    for folder in folders:
        try:
            index = read_index(folder)
            return _map_dataset(folder, index, tuple(modalities) or tuple(index["modalities"]))
        except InputError as error:
            if folder == folders[-1]:
                raise
            warnings.warn(f"{error}; another copy is used", DatasetWarning, stacklevel=4)
    raise AssertionError("no folders were given")


def _modalities(folder: Path) -> tuple[str, ...]:
    """The modalities of a copy, from its index or, if that is damaged, from the name of the folder."""
    try:
        return tuple(read_index(folder)["modalities"])
    except InputError:
        return tuple(folder.parent.name.split("-"))


def read_index(folder: Path) -> dict[str, Any]:
    """Read and check the index of a prepared copy.

    Args:
        folder: the copy, one of `copies`.

    Raises:
        InputError: the index is damaged.
    """
    try:
        index = read_json(folder / INDEX, _SCHEMA)
        lines = [f"{key} {facts['sha256']}\n" for key, facts in index["arrays"].items()]
        if hashlib.sha256("".join(lines).encode()).hexdigest() != index["sha256"]:  # as in `Dataset.digest`
            raise ValueError("its digests contradict each other")
        if index.pop("checksum", None) not in (None, json_checksum(index)):
            raise ValueError("its own checksum differs")
        names = index["modalities"]
        if not names or len(set(names)) < len(names) or not index["class_names"]:
            raise ValueError("modalities or class_names are not those of a set")
        return index
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / INDEX} is damaged ({error}); prepare the set again") from error


def _map_dataset(folder: Path, index: Mapping[str, Any], modalities: Sequence[str]) -> Dataset:
    splits, digests, checked = {}, {}, dict[str, tuple[np.ndarray, str]]()
    for name in SPLITS:
        parts: dict[str, dict[str, np.ndarray]] = {"features": {}, "labels": {}, "mask": {}}
        for m in modalities:
            for part, arrays in parts.items():
                key = f"{name}/{m}/{part}"
                if part != "mask" or key in index["arrays"]:
                    arrays[m] = _map(folder, key, index["arrays"].get(key, {}))
                    digests[key] = index["arrays"][key]["sha256"]
                    checked[key] = (arrays[m], digests[key])
        ids = _map(folder, f"{name}/ids") if name in index["ids"] else None
        splits[name] = Split(parts["features"], parts["labels"], parts["mask"], ids)
        if ids is not None:
            checked[f"{name}/ids"] = (ids, index["ids"][name])
    _check_once(folder, checked)
    metadata = {**index["metadata"], "prepared": str(folder)}
    return Dataset(index["name"], tuple(modalities), tuple(index["class_names"]), splits, metadata, digests)


def _map(folder: Path, key: str, expected: Mapping[str, Any] | None = None) -> np.ndarray:
    """An array by its key in the index, `SPLIT/MODALITY/features` for example."""
    path = _file(folder, key)
    try:
        array = map_npy(path)
        if not array.size:
            raise ValueError("it is empty")
        if expected is not None and [list(array.shape), array.dtype.str] != [expected["shape"], expected["dtype"]]:
            raise ValueError(f"it is {array.dtype} {list(array.shape)}")
        return np.asarray(array)
    except Exception as error:  # damaged headers raise errors of many types
        what = f"arrays/{path.name}: {first_line(error)}"
        raise InputError(f"the prepared data in {folder} are damaged ({what}); prepare the set again") from error


def _file(folder: Path, key: str) -> Path:
    split, _, rest = key.partition("/")
    modality, _, part = rest.rpartition("/")  # ids belong to no modality
    words = (split, modality, part.removesuffix("features"))
    return folder / "arrays" / array_file("_".join(filter(None, words)))


_sound: set[tuple[Any, ...]] = set()  # files that this process has compared with their digests


def _check_once(folder: Path, arrays: Mapping[str, tuple[np.ndarray, str]]) -> None:
    """Compare arrays with their digests, several at a time, unless this process has done it since they were written.

    Raises:
        InputError: one differs.
    """

    def check(key: str) -> str | None:
        path, (array, digest) = _file(folder, key), arrays[key]
        state = path.stat()
        mark = (str(path), state.st_ino, state.st_mtime_ns, state.st_size, digest)
        if mark in _sound:
            return None
        if _sha256_of(path, array) != digest:
            return path.name
        _sound.add(mark)
        return None

    with ThreadPoolExecutor(4) as pool:
        damaged = [name for name in pool.map(check, arrays) if name is not None]
    if damaged:
        what = f"arrays/{damaged[0]}: its digest differs"
        raise InputError(f"the prepared data in {folder} are damaged ({what}); prepare the set again")


def _sha256_of(path: Path, array: np.ndarray) -> str:
    """`array_sha256` of a mapped array, which reads the file in blocks and not the map: its pages stay free."""
    assert isinstance(array.base, np.memmap)
    sha, left = hashlib.sha256(array_head(array)), array.nbytes
    with path.open("rb") as file:
        file.seek(array.base.offset)
        while left and (block := file.read(min(left, _BLOCK))):
            sha.update(block)
            left -= len(block)
    return sha.hexdigest()
