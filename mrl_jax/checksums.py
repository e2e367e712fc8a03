"""Checksums of the files of a folder, in its `checksums.json`: damage and edits do not go unseen.

```
{"algorithm": "xxh3_128", "files": {"data.json": ["…"], …}, "settings": [{…}], "checksum": "…"}
```

A file is replaced in three steps: its new content is complete under another name; `checksums.json` gets the new
checksum, beside that of the content it replaces (null: there was none); the file takes its name. So a process that is
killed at any point leaves every file with one of its checksums. XXH3 is as fast as memory; it guards against damage,
not against someone who forges files. A folder without `checksums.json`, of an earlier version, is read as it is.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from mrl_jax.errors import InputError
from mrl_jax.files import atomic_path, pretty_json, write_atomically
from mrl_jax.json_files import ANY, read_json

__all__ = ["CHECKSUMS", "CheckedFolder", "array_checksum", "file_checksum", "json_checksum", "write_first"]

CHECKSUMS = "checksums.json"
"""Name of the file with the checksums of the other files of a folder."""

_ALGORITHM = "xxh3_128"
_SCHEMA = {
    "algorithm": frozenset({_ALGORITHM}),
    "files": {str: [(None, str)]},
    "settings?": [{str: ANY}],
    "checksum": str,
}
_BLOCK = 1 << 22


class CheckedFolder:
    """The files of a folder that have checksums, and those files themselves.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._written = dict[str, str]()  # since the last change of `checksums.json`: their old checksums can go

    @property
    def has_checksums(self) -> bool:
        """Whether the folder has checksums; those of earlier versions have none."""
        return (self.path / CHECKSUMS).exists()

    def begin(self, names: Iterable[str] = ()) -> None:
        """Begin to record checksums, with those of the files that are there already, if any."""
        self._store({"files": {name: [file_checksum(self.path / name)] for name in names}})

    def write(self, name: str, content: str | bytes) -> None:
        """Write a file atomically.

        Raises:
            InputError: it cannot be written.
        """
        with self.replacing(name) as part:
            part.write_bytes(content.encode() if isinstance(content, str) else content)

    @contextmanager
    def replacing(self, name: str) -> Iterator[Path]:
        """Atomic write: yields a temporary file, which replaces the file `name` of the folder on success.

        Raises:
            InputError: it cannot be written.
        """
        with atomic_path(self.path / name, lambda part: self.record(name, file_checksum(part))) as part:
            yield part
        self.done(name)

    def record(self, name: str, checksum: str | None) -> None:
        """Record the checksum that a file is about to have, beside the one that it has; None: it leaves the list."""
        if (recorded := self.recorded()) is None:
            return
        files, before = recorded["files"], recorded["files"].get(name, [None])
        if checksum is None:
            files.pop(name, None)
            self._written.pop(name, None)
        else:
            files[name] = list(dict.fromkeys([checksum, *before]))
        if files.get(name, [None]) != before:
            self._store(recorded)

    def remove(self, name: str) -> None:
        """Delete a file that is on the list."""
        if (recorded := self.recorded()) is not None and name in recorded["files"]:
            recorded["files"][name] = [*recorded["files"][name], None]
            self._written.pop(name, None)
            self._store(recorded)
        (self.path / name).unlink(missing_ok=True)

    def done(self, name: str) -> None:
        """The file has the checksum that was recorded last: the one before goes at the next change."""
        if (recorded := self.recorded()) is not None and len(checksums := recorded["files"].get(name, [])) > 1:
            self._written[name] = str(checksums[0])

    def settle(self) -> None:
        """Forget the checksums of contents that were replaced."""
        if self._written and (recorded := self.recorded()) is not None:
            self._store(recorded)

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            OSError: it cannot be read.
            InputError: it was changed since it was written.
        """
        for attempt in (1, 2):  # another process may replace the file between two reads
            content = (self.path / name).read_bytes()
            recorded = self.recorded()
            if recorded is None or xxhash.xxh3_128_hexdigest(content) in recorded["files"].get(name, ()):
                break
            if attempt == 2:
                raise self.changed(name)
        return content

    def changed(self, name: str, what: str = "its checksum differs") -> InputError:
        """The error for a file that is not as it was written."""
        return InputError(
            f"{self.path / name} was changed or damaged after it was written ({what}); restore it from a copy, or, to "
            f"use the files of this folder unchecked, delete {CHECKSUMS}"
        )

    def check_absent(self, name: str) -> None:
        """Check that a file that is not there never was.

        Raises:
            InputError: it was written, and is lost.
        """
        if (recorded := self.recorded()) is not None and None not in recorded["files"].get(name, [None]):
            raise InputError(
                f"{self.path / name} is missing; restore it from a copy, or, to use the files of this folder "
                f"unchecked, delete {CHECKSUMS}"
            )

    def would_accept(self, name: str, content: str) -> bool:
        """Whether this is the recorded content of a file."""
        recorded = self.recorded() or {"files": {}}
        return xxhash.xxh3_128_hexdigest(content.encode()) in recorded["files"].get(name, ())

    def names(self, folder: str) -> set[str]:
        """The recorded files of a folder within this one that must be there."""
        files = (self.recorded() or {"files": {}})["files"]
        return {name for name, checksums in files.items() if name.startswith(f"{folder}/") and None not in checksums}

    def settings(self) -> list[dict[str, Any]]:
        """The settings that were recorded, the newest first; more than one only after a write that was interrupted."""
        return (self.recorded() or {}).get("settings", [])

    def record_settings(self, values: Mapping[str, Any]) -> None:
        """Record the settings that a file is about to have, beside those that it has."""
        if (recorded := self.recorded()) is not None and values not in recorded.get("settings", [])[:1]:
            self._store(recorded | {"settings": [dict(values), *recorded.get("settings", [])[:1]]})

    def settle_settings(self) -> None:
        """Forget the settings that were replaced."""
        if (recorded := self.recorded()) is not None and len(recorded.get("settings", [])) > 1:
            self._store(recorded | {"settings": recorded["settings"][:1]})

    def recorded(self) -> dict[str, Any] | None:
        """The content of `checksums.json`; None for a folder without.

        Raises:
            InputError: it is damaged.
        """
        path = self.path / CHECKSUMS
        try:
            content = read_json(path, _SCHEMA, 1 << 28)
            if content.pop("checksum") != json_checksum(content):
                raise ValueError("its own checksum differs")
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise InputError(
                f"{path} is damaged ({why}); restore it from a copy, or, to use the files of this folder unchecked, "
                "delete it"
            ) from error
        return content

    def _store(self, content: Mapping[str, Any]) -> None:
        files = dict(content["files"])
        for name, checksum in self._written.items():
            if files.get(name, [None])[0] == checksum:
                files[name] = [checksum]
        content = {"algorithm": _ALGORITHM, **content, "files": dict(sorted(files.items()))}
        write_atomically(self.path / CHECKSUMS, pretty_json(content | {"checksum": json_checksum(content)}) + "\n")
        self._written.clear()


def write_first(folder: Path, name: str, content: str) -> None:
    """Write the file that describes a folder, and record its checksum; the first time no other file has one.

    Raises:
        InputError: it cannot be written.
    """
    checked, new = CheckedFolder(folder), not (folder / name).exists()
    try:
        if new or not checked.has_checksums:  # of an earlier version
            checked.begin([] if new else [name])
        checked.write(name, content)
        checked.settle()
    except BaseException:
        if new:  # nothing has begun
            (folder / name).unlink(missing_ok=True)
            (folder / CHECKSUMS).unlink(missing_ok=True)
        raise


def array_checksum(named: Mapping[str, Any], *texts: str) -> str:
    """The checksum of arrays by name, with their types and shapes, and of texts."""
    total = xxhash.xxh3_128()
    for name, array in named.items():
        x = np.asarray(array)
        total.update(f"{name} {x.dtype} {x.shape};".encode())
        total.update(np.ascontiguousarray(x).reshape(-1).view(np.uint8).data)
    for text in texts:
        total.update(text.encode())
    return total.hexdigest()


def json_checksum(content: Mapping[str, Any]) -> str:
    """The checksum of JSON values, whatever their order."""
    return xxhash.xxh3_128_hexdigest(json.dumps(content, sort_keys=True).encode())


def file_checksum(path: Path) -> str:
    """The checksum of a file, which is read in blocks."""
    total = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            total.update(block)
    return total.hexdigest()
