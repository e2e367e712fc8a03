r"""RSHNL (Pu et al., AAAI 2025) with real-valued embeddings: a bounded loss, and self-paced weights of the instances.

Class centres are the outputs of a network for the one-hot classes. From the sixth epoch on an instance counts by the
weight that a self-paced regulariser finds: the greater the loss of its labels, the less. A contrastive loss under the
same bounded function brings the modalities of an instance together.

The published method is a hash: its encoders end with a tanh, and their signs are compared. Here the encoders are those
of all methods, without signs, and only the network of the centres has the tanh. The published code has batches of 256
instances and both temperatures 1; here batches and temperatures are those of all methods.

Shape letters: M modalities, B batch, L embedding, K classes.
"""

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from mrl_jax.losses.contrastive import contrastive_loss, masked_rows
from mrl_jax.losses.mrl import label_log_probability, log_soft_assignment
from mrl_jax.methods.base import Method, MethodEntry
from mrl_jax.methods.class_centers import decays, embed, layers, scores_of
from mrl_jax.methods.deep.parts import NETWORKS, Hyperparameters, bounded, hyperparameters, network, present
from mrl_jax.methods.gradient import gradient_method
from mrl_jax.methods.state import Batch, Shapes, instance_count
from mrl_jax.options import Number
from mrl_jax.unit_rows import unit_rows

if TYPE_CHECKING:
    from mrl_jax.config import Config

__all__ = ["ENTRY", "Weights", "centers_of", "gamma_of", "paced_losses", "rshnl"]

_CLASSES, _GAMMAS = (1.0, 10.0, 20.0, 100.0, 200.0), (0.0, 3.0, 5.0, 8.0, 9.0)  # of the data of the paper, and 0


class Weights(NamedTuple):
    """The trained model.

    Attributes:
        encoders: networks, one per modality.
        classes: network from one-hot classes [K, K] to centres.
    """

    encoders: tuple[Any, ...]
    classes: Any


def gamma_of(classes: int) -> float:
    """The loss of a pair from which on its weight is 0, by the number of classes K.

    The paper's are 3, 5, 8 and 9 for its data of 10, 20, 100 and 200 classes; between them and below they are linear in
    log K. (Its code has 4 for the first.) They lie below 2 log K, the loss of a pair at equal probabilities: an
    instance counts once its labels fit better than that.

    Example:
        >>> [round(gamma_of(k), 2) for k in (3, 10, 50, 200)]
        [1.43, 3.0, 6.71, 9.0]
    """
    return max(float(np.interp(np.log(classes), np.log(_CLASSES), _GAMMAS)), 0.1)  # with one class all losses are 0


def paced_losses(losses: Array, valid: Array, gamma: ArrayLike, paced: ArrayLike) -> tuple[Array, Array]:
    r"""Losses of instances with self-paced weights: $w \ell + \gamma (\tfrac{1}{2} w^2 - w)$ at its minimum in w.

    $$w = \max(0, 1 - \ell / \gamma)$$

    $\ell$ is the sum over the samples of an instance, and w has no gradient. gamma is for two samples; it grows with
    their number.

    Args:
        losses: of the samples, [M, B].
        valid: which samples count, bool [M, B].
        gamma: loss of two samples from which on the weight is 0.
        paced: False for weights of 1 and no regulariser, as in the first epochs.

    Returns:
        Losses and weights of the instances, [B]; 0 where no sample counts.
    """
    of_instance = jnp.where(valid, losses, 0.0).sum(axis=0)
    count = valid.sum(axis=0)
    limit = 0.5 * gamma * jnp.maximum(count, 1)
    weight = jnp.maximum(1.0 - jax.lax.stop_gradient(of_instance) / limit, 0.0)
    regular = limit * (0.5 * weight * weight - weight)
    weight, regular = jnp.where(paced, weight, 1.0), jnp.where(paced, regular, 0.0)
    there = count > 0
    return jnp.where(there, weight * of_instance + regular, 0.0), jnp.where(there, weight, 0.0)


def centers_of(h: Hyperparameters, params: Weights, axis_name: str | None = None) -> Array:
    """Class centres, unit rows [K, L]: the network of the classes with tanh."""
    classes = jnp.eye(params.classes["params"]["Dense_0"]["kernel"].shape[0])
    # A gradient in parameters that vary over devices takes inputs that do, too.
    classes = classes if axis_name is None else jax.lax.pcast(classes, axis_name, to="varying")
    out: Array = network(h, unit=False).apply(params.classes, classes)  # type: ignore[assignment]
    return unit_rows(jnp.tanh(out))


