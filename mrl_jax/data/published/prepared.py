"""Feature sets prepared once from the user's files, then loaded as memory maps.

```
CACHE/SET/MODALITIES/1.0.0/
    prepared.json           what it is, and the digest of every array
    arrays/SPLIT_MODALITY.npy, SPLIT_MODALITY_labels.npy, …
    *.array_record, features.json, …    the same as TFDS records, for other programs
```
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mrl_jax.data.cache import cache_folder
from mrl_jax.data.dataset import SPLITS, Dataset, Split, array_sha256
from mrl_jax.data.published.catalog import CATALOG
from mrl_jax.errors import DatasetWarning, InputError
from mrl_jax.files import locked

__all__ = ["VERSION", "copies", "load", "prepare", "verify"]

VERSION = "1.0.0"
"""Of the prepared form; another one is prepared anew."""
_INDEX = "prepared.json"
_OLD = f".old-{VERSION}"  # beside a copy: the one that it is replacing
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, None)  # array_record tells no number
_ENTRIES = {"name": str, "modalities": list, "class_names": list, "metadata": dict, "ids": dict, "records": dict}


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

    The copy appears whole or not at all, also if the process is killed; one that it replaces stays until then. A copy
    that turns out to be damaged is replaced by itself.

    Arrays are read, checked and written one by one, so the memory taken is that of the largest (as a rule the training
    images), as float32, times: 1 from HDF5, MATLAB 7.3 and `.npy` of any type, and from float32 `.npz`; 3 from float64
    `.npz`; about 3 from MATLAB 5 in single precision and 6 in double; 2 to 6 from Parquet. The system reports pages of
    mapped files on top, up to the size of the set (and of an `.npy` source), and takes them back when memory is short.

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
    with _errors_told(root, source), _staging(root, name) as stage:
        say(f"reading {source}")
        data = _read_into(stage / "arrays", name, source, modalities)
        folder = _folder(root, name, data.modalities)
        standing = _standing(folder, data.digest())
        if standing == "same":
            say(f"{folder} holds the same data already")
            return folder
        if standing == "other" and not overwrite:
            known = _index(folder)["metadata"].get("source", "unknown")
            raise InputError(f"{folder} was prepared from other data ({known}); --overwrite replaces it")
        if standing == "damaged":
            say(f"{folder} is damaged, prepared anew")
        say("writing TFDS records")
        from mrl_jax.data.published.tfds_builders import write_records  # deferred: TFDS

        made = write_records(name, data, stage / "records")
        records = {file.name: file.stat().st_size for file in made.iterdir()}
        (stage / "arrays").rename(made / "arrays")
        _write_index(made, data, records)
        _switch(made, folder)
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

    Warns:
        DatasetWarning: the set differs from the published one, as told when its file is loaded; or the copy that fits
            best is damaged and another one with these modalities is used.
    """
    _known(name)
    root = cache_folder(data_dir)
    kept = {folder: _kept(folder) for folder in copies(name, root)}
    fitting = sorted((f for f, found in kept.items() if set(modalities) <= set(found)), key=lambda f: len(kept[f]))
    if kept and not fitting:
        have = "; ".join(" ".join(found) for found in kept.values())
        raise InputError(
            f"{name}: prepared with the modalities {have}, not with {' '.join(modalities)}; choose with --modalities, "
            "or prepare those"
        )
    if not fitting:
        files = CATALOG[name].files[0].names
        raise InputError(
            f"{name} is not prepared (looked in {root}); run: python -m mrl_jax.data prepare {name} --data-path FILE, "
            f"with {files}, or give the file with --data-path; python -m mrl_jax.data info {name} tells more"
        )
    # Without a choice of modalities, the smallest copy is meant: another one would be another data set.
    data = _first_sound(fitting if modalities else fitting[:1], modalities)
    if found := data.metadata.get("deviations"):
        warnings.warn(f"{data.metadata['prepared']}: {'; '.join(map(str, found))}", DatasetWarning, stacklevel=3)
    return data


