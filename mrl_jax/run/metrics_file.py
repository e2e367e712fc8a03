"""Lines of `metrics.jsonl`, each with a checksum of itself and of all lines before it, as its last entry `check`."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import xxhash

from mrl_jax.json_files import parse_json
from mrl_jax.run.schemas import LINE

__all__ = ["encode", "read_lines"]

_CHECK = re.compile(r', "check": "([0-9a-f]{16})"\}$')


def encode(values: Mapping[str, Any], before: str) -> tuple[str, str]:
    """A line, and its checksum.

    Args:
        values: its entries.
        before: the checksum of the line before; "" for the first.
    """
    text = json.dumps(values, ensure_ascii=False, allow_nan=False)
    check = _check(text, before)
    return f'{text[:-1]}, "check": "{check}"}}\n', check


def read_lines(lines: Sequence[str], needs_checks: bool) -> tuple[list[dict[str, Any]], list[str]]:
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
