r"""FGCrossNet (He et al. 2019): one network for all modalities, whose outputs are the scores of the classes.

Cross-entropy tells classes apart, a centre of each class pulls its samples together, and quadruplets keep different
classes at a distance. Training has two stages: the quadruplets join in the second one.

The paper sends pixels, spectrograms and texts of one size through one ResNet. Frozen features have unequal widths, so
each modality has a first hidden layer of its own here; all further layers and the class layer are shared. The paper has
SGD with momentum at 1e-3, halved every 3 epochs, and batches of 4; optimiser and batch here are those of all methods.

The public program takes all quadruplets of its 16 samples. Their number grows with the fourth power of the batch, so
here every sample is the anchor of one quadruplet, drawn anew in every step.

Shape letters: M modalities, B batch, D features, K classes and outputs, S samples.
"""

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from mrl_jax.errors import InputError
from mrl_jax.losses.mrl import label_log_probability
from mrl_jax.methods.base import Method, MethodEntry
from mrl_jax.methods.class_centers import decays, scores_of
from mrl_jax.methods.deep.parts import NETWORKS, Hyperparameters, hyperparameters, of_whole_batch, present
from mrl_jax.methods.gradient import gradient_method
from mrl_jax.methods.state import Batch, Shapes
from mrl_jax.models.dropout import instance_keys
from mrl_jax.models.mlp import Encoder, dense_layers
from mrl_jax.options import Number
from mrl_jax.unit_rows import unit_rows

if TYPE_CHECKING:
    from mrl_jax.config import Config

__all__ = ["ENTRY", "Weights", "center_loss", "draw_quadruplets", "fgcrossnet", "ranking_loss"]

_DRAWS = 6  # of a sample in a step: its place, and where its search starts, for each other member of a quadruplet


class Weights(NamedTuple):
    """The trained model.

    Attributes:
        encoders: first hidden layers, one per modality.
        shared: all further layers, to the K outputs.
        centers: centres of the classes in the space of the outputs, [K, K].
    """

    encoders: tuple[Any, ...]
    shared: Any
    centers: Array


def center_loss(outputs: Array, labels: Array, valid: Array, centers: Array) -> Array:
    r"""Squared distance of a sample from the centre of its class, the mean over samples: $\lVert o - c_y \rVert^2$.

    The public program scales the gradient of the centres up again, which Adam ignores.

    Args:
        outputs: [S, K].
        labels: given labels, int32 [S], each 0..K-1.
        valid: samples that count, bool [S].
        centers: [K, K].
    """
    squared = ((outputs - centers[labels]) ** 2).sum(axis=1)
    return jnp.where(valid, squared, 0.0).sum() / jnp.maximum(valid.sum(), 1)


def draw_quadruplets(labels: Array, valid: Array, draws: Array) -> tuple[Array, Array]:
    """Draw a quadruplet for every sample: a positive of its class, and two negatives of two other classes.

    Every sample has a random place on a circle and every anchor a random start; the next sample that is eligible is
    taken. This draws uniformly, and the same on any number of devices.

    Args:
        labels: given labels, int32 [S]; any number where a sample does not count.
        valid: samples that count, bool [S].
        draws: numbers in [0, 1), [S, 6].

    Returns:
        Positive, first and second negative of every anchor, int32 [3, S], and whether it has them all, bool [S].
    """
    both = valid[:, None] & valid[None, :]
    same = labels[:, None] == labels[None, :]

    def draw(member: int, eligible: Array) -> tuple[Array, Array]:
        ahead = (draws[None, :, 2 * member] - draws[:, None, 2 * member + 1]) % 1.0
        return jnp.where(eligible, ahead, 2.0).argmin(axis=1), eligible.any(axis=1)

    positive, has_positive = draw(0, both & same & ~jnp.eye(len(labels), dtype=bool))
    first, has_first = draw(1, both & ~same)
    second, has_second = draw(2, both & ~same & ~same[first])
    return jnp.stack([positive, first, second]), has_positive & has_first & has_second


