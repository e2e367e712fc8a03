"""Where an export is written: folders that appear when they are complete, and names of files."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from mrl_jax.errors import InputError
from mrl_jax.files import refuse_address

__all__ = ["check_folder", "file_of", "new_folder"]


def check_folder(path: Path) -> None:
    """Refuse a folder that cannot be made, or that holds files already.

    Raises:
        InputError: it holds files, is a file, or the folder above it does not exist.
    """
    refuse_address(path, "out", output=True)
    if path.is_dir():
        if any(path.iterdir()):
            raise InputError(f"out {str(path)!r} already holds files; name a new folder")
    elif path.exists():
        raise InputError(f"out {str(path)!r} is a file; a folder is written here: name a new one")
    if not path.resolve().parent.is_dir():
        raise InputError(f"out {str(path)!r} cannot be written (its folder does not exist); give another folder")


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Atomic write of a folder: yields a temporary one, which becomes `path` on success and is deleted on failure.

    Raises:
        InputError: as `check_folder`, or a file in it cannot be written.
    """
    check_folder(path)
    target = Path(os.path.realpath(path))
    part = target.parent / f".{target.name}.{os.getpid()}.part"
    try:
        part.mkdir()
        yield part
        if target.is_dir():
            target.rmdir()  # it is empty
        part.rename(target)
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be written ({error.strerror or error}); name another folder") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def file_of(modality: str, suffix: str) -> str:
    """The name of the file of a modality.

    Raises:
        InputError: the name of the modality is none of a file.
    """
    if modality.startswith(".") or any(c in modality for c in "/\\\0"):
        raise InputError(f"modality {modality!r} cannot name a file, and this format writes one per modality")
    return modality + suffix
