"""Output files: checked before the work, written whole or not at all; locks; JSON that people can read."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mrl_jax.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["check_outputs", "lock", "locked", "pretty_json", "write_whole", "written_whole"]

_OF_A_RUN = ("config.json", "data.json", "noise.json", "metrics.jsonl", "model.npz", "result.json")

_PICTURES = ("--png", "--plot")


def check_outputs(outputs: Mapping[str, str | None], inputs: Iterable[str | None], workdir: str | None = None) -> None:
    """Refuse outputs that cannot be written, or that would take the place of something, before anything is computed.

    Args:
        outputs: flag -> file, or None where it is not given.
        inputs: files that are read.
        workdir: folder of a run, whose own files stay.

    Raises:
        InputError: an output without a name, in a folder that is not there or cannot be written, that is a folder, an
            input, a file of the run, or the same as another output; a picture not called PNG.
    """
    read = {os.path.realpath(os.path.expanduser(x)) for x in inputs if x}
    if workdir is not None:
        read |= {os.path.realpath(os.path.join(workdir, name)) for name in _OF_A_RUN}
    taken: dict[str, str] = {}
    for flag, value in outputs.items():
        if value is None:
            continue
        path = Path(os.path.realpath(value))
        if not Path(value).name:
            remedy = "; leave the name out to write to standard output" if flag == "--json" else ""
            raise InputError(f"{flag} {value!r} names no file{remedy}")
        why = "it is a folder" if path.is_dir() else "" if path.parent.is_dir() else "no such folder"
        if not why and not os.access(path if path.exists() else path.parent, os.W_OK):
            why = "permission denied"
        if why:
            raise InputError(f"{flag} {value!r} cannot be written ({why}); name another file")
        if flag in _PICTURES and path.suffix.lower() not in ("", ".png"):
            raise InputError(f"{flag} {value!r}: pictures are written as PNG; name it {path.stem}.png")
        if str(path) in read:
            raise InputError(f"{flag} {value!r} is a file that is read or belongs to the run; name another")
        if str(path) in taken and not (path.exists() and not path.is_file()):  # devices take any number
            raise InputError(f"{taken[str(path)]} and {flag} both name {value!r}; give each a file of its own")
        taken[str(path)] = flag


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
        with contextlib.suppress(OSError):  # of a folder that is none
            part.unlink(missing_ok=True)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file in one move.

    Raises:
        InputError: it cannot be written.
    """
    with written_whole(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


def lock(handle: int, told: str) -> None:
    """Keep other processes out until the handle is closed, however that comes about.

    On Windows, and on file systems without locks, nobody is kept out.

    Args:
        handle: of a file or a folder.
        told: the error, if another process is in.

    Raises:
        InputError: another process is in.
    """
    if fcntl is None:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(told) from None
    except OSError:  # no locks here
        return


@contextlib.contextmanager
def locked(folder: Path, told: str) -> Iterator[None]:
    """`lock` on a folder that is there."""
    if fcntl is None:  # Windows, which cannot open folders either
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        lock(handle, told)
        yield
    finally:
        os.close(handle)


def pretty_json(value: Any, margin: str = "") -> str:
    """JSON with a line per entry of an object, and lists on one line, however long: people read the rest."""
    if not isinstance(value, dict) or not value:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    inner = margin + "  "
    entries = (f"{inner}{json.dumps(str(k), ensure_ascii=False)}: {pretty_json(v, inner)}" for k, v in value.items())
    return "{\n" + ",\n".join(entries) + f"\n{margin}}}"
