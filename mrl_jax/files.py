"""Output files: checks before the work, atomic writes, locks, and readable JSON."""

import contextlib
import errno
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mrl_jax.errors import InputError
from mrl_jax.names import printable

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "atomic_path",
    "check_outputs",
    "lock",
    "locked",
    "pretty_json",
    "refuse_address",
    "refuse_workdir",
    "write_atomically",
]

_OF_A_RUN = ("checksums.json", "config.json", "data.json", "noise.json", "metrics.jsonl", "model.npz", "result.json")

_PICTURES = ("--png", "--plot")

# `Path` makes one slash of two; only with two does any word count as a scheme.
_ADDRESS = re.compile(r"(?:^|/)((?:https?|ftps?|s3|gs|hf|file|[a-z][a-z0-9+.-]+(?=://)):/.*)", re.IGNORECASE)


def refuse_address(path: str | os.PathLike[str], what: str = "", output: bool = False) -> None:
    """Refuse an address, such as https://…, where the path of a file or folder is needed.

    Args:
        path: it, also after `Path`.
        what: what it names, for the message.
        output: whether it is written.

    Raises:
        InputError: it is an address, or no path at all.
    """
    if not isinstance(path, str | os.PathLike):
        remedy = "give the path of a folder; data go as data=…" if what == "workdir" else "give a path"
        raise InputError(f"{what} is a {type(path).__name__}; {remedy}".lstrip())
    if match := _ADDRESS.search(os.fspath(path)):
        scheme, _, rest = match[1].partition(":")
        rest = rest.lstrip("/")
        remedy = "download it first, and give its path here"
        if output:
            remedy = "files are written on this machine only: give a path, and upload them afterwards"
        if scheme.lower() == "file":
            remedy = f"give the path alone: /{rest}"
        raise InputError(
            f"{what} '{scheme}://{'/' * (scheme.lower() == 'file')}{rest}' is an address; {remedy}".lstrip()
        )


def refuse_workdir(path: str | os.PathLike[str]) -> None:
    """Refuse what cannot be the folder of a new run: an address, or a name that is no text.

    Raises:
        InputError: it is one.
    """
    refuse_address(path, "workdir", output=True)
    try:
        os.path.abspath(path).encode()
    except UnicodeEncodeError:
        raise InputError(
            f"workdir {os.fspath(path)!r} is no name in UTF-8, which checkpoints need; name another folder"
        ) from None


def check_outputs(outputs: Mapping[str, str | None], inputs: Iterable[str | None], workdir: str | None = None) -> None:
    """Refuse outputs that cannot be written or would overwrite an input, before anything is computed.

    Args:
        outputs: flag -> file, or None if the flag is not given.
        inputs: files that are read.
        workdir: folder of a run, whose files must not be overwritten.

    Raises:
        InputError: an output has no name, is in a folder that does not exist or cannot be written, or is a folder, an
            input, a file of the run or another output; or the suffix of a picture is not PNG.
    """
    read = {os.path.realpath(os.path.expanduser(x)) for x in inputs if x}
    if workdir is not None:
        read |= {os.path.realpath(os.path.join(workdir, name)) for name in _OF_A_RUN}
    taken: dict[str, str] = {}
    for flag, value in outputs.items():
        if value is None:
            continue
        refuse_address(value, flag, output=True)
        path = Path(os.path.realpath(value))
        if not Path(value).name:
            remedy = ", or leave the name out to write to standard output" if flag == "--json" else ""
            raise InputError(f"{flag} {value!r} is no file name; give one{remedy}")
        reason = "it is a folder" if path.is_dir() else "" if path.parent.is_dir() else "its folder does not exist"
        if not reason and not os.access(path if path.exists() else path.parent, os.W_OK):
            reason = "permission denied"
        if reason:
            raise InputError(f"{flag} {value!r} cannot be written ({reason}); give another file")
        if flag in _PICTURES and path.suffix.lower() not in ("", ".png"):
            raise InputError(f"{flag} {value!r}: pictures are written as PNG; name it {path.stem}.png")
        if str(path) in read:
            raise InputError(f"{flag} {value!r} is a file that is read or belongs to the run; give another file")
        if str(path) in taken and not (path.exists() and not path.is_file()):  # devices take several outputs
            raise InputError(f"{taken[str(path)]} and {flag} are both {value!r}; give each its own file")
        taken[str(path)] = flag


@contextlib.contextmanager
def atomic_path(path: Path, ready: Callable[[Path], None] | None = None) -> Iterator[Path]:
    """Atomic write: yields a temporary file, which replaces `path` on success and is deleted on failure.

    Args:
        path: the file.
        ready: called with the temporary file once it is complete, before it replaces `path`.

    Raises:
        InputError: the file cannot be written.
    """
    refuse_address(path, output=True)
    if not path.name:
        raise InputError(f"{str(path)!r} is no file name; give one")
    special = path.exists() and not path.is_file() and not path.is_dir()  # a device or a pipe, which is not replaced
    target = Path(os.path.realpath(path))  # the target of a link
    folder = Path(tempfile.gettempdir()) if special else target.parent
    part = folder / f".{target.name}.{os.getpid()}.part"
    try:
        yield part
        if special:
            path.write_bytes(part.read_bytes())
            return
        with part.open("r+b") as file:
            os.fsync(file.fileno())
        if ready is not None:
            ready(part)
        os.replace(part, target)
    except OSError as error:
        remedy = "make space there" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "give another file"
        raise InputError(f"{str(path)!r} cannot be written ({error.strerror or error}); {remedy}") from error
    finally:
        with contextlib.suppress(OSError):  # the folder may not be a folder
            part.unlink(missing_ok=True)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file atomically.

    Raises:
        InputError: the file cannot be written.
    """
    with atomic_path(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


def lock(handle: int, message: str) -> None:
    """Lock a file or folder against other processes until the handle is closed, also by the end of the process.

    There are no locks on Windows and on some file systems; then this does nothing.

    Args:
        handle: handle of a file or a folder.
        message: message of the error if another process has the lock.

    Raises:
        InputError: another process has the lock.
    """
    if fcntl is None:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(message) from None
    except OSError:  # a file system without locks
        return


@contextlib.contextmanager
def locked(folder: Path, message: str, wait: float = 0.0) -> Iterator[None]:
    """Hold `lock` on an existing folder; another process may have it for `wait` seconds."""
    if fcntl is None:  # Windows, which cannot open folders
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        until = time.monotonic() + wait
        while True:
            try:
                lock(handle, message)
                break
            except InputError:
                if time.monotonic() >= until:
                    raise
                time.sleep(0.01)
        yield
    finally:
        os.close(handle)


def pretty_json(value: Any, margin: str = "") -> str:
    """JSON with one line per entry of an object, and each list on one line, so that people can read it."""
    if not isinstance(value, dict) or not value:
        return printable(json.dumps(value, ensure_ascii=False, allow_nan=False))
    inner = margin + "  "
    keys = {k: printable(json.dumps(str(k), ensure_ascii=False)) for k in value}
    entries = (f"{inner}{keys[k]}: {pretty_json(v, inner)}" for k, v in value.items())
    return "{\n" + ",\n".join(entries) + f"\n{margin}}}"
