r"""Deep supervised cross-modal retrieval (Zhen et al. 2019): a last layer and a classifier that all modalities share.

The outputs are classified by a linear map without softmax, samples of one class are drawn together within and between
the modalities, and so are the samples of an instance.

The original has one hidden layer of 2048 units per modality, a shared layer of 1024, batches of 100, and 500 epochs.
Here the settings decide: the hidden layers stand per modality, the last layer, to `embed_dim`, is shared.

The paper's first and third term are Frobenius norms divided by n, and its classifier has no offset; the public code has
means of the norms of rows, and an offset. Here are the means of the code, which do not shrink with the batch, and the
classifier of the paper, so that the class of an output depends on its direction alone, by which it is retrieved.

Shape letters: M modalities, B batch, H last hidden layer, L embedding, K classes.
"""

import functools
import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from mrl_jax.errors import InputError
from mrl_jax.methods.base import Method, MethodEntry
from mrl_jax.methods.class_centers import scores_of
from mrl_jax.methods.deep.parts import (
    NETWORKS,
    Hyperparameters,
    hyperparameters,
    mean_distance,
    of_whole_batch,
    present,
)
from mrl_jax.methods.gradient import gradient_method
from mrl_jax.methods.state import Batch, Shapes
from mrl_jax.models.mlp import Encoder, dense_layers
from mrl_jax.options import Number
from mrl_jax.unit_rows import unit_rows

if TYPE_CHECKING:
    from mrl_jax.config import Config

__all__ = ["ENTRY", "Weights", "dscmr", "dscmr_terms"]


class Weights(NamedTuple):
    """The trained model.

    Attributes:
        encoders: hidden layers, one network per modality.
        shared: the last layer of all modalities.
        classifier: P [L, K].
    """

    encoders: tuple[Any, ...]
    shared: Any
    classifier: Array


def dscmr_terms(u: Array, scores: Array, labels: Array, valid: Array) -> tuple[Array, Array, Array]:
    r"""The three terms of the loss (eq. 3, 7 and 8 of Zhen et al.), for any number of modalities.

    $$\sum_a \tfrac{1}{n} \sum_j \lVert P^\top u_j^a - e_{y_j^a} \rVert, \quad
    \sum_{a \le b} \tfrac{1}{n^2} \sum_{j,l} \log(1 + e^{G_{jl}^{ab}}) - S_{jl}^{ab} G_{jl}^{ab}, \quad
    \sum_{a < b} \tfrac{1}{n} \sum_j \lVert u_j^a - u_j^b \rVert$$

    with $G_{jl}^{ab} = \tfrac{1}{2} \cos(u_j^a, u_l^b)$, and $S_{jl}^{ab} = 1$ for samples of one class, else 0.

    Args:
        u: outputs of the shared layer, [M, B, L].
        scores: those of the classifier, [M, B, K].
        labels: given labels [M, B]; those of samples that do not count may be any number.
        valid: samples that count, bool [M, B].

    Returns:
        The terms before weighting: classes, pairs, and distance of the modalities.
    """
    targets = jax.nn.one_hot(jnp.where(valid, labels, 0), scores.shape[-1])
    of_each = range(len(u))
    classes = jnp.stack([mean_distance(scores[a], targets[a], valid[a]) for a in of_each]).sum()
    unit = unit_rows(u)
    pairs = []
    for a, b in itertools.combinations_with_replacement(of_each, 2):
        half = 0.5 * jnp.dot(unit[a], unit[b].T, precision="highest")
        same = labels[a][:, None] == labels[b][None]
        both = valid[a][:, None] & valid[b][None]
        losses = jnp.where(both, jax.nn.softplus(half) - jnp.where(same, half, 0.0), 0.0)
        pairs.append(losses.sum() / jnp.maximum(both.sum(), 1))
    apart = [mean_distance(u[a], u[b], valid[a] & valid[b]) for a, b in itertools.combinations(of_each, 2)]
    return classes, jnp.stack(pairs).sum(), jnp.stack(apart).sum()


def _hidden(h: Hyperparameters) -> Encoder:
    return Encoder(h.hidden_dims[:-1], h.hidden_dims[-1], h.initializer, h.precision, unit=False)


def _shared(h: Hyperparameters) -> Encoder:
    return Encoder((), h.embed_dim, h.initializer, h.precision, unit=False)


def _init_params(h: Hyperparameters, key: Array, shapes: Shapes) -> Weights:
    keys = jax.random.split(key, len(shapes.dims) + 2)
    encoders = tuple(_hidden(h).init(k, jnp.zeros((1, d))) for k, d in zip(keys[2:], shapes.dims, strict=True))
    shared = _shared(h).init(keys[0], jnp.zeros((1, h.hidden_dims[-1])))
    layer = Encoder((), shapes.classes, h.initializer).init(keys[1], jnp.zeros((1, h.embed_dim)))
    return Weights(encoders, shared, layer["params"]["Dense_0"]["kernel"])