def copies(name: str, root: Path | None = None) -> list[Path]:
    """The folders of the prepared copies of a set, one for each choice of modalities.

    A copy that a killed process was about to replace is put back first.
    """
    home = (root or cache_folder()) / name
    if any(home.glob(f"*/{_OLD}")):
        with contextlib.suppress(InputError, OSError), _locked(home, name):  # not while another process is at it
            _settle(home)
    return sorted(p.parent for p in home.glob(f"*/{VERSION}/{_INDEX}"))


def verify(folder: Path) -> list[str]:
    """Read a prepared copy whole and compare it with its index: digests of arrays, sizes of the TFDS records' files.

    Args:
        folder: the copy, one of `copies`.

    Returns:
        The names of what is missing or not as it was written.

    Raises:
        InputError: the index is damaged.
    """
    index = _index(folder)
    expected = {key: facts["sha256"] for key, facts in index["arrays"].items()}
    expected |= {f"{name}/ids": digest for name, digest in index["ids"].items()}
    bad = []
    for key, digest in expected.items():
        try:
            if array_sha256(_map(folder, key, index["arrays"].get(key))) != digest:
                bad.append(key)
        except InputError:
            bad.append(key)
    sizes = {name: (folder / name).stat().st_size if (folder / name).is_file() else None for name in index["records"]}
    return bad + [name for name, size in sizes.items() if size != index["records"][name]]


def _known(name: str) -> None:
    if name not in CATALOG:
        raise InputError(f"unknown data set {name!r}; choose from: {', '.join(CATALOG)}")


def _folder(root: Path, name: str, modalities: Sequence[str]) -> Path:
    return root / name / "-".join(modalities) / VERSION


# ---------------------------------------------------------------------------------------------------------------------
# Writing


@contextlib.contextmanager
def _staging(root: Path, name: str) -> Iterator[Path]:
    """A folder to write in, on the same file system; whatever an earlier, killed process left there is settled."""
    home = root / name
    home.mkdir(parents=True, exist_ok=True)
    stage = home / ".preparing"
    try:
        with _locked(home, name):
            _settle(home)
            shutil.rmtree(stage, ignore_errors=True)
            try:
                stage.mkdir()
                yield stage
            finally:
                shutil.rmtree(stage, ignore_errors=True)
                _settle(home)
    finally:
        with contextlib.suppress(OSError):
            home.rmdir()  # if nothing is in it


def _locked(home: Path, name: str) -> contextlib.AbstractContextManager[None]:
    """Be the only process that writes in a set's folder."""
    return locked(home, f"{name}: another process is preparing it in {home}; wait for its end")


def _switch(made: Path, folder: Path) -> None:
    """Put a finished copy into its place; killed at any point, `_settle` finds the old one or the new one whole."""
    _sync(made)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists():
        folder.rename(folder.with_name(_OLD))
    made.rename(folder)
    _sync_names(folder.parent)


