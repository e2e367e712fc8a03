r"""Canonical correlation analysis, of two modalities (Hotelling, 1936) and of several (MCCA).

Closed forms and unsupervised: labels, right or wrong, change nothing.

Shape letters: D features, L embedding.
"""

import functools
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
from jax import Array

from mrl_jax.methods.base import Method, MethodEntry
from mrl_jax.methods.linear.method import (
    ENERGY,
    RIDGE,
    Hyperparameters,
    Projection,
    hyperparameters,
    linear_method,
    ridged,
    top,
)
from mrl_jax.methods.linear.views import principal_views
from mrl_jax.methods.state import Shapes, TrainData

__all__ = ["CCA", "MCCA", "Weights", "cca", "mcca"]

_REMEDY = "try a larger ridge, --method-options ridge=R"


class Weights(NamedTuple):
    """The trained model.

    Attributes:
        encoders: one projection per modality.
        correlations: canonical correlations, descending, [L].
    """

    encoders: tuple[Projection, ...]
    correlations: Array


def _solve(
    h: Hyperparameters, data: TrainData, shapes: Shapes, shared: dict[str, Any], size: int
) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """Directions whose projections have unit variance and correlate most, in sum over all pairs of modalities."""
    views = principal_views(data, shapes, shared, energy=h["energy"], paired=True)
    several, count = range(len(shapes.dims)), max(int(views.count[0]), 1)
    zeros = [np.zeros((base.shape[1],) * 2) for base in views.bases]
    across = np.block([[zeros[i] if i == j else views.scatter(i, j) for j in several] for i in several])
    within = scipy.linalg.block_diag(*(ridged(views.scatter(i, i), h["ridge"]) for i in several))
    fewest = min(len(zero) for zero in zeros)
    values, directions = top(across, within, min(size, fewest), _REMEDY)
    scale = np.sqrt(len(several) * count)  # v^T B v = 1 is shared by all modalities; B is a sum over the instances
    return views.offsets, views.split(directions * scale), values / (len(several) - 1)


def _narrowest(shapes: Shapes) -> int:
    return min(shapes.dims)


@functools.cache
def cca() -> Method:
    """CCA between two modalities."""
    needs = frozenset({"two modalities"})
    return linear_method("method cca", _solve, _narrowest, needs, weights=Weights)


@functools.cache
def mcca() -> Method:
    """CCA of two modalities or more."""
    return linear_method("method mcca", _solve, _narrowest, weights=Weights)


CCA = MethodEntry(
    name="cca",
    summary="Linear maps of two modalities whose outputs correlate most on the training pairs, in closed form. Labels "
    "are not used, so label noise changes nothing.",
    source="Hotelling, Relations between two sets of variates, Biometrika 1936",
    equation=r"\max_{A, B} \operatorname{tr}(A^\top C_{xy} B) \quad \text{with} \quad "
    r"A^\top C_{xx} A = B^\top C_{yy} B = I",
    cost="one eigenvalue problem of the size of both modalities together",
    method=lambda config: cca(),
    hyperparameters=hyperparameters,
    describe=lambda config: f"method: cca, ridge {config.method_numbers['ridge']:g}, seed {config.seed}",
    title=lambda config: f"method cca, ridge {config.method_numbers['ridge']:g}",
    numbers={"ridge": RIDGE._replace(default=1e-3), "energy": ENERGY._replace(default=1.0)},
    uses=frozenset({"embed_dim"}),
    reads_labels=False,
    remedy=_REMEDY,
)
"""What the registry knows of the method `cca`."""

MCCA = MethodEntry(
    name="mcca",
    summary="Linear maps of two modalities or more whose outputs correlate most, in sum over all pairs of modalities, "
    "in closed form. Labels are not used. With the ridge r the share of the identity in its source is r / (1 + r).",
    source="Rupnik and Shawe-Taylor, Multi-View Canonical Correlation Analysis, SiKDD 2010",
    equation=r"\max_W \sum_{i \neq j} \operatorname{tr}(W_i^\top C_{ij} W_j), \quad "
    r"\sum_i W_i^\top D_i W_i = I, \quad D_i = (1 - \kappa) C_{ii} + \kappa I",
    cost="one eigenvalue problem of the size of all principal components together",
    method=lambda config: mcca(),
    hyperparameters=hyperparameters,
    describe=lambda config: f"method: mcca, ridge {config.method_numbers['ridge']:g}, seed {config.seed}",
    title=lambda config: f"method mcca, ridge {config.method_numbers['ridge']:g}",
    numbers={"ridge": RIDGE._replace(default=1e-3), "energy": ENERGY},
    uses=frozenset({"embed_dim"}),
    reads_labels=False,
    remedy=_REMEDY,
)
"""What the registry knows of the method `mcca`."""
