"""The counts of `features.text_counts` without scikit-learn, whose import takes longer than a complete search."""

from collections.abc import Sequence

import numpy as np

from mrl_jax.data.emoji.features import TEXT_DIM, plain_text

__all__ = ["hashed_counts"]

_LONGEST = 4  # characters of an n-gram
_MASK = 0xFFFFFFFF


def hashed_counts(texts: Sequence[str]) -> np.ndarray:
    """Signed counts of hashed character n-grams, int32 [N, 512]; exactly equal to `text_counts`.

    Raises:
        UnicodeEncodeError: a text contains half of a surrogate pair.
    """
    counts = np.zeros((len(texts), TEXT_DIM), np.int32)
    for row, text in zip(counts, texts, strict=True):
        for word in plain_text(text).split():
            padded = f" {word} "
            for length in range(1, min(_LONGEST, len(padded)) + 1):
                for start in range(len(padded) - length + 1):
                    number = _murmur3(padded[start : start + length].encode())
                    row[abs(number) % TEXT_DIM] += 1 if number >= 0 else -1
    return counts


def _murmur3(data: bytes) -> int:
    """MurmurHash3 (32 bits, seed 0, signed), by Austin Appleby, public domain."""
    number = 0
    for i in range(0, len(data), 4):
        block = int.from_bytes(data[i : i + 4], "little") * 0xCC9E2D51 & _MASK
        number ^= (block << 15 | block >> 17) * 0x1B873593 & _MASK
        if i + 4 <= len(data):  # not for the last, shorter block
            number = (number << 13 | number >> 19) & _MASK
            number = number * 5 + 0xE6546B64 & _MASK
    number ^= len(data)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        number = (number ^ number >> shift) * factor & _MASK
    return number - (1 << 32) if number >> 31 else number
