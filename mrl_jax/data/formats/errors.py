"""Errors of reading a data file, and how they become an `InputError` that names the file."""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import numpy as np

from mrl_jax.errors import InputError

__all__ = ["DamagedError", "Read", "RefusedError", "input_errors", "one_line", "refuse"]

Read = Callable[[], np.ndarray]
"""Reads one array of a file."""


class DamagedError(ValueError):
    """The bytes violate their format; `input_errors` turns it into an `InputError` that names the file."""


class RefusedError(ValueError):
    """Content that is never read. The message says what it is and, after a semicolon, the remedy."""


def refuse(reason: str) -> Read:
    """A `Read` for an array that is listed but never read: it raises `RefusedError(reason)`."""

    def read() -> np.ndarray:
        raise RefusedError(reason)

    return read


@contextlib.contextmanager
def input_errors(path: Path, part: str = "") -> Iterator[None]:
    """Turn every error raised inside into an `InputError` of one line, and hide warnings of the libraries.

    Args:
        path: the data file, for the message.
        part: the part of the file that is read, for example " array 'x'"; empty for the whole file.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except InputError:
        raise
    except RefusedError as error:
        raise InputError(f"data file {str(path)!r}:{part} {one_line(error, 800)}") from error
    except MemoryError as error:
        raise InputError(
            f"data file {str(path)!r}:{part} does not fit into memory; split it or use fewer rows"
        ) from error
    except OSError as error:
        if error.errno and error.filename is not None:  # an error of the system, for example permission denied
            raise InputError(
                f"data file {str(path)!r}{part} cannot be read ({one_line(error.strerror)}); check path and permissions"
            ) from error
        _raise_damaged(path, part, error)
    except Exception as error:  # on foreign bytes the libraries raise almost any type
        _raise_damaged(path, part, error)


def _raise_damaged(path: Path, part: str, error: Exception) -> NoReturn:
    reason = one_line(error) or type(error).__name__
    raise InputError(f"data file {str(path)!r}:{part} is damaged ({reason}); download or write it again") from error


def one_line(text: object, most: int = 200) -> str:
    """The text as one printable line of at most `most` characters."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(str(text).split()))[:most]
