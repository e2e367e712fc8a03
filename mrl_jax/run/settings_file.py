"""`config.json` of a run, whose checksum are its values: a message can say what was changed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mrl_jax.checksums import CheckedFolder
from mrl_jax.errors import InputError, shortened
from mrl_jax.files import pretty_json, write_atomically
from mrl_jax.json_files import parse_json, read_json
from mrl_jax.run.schemas import CONFIG

__all__ = ["SETTINGS", "read_settings", "write_settings"]

SETTINGS = "config.json"
"""Name of the file with the settings of a run."""


def read_settings(checked: CheckedFolder) -> Any:
    """The content of the file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged.
        InputError: it was changed; the message names what.
    """
    path = checked.path / SETTINGS
    for attempt in (1, 2):  # another process may replace the file between two reads
        values, recorded = read_json(path, CONFIG), checked.settings()
        if not checked.has_checksums or values in recorded:
            break
        if attempt == 2:
            raise _changed(path, values, recorded[0] if recorded else {})
    return values


def write_settings(checked: CheckedFolder, values: Mapping[str, Any]) -> None:
    """Write the file atomically.

    Raises:
        InputError: it cannot be written.
    """
    content = pretty_json(values) + "\n"
    checked.record_settings(parse_json(content))
    write_atomically(checked.path / SETTINGS, content)
    checked.settle_settings()


def _changed(path: Path, values: Mapping[str, Any], recorded: Mapping[str, Any]) -> InputError:
    """The error for settings that were changed by hand or damaged; it names them."""
    changes = [
        f"{name} is {shortened(repr(values.get(name)), 80)}, was {shortened(repr(recorded.get(name)), 80)}"
        for name in sorted(values.keys() | recorded.keys())
        if values.get(name) != recorded.get(name) or (name in values) != (name in recorded)
    ]
    return InputError(
        f"{path} was changed after the run began: {'; '.join(changes[:5])}{' …' * (len(changes) > 5)}; put that back, "
        "or start another run with the new values in a new folder"
    )