def _outputs(h: Hyperparameters, params: Weights, modality: int, x: Array) -> Array:
    hidden: Array = _hidden(h).apply(params.encoders[modality], x)  # type: ignore[assignment]
    u: Array = _shared(h).apply(params.shared, jax.nn.relu(hidden))  # type: ignore[assignment]
    return u


def _embed(h: Hyperparameters, params: Weights, modality: int, x: Array) -> Array:
    return unit_rows(_outputs(h, params, modality, x))


def _objective(
    h: Hyperparameters, params: Weights, batch: Batch, epoch: ArrayLike, axis_name: str | None
) -> tuple[Array, tuple[dict[str, Array], None]]:
    u = jnp.stack([_outputs(h, params, i, x) for i, x in enumerate(batch.features)], axis=1)
    scores = jnp.dot(u, params.classifier, precision="highest")

    def loss(u: Array, scores: Array, labels: Array, valid: Array) -> tuple[Array, dict[str, Array]]:
        classes, pairs, apart = dscmr_terms(u.swapaxes(0, 1), scores.swapaxes(0, 1), labels.T, valid.T)
        total = classes + h["discrimination"] * pairs + h["invariance"] * apart
        return total, {"classes": classes, "pairs": pairs, "distance": apart}

    total, metrics = of_whole_batch(loss, axis_name, u, scores, batch.labels.T, present(batch).T)
    return total, (metrics, None)


def _assign(h: Hyperparameters, params: Weights, z: Array) -> Array:
    """Softmax of the scores of the scaled classifier."""
    return jax.nn.log_softmax(jnp.dot(z, _scaled(params.classifier), precision="highest") / h.tau1, axis=-1)


def _scaled(p: Array) -> Array:
    """The classifier [L, K], scaled so that its directions have length 1 in the mean square."""
    return jax.lax.rsqrt(jnp.maximum(jnp.square(p).sum() / p.shape[1], jnp.finfo(p.dtype).tiny)) * p


def _layers(h: Hyperparameters, params: Weights, modality: int) -> list[tuple[Array, Array]]:
    return [*dense_layers(params.encoders[modality]), *dense_layers(params.shared)]


@functools.cache
def dscmr() -> Method:
    """The method."""
    return gradient_method(
        "method dscmr",
        init_params=_init_params,
        embed=_embed,
        objective=_objective,
        assign=_assign,
        layers=_layers,
        class_layers=lambda h, params: scores_of(_scaled(params.classifier).T, h.tau1),
    )


def _check(config: "Config") -> None:
    if not config.hidden_dims:
        raise InputError(
            "method dscmr shares the last layer; give hidden_dims at least one layer per modality below it"
        )


_ANY = float("inf")

ENTRY = MethodEntry(
    name="dscmr",
    summary="Hidden layers per modality, then a last layer and a linear classifier that are shared. Samples of one "
    "given class are drawn together within and between the modalities, and so are the samples of an instance.",
    source="Zhen et al., Deep Supervised Cross-Modal Retrieval, CVPR 2019",
    equation=r"L = \tfrac{1}{N} \sum_{i,j} \lVert P^\top u_j^i - e_{y_j^i} \rVert "
    r"+ \tfrac{\lambda}{N^2} \sum_{i \le l} \sum_{j,t} \left( \log(1 + e^G) - S G \right) "
    r"+ \tfrac{\eta}{N} \sum_{i < l} \sum_j \lVert u_j^i - u_j^l \rVert "
    r"\quad \text{with} \quad G = \tfrac{1}{2} \cos(u_j^i, u_t^l), \quad S = [y_j^i = y_t^l]",
    cost="the similarities of all samples of a batch",
    method=lambda config: dscmr(),
    hyperparameters=hyperparameters,
    describe=lambda config: (
        f"method: dscmr, discrimination {config.method_numbers['discrimination']:g}, invariance "
        f"{config.method_numbers['invariance']:g}, seed {config.seed}"
    ),
    title=lambda config: "method dscmr",
    numbers={
        "discrimination": Number(1e-3, 0.0, _ANY, "weight of the similarities of pairs of samples, lambda"),
        "invariance": Number(1e-1, 0.0, _ANY, "weight of the distances of the samples of an instance, eta"),
    },
    uses=NETWORKS | {"tau1", "representation"},
    axes=("method", "noise_rate", "learning_rate", "seed"),
    check=_check,
    remedy="check the features for extreme values, or try a lower learning rate",
)
"""What the registry knows of the method `dscmr`."""
