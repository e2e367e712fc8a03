"""Limits on the sizes that a data file may claim, checked before memory is allocated."""

import os

import numpy as np

from mrl_jax.data.formats.errors import DamagedError, RefusedError

__all__ = ["MAX_RATIO", "allowance", "check_claim", "check_memory", "text_array"]

MAX_RATIO = 1032
"""Upper bound on the ratio of unpacked to packed bytes with deflate."""
_SMALL = 1 << 26  # bytes that are allowed whatever the size of the file


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


def check_memory(needed: int, stored: int, what: str) -> None:
    """Refuse an array that exceeds the allowance of its stored form or half of the machine's memory.

    Raises:
        RefusedError: the array is too large.
    """
    half = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    limit = min(half, allowance(stored))
    if needed > limit:
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
