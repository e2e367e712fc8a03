"""What queries retrieve: the first results, the classes among them, and queries to show.

Shape letters: Q queries, k results, K classes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mrl_jax.eval.embedded import Embedded
from mrl_jax.eval.scores import Direction, directions
from mrl_jax.retrieval.measure import precision_recall_curve
from mrl_jax.search.exact import top_k

__all__ = ["TOP", "Retrieved", "class_map", "confusion", "curves", "example_queries", "hardest", "retrieve"]

TOP = 10
"""Results of each query that the confusion counts."""


class Retrieved(NamedTuple):
    """The first results of every query of a direction.

    Attributes:
        query: modality of the queries.
        gallery: modality of the results.
        rows: place of each result among the samples of its modality, best first, integers [Q, k].
        scores: their similarities, float [Q, k].
        query_labels: integers [Q].
        labels: labels of the results, integers [Q, k].
    """

    query: str
    gallery: str
    rows: np.ndarray
    scores: np.ndarray
    query_labels: np.ndarray
    labels: np.ndarray


def retrieve(embedded: Embedded, metric: str, k: int = TOP) -> dict[str, Retrieved]:
    """Direction -> the first k results of every query, fewer where the gallery is smaller."""
    assert embedded.labels is not None
    found = {}
    for name, direction in directions(embedded, ("cross",)).items():
        query, gallery = direction.query, direction.gallery[0]
        z = embedded.embeddings
        scores, rows = top_k(z[query], z[gallery], min(k, len(z[gallery])), metric=metric)
        own, labels = embedded.labels[query], embedded.labels[gallery][rows]
        found[name] = Retrieved(query, gallery, rows, scores, own, labels)
    return found


def confusion(query_labels: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Shares of the classes among the results of the queries of each class: float [K, K], rows sum to 1.

    Args:
        query_labels: integers [Q].
        labels: labels of the results, integers [Q, k].
        classes: K.

    Returns:
        Row a, column b: the share of class b among the results of queries of class a; NaN in a row without queries.

    Example:
        >>> confusion(np.array([0, 0, 1]), np.array([[0, 1], [0, 0], [0, 1]]), 2).tolist()
        [[0.75, 0.25], [0.5, 0.5]]
    """
    counts = np.zeros((classes, classes))
    np.add.at(counts, (np.repeat(query_labels, labels.shape[1]), labels.ravel()), 1.0)
    total = counts.sum(axis=1, keepdims=True)
    return np.divide(counts, total, out=np.full_like(counts, np.nan), where=total > 0)


def class_map(ap: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """The mean average precision of the queries of each class, float [K]; NaN for a class without queries.

    Example:
        >>> class_map(np.array([1.0, 0.5, 0.25]), np.array([0, 0, 2]), 3).tolist()
        [0.75, nan, 0.25]
    """
    counts = np.bincount(labels, minlength=classes)
    sums = np.bincount(labels, weights=np.asarray(ap, np.float64), minlength=classes)
    return np.divide(sums, counts, out=np.full(classes, np.nan), where=counts > 0)


def hardest(by_class: np.ndarray, most: int) -> list[int]:
    """At most so many classes with queries, in order of their numbers; of more, those with the lowest mean mAP.

    Args:
        by_class: mAP of each class and direction, float [directions, K].
        most: upper bound.
    """
    known = ~np.isnan(by_class)
    means = np.where(known, by_class, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    with_queries = np.flatnonzero(known.any(axis=0))
    chosen = with_queries[np.argsort(means[with_queries], kind="stable")][:most]
    return sorted(chosen.tolist())


def curves(embedded: Embedded, metric: str) -> dict[str, np.ndarray]:
    """Direction -> mean interpolated precision at 101 levels of recall."""
    assert embedded.labels is not None
    z, y = embedded.embeddings, embedded.labels

    def of(d: Direction) -> np.ndarray:
        return precision_recall_curve(z[d.query], z[d.gallery[0]], y[d.query], y[d.gallery[0]], metric=metric)

    return {name: of(d) for name, d in directions(embedded, ("cross",)).items()}


def example_queries(ap: np.ndarray, labels: np.ndarray, count: int) -> list[int]:
    """Queries from bad to good: evenly spaced by average precision, of different classes as far as there are some.

    Args:
        ap: average precision of each query [Q].
        labels: integers [Q].
        count: number of queries, at most Q.
    """
    order = np.argsort(ap, kind="stable")
    places = np.linspace(0.05, 0.95, count) * (len(order) - 1) if count > 1 else [(len(order) - 1) / 2]
    chosen: list[int] = []
    seen: set[int] = set()
    for place in np.rint(places).astype(int).tolist():
        near = sorted(range(len(order)), key=lambda i: abs(i - place))[: max(len(order) // max(count, 1), 1)]
        free = [int(order[i]) for i in near if int(order[i]) not in chosen]
        fresh = [q for q in free if int(labels[q]) not in seen]
        if pick := (fresh or free)[:1]:
            chosen += pick
            seen.add(int(labels[pick[0]]))
    return chosen


def confused_pairs(shares: np.ndarray, most: int) -> list[tuple[int, int, float]]:
    """The classes that are most often retrieved in place of others: (class of the query, retrieved class, share)."""
    off = np.where(np.isnan(shares), 0.0, shares)
    np.fill_diagonal(off, 0.0)
    order: Sequence[int] = np.argsort(-off, axis=None, kind="stable")[:most].tolist()
    pairs = (divmod(i, off.shape[1]) for i in order)
    return [(a, b, float(off[a, b])) for a, b in pairs if off[a, b] > 0]
