"""Programs that score the same embeddings in `retrieval_timings.py`: mrl_jax and other libraries."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

__all__ = ["CLASSES", "DIMENSIONS", "LABELS", "PROGRAMS", "Data", "block_rows", "embeddings", "ours", "sampled"]

DIMENSIONS, CLASSES, SPREAD = 512, 10, 4.0  # noise of length 4 around unit centres: mAP about 0.4


class Data(NamedTuple):
    """Embeddings float32 [Q, L] and [G, L], labels [Q] and [G]."""

    queries: np.ndarray
    gallery: np.ndarray
    query_labels: np.ndarray
    gallery_labels: np.ndarray

    def first(self, n: int) -> "Data":
        """The first n queries against the whole gallery."""
        return self._replace(queries=self.queries[:n], query_labels=self.query_labels[:n])


def embeddings(q: int, g: int, kind: str, seed: int = 0) -> Data:
    """Rows around the centre of their class ("clustered"), or in random directions ("random")."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((CLASSES, DIMENSIONS), np.float32)
    centres *= np.float32(kind == "clustered") / np.linalg.norm(centres, axis=1, keepdims=True)
    labels = [np.arange(n) % CLASSES for n in (q, g)]
    rows = [rng.standard_normal((n, DIMENSIONS), np.float32) for n in (q, g)]
    for x, y in zip(rows, labels, strict=True):
        x *= np.float32(SPREAD / DIMENSIONS**0.5)
        for start in range(0, len(x), 10_000):
            x[start : start + 10_000] += centres[y[start : start + 10_000]]
    return Data(*rows, *labels)


# Each program prepares (untimed) and returns a function (timed) that returns the mAP of the queries.


def ours(data: Data, method: str = "auto") -> Callable[[], float]:
    """mAP by mrl_jax."""
    from mrl_jax.retrieval.measure import mean_average_precision

    return lambda: mean_average_precision(*data, method=method)


def ours_all_metrics(data: Data) -> Callable[[], float]:
    """All metrics of all queries by mrl_jax."""
    from mrl_jax.retrieval.measure import retrieval_metrics

    return lambda: float(retrieval_metrics(*data)["ap"].mean())


