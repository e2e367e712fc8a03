"""Class labels in any form that files hold, brought to integers 0..K-1, once over all splits."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mrl_jax.errors import InputError

__all__ = ["normalize_labels"]

_RULE = "labels must be integers, one-hot rows or names, one per instance"


def normalize_labels(
    raw: Mapping[str, Any], rows: Mapping[str, int], num_classes: int | None, source: str
) -> tuple[dict[str, np.ndarray], tuple[str, ...] | None]:
    """Bring the label arrays of all splits and modalities to the same numbering 0..K-1.

    A vector [N], a column [N, 1], a row [1, N] and one-hot rows [N, K] mean the same; so do numbers from 0 and from 1.
    The base is decided over all arrays together: an array that lacks class 0 is not taken for one that counts from 1
    unless every array says so, or it holds every class 1..K while others hold 0..K-1 (files that mix both exist).

    Args:
        raw: name -> labels as read.
        rows: name -> number of instances that the array must label.
        num_classes: K, where it is known.
        source: where the arrays come from, for messages.

    Returns:
        Name -> int32 [N], and the class names in order if the labels are names, else None.

    Raises:
        InputError: not one label per instance, not integers, rows with several labels, or numbers that contradict.
    """
    vectors = {key: _vector(np.asarray(y), rows[key], f"{source}: {key}") for key, y in raw.items()}
    named = [key for key, y in vectors.items() if y.dtype.kind == "U"]
    if named:
        if len(named) < len(vectors):
            odd = next(key for key in vectors if key not in named)
            raise InputError(f"{source}: {named[0]} holds names, {odd} holds numbers; use one form in all splits")
        names = sorted({str(name) for y in vectors.values() for name in y})
        number = {name: k for k, name in enumerate(names)}
        return {key: np.array([number[str(n)] for n in y], np.int32) for key, y in vectors.items()}, tuple(names)
    return _to_base_zero(vectors, num_classes, source), None


def _vector(y: np.ndarray, rows: int, what: str) -> np.ndarray:
    """One label per row: int64 [N] or text [N]."""
    told = f"{what} is {y.dtype} {list(y.shape)} for {rows} instances"
    if y.dtype.kind == "U":
        if y.ndim == 2 and 1 in y.shape:
            y = y.ravel()
        if y.ndim != 1 or len(y) != rows:
            raise InputError(f"{told}; {_RULE}")
        return y
    if y.dtype.kind not in "iufb":
        raise InputError(f"{told}; {_RULE}")
    if y.ndim == 2 and 1 in y.shape and y.size == rows:
        y = y.ravel()
    elif y.ndim == 2 and y.shape[1] == rows != y.shape[0]:
        y = y.T  # one-hot columns
    if y.ndim not in (1, 2) or len(y) != rows:
        raise InputError(f"{told}; {_RULE}")
    if y.ndim == 2:
        hits = y == 1
        if not ((hits | (y == 0)).all() and (hits.sum(axis=1) == 1).all()):
            bad = int(np.argmax(~((hits | (y == 0)).all(axis=1) & (hits.sum(axis=1) == 1))))
            raise InputError(f"{told}; row {bad} is not one-hot: keep instances with exactly one label")
        return hits.argmax(axis=1)
    if y.dtype.kind == "b":
        raise InputError(f"{told}: true and false; {_RULE}")
    if y.dtype.kind == "f" and not (np.isfinite(y).all() and (y == np.round(y)).all()):
        raise InputError(f"{told} and holds values that are not whole numbers; {_RULE}")
    if y.min() < 0 or y.max() > np.iinfo(np.int32).max - 1:
        bad = y.min() if y.min() < 0 else y.max()
        raise InputError(f"{what} holds the label {int(bad)}; labels must be 0..K-1 or 1..K")
    return y.astype(np.int64)


def _to_base_zero(vectors: Mapping[str, np.ndarray], num_classes: int | None, source: str) -> dict[str, np.ndarray]:
    lowest = {key: int(y.min()) for key, y in vectors.items()}
    if min(lowest.values()) > 0:
        largest = max(int(y.max()) for y in vectors.values())
        if min(lowest.values()) > 1:
            raise InputError(
                f"{source}: labels run from {min(lowest.values())} to {largest}; number the classes from 0 or from 1"
            )
        from_one = num_classes is None or largest >= num_classes
        return {key: (y - from_one).astype(np.int32) for key, y in vectors.items()}
    k = num_classes or 1 + max(int(y.max()) for key, y in vectors.items() if lowest[key] == 0)
    base = {key: int(lowest[key] == 1 and y.max() == k == len(np.unique(y))) for key, y in vectors.items()}
    return {key: (y - base[key]).astype(np.int32) for key, y in vectors.items()}
