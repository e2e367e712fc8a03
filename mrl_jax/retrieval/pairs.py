"""Instance-level retrieval: the rank of each query's partner."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mrl_jax.backend import names_backend
from mrl_jax.retrieval.arguments import finite_rows, host_array
from mrl_jax.retrieval.groups import equal_rows, group_equal
from mrl_jax.retrieval.similarity import Operands, key_rank, operands
from mrl_jax.unit_rows import unit_rows_for_ranking

__all__ = ["pair_ranks"]

_PAIR_SCORES = 1 << 24  # similarities of a block in `pair_ranks`: 64 MiB


@names_backend
def pair_ranks(queries: Any, gallery: Any, pairs: Any = None, *, metric: str = "cosine") -> np.ndarray:
    """Instance-level retrieval: the rank of each query's partner, its only relevant item.

    Recall@k is the mean of `(ranks >= 1) & (ranks <= k)`.

    Args:
        queries: embeddings [Q, L].
        gallery: embeddings [G, L].
        pairs: gallery row of each partner, integers [Q], -1 for a query without partner; None if row i belongs to row
            i.
        metric: "cosine", "dot" or "hamming".

    Returns:
        int64 [Q], 1-based, ties in gallery order; 0 for queries without partner.

    Raises:
        ValueError: shapes that do not fit, embeddings that are not finite or do not fit `metric`, or row numbers
            outside the gallery.
    """
    queries, gallery = host_array("pair_ranks", "queries", queries), host_array("pair_ranks", "gallery", gallery)
    pairs = host_array("pair_ranks", "pairs", pairs)
    q, g = np.shape(queries), np.shape(gallery)
    if len(q) != 2 or len(g) != 2 or q[1] != g[1] or 0 in (*q, *g):
        raise ValueError(f"pair_ranks: queries {q}, gallery {g}; give [Q, L] and [G, L], all at least 1")
    queries, gallery = finite_rows("pair_ranks", "queries", queries), finite_rows("pair_ranks", "gallery", gallery)
    if pairs is None and q[0] != g[0]:
        raise ValueError(f"pair_ranks: {q[0]} queries and {g[0]} gallery rows do not pair by row; give pairs [Q]")
    pairs = np.arange(q[0]) if pairs is None else np.asarray(pairs)
    if pairs.shape != q[:1] or pairs.dtype.kind not in "iu" or pairs.max() >= g[0] or pairs.min() < -1:
        raise ValueError(
            f"pair_ranks: pairs are {pairs.dtype} {list(pairs.shape)}; they must be integers [{q[0]}] from -1 to "
            f"{g[0] - 1}: rows of the gallery, or -1 for none"
        )
    compared = operands(queries, gallery, metric)
    if compared.squares is not None:
        return np.where(pairs >= 0, _pair_ranks_by_keys(compared, pairs), 0)
    groups = group_equal(queries, None if compared.integers else equal_rows(queries))
    same = None if compared.integers else equal_rows(gallery)
    z, rows = (jnp.asarray(x, jnp.float32) for x in (groups.first(compared.queries), compared.gallery))
    if compared.form == "unit":
        z, rows = unit_rows_for_ranking(z), unit_rows_for_ranking(rows)
    block = min(len(z), max(min(128, q[1] // 4), 1, _PAIR_SCORES // g[0]))
    ranks = np.zeros(q[0], np.int64)
    for i in (min(i, len(z) - block) for i in range(0, len(z), block)):  # the last overlaps: one shape compiles once
        for own in groups.chunks(i, i + block, block):
            padded = np.concatenate([own, own[:1].repeat(block - len(own))])
            place = None if groups.rows is None else groups.place[padded] - i
            values = _pair_ranks(z[i : i + block], rows, pairs[padded].astype(np.int32), same, place)
            ranks[own] = values[: len(own)]
    return np.where(pairs >= 0, ranks, 0)


def _pair_ranks_by_keys(compared: Operands, pairs: np.ndarray) -> np.ndarray:
    assert compared.squares is not None
    queries, gallery = (np.asarray(x, np.float64) for x in (compared.queries, compared.gallery))
    ranks, block = np.zeros(len(queries), np.int64), max(1, _PAIR_SCORES // len(gallery))
    for start in range(0, len(queries), block):
        products = queries[start : start + block] @ gallery.T
        for i, (d, item) in enumerate(zip(products, pairs[start : start + block], strict=True)):
            ranks[start + i] = key_rank(d, compared.squares, max(item, 0))
    return ranks


@jax.jit
def _pair_ranks(queries: Array, gallery: Array, pairs: Array, same: Array | None, place: Array | None) -> Array:
    scores = jnp.dot(queries, gallery.T, precision="highest")
    scores = scores if place is None else scores[place]
    scores = scores if same is None else scores[:, same]
    own = jnp.take_along_axis(scores, jnp.maximum(pairs, 0)[:, None], axis=1)
    earlier = jax.lax.broadcasted_iota(jnp.int32, scores.shape, 1) < pairs[:, None]
    return 1 + ((scores > own) | ((scores == own) & earlier)).sum(axis=1)
