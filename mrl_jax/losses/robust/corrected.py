"""Cross-entropy with corrected labels (smoothing, bootstrapping) or corrected predictions (forward correction).

Shape letters: M modalities, L embedding dimensions, K classes.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import logsumexp
from jax.typing import ArrayLike

from mrl_jax.losses.mrl import label_log_probability, log_soft_assignment

__all__ = ["forward_correction_loss", "hard_bootstrapping_loss", "label_smoothing_loss", "soft_bootstrapping_loss"]


def label_smoothing_loss(
    z: Array, centers: Array, labels: Array, tau: ArrayLike = 1.0, *, epsilon: float = 0.1
) -> Array:
    r"""Cross-entropy with smoothed labels as per-sample loss (Szegedy et al., CVPR 2016, section 7).

    $$-(1 - \epsilon) \log p - \frac{\epsilon}{K} \sum_k \log p_k$$

    Args:
        z: embeddings, unit rows [..., L].
        centers: cluster centres, unit rows [K, L].
        labels: integers 0..K-1, shape [...].
        tau: temperature tau_1 > 0.
        epsilon: fraction of the label that is spread over all classes, in [0, 1].

    Returns:
        Per-sample losses [...], each >= 0.
    """
    log_p = log_soft_assignment(z, centers, tau)
    return -(1.0 - epsilon) * label_log_probability(log_p, labels) - epsilon * log_p.mean(axis=-1)


def soft_bootstrapping_loss(
    z: Array, centers: Array, labels: Array, tau: ArrayLike = 1.0, *, trust: float = 0.95
) -> Array:
    r"""Cross-entropy with a mixture of label and prediction, as per-sample loss (Reed et al., 2015, eq. 6).

    $$-\sum_k (t q_k + (1 - t) p_k) \log p_k$$

    The gradient goes through both $p_k$: the second part minimises the entropy of the prediction.

    Args:
        z: embeddings, unit rows [..., L].
        centers: cluster centres, unit rows [K, L].
        labels: integers 0..K-1, shape [...].
        tau: temperature tau_1 > 0.
        trust: t, weight of the given label, in [0, 1].

    Returns:
        Per-sample losses [...], each >= 0.
    """
    log_p = log_soft_assignment(z, centers, tau)
    return -trust * label_log_probability(log_p, labels) - (1.0 - trust) * (jnp.exp(log_p) * log_p).sum(axis=-1)


def hard_bootstrapping_loss(
    z: Array, centers: Array, labels: Array, tau: ArrayLike = 1.0, *, trust: float = 0.8
) -> Array:
    r"""Cross-entropy with a mixture of the given and the most probable label (Reed et al., 2015, eq. 7).

    $$-t \log p - (1 - t) \max_k \log p_k$$

    Args:
        z: embeddings, unit rows [..., L].
        centers: cluster centres, unit rows [K, L].
        labels: integers 0..K-1, shape [...].
        tau: temperature tau_1 > 0.
        trust: t, weight of the given label, in [0, 1].

    Returns:
        Per-sample losses [...], each >= 0.
    """
    log_p = log_soft_assignment(z, centers, tau)
    predicted = log_p.argmax(axis=-1)  # one class also in a tie, for which max would divide the gradient
    return -trust * label_log_probability(log_p, labels) - (1.0 - trust) * label_log_probability(log_p, predicted)


def forward_correction_loss(
    z: Array, centers: Array, labels: Array, tau: ArrayLike = 1.0, *, transition: Array
) -> Array:
    r"""Cross-entropy of the noisy prediction as per-sample loss (Patrini et al., CVPR 2017, eq. 5).

    $$-\log \sum_k T_{k y} \, p(k \mid x)$$

    Args:
        z: embeddings, unit rows [..., L].
        centers: cluster centres, unit rows [K, L].
        labels: integers 0..K-1, shape [...].
        tau: temperature tau_1 > 0.
        transition: T [K, K], probability that a sample of class k has the label y, or [M, K, K] for labels [M, ...]. A
            label that no class can have (a column of 0) has loss 0.

    Returns:
        Per-sample losses [...], each >= 0.

    Example:
        With labels that carry no information, every prediction has the same loss, here log 2:

        >>> loss = forward_correction_loss(jnp.eye(2), jnp.eye(2), jnp.array([0, 1]), transition=jnp.full((2, 2), 0.5))
        >>> [round(float(x), 3) for x in loss]
        [0.693, 0.693]
    """
    if transition.ndim == 3:
        own = lambda z, y, t: forward_correction_loss(z, centers, y, tau, transition=t)  # noqa: E731
        return jax.vmap(own)(z, labels, transition)
    log_p = log_soft_assignment(z, centers, tau)
    log_t = jnp.log(transition).T[labels]
    log_t = jnp.where(jnp.isneginf(log_t).all(axis=-1, keepdims=True), 0.0, log_t)  # otherwise the gradient is 0 / 0
    return -logsumexp(log_p + log_t, axis=-1)
