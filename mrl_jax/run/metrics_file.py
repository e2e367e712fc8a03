"""`metrics.jsonl` of a run: lines, each with a checksum of itself and of all before it, as its last entry `check`."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import xxhash

from mrl_jax.checksums import CheckedFolder
from mrl_jax.errors import InputError
from mrl_jax.files import write_atomically
from mrl_jax.json_files import parse_json
from mrl_jax.run.schemas import LINE

__all__ = ["MetricsFile", "best_epoch"]

_METRICS = "metrics.jsonl"

_CHECK = re.compile(r', "check": "([0-9a-f]{16})"\}$')


def best_epoch(metrics: Sequence[Mapping[str, Any]]) -> int:
    """The epoch with the highest average validation mAP; in a tie the earliest."""
    return max(metrics, key=lambda line: (line["valid"]["average"], -line["epoch"]))["epoch"]


class MetricsFile:
    """The `metrics.jsonl` of a folder.

    Args:
        checked: the folder.
    """

    def __init__(self, checked: CheckedFolder) -> None:
        self._checked, self._path = checked, checked.path / _METRICS
        self._check: str | None = None  # checksum of the last line, once it is known

    def lines(self) -> list[dict[str, Any]]:
        """The complete lines, without a last one that was interrupted.

        Raises:
            InputError: one is damaged.
        """
        return self._read()[0]

    def until(self, epochs: int, check: str | None) -> list[dict[str, Any]]:
        """As `RunFolder.metrics_until`."""
        lines, checks = self._read(epochs)
        if len(lines) < epochs:
            raise InputError(f"{self._path} has {len(lines)} lines for {epochs} epochs; train anew")
        if check is not None and checks[-1:] != [check]:
            raise InputError(f"{self._path} is not the file of this run (checksums differ); train anew")
        return lines

    def rewind(self, epochs: int) -> list[dict[str, Any]]:
        """Remove the lines after the given number of epochs; returns the other lines."""
        lines = self.until(epochs, None)
        self._checked.record(_METRICS, None)
        text, self._check = "", ""
        for line in lines:
            encoded, self._check = _encode(line, self._check)
            text += encoded
        write_atomically(self._path, text)
        return lines

    def append(self, line: Mapping[str, Any]) -> None:
        """Append a line."""
        encoded, self._check = _encode(line, self.check)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(encoded)
            file.flush()
            os.fsync(file.fileno())

    @property
    def check(self) -> str:
        """The checksum of the last line; "" without any."""
        if self._check is None:
            self._check = (self._read()[1] or [""])[-1]
        return self._check

    def complete(self) -> None:
        """Record that no line follows."""
        self._checked.record(_METRICS, self.check)
        self._checked.done(_METRICS)

    def _read(self, epochs: int | None = None) -> tuple[list[dict[str, Any]], list[str]]:
        """The lines and their checksums; later lines than of these epochs may be damaged."""
        path = self._path
        try:
            lines = path.read_text("utf-8", "surrogateescape").split("\n")[:-1] if path.exists() else []
            found, checks = _read_lines(lines[:epochs], self._checked.has_checksums)
            whole = (self._checked.recorded() or {"files": {}})["files"].get(_METRICS)
            if whole and epochs is None and (checks[-1] if checks else None) not in whole:
                raise ValueError("its last checksum differs")
            return found, checks
        except InputError:
            raise
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror})") from error
        except ValueError as error:
            raise InputError(f"{path} is damaged ({error}); train anew") from error


def _encode(values: Mapping[str, Any], before: str) -> tuple[str, str]:
    """A line, and its checksum.

    Args:
        values: its entries.
        before: the checksum of the line before; "" for the first.
    """
    text = json.dumps(values, ensure_ascii=False, allow_nan=False)
    check = _check(text, before)
    return f'{text[:-1]}, "check": "{check}"}}\n', check


def _read_lines(lines: Sequence[str], needs_checks: bool) -> tuple[list[dict[str, Any]], list[str]]:
    """The entries of lines without their checksums, and the checksums.

    Args:
        lines: all lines from the first on.
        needs_checks: whether a line without a checksum is refused; earlier versions wrote none.

    Raises:
        ValueError: a line is damaged, or is not in its place.
    """
    found, checks, before = [], [], ""
    for i, line in enumerate(lines, 1):
        match = _CHECK.search(line)
        text = line if match is None else f"{line[: match.start()]}}}"
        before = _check(text, before)
        if (match is None and needs_checks) or (match is not None and match[1] != before):
            raise ValueError(f"the checksum of line {i} {'is missing' if match is None else 'differs'}")
        try:
            values = parse_json(text, LINE)
        except ValueError as error:
            raise ValueError(f"line {i}: {error}") from None
        if values["epoch"] != i:
            raise ValueError(f"line {i} is of another epoch")
        found.append(values)
        checks.append(before)
    return found, checks


def _check(text: str, before: str) -> str:
    return xxhash.xxh3_64_hexdigest(f"{before}{text}".encode())