def ranking_loss(
    outputs: Array, quadruplets: Array, valid: Array, margin: ArrayLike, margin_negatives: ArrayLike
) -> Array:
    r"""Ranking of quadruplets by Euclidean distances d, the mean over those that are violated.

    $$[d(a, p) - d(a, n_1) + m_1 + d(a, p) - d(n_1, n_2) + m_2]_+$$

    Args:
        outputs: [S, K].
        quadruplets: int32 [3, S], see `draw_quadruplets`.
        valid: anchors that count, bool [S].
        margin: m_1.
        margin_negatives: m_2.
    """
    positive, first, second = (outputs[rows] for rows in quadruplets)
    near, far, apart = _distance(outputs, positive), _distance(outputs, first), _distance(first, second)
    losses = jnp.where(valid, jax.nn.relu(2.0 * near - far - apart + margin + margin_negatives), 0.0)
    return losses.sum() / jnp.maximum((losses > 0).sum(), 1)


def _distance(x: Array, y: Array) -> Array:
    """Euclidean distances of rows, [S]; the gradient of a distance of 0 is 0."""
    squared = ((x - y) ** 2).sum(axis=1)
    return jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1.0)), 0.0)


def _first(h: Hyperparameters) -> Encoder:
    return Encoder((), h.hidden_dims[0], h.initializer, h.precision, unit=False)


def _shared(h: Hyperparameters, classes: int) -> Encoder:
    return Encoder(h.hidden_dims[1:], classes, h.initializer, h.precision, unit=False)


def _init_params(h: Hyperparameters, key: Array, shapes: Shapes) -> Weights:
    *keys, of_shared, of_centers = jax.random.split(key, len(shapes.dims) + 2)
    encoders = tuple(_first(h).init(k, jnp.zeros((1, d))) for k, d in zip(keys, shapes.dims, strict=True))
    shared = _shared(h, shapes.classes).init(of_shared, jnp.zeros((1, h.hidden_dims[0])))
    return Weights(encoders, shared, jax.random.normal(of_centers, (shapes.classes, shapes.classes)))


def _outputs(h: Hyperparameters, params: Weights, modality: int, x: Array) -> Array:
    first: Array = _first(h).apply(params.encoders[modality], x)  # type: ignore[assignment]
    scores: Array = _shared(h, len(params.centers)).apply(params.shared, jax.nn.relu(first))  # type: ignore[assignment]
    return scores


def _embed(h: Hyperparameters, params: Weights, modality: int, x: Array) -> Array:
    return unit_rows(_outputs(h, params, modality, x))


def _assign(h: Hyperparameters, params: Weights, z: Array) -> Array:
    """The order of the classes; their probabilities are flat, as a unit row has lost the scale of the scores."""
    return jax.nn.log_softmax(z, axis=-1)


def _layers(h: Hyperparameters, params: Weights, modality: int) -> list[tuple[Array, Array]]:
    return [*dense_layers(params.encoders[modality]), *dense_layers(params.shared)]


def _with_keys(h: Hyperparameters, batch: Batch, step: Array, axis_name: str | None) -> Batch:
    if batch.rows is None:
        raise ValueError("method fgcrossnet draws quadruplets by the number of every instance; give Batch(rows=…)")
    return batch._replace(keys=instance_keys(batch.rows, step))


