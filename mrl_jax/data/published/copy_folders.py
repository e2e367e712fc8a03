"""Folders of prepared copies: where they are, and how a copy is written and replaced atomically.

```
CACHE/SET/MODALITIES/1.0.0/
    prepared.json           index: description of the copy, and the digest of every array
    arrays/SPLIT_MODALITY.npy, SPLIT_MODALITY_labels.npy, …
    *.array_record, features.json, …    the same data as TFDS records, for other programs
```
"""

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from mrl_jax.data.cache import cache_folder
from mrl_jax.errors import InputError
from mrl_jax.files import locked
from mrl_jax.names import file_name

__all__ = ["INDEX", "VERSION", "array_file", "copies", "copy_folder", "folder_of", "replace_copy", "staging"]

VERSION = "1.0.0"
"""Version of the prepared form; copies of another version are not used."""
INDEX = "prepared.json"
"""File name of the index in the folder of a copy."""
_OLD = f".old-{VERSION}"  # name of the previous copy, beside the folder of the copy that replaces it


def copy_folder(root: Path, name: str, modalities: Sequence[str]) -> Path:
    """Folder of the copy of a set with these modalities, `root/SET/MODALITIES/VERSION`."""
    return root / name / folder_of(modalities) / VERSION


def folder_of(modalities: Sequence[str]) -> str:
    """The name of the folder for these modalities."""
    return file_name("-".join(modalities))


def array_file(key: str) -> str:
    """The name of the file of an array, `SPLIT_MODALITY` with nothing, `_labels` or `_mask` behind, or `SPLIT_ids`."""
    return f"{file_name(key)}.npy"


def copies(name: str, root: Path | None = None) -> list[Path]:
    """The folders of the prepared copies of a set, one for each choice of modalities.

    A copy that a killed process was about to replace is restored first.

    Args:
        name: the set.
        root: folder of prepared sets; None for `cache_folder()`.
    """
    home = (root or cache_folder()) / name
    if any(home.glob(f"*/{_OLD}")):
        with contextlib.suppress(InputError, OSError), _locked(home, name):  # not while another process prepares it
            _recover(home)
    return sorted(p.parent for p in home.glob(f"*/{VERSION}/{INDEX}"))


@contextlib.contextmanager
def staging(root: Path, name: str) -> Iterator[Path]:
    """Lock the folder of a set and yield an empty folder to write a copy in, on the same file system.

    Files that a killed process left are removed, and the copy that it was replacing is restored.

    Args:
        root: folder of prepared sets.
        name: the set.

    Raises:
        InputError: another process holds the lock.
    """
    home = root / name
    home.mkdir(parents=True, exist_ok=True)
    stage = home / ".preparing"
    with _locked(home, name):
        try:
            _recover(home)
            shutil.rmtree(stage, ignore_errors=True)
            stage.mkdir()
            yield stage
        finally:
            shutil.rmtree(stage, ignore_errors=True)
            _recover(home)
            with contextlib.suppress(OSError):
                home.rmdir()  # only if it is empty; not without the lock: another process may be about to write there


def replace_copy(made: Path, folder: Path) -> None:
    """Move a finished copy to its final folder.

    If the process is killed at any point, the next call of `copies` or `staging` finds either the old or the new copy
    complete.

    Args:
        made: the finished copy, in the folder that `staging` yielded.
        folder: its final folder; a copy there is replaced.
    """
    _sync(made)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists():
        folder.rename(folder.with_name(_OLD))
    made.rename(folder)
    _sync_names(folder.parent)


def _locked(home: Path, name: str) -> contextlib.AbstractContextManager[None]:
    """Hold the lock of the folder of a set, so that no other process writes there."""
    return locked(home, f"{name}: another process is preparing it in {home}; wait for its end")


def _recover(home: Path) -> None:
    """Restore old copies that were not replaced, and remove those that were."""
    for old in home.glob(f"*/{_OLD}"):
        folder = old.with_name(VERSION)
        if not folder.exists() and (old / INDEX).exists():
            old.rename(folder)
        else:
            (old / INDEX).unlink(missing_ok=True)  # first, so that a partly deleted copy is never restored
            shutil.rmtree(old, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Flush all files of a folder to the disk, so that a power failure does not leave names without content."""
    for path in [*folder.rglob("*"), folder]:
        if path.is_dir():
            _sync_names(path)
        else:
            with path.open("r+b") as file:
                os.fsync(file.fileno())


def _sync_names(folder: Path) -> None:
    with contextlib.suppress(OSError):  # some systems cannot sync folders
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
