"""Queries grouped by equal rows: real rows that are equal rank alike, whatever their place in a matrix product.

Shape letters: N rows, Q queries, U groups, L embedding dimensions.
"""

import hashlib
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Groups", "equal_rows", "group_equal"]


class Groups(NamedTuple):
    """Queries grouped by equal rows, so that one product serves all that are equal.

    Attributes:
        rows: the first query of each group, ascending, integers [U]; None if all Q queries differ.
        members: all queries, group by group, integers [Q].
        place: the group of each query, integers [Q].
        starts: where the groups start in `members`, integers [U + 1].
    """

    rows: np.ndarray | None
    members: np.ndarray
    place: np.ndarray
    starts: np.ndarray

    def first(self, queries: Any) -> Any:
        """The first query of each group, [U, L]."""
        return queries if self.rows is None else queries[self.rows]

    def chunks(self, start: int, stop: int, size: int) -> list[np.ndarray]:
        """The queries of the groups from `start` to `stop`, at most `size` at a time."""
        members = self.members[self.starts[start] : self.starts[stop]]
        return [members[i : i + size] for i in range(0, len(members), size)]

    def in_order(self, values: np.ndarray) -> np.ndarray:
        """Values [Q, ...] in the order of `members` -> in the order of the queries."""
        if self.rows is None:
            return values
        out = np.empty_like(values)
        out[self.members] = values
        return out


def group_equal(queries: Any, same: np.ndarray | None) -> Groups:
    """Group queries by the result of `equal_rows`."""
    if same is None:
        each = np.arange(len(queries) + 1)
        return Groups(None, each[:-1], each[:-1], each)
    rows, place = np.unique(same, return_inverse=True)
    starts = np.concatenate([[0], np.cumsum(np.bincount(place))])
    return Groups(rows, np.argsort(place, kind="stable"), place, starts)


def equal_rows(x: Any) -> np.ndarray | None:
    """For every row the number of the first row that equals it, int32 [N]; None if all rows differ.

    Args:
        x: [N, L].
    """
    x = np.asarray(x, np.float32)
    # Almost all rows differ in these two columns; only rows that agree in them are compared in full.
    key = np.ascontiguousarray(x[:, [0, -1]] + np.float32(0)).view(np.uint64)[:, 0]  # -0.0 becomes 0.0
    _, inverse, counts = np.unique(key, return_inverse=True, return_counts=True)
    same = np.arange(len(x), dtype=np.int32)
    first: dict[bytes, int] = {}
    for i in np.flatnonzero(counts[inverse] > 1).tolist():
        same[i] = first.setdefault(hashlib.blake2b((x[i] + np.float32(0)).tobytes(), digest_size=16).digest(), i)
    return None if (same == np.arange(len(x))).all() else same
