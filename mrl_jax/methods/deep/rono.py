r"""RONO (Feng et al., CVPR 2023): samples that do not come close to the centre of their class are led away from it.

A sample is compared with the centre of its given class and with the mean of all centres. At first every sample is led
to the centre of its class. Later a sample that is not closer to it than to the mean, by a margin, counts as mislabelled
and is led away. A classifier of the embedding is trained with the mean absolute error, and the contrastive loss of MRL
joins the modalities.

The paper compares images with point clouds, by convolutional networks and batches of 128 for 50 epochs, with learning
rates of their own for each network. Its classifier reads the outputs before they are scaled to unit length; here it
reads the embedding, so that embeddings have class scores.

Shape letters: M modalities, B batch, L embedding, K classes.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from mrl_jax.losses.contrastive import contrastive_loss, masked_rows
from mrl_jax.methods.base import Method, MethodEntry
from mrl_jax.methods.class_centers import decays, embed, embed_all, layers
from mrl_jax.methods.class_centers import init_params as encoders_and_centers
from mrl_jax.methods.deep.parts import NETWORKS, Hyperparameters, hyperparameters, present
from mrl_jax.methods.gradient import gradient_method
from mrl_jax.methods.state import Batch, Shapes, instance_count
from mrl_jax.models.mlp import Encoder, dense_layers
from mrl_jax.options import Number
from mrl_jax.unit_rows import unit_rows

__all__ = ["ENTRY", "Weights", "center_losses", "late_share", "rono"]


class Weights(NamedTuple):
    """The trained model.

    Attributes:
        encoders: parameters of the encoders, one tree per modality.
        centers: class centres [K, L], of any length; the loss scales them to unit length.
        classifier: parameters of the network from embeddings to class scores, which all modalities share.
    """

    encoders: tuple[Any, ...]
    centers: Array
    classifier: Any


def center_losses(z: Array, centers: Array, labels: Array, scale: ArrayLike, margin: ArrayLike) -> tuple[Array, Array]:
    r"""Early and late loss of the discriminative centres, per sample.

    $$\tfrac{1}{a} (e^{z^\top m} - e^{z^\top c_y}), \qquad
    -\tfrac{1}{a} \lvert e^{z^\top m} - e^{z^\top c_y} + \alpha \rvert, \quad m = \tfrac{1}{K} \sum_k c_k$$

    In the early loss, the public code multiplies c_y by (K + 1) / K. The equations do not, and with few classes it
    would matter: for two, the centre of a class would be longer by half.

    Args:
        z: embeddings, unit rows [..., L].
        centers: class centres, unit rows [K, L].
        labels: given labels [...].
        scale: a > 0.
        margin: alpha.

    Returns:
        Losses [...] of the early, and of the late kind.
    """
    scores = jnp.dot(z, centers.T, precision="highest")
    mean = jnp.dot(z, centers.mean(axis=0), precision="highest")
    of_label = jnp.take_along_axis(scores, labels[..., None], axis=-1)[..., 0]
    difference = jnp.exp(mean) - jnp.exp(of_label)
    return difference / scale, -jnp.abs(difference + margin) / scale


def late_share(warmup: float, epochs: int, epoch: ArrayLike) -> Array:
    r"""Share v of the late loss in an epoch e: $\min(e / (W - 1), 1)$.

    As in the public code, with W the length of the warm-up, a share of all epochs.
    """
    length = warmup * epochs
    return jnp.minimum(jnp.asarray(epoch) / (length - 1.0), 1.0) if length > 1.0 else jnp.ones(())


def _init_params(h: Hyperparameters, key: Array, shapes: Shapes) -> Weights:
    """The centres are drawn from a normal distribution and keep their length, so that they turn slowly."""
    own, of_centers, of_classifier = jax.random.split(key, 3)
    encoders, centers = encoders_and_centers(h, own, shapes)
    centers = jax.random.normal(of_centers, centers.shape)
    classifier = _classifier(h, shapes.classes).init(of_classifier, jnp.zeros((1, h.embed_dim)))
    return Weights(encoders, centers, classifier)


def _classifier(h: Hyperparameters, classes: int) -> Encoder:
    """Half as many hidden units as inputs, as in the paper."""
    return Encoder((max(h.embed_dim // 2, 1),), classes, h.initializer, h.precision, unit=False)


def _assign(h: Hyperparameters, params: Weights, z: Array) -> Array:
    scores: Array = _classifier(h, len(params.centers)).apply(params.classifier, z)  # type: ignore[assignment]
    return jax.nn.log_softmax(scores, axis=-1)


def _objective(
    h: Hyperparameters, params: Weights, batch: Batch, epoch: ArrayLike, axis_name: str | None
) -> tuple[Array, tuple[dict[str, Array], None]]:
    z, valid = masked_rows(embed_all(h, params, batch), present(batch))  # type: ignore[arg-type]
    labels = jnp.where(valid, batch.labels, 0)
    instances = jnp.maximum(instance_count(batch.mask, axis_name), 1)

    def mean(losses: Array) -> Array:
        """Mean over instances, and sum over modalities."""
        return jnp.where(valid, losses, 0.0).sum() / instances

    early, late = center_losses(z, unit_rows(params.centers), labels, h["scale"], h["margin"])
    share = late_share(h["warmup"], h.epochs, epoch)
    centers = mean((1.0 - share) * early + share * late) / len(z)  # the mean over modalities, too
    log_p = jnp.take_along_axis(_assign(h, params, z), labels[..., None], axis=-1)[..., 0]
    classifier = mean(-jnp.expm1(log_p))
    contrastive = mean(contrastive_loss(z, h["temperature"], valid, axis_name=axis_name))
    total = centers + h["classifier"] * classifier + h["contrastive"] * contrastive
    return total, ({"centers": centers, "classifier": classifier, "contrastive": contrastive}, None)


@functools.cache
def rono() -> Method:
    """The method."""
    return gradient_method(
        "method rono",
        init_params=_init_params,
        embed=embed,
        objective=_objective,
        assign=_assign,
        decays=decays,
        layers=layers,
        class_layers=lambda h, params: dense_layers(params.classifier),
    )


_ANY = float("inf")

ENTRY = MethodEntry(
    name="rono",
    summary="Samples are led to the centre of their given class, and later away from it if they are not closer to it "
    "than to the mean of all centres. A classifier has the mean absolute error; a contrastive loss joins modalities.",
    source="Feng et al., RONO: Robust Discriminative Learning with Noisy Labels for 2D-3D Cross-Modal Retrieval, "
    "CVPR 2023",
    equation=r"L = \tfrac{1}{M N} \sum_{i,j} \left( (1 - v) \tfrac{1}{a} d_j^i - "
    r"v \tfrac{1}{a} \lvert d_j^i + \alpha \rvert \right) + \gamma \, \tfrac{1}{N} \sum_{i,j} (1 - p(y_j^i \mid z_j^i))"
    r" + L_c, \quad d_j^i = \exp(z_j^{i\top} \bar c) - \exp(z_j^{i\top} c_{y_j^i})",
    cost="as mrl",
    method=lambda config: rono(),
    hyperparameters=hyperparameters,
    describe=lambda config: f"method: rono, margin {config.method_numbers['margin']:g}, seed {config.seed}",
    title=lambda config: "method rono",
    numbers={
        "margin": Number(
            0.3, 0.0, _ANY, "margin of similarity below which a sample counts as mislabelled; 0.01 on ModelNet"
        ),
        "scale": Number(0.05, 1e-3, _ANY, "divisor of the loss of the centres"),
        "warmup": Number(
            0.5, 0.0, 1.0, "share of the training until the late loss has replaced the early one; the paper: 25 of 50"
        ),
        "classifier": Number(5.0, 0.0, _ANY, "weight of the error of the classifier"),
        "contrastive": Number(1.0, 0.0, _ANY, "weight of the contrastive loss"),
        "temperature": Number(0.22, 1e-3, _ANY, "temperature of the contrastive loss"),
    },
    uses=NETWORKS | {"representation"},
    axes=("method", "noise_rate", "learning_rate", "seed"),
    remedy="try a lower learning rate, or a larger scale",
)
"""What the registry knows of the method `rono`."""