def _init_params(h: Hyperparameters, key: Array, shapes: Shapes) -> Weights:
    keys = jax.random.split(key, len(shapes.dims) + 1)
    widths = (*shapes.dims, shapes.classes)
    *encoders, classes = (network(h).init(k, jnp.zeros((1, d))) for k, d in zip(keys, widths, strict=True))
    return Weights(tuple(encoders), classes)


def _objective(
    h: Hyperparameters, params: Weights, batch: Batch, epoch: ArrayLike, axis_name: str | None
) -> tuple[Array, tuple[dict[str, Array], None]]:
    valid, q = present(batch), h["q"]
    z, _ = masked_rows(jnp.stack([embed(h, params, i, x) for i, x in enumerate(batch.features)]), valid)
    centers = centers_of(h, params, axis_name)
    gamma = dict(h.numbers).get("gamma", gamma_of(len(centers)))
    log_p = label_log_probability(log_soft_assignment(z, centers, h.tau1), jnp.where(valid, batch.labels, 0))
    losses, weights = paced_losses(bounded(-log_p, q), valid, gamma, jnp.asarray(epoch) >= h["warmup"])
    pairs = bounded(contrastive_loss(z, h.tau2, valid, axis_name=axis_name), q)
    count = jnp.maximum(instance_count(batch.mask, axis_name), 1)
    clustering, contrastive, weight = (x.sum() / count for x in (losses, pairs, weights))
    metrics = {"clustering": clustering, "contrastive": contrastive, "weight": weight}
    return clustering + h["alpha"] * contrastive, (metrics, None)


def _assign(h: Hyperparameters, params: Weights, z: Array) -> Array:
    return log_soft_assignment(z, centers_of(h, params), h.tau1)


@functools.cache
def rshnl() -> Method:
    """RSHNL of two modalities or more; the published one has two."""
    return gradient_method(
        "method rshnl",
        init_params=_init_params,
        embed=embed,
        objective=_objective,
        assign=_assign,
        decays=decays,
        layers=layers,
        class_layers=lambda h, params: scores_of(centers_of(h, params), h.tau1),
    )


def _describe(config: "Config") -> str:
    alpha, tau1, tau2 = config.method_numbers["alpha"], config.tau1, config.tau2
    return f"method: rshnl, alpha {alpha:g}, tau1 {tau1:.3g}, tau2 {tau2:.3g}, seed {config.seed}"


ENTRY = MethodEntry(
    name="rshnl",
    summary="A bounded loss, under which instances count by a self-paced weight after the first epochs: the less, the "
    "worse their labels fit. Class centres are outputs of a network. The published method is a hash; here embeddings "
    "are real numbers.",
    source="Pu et al., Robust Self-Paced Hashing for Cross-Modal Retrieval with Noisy Labels, AAAI 2025",
    equation=r"L = \tfrac{1}{N} \sum_j \left( w_j \ell_j + \gamma (\tfrac{1}{2} w_j^2 - w_j) \right) + "
    r"\tfrac{\alpha}{N} \sum_{i,j} \ell(P(j \mid x_j^i)), \quad w_j = \max(0, 1 - \ell_j / \gamma), \quad "
    r"\ell_j = \sum_i \ell(p(y_j^i \mid x_j^i))",
    cost="as mrl, and a network for the classes",
    method=lambda config: rshnl(),
    hyperparameters=hyperparameters,
    describe=_describe,
    title=lambda config: f"method rshnl, alpha {config.method_numbers['alpha']:g}",
    numbers={
        "alpha": Number(0.05, 0.0, float("inf"), "weight of the contrastive loss; the paper's: 0.05 to 0.3"),
        "gamma": Number(
            None, 1e-3, float("inf"), "loss of a pair from which on its weight is 0; auto: the paper's, by classes"
        ),
        "q": Number(0.01, 1e-3, 1.0, "exponent of p in the bounded loss"),
        "warmup": Number(5.0, 0.0, float("inf"), "epochs in which all instances count alike"),
    },
    uses=NETWORKS | {"tau1", "tau2", "representation"},
    axes=("method", "noise_rate", "tau1", "tau2", "learning_rate", "seed"),
    remedy="try a lower learning rate, a higher temperature, or --clip-norm 1",
)
"""What the registry knows of the method `rshnl`."""
