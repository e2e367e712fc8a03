"""Whether the package runs as a command or in a program, for messages that name a setting."""

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["as_command", "in_command", "option"]

_commands = 0  # that run in this process, one inside another


@contextmanager
def as_command() -> Iterator[None]:
    """The context of a command."""
    global _commands
    _commands += 1
    try:
        yield
    finally:
        _commands -= 1


def in_command() -> bool:
    """Whether a command of the package runs, rather than a program that imports it."""
    return _commands > 0


def option(name: str, value: str | None = None) -> str:
    """A setting as its user gives it: a flag of a command, or an argument in Python.

    Args:
        name: name of the argument.
        value: its value; None for a switch.

    Example:
        >>> option("resume")
        'resume=True'
        >>> with as_command():
        ...     option("resume"), option("data_path", "FILE")
        ('--resume', '--data-path FILE')
    """
    if in_command():
        flag = f"--{name.replace('_', '-')}"
        return flag if value is None else f"{flag} {value}"
    return f"{name}={'True' if value is None else value}"
