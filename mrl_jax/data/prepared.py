"""Feature sets prepared once from the user's files, then loaded as memory maps.

```
CACHE/SET/MODALITIES/1.0.0/
    prepared.json           what it is, and the digest of every array
    arrays/SPLIT_MODALITY.npy, SPLIT_MODALITY_labels.npy, …
    *.array_record, features.json, …    the same as TFDS records, for other programs
```
"""

import contextlib
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mrl_jax.data.cache import cache_folder
from mrl_jax.data.catalog import CATALOG
from mrl_jax.data.dataset import SPLITS, Dataset, Split, array_sha256
from mrl_jax.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["VERSION", "copies", "load", "prepare", "verify"]

VERSION = "1.0.0"
"""Of the prepared form; another one is prepared anew."""
_INDEX = "prepared.json"


def prepare(
    name: str,
    source: str | os.PathLike[str],
    modalities: Sequence[str] = (),
    data_dir: str | os.PathLike[str] | None = None,
    *,
    overwrite: bool = False,
    progress: bool = False,
) -> Path:
    """Prepare a set from its published file; afterwards its name is enough to load it.

    Memory stays below the size of the set: arrays are read, checked and written one by one. The folder appears whole or
    not at all, also if the process is killed.

    Args:
        name: the set, a key of `CATALOG`.
        source: its file or folder, in any layout that `load_dataset` reads.
        modalities: which to keep; empty for all.
        data_dir: folder of prepared sets, see `cache_folder`.
        overwrite: replace a copy that was prepared from other data.
        progress: tell on standard error what is being done.

    Returns:
        The folder of the prepared copy.

    Raises:
        InputError: unknown set, unusable source, no space, or a copy of other data stands there.
    """
    _known(name)
    root = cache_folder(data_dir)
    say = (lambda text: print(f"{name}: {text}", file=sys.stderr, flush=True)) if progress else (lambda text: None)
    with _told_if_full(root), _staging(root, name) as stage:
        say(f"reading {source}")
        data = _read_into(stage / "arrays", name, source, modalities)
        folder = _folder(root, name, data.modalities)
        if (folder / _INDEX).exists():
            if _index(folder)["sha256"] == data.digest():
                say(f"{folder} holds the same data already")
                return folder
            if not overwrite:
                raise InputError(
                    f"{folder} was prepared from other data ({_index(folder)['metadata']['source']}); "
                    "--overwrite replaces it"
                )
        say("writing TFDS records")
        from mrl_jax.data.tfds_builders import write_records  # deferred: TFDS

        made = write_records(name, data, stage / "records")
        (stage / "arrays").rename(made / "arrays")
        _write_index(made, data)
        if folder.exists():
            folder.rename(stage / "old")
        folder.parent.mkdir(parents=True, exist_ok=True)
        made.rename(folder)
    say(f"prepared in {folder}")
    return folder


