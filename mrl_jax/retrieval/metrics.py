"""Metrics of a ranking: pure functions that run under `jit` and `vmap`.

A `Ranking` comes from `rank(scores, gains)`, or block by block from `ranking.map_rankings`.

Shape letters: G gallery items, N entries of a ranking, R relevant items of a query; leading axes are queries.

A query without any relevant item has the value 0. A cut-off may exceed the gallery: no items
follow its last one.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

__all__ = [
    "Ranking",
    "average_precision",
    "interpolated_precision",
    "ndcg",
    "precision",
    "r_precision",
    "rank",
    "recall",
    "reciprocal_rank",
    "relevant_items",
]


class Ranking(NamedTuple):
    """The ranks of the relevant items of a query. Leading axes are queries.

    Entries with gain 0 do not count: they are items that are not relevant, or padding.

    Attributes:
        rank: int32 [..., N], 1-based, ascending among the relevant entries.
        hits: int32 [..., N], number of relevant items up to this rank, inclusive.
        gain: unsigned integers [..., N]: 1, or with several labels per item the number of shared labels.
    """

    rank: Array
    hits: Array
    gain: Array


def rank(scores: Array, gain: Array) -> Ranking:
    """Rank by descending score, ties in gallery order.

    Args:
        scores: [..., G].
        gain: bool or unsigned integers [..., G], 0 for items that are not relevant.

    Returns:
        A ranking with one entry per gallery item, N = G.
    """
    gain = gain.astype(jnp.uint8) if gain.dtype == bool else gain
    descending = -jnp.where(scores == 0, 0, scores)  # -0.0 ties with 0.0
    _, gain = jax.lax.sort((descending, gain), num_keys=1, is_stable=True)
    ranks = jax.lax.broadcasted_iota(jnp.int32, gain.shape, gain.ndim - 1) + 1
    return Ranking(ranks, jnp.cumsum(gain > 0, axis=-1, dtype=jnp.int32), gain)


def relevant_items(ranking: Ranking) -> Array:
    """R, the number of relevant items: int32 [...]."""
    return (ranking.gain > 0).sum(axis=-1, dtype=jnp.int32)


def average_precision(ranking: Ranking, k: int | None = None, divisor: str = "hits") -> Array:
    """Average precision: mean over the relevant items of the precision at their rank.

    AP@k sums over the relevant items within rank k only. Two divisors are in use: the number of these items ("hits",
    the default, usual in cross-modal retrieval), or min(k, R) ("relevant": a relevant item beyond rank k counts 0).
    Without k both are R.

    Args:
        ranking: entries [..., N].
        k: cut-off, or None for the whole gallery (mAP@all).
        divisor: "hits" or "relevant".

    Returns:
        float32 [...] in [0, 1]; 0 if nothing is relevant.

    Raises:
        ValueError: k below 1, or an unknown divisor.

    Example:
        Relevant items at ranks 1 and 3: (1/1 + 2/3) / 2.

        >>> import jax.numpy as jnp
        >>> ranking = rank(jnp.array([0.9, 0.5, 0.4]), jnp.array([True, False, True]))
        >>> round(float(average_precision(ranking)), 4)
        0.8333
    """
    if divisor not in ("hits", "relevant"):
        raise ValueError(f"divisor {divisor!r}: choose hits or relevant")
    hit = _within(ranking, k)
    count = hit.sum(axis=-1) if divisor == "hits" else jnp.minimum(relevant_items(ranking), _cut(ranking, k))
    return _sum(jnp.where(hit, _precision_at_hits(ranking), 0.0)) / jnp.maximum(count, 1)


def precision(ranking: Ranking, k: int) -> Array:
    """Precision@k: fraction of relevant items within rank k, float32 [...]; the divisor is k, also if k > G."""
    return _within(ranking, k).sum(axis=-1) / jnp.float32(k)


def recall(ranking: Ranking, k: int) -> Array:
    """Recall@k: fraction of the relevant items that are within rank k, float32 [...].

    Instance-level retrieval uses "recall@k" for the fraction of queries whose partner is within rank k: the mean of
    `pair_ranks(…) <= k`.
    """
    return _within(ranking, k).sum(axis=-1) / jnp.maximum(relevant_items(ranking), 1).astype(jnp.float32)


def r_precision(ranking: Ranking) -> Array:
    """R-precision: precision at rank R, float32 [...]."""
    count = relevant_items(ranking)
    hit = (ranking.gain > 0) & (ranking.rank <= count[..., None])
    return hit.sum(axis=-1) / jnp.maximum(count, 1).astype(jnp.float32)


def reciprocal_rank(ranking: Ranking) -> Array:
    """One divided by the rank of the first relevant item, float32 [...]; its mean is the MRR."""
    return jnp.where(ranking.gain > 0, 1.0 / ranking.rank, 0.0).max(axis=-1)


def ndcg(ranking: Ranking, k: int | None = None, most: int = 1) -> Array:
    """Normalised discounted cumulative gain with linear gains: sum of gain / log2(1 + rank), divided by its maximum.

    Source: Järvelin and Kekäläinen, TOIS 2002, with the discount of Burges et al., ICML 2005.

    Args:
        ranking: entries [..., N].
        k: cut-off, or None for the whole gallery.
        most: upper bound on the gains, a static number: 1 for single labels.

    Returns:
        float32 [...] in [0, 1].
    """
    hit = _within(ranking, k)
    gained = _sum(jnp.where(hit, ranking.gain / jnp.log2(1.0 + ranking.rank), 0.0))
    # The ideal order puts the largest gains first: the n_v items with gain >= v take the first n_v ranks. As gain = sum
    # over v of [gain >= v], its value needs no sorting.
    place = jax.lax.broadcasted_iota(jnp.int32, ranking.gain.shape, ranking.gain.ndim - 1) + 1
    discount = 1.0 / jnp.log2(1.0 + place)

    def add(v: int, ideal: Array) -> Array:
        n_v = jnp.minimum((ranking.gain >= v).sum(axis=-1), _cut(ranking, k))
        return ideal + _sum(jnp.where(place <= n_v[..., None], discount, 0.0))

    ideal = jax.lax.fori_loop(1, most + 1, add, jnp.zeros_like(gained))
    return jnp.where(ideal > 0, gained / jnp.where(ideal > 0, ideal, 1.0), 0.0)


def interpolated_precision(ranking: Ranking, levels: int = 11) -> Array:
    """Precision-recall curve: the largest precision at any recall of at least t, for t = 0, …, 1 in equal steps.

    Eleven levels give the 11-point curve of TREC and PASCAL VOC 2007.

    Args:
        ranking: entries [..., N].
        levels: number of points, at least 2.

    Returns:
        float32 [..., levels].

    Raises:
        ValueError: fewer than 2 levels, or more than 10,001.
    """
    if not 2 <= levels <= 10_001:
        raise ValueError(f"levels is {levels}; a curve needs 2 to 10,001")
    hit, at_hits, count = ranking.gain > 0, _precision_at_hits(ranking), relevant_items(ranking)[..., None]
    steps = levels - 1

    def at(level: Array) -> Array:
        # Hits needed for recall level / steps, rounded up, computed in integers that stay within 32 bits.
        needed = count // steps * level + (count % steps * level + steps - 1) // steps
        reached = hit & (ranking.hits >= needed)
        return jnp.where(reached, at_hits, 0.0).max(axis=-1)

    return jnp.moveaxis(jax.lax.map(at, jnp.arange(levels)), 0, -1)


def _within(ranking: Ranking, k: int | None) -> Array:
    return (ranking.gain > 0) & (ranking.rank <= _cut(ranking, k))


def _cut(ranking: Ranking, k: int | None) -> int:
    if k is not None and (k < 1 or k != int(k)):
        raise ValueError(f"k is {k}; a cut-off must be an integer of at least 1")
    return np.iinfo(np.int32).max if k is None else min(int(k), np.iinfo(np.int32).max)


def _precision_at_hits(ranking: Ranking) -> Array:
    return ranking.hits / jnp.maximum(ranking.rank, 1).astype(jnp.float32)


def _sum(x: Array) -> Array:
    """Sum over the last axis in two levels: float32 then is accurate to 1e-6 over a million entries."""
    x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, -x.shape[-1] % 256)])
    partial_sums = x.reshape(*x.shape[:-1], -1, 256).sum(axis=-1)
    return jax.lax.optimization_barrier(partial_sums).sum(axis=-1)  # otherwise XLA merges the two sums
