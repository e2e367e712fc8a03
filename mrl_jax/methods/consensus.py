r"""Consensus: infer the posterior of the true class before training, and train all modalities of an instance on it.

The networks, the centres and the contrastive loss are those of MRL. In place of the given labels, the clustering loss
has the posterior q that `label_inference` finds: from the given labels of an instance, and from the votes of all other
instances in the space of the features, which no label has shaped. q stays as it is during training, so that the
network cannot talk itself into the noise.

Shape letters: M modalities, N training instances, B batch, L embedding, K classes.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from mrl_jax.label_inference.posterior import infer_labels
from mrl_jax.label_inference.votes import vote_kernel
from mrl_jax.losses.mrl import log_soft_assignment
from mrl_jax.methods.augmentation import AUGMENTATION, augment
from mrl_jax.methods.base import Method, MethodEntry
from mrl_jax.methods.class_centers import (
    assign,
    class_layers,
    decays,
    embed,
    embed_all,
    init_params,
    layers,
    project,
    total_loss,
)
from mrl_jax.methods.gradient import SETTINGS, gradient_method
from mrl_jax.methods.mrl import Hyperparameters, hyperparameters
from mrl_jax.methods.state import Batch, Shapes, TrainData

__all__ = ["ENTRY", "NUMBERS", "consensus", "hidden_dropout_of"]


def _init_samples(h: Hyperparameters, shapes: Shapes) -> Array:
    """The posterior before it is inferred: every class alike, [N, K]."""
    if shapes.instances < 1:
        raise ValueError("method consensus keeps a posterior of every training instance; give num_instances")
    return jnp.full((shapes.instances, shapes.classes), 1.0 / shapes.classes, jnp.float32)


def _prepare(h: Hyperparameters, data: TrainData, shapes: Shapes, shared: dict[str, Any]) -> Array:
    """The posterior of every training instance, [N, K]."""
    labels, mask = np.asarray(data.labels), None if data.mask is None else np.asarray(data.mask)
    moved = data.partners is not None  # features then depend on the noise
    kernel = None if moved else shared.get("vote_kernel")
    if kernel is None:
        kernel = vote_kernel(data.features, mask)
        if not moved:
            shared["vote_kernel"] = kernel
    return infer_labels(kernel, labels, shapes.classes, mask).posterior


def _objective(
    h: Hyperparameters, params: Any, batch: Batch, epoch: ArrayLike, axis_name: str | None
) -> tuple[Array, tuple[dict[str, Array], Any]]:
    r"""$\beta$ times the weighted cross-entropy of q, and $1 - \beta$ times the contrastive loss."""
    others = None if batch.partners is None else _cross_entropy(batch.partners.samples)
    z = embed_all(h, params, batch)
    total, metrics = total_loss(h, params, batch, z, _cross_entropy(batch.samples), axis_name, others)
    return total, (metrics, None)


def _cross_entropy(posterior: Array) -> Callable[..., Array]:
    """Cross-entropy of the posterior [B, K], weighted by its highest probability."""
    q = posterior[None]  # all modalities of an instance have one truth

    def loss(z: Array, centers: Array, labels: Array, tau: ArrayLike) -> Array:
        return -(q * log_soft_assignment(z, centers, tau)).sum(axis=-1) * q.max(axis=-1)

    return loss


@functools.cache
def consensus() -> Method:
    """The method; its hyperparameters are those of MRL, whose `loss` has no effect here."""
    return gradient_method(
        "method consensus",
        init_params=init_params,
        embed=embed,
        objective=_objective,
        project=project,
        augment=augment,
        init_samples=_init_samples,
        prepare=_prepare,
        assign=assign,
        decays=decays,
        layers=layers,
        class_layers=class_layers,
    )


_AUTO = "; auto: 0 up to 1,000 steps, then 0.15 more with every doubling, 0.3 at most"
NUMBERS = {
    "dropout": AUGMENTATION["dropout"]._replace(default=0.35),
    "hidden_dropout": AUGMENTATION["hidden_dropout"]._replace(
        default=None, help=AUGMENTATION["hidden_dropout"].help + _AUTO
    ),
    "mixup": AUGMENTATION["mixup"]._replace(default=0.5),
}
"""The method's own numbers, which `--method-options` sets: name -> default, range and help."""


def hidden_dropout_of(steps: int) -> float:
    """The default dropout of hidden units: 0 up to 1,000 steps, then 0.15 more with every doubling, 0.3 at most.

    A short run learns less with it, and a long one without it fits its training instances alone.

    Example:
        >>> [round(hidden_dropout_of(steps), 3) for steps in (900, 2000, 3000, 10_000)]
        [0.0, 0.15, 0.238, 0.3]
    """
    return min(max(0.15 * math.log2(steps / 1000), 0.0), 0.3)


def _for_steps(h: Hyperparameters, steps: int) -> Hyperparameters:
    return dataclasses.replace(h, hidden_dropout=hidden_dropout_of(steps)) if h.hidden_dropout is None else h


ENTRY = MethodEntry(
    name="consensus",
    summary="Infers the true class of every training instance from its given labels and the votes of all others, and "
    "trains all modalities of the instance on that posterior. It needs no noise rate and no clean label.",
    source="this package; annotators as in Dawid and Skene, Applied Statistics 1979",
    equation=r"\beta \, \tfrac{1}{N} \sum_{i,j} \max_k q_j(k) \left( -\sum_k q_j(k) \log p(k \mid x_j^i) \right) "
    r"- (1 - \beta) \, \tfrac{1}{N} \sum_{i,j} \log P(j \mid x_j^i)",
    cost="as mrl; once before training the inference of the labels, whose time grows with N, without an N x N matrix",
    method=lambda config: consensus(),
    hyperparameters=hyperparameters,
    for_steps=_for_steps,
    describe=lambda config: (
        f"method: consensus, beta {config.beta:g}, tau1 {config.tau1:.3g}, tau2 {config.tau2:.3g}, seed {config.seed}"
    ),
    title=lambda config: f"consensus, beta {config.beta:g}",
    numbers=NUMBERS,
    uses=frozenset(
        {
            *SETTINGS,
            *("hidden_dims", "embed_dim", "initializer", "precision", "representation"),
            *("beta", "tau1", "tau2", "self_similarity", "contrastive_scale"),
        }
    ),
    representation="both",
    keeps="last",
    axes=("method", "noise_rate", "beta", "tau1", "tau2", "learning_rate", "seed"),
    memorises="train fewer epochs, or with more dropout",
    remedy="try a lower learning rate, a higher temperature, or --clip-norm 1",
)
"""What the registry knows of the method `consensus`."""
