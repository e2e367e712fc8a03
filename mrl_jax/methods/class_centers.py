"""Parts of gradient methods with encoders onto the unit sphere and class centres on it.

Their hyperparameters h have an `encoder`, `embed_dim`, `tau1`, and those of `augmentation`.

Shape letters: B batch, D features, L embedding, K classes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from mrl_jax.losses.mrl import log_soft_assignment, mrl_loss
from mrl_jax.methods.augmentation import drop_units
from mrl_jax.methods.state import Batch, Partners, Shapes
from mrl_jax.models.mlp import dense_layers, init_centers
from mrl_jax.unit_rows import unit_rows

__all__ = [
    "Weights",
    "assign",
    "class_layers",
    "decays",
    "embed",
    "embed_all",
    "init_params",
    "layers",
    "project",
    "scores_of",
    "total_loss",
]


class Weights(NamedTuple):
    """The trained model.

    Attributes:
        encoders: parameters of the encoders, one tree per modality.
        centers: class centres C [K, L]; unit rows at the start of every step.
    """

    encoders: tuple[Any, ...]
    centers: Array


def init_params(h: Any, key: Array, shapes: Shapes) -> Weights:
    """Draw encoders and centres."""
    keys = jax.random.split(key, len(shapes.dims) + 1)
    encoders = tuple(
        h.encoder.init(k, jnp.zeros((1, d), jnp.float32)) for k, d in zip(keys[:-1], shapes.dims, strict=True)
    )
    return Weights(encoders, init_centers(keys[-1], shapes.classes, h.embed_dim))


def embed(h: Any, params: Any, modality: int, x: Array) -> Array:
    """Embed features [..., D] as unit rows [..., L], by parameters with `encoders`."""
    return h.encoder.apply(params.encoders[modality], x)


def embed_all(h: Any, params: Weights, batch: Batch) -> Array:
    """Embed all modalities of a batch of training, [M, B, L]."""
    z = [h.encoder.apply(params.encoders[i], x, drop_units(h, batch, i)) for i, x in enumerate(batch.features)]
    return jnp.stack(z)


def total_loss(
    h: Any,
    params: Weights,
    batch: Batch,
    z: Array,
    loss: Callable[..., Array],
    axis_name: str | None,
    of_partners: Callable[..., Array] | None = None,
) -> tuple[Array, dict[str, Array]]:
    """The total loss of MRL (eq. 8) with a clustering loss of one's own, and its parts as metrics.

    Args:
        h: hyperparameters with `beta`, `tau1`, `tau2`, `self_similarity` and `contrastive_scale`.
        params: the model.
        batch: the batch.
        z: its embeddings [M, B, L].
        loss: clustering loss, a function of z, centers, labels and tau that returns per-sample losses [M, B].
        axis_name: see `Method.step`.
        of_partners: the loss for the targets of the partners, where instances are mixed; by default `loss` with their
            labels. Both losses count by the shares of the two.
    """
    total, parts = mrl_loss(
        z,
        params.centers,
        batch.labels,
        beta=h.beta,
        tau1=h.tau1,
        tau2=h.tau2,
        mask=batch.mask,
        loss=loss if batch.partners is None else _mixed(loss, of_partners, batch.partners),
        self_similarity=h.self_similarity,
        contrastive_scale=h.contrastive_scale,
        axis_name=axis_name,
    )
    return total, parts._asdict()


def _mixed(loss: Callable[..., Array], of_partners: Callable[..., Array] | None, partners: Partners) -> Any:
    def mixed(z: Array, centers: Array, labels: Array, tau: ArrayLike) -> Array:
        own = loss(z, centers, labels, tau)
        other = (of_partners or loss)(z, centers, partners.labels, tau)
        share = partners.share[None]
        return (1.0 - share) * own + share * other

    return mixed


def decays(path: tuple[Any, ...], leaf: Array) -> bool:
    """Whether weight decay acts on a parameter: on the weight matrices, not on biases and centres."""
    return getattr(path[-1], "key", None) == "kernel"


def project(params: Weights) -> Weights:
    """Bring the centres back to unit length, as the official implementation does.

    The gradient is the one at unit centres; Adam then moves them off the sphere until the next step.
    """
    return params._replace(centers=unit_rows(params.centers))


def assign(h: Any, params: Weights, z: Array) -> Array:
    """Log-probabilities of the classes [..., K] (eq. 2 of the paper of MRL)."""
    return log_soft_assignment(z, unit_rows(params.centers), h.tau1)


def layers(h: Any, params: Any, modality: int) -> list[tuple[Array, Array]]:
    """The layers of an encoder, see `Method`."""
    return dense_layers(params.encoders[modality])


def class_layers(h: Any, params: Weights) -> list[tuple[Array, Array]]:
    """The scores that `assign` takes the softmax of, see `Method`."""
    return scores_of(unit_rows(params.centers), h.tau1)


def scores_of(centers: Array, tau: ArrayLike = 1.0) -> list[tuple[Array, Array]]:
    """One layer whose outputs are the products with centres [K, L], divided by a temperature."""
    return [(centers.T / tau, jnp.zeros(len(centers)))]
