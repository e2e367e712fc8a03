"""The losses of MRL (Hu et al., CVPR 2021) as pure functions; the contrastive part is in `contrastive.py`.

Shape letters: M modalities, B instances of a batch, L embedding dimensions, K classes.

Every loss works in log space and returns per-sample losses; only `mrl_loss` takes the mean. Labels must be 0..K-1. The
losses cannot check this while they are traced; the data loaders do. Values and gradients are finite as long as the
similarities divided by the temperature are finite in float32: for unit vectors, at any temperature down to 1e-37. All
losses run under `jit`, `vmap` and `grad`.

Reference: P. Hu, X. Peng, H. Zhu, L. Zhen, J. Lin, "Learning Cross-Modal Retrieval with Noisy Labels", CVPR 2021.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import logsumexp
from jax.typing import ArrayLike

from mrl_jax.losses.contrastive import contrastive_loss, masked_rows
from mrl_jax.options import CONTRASTIVE_SCALES

__all__ = [
    "CLUSTERING_LOSSES",
    "CONTRASTIVE_SCALES",
    "LossParts",
    "MRLTerms",
    "cross_entropy_loss",
    "label_log_probability",
    "log_soft_assignment",
    "mrl_loss",
    "robust_clustering_loss",
    "soft_assignment",
]


def log_soft_assignment(z: Array, centers: Array, tau: ArrayLike = 1.0) -> Array:
    r"""Logarithm of the soft clustering probability (eq. 2).

    $$\log p(k \mid x) = c_k^\top z / \tau_1 - \log \sum_t \exp(c_t^\top z / \tau_1)$$

    Args:
        z: embeddings, unit rows [..., L].
        centers: cluster centres, unit rows [K, L].
        tau: temperature tau_1 > 0.

    Returns:
        Log-probabilities [..., K].

    Example:
        >>> import jax.numpy as jnp
        >>> log_p = log_soft_assignment(jnp.eye(2)[:1], jnp.eye(2), tau=0.5)
        >>> [round(v, 4) for v in log_p[0].tolist()]
        [-0.1269, -2.1269]
    """
    return jax.nn.log_softmax(_logits(z, centers, tau), axis=-1)


def soft_assignment(z: Array, centers: Array, tau: ArrayLike = 1.0) -> Array:
    r"""Soft clustering probability p(k | x) of a sample for every class (eq. 2).

    $$p(k \mid x) = \frac{\exp(c_k^\top z / \tau_1)}{\sum_t \exp(c_t^\top z / \tau_1)}$$

    Args:
        z: embeddings, unit rows [..., L].
        centers: cluster centres, unit rows [K, L].
        tau: temperature tau_1 > 0.

    Returns:
        Probabilities [..., K]; every row sums to 1.
    """
    return jax.nn.softmax(_logits(z, centers, tau), axis=-1)


def label_log_probability(log_p: Array, labels: Array) -> Array:
    """Log-probabilities [...] of the labels [...], from those of all classes [..., K]."""
    return jnp.take_along_axis(log_p, labels[..., None], axis=-1)[..., 0]


def cross_entropy_loss(z: Array, centers: Array, labels: Array, tau: ArrayLike = 1.0) -> Array:
    r"""Cross-entropy of the given label as per-sample loss (the summand of eq. 3): $-\log p(y \mid x)$.

    Args:
        z: embeddings, unit rows [..., L].
        centers: cluster centres, unit rows [K, L].
        labels: integers 0..K-1, shape [...].
        tau: temperature tau_1 > 0.

    Returns:
        Per-sample losses [...], each >= 0.
    """
    return -label_log_probability(log_soft_assignment(z, centers, tau), labels)


def robust_clustering_loss(z: Array, centers: Array, labels: Array, tau: ArrayLike = 1.0) -> Array:
    r"""Robust clustering loss as per-sample loss (the summand of eq. 5).

    $$\log(1 - p(y \mid x)) = \log \sum_{k \ne y} \exp(c_k^\top z / \tau_1) - \log \sum_k \exp(c_k^\top z / \tau_1)$$

    Its slope in p is -1/(1 - p): the gradient is largest for samples that already agree with their label. The gradient
    of cross-entropy (-1/p) is largest for samples that disagree, many of which are mislabelled. The loss has no lower
    bound as p approaches 1, but its gradient in the logits stays within [-1, 1] because of the form above. In float32
    the rounding of a similarity is divided by tau_1: the absolute error is below 1e-6 at tau_1 = 1, 4e-6 at 0.1 and
    4e-5 at 0.01, measured against float64 with 10 to 1,000 classes and up to 512 dimensions.

    Args:
        z: embeddings, unit rows [..., L].
        centers: cluster centres, unit rows [K, L].
        labels: integers 0..K-1, shape [...].
        tau: temperature tau_1 > 0.

    Returns:
        Per-sample losses [...], each <= 0; lower is better.

    Raises:
        ValueError: for K = 1, where always p = 1 and log(1 - p) is -inf.

    Example:
        >>> import jax.numpy as jnp
        >>> z, centers = jnp.eye(3)[:1], jnp.eye(3)
        >>> round(float(robust_clustering_loss(z, centers, jnp.array([0]))[0]), 4)  # p = e / (e + 2) = 0.5761
        -0.8583
    """
    if centers.shape[0] < 2:
        raise ValueError(
            "robust_clustering_loss needs at least K = 2 centers: with one class p = 1 and log(1 - p) = -inf"
        )
    logits = _logits(z, centers, tau)
    # Relative to the largest logit the sums are near 1, so their difference keeps its precision at small tau.
    logits = logits - jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True))
    given = jax.nn.one_hot(labels, centers.shape[0], dtype=bool)
    return logsumexp(jnp.where(given, -jnp.inf, logits), axis=-1) - logsumexp(logits, axis=-1)


CLUSTERING_LOSSES: dict[str, Callable[..., Array]] = {"rc": robust_clustering_loss, "ce": cross_entropy_loss}
"""Name of `--loss` -> clustering loss of the paper, per sample: Eq. (4), and cross-entropy as its ablation."""


class LossParts(NamedTuple):
    """The parts of `mrl_loss`: scalars L_r (or the loss that replaces it) and L_c, both before weighting."""

    clustering: Array
    contrastive: Array


MRLTerms = LossParts
"""An alias of `LossParts`, its earlier name."""


def mrl_loss(
    z: Array,
    centers: Array,
    labels: Array,
    *,
    beta: ArrayLike = 0.7,
    tau1: ArrayLike = 1.0,
    tau2: ArrayLike = 1.0,
    mask: Array | None = None,
    loss: str | Callable[..., Array] = "rc",
    self_similarity: bool = False,
    contrastive_scale: str = "equation",
    axis_name: str | None = None,
) -> tuple[Array, LossParts]:
    r"""Total loss of MRL (eq. 8): $L = \beta L_r + (1 - \beta) L_c$, with eq. 5 and eq. 7 as means over instances.

    Both parts are sums over modalities, divided by the number of instances that count. The official implementation
    instead averages L_c over all samples that count and doubles it. This is the same only for M = 2 without missing
    samples.

    Args:
        z: embeddings, unit rows [M, B, L].
        centers: cluster centres, unit rows [K, L].
        labels: given labels 0..K-1, [M, B], or [B] for labels that the modalities share.
        beta: weight of the clustering loss, in [0, 1].
        tau1: temperature of the soft assignment.
        tau2: temperature of the contrastive loss.
        mask: True where a sample counts, [B] or [M, B]. A batch in which nothing counts has loss 0.
        loss: clustering loss: a key of `CLUSTERING_LOSSES`, or a function of z [M, B, L], centers, labels [M, B] and
            tau_1 that returns per-sample losses [M, B], such as those of `mrl_jax.losses.robust`.
        self_similarity: see `contrastive_loss`.
        contrastive_scale: "equation" (eq. 7) or "program".
        axis_name: axis of the devices that share the batch, under `shard_map` or `pmap`. Each device has B instances
            and returns its part of the loss. The parts sum to the loss of the whole batch, and so do their gradients.

    Returns:
        The total loss, a scalar, and its parts, a `LossParts`.

    Raises:
        ValueError: unknown `loss` or `contrastive_scale`, per-sample losses that are not [M, B], or an error of a
            part.

    Example:
        >>> import jax.numpy as jnp
        >>> z = jnp.stack([jnp.eye(2), jnp.eye(2)])
        >>> total, parts = mrl_loss(z, jnp.eye(2), jnp.array([0, 1]), beta=0.5)
        >>> [round(float(v), 4) for v in (total, *parts)]
        [-0.7618, -2.6265, 1.1029]
    """
    if isinstance(loss, str) and loss not in CLUSTERING_LOSSES:
        known = ", ".join(CLUSTERING_LOSSES)
        raise ValueError(f"unknown loss {loss!r}; known: {known}; give another loss as a function (losses.robust)")
    if contrastive_scale not in CONTRASTIVE_SCALES:
        raise ValueError(f"unknown contrastive_scale {contrastive_scale!r}; known: {', '.join(CONTRASTIVE_SCALES)}")
    if z.ndim != 3:
        raise ValueError(f"mrl_loss: z has shape {z.shape}; it must be [modalities, batch, embedding]")
    z, valid = masked_rows(z, mask)
    labels = jnp.where(valid, jnp.broadcast_to(labels, valid.shape), 0)

    def counted(x: Array) -> Array:
        """Number of True entries on all devices, at least 1."""
        return jnp.maximum(x.sum() if axis_name is None else jax.lax.psum(x.sum(), axis_name), 1)

    instances = counted(valid.any(axis=0))
    loss_function = CLUSTERING_LOSSES[loss] if isinstance(loss, str) else loss
    losses = loss_function(z, centers, labels, tau1)
    if jnp.shape(losses) != valid.shape:
        raise ValueError(f"mrl_loss: the per-sample losses have shape {jnp.shape(losses)}; it must be {valid.shape}")
    clustering = jnp.where(valid, losses, 0.0).sum() / instances
    contrastive = contrastive_loss(z, tau2, valid, self_similarity=self_similarity, axis_name=axis_name).sum()
    contrastive = contrastive / instances if contrastive_scale == "equation" else 2.0 * contrastive / counted(valid)
    total = jnp.asarray(beta * clustering + (1.0 - beta) * contrastive)
    return total, LossParts(clustering, contrastive)


def _logits(z: Array, centers: Array, tau: ArrayLike) -> Array:
    return jnp.dot(z, centers.T, precision="highest") / tau  # float32 on every device
