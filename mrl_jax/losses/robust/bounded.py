"""Losses that weight a sample by its probability p: bounded ones, sums of them with cross-entropy, and focal loss.

p is the probability of the given label (MRL, eq. 2). A bounded loss limits the effect of a label that the model
contradicts.

Shape letters: L embedding dimensions, K classes.
"""

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from mrl_jax.losses.mrl import cross_entropy_loss, label_log_probability, log_soft_assignment, robust_clustering_loss

__all__ = [
    "focal_loss",
    "generalized_cross_entropy_loss",
    "lq_loss",
    "mean_absolute_error_loss",
    "nce_mae_loss",
    "nce_rce_loss",
    "symmetric_cross_entropy_loss",
]

_LOG_ZERO = -4.0  # replaces log 0 in the reverse cross-entropy (Wang et al., section 4.1)
_MANY_CLASSES = 50  # between the 10 and the 100 for which Wang et al. and Ma et al. give weights


def focal_loss(z: Array, centers: Array, labels: Array, tau: ArrayLike = 1.0, *, gamma: float = 2.0) -> Array:
    r"""Focal loss as per-sample loss: $-(1 - p)^\gamma \log p$ (Lin et al., ICCV 2017, eq. 4).

    It gives hard samples more weight; with noisy labels, many of these are mislabelled. Included for comparison.

    Args:
        z: embeddings, unit rows [..., L].
        centers: cluster centres, unit rows [K, L].
        labels: integers 0..K-1, shape [...].
        tau: temperature tau_1 > 0.
        gamma: focus, at least 0; 0 is cross-entropy.

    Returns:
        Per-sample losses [...], each >= 0.
    """
    hard = jnp.exp(gamma * robust_clustering_loss(z, centers, labels, tau))
    return hard * cross_entropy_loss(z, centers, labels, tau)


def mean_absolute_error_loss(z: Array, centers: Array, labels: Array, tau: ArrayLike = 1.0) -> Array:
    r"""Mean absolute error as per-sample loss: $\lVert q - p_\cdot \rVert_1 = 2 (1 - p)$ (Ghosh et al., AAAI 2017).

    Its sum over all labels does not depend on p. This makes it robust to symmetric noise, and slow to train.

    Args:
        z: embeddings, unit rows [..., L].
        centers: cluster centres, unit rows [K, L].
        labels: integers 0..K-1, shape [...].
        tau: temperature tau_1 > 0.

    Returns:
        Per-sample losses [...], in [0, 2].

    Example:
        >>> z, centers = jnp.eye(3)[:1], jnp.eye(3)
        >>> round(float(mean_absolute_error_loss(z, centers, jnp.array([0]))[0]), 4)  # p = e / (e + 2) = 0.5761
        0.8478
    """
    return 2.0 * _one_minus_p(z, centers, labels, tau)


def generalized_cross_entropy_loss(
    z: Array, centers: Array, labels: Array, tau: ArrayLike = 1.0, *, q: float = 0.7
) -> Array:
    """Generalised cross-entropy as per-sample loss: (1 - p^q) / q (Zhang and Sabuncu, NeurIPS 2018, eq. 6).

    Args:
        z: embeddings, unit rows [..., L].
        centers: cluster centres, unit rows [K, L].
        labels: integers 0..K-1, shape [...].
        tau: temperature tau_1 > 0.
        q: in (0, 1]; the limit 0 is cross-entropy, 1 is half the mean absolute error.

    Returns:
        Per-sample losses [...], in [0, 1 / q].
    """
    return -jnp.expm1(-q * cross_entropy_loss(z, centers, labels, tau)) / q


def symmetric_cross_entropy_loss(
    z: Array,
    centers: Array,
    labels: Array,
    tau: ArrayLike = 1.0,
    *,
    a: float | None = None,
    b: float | None = None,
) -> Array:
    r"""Symmetric cross-entropy as per-sample loss: a CE + b RCE (Wang et al., ICCV 2019, eq. 8).

    The reverse cross-entropy is $-\sum_k p_k \log q_k = 4 (1 - p)$, with -4 in place of log 0.

    Args:
        z: embeddings, unit rows [..., L].
        centers: cluster centres, unit rows [K, L].
        labels: integers 0..K-1, shape [...].
        tau: temperature tau_1 > 0.
        a: weight of the cross-entropy; default of the source: 0.1 for 10 classes (here: up to 50), 6 for 100.
        b: weight of the reverse cross-entropy; likewise 1, and 0.1.

    Returns:
        Per-sample losses [...], each >= 0.
    """
    a, b = _weights(centers, a, b, few=(0.1, 1.0), many=(6.0, 0.1))
    ce = cross_entropy_loss(z, centers, labels, tau)
    return a * ce - b * _LOG_ZERO * _one_minus_p(z, centers, labels, tau)


