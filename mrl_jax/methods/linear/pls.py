r"""Partial least squares between two modalities: the directions in which they covary most.

Closed form and unsupervised: labels, right or wrong, change nothing.

Shape letters: D features, L embedding.
"""

import functools
from typing import Any

import numpy as np
import scipy.linalg

from mrl_jax.methods.base import Method, MethodEntry
from mrl_jax.methods.linear.method import ENERGY, Hyperparameters, hyperparameters, linear_method
from mrl_jax.methods.linear.views import principal_views
from mrl_jax.methods.state import Shapes, TrainData

__all__ = ["ENTRY", "pls"]


def _solve(
    h: Hyperparameters, data: TrainData, shapes: Shapes, shared: dict[str, Any], size: int
) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """Singular vectors of the covariance of the modalities, and its singular values."""
    views = principal_views(data, shapes, shared, energy=h["energy"], paired=True)
    left, values, right = scipy.linalg.svd(views.scatter(0, 1), full_matrices=False)
    directions = np.concatenate([left[:, :size], right[:size].T])
    return views.offsets, views.split(directions), values[:size] / max(int(views.count[0]), 1)


@functools.cache
def pls() -> Method:
    """Partial least squares (singular value decomposition of the covariance)."""
    return linear_method("method pls", _solve, lambda shapes: min(shapes.dims), frozenset({"two modalities"}))


ENTRY = MethodEntry(
    name="pls",
    summary="Orthonormal linear maps of two modalities whose outputs covary most on the training pairs, in closed "
    "form. Labels are not used.",
    source="Sharma and Jacobs, Bypassing Synthesis: PLS for Face Recognition with Pose, Low-Resolution and Sketch, "
    "CVPR 2011",
    equation=r"\max_{A, B} \operatorname{tr}(A^\top C_{xy} B) \quad \text{with} \quad A^\top A = B^\top B = I",
    cost="one singular value decomposition of the covariance of two modalities",
    method=lambda config: pls(),
    hyperparameters=hyperparameters,
    describe=lambda config: f"method: pls, seed {config.seed}",
    title=lambda config: "method pls",
    numbers={"energy": ENERGY._replace(default=1.0)},
    uses=frozenset({"embed_dim"}),
    reads_labels=False,
)
"""What the registry knows of the method `pls`."""
