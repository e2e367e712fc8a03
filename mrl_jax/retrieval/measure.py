"""Exact ranking metrics for retrieval between modalities.

`retrieval_metrics` and `mean_average_precision` take embeddings and labels; the metrics themselves are pure functions
of a ranking (`metrics.py`), rankings come block by block (`ranking.py`).

Shape letters: Q queries, G gallery items, L embedding dimensions, K classes, R relevant items of a query.

Conventions, the same everywhere: items rank by descending cosine similarity in float32; equal ones in gallery order; an
item is relevant if it has the query's label, or shares one with it; a query without any relevant item has the value 0.
A zero vector has similarity 0 to everything. A cut-off beyond the gallery is allowed: nothing lies behind its end.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mrl_jax.retrieval.metrics import (
    Ranking,
    average_precision,
    interpolated_precision,
    ndcg,
    precision,
    r_precision,
    rank,
    recall,
    reciprocal_rank,
    relevant_items,
)
from mrl_jax.retrieval.ranking import SIMILARITIES, equal_rows, map_rankings
from mrl_jax.unit_rows import unit_rows_for_ranking

__all__ = [
    "Ranking",
    "average_precision",
    "chance_map",
    "cross_modal_chance",
    "cross_modal_map",
    "interpolated_precision",
    "mean_average_precision",
    "ndcg",
    "pair_ranks",
    "precision",
    "precision_recall_curve",
    "r_precision",
    "rank",
    "recall",
    "reciprocal_rank",
    "relevant_items",
    "retrieval_metrics",
    "summarize",
    "summarize_by_class",
]

_PAIR_SCORES = 1 << 24  # similarities held at once by `pair_ranks`: 64 MiB


def retrieval_metrics(
    queries: Any,
    gallery: Any,
    query_labels: Any,
    gallery_labels: Any,
    *,
    k: Sequence[int] | int = (1, 5, 10, 50),
    metrics: Sequence[str] | None = None,
    exclude_self: bool = False,
    similarity: str = "float32",
    devices: Sequence[Any] | None = None,
    method: str = "auto",
) -> dict[str, np.ndarray]:
    """Every metric of every query, exact, by cosine similarity, in blocks: memory grows with the gallery, not Q x G.

    Args:
        queries: embeddings [Q, L]; need not have unit length.
        gallery: embeddings [G, L].
        query_labels: integers [Q], or multi-hot 0/1 [Q, K].
        gallery_labels: integers [G] or multi-hot [G, K], likewise.
        k: cut-offs, or one.
        metrics: only these of the names below, which takes less time than all; "relevant" always comes with them.
        exclude_self: row i of both is the same item, which is no answer to itself (retrieval within a modality).
        similarity: precision of the similarity product, "float32" or "bfloat16".
        devices: shard the gallery over these devices; None for JAX's default one.
        method: how rankings are made, see `map_rankings`; it does not change them.

    Returns:
        Name -> float64 [Q]: "ap", "ndcg", "r_precision", "rr" (reciprocal rank), and for every cut-off "ap@k" (divided
        by the hits within k), "ap_min@k" (by min(k, R)), "precision@k", "recall@k", "ndcg@k". "curve" [Q, 11] is the
        interpolated precision at recall 0, .1, …, 1; "relevant" int64 [Q] is R.

    Raises:
        ValueError: shapes that do not fit each other, no query, an empty gallery, embeddings that are not finite,
            labels that are neither integers nor multi-hot, or unknown metrics.
    """
    k = (k,) if isinstance(k, int | np.integer) else k
    ks = tuple(int(x) for x in k)
    if any(x < 1 or x != y for x, y in zip(ks, k, strict=True)):
        raise ValueError(f"retrieval_metrics: k is {tuple(k)}; cut-offs must be integers of at least 1")
    known = [*_METRICS, *(f"{name}@{k}" for k in ks for name in _METRICS_AT), "curve", "relevant"]
    wanted = tuple(known if metrics is None else dict.fromkeys([*metrics, "relevant"]))
    if unknown := [name for name in wanted if name not in known]:
        raise ValueError(f"retrieval_metrics: {unknown[0]!r} is no metric; choose from {', '.join(known)}")
    how = _How(exclude_self, similarity, devices, method)
    reduce = functools.partial(_metrics, ks, wanted)
    return _per_query("retrieval_metrics", reduce, queries, gallery, query_labels, gallery_labels, how)


_METRICS = ("ap", "ndcg", "r_precision", "rr")
_METRICS_AT = ("ap", "ap_min", "precision", "recall", "ndcg")


@functools.cache  # one object for the same metrics, so that they compile once
def _metrics(ks: tuple[int, ...], wanted: tuple[str, ...], most: int) -> Callable[[Ranking], dict[str, Array]]:
    def measure(r: Ranking) -> dict[str, Array]:
        found = {"ap": average_precision(r), "ndcg": ndcg(r, None, most), "r_precision": r_precision(r)}
        for k in ks:
            found |= {f"ap@{k}": average_precision(r, k), f"ap_min@{k}": average_precision(r, k, "relevant")}
            found |= {f"precision@{k}": precision(r, k), f"recall@{k}": recall(r, k), f"ndcg@{k}": ndcg(r, k, most)}
        found |= {"rr": reciprocal_rank(r), "curve": interpolated_precision(r), "relevant": relevant_items(r)}
        return {name: found[name] for name in wanted}  # XLA leaves out what nobody asks for

    return measure


def summarize(per_query: Mapping[str, Any], without_relevant: str = "zero") -> dict[str, Any]:
    """Means over the queries of what `retrieval_metrics` found.

    Args:
        per_query: its result.
        without_relevant: queries without a relevant item count 0 ("zero") or are left out ("skip").

    Returns:
        "map", "map@k", "map_min@k", "mrr" and the others by their names; "curve" is a list; "queries" is the number
        that counted. With "skip" and no query left every value is 0.

    Raises:
        ValueError: an unknown `without_relevant`.
    """
    kept = _counted(np.asarray(per_query["relevant"]), without_relevant)
    found: dict[str, Any] = {}
    for name, values in per_query.items():
        if name != "relevant":
            mean = np.asarray(values, np.float64)[kept].sum(axis=0) / max(1, kept.sum())
            name = "mrr" if name == "rr" else f"m{name}" if name == "ap" or name.startswith("ap") else name
            found[name] = mean.tolist()
    return {**found, "queries": int(kept.sum())}


def summarize_by_class(
    per_query: Mapping[str, Any], query_labels: Any, without_relevant: str = "zero"
) -> dict[int, dict[str, Any]]:
    """Means over the queries of each class that has any.

    Args:
        per_query: the result of `retrieval_metrics`.
        query_labels: integers [Q], or multi-hot [Q, K]: a query then counts in each of its classes.
        without_relevant: as in `summarize`; with "skip", classes of which no query is left are left out.

    Returns:
        Class number -> as `summarize`, classes ascending.

    Raises:
        ValueError: an unknown `without_relevant`.
    """
    query_labels = np.asarray(query_labels)
    kept = _counted(np.asarray(per_query["relevant"]), without_relevant)
    hot = query_labels.ndim == 2
    classes = np.flatnonzero(query_labels[kept].any(axis=0)) if hot else np.unique(query_labels[kept])
    rows = (np.flatnonzero(kept & (query_labels[:, c] != 0 if hot else query_labels == c)) for c in classes)
    return {
        int(c): summarize({name: np.asarray(values)[r] for name, values in per_query.items()})
        for c, r in zip(classes, rows, strict=True)
    }


def mean_average_precision(
    queries: Any,
    gallery: Any,
    query_labels: Any,
    gallery_labels: Any,
    *,
    k: int | None = None,
    divisor: str = "hits",
    without_relevant: str = "zero",
    exclude_self: bool = False,
    similarity: str = "float32",
    devices: Sequence[Any] | None = None,
    method: str = "auto",
) -> float:
    """Mean average precision over the full ranking (mAP@all) or its first k ranks, exact, by cosine similarity.

    Args:
        queries: embeddings [Q, L]; need not have unit length.
        gallery: embeddings [G, L].
        query_labels: integers [Q], or multi-hot 0/1 [Q, K].
        gallery_labels: integers [G] or multi-hot [G, K], likewise.
        k: cut-off; None (default) for the whole gallery.
        divisor: of AP@k, see `average_precision`: "hits" (default) within k, or "relevant" for min(k, R).
        without_relevant: queries without a relevant item count 0 ("zero", the default) or are left out ("skip").
        exclude_self: row i of both is the same item, which is no answer to itself.
        similarity: precision of the similarity product, "float32" or "bfloat16".
        devices: shard the gallery over these devices; None for JAX's default one.
        method: how rankings are made, see `map_rankings`; it does not change them.

    Returns:
        The mean over all queries that count, in [0, 1].

    Raises:
        ValueError: shapes that do not fit each other, no query, an empty gallery, embeddings that are not finite, or
            labels that are neither integers nor multi-hot.

    Example:
        >>> import numpy as np
        >>> mean_average_precision(np.eye(2), np.eye(2), np.array([0, 1]), np.array([0, 1]))
        1.0
    """
    how = _How(exclude_self, similarity, devices, method)
    reduce = functools.partial(_average_precision, k, divisor)
    found = _per_query("mean_average_precision", reduce, queries, gallery, query_labels, gallery_labels, how)
    return summarize(found, without_relevant)["map"]


@functools.cache
def _average_precision(k: int | None, divisor: str, most: int) -> Callable[[Ranking], dict[str, Array]]:
    return lambda r: {"ap": average_precision(r, k, divisor), "relevant": relevant_items(r)}


def precision_recall_curve(
    queries: Any,
    gallery: Any,
    query_labels: Any,
    gallery_labels: Any,
    levels: int = 101,
    *,
    without_relevant: str = "zero",
    exclude_self: bool = False,
    similarity: str = "float32",
    devices: Sequence[Any] | None = None,
    method: str = "auto",
) -> np.ndarray:
    """Mean interpolated precision at recall 0, …, 1 in equal steps: float64 [levels].

    Arguments and errors as in `mean_average_precision`.
    """
    how = _How(exclude_self, similarity, devices, method)
    reduce = functools.partial(_curve, levels)
    found = _per_query("precision_recall_curve", reduce, queries, gallery, query_labels, gallery_labels, how)
    return np.array(summarize(found, without_relevant)["curve"])


@functools.cache
def _curve(levels: int, most: int) -> Callable[[Ranking], dict[str, Array]]:
    return lambda r: {"curve": interpolated_precision(r, levels), "relevant": relevant_items(r)}


class _How(NamedTuple):
    """Keywords of `map_rankings`, by the same names."""

    exclude_self: bool
    similarity: str
    devices: Sequence[Any] | None
    method: str


def _per_query(
    name: str,
    reduce: Callable[[int], Callable[[Ranking], dict[str, Array]]],
    queries: Any,
    gallery: Any,
    query_labels: Any,
    gallery_labels: Any,
    how: _How,
) -> dict[str, np.ndarray]:
    """Check the arguments of a public function, named for messages, and reduce the ranking of every query.

    `reduce` makes what `map_rankings` takes from the largest gain that is possible.
    """
    *arrays, most = _checked(name, queries, gallery, query_labels, gallery_labels, how.similarity, how.exclude_self)
    found = map_rankings(reduce(most), *arrays, **how._asdict())
    return {name: x.astype(np.int64 if name == "relevant" else np.float64) for name, x in found.items()}


def pair_ranks(queries: Any, gallery: Any, pairs: Any = None) -> np.ndarray:
    """Instance-level retrieval: the rank of each query's own partner, the only hit there is.

    recall@k is the mean of `(ranks >= 1) & (ranks <= k)`, and the median rank is their median.

    Args:
        queries: embeddings [Q, L].
        gallery: embeddings [G, L].
        pairs: the partner's gallery row, integers [Q]; -1 where there is none. None: row i belongs to row i.

    Returns:
        int64 [Q], 1-based, ties in gallery order; 0 where there is no partner.

    Raises:
        ValueError: shapes that do not fit, embeddings that are not finite, or rows that the gallery does not have.
    """
    q, g = np.shape(queries), np.shape(gallery)
    if len(q) != 2 or len(g) != 2 or q[1] != g[1] or 0 in (*q, *g):
        raise ValueError(f"pair_ranks: queries {q}, gallery {g}; it needs [Q, L] and [G, L], all at least 1")
    queries, gallery = _finite("pair_ranks", "queries", queries), _finite("pair_ranks", "gallery", gallery)
    if pairs is None and q[0] != g[0]:
        raise ValueError(f"pair_ranks: {q[0]} queries and {g[0]} gallery rows do not pair by row; give pairs [Q]")
    pairs = np.arange(q[0]) if pairs is None else np.asarray(pairs)
    if pairs.shape != q[:1] or pairs.dtype.kind not in "iu" or pairs.max() >= g[0] or pairs.min() < -1:
        raise ValueError(
            f"pair_ranks: pairs are {pairs.dtype} {list(pairs.shape)}; they must be integers [{q[0]}] from -1 to "
            f"{g[0] - 1}: rows of the gallery, or -1 for none"
        )
    same = equal_rows(gallery)
    z, rows = (unit_rows_for_ranking(jnp.asarray(x, jnp.float32)) for x in (queries, gallery))
    block = min(q[0], max(min(128, q[1] // 4), 1, _PAIR_SCORES // g[0]))
    starts = [min(i, q[0] - block) for i in range(0, q[0], block)]  # the last block overlaps: one shape, compiled once
    found = np.zeros(q[0], np.int64)
    for i in starts:
        found[i : i + block] = _pair_ranks(z[i : i + block], rows, pairs[i : i + block].astype(np.int32), same)
    return np.where(pairs >= 0, found, 0)


@jax.jit
def _pair_ranks(queries: Array, gallery: Array, pairs: Array, same: Array | None) -> Array:
    scores = jnp.dot(queries, gallery.T, precision="highest")
    scores = scores if same is None else scores[:, same]
    own = jnp.take_along_axis(scores, jnp.maximum(pairs, 0)[:, None], axis=1)
    earlier = jax.lax.broadcasted_iota(jnp.int32, scores.shape, 1) < pairs[:, None]
    return 1 + ((scores > own) | ((scores == own) & earlier)).sum(axis=1)


def cross_modal_map(embeddings: Mapping[str, Any], labels: Mapping[str, Any]) -> dict[str, float]:
    """mAP of every ordered pair of different modalities.

    Args:
        embeddings: modality -> [N, L].
        labels: modality -> integers [N], or multi-hot [N, K].

    Returns:
        `{"a->b": mAP}` with queries from a and gallery b, m(m-1) entries.
    """
    return {
        f"{a}->{b}": mean_average_precision(embeddings[a], embeddings[b], labels[a], labels[b])
        for a, b in _pairs(embeddings)
    }


def cross_modal_chance(labels: Mapping[str, Any]) -> dict[str, float]:
    """The class prior of every ordered pair of different modalities: `{"a->b": chance_map}`."""
    return {f"{a}->{b}": chance_map(labels[a], labels[b]) for a, b in _pairs(labels)}


def chance_map(query_labels: Any, gallery_labels: Any) -> float:
    """The class prior: mean over queries of the share of the gallery that is relevant.

    A ranking that knows nothing has this precision at every rank, in expectation, and so (up to a term of order
    log(G)/G) this mAP.

    Args:
        query_labels: integers [Q], or multi-hot [Q, K].
        gallery_labels: integers [G] or multi-hot [G, K], likewise.
    """
    query_labels, gallery_labels = np.asarray(query_labels), np.asarray(gallery_labels)
    if query_labels.ndim == 2:
        rows, counts = np.unique(query_labels, axis=0, return_counts=True)
        other = (gallery_labels != 0).astype(np.float32).T
        shares = [((row != 0).astype(np.float32) @ other > 0).mean() for row in rows]
        return float(np.average(shares, weights=counts))
    values, counts = np.unique(gallery_labels, return_counts=True)
    share = dict(zip(values.tolist(), (counts / len(gallery_labels)).tolist(), strict=True))
    return float(np.mean([share.get(label, 0.0) for label in query_labels.tolist()]))


def _pairs(names: Iterable[str]) -> list[tuple[str, str]]:
    names = list(names)
    return [(a, b) for a in names for b in names if a != b]


def _counted(relevant: np.ndarray, without_relevant: str) -> np.ndarray:
    if without_relevant not in ("zero", "skip"):
        raise ValueError(f"without_relevant {without_relevant!r}: choose zero or skip")
    return np.ones(len(relevant), bool) if without_relevant == "zero" else relevant > 0


def _finite(name: str, what: str, x: Any) -> Any:
    """The rows in float32, where they lie."""
    if not isinstance(x, jax.Array):
        with np.errstate(over="ignore"):
            x = np.asarray(x, np.float32)
    finite = (jnp if isinstance(x, jax.Array) else np).isfinite(x).all(axis=1)
    if not bool(finite.all()):
        raise ValueError(
            f"{name}: {what} hold NaN or inf, the first in row {int(finite.argmin())}; embeddings must be finite in "
            "float32: leave such rows out"
        )
    return x


def _checked(
    name: str,
    queries: Any,
    gallery: Any,
    query_labels: Any,
    gallery_labels: Any,
    similarity: str,
    exclude_self: bool,
) -> tuple:
    """Arrays that fit each other, labels as `map_rankings` takes them, and the largest gain that is possible."""
    q, g = np.shape(queries), np.shape(gallery)
    ql, gl = np.shape(query_labels), np.shape(gallery_labels)
    if (
        len(q) != 2 or len(g) != 2 or q[1] != g[1] or 0 in (*q, *g)
        or ql[:1] != q[:1] or gl[:1] != g[:1] or ql[1:] != gl[1:] or len(ql) > 2
    ):  # fmt: skip
        raise ValueError(
            f"{name}: queries {q} with labels {ql}, gallery {g} with labels {gl}; it needs [Q, L] with [Q] and [G, L] "
            "with [G], all at least 1, or multi-hot labels [Q, K] and [G, K]"
        )
    if exclude_self and q[0] != g[0]:
        raise ValueError(
            f"{name}: {q[0]} queries and {g[0]} gallery rows with exclude_self, where row i of both is the same item; "
            "they must be as many: give the same rows twice"
        )
    if similarity not in SIMILARITIES:
        raise ValueError(f"{name}: similarity {similarity!r}: choose from {', '.join(SIMILARITIES)}")
    queries, gallery = _finite(name, "queries", queries), _finite(name, "gallery", gallery)
    given = [np.asarray(query_labels), np.asarray(gallery_labels)]
    if len(ql) == 2:
        if not {x.dtype.kind for x in given} <= set("biuf") or any(((x != 0) & (x != 1)).any() for x in given):
            raise ValueError(f"{name}: labels [N, K] must be multi-hot, 0 or 1; class numbers are given as [N]")
        multi = [x.astype(np.uint8) for x in given]
        most = min(int(x.sum(axis=1, dtype=np.int64).max()) for x in multi)
        if most > 255:
            raise ValueError(f"{name}: items have up to {most} labels; at most 255 can be told apart")
        return queries, gallery, *multi, max(1, most)
    # NumPy would join signed and unsigned 64-bit integers as floats.
    given = [x.astype(np.int64) if x.dtype == np.uint64 and x.max() < 2**63 else x for x in given]
    together = np.concatenate(given)
    if together.dtype.kind not in "iu":
        raise ValueError(f"{name}: labels are {together.dtype}; they must be integers")
    # Numbered anew: JAX would cut 64-bit labels to 32 bits, so that different ones could become equal.
    numbers = np.unique(together, return_inverse=True)[1].astype(np.int32)
    return queries, gallery, numbers[: q[0]], numbers[q[0] :], 1
