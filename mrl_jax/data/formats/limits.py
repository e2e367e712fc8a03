"""Limits on the sizes that a data file may claim, checked before memory is allocated."""

import math
import os
from typing import NamedTuple

import numpy as np

from mrl_jax.data.formats.errors import DamagedError, RefusedError
from mrl_jax.errors import InputError
from mrl_jax.interface import in_command, option
from mrl_jax.options import ARRAY_LIMIT

__all__ = [
    "MAX_RATIO",
    "Header",
    "allowance",
    "check_claim",
    "check_memory",
    "check_size",
    "text_array",
]

MAX_RATIO = 1032
"""Upper bound on the ratio of unpacked to packed bytes with deflate."""
_SMALL = 1 << 26  # bytes that are allowed whatever the size of the file


class Header(NamedTuple):
    """What a file says of an array before it is read: its shape and dtype."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        """The bytes that the array takes in memory."""
        return math.prod(self.shape) * self.dtype.itemsize


def check_claim(needed: int, stored: int, what: str) -> None:
    """Refuse a claim of `needed` bytes that cannot be packed into `stored` bytes.

    Raises:
        DamagedError: the claim is impossible.
    """
    if needed < 0 or needed > MAX_RATIO * stored + 4096:
        raise DamagedError(f"{what} claims {needed} bytes, but only {stored} are stored")


def allowance(stored: int) -> int:
    """Upper bound on the bytes that `stored` bytes may expand to."""
    return _SMALL + MAX_RATIO * stored


def check_size(needed: int, what: str, copies: int = 1) -> None:
    """Refuse an array that is larger than the limit for one array, before it is read.

    Args:
        needed: its bytes.
        what: what it is, for the message.
        copies: how often the memory must hold it, unless the user has set the limit.

    Raises:
        RefusedError: the array is too large.
    """
    if needed > (limit := _limit(copies)):
        raise RefusedError(
            f"{what} would take {needed} bytes, more than the limit of {limit}; store fewer rows or columns, or "
            f"{_raised(math.ceil(needed / 1e9))}"
        )


def _raised(size: int) -> str:
    return option("max_array_gb", str(size)) if in_command() else f"set {ARRAY_LIMIT} to {size}"


def _limit(copies: int) -> int:
    given = os.environ.get(ARRAY_LIMIT)
    if not given:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // copies
    try:
        limit = int(float(given) * 1e9)
    except (ValueError, OverflowError):
        limit = 0
    if limit <= 0:
        raise InputError(f"{ARRAY_LIMIT}={given!r}: the environment variable must be a number of 10^9 bytes above 0")
    return limit


def check_memory(needed: int, stored: int, what: str) -> None:
    """Refuse an array that exceeds the allowance of its stored form, or by half the limit for one array.

    Raises:
        RefusedError: the array is too large.
    """
    check_size(needed, what, copies=2)
    if needed > (limit := allowance(stored)):
        raise RefusedError(f"{what} would take {needed} bytes, more than {limit}; store fewer rows or columns")


def text_array(texts: list[str], stored: int) -> np.ndarray:
    """An array of str [len(texts)].

    Args:
        texts: its elements.
        stored: bytes of the file. NumPy gives every element the length of the longest, so that one long text among
            many short ones could take far more memory than the file.

    Raises:
        RefusedError: the array would be too large for the size of the file.
    """
    longest = max(map(len, texts), default=1) or 1
    check_memory(4 * longest * len(texts), stored, "text")
    return np.array(texts, f"<U{longest}")