def _settle(home: Path) -> None:
    """Put back copies whose replacement never came, and remove those that were replaced."""
    for old in home.glob(f"*/{_OLD}"):
        folder = old.with_name(VERSION)
        if not folder.exists() and (old / _INDEX).exists():
            old.rename(folder)
        else:
            (old / _INDEX).unlink(missing_ok=True)  # first: half a copy must never come back
            shutil.rmtree(old, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Bring all files of a folder to the disk: after a power failure, a name there must not stand for nothing."""
    for path in [*folder.rglob("*"), folder]:
        if path.is_dir():
            _sync_names(path)
        else:
            with path.open("r+b") as file:
                os.fsync(file.fileno())


def _sync_names(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not every system can do this with folders
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def _errors_told(root: Path, source: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:  # whoever watched the progress went away
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


def _standing(folder: Path, digest: str) -> str:
    """What stands where a copy should go: "nothing", the "same" data, "other" data, or a "damaged" copy."""
    if not folder.exists():
        return "nothing"
    try:
        if _index(folder)["sha256"] != digest:
            return "other"
        return "damaged" if verify(folder) else "same"
    except InputError:
        return "damaged"


def _read_into(folder: Path, name: str, source: str | os.PathLike[str], modalities: Sequence[str]) -> Dataset:
    """Read a source and keep its arrays as `.npy` files of the folder, memory-mapped."""
    from mrl_jax.data.load import load_arrays

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


def _write_index(folder: Path, data: Dataset, records: Mapping[str, int]) -> None:
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
        "ids": {s: array_sha256(ids) for s, split in data.splits.items() if (ids := split.ids) is not None},
        "records": dict(records),  # file -> bytes
    }
    (folder / _INDEX).write_text(json.dumps(index, indent=2, ensure_ascii=False) + "\n", "utf-8")


# ---------------------------------------------------------------------------------------------------------------------
# Reading


def _first_sound(folders: Sequence[Path], modalities: Sequence[str]) -> Dataset:
    """The first copy that can be mapped; damage of those before it is told."""
    for folder in folders:
        try:
            index = _index(folder)
            return _mapped(folder, index, tuple(modalities) or tuple(index["modalities"]))
        except InputError as error:
            if folder == folders[-1]:
                raise
            warnings.warn(f"{error}; another copy is used", DatasetWarning, stacklevel=4)
    raise AssertionError("no folders were given")


def _kept(folder: Path) -> tuple[str, ...]:
    """The modalities of a copy; of one with a damaged index what the folder's name tells."""
    try:
        return tuple(_index(folder)["modalities"])
    except InputError:
        return tuple(folder.parent.name.split("-"))


def _index(folder: Path) -> dict[str, Any]:
    try:
        index = json.loads((folder / _INDEX).read_text("utf-8"))
        for entry, kind in _ENTRIES.items():
            if not isinstance(index[entry], kind):
                raise ValueError(f"{entry} is no {kind.__name__}")
        lines = [f"{key} {facts['sha256']}\n" for key, facts in index["arrays"].items()]
        if hashlib.sha256("".join(lines).encode()).hexdigest() != index["sha256"]:  # as in `Dataset.digest`
            raise ValueError("its digests contradict")
        return index
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(f"{folder / _INDEX} is damaged ({error}); prepare the set anew") from error


def _mapped(folder: Path, index: Mapping[str, Any], modalities: Sequence[str]) -> Dataset:
    splits, digests = {}, {}
    for name in SPLITS:
        parts: dict[str, dict[str, np.ndarray]] = {"features": {}, "labels": {}, "mask": {}}
        for m in modalities:
            for part, kept in parts.items():
                key = f"{name}/{m}/{part}"
                if part != "mask" or key in index["arrays"]:
                    kept[m] = _map(folder, key, index["arrays"].get(key, {}))
                    digests[key] = index["arrays"][key]["sha256"]
        ids = _map(folder, f"{name}/ids") if name in index["ids"] else None
        splits[name] = Split(parts["features"], parts["labels"], parts["mask"], ids)
    metadata = {**index["metadata"], "prepared": str(folder)}
    return Dataset(index["name"], tuple(modalities), tuple(index["class_names"]), splits, metadata, digests)


def _map(folder: Path, key: str, expected: Mapping[str, Any] | None = None) -> np.ndarray:
    """An array by its key in the index, `SPLIT/MODALITY/features` for example."""
    file = f"arrays/{key.replace('/', '_').removesuffix('_features')}.npy"
    try:
        array = np.load(folder / file, mmap_mode="r", allow_pickle=False)
        if expected is not None and [list(array.shape), array.dtype.str] != [expected["shape"], expected["dtype"]]:
            raise ValueError(f"it is {array.dtype} {list(array.shape)}")
        return np.asarray(array)
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise InputError(
            f"the prepared data in {folder} are damaged ({file}: {error}); prepare the set anew"
        ) from error
