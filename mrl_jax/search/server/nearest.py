"""The nearest rows of a gallery for several queries at once, in one of a few shapes, so that nothing is compiled anew.

Shape letters: Q queries, L what rows are compared by, k results.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mrl_jax.search.bounded import BoundedSearch
from mrl_jax.search.index import Index

__all__ = ["NEAREST", "TOGETHER", "filled", "nearest_of"]

TOGETHER = (1, 8, 16, 24, 32)
"""Numbers of queries that are compiled."""

NEAREST = (16, 128)
"""Numbers of results that are compiled."""

_LARGE = 16384  # rows of a gallery for which upper bounds save time
_SAMPLES = 256  # rows of each other gallery, as queries to try the bounds with

Nearest = Callable[[Sequence[Any], int], tuple[np.ndarray, np.ndarray]]
"""Scores and row numbers [Q, k] for queries [1, L] each and a number of results; k is at least that, or the gallery."""


def nearest_of(modality: str, galleries: Mapping[str, Index]) -> Nearest:
    """What finds the nearest rows of a gallery.

    Args:
        modality: its modality.
        galleries: modality -> index, of all; queries are like rows of the others.
    """
    index = galleries[modality]
    search = _search_of(index, [x for m, x in galleries.items() if m != modality] or [index])

    def nearest(rows: Sequence[Any], least: int) -> tuple[np.ndarray, np.ndarray]:
        k = min(next((n for n in NEAREST if n >= least), least), len(index))
        scores, numbers = search(filled(rows), k)
        return scores[: len(rows)], numbers[: len(rows)]

    return nearest


def _search_of(index: Index, others: Sequence[Index]) -> Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]:
    if len(index) >= _LARGE and index.real:
        samples = [x.vectors(np.linspace(0, len(x) - 1, _SAMPLES).astype(int)) for x in others]
        return BoundedSearch(index, np.concatenate(samples)).search

    def search(queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        found = index.search(queries, k)
        return found.scores, found.rows

    return search


def filled(rows: Sequence[Any]) -> np.ndarray:
    """Rows [1, D] each as one array; the last is repeated up to one of the numbers that are compiled."""
    count = next((n for n in TOGETHER if n >= len(rows)), len(rows))
    return np.concatenate([*rows, *[rows[-1]] * (count - len(rows))])
