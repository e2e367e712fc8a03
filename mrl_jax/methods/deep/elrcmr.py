r"""ELRCMR (Xu et al., ACM MM 2022): MRL with early-learning regularisation and a clustering loss that fades.

The robust clustering loss of MRL gets a regulariser that holds the prediction of a sample to the average of its earlier
ones, one average per modality. The contrastive loss gets a contrast inside every modality, between samples of the same
predicted class. The weight of the clustering part falls to 0, before the centres drift towards wrong labels.

In the paper the weight falls over T steps of training: 3,000 on Wikipedia, 10,000 on INRIA-Websearch and 50,000 on
XMediaNet, which are 1.4, 1.1 and 7.8 times its training there. Here T is a multiple of the training, by default the
first of these, and the weight changes between epochs. The paper has beta .75 on Wikipedia and 1 on the others, both
temperatures 1, and batches of 100 or 500. The average of weights that it announces has no effect in its code and is
left out.

Shape letters: M modalities, N training instances, B batch, L embedding, K classes.
"""

import functools
from typing import TYPE_CHECKING

import jax.numpy as jnp
from jax import Array
from jax.scipy.special import logsumexp
from jax.typing import ArrayLike

from mrl_jax.losses.contrastive import contrastive_loss, masked_rows
from mrl_jax.losses.mrl import log_soft_assignment, robust_clustering_loss
from mrl_jax.losses.robust.early_learning import ema_targets
from mrl_jax.methods.base import Method, MethodEntry
from mrl_jax.methods.class_centers import (
    Weights,
    assign,
    class_layers,
    decays,
    embed,
    embed_all,
    init_params,
    layers,
    project,
)
from mrl_jax.methods.deep.parts import NETWORKS, Hyperparameters, hyperparameters, of_whole_batch, present
from mrl_jax.methods.gradient import gradient_method
from mrl_jax.methods.state import Batch, Shapes, instance_count
from mrl_jax.options import Number

if TYPE_CHECKING:
    from mrl_jax.config import Config

__all__ = ["ENTRY", "beta_at", "class_contrast", "elrcmr", "regulariser"]

_EDGE = 1e-4  # distance of targets from 1, as in the loss elr


def beta_at(h: Hyperparameters, epoch: ArrayLike) -> Array:
    r"""Weight of the clustering part in an epoch e of E: $\beta (1 - \exp(-5 (1 - \min(e / (r E), 1))^2))$.

    Args:
        h: hyperparameters with `beta`, `epochs` and the number `ramp`, r.
        epoch: its number, from 0.
    """
    progress = jnp.minimum(jnp.asarray(epoch) / (h["ramp"] * h.epochs), 1.0)
    return jnp.asarray(h.beta) * -jnp.expm1(-5.0 * (1.0 - progress) ** 2)


def regulariser(log_p: Array, targets: Array) -> Array:
    r"""Regulariser of Liu et al. (NeurIPS 2020, eq. 6) as per-sample loss: $\log(1 - \langle t, p \rangle)$.

    Args:
        log_p: log-probabilities of the classes [..., K].
        targets: averages t of a sample's predictions [..., K].

    Returns:
        Per-sample losses [...], each <= 0.
    """
    # 1 - <t, p> = sum of p_k (1 - t_k), as p sums to 1; this keeps its precision where the value is small.
    return logsumexp(log_p + jnp.log1p(-jnp.minimum(targets, 1.0 - _EDGE)), axis=-1)


def class_contrast(z: Array, classes: Array, valid: Array, tau: ArrayLike) -> Array:
    r"""Supervised contrastive loss inside one modality, as per-sample loss (Khosla et al., NeurIPS 2020, eq. 2).

    $$-\tfrac{1}{|P_j|} \sum_{l \in P_j} \log \frac{\exp(z_l^\top z_j / \tau)}
    {\sum_{t \ne j} \exp(z_t^\top z_j / \tau)}$$

    with P_j the other samples of the class of j.

    Args:
        z: embeddings, unit rows [B, L]; zero rows where a sample does not count.
        classes: classes [B], here predicted ones.
        valid: samples that count, bool [B].
        tau: temperature > 0.

    Returns:
        Per-sample losses [B], 0 for a sample that is alone in its class.
    """
    others = valid[None] & ~jnp.eye(len(z), dtype=bool)
    positive = others & (classes[:, None] == classes[None]) & valid[:, None]
    count = positive.sum(axis=1)
    alone = (count == 0)[:, None]
    similar = jnp.where(alone, 0.0, jnp.dot(z, z.T, precision="highest") / tau)
    log_all = logsumexp(jnp.where(others | alone, similar, -jnp.inf), axis=1)
    mean = jnp.where(positive, similar, 0.0).sum(axis=1) / jnp.maximum(count, 1)
    return jnp.where(count > 0, log_all - mean, 0.0)


