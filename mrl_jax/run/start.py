"""The start of a run: only in a new or empty folder, which is as it was if the start fails."""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from mrl_jax.checksums import CHECKSUMS
from mrl_jax.errors import InputError
from mrl_jax.files import locked, refuse_address, refuse_workdir
from mrl_jax.interface import option
from mrl_jax.run.settings_file import SETTINGS

__all__ = ["CHECKPOINTS", "refuse_occupied", "resumes", "starting"]

CHECKPOINTS = "checkpoints"
"""Name of the folder of checkpoints within that of a run."""


def resumes(resume: bool | str, workdir: str | os.PathLike[str] | None, file: str = SETTINGS) -> bool:
    """Whether to go on with what a folder holds: as it was asked for, or with "auto" if there is anything.

    Args:
        resume: True, False or "auto".
        workdir: the folder, which may not exist; None for none.
        file: the file that a folder with a run has.

    Raises:
        InputError: another value, or a folder that is no path.
    """
    if workdir is not None:
        refuse_address(workdir, "workdir", output=True)
    if resume == "auto":
        return workdir is not None and (Path(workdir) / file).is_file()
    if not isinstance(resume, bool):
        raise InputError(f'resume {resume!r}: give True, False or "auto", which resumes where there is something')
    return resume


def refuse_occupied(path: Path) -> None:
    """Check that a run can start in a folder, without writing.

    Raises:
        InputError: the folder is not empty, or is no folder.
    """
    refuse_workdir(path)
    try:
        names = [p.name for p in path.iterdir()] if path.exists() else []
        if SETTINGS not in names:  # a start that was killed leaves these
            names = [n for n in names if n != CHECKSUMS and not (n.startswith(".") and n.endswith(".part"))]
            if names == [CHECKPOINTS] and not any((path / CHECKPOINTS).iterdir()):
                names = []
    except OSError as error:
        raise _cannot_be_written(path, error) from error
    if names:
        what = f"a run; {option('resume')} continues it" if SETTINGS in names else "other files"
        raise InputError(f"workdir {str(path)!r} already holds {what}; name a new folder to start another")


@contextmanager
def starting(path: Path) -> Iterator[None]:
    """Make and lock the folder of a new run, in which the context writes; if it fails, what was written is removed.

    Raises:
        InputError: the folder is not empty, cannot be written, or another process starts there.
    """
    try:
        made = _make_folders(path)
        with locked(path, f"workdir {str(path)!r}: another process starts a run here; name another folder"):
            refuse_occupied(path)
            try:
                for part in path.glob(".*.part"):  # of a start that was killed
                    part.unlink()
                yield
            except BaseException:
                _clear(path, made)
                raise
    except OSError as error:
        raise _cannot_be_written(path, error) from error


def _cannot_be_written(path: Path, error: OSError) -> InputError:
    return InputError(f"workdir {str(path)!r} cannot be written ({error.strerror}); name another folder")


def _clear(path: Path, made: Sequence[Path]) -> None:
    """Remove what a start that failed has written, and the folders that it made."""
    for name in (SETTINGS, CHECKSUMS):
        with suppress(OSError):
            (path / name).unlink()
    for folder in (path / CHECKPOINTS, *reversed(made)):
        with suppress(OSError):  # others may have written there
            folder.rmdir()


def _make_folders(path: Path) -> list[Path]:
    """Make a folder and those above it; returns those that were made, the outermost first."""
    made: list[Path] = []
    for folder in [*reversed(path.parents), path]:
        if not folder.exists():
            folder.mkdir(exist_ok=True)
            made.append(folder)
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    return made
