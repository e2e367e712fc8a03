"""The nearest rows of a gallery for several queries at once, in one of a few shapes, so that nothing is compiled anew.

Shape letters: Q queries, L what rows are compared by, k results.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mrl_jax.search.bounded import BoundedSearch
from mrl_jax.search.index import Index

__all__ = ["TOGETHER", "Nearest", "filled"]

TOGETHER = (1, 8, 16, 24, 32)
"""Numbers of queries that are compiled."""

_NEAREST = (16, 128)  # numbers of results that are compiled
_LARGE = 16384  # rows of a gallery for which upper bounds save time
_SAMPLES = 256  # rows of each other gallery, as queries to try the bounds with


class Nearest:
    """What finds the nearest rows of a gallery.

    Args:
        modality: its modality.
        galleries: modality -> index, of all; queries are like rows of the others.
    """

    def __init__(self, modality: str, galleries: Mapping[str, Index]) -> None:
        self._index = index = galleries[modality]
        self._bounded = None
        if len(index) >= _LARGE and index.real:
            others = [x for m, x in galleries.items() if m != modality] or [index]
            samples = [x.vectors(np.linspace(0, len(x) - 1, _SAMPLES).astype(int)) for x in others]
            self._bounded = BoundedSearch(index, np.concatenate(samples))

    def __call__(self, rows: Sequence[Any], least: int) -> tuple[np.ndarray, np.ndarray]:
        """Scores and row numbers [Q, k].

        Args:
            rows: queries, [1, L] each.
            least: k is this or more, or the size of the gallery.
        """
        k = min(next((n for n in _NEAREST if n >= least), least), len(self._index))
        scores, numbers = self._searched(filled(rows), k)
        return scores[: len(rows)], numbers[: len(rows)]

    def _searched(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        if self._bounded is not None:
            return self._bounded.search(queries, k)
        found = self._index.search(queries, k)
        return found.scores, found.rows

    def warm_up(self) -> None:
        """Compile every shape."""
        one = self._index.vectors([0])
        for count in TOGETHER:
            for most in _NEAREST:
                self([one] * count, most)
                if self._bounded is not None:  # for queries that the bounds do not settle
                    self._bounded.search_all(np.repeat(one, count, axis=0), min(most, len(self._index)))


def filled(rows: Sequence[Any]) -> np.ndarray:
    """Rows [1, D] each as one array; the last is repeated up to one of the numbers that are compiled."""
    count = next((n for n in TOGETHER if n >= len(rows)), len(rows))
    return np.concatenate([*rows, *[rows[-1]] * (count - len(rows))])