def block_rows(data: Data) -> int:
    """Number of queries in a block of at most 64 MiB, at least 128."""
    from mrl_jax.retrieval import on_host, ranking

    return min(len(data.queries), max(on_host._MIN_ROWS, ranking._BLOCK_SCORES // len(data.gallery)))


def product(data: Data) -> Callable[[], float]:
    """Similarities alone, in the blocks of mrl_jax; each block is discarded."""
    import jax
    import jax.numpy as jnp

    dot = jax.jit(lambda a, b: jnp.dot(a, b.T, precision="highest"))
    block, gallery = block_rows(data), jnp.asarray(data.gallery)
    queries = jnp.asarray(np.pad(data.queries, ((0, -len(data.queries) % block), (0, 0))))

    def run() -> float:
        for start in range(0, len(queries), block):
            dot(queries[start : start + block], gallery).block_until_ready()
        return float("nan")

    return run


def product_numpy(data: Data) -> Callable[[], float]:
    """Similarities alone by NumPy, into one buffer."""
    block = block_rows(data)
    buffer = np.empty((block, len(data.gallery)), np.float32)

    def run() -> float:
        for start in range(0, len(data.queries), block):
            rows = data.queries[start : start + block]
            np.matmul(rows, data.gallery.T, out=buffer[: len(rows)])
        return float("nan")

    return run


def official_loop(data: Data) -> Callable[[], float]:
    """As in the official implementation: SciPy distances, a sort per query, a Python loop over its ranks."""
    from scipy.spatial.distance import cdist

    queries, gallery = (x.astype(np.float64) for x in data[:2])

    def run() -> float:
        order, precisions = cdist(queries, gallery, "cosine").argsort(), []
        for i, label in enumerate(data.query_labels):
            hits, total = 0, 0.0
            for rank, item in enumerate(order[i], start=1):
                if data.gallery_labels[item] == label:
                    hits += 1
                    total += hits / rank
            precisions.append(total / hits if hits else 0.0)
        return float(np.mean(precisions))

    return run


def similarities(data: Data) -> Any:
    """Label and similarities (float32) of one query after another; computed in blocks."""
    block = block_rows(data)
    for start in range(0, len(data.queries), block):
        scores = data.queries[start : start + block] @ data.gallery.T
        yield from zip(data.query_labels[start : start + block], scores, strict=True)


def numpy_vectorised(data: Data) -> Callable[[], float]:
    """The usual NumPy code: an argsort and a division per query."""

    def run() -> float:
        precisions = []
        for label, scores in similarities(data):
            ranks = np.flatnonzero(data.gallery_labels[np.argsort(-scores, kind="stable")] == label) + 1
            precisions.append((np.arange(1, len(ranks) + 1) / ranks).mean())
        return float(np.mean(precisions))

    return run


def scikit_learn(data: Data) -> Callable[[], float]:
    """`average_precision_score` per query."""
    from sklearn.metrics import average_precision_score as score

    return lambda: float(np.mean([score(data.gallery_labels == label, s) for label, s in similarities(data)]))


def torchmetrics_map(data: Data) -> Callable[[], float]:
    """`RetrievalMAP` over all pairs; scores are made positive, since it ignores relevant items with other scores."""
    import torch
    from torchmetrics.retrieval import RetrievalMAP

    queries, gallery, labels, others = (torch.from_numpy(x) for x in data)

    def run() -> float:
        scores = ((1 + queries @ gallery.T) / 2).ravel()
        index = torch.arange(len(queries)).repeat_interleave(len(gallery))
        measure = RetrievalMAP()
        measure.update(scores, (labels[:, None] == others).ravel(), index)
        return float(measure.compute())

    return run


def ranx_arrays(data: Data) -> Callable[[], float]:
    """ranx by its fastest interface: arrays of rankings sorted by NumPy."""
    import ranx
    from numba.typed import List

    def run() -> float:
        qrels, rankings = List(), List()
        for label, scores in similarities(data):
            order = np.argsort(-scores, kind="stable")
            rankings.append(np.stack([order.astype(np.float64), scores[order]], axis=1))
            relevant = np.flatnonzero(data.gallery_labels == label)
            qrels.append(np.stack([relevant, np.ones_like(relevant)], axis=1).astype(np.float64))
        return float(ranx.evaluate(qrels, rankings, "map"))

    return run


def named(data: Data) -> tuple[dict[str, dict[str, int]], dict[str, dict[str, float]]]:
    """Relevance judgements and scores: name of the query -> name of the item -> value."""
    names, qrels, run = [str(j) for j in range(len(data.gallery))], {}, {}
    for i, (label, scores) in enumerate(similarities(data)):
        qrels[str(i)] = dict.fromkeys((names[j] for j in np.flatnonzero(data.gallery_labels == label)), 1)
        run[str(i)] = dict(zip(names, scores.tolist(), strict=True))
    return qrels, run


def ranx_dictionaries(data: Data) -> Callable[[], float]:
    """ranx by its documented interface."""
    import ranx

    def run() -> float:
        qrels, rankings = named(data)
        return float(ranx.evaluate(ranx.Qrels(qrels), ranx.Run(rankings), "map"))

    return run


def pytrec_alone(data: Data) -> Callable[[], float]:
    """pytrec_eval without similarities and dictionaries, which are made before."""
    import pytrec_eval

    qrels, run = named(data)
    evaluator = pytrec_eval.RelevanceEvaluator(qrels, {"map"})
    return lambda: float(np.mean([row["map"] for row in evaluator.evaluate(run).values()]))


# Name -> program, and an upper bound on the similarities that it scores in a turn (None: all of them). Names are keys
# of the file of results.
PROGRAMS: dict[str, tuple[Callable[[Data], Callable[[], float]], float | None]] = {
    "ours": (ours, None),
    "product, JAX": (product, None),
    "product, NumPy": (product_numpy, None),
    "ours, all metrics": (ours_all_metrics, None),
    "ours, without numba": (partial(ours, method="numpy"), 2e8),
    "ours, XLA sort": (partial(ours, method="xla"), 1e7),
    "NumPy": (numpy_vectorised, 1e7),
    "authors' loop": (official_loop, 5e6),
    "scikit-learn": (scikit_learn, 5e6),
    "torchmetrics": (torchmetrics_map, 5e6),
    "ranx": (ranx_dictionaries, 1e6),
    "ranx, from sorted arrays": (ranx_arrays, 2e6),
    "pytrec_eval": (lambda data: lambda: pytrec_alone(data)(), 2e6),
    "pytrec_eval, evaluation alone": (pytrec_alone, 2e6),
}


LABELS = {"authors' loop": "official implementation's loop"}
"""Name -> title in tables, where they differ."""


def sampled(name: str, data: Data) -> Data:
    """The queries that a program scores: all, or a sample of at least 24 for slow programs.

    mrl_jax gets rows of any length, other programs get rows of unit length.
    """
    if (bound := PROGRAMS[name][1]) is not None:
        data = data.first(min(len(data.queries), max(24, int(bound / len(data.gallery)))))
    if name.startswith("ours"):
        return data
    unit = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in data[:2])
    return Data(*unit, *data[2:])
