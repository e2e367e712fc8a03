r"""Multi-view discriminant analysis (MvDA), and with view consistency (MvDA-VC).

One discriminant analysis over the samples of all modalities in the common space: a class gathers them all. Samples need
no partners; those of a missing one simply do not count.

Shape letters: M modalities, R principal components, L embedding, K classes.
"""

import functools
from typing import Any

import numpy as np
import scipy.linalg

from mrl_jax.methods.base import Method, MethodEntry
from mrl_jax.methods.linear.method import ENERGY, RIDGE, Hyperparameters, hyperparameters, linear_method, ridged, top
from mrl_jax.methods.linear.views import Views, principal_views
from mrl_jax.methods.state import Shapes, TrainData
from mrl_jax.options import Number

__all__ = ["MVDA", "MVDA_VC", "mvda", "mvda_vc"]

_REMEDY = "try a larger ridge, --method-options ridge=R"
_Solution = tuple[list[np.ndarray], list[np.ndarray], np.ndarray]


def _solve(h: Hyperparameters, data: TrainData, shapes: Shapes, shared: dict[str, Any], size: int) -> _Solution:
    views = principal_views(data, shapes, shared, energy=h["energy"], paired=False, cross=False)
    return _discriminant(h, views, size)


def _solve_consistent(
    h: Hyperparameters, data: TrainData, shapes: Shapes, shared: dict[str, Any], size: int
) -> _Solution:
    views = principal_views(data, shapes, shared, energy=h["energy"], paired=True)
    return _discriminant(h, views, size, h["consistency"])


def _discriminant(h: Hyperparameters, views: Views, size: int, consistency: float = 0.0) -> _Solution:
    r"""Between- against within-class scatter of all samples (Kan et al. 2012, eq. 7 to 11).

    The blocks are $\sum_k n_{jk} n_{rk} / n_k \, \mu_{jk} \mu_{rk}^\top$ of modalities j and r.
    """
    counts, sums = views.class_sums()
    several, of_class = range(len(sums)), np.maximum(counts.sum(axis=0), 1)
    total = counts.sum()
    common = np.block([[(sums[j] / of_class[:, None]).T @ sums[r] for r in several] for j in several])
    whole = np.concatenate([x.sum(axis=0) for x in sums])
    between = common - np.outer(whole, whole) / total
    scatters = scipy.linalg.block_diag(*(ridged(views.scatter(j, j), h["ridge"]) for j in several))
    within = scatters - common
    if consistency:
        penalty = _consistency(h, views)
        within = within + consistency * np.trace(within) / np.trace(penalty) * penalty  # units of the scatter
    values, directions = top(between, within, size, _REMEDY)
    return views.offsets, views.split(directions), values


def _consistency(h: Hyperparameters, views: Views) -> np.ndarray:
    r"""The penalty on directions that are not the same combination of instances (Kan et al. 2016, eq. 13 to 16).

    With $P_j = X_j (X_j^\top X_j + \epsilon I)^{-1}$, which gives the combination $\beta_j = P_j w_j$, it is
    $\sum_{j, r} \lVert \beta_j - \beta_r \rVert^2$ over all ordered pairs.
    """
    several = range(len(views.bases))
    inverse = [scipy.linalg.inv(ridged(views.scatter(j, j), h["ridge"])) for j in several]
    blocks = [[-2.0 * inverse[j] @ views.scatter(j, r) @ inverse[r] for r in several] for j in several]
    for j in several:
        blocks[j][j] *= 1 - len(several)  # 2 (M - 1) of its own
    return np.block(blocks)


def _size(shapes: Shapes) -> int:
    return min(shapes.classes - 1, sum(shapes.dims))


@functools.cache
def mvda() -> Method:
    """MvDA of two modalities or more."""
    return linear_method("method mvda", _solve, _size)


@functools.cache
def mvda_vc() -> Method:
    """MvDA-VC of two modalities or more."""
    return linear_method("method mvda-vc", _solve_consistent, _size)


MVDA = MethodEntry(
    name="mvda",
    summary="One linear discriminant analysis of the samples of all modalities in the common space, in closed form. "
    "S_B and S_W are the scatters between and within the classes of all samples.",
    source="Kan et al., Multi-View Discriminant Analysis, ECCV 2012",
    equation=r"\max_W \operatorname{tr}\left( (W^\top S_W W)^{-1} W^\top S_B W \right)",
    cost="one eigenvalue problem of the size of all principal components together",
    method=lambda config: mvda(),
    hyperparameters=hyperparameters,
    describe=lambda config: f"method: mvda, ridge {config.method_numbers['ridge']:g}, seed {config.seed}",
    title=lambda config: f"method mvda, ridge {config.method_numbers['ridge']:g}",
    numbers={"ridge": RIDGE, "energy": ENERGY},
    uses=frozenset({"embed_dim"}),
    remedy=_REMEDY,
)
"""What the registry knows of the method `mvda`."""

MVDA_VC = MVDA._replace(
    name="mvda-vc",
    summary="mvda with view consistency: the directions of all modalities should be the same combination of instances "
    "(S_VC). Instances of which a sample is missing are left out.",
    source="Kan et al., Multi-View Discriminant Analysis, IEEE Transactions on Pattern Analysis and Machine "
    "Intelligence 2016",
    equation=r"\max_W \operatorname{tr}\left( (W^\top (S_W + \alpha S_{VC}) W)^{-1} W^\top S_B W \right)",
    cost="as mvda, and a linear system per modality",
    method=lambda config: mvda_vc(),
    describe=lambda config: (
        f"method: mvda-vc, ridge {config.method_numbers['ridge']:g}, "
        f"consistency {config.method_numbers['consistency']:g}, seed {config.seed}"
    ),
    title=lambda config: f"method mvda-vc, consistency {config.method_numbers['consistency']:g}",
    numbers={
        "ridge": RIDGE,
        "energy": ENERGY,
        "consistency": Number(
            1.0,
            0.0,
            float("inf"),
            "weight of the penalty on views that do not agree, in units of the scatter",
        ),
    },
)
"""What the registry knows of the method `mvda-vc`."""
