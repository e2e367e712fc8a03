"""The name under which a tracker knows a run, so that a run that resumes goes on with its record."""

import json
import uuid
from pathlib import Path

from mrl_jax.errors import InputError
from mrl_jax.files import pretty_json, write_atomically

__all__ = ["read_id", "write_id"]

_FILE = "trackers.json"


def read_id(workdir: Path | None, tracker: str) -> str | None:
    """The recorded name, or None if the run has none.

    Raises:
        InputError: the file is damaged.
    """
    names = {} if workdir is None else _read(workdir)
    return names.get(tracker)


def write_id(workdir: Path | None, tracker: str, name: str | None = None) -> str:
    """Record a name, drawn if it is None; returns it. A run in memory records nothing."""
    name = uuid.uuid4().hex if name is None else name
    if workdir is not None:
        write_atomically(workdir / _FILE, pretty_json(_read(workdir) | {tracker: name}) + "\n")
    return name


def _read(workdir: Path) -> dict[str, str]:
    path = workdir / _FILE
    if not path.exists():
        return {}
    try:
        return {str(tracker): str(name) for tracker, name in json.loads(path.read_text("utf-8")).items()}
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is damaged ({error}); delete it, and trackers begin new records") from error
