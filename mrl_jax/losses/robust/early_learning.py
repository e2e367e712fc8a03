"""Early-learning regularisation (Liu et al., NeurIPS 2020): its loss and the EMA targets that the loss needs.

Shape letters: L embedding dimensions, K classes.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import logsumexp
from jax.typing import ArrayLike

from mrl_jax.losses.mrl import label_log_probability, log_soft_assignment

__all__ = ["early_learning_loss", "ema_targets"]

_EDGE = 1e-4  # distance of EMA targets' probabilities from 0 and 1, as in the implementation of Liu et al.


def early_learning_loss(
    z: Array, centers: Array, labels: Array, tau: ArrayLike = 1.0, *, targets: Array, strength: float = 3.0
) -> Array:
    r"""Cross-entropy with early-learning regularisation, as per-sample loss (Liu et al., NeurIPS 2020, eq. 6).

    $$-\log p + \lambda \log(1 - \langle t, p_\cdot \rangle)$$

    Args:
        z: embeddings, unit rows [..., L].
        centers: cluster centres, unit rows [K, L].
        labels: integers 0..K-1, shape [...].
        tau: temperature tau_1 > 0.
        targets: EMA targets t [..., K] of these samples, updated with this prediction by `ema_targets`.
        strength: lambda, at least 0.

    Returns:
        Per-sample losses [...].
    """
    log_p = log_soft_assignment(z, centers, tau)
    # 1 - <t, p> = sum of p_k (1 - t_k), as p sums to 1. This form keeps its precision where the value is small.
    log_rest = logsumexp(log_p + jnp.log1p(-jnp.minimum(targets, 1.0 - _EDGE)), axis=-1)
    return strength * log_rest - label_log_probability(log_p, labels)


def ema_targets(targets: Array, z: Array, centers: Array, tau: ArrayLike = 1.0, *, momentum: float = 0.7) -> Array:
    """EMA targets after this prediction: t <- b t + (1 - b) p (Liu et al., NeurIPS 2020, eq. 9).

    Args:
        targets: t [..., K]; 0 at the start.
        z: embeddings, unit rows [..., L].
        centers: cluster centres, unit rows [K, L].
        tau: temperature tau_1 > 0.
        momentum: b, in [0, 1).

    Returns:
        Targets [..., K], without gradient. Probabilities are clipped to [1e-4, 1 - 1e-4] and normalised to sum 1 again.
    """
    p = jnp.clip(jnp.exp(log_soft_assignment(z, centers, tau)), _EDGE, 1.0 - _EDGE)
    p = p / p.sum(axis=-1, keepdims=True)
    return jax.lax.stop_gradient(momentum * targets + (1.0 - momentum) * p)
