r"""Linear canonical correlation analysis (Hotelling, 1936): the directions in which two modalities correlate most.

Closed form and unsupervised: labels, right or wrong, change nothing.

Shape letters: N training instances, D features, L embedding.
"""

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from mrl_jax.methods.base import Method, MethodEntry
from mrl_jax.methods.state import OracleNoise, Shapes, State, TrainData
from mrl_jax.options import Number
from mrl_jax.unit_rows import unit_rows

if TYPE_CHECKING:
    from mrl_jax.config import Config

__all__ = ["ENTRY", "Hyperparameters", "Projection", "Weights", "cca"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Hyperparameters:
    """Hyperparameters of CCA.

    Attributes:
        ridge: added to the covariance of each modality, as a multiple of its mean variance.
        embed_dim: upper bound of L; L is at most the number of features of either modality.
    """

    ridge: Any = 1e-3
    embed_dim: int = field(default=512, metadata={"static": True})


class Projection(NamedTuple):
    """An affine map of one modality: x -> (x - offset) kernel.

    Attributes:
        offset: mean of the features, [D].
        kernel: canonical directions, [D, L]; the projections of the training split have unit variance.
    """

    offset: Array
    kernel: Array


class Weights(NamedTuple):
    """The trained model.

    Attributes:
        encoders: one projection per modality.
        correlations: canonical correlations, descending, [L].
    """

    encoders: tuple[Projection, ...]
    correlations: Array


def _init(h: Hyperparameters, key: Array, shapes: Shapes) -> State:
    size = min(h.embed_dim, *shapes.dims)
    encoders = tuple(Projection(jnp.zeros(d), jnp.zeros((d, size))) for d in shapes.dims)
    return State(Weights(encoders, jnp.zeros(size)), (), jnp.zeros((), jnp.int32))


def _embed(h: Hyperparameters, params: Weights, modality: int, x: Array) -> Array:
    offset, kernel = params.encoders[modality]
    return unit_rows(jnp.dot(x - jnp.broadcast_to(offset, x.shape), kernel, precision="highest"))


def _fit(h: Hyperparameters, state: State, data: TrainData, key: Array) -> State:
    r"""Whiten both modalities; the directions are the singular vectors of $C_{xx}^{-1/2} C_{xy} C_{yy}^{-1/2}$."""
    rows = [x if data.partners is None else x[data.partners[i]] for i, x in enumerate(data.features)]
    weights = jnp.ones(len(rows[0])) if data.mask is None else data.mask.all(axis=0).astype(jnp.float32)
    count = jnp.maximum(weights.sum(), 1.0)
    offsets = [jnp.dot(weights, x, precision="highest") / count for x in rows]
    centred = [(x - offset[None]) * weights[:, None] for x, offset in zip(rows, offsets, strict=True)]

    def covariance(a: Array, b: Array) -> Array:
        return jnp.dot(a.T, b, precision="highest") / count

    roots = [_inverse_root(covariance(x, x), h.ridge) for x in centred]
    whitened = jnp.dot(
        roots[0], jnp.dot(covariance(centred[0], centred[1]), roots[1], precision="highest"), precision="highest"
    )
    left, correlations, right = jnp.linalg.svd(whitened, full_matrices=False)
    size = state.params.correlations.shape[0]
    kernels = [
        jnp.dot(root, directions[:, :size], precision="highest")
        for root, directions in zip(roots, (left, right.T), strict=True)
    ]
    encoders = tuple(Projection(offset, kernel) for offset, kernel in zip(offsets, kernels, strict=True))
    return state._replace(params=Weights(encoders, correlations[:size]), step=state.step + 1)


def _inverse_root(covariance: Array, ridge: Any) -> Array:
    """The inverse square root of a covariance with a ridge; directions without variance are left out."""
    size = len(covariance)
    values, vectors = jnp.linalg.eigh(covariance + ridge * jnp.trace(covariance) / size * jnp.eye(size))
    rounding = size * jnp.finfo(values.dtype).eps * values.max()
    inverse = jnp.where(values > rounding, 1.0 / jnp.sqrt(jnp.where(values > rounding, values, 1.0)), 0.0)
    return jnp.dot(vectors * inverse[None], vectors.T, precision="highest")


@functools.cache
def cca() -> Method:
    """Linear CCA between two modalities."""
    return Method("method cca", _init, _embed, fit=_fit, needs=frozenset({"resident", "two modalities"}))


def _hyperparameters(config: "Config", noise: OracleNoise | None) -> Hyperparameters:
    return Hyperparameters(config.method_numbers["ridge"], config.embed_dim)


ENTRY = MethodEntry(
    name="cca",
    summary="Linear maps of two modalities whose outputs correlate most on the training pairs, in closed form. Labels "
    "are not used, so label noise changes nothing.",
    source="Hotelling, Relations between two sets of variates, Biometrika 1936",
    equation=r"\max_{A, B} \operatorname{tr}(A^\top C_{xy} B) \quad \text{with} \quad "
    r"A^\top C_{xx} A = B^\top C_{yy} B = I",
    method=lambda config: cca(),
    hyperparameters=_hyperparameters,
    describe=lambda config: f"method: cca, ridge {config.method_numbers['ridge']:g}, seed {config.seed}",
    title=lambda config: f"method cca, ridge {config.method_numbers['ridge']:g}",
    numbers={"ridge": Number(1e-3, 0.0, float("inf"), "added to each covariance, in units of its mean variance")},
    uses=frozenset({"embed_dim"}),
    remedy="try a larger ridge, --method-options ridge=R",
)
