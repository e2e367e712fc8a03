"""Ranks of the relevant items by radix sort, compiled by numba: the fastest exact method on CPU (extra `fast`)."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["available", "kernel"]

# Unsigned constants: an index that may be negative costs a comparison.
_NEGATIVE_ZERO, _POSITIVE = np.int32(-(2**31)), np.uint32(0x7FFFFFFF)
_DIGIT, _11, _22 = np.uint32(2047), np.uint32(11), np.uint32(22)
_32, _43, _54 = np.uint64(32), np.uint64(43), np.uint64(54)


@functools.cache
def available() -> bool:
    """Whether numba is installed and works with the installed NumPy."""
    try:
        import numba  # noqa: F401
    except Exception:  # numba refuses unknown versions of NumPy by exceptions other than ImportError
        return False
    return True


@functools.cache
def kernel() -> Callable[..., None]:
    """The compiled function; the first call imports numba, which caches its machine code on disk.

    `f(bits, gain, ranks, gains)` reads the bits of the scores int32 [B, G] and gains uint8 [B, G], and writes the ranks
    int32 [B, N] and gains uint8 [B, N] of the relevant items, followed by zeros. It releases Python's global lock, so
    that threads can rank rows in parallel.
    """
    from numba import njit

    try:
        return njit(nogil=True, cache=True)(_rank_rows)
    except RuntimeError:  # no folder for the cache is writable
        return njit(nogil=True)(_rank_rows)


def _rank_rows(bits: Any, gain: Any, ranks: Any, gains: Any) -> None:
    # A stable radix sort from the least significant digit: 11, 11 and 10 bits, so that the counters fit the L1 cache.
    items = bits.shape[1]
    one, two, hit = np.empty(items, np.uint64), np.empty(items, np.uint64), np.empty(items, np.uint8)
    low, middle, high = np.empty(2048, np.int32), np.empty(2048, np.int32), np.empty(2048, np.int32)
    for i in range(bits.shape[0]):
        low[:], middle[:], high[:] = 0, 0, 0
        for j in range(items):
            x = bits[i, j]
            if x == _NEGATIVE_ZERO:
                x = np.int32(0)
            key = np.uint32(x) ^ (~np.uint32(x >> 31) & _POSITIVE)  # descending scores become ascending integers
            one[j] = np.uint64(key) << _32 | np.uint64(gain[i, j])
            low[key & _DIGIT] += 1
            middle[(key >> _11) & _DIGIT] += 1
            high[key >> _22] += 1
        a, b, c = 0, 0, 0
        for d in range(2048):  # counts become start positions
            low[d], a = a, a + low[d]
            middle[d], b = b, b + middle[d]
            high[d], c = c, c + high[d]
        for j in range(items):
            item = one[j]
            digit = np.uint32(item >> _32) & _DIGIT
            place = low[digit]
            low[digit] = place + 1
            two[place] = item
        for j in range(items):
            item = two[j]
            digit = np.uint32(item >> _43) & _DIGIT
            place = middle[digit]
            middle[digit] = place + 1
            one[place] = item
        for j in range(items):  # the keys are no longer needed
            item = one[j]
            digit = item >> _54
            place = high[digit]
            high[digit] = place + 1
            hit[place] = np.uint8(item)
        count = 0
        for j in range(items):
            if hit[j]:
                ranks[i, count], gains[i, count] = j + 1, hit[j]
                count += 1
        ranks[i, count:], gains[i, count:] = 0, 0