def nce_rce_loss(
    z: Array,
    centers: Array,
    labels: Array,
    tau: ArrayLike = 1.0,
    *,
    a: float | None = None,
    b: float | None = None,
) -> Array:
    r"""Normalised and reverse cross-entropy as per-sample loss (Ma et al., ICML 2020, eq. 3 and 10).

    $$a \log p \,/ \sum_k \log p_k + 4 b (1 - p)$$

    The official implementation replaces log 0 by -9.2, not by -4 as Wang et al.: its b corresponds to 2.3 b here.

    Args:
        z: embeddings, unit rows [..., L].
        centers: cluster centres, unit rows [K, L], at least 2.
        labels: integers 0..K-1, shape [...].
        tau: temperature tau_1 > 0.
        a: weight of the active part, the normalised cross-entropy; default of the source: 1 for 10 classes (here: up to
            50), 10 for 100.
        b: weight of the passive part, the reverse cross-entropy; likewise 1, and 0.1.

    Returns:
        Per-sample losses [...], each >= 0.

    Raises:
        ValueError: for K = 1, for which the active part is 0 / 0.
    """
    a, b = _weights(centers, a, b, few=(1.0, 1.0), many=(10.0, 0.1))
    nce = _normalized_cross_entropy(z, centers, labels, tau)
    return a * nce - b * _LOG_ZERO * _one_minus_p(z, centers, labels, tau)


def nce_mae_loss(
    z: Array,
    centers: Array,
    labels: Array,
    tau: ArrayLike = 1.0,
    *,
    a: float | None = None,
    b: float | None = None,
) -> Array:
    """Normalised cross-entropy and mean absolute error as per-sample loss; see `nce_rce_loss`.

    Args:
        z: embeddings, unit rows [..., L].
        centers: cluster centres, unit rows [K, L], at least 2.
        labels: integers 0..K-1, shape [...].
        tau: temperature tau_1 > 0.
        a: weight of the active part; default of the source: 1 for 10 classes (here: up to 50), 10 for 100.
        b: weight of the passive part, 1.

    Returns:
        Per-sample losses [...], each >= 0.

    Raises:
        ValueError: for K = 1.
    """
    a, b = _weights(centers, a, b, few=(1.0, 1.0), many=(10.0, 1.0))
    nce = _normalized_cross_entropy(z, centers, labels, tau)
    return a * nce + b * mean_absolute_error_loss(z, centers, labels, tau)


def lq_loss(z: Array, centers: Array, labels: Array, tau: ArrayLike = 1.0, *, q: float = 0.01) -> Array:
    """The bounded loss of RSHNL, AAAI 2025, as per-sample loss: (1 - q) (1 - p^q) / q + q (1 - p).

    Args:
        z: embeddings, unit rows [..., L].
        centers: cluster centres, unit rows [K, L].
        labels: integers 0..K-1, shape [...].
        tau: temperature tau_1 > 0.
        q: in (0, 1].

    Returns:
        Per-sample losses [...], each >= 0.
    """
    bounded = generalized_cross_entropy_loss(z, centers, labels, tau, q=q)
    return (1.0 - q) * bounded + q * _one_minus_p(z, centers, labels, tau)


def _one_minus_p(z: Array, centers: Array, labels: Array, tau: ArrayLike) -> Array:
    return -jnp.expm1(-cross_entropy_loss(z, centers, labels, tau))


def _weights(
    centers: Array, a: float | None, b: float | None, few: tuple[float, float], many: tuple[float, float]
) -> tuple[float, float]:
    """The given weights; those that are None by the number of classes."""
    of_a, of_b = many if len(centers) > _MANY_CLASSES else few
    return of_a if a is None else a, of_b if b is None else b


def _normalized_cross_entropy(z: Array, centers: Array, labels: Array, tau: ArrayLike) -> Array:
    if len(centers) < 2:
        raise ValueError("normalised cross-entropy needs at least K = 2 centers: with one class it is 0 / 0")
    log_p = log_soft_assignment(z, centers, tau)
    return label_log_probability(log_p, labels) / log_p.sum(axis=-1)
