"""What all closed-form linear methods have: affine maps, their hyperparameters, and a `Method` from one function.

Shape letters: M modalities, D features, L embedding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax import Array

from mrl_jax.errors import InputError
from mrl_jax.methods.base import Method
from mrl_jax.methods.state import OracleNoise, Shapes, State, TrainData
from mrl_jax.options import Number
from mrl_jax.unit_rows import unit_rows

if TYPE_CHECKING:
    from mrl_jax.config import Config

__all__ = [
    "ENERGY",
    "RIDGE",
    "Hyperparameters",
    "Projection",
    "Weights",
    "hyperparameters",
    "linear_method",
    "ridged",
    "top",
]

ENERGY = Number(0.98, 0.01, 1.0, "share of the variance of each modality that its principal components keep")
"""The number `energy` of the linear methods: its default, range and help."""
RIDGE = Number(1e-4, 0.0, float("inf"), "added to the diagonal of a scatter, in units of its mean")
"""The number `ridge` of the linear methods: its default, range and help."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Hyperparameters:
    """Hyperparameters of a linear method.

    Attributes:
        embed_dim: upper bound of L.
        numbers: those of `--method-options`, pairs of name and value.
    """

    embed_dim: int = field(default=512, metadata={"static": True})
    numbers: tuple[tuple[str, float], ...] = field(default=(), metadata={"static": True})

    def __getitem__(self, name: str) -> float:
        return dict(self.numbers)[name]


class Projection(NamedTuple):
    """An affine map of one modality: x -> (x - offset) kernel.

    Attributes:
        offset: mean of the features, [D].
        kernel: directions, [D, L].
    """

    offset: Array
    kernel: Array


class Weights(NamedTuple):
    """The trained model.

    Attributes:
        encoders: one projection per modality.
        spectrum: eigenvalues or singular values that belong to the directions, descending, [L].
    """

    encoders: tuple[Projection, ...]
    spectrum: Array


def hyperparameters(config: "Config", noise: OracleNoise | None) -> Hyperparameters:
    """The hyperparameters of a `Config`."""
    return Hyperparameters(config.embed_dim, tuple(sorted(config.method_numbers.items())))


def linear_method(
    name: str,
    solve: Callable[
        [Hyperparameters, TrainData, Shapes, dict[str, Any], int],
        tuple[Sequence[np.ndarray], Sequence[np.ndarray], np.ndarray],
    ],
    size: Callable[[Shapes], int],
    needs: frozenset[str] = frozenset(),
    weights: Callable[..., Any] = Weights,
) -> Method:
    """A method of affine maps.

    Args:
        name: see `Method`.
        solve: (h, data, shapes, shared, L) -> offsets [D] and kernels [D, L or fewer] of all modalities, and spectrum.
            Directions that are missing, because the data have fewer, become 0.
        size: shapes -> upper bound of L, beside `embed_dim`.
        needs: see `Method`.
        weights: the type of the parameters: encoders and spectrum.
    """

    def width(h: Hyperparameters, shapes: Shapes) -> int:
        return max(1, min(h.embed_dim, size(shapes)))

    def init(h: Hyperparameters, key: Array, shapes: Shapes) -> State:
        encoders = tuple(Projection(jnp.zeros(d), jnp.zeros((d, width(h, shapes)))) for d in shapes.dims)
        return State(weights(encoders, jnp.zeros(width(h, shapes))), (), jnp.zeros((), jnp.int32))

    def embed(h: Hyperparameters, params: Any, modality: int, x: Array) -> Array:
        offset, kernel = params.encoders[modality]
        return unit_rows(jnp.dot(x - jnp.broadcast_to(offset, x.shape), kernel, precision="highest"))

    def fit(h: Hyperparameters, data: TrainData, shapes: Shapes, shared: dict[str, Any]) -> Any:
        wide = width(h, shapes)
        offsets, kernels, spectrum = solve(h, data, shapes, shared, wide)
        missing = wide - len(spectrum)
        kernels = [np.pad(kernel, ((0, 0), (0, missing))) for kernel in kernels]
        encoders = tuple(Projection(*pair) for pair in zip(offsets, kernels, strict=True))  # type: ignore[arg-type]
        return weights(encoders, np.pad(spectrum, (0, missing)))

    def layers(h: Hyperparameters, params: Any, modality: int) -> list[tuple[Array, Array]]:
        offset, kernel = params.encoders[modality]
        return [(kernel, -jnp.dot(offset, kernel, precision="highest"))]

    return Method(name, init, embed, fit=fit, needs=needs, layers=layers)


def top(a: np.ndarray, b: np.ndarray, count: int, remedy: str) -> tuple[np.ndarray, np.ndarray]:
    """The largest solutions of a v = rho b v: rho [count], descending, and v [R, count] with v^T b v = 1.

    Args:
        a: symmetric, [R, R].
        b: symmetric and positive definite, [R, R].
        count: how many; fewer are returned where R is smaller.
        remedy: advice if b is not positive definite.

    Raises:
        InputError: b is not positive definite.
    """
    count = min(count, len(a))
    try:
        values, vectors = scipy.linalg.eigh(a, b, subset_by_index=(len(a) - count, len(a) - 1))
    except np.linalg.LinAlgError as error:
        raise InputError(f"the generalised eigenvalue problem has no solution ({error}); {remedy}") from None
    return values[::-1], vectors[:, ::-1]


def ridged(scatter: np.ndarray, ridge: float) -> np.ndarray:
    """A scatter with a ridge, in units of its mean diagonal."""
    return scatter + ridge * np.trace(scatter) / len(scatter) * np.eye(len(scatter))