def _init_samples(h: Hyperparameters, shapes: Shapes) -> Array:
    """Targets before the first prediction, 0: [N, M, K]."""
    if shapes.instances < 1:
        raise ValueError("method elrcmr keeps targets of every training sample; give num_instances")
    return jnp.zeros((shapes.instances, len(shapes.dims), shapes.classes), jnp.float32)


def _objective(
    h: Hyperparameters, params: Weights, batch: Batch, epoch: ArrayLike, axis_name: str | None
) -> tuple[Array, tuple[dict[str, Array], Array]]:
    z, valid = masked_rows(embed_all(h, params, batch), present(batch))
    labels = jnp.where(valid, batch.labels, 0)
    instances = jnp.maximum(instance_count(batch.mask, axis_name), 1)

    before = jnp.swapaxes(batch.samples, 0, 1)  # [M, B, K]
    targets = ema_targets(before, z, params.centers, h.tau1, momentum=h["momentum"])
    log_p = log_soft_assignment(z, params.centers, h.tau1)
    losses = robust_clustering_loss(z, params.centers, labels, h.tau1) + h["strength"] * regulariser(log_p, targets)
    clustering = jnp.where(valid, losses, 0.0).sum() / instances
    contrastive = contrastive_loss(z, h.tau2, valid, axis_name=axis_name).sum() / instances

    def inside(z: Array, classes: Array, valid: Array) -> tuple[Array, dict[str, Array]]:
        losses = [class_contrast(z[:, i], classes[:, i], valid[:, i], h.tau2) for i in range(z.shape[1])]
        return jnp.stack(losses).sum() / instances, {}

    own = (jnp.swapaxes(z, 0, 1), log_p.argmax(axis=-1).T, valid.T)
    classes = of_whole_batch(inside, axis_name, *own)[0]
    beta = beta_at(h, epoch)
    total = beta * clustering + (1.0 - beta) * (contrastive + h["zeta"] * classes)
    metrics = {"clustering": clustering, "contrastive": contrastive, "class_contrast": classes}
    return total, (metrics, jnp.swapaxes(jnp.where(valid[..., None], targets, before), 0, 1))


@functools.cache
def elrcmr() -> Method:
    """The method."""
    return gradient_method(
        "method elrcmr",
        init_params=init_params,
        embed=embed,
        objective=_objective,
        project=project,
        init_samples=_init_samples,
        assign=assign,
        decays=decays,
        layers=layers,
        class_layers=class_layers,
    )


def _describe(config: "Config") -> str:
    return (
        f"method: elrcmr, beta {config.beta:g}, strength {config.method_numbers['strength']:g}, "
        f"tau1 {config.tau1:.3g}, tau2 {config.tau2:.3g}, seed {config.seed}"
    )


_ANY = float("inf")

ENTRY = MethodEntry(
    name="elrcmr",
    summary="MRL whose clustering loss holds predictions to the average of a sample's earlier ones and fades during "
    "training; inside a modality, samples of the same predicted class come together.",
    source="Xu et al., Early-Learning regularized Contrastive Learning for Cross-Modal Retrieval with Noisy Labels, "
    "ACM Multimedia 2022",
    equation=r"L = \beta_e L_r + \beta_e \lambda \, \tfrac{1}{N} \sum_{i,j} \log(1 - \langle t_j^i, p_j^i \rangle) + "
    r"(1 - \beta_e) (L_c + \zeta L_s), \quad \beta_e = \beta (1 - e^{-5 (1 - e / (r E))^2})",
    cost="as mrl, and similarities inside the modalities; M K numbers of every training instance",
    method=lambda config: elrcmr(),
    hyperparameters=hyperparameters,
    describe=_describe,
    title=lambda config: f"method elrcmr, beta {config.beta:g}",
    numbers={
        "strength": Number(1.0, 0.0, _ANY, "weight λ of the regulariser; 0.001 on INRIA-Websearch and XMediaNet"),
        "momentum": Number(0.9, 0.0, 0.999, "decay of the averages of predictions"),
        "zeta": Number(0.001, 0.0, _ANY, "weight ζ of the contrast inside modalities"),
        "ramp": Number(1.4, 0.01, _ANY, "multiple of the training after which the clustering loss would have weight 0"),
    },
    settings={"beta": 0.75},
    uses=NETWORKS | {"beta", "tau1", "tau2", "representation"},
    axes=("method", "noise_rate", "beta", "tau1", "tau2", "learning_rate", "seed"),
    remedy="try a lower learning rate, a higher temperature, or --clip-norm 1",
)
"""What the registry knows of the method `elrcmr`."""
