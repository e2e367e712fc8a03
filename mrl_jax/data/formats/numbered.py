"""Columns of tables that are numbered, `image_0`, `image_1`, …: one modality each, and what numbers are missing."""

import re
from collections.abc import Sequence

from mrl_jax.errors import listed

__all__ = ["gaps", "numbered", "ranges", "stem_of"]

_NUMBERED = re.compile(r"(.+)([_.-])(\d+)", re.DOTALL)


def numbered(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Stem -> its columns in numeric order, for numbers from 0 or 1 without a gap."""
    return {
        stem: tuple(found[number] for number in sorted(found))
        for stem, found in _stems(names).items()
        if len(found) > 1 and min(found) in (0, 1) and max(found) - min(found) == len(found) - 1
    }


def gaps(names: Sequence[str]) -> dict[str, str]:
    """Stem -> what is missing, for columns whose numbers have a gap or begin above 1.

    A stem counts if it has three columns or more, and most of its numbers are there.

    Example:
        >>> gaps(["audio_0", "audio_1", "audio_3"])
        {'audio': 'audio_0 to audio_3: audio_2 is missing'}
    """
    found = {}
    for stem, columns in _stems(names).items():
        low, high = min(columns), max(columns)
        if len(columns) < 3 or 2 * len(columns) <= high - low + 1:
            continue
        _, mark, digits = _NUMBERED.fullmatch(columns[low]).groups()  # type: ignore[union-attr]
        missing = [f"{stem}{mark}{number:0{len(digits)}}" for number in range(low, high + 1) if number not in columns]
        what = f"{columns[low]} to {columns[high]}"
        if missing:
            found[stem] = f"{what}: {listed(missing, 4)} {'are' if len(missing) > 1 else 'is'} missing"
        elif low > 1:
            found[stem] = f"{what}: the numbers begin at {low}, not at 0 or 1"
    return found


def ranges(columns: Sequence[str]) -> str:
    """The columns of a modality for a message.

    Example:
        >>> ranges(["audio_0", "audio_1", "audio_2"]), ranges(["audio"])
        ('audio_0 to audio_2', 'audio')
    """
    return columns[0] if len(columns) == 1 else f"{columns[0]} to {columns[-1]}"


def stem_of(name: str) -> str | None:
    """The stem of a numbered column; None of any other."""
    match = _NUMBERED.fullmatch(name)
    return None if match is None else match[1]


def _stems(names: Sequence[str]) -> dict[str, dict[int, str]]:
    """Stem -> number -> column."""
    stems = dict[str, dict[int, str]]()
    for name in names:
        if match := _NUMBERED.fullmatch(name):
            stems.setdefault(match[1], {})[int(match[3])] = name
    return stems
