r"""Deep canonical correlation analysis (Andrew et al. 2013), alone and with autoencoders (Wang et al. 2015).

Two networks whose outputs correlate most over a batch; after every epoch a linear analysis of the outputs of all
training pairs gives the directions that are compared. Labels are not used.

Shape letters: B batch, N training instances, D features, L outputs.
"""

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.linalg import solve_triangular
from jax.typing import ArrayLike

from mrl_jax.methods.base import Method, MethodEntry
from mrl_jax.methods.class_centers import decays
from mrl_jax.methods.deep.parts import NETWORKS, Hyperparameters, hyperparameters, network, of_whole_batch, present
from mrl_jax.methods.gradient import gradient_method
from mrl_jax.methods.linear.method import Projection
from mrl_jax.methods.state import Batch, Shapes, TrainData
from mrl_jax.models.mlp import dense_layers
from mrl_jax.options import Number
from mrl_jax.unit_rows import unit_rows

if TYPE_CHECKING:
    from mrl_jax.config import Config

__all__ = ["DCCA", "DCCAE", "Weights", "canonical_directions", "correlation", "dcca"]

_ROWS = 4096  # embedded at once


class Weights(NamedTuple):
    """The trained model.

    Attributes:
        encoders: networks, one per modality.
        decoders: networks back to the features, one per modality; () without.
        projections: canonical directions of the outputs, one per modality, in closed form.
    """

    encoders: tuple[Any, ...]
    decoders: tuple[Any, ...]
    projections: tuple[Projection, ...]


def correlation(x: Array, y: Array, valid: Array, ridge: ArrayLike) -> Array:
    r"""Total correlation of two sets of outputs: the sum of the canonical correlations (eq. 10 of Andrew et al.).

    $$\lVert T \rVert_*, \quad T = \Sigma_{11}^{-1/2} \Sigma_{12} \Sigma_{22}^{-1/2}$$

    Triangular factors take the place of the symmetric roots: the singular values are the same, and the gradient stays
    finite where eigenvalues are equal.

    Args:
        x: outputs of the first modality, [B, L].
        y: outputs of the second one, [B, L].
        valid: pairs that count, bool [B].
        ridge: added to the diagonal of the covariances.

    Returns:
        A scalar in [0, L].
    """
    return jnp.linalg.svd(_whitened(*_centred(x, y, valid)[2:], ridge)[2], compute_uv=False).sum()


def canonical_directions(
    x: Array, y: Array, valid: Array, ridge: ArrayLike
) -> tuple[tuple[Projection, Projection], Array]:
    """Linear canonical correlation analysis of outputs; arguments as in `correlation`.

    Returns:
        A projection of either modality, and the canonical correlations [L], descending.
    """
    mean_x, mean_y, x, y, count = _centred(x, y, valid)
    root_x, root_y, t = _whitened(x, y, count, ridge)
    left, values, right = jnp.linalg.svd(t)
    of_x = solve_triangular(root_x, left, trans="T", lower=True)
    of_y = solve_triangular(root_y, right.T, trans="T", lower=True)
    return (Projection(mean_x, of_x), Projection(mean_y, of_y)), values


def _centred(x: Array, y: Array, valid: Array) -> tuple[Array, Array, Array, Array, Array]:
    """Means, centred rows (0 where they do not count), and the number of rows."""
    on, count = valid[:, None], jnp.maximum(valid.sum(), 2)
    means = [jnp.where(on, z, 0.0).sum(axis=0) / count for z in (x, y)]
    x, y = (jnp.where(on, z - jnp.broadcast_to(mean, z.shape), 0.0) for z, mean in zip((x, y), means, strict=True))
    return means[0], means[1], x, y, count


def _whitened(x: Array, y: Array, count: Array, ridge: ArrayLike) -> tuple[Array, Array, Array]:
    """Cholesky factors of the two covariances, and the covariance of the whitened rows."""

    def covariance(a: Array, b: Array) -> Array:
        return jnp.dot(a.T, b, precision="highest") / (count - 1)

    own = ridge * jnp.eye(x.shape[1], dtype=x.dtype)
    root_x, root_y = (jnp.linalg.cholesky(covariance(z, z) + own) for z in (x, y))
    t = solve_triangular(root_x, covariance(x, y), lower=True)
    return root_x, root_y, solve_triangular(root_y, t.T, lower=True).T


def reconstruction(features: Sequence[Array], decoded: Sequence[Array], valid: Array) -> Array:
    """Squared errors of decoders, the mean over instances and the sum over modalities; valid is bool [M, B]."""
    errors = [((x - d) ** 2).sum(axis=1) for x, d in zip(features, decoded, strict=True)]
    return jnp.where(valid, jnp.stack(errors), 0.0).sum() / jnp.maximum(valid.any(axis=0).sum(), 1)


def _init_params(h: Hyperparameters, key: Array, shapes: Shapes, decodes: bool) -> Weights:
    keys = jax.random.split(key, 2 * len(shapes.dims))
    encoder = network(h, unit=False)
    encoders = tuple(encoder.init(k, jnp.zeros((1, d))) for k, d in zip(keys, shapes.dims, strict=False))
    decoders = tuple(
        network(h, d, unit=False, reverse=True).init(k, jnp.zeros((1, h.embed_dim)))
        for k, d in zip(keys[len(shapes.dims) :], shapes.dims, strict=True)
        if decodes
    )
    own = Projection(jnp.zeros(h.embed_dim), jnp.eye(h.embed_dim))
    return Weights(encoders, decoders, tuple(own for _ in shapes.dims))


