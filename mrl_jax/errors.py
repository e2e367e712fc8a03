"""Errors that a user can mend, told in one line."""

__all__ = ["CheckpointError", "DatasetWarning", "InputError", "NonFiniteLossError"]


class InputError(ValueError):
    """Bad input: what was given, the rule it breaks, the remedy. Commands print it as one line and exit with 2."""


class NonFiniteLossError(FloatingPointError):
    """The training loss became inf or NaN. The message names epoch and step; the last good checkpoint stays."""


class CheckpointError(OSError):
    """A checkpoint could not be written. The message names folder and reason; earlier checkpoints stay."""


class DatasetWarning(UserWarning):
    """Data can be used but differ from what was published or expected. Commands print it as one line and go on."""
