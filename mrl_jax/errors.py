"""Errors that a user can mend, told in one line."""

from collections.abc import Iterable

__all__ = [
    "CheckpointError",
    "DatasetWarning",
    "InputError",
    "NonFiniteLossError",
    "ProcessLostError",
    "first_line",
    "listed",
]


class InputError(ValueError):
    """Bad input: what was given, the rule it breaks, the remedy. Commands print it as one line and exit with 2."""

    def __init__(self, message: str) -> None:
        # Names out of damaged files may hold anything; the message stays one line that a terminal can show.
        super().__init__("".join(c if c.isprintable() else " " if c.isspace() else "?" for c in message))


class NonFiniteLossError(FloatingPointError):
    """The training loss became inf or NaN. The message names epoch and step; the last good checkpoint stays."""


class CheckpointError(OSError):
    """A checkpoint could not be written. The message names folder and reason; earlier checkpoints stay."""


class DatasetWarning(UserWarning):
    """Data can be used but differ from what was published or expected. Commands print it as one line and go on."""


def listed(names: Iterable[str], most: int = 30) -> str:
    """Names for a message: so many of them, each cut to a readable length."""
    names = list(names)
    shown = ", ".join(name if len(name) <= 80 else f"{name[:80]}…" for name in names[:most])
    return shown + (f" … ({len(names)} in all)" if len(names) > most else "") or "none"


class ProcessLostError(RuntimeError):
    """Another process of a run over several ended or cannot be reached; checkpoints stay."""


def first_line(error: Exception) -> str:
    """What an error of a library says first, or its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
