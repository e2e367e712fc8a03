"""Writing a file whole or not at all, and JSON that people can read."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mrl_jax.errors import InputError

__all__ = ["pretty_json", "write_whole", "written_whole"]


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A file to write beside `path`, which takes its place once all is on the disk, and goes if anything fails.

    Raises:
        InputError: it cannot be written.
    """
    if not path.name:
        raise InputError(f"{str(path)!r} names no file")
    special = path.exists() and not path.is_file() and not path.is_dir()  # a device or a pipe: not to be replaced
    target = Path(os.path.realpath(path))  # of a link, the file that it leads to
    folder = Path(tempfile.gettempdir()) if special else target.parent
    part = folder / f".{target.name}.{os.getpid()}.part"
    try:
        yield part
        if special:
            path.write_bytes(part.read_bytes())
            return
        with part.open("r+b") as file:
            os.fsync(file.fileno())
        os.replace(part, target)
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be written ({error.strerror or error}); name another file") from error
    finally:
        part.unlink(missing_ok=True)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file in one move.

    Raises:
        InputError: it cannot be written.
    """
    with written_whole(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


def pretty_json(value: Any, margin: str = "") -> str:
    """JSON with a line per entry of an object, and lists on one line, however long: people read the rest."""
    if not isinstance(value, dict) or not value:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    inner = margin + "  "
    entries = (f"{inner}{json.dumps(str(k), ensure_ascii=False)}: {pretty_json(v, inner)}" for k, v in value.items())
    return "{\n" + ",\n".join(entries) + f"\n{margin}}}"
