r"""Balanced spectral learning (SMLN, Hu et al. 2020), reconstructed: the body of the paper was out of reach.

All samples of a batch, of all modalities, are nodes of one graph. Embeddings are sought that vary little along its
edges, in as many directions as possible: the eigenvalues of the graph in the space of the embeddings, one per
direction, shall all be large.

From the abstract and the first figure: a similarity of all modalities, with classes, pairs and neighbours inside a
modality; a ratio trace; a sum of a function of the eigenvalues that balances them; and the networks' own outputs as
representation. Chosen here: edges of weight 1, neighbours by the cosine of the features in the batch, the logarithm of
the shifted eigenvalues, and the ridge, by validation mAP on the emoji set with noise 0.4. The paper has samples without
labels, too; here all have one. Embeddings have unit length as everywhere, and the default batch has four instances per
direction.

Shape letters: M modalities, B batch, S = M B samples, D features, L embedding.
"""

import functools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.linalg import cho_solve
from jax.typing import ArrayLike

from mrl_jax.methods.base import Method, MethodEntry
from mrl_jax.methods.class_centers import decays, embed, layers
from mrl_jax.methods.deep.parts import NETWORKS, Hyperparameters, hyperparameters, network, of_whole_batch, present
from mrl_jax.methods.gradient import gradient_method
from mrl_jax.methods.state import Batch, OracleNoise, Shapes
from mrl_jax.options import Number
from mrl_jax.unit_rows import unit_rows

if TYPE_CHECKING:
    from mrl_jax.config import Config

__all__ = ["ENTRY", "Weights", "affinity", "smln", "spectral_loss"]

_PER_DIRECTION = 2  # fewer instances of a batch than this for every direction: a warning


class Weights(NamedTuple):
    """The trained model.

    Attributes:
        encoders: networks, one per modality.
    """

    encoders: tuple[Any, ...]


def affinity(features: Sequence[Array], labels: Array, valid: Array, neighbours: int) -> Array:
    """The graph W of a batch: 1 between samples of one class, of one instance, or near inside a modality; else 0.

    Near is a sample that is among the nearest of another, or has that one among its own.

    Args:
        features: one [B, D] per modality.
        labels: given labels [M, B]; those of samples that do not count may be any number.
        valid: samples that count, bool [M, B].
        neighbours: how many are near, by the cosine of the features; more where they tie.

    Returns:
        float32 [S, S], symmetric; samples of a modality stand together. Rows of samples that do not count are 0.
    """
    m, b = labels.shape
    of_class, there, instance = labels.reshape(-1), valid.reshape(-1), jnp.tile(jnp.arange(b), m)
    edges = (of_class[:, None] == of_class[None]) | (instance[:, None] == instance[None])
    count = min(neighbours, b - 1)
    if count > 0:
        blocks = jnp.stack([_near(x, on, count) for x, on in zip(features, valid, strict=True)])
        own = jnp.eye(m, dtype=bool)[:, None, :, None]
        edges |= (blocks[:, :, None, :] & own).reshape(m * b, m * b)
    return (edges & there[:, None] & there[None]).astype(jnp.float32)


def _near(x: Array, valid: Array, count: int) -> Array:
    """Which samples of a modality are neighbours, bool [B, B]."""
    unit = unit_rows(x.astype(jnp.float32))
    others = valid[None] & ~jnp.eye(len(x), dtype=bool)
    cosine = jnp.where(others, jnp.dot(unit, unit.T, precision="highest"), -jnp.inf)
    last = jax.lax.top_k(cosine, count)[0][:, -1:]
    near = others & (cosine >= last)
    return near | near.T


