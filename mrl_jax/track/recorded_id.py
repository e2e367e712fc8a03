"""The name under which a tracker knows a run, so that a run that resumes goes on with its record."""

import uuid
from pathlib import Path

from mrl_jax.errors import InputError
from mrl_jax.run.folder import RunFolder

__all__ = ["read_id", "write_id"]

_FILE = "trackers.json"


def read_id(workdir: Path | None, tracker: str) -> str | None:
    """The recorded name, or None if the run has none.

    Raises:
        InputError: the file is damaged.
    """
    return None if workdir is None else _read(RunFolder(workdir)).get(tracker)


def write_id(workdir: Path | None, tracker: str, name: str | None = None) -> str:
    """Record a name, drawn if it is None; returns it. A run in memory records nothing."""
    name = uuid.uuid4().hex if name is None else name
    if workdir is not None:
        folder = RunFolder(workdir)
        folder.write(_FILE, _read(folder) | {tracker: name})
        folder.checked.settle()
    return name


def _read(folder: RunFolder) -> dict[str, str]:
    path = folder.path / _FILE
    try:
        return folder.read(_FILE) if path.exists() else {}
    except InputError as error:
        raise InputError(
            f"{path} was changed or damaged; restore it from a copy, or delete it: trackers then begin new records"
        ) from error
