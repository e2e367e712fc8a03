"""Errors that a user can fix, with messages of one line."""

from collections.abc import Iterable

from mrl_jax.names import printable

__all__ = [
    "CallbackError",
    "CheckpointError",
    "DamageWarning",
    "DatasetWarning",
    "InputError",
    "NonFiniteLossError",
    "NotTrainableError",
    "ProcessLostError",
    "first_line",
    "listed",
    "shortened",
]

_LONGEST = 1500  # characters of a message


class InputError(ValueError):
    """Wrong input. The message names what was given, the rule and the remedy; commands print it and exit with 2."""

    def __init__(self, message: str) -> None:
        super().__init__(_one_line(message))


class NotTrainableError(InputError):
    """Data without splits, or with one modality: too little to train on, but an audit of plain arrays takes them."""


class NonFiniteLossError(FloatingPointError):
    """The training loss became inf or NaN. The message names epoch and step; the last checkpoint remains."""


class CheckpointError(OSError):
    """A checkpoint could not be written. The message names folder and reason; earlier checkpoints remain."""


class CallbackError(RuntimeError):
    """A callback failed. The message names it, its method and its error; the run is saved, and can be resumed."""


class DatasetWarning(UserWarning):
    """Data differ from what was published or expected, but can be used. Commands print one line and continue."""

    def __init__(self, message: str) -> None:
        super().__init__(_one_line(message))


class DamageWarning(UserWarning):
    """Files are damaged or cannot be checked, and what is done instead. Commands print one line and continue."""

    def __init__(self, message: str) -> None:
        super().__init__(_one_line(message))


def listed(names: Iterable[str], most: int = 30) -> str:
    """Names for a message: at most `most` of them, each cut to 80 characters."""
    names = list(names)
    shown = ", ".join(name if len(name) <= 80 else f"{name[:80]}…" for name in names[:most])
    return shown + (f" … ({len(names)} in all)" if len(names) > most else "") or "none"


def shortened(text: str, most: int = 200) -> str:
    """A text with its middle left out if it has more than `most` characters; the end often says what to do.

    Example:
        >>> shortened("abcdefghijklmnopqrstuvwxyz", 11)
        'abcdef … wxyz'
    """
    if len(text) <= most:
        return text
    head = most * 3 // 5
    return f"{text[:head]} … {text[len(text) - (most - head - 1) :]}"


class ProcessLostError(RuntimeError):
    """Another process of the run ended or cannot be reached; checkpoints remain."""


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its type if there is none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _one_line(message: str) -> str:
    """A message in which values from files may have any character and any length, as one line of a terminal."""
    return printable("".join(" " if c in "\r\n\t\v\f" else c for c in shortened(message, _LONGEST)))