def _objective(
    h: Hyperparameters, params: Weights, batch: Batch, epoch: ArrayLike, axis_name: str | None
) -> tuple[Array, tuple[dict[str, Array], None]]:
    def loss(outputs: Any, labels: Array, valid: Array, draws: Array) -> tuple[Array, dict[str, Array]]:
        instances = jnp.maximum(valid.any(axis=1).sum(), 1)
        samples = jnp.stack(outputs, axis=1).reshape(valid.size, -1)  # [S, K] with S = B M
        on, draws = valid.reshape(-1), draws.reshape(-1, _DRAWS)
        y = jnp.where(on, labels.reshape(-1), 0)
        log_p = label_log_probability(jax.nn.log_softmax(samples, axis=-1), y)
        label = -jnp.where(on, log_p, 0.0).sum() / instances
        center = center_loss(samples, y, on, params.centers)
        quadruplets, complete = draw_quadruplets(y, on, draws)
        ranking = ranking_loss(samples, quadruplets, complete, h["margin"], h["margin_negatives"])
        joins = jnp.asarray(epoch) >= h["ranking_start"] * h.epochs
        total = label + h["center"] * center + jnp.where(joins, h["ranking"], 0.0) * ranking
        return total, {"label": label, "center": center, "ranking": ranking}

    outputs = [_outputs(h, params, i, x) for i, x in enumerate(batch.features)]
    assert batch.keys is not None
    draws = jax.vmap(lambda key: jax.random.uniform(key, (len(outputs), _DRAWS)))(batch.keys)
    total, metrics = of_whole_batch(loss, axis_name, outputs, batch.labels.T, present(batch).T, draws)
    return total, (metrics, None)


@functools.cache
def fgcrossnet() -> Method:
    """FGCrossNet of two modalities or more."""
    return gradient_method(
        "method fgcrossnet",
        init_params=_init_params,
        embed=_embed,
        objective=_objective,
        augment=_with_keys,
        assign=_assign,
        decays=decays,
        layers=_layers,
        class_layers=lambda h, params: scores_of(jnp.eye(len(params.centers))),
    )


def _check(config: "Config") -> None:
    if not config.hidden_dims:
        raise InputError("method fgcrossnet: its modalities share all layers but the first; give --hidden-dims")


ENTRY = MethodEntry(
    name="fgcrossnet",
    summary="One network for all modalities; each has only its first hidden layer for itself. Class scores are the "
    "common space: cross-entropy, class centres, and in a second stage the ranking of sampled quadruplets.",
    source="He et al., A New Benchmark and Approach for Fine-grained Cross-media Retrieval, ACM Multimedia 2019",
    equation=r"L = - \tfrac{1}{N} \sum_{i,j} \log p(y_j^i \mid x_j^i) "
    r"+ \tfrac{a}{M N} \sum_{i,j} \lVert o_j^i - c_{y_j^i} \rVert^2 "
    r"+ \tfrac{b}{|Q|} \sum_{Q} [2 d(a, p) - d(a, n_1) - d(n_1, n_2) + m_1 + m_2]_+",
    cost="comparisons of all samples of a batch, to draw quadruplets",
    method=lambda config: fgcrossnet(),
    hyperparameters=hyperparameters,
    describe=lambda config: (
        f"method: fgcrossnet, center {config.method_numbers['center']:g}, ranking "
        f"{config.method_numbers['ranking']:g} from {config.method_numbers['ranking_start']:g} of the epochs on, "
        f"seed {config.seed}"
    ),
    title=lambda config: "method fgcrossnet",
    numbers={
        "center": Number(0.001, 0.0, float("inf"), "weight a of the squared distances from the centres"),
        "ranking": Number(0.1, 0.0, float("inf"), "weight b of the ranking"),
        "ranking_start": Number(0.5, 0.0, 1.0, "share of the epochs after which the ranking joins"),
        "margin": Number(1.0, 0.0, float("inf"), "margin m_1 of the positive against the first negative"),
        "margin_negatives": Number(0.5, 0.0, float("inf"), "margin m_2 of the positive against the two negatives"),
    },
    uses=NETWORKS - {"embed_dim"} | {"representation"},
    check=_check,
    axes=("method", "noise_rate", "learning_rate", "seed"),
    remedy="try a lower learning rate, or --clip-norm 1",
)
"""What the registry knows of the method `fgcrossnet`."""
