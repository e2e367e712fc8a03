r"""Exact top-k of a large gallery, a few queries at a time: upper bounds rule most rows out.

Rows and queries are rotated to the principal axes of the gallery. There a product is at most that of the first H
coordinates plus, for each of four parts of the others, the product of the lengths (Cauchy-Schwarz):

$$q \cdot x \le \sum_{i \le H} q_i x_i + \sum_{p=1}^{4} \lVert q_p \rVert \, \lVert x_p \rVert.$$

With the four lengths as further coordinates, the bounds of all rows are one product of H + 4 numbers. The C rows with
the largest bounds are compared exactly. If the k-th best of them exceeds every other bound, they hold the k best of the
gallery; otherwise the query is compared with all rows. Rows of trained embeddings lie close to few axes, so that this
is rare; where it is not, every query is compared with all rows.

Shape letters: Q queries, G gallery rows, D dimensions, H coordinates in the short product, C candidates, k results.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mrl_jax.search.index import Index
from mrl_jax.unit_rows import unit_rows_float32

__all__ = ["BoundedSearch"]

_GROUP = 64  # rows whose best score is looked at first
_PARTS = 4  # of the coordinates after the first H
_TRIALS = ((60, 128), (124, 256))  # H and C; the first that rules out enough is taken
_SURE = 0.95  # share of the sampled queries that must need no further comparison
_SAMPLE = 256  # queries
_AGAIN = (1, 8)  # numbers of queries that are compared with all rows, if not all
_SLACK = 6e-5  # for rounding, times the lengths: 1,024 products of float32


class BoundedSearch:
    """The nearest rows of an index of real numbers (`Index.real`); scores are float32.

    Attributes:
        head: H, or None if every query is compared with all rows.

    Args:
        index: the gallery; its rows are copied.
        samples: rows [N, D] like those of later queries; by them the number of coordinates is chosen.
    """

    def __init__(self, index: Index, samples: np.ndarray) -> None:
        self._count, self._unit = len(index), index.metric == "cosine"
        rows = np.concatenate(list(index.embeddings()))
        self._rows = jax.device_put(np.pad(rows, ((0, -len(rows) % _GROUP), (0, 0))))
        self._heads: Array | None = None
        self.head, self._candidates = None, 0
        axes = np.linalg.eigh(np.asarray(jnp.matmul(rows.T, rows, precision="highest"), np.float64))[1][:, ::-1].astype(
            np.float32
        )
        self._axes = jax.device_put(axes)
        self._length = float(np.linalg.norm(rows, axis=1).max())
        tried = samples[np.linspace(0, len(samples) - 1, min(_SAMPLE, len(samples))).astype(int)]
        for head, candidates in _TRIALS:
            if head + _PARTS >= rows.shape[1] or candidates >= self._count:
                break
            self._heads, self._candidates = _heads(self._rows, self._axes, head), candidates
            sure = [self._bounded(self._asked(tried[i : i + 32]), 16)[2] for i in range(0, len(tried), 32)]
            if np.concatenate(sure).mean() >= _SURE:
                self.head = head
                return
        self._heads = None

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Scores float32 [Q, k] and row numbers int32 [Q, k], best first, ties in gallery order.

        Args:
            queries: [Q, D], finite.
            k: number of results, 1 to G.
        """
        asked = self._asked(queries)
        if self._heads is None or 4 * k > self._candidates:
            return self.search_all(asked, k)
        scores, rows, sure = self._bounded(asked, k)
        if not sure.all():
            again = np.flatnonzero(~sure)
            count = next(n for n in (*_AGAIN, len(asked)) if n >= len(again))  # few shapes are compiled
            filled = asked[np.resize(again, count)]
            scores, rows = scores.copy(), rows.copy()
            scores[again], rows[again] = (x[: len(again)] for x in self.search_all(filled, k))
        return scores, rows

    def _asked(self, queries: np.ndarray) -> np.ndarray:
        return unit_rows_float32(queries) if self._unit else np.asarray(queries, np.float32)

    def _bounded(self, asked: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        assert self._heads is not None
        short = _heads(asked, self._axes, self._heads.shape[1] - _PARTS)
        bounds, near = _best(_products(self._heads, short), self._count, self._candidates + 1)
        scores, rows = map(np.asarray, _among(self._rows, asked, near[:, :-1], k))
        slack = _SLACK * self._length * np.linalg.norm(asked, axis=1)
        return scores, rows, scores[:, -1] > np.asarray(bounds)[:, -1] + slack

    def search_all(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """As `search`, by comparison with all rows."""
        scores, rows = _best(_products(self._rows, self._asked(queries)), self._count, k)
        return np.asarray(scores), np.asarray(rows)


@partial(jax.jit, static_argnames="head")
def _heads(rows: Array, axes: Array, head: int) -> Array:
    """The first coordinates and the lengths of the parts of the others [G, H + 4]."""
    turned = jnp.matmul(rows, axes, precision="highest")
    parts = jnp.array_split(turned[:, head:], _PARTS, axis=1)
    return jnp.concatenate([turned[:, :head], *(jnp.linalg.norm(p, axis=1, keepdims=True) for p in parts)], axis=1)


@jax.jit
def _products(rows: Array, asked: Array) -> Array:
    """Products [G, Q]; this way round a few queries take half the time. As a program of its own, it is a fast one."""
    scores = jnp.matmul(rows, asked.T, precision="highest")
    return jnp.where(scores == 0, 0.0, scores)  # `lax.top_k` ranks -0.0 below 0.0


@partial(jax.jit, static_argnames="k")
def _among(rows: Array, asked: Array, near: Array, k: int) -> tuple[Array, Array]:
    """The k best of the candidates [Q, C] of each query, ties in gallery order."""
    near = jnp.sort(near, axis=1)
    exact = jnp.einsum("qcd,qd->qc", rows[near], asked, precision="highest")
    scores, columns = jax.lax.top_k(jnp.where(exact == 0, 0.0, exact), k)
    return scores, jnp.take_along_axis(near, columns, axis=1)


@partial(jax.jit, static_argnames="k")
def _best(scores: Array, count: int, k: int) -> tuple[Array, Array]:
    """The k best of scores [G, Q] of each query, ties in gallery order; rows from `count` on are padding.

    These lie in the k groups of neighbouring rows whose best scores are the largest: each of these groups has a row
    that precedes all rows of the other groups.
    """
    scores = jnp.where(jnp.arange(len(scores))[:, None] < count, scores, -jnp.inf)
    groups = scores.reshape(-1, _GROUP, scores.shape[1]).max(axis=1)
    _, chosen = jax.lax.top_k(groups.T, min(k, len(groups)))
    chosen = jnp.sort(chosen, axis=1)
    rows = (chosen[:, :, None] * _GROUP + jnp.arange(_GROUP)[None, None]).reshape(len(chosen), -1)
    best, columns = jax.lax.top_k(scores[rows, jnp.arange(len(rows))[:, None]], k)
    return best, jnp.take_along_axis(rows, columns, axis=1)
