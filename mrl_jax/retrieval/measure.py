"""Exact metrics for retrieval between modalities, from embeddings and labels.

The metrics are pure functions of a ranking (`metrics.py`); rankings are computed block by block (`ranking.py`).

Shape letters: Q queries, G gallery items, L embedding dimensions, K classes, R relevant items of a query.

Conventions: items rank by descending similarity, ties in gallery order. Rows of integers are compared exactly, others
in float32 (docs/retrieval.md, "What exact means"). An item is relevant if it has the query's label, or at least one of
its labels. A query without any relevant item has the value 0. A zero vector has cosine 0 to everything. A cut-off may
exceed the gallery: no items follow its last one.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jax import Array

from mrl_jax.backend import names_backend
from mrl_jax.errors import InputError
from mrl_jax.retrieval.arguments import checked_arguments, host_array
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
from mrl_jax.retrieval.pairs import pair_ranks
from mrl_jax.retrieval.ranking import map_rankings
from mrl_jax.tensors import from_tensor

__all__ = [
    "Ranking",
    "average_precision",
    "chance_map",
    "cross_modal_chance",
    "cross_modal_map",
    "expected_average_precision",
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


@names_backend
def retrieval_metrics(
    queries: Any,
    gallery: Any,
    query_labels: Any,
    gallery_labels: Any,
    *,
    k: Sequence[int] | int = (1, 5, 10, 50),
    metrics: Sequence[str] | None = None,
    exclude_self: bool = False,
    metric: str = "cosine",
    similarity: str = "float32",
    devices: Sequence[Any] | None = None,
    method: str = "auto",
) -> dict[str, np.ndarray]:
    """Every metric of every query, exact. Memory grows with the gallery, not with Q x G.

    Args:
        queries: embeddings [Q, L]; need not have unit length.
        gallery: embeddings [G, L].
        query_labels: integers [Q], or multi-hot 0/1 [Q, K].
        gallery_labels: integers [G] or multi-hot [G, K], likewise.
        k: one or more cut-offs.
        metrics: names of the metrics to compute, of those below; fewer take less time. "relevant" is always computed.
        exclude_self: row i of both is the same item, which is not in its own ranking (retrieval within a modality).
        metric: "cosine", "dot" (the product) or "hamming" (for codes: bits, or signs).
        similarity: precision of the similarity product of real rows, "float32" or "bfloat16".
        devices: devices to shard the gallery over; None for JAX's default device.
        method: method of ranking, see `map_rankings`; all methods give the same ranks.

    Returns:
        Name -> float64 [Q]: "ap", "ndcg", "r_precision", "rr" (reciprocal rank), and for every cut-off "ap@k" (divided
        by the hits within k), "ap_min@k" (by min(k, R)), "precision@k", "recall@k", "ndcg@k". "curve" [Q, 11] is the
        interpolated precision at recall 0, .1, …, 1; "relevant" int64 [Q] is R.

    Raises:
        ValueError: shapes that do not fit each other, no query, an empty gallery, embeddings that are not finite,
            labels that are neither integers nor multi-hot, an unknown metric, or embeddings that do not fit `metric`.
    """
    k = (k,) if isinstance(k, int | np.integer) else k
    ks = tuple(int(x) for x in k)
    if any(x < 1 or x != y for x, y in zip(ks, k, strict=True)):
        raise ValueError(f"retrieval_metrics: k is {tuple(k)}; cut-offs must be integers of at least 1")
    known = [*_METRICS, *(f"{name}@{k}" for k in ks for name in _METRICS_AT), "curve", "relevant"]
    wanted = tuple(known if metrics is None else dict.fromkeys([*metrics, "relevant"]))
    if unknown := [name for name in wanted if name not in known]:
        raise ValueError(f"retrieval_metrics: {unknown[0]!r} is an unknown metric; choose from {', '.join(known)}")
    options = _RankingOptions(exclude_self, metric, similarity, devices, method)
    reduce = functools.partial(_metrics, ks, wanted)
    return _per_query("retrieval_metrics", reduce, queries, gallery, query_labels, gallery_labels, options)


_METRICS = ("ap", "ndcg", "r_precision", "rr")
_METRICS_AT = ("ap", "ap_min", "precision", "recall", "ndcg")


@functools.cache  # the same object for the same metrics, so that they compile once
def _metrics(ks: tuple[int, ...], wanted: tuple[str, ...], most: int) -> Callable[[Ranking], dict[str, Array]]:
    def measure(r: Ranking) -> dict[str, Array]:
        values = {"ap": average_precision(r), "ndcg": ndcg(r, None, most), "r_precision": r_precision(r)}
        for k in ks:
            values |= {f"ap@{k}": average_precision(r, k), f"ap_min@{k}": average_precision(r, k, "relevant")}
            values |= {f"precision@{k}": precision(r, k), f"recall@{k}": recall(r, k), f"ndcg@{k}": ndcg(r, k, most)}
        values |= {"rr": reciprocal_rank(r), "curve": interpolated_precision(r), "relevant": relevant_items(r)}
        return {name: values[name] for name in wanted}  # XLA removes the unused metrics

    return measure


def summarize(per_query: Mapping[str, Any], without_relevant: str = "zero") -> dict[str, Any]:
    """Means over the queries of the result of `retrieval_metrics`.

    Args:
        per_query: the result.
        without_relevant: whether queries without a relevant item count as 0 ("zero") or are left out ("skip").

    Returns:
        "map", "map@k", "map_min@k", "mrr" and the others under their own names; "curve" is a list; "queries" is the
        number of queries that count. With "skip" and no query left every value is 0.

    Raises:
        ValueError: an unknown `without_relevant`.
    """
    counted = _counted(np.asarray(per_query["relevant"]), without_relevant)
    means: dict[str, Any] = {}
    for name, values in per_query.items():
        if name != "relevant":
            mean = np.asarray(values, np.float64)[counted].sum(axis=0) / max(1, counted.sum())
            name = "mrr" if name == "rr" else f"m{name}" if name == "ap" or name.startswith("ap") else name
            means[name] = mean.tolist()
    return {**means, "queries": int(counted.sum())}


def summarize_by_class(
    per_query: Mapping[str, Any], query_labels: Any, without_relevant: str = "zero"
) -> dict[Any, dict[str, Any]]:
    """Means over the queries of each class that has queries.

    Args:
        per_query: the result of `retrieval_metrics`.
        query_labels: integers or names [Q], or multi-hot [Q, K]: a query then counts in each of its classes.
        without_relevant: as in `summarize`; with "skip", classes without any remaining query are left out.

    Returns:
        Class number, or name, -> result of `summarize`, in ascending order of classes.

    Raises:
        ValueError: an unknown `without_relevant`, or labels of another form.
    """
    from mrl_jax.data.values import plain_array  # deferred: brings all readers of data

    query_labels = plain_array(query_labels, "summarize_by_class: query_labels")
    counted = _counted(np.asarray(per_query["relevant"]), without_relevant)
    hot = query_labels.ndim == 2
    fits = query_labels.ndim in (1, 2) and len(query_labels) == len(counted)
    if not fits or query_labels.dtype.kind not in ("biuf" if hot else "biuU"):
        raise InputError(
            f"summarize_by_class: query_labels are {query_labels.dtype} {list(query_labels.shape)}; give integers or "
            f"names [{len(counted)}], one per query, or multi-hot [{len(counted)}, K]"
        )
    classes = np.flatnonzero(query_labels[counted].any(axis=0)) if hot else np.unique(query_labels[counted])
    rows = (np.flatnonzero(counted & (query_labels[:, c] != 0 if hot else query_labels == c)) for c in classes)
    return {
        (str(c) if query_labels.dtype.kind == "U" else int(c)): summarize(
            {name: np.asarray(values)[r] for name, values in per_query.items()}
        )
        for c, r in zip(classes, rows, strict=True)
    }


@names_backend
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
    metric: str = "cosine",
    similarity: str = "float32",
    devices: Sequence[Any] | None = None,
    method: str = "auto",
) -> float:
    """Mean average precision over the full ranking (mAP@all) or its first k ranks, exact.

    Args:
        queries: embeddings [Q, L]; need not have unit length.
        gallery: embeddings [G, L].
        query_labels: integers [Q], or multi-hot 0/1 [Q, K].
        gallery_labels: integers [G] or multi-hot [G, K], likewise.
        k: cut-off; None (default) for the whole gallery.
        divisor: divisor of AP@k, see `average_precision`: "hits" (default) within k, or "relevant" for min(k, R).
        without_relevant: whether queries without a relevant item count as 0 ("zero") or are left out ("skip").
        exclude_self: row i of both is the same item, which is not in its own ranking.
        metric: "cosine", "dot" (the product) or "hamming" (for codes: bits, or signs).
        similarity: precision of the similarity product of real rows, "float32" or "bfloat16".
        devices: devices to shard the gallery over; None for JAX's default device.
        method: method of ranking, see `map_rankings`; all methods give the same ranks.

    Returns:
        The mean over all queries that count, in [0, 1].

    Raises:
        ValueError: shapes that do not fit each other, no query, an empty gallery, embeddings that are not finite,
            labels that are neither integers nor multi-hot, or embeddings that do not fit `metric`.

    Example:
        >>> import numpy as np
        >>> mean_average_precision(np.eye(2), np.eye(2), np.array([0, 1]), np.array([0, 1]))
        1.0
    """
    options = _RankingOptions(exclude_self, metric, similarity, devices, method)
    reduce = functools.partial(_average_precision, k, divisor)
    values = _per_query("mean_average_precision", reduce, queries, gallery, query_labels, gallery_labels, options)
    return summarize(values, without_relevant)["map"]


@functools.cache
def _average_precision(k: int | None, divisor: str, most: int) -> Callable[[Ranking], dict[str, Array]]:
    return lambda r: {"ap": average_precision(r, k, divisor), "relevant": relevant_items(r)}


@names_backend
def precision_recall_curve(
    queries: Any,
    gallery: Any,
    query_labels: Any,
    gallery_labels: Any,
    levels: int = 101,
    *,
    without_relevant: str = "zero",
    exclude_self: bool = False,
    metric: str = "cosine",
    similarity: str = "float32",
    devices: Sequence[Any] | None = None,
    method: str = "auto",
) -> np.ndarray:
    """Mean interpolated precision at recall 0, …, 1 in equal steps: float64 [levels].

    Arguments and errors as in `mean_average_precision`.
    """
    options = _RankingOptions(exclude_self, metric, similarity, devices, method)
    reduce = functools.partial(_curve, levels)
    values = _per_query("precision_recall_curve", reduce, queries, gallery, query_labels, gallery_labels, options)
    return np.array(summarize(values, without_relevant)["curve"])


@functools.cache
def _curve(levels: int, most: int) -> Callable[[Ranking], dict[str, Array]]:
    return lambda r: {"curve": interpolated_precision(r, levels), "relevant": relevant_items(r)}


class _RankingOptions(NamedTuple):
    """Keyword arguments of `map_rankings`."""

    exclude_self: bool
    metric: str
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
    options: _RankingOptions,
) -> dict[str, np.ndarray]:
    """Check the arguments of the public function `name`, and reduce the ranking of every query.

    `reduce` takes an upper bound on the gains, and returns the function for `map_rankings`.
    """
    queries, gallery = host_array(name, "queries", queries), host_array(name, "gallery", gallery)
    query_labels = host_array(name, "labels of the queries", query_labels)
    gallery_labels = host_array(name, "labels of the gallery", gallery_labels)
    *arrays, most = checked_arguments(
        name, queries, gallery, query_labels, gallery_labels, options.similarity, options.exclude_self
    )
    values = map_rankings(reduce(most), *arrays, **options._asdict())
    return {name: x.astype(np.int64 if name == "relevant" else np.float64) for name, x in values.items()}


@names_backend
def cross_modal_map(
    embeddings: Mapping[str, Any], labels: Mapping[str, Any], metric: str = "cosine"
) -> dict[str, float]:
    """mAP of every ordered pair of different modalities.

    Args:
        embeddings: modality -> [N, L].
        labels: modality -> integers [N], or multi-hot [N, K].
        metric: "cosine", "dot" or "hamming".

    Returns:
        `{"a->b": mAP}` for queries from a and gallery b, m(m-1) entries.
    """
    return {
        f"{a}->{b}": mean_average_precision(embeddings[a], embeddings[b], labels[a], labels[b], metric=metric)
        for a, b in _pairs(embeddings)
    }


def cross_modal_chance(labels: Mapping[str, Any]) -> dict[str, float]:
    """Chance level of every ordered pair of different modalities: `{"a->b": chance_map}`."""
    return {f"{a}->{b}": chance_map(labels[a], labels[b]) for a, b in _pairs(labels)}


def chance_map(query_labels: Any, gallery_labels: Any) -> float:
    """Chance level: the expected mAP (over the full ranking) of a uniformly random order of the gallery.

    A query without a relevant item counts as 0, as in `mean_average_precision`.

    Args:
        query_labels: integers [Q], or multi-hot [Q, K].
        gallery_labels: integers [G] or multi-hot [G, K], likewise.

    Returns:
        The mean over the queries of `expected_average_precision`, in [0, 1].

    Example:
        >>> round(chance_map([0, 0, 1], [0, 0, 1]), 4)  # (29 / 36 + 29 / 36 + 22 / 36) / 3
        0.7407
    """
    query_labels, gallery_labels = (np.asarray(from_tensor(x)) for x in (query_labels, gallery_labels))
    if query_labels.ndim == 2:
        rows, queries = np.unique(query_labels, axis=0, return_counts=True)
        other = (gallery_labels != 0).astype(np.float32).T
        relevant = [np.count_nonzero((row != 0).astype(np.float32) @ other > 0) for row in rows]
    else:
        rows, queries = np.unique(query_labels, return_counts=True)
        size = dict(zip(*(x.tolist() for x in np.unique(gallery_labels, return_counts=True)), strict=True))
        relevant = [size.get(label, 0) for label in rows.tolist()]
    return float(np.average(expected_average_precision(relevant, len(gallery_labels)), weights=queries))


def expected_average_precision(relevant: Any, size: int) -> np.ndarray:
    r"""Expected average precision of a query when the gallery is in a uniformly random order.

    An item at rank i is relevant with probability R / n; given that, each of the i - 1 items before it is relevant with
    probability (R - 1) / (n - 1). The sum over the ranks of P(i) hit_i, divided by R, therefore has the mean

    $$\frac{1}{n} \sum_{i=1}^n \frac{1}{i} \left(1 + (i - 1) \frac{R - 1}{n - 1}\right)
    = \frac{1}{n} \left(H_n + \frac{R - 1}{n - 1} (n - H_n)\right), \quad H_n = \sum_{i=1}^n \frac{1}{i}.$$

    It exceeds the share R / n of relevant items, most of all in small galleries.

    Args:
        relevant: R, relevant items of each query, integers [Q] in [0, n].
        size: n, items of the gallery.

    Returns:
        float64 [Q]; 0 for a query without a relevant item.

    Example:
        >>> expected_average_precision([1, 2], 2).tolist()  # one of two items: 1 or 1/2
        [0.75, 1.0]
    """
    relevant = np.asarray(relevant, np.float64)
    harmonic = (1.0 / np.arange(size, 0, -1)).sum()  # smallest first: exact to an ulp or two
    mean = (harmonic + (relevant - 1) / max(size - 1, 1) * (size - harmonic)) / max(size, 1)
    return np.where(relevant > 0, mean, 0.0)


def _pairs(names: Iterable[str]) -> list[tuple[str, str]]:
    names = list(names)
    if unclear := next((name for name in names if "->" in name), None):
        raise InputError(f"modality {unclear!r}: a name must not hold '->', which names directions; rename it")
    return [(a, b) for a in names for b in names if a != b]


def _counted(relevant: np.ndarray, without_relevant: str) -> np.ndarray:
    if without_relevant not in ("zero", "skip"):
        raise ValueError(f"without_relevant {without_relevant!r}: choose zero or skip")
    return np.ones(len(relevant), bool) if without_relevant == "zero" else relevant > 0