def spectral_loss(z: Array, w: Array, ridge: ArrayLike, shift: ArrayLike) -> tuple[Array, Array]:
    r"""Minus the sum of the logarithms of the shifted eigenvalues, and the mean eigenvalue.

    $$-\sum_i \log(\lambda_i + c), \quad \lambda_i \text{ of } A = Z^\top W Z / t \text{ relative to }
    B = Z^\top D Z / t + \epsilon I$$

    D has the row sums of W, and t is their total, so that Z'DZ / t has the trace 1. As $(z_j \pm z_l)^2 \ge 0$ along
    every edge, all eigenvalues lie in (-1, 1); with $c \ge 1$ the logarithm always exists. Eigenvalues need not be
    found: the sum is $\log \det(A + c B) - \log \det B$, by Cholesky factors, with a finite gradient where eigenvalues
    are equal.

    Args:
        z: embeddings, unit rows [S, L].
        w: the graph [S, S], symmetric and not negative.
        ridge: epsilon > 0. A small one leaves the loss as good as unchanged by linear maps of the embeddings, so that
            all directions spread alike and cosines mean little; with a larger one, directions that gain little vanish.
        shift: c >= 1.

    Returns:
        The loss, in [-L log(1 + c), -L log(c - 1)], and the mean of the eigenvalues.
    """
    degree = w.sum(axis=1)
    total = jnp.maximum(degree.sum(), 1.0)
    a = jnp.dot(z.T, jnp.dot(w, z, precision="highest"), precision="highest") / total
    b = jnp.dot(z.T, degree[:, None] * z, precision="highest") / total + ridge * jnp.eye(z.shape[1])
    root, shifted = jnp.linalg.cholesky(b), jnp.linalg.cholesky(a + shift * b)
    logs = jnp.log(jnp.diagonal(shifted)) - jnp.log(jnp.diagonal(root))
    return -2.0 * logs.sum(), jnp.trace(cho_solve((root, True), a)) / z.shape[1]


def _init_params(h: Hyperparameters, key: Array, shapes: Shapes) -> Weights:
    keys = jax.random.split(key, len(shapes.dims))
    return Weights(tuple(network(h).init(k, jnp.zeros((1, d))) for k, d in zip(keys, shapes.dims, strict=True)))


def _objective(
    h: Hyperparameters, params: Weights, batch: Batch, epoch: ArrayLike, axis_name: str | None
) -> tuple[Array, tuple[dict[str, Array], None]]:
    z = jnp.stack([embed(h, params, i, x) for i, x in enumerate(batch.features)], axis=1)

    def loss(z: Array, features: Any, labels: Array, valid: Array) -> tuple[Array, dict[str, Array]]:
        w = affinity(features, labels.T, valid.T, int(h["neighbours"]))
        total, mean = spectral_loss(z.swapaxes(0, 1).reshape(len(w), -1), w, h["ridge"], h["shift"])
        return total, {"eigenvalue": mean}

    total, metrics = of_whole_batch(loss, axis_name, z, batch.features, batch.labels.T, present(batch).T)
    return total, (metrics, None)


@functools.cache
def smln() -> Method:
    """The method."""
    return gradient_method(
        "method smln",
        init_params=_init_params,
        embed=embed,
        objective=_objective,
        decays=decays,
        layers=layers,
    )._replace(factorises=True)


def _warnings(config: "Config", noise: OracleNoise | None) -> Iterable[str]:
    least = _PER_DIRECTION * config.embed_dim
    if config.batch_size < least:
        yield (
            f"method smln finds {config.embed_dim} directions in batches of {config.batch_size}; give --batch-size "
            f"{least} or more, or a lower --embed-dim"
        )


ENTRY = MethodEntry(
    name="smln",
    summary="One graph over all samples of a batch: given classes, instances, and neighbours inside a modality. "
    "Embeddings vary little along its edges, in all directions alike. Reconstructed from the abstract of the paper.",
    source="Hu et al., Semi-Supervised Multi-Modal Learning with Balanced Spectral Decomposition, AAAI 2020",
    equation=r"L = -\sum_i \log(\lambda_i + c) \quad \text{with} \quad Z^\top W Z \, v_i = "
    r"\lambda_i \, ( Z^\top D Z + \epsilon \operatorname{tr}(D) I ) \, v_i",
    cost="larger batches; the similarities of all samples of a batch, and two Cholesky factors of L x L in every step",
    method=lambda config: smln(),
    hyperparameters=hyperparameters,
    describe=lambda config: f"method: smln, {config.embed_dim} directions, seed {config.seed}",
    title=lambda config: "method smln",
    numbers={
        "neighbours": Number(5, 0, 1000, "nearest samples of a batch that are neighbours inside a modality", True),
        "ridge": Number(0.2, 1e-4, float("inf"), "epsilon, where the first matrix has the trace 1"),
        "shift": Number(1.0, 1.0, float("inf"), "c; the larger, the more the large eigenvalues count"),
    },
    settings={"batch_size": 256, "embed_dim": 64},
    uses=NETWORKS,
    axes=("method", "noise_rate", "embed_dim", "learning_rate", "seed"),
    warnings=_warnings,
    memorises="train fewer epochs, or with fewer directions, --embed-dim",
    remedy="try a larger ridge, or a larger batch",
)
"""What the registry knows of the method `smln`."""
