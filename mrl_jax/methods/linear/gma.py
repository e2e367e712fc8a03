r"""Generalized multiview analysis, in its form with linear discriminant analysis (GMLDA).

Every modality separates the classes of its own given labels; the class means of all modalities come close to each
other.

Shape letters: M modalities, R principal components, L embedding, K classes.
"""

import functools
from typing import Any

import numpy as np
import scipy.linalg

from mrl_jax.methods.base import Method, MethodEntry
from mrl_jax.methods.linear.method import ENERGY, RIDGE, Hyperparameters, hyperparameters, linear_method, ridged, top
from mrl_jax.methods.linear.views import principal_views
from mrl_jax.methods.state import Shapes, TrainData
from mrl_jax.options import Number

__all__ = ["ENTRY", "gma"]

_REMEDY = "try a larger ridge, --method-options ridge=R"


def _solve(
    h: Hyperparameters, data: TrainData, shapes: Shapes, shared: dict[str, Any], size: int
) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """Between- against within-class scatter of every modality, joined by the products of their class means."""
    views = principal_views(data, shapes, shared, energy=h["energy"], paired=False, cross=False)
    counts, sums = views.class_sums()
    several = range(len(sums))
    means = [x / np.maximum(n, 1)[:, None] for x, n in zip(sums, counts, strict=True)]  # of centred views
    between = [mean.T @ x for mean, x in zip(means, sums, strict=True)]
    within = [ridged(views.scatter(i, i) - between[i], h["ridge"]) for i in several]
    balance = [np.trace(within[0]) / np.trace(x) for x in within]
    # Class means count by the number of samples in either modality, as in the scatters, so that the weight of the
    # alignment has no unit: it depends neither on N nor on K. The weight 10 of the paper, for plain means, is 10 K / N.
    weighted = [np.sqrt(n)[:, None] * mean for n, mean in zip(counts, means, strict=True)]
    joined = np.block(
        [[between[i] if i == j else h["alignment"] * weighted[i].T @ weighted[j] for j in several] for i in several]
    )
    values, directions = top(
        joined, scipy.linalg.block_diag(*(g * x for g, x in zip(balance, within, strict=True))), size, _REMEDY
    )
    return views.offsets, views.split(directions), values


@functools.cache
def gma() -> Method:
    """GMLDA of two modalities or more."""
    return linear_method("method gma", _solve, lambda shapes: min(shapes.classes - 1, sum(shapes.dims)))


ENTRY = MethodEntry(
    name="gma",
    summary="Linear discriminant analysis of every modality, joined by class means that come close to each other, in "
    "closed form (GMLDA). The between-class scatters of all modalities have one weight, and their "
    "within-class scatters are scaled to one trace.",
    source="Sharma et al., Generalized Multiview Analysis: A Discriminative Latent Space, CVPR 2012",
    equation=r"\max_W \sum_i \operatorname{tr}(W_i^\top S_B^i W_i) "
    r"+ \lambda \sum_{i \neq j} \operatorname{tr}(W_i^\top Z_i Z_j^\top W_j), \quad "
    r"\sum_i \gamma_i W_i^\top S_W^i W_i = I",
    cost="one eigenvalue problem of the size of all principal components together",
    method=lambda config: gma(),
    hyperparameters=hyperparameters,
    describe=lambda config: (
        f"method: gma, ridge {config.method_numbers['ridge']:g}, alignment {config.method_numbers['alignment']:g}, "
        f"seed {config.seed}"
    ),
    title=lambda config: f"method gma, alignment {config.method_numbers['alignment']:g}",
    numbers={
        "ridge": RIDGE,
        "energy": ENERGY,
        "alignment": Number(
            10.0, 0.0, float("inf"), "weight λ of the products of class means, each times the root of its count"
        ),
    },
    uses=frozenset({"embed_dim"}),
    remedy=_REMEDY,
)
"""What the registry knows of the method `gma`."""
