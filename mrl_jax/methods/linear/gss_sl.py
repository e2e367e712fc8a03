r"""GSS-SL: linear maps onto a common space of labels, with a graph of neighbours and row-sparse maps.

A reconstruction: the paper's text was not at hand, so this follows its published objective. Labels that modalities give
to one instance are averaged.

Shape letters: M modalities, N training instances, D features, K classes.
"""

import functools
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse
import scipy.sparse.linalg
from sklearn.neighbors import kneighbors_graph

from mrl_jax.methods.base import Method, MethodEntry
from mrl_jax.methods.linear.method import Hyperparameters, hyperparameters, linear_method
from mrl_jax.methods.linear.views import Views, principal_views
from mrl_jax.methods.state import Shapes, TrainData
from mrl_jax.options import Number

__all__ = ["ENTRY", "gss_sl"]

_STEPS = 50  # alternations, at most
_CHANGE = 1e-4  # relative change of F at which they end
_SMALL = 1e-8  # of the norm of a row of V, whose square root is then smooth


def _solve(
    h: Hyperparameters, data: TrainData, shapes: Shapes, shared: dict[str, Any], size: int
) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    views = principal_views(data, shapes, shared, energy=None, paired=False, cross=False)
    targets = _targets(data, shapes, views)
    maps, _ = alternate(h, views, targets, _laplacian(views, int(h["neighbours"])))
    return views.offsets, [v[:, :size] for v in maps], np.linalg.norm(np.concatenate(maps), axis=0)[:size]


def _targets(data: TrainData, shapes: Shapes, views: Views) -> np.ndarray:
    """Mean over modalities of the one-hot given labels, [N, K]; a missing sample gives none."""
    total = np.zeros((data.labels.shape[1], shapes.classes))
    for labels, on in zip(np.asarray(data.labels), views.rows, strict=True):
        total[on, labels[on]] += 1.0
    return total / np.maximum(total.sum(axis=1, keepdims=True), 1.0)


def _laplacian(views: Views, neighbours: int) -> Any:
    """Sum over modalities of the Laplacians of the graphs of nearest neighbours, sparse [N, N]."""
    count = views.rows.shape[1]
    weights = scipy.sparse.csr_array((count, count))
    features: list[list[np.ndarray]] = [[] for _ in views.bases]
    for _, block in views.blocks():
        for own, x in zip(features, block, strict=True):
            own.append(x.astype(np.float32))
    for own, on in zip(features, views.rows, strict=True):
        rows = np.flatnonzero(on)
        near = kneighbors_graph(np.concatenate(own)[rows], min(neighbours, len(rows) - 1)).tocoo()
        graph = scipy.sparse.csr_array((near.data, (rows[near.row], rows[near.col])), shape=(count, count))
        weights = weights + graph.maximum(graph.T)
    return scipy.sparse.diags_array(np.asarray(weights.sum(axis=1))) - weights


def alternate(
    h: Hyperparameters, views: Views, targets: np.ndarray, laplacian: Any
) -> tuple[list[np.ndarray], np.ndarray]:
    """Maps V [D, K] of all modalities and the common labels F [N, K], found in turn until F stays.

    A step for V is that of an upper bound of the norm of its rows, so that no step raises the objective.
    """
    grams = [views.scatter(i, i) for i in range(len(views.bases))]
    # Maps shrink as features grow: in this unit the weight depends neither on their size nor on the number of samples.
    scale = [
        h["sparsity"] * np.sqrt(np.trace(gram) / len(gram) * n) for gram, n in zip(grams, views.count, strict=True)
    ]
    common, weights = targets, [np.ones(len(gram)) for gram in grams]
    diagonal = scipy.sparse.diags_array(views.rows.sum(axis=0) + h["label"])
    system = (diagonal + h["graph"] * laplacian).tocsr()
    for _ in range(_STEPS):
        cross = [np.zeros((len(gram), common.shape[1])) for gram in grams]
        for block, xs in views.blocks():
            for total, x in zip(cross, xs, strict=True):
                total += x.T @ common[block]
        maps = [
            scipy.linalg.solve(gram + np.diag(s * w + _SMALL * np.trace(gram) / len(gram)), total, assume_a="pos")
            for gram, s, w, total in zip(grams, scale, weights, cross, strict=True)
        ]
        weights = [0.5 / np.sqrt((v**2).sum(axis=1) + _SMALL) for v in maps]
        right = h["label"] * targets
        for block, xs in views.blocks():
            right[block] += sum(x @ v for x, v in zip(xs, maps, strict=True))
        before = common
        common = np.stack(
            [
                scipy.sparse.linalg.cg(system, column, x0=start, rtol=1e-8)[0]
                for column, start in zip(right.T, before.T, strict=True)
            ],
            axis=1,
        )
        if np.linalg.norm(common - before) <= _CHANGE * np.linalg.norm(before):
            break
    return maps, common


@functools.cache
def gss_sl() -> Method:
    """GSS-SL of two modalities or more."""
    return linear_method("method gss-sl", _solve, lambda shapes: shapes.classes)


ENTRY = MethodEntry(
    name="gss-sl",
    summary="Linear maps of all modalities onto common labels F, which stay close to the given labels Y and smooth on "
    "the graphs of nearest neighbours; rows of the maps are sparse. A reconstruction from the published objective: the "
    "text of its paper was not at hand.",
    source="Zhang et al., Generalized Semi-Supervised and Structured Subspace Learning for Cross-Modal Retrieval, IEEE "
    "Transactions on Multimedia 2018",
    equation=r"\min_{F, V} \sum_i \lVert X_i V_i - F \rVert^2 + b \operatorname{tr}(F^\top L F) "
    r"+ m \lVert F - Y \rVert^2 + \lambda \sum_i \lVert V_i \rVert_{2, 1}",
    cost="a graph of neighbours, by similarities of all instances in blocks; then least-squares problems in turn",
    method=lambda config: gss_sl(),
    hyperparameters=hyperparameters,
    describe=lambda config: (
        f"method: gss-sl, graph {config.method_numbers['graph']:g}, label {config.method_numbers['label']:g}, "
        f"sparsity {config.method_numbers['sparsity']:g}, seed {config.seed}"
    ),
    title=lambda config: f"method gss-sl, sparsity {config.method_numbers['sparsity']:g}",
    numbers={
        "graph": Number(0.01, 0.0, float("inf"), "weight b of the graph"),
        "label": Number(1.0, 1e-6, float("inf"), "weight m of the given labels"),
        "sparsity": Number(
            1e-3, 0.0, float("inf"), "weight of sparse rows, in units of N times the size of the features"
        ),
        "neighbours": Number(10, 1, 1000, "number of neighbours in the graph of a modality", True),
    },
    uses=frozenset({"embed_dim"}),
    remedy="try a larger sparsity, --method-options sparsity=W",
)
"""What the registry knows of the method `gss-sl`."""
