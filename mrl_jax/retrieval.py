"""Exact ranking metrics for retrieval between modalities.

Shape letters: Q queries, G gallery items, L embedding dimensions.

Conventions, the same everywhere: items rank by descending cosine similarity in float32; equal ones in gallery order;
an item is relevant if it has the query's label; a query without any relevant item counts 0.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

__all__ = ["average_precision", "chance_map", "cross_modal_chance", "cross_modal_map", "mean_average_precision"]

_BLOCK_SCORES = 1 << 22  # similarities held at once: 16 MiB, several times that while sorting


def average_precision(scores: Array, relevant: Array) -> Array:
    """Average precision of one ranking over the full gallery: mean over relevant items of precision at their rank.

    Args:
        scores: similarities [G]; higher ranks first, ties in gallery order.
        relevant: bool [G].

    Returns:
        A float32 scalar; 0 if nothing is relevant.

    Example:
        Relevant items at ranks 1 and 3: (1/1 + 2/3) / 2.

        >>> import jax.numpy as jnp
        >>> round(float(average_precision(jnp.array([0.9, 0.5, 0.4]), jnp.array([True, False, True]))), 4)
        0.8333
    """
    _, hit = jax.lax.sort((-scores, relevant), num_keys=1, is_stable=True)
    hits = jnp.cumsum(hit, dtype=jnp.int32)
    precision = hits / jnp.arange(1, len(hit) + 1, dtype=jnp.float32)
    return jnp.where(hit, precision, 0.0).sum() / jnp.maximum(hits[-1], 1)


@jax.jit
def _average_precisions(queries: Array, gallery: Array, query_labels: Array, gallery_labels: Array) -> Array:
    queries, gallery = _unit_rows(queries), _unit_rows(gallery)

    def one(query_and_label: tuple[Array, Array]) -> Array:
        query, label = query_and_label
        return average_precision(jnp.dot(gallery, query, precision="highest"), gallery_labels == label)

    # Blocks over the queries: `lax.map` runs each block as one matrix product and keeps memory bounded.
    block = max(1, min(len(queries), _BLOCK_SCORES // max(1, len(gallery))))
    return jax.lax.map(one, (queries, query_labels), batch_size=block)


def mean_average_precision(queries: Any, gallery: Any, query_labels: Any, gallery_labels: Any) -> float:
    """Mean average precision over the full ranking (mAP@all), exact, by cosine similarity.

    Jitted once per shape and blocked over the queries, so that memory grows with the gallery, not with Q x G.

    Args:
        queries: embeddings [Q, L]; need not have unit length.
        gallery: embeddings [G, L].
        query_labels: integers [Q].
        gallery_labels: integers [G].

    Returns:
        The mean over all queries, in [0, 1].

    A zero vector has similarity 0 to everything.

    Raises:
        ValueError: shapes that do not fit each other, no query, an empty gallery, embeddings that are not finite, or
            labels that are not integers.

    Example:
        >>> import numpy as np
        >>> mean_average_precision(np.eye(2), np.eye(2), np.array([0, 1]), np.array([0, 1]))
        1.0
    """
    q, g = np.shape(queries), np.shape(gallery)
    ql, gl = np.shape(query_labels), np.shape(gallery_labels)
    if len(q) != 2 or len(g) != 2 or q[1] != g[1] or ql != q[:1] or gl != g[:1] or 0 in (*q, *g):
        raise ValueError(
            f"mean_average_precision: queries {q} with labels {ql}, gallery {g} with labels {gl}; "
            "it needs [Q, L] with [Q] and [G, L] with [G], all at least 1"
        )
    arrays = [jnp.asarray(x, jnp.float32) for x in (queries, gallery)]
    for name, x in zip(("queries", "gallery"), arrays, strict=True):
        if not bool(jnp.isfinite(x).all()):
            raise ValueError(f"mean_average_precision: {name} hold NaN or inf; embeddings must be finite")
    labels = np.concatenate([np.asarray(query_labels), np.asarray(gallery_labels)])
    if labels.dtype.kind not in "iu":
        raise ValueError(f"mean_average_precision: labels are {labels.dtype}; they must be integers")
    # Numbered anew: JAX would cut 64-bit labels to 32 bits, so that different ones could become equal.
    numbers = np.unique(labels, return_inverse=True)[1].astype(np.int32)
    ap = _average_precisions(*arrays, numbers[: q[0]], numbers[q[0] :])
    return float(np.asarray(ap, np.float64).mean())


def cross_modal_map(embeddings: Mapping[str, Any], labels: Mapping[str, Any]) -> dict[str, float]:
    """mAP of every ordered pair of different modalities.

    Args:
        embeddings: modality -> [N, L].
        labels: modality -> integers [N].

    Returns:
        `{"a->b": mAP}` with queries from a and gallery b, m(m-1) entries.
    """
    return {
        f"{a}->{b}": mean_average_precision(embeddings[a], embeddings[b], labels[a], labels[b])
        for a in embeddings
        for b in embeddings
        if a != b
    }


def cross_modal_chance(labels: Mapping[str, Any]) -> dict[str, float]:
    """The class prior of every ordered pair of different modalities: `{"a->b": chance_map}`."""
    return {f"{a}->{b}": chance_map(labels[a], labels[b]) for a in labels for b in labels if a != b}


def chance_map(query_labels: Any, gallery_labels: Any) -> float:
    """The class prior: mean over queries of the share of the gallery that is relevant.

    A ranking that knows nothing has this precision at every rank, in expectation, and so (up to a term of order
    log(G)/G) this mAP.
    """
    query_labels, gallery_labels = np.asarray(query_labels), np.asarray(gallery_labels)
    values, counts = np.unique(gallery_labels, return_counts=True)
    share = dict(zip(values.tolist(), (counts / len(gallery_labels)).tolist(), strict=True))
    return float(np.mean([share.get(label, 0.0) for label in query_labels.tolist()]))


def _unit_rows(x: Array) -> Array:
    largest = jnp.abs(x).max(axis=-1, keepdims=True)
    x = x / jnp.where(largest > 0, largest, 1.0)  # squares then stay in range
    norm = jnp.linalg.norm(x, axis=-1, keepdims=True)
    return x / jnp.where(norm > 0, norm, 1.0)