def _outputs(h: Hyperparameters, params: Weights, modality: int, x: Array) -> Array:
    z: Array = network(h, unit=False).apply(params.encoders[modality], x)  # type: ignore[assignment]
    return z


def _embed(h: Hyperparameters, params: Weights, modality: int, x: Array) -> Array:
    offset, kernel = params.projections[modality]
    z = _outputs(h, params, modality, x)
    return unit_rows(jnp.dot(z - jnp.broadcast_to(offset, z.shape), kernel, precision="highest"))


def _layers(h: Hyperparameters, params: Weights, modality: int) -> list[tuple[Array, Array]]:
    """The layers of the network, the last one with the projection after it."""
    *first, (kernel, bias) = dense_layers(params.encoders[modality])
    offset, directions = params.projections[modality]
    return [
        *first,
        (jnp.dot(kernel, directions, precision="highest"), jnp.dot(bias - offset, directions, precision="highest")),
    ]


def _objective(
    h: Hyperparameters, params: Weights, batch: Batch, epoch: ArrayLike, axis_name: str | None
) -> tuple[Array, tuple[dict[str, Array], None]]:
    outputs = [_outputs(h, params, i, x) for i, x in enumerate(batch.features)]
    decoded = [
        network(h, x.shape[1], unit=False, reverse=True).apply(p, z)
        for p, z, x in zip(params.decoders, outputs, batch.features, strict=False)
    ]

    def loss(outputs: Any, features: Any, decoded: Any, valid: Array) -> tuple[Array, dict[str, Array]]:
        found = correlation(outputs[0], outputs[1], valid.all(axis=1), h["ridge"])
        if not decoded:
            return -found, {"correlation": found}
        error = reconstruction(features, decoded, valid.T)
        return h["reconstruction"] * error - found, {"correlation": found, "reconstruction": error}

    total, metrics = of_whole_batch(loss, axis_name, outputs, batch.features, decoded, present(batch).T)
    return total, (metrics, None)


def _complete(h: Hyperparameters, params: Weights, data: TrainData) -> Weights:
    """The canonical directions of the outputs of all training pairs."""
    outputs = []
    for i, x in enumerate(data.features):
        z = jax.lax.map(lambda row, i=i: _outputs(h, params, i, row), x, batch_size=min(_ROWS, len(x)))
        outputs.append(z if data.partners is None else z[data.partners[i]])
    valid = jnp.ones(len(outputs[0]), bool) if data.mask is None else data.mask.all(axis=0)
    directions, _ = canonical_directions(outputs[0], outputs[1], valid, h["ridge"])
    return params._replace(projections=directions)


@functools.cache
def dcca(decodes: bool = False) -> Method:
    """DCCA, or DCCAE, which also decodes the outputs."""
    return gradient_method(
        f"method {'dccae' if decodes else 'dcca'}",
        init_params=functools.partial(_init_params, decodes=decodes),
        embed=_embed,
        objective=_objective,
        complete=_complete,
        decays=decays,
        layers=_layers,
        needs=frozenset({"two modalities", "resident"}),
    )._replace(factorises=True)


def _describe(config: "Config") -> str:
    return f"method: {config.method}, {config.embed_dim} directions, seed {config.seed}"


_RIDGE = Number(1e-3, 0.0, float("inf"), "added to the diagonal of the covariances of the outputs")

DCCA = MethodEntry(
    name="dcca",
    summary="Two networks whose outputs correlate most on the training pairs of a batch, then a linear analysis of "
    "their outputs. Labels are not used.",
    source="Andrew et al., Deep Canonical Correlation Analysis, ICML 2013",
    equation=r"L = - \lVert \Sigma_{11}^{-1/2} \Sigma_{12} \Sigma_{22}^{-1/2} \rVert_* \quad \text{with} \quad "
    r"\Sigma_{ij} = \tfrac{1}{B - 1} \bar H_i^\top \bar H_j + r I \, [i = j]",
    cost="large batches; a singular value decomposition of L x L in every step, and a pass over the training split "
    "after every epoch",
    method=lambda config: dcca(),
    hyperparameters=hyperparameters,
    describe=_describe,
    title=lambda config: "method dcca",
    numbers={"ridge": _RIDGE},
    settings={"batch_size": 800, "embed_dim": 64},
    steps=200,
    uses=NETWORKS,
    reads_labels=False,
    axes=("method", "noise_rate", "embed_dim", "learning_rate", "seed"),
    memorises="train fewer epochs, or with fewer directions, --embed-dim",
    remedy="try a larger ridge, or a larger batch",
)
"""What the registry knows of the method `dcca`."""

DCCAE = DCCA._replace(
    name="dccae",
    summary="DCCA whose outputs must also give back the features, by a decoder per modality. Labels are not used.",
    source="Wang et al., On Deep Multi-View Representation Learning, ICML 2015",
    equation=r"L = L_\text{dcca} + \tfrac{\lambda}{B} \sum_{i,j} \lVert x_j^i - g_i(f_i(x_j^i)) \rVert^2",
    cost="as dcca, and a decoder per modality",
    method=lambda config: dcca(decodes=True),
    title=lambda config: "method dccae",
    numbers={
        "ridge": _RIDGE,
        "reconstruction": Number(1e-3, 0.0, float("inf"), "weight of the squared errors of the decoders"),
    },
)
"""What the registry knows of the method `dccae`."""