def load(name: str, modalities: Sequence[str] = (), data_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """Load a prepared set; its arrays are memory maps, so that this takes no time and no memory.

    Args:
        name: the set, a key of `CATALOG`.
        modalities: which to use, in this order; empty for all of the copy.
        data_dir: folder of prepared sets, see `cache_folder`.

    Raises:
        InputError: unknown set, no prepared copy with these modalities, or a damaged one.
    """
    _known(name)
    root = cache_folder(data_dir)
    found = copies(name, root)
    fitting = [folder for folder in found if set(modalities) <= set(_index(folder)["modalities"])]
    if not fitting:
        if found:
            have = "; ".join(" ".join(_index(folder)["modalities"]) for folder in found)
            raise InputError(
                f"{name}: prepared with the modalities {have}, not with {' '.join(modalities)}; prepare it"
            )
        files = CATALOG[name].files[0].names
        raise InputError(
            f"{name} is not prepared (looked in {root}); run: python -m mrl_jax.data prepare {name} --data-path FILE, "
            f"with {files}, or give the file with --data-path; python -m mrl_jax.data info {name} tells more"
        )
    folder = min(fitting, key=lambda folder: len(_index(folder)["modalities"]))
    index = _index(folder)
    return _mapped(folder, index, tuple(modalities) or tuple(index["modalities"]))


def copies(name: str, root: Path | None = None) -> list[Path]:
    """The folders of the prepared copies of a set, one for each choice of modalities."""
    return sorted(p.parent for p in ((root or cache_folder()) / name).glob(f"*/{VERSION}/{_INDEX}"))


def verify(folder: Path) -> list[str]:
    """Read a prepared copy whole and compare digests: the names of the arrays that are not as they were written."""
    index = _index(folder)
    data = _mapped(folder, index, tuple(index["modalities"]))
    return [key for key, array in data.arrays().items() if array_sha256(array) != index["arrays"][key]["sha256"]]


def _known(name: str) -> None:
    if name not in CATALOG:
        raise InputError(f"unknown data set {name!r}; choose from: {', '.join(CATALOG)}")


def _folder(root: Path, name: str, modalities: Sequence[str]) -> Path:
    return root / name / "-".join(modalities) / VERSION


# ---------------------------------------------------------------------------------------------------------------------
# Writing


@contextlib.contextmanager
def _staging(root: Path, name: str) -> Iterator[Path]:
    """A folder to write in, on the same file system; whatever an earlier, killed process left there is removed."""
    home = root / name
    home.mkdir(parents=True, exist_ok=True)
    stage, handle = home / ".preparing", os.open(home, os.O_RDONLY)
    try:
        if fcntl is not None:  # not on Windows; the lock ends with the process, however that ends
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(f"{name}: another process is preparing it in {home}; wait for its end") from None
        shutil.rmtree(stage, ignore_errors=True)
        try:
            stage.mkdir()
            yield stage
        finally:
            shutil.rmtree(stage, ignore_errors=True)
    finally:
        os.close(handle)
        with contextlib.suppress(OSError):
            home.rmdir()  # if nothing is in it


@contextlib.contextmanager
def _told_if_full(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"data folder {root} cannot be written ({error.strerror or error}): a prepared set needs about twice the "
            "size of its file there; free space, or name another folder with the environment variable MRL_JAX_DATA_DIR"
        ) from error


def _read_into(folder: Path, name: str, source: str | os.PathLike[str], modalities: Sequence[str]) -> Dataset:
    """Read a source and keep its arrays as `.npy` files of the folder, memory-mapped."""
    from mrl_jax.data import load_arrays

    folder.mkdir()
    path = Path(source).expanduser()

    def keep(key: str, array: np.ndarray) -> np.ndarray:
        _save(folder / f"{key}.npy", array)
        return np.load(folder / f"{key}.npy", mmap_mode="r")

    data = load_arrays(path, modalities, set_name=name, keep=keep)
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
    """`numpy.save` in blocks; that one does not notice when the last bytes find no space."""
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


def _write_index(folder: Path, data: Dataset) -> None:
    index = {
        "name": data.name,
        "modalities": list(data.modalities),
        "class_names": list(data.class_names),
        "sha256": data.digest(),
        "metadata": dict(data.metadata),
        "arrays": {
            key: {"shape": list(array.shape), "dtype": array.dtype.str, "sha256": data.sha256[key]}
            for key, array in data.arrays().items()
        },
        "ids": [name for name in SPLITS if data.splits[name].ids is not None],
    }
    (folder / _INDEX).write_text(json.dumps(index, indent=2, ensure_ascii=False) + "\n", "utf-8")


# ---------------------------------------------------------------------------------------------------------------------
# Reading


def _index(folder: Path) -> dict[str, Any]:
    try:
        index = json.loads((folder / _INDEX).read_text("utf-8"))
        if not {"name", "modalities", "class_names", "sha256", "metadata", "arrays", "ids"} <= set(index):
            raise ValueError("entries are missing")
        return index
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{folder / _INDEX} is damaged ({error}); delete {folder} and prepare the set anew") from error


def _mapped(folder: Path, index: Mapping[str, Any], modalities: Sequence[str]) -> Dataset:
    splits, digests = {}, {}
    for name in SPLITS:
        features: dict[str, np.ndarray] = {}
        labels: dict[str, np.ndarray] = {}
        masks: dict[str, np.ndarray] = {}
        for m in modalities:
            for part, kept, end in (
                ("features", features, ""),
                ("labels", labels, "_labels"),
                ("mask", masks, "_mask"),
            ):
                key = f"{name}/{m}/{part}"
                if part != "mask" or key in index["arrays"]:
                    kept[m] = _map(folder, f"{name}_{m}{end}", index["arrays"].get(key, {}))
                    digests[key] = index["arrays"][key]["sha256"]
        ids = _map(folder, f"{name}_ids", None) if name in index["ids"] else None
        splits[name] = Split(features, labels, masks, ids)
    metadata = {**index["metadata"], "prepared": str(folder)}
    return Dataset(index["name"], tuple(modalities), tuple(index["class_names"]), splits, metadata, digests)


def _map(folder: Path, key: str, expected: Mapping[str, Any] | None) -> np.ndarray:
    try:
        array = np.load(folder / "arrays" / f"{key}.npy", mmap_mode="r", allow_pickle=False)
        if expected is not None and [list(array.shape), array.dtype.str] != [expected["shape"], expected["dtype"]]:
            raise ValueError(f"it is {array.dtype} {list(array.shape)}")
        return np.asarray(array)
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise InputError(
            f"the prepared data in {folder} are damaged (arrays/{key}.npy: {error}); delete that folder and "
            "prepare anew"
        ) from error
