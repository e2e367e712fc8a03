r"""Scalable deep multimodal learning (Hu et al. 2019): every modality alone is trained towards fixed directions.

The directions of the classes are drawn once and never trained. All modalities have the same ones, so that they meet
although no term of the loss relates them; their networks share nothing. A decoder per modality keeps what the features
hold beside the class.

The original has hidden layers of 1024 units, learning rates of 1e-4 for images and 2e-4 for text, batches of 100 (500
from 100 classes on), leaves out the last, incomplete batch of an epoch, and keeps the epoch with the lowest validation
loss of each modality. Here networks, rate and batches are those of the settings, and one epoch is kept for all.

Shape letters: M modalities, B batch, D features, L embedding, K classes.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from mrl_jax.losses.mrl import log_soft_assignment
from mrl_jax.methods.base import Method, MethodEntry
from mrl_jax.methods.class_centers import decays, embed, layers, scores_of
from mrl_jax.methods.deep.parts import NETWORKS, Hyperparameters, hyperparameters, mean_distance, network, present
from mrl_jax.methods.gradient import gradient_method
from mrl_jax.methods.state import Batch, Shapes
from mrl_jax.models.mlp import init_centers
from mrl_jax.options import Number

__all__ = ["ENTRY", "Weights", "sdml", "sdml_terms"]


class Weights(NamedTuple):
    """The model.

    Attributes:
        encoders: networks, one per modality.
        decoders: networks back to the features, one per modality.
        directions: of the classes, W' [K, L]; never trained. The rows are orthonormal for K <= L. For K > L no K
            orthogonal directions exist: they are then independent and uniform on the sphere, where the paper has no
            such case.
    """

    encoders: tuple[Any, ...]
    decoders: tuple[Any, ...]
    directions: Array


def sdml_terms(
    z: Array, decoded: Array, x: Array, labels: Array, directions: Array, valid: Array, axis_name: str | None = None
) -> tuple[Array, Array]:
    r"""The two terms of the loss of one modality.

    $$\tfrac{1}{n} \sum_j \lVert g(z_j) - x_j \rVert, \quad \tfrac{1}{n} \sum_j \lVert W^\top z_j - e_{y_j} \rVert$$

    The norms are not squared, as in the public code.

    Args:
        z: embeddings, unit rows [B, L].
        decoded: outputs of the decoder, [B, D].
        x: features [B, D].
        labels: given labels [B]; those of samples that do not count may be any number.
        directions: W' [K, L].
        valid: samples that count, bool [B].
        axis_name: see `Method.step`; the terms are then shares of this device.

    Returns:
        The reconstruction, and the distance from the classes.
    """
    targets = jax.nn.one_hot(jnp.where(valid, labels, 0), len(directions))
    scores = jnp.dot(z, jax.lax.stop_gradient(directions).T, precision="highest")
    return mean_distance(decoded, x, valid, axis_name), mean_distance(scores, targets, valid, axis_name)


def _decoder(h: Hyperparameters, out: int) -> Any:
    """A decoder; the public code scales its outputs to unit length, which features here need not have."""
    return network(h, out, unit=False, reverse=True)


def _init_params(h: Hyperparameters, key: Array, shapes: Shapes) -> Weights:
    keys = jax.random.split(key, 2 * len(shapes.dims) + 1)
    encoders = [network(h).init(k, jnp.zeros((1, d))) for k, d in zip(keys[1::2], shapes.dims, strict=True)]
    decoders = [
        _decoder(h, d).init(k, jnp.zeros((1, h.embed_dim))) for k, d in zip(keys[2::2], shapes.dims, strict=True)
    ]
    return Weights(tuple(encoders), tuple(decoders), init_centers(keys[0], shapes.classes, h.embed_dim))


def _objective(
    h: Hyperparameters, params: Weights, batch: Batch, epoch: ArrayLike, axis_name: str | None
) -> tuple[Array, tuple[dict[str, Array], None]]:
    terms = []
    for i, (x, labels, valid) in enumerate(zip(batch.features, batch.labels, present(batch), strict=True)):
        z = embed(h, params, i, x)
        decoded = _decoder(h, x.shape[1]).apply(params.decoders[i], z)
        terms.append(sdml_terms(z, decoded, x, labels, params.directions, valid, axis_name))
    reconstruction, classes = (jnp.stack(t).sum() for t in zip(*terms, strict=True))
    share = h["reconstruction"]
    loss = share * reconstruction + (1.0 - share) * classes
    return loss, ({"reconstruction": reconstruction, "classes": classes}, None)


def _assign(h: Hyperparameters, params: Weights, z: Array) -> Array:
    """Softmax of the scores W'z, which training itself compares with the classes as they are."""
    return log_soft_assignment(z, params.directions, h.tau1)


@functools.cache
def sdml() -> Method:
    """The method."""
    return gradient_method(
        "method sdml",
        init_params=_init_params,
        embed=embed,
        objective=_objective,
        assign=_assign,
        decays=decays,
        layers=layers,
        class_layers=lambda h, params: scores_of(params.directions, h.tau1),
    )


ENTRY = MethodEntry(
    name="sdml",
    summary="A network and a decoder per modality, each modality alone. Embeddings approach orthonormal directions of "
    "the given classes, the same for all modalities, which are fixed before training.",
    source="Hu et al., Scalable Deep Multimodal Learning for Cross-Modal Retrieval, SIGIR 2019",
    equation=r"L = \alpha \, \tfrac{1}{N} \sum_{i,j} \lVert g_i(z_j^i) - x_j^i \rVert "
    r"+ (1 - \alpha) \, \tfrac{1}{N} \sum_{i,j} \lVert W^\top z_j^i - e_{y_j^i} \rVert",
    cost="a decoder per modality, so about twice the networks",
    method=lambda config: sdml(),
    hyperparameters=hyperparameters,
    describe=lambda config: (
        f"method: sdml, reconstruction {config.method_numbers['reconstruction']:g}, seed {config.seed}"
    ),
    title=lambda config: "method sdml",
    numbers={"reconstruction": Number(0.5, 0.0, 1.0, "weight of the decoders; the rest weighs the classes")},
    uses=NETWORKS | {"tau1", "representation"},
    axes=("method", "noise_rate", "learning_rate", "seed"),
    remedy="check the features for extreme values, or try a lower learning rate",
)
"""What the registry knows of the method `sdml`."""
