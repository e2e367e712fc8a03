r"""Losses against noisy labels from other papers, with the signature of `losses.robust_clustering_loss`.

Shape letters: M modalities, B instances of a batch, N training instances, L embedding dimensions, K classes.

With p = p(y | x) for the given label y, $p_k$ = p(k | x) (eq. 2), and $q$ the one-hot label:

| name | per-sample loss | source |
|---|---|---|
| rc | $\log(1 - p)$ | Hu et al., CVPR 2021 (eq. 5) |
| ce | $-\log p$ | (eq. 3) |
| focal | $-(1 - p)^\gamma \log p$ | Lin et al., ICCV 2017 |
| mae | $\lVert q - p_\cdot \rVert_1 = 2 (1 - p)$ | Ghosh et al., AAAI 2017 |
| gce | $(1 - p^q) / q$ | Zhang and Sabuncu, NeurIPS 2018 |
| sce | $-a \log p + 4 b (1 - p)$ | Wang et al., ICCV 2019 |
| nce-rce, nce-mae | $a \log p / \sum_k \log p_k + b \cdot$ RCE or MAE | Ma et al., ICML 2020 |
| label-smoothing | cross-entropy with $(1 - \epsilon) q + \epsilon / K$ | Szegedy et al., CVPR 2016 |
| bootstrap-soft, -hard | cross-entropy with $t q + (1 - t) r$, r $p_\cdot$ or its one-hot maximum | Reed et al., 2015 |
| forward | $-\log (T^\top p_\cdot)_y$, T the transition matrix | Patrini et al., CVPR 2017 |
| elr | $-\log p + \lambda \log(1 - \langle t, p_\cdot \rangle)$, t EMA targets | Liu et al., NeurIPS 2020 |
| lq | $(1 - q) (1 - p^q) / q + q (1 - p)$ | RSHNL, AAAI 2025 |
| small-loss | $-\log p$ of the smallest losses in a batch | Han et al., NeurIPS 2018, with one network |
| gmm | $-\log p$ where the loss belongs to the lower of two Gaussians | Li et al., ICLR 2020 |

All take embeddings z [..., L], centres [K, L], labels [...] and tau, and return per-sample losses [...]. Some need more
arguments, on the noise, on earlier epochs or on the other samples; the training step provides them.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import logsumexp
from jax.typing import ArrayLike

from mrl_jax.losses.mrl import CLUSTERING_LOSSES, cross_entropy_loss, log_soft_assignment, robust_clustering_loss

__all__ = [
    "PER_SAMPLE_LOSSES",
    "early_learning_loss",
    "focal_loss",
    "forward_correction_loss",
    "generalized_cross_entropy_loss",
    "hard_bootstrapping_loss",
    "label_smoothing_loss",
    "lq_loss",
    "mean_absolute_error_loss",
    "moving_targets",
    "nce_mae_loss",
    "nce_rce_loss",
    "soft_bootstrapping_loss",
    "symmetric_cross_entropy_loss",
]

_LOG_ZERO = -4.0  # replaces log 0 in the reverse cross-entropy (Wang et al., section 4.1)
_MANY_CLASSES = 50  # between the 10 and the 100 for which Wang et al. and Ma et al. give weights
_EDGE = 1e-4  # distance of EMA targets' probabilities from 0 and 1, as in the implementation of Liu et al.


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
    return -(1.0 - epsilon) * _given(log_p, labels) - epsilon * log_p.mean(axis=-1)


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
    return -trust * _given(log_p, labels) - (1.0 - trust) * (jnp.exp(log_p) * log_p).sum(axis=-1)


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
    likeliest = log_p.argmax(axis=-1)  # one class also in a tie, for which max would divide the gradient
    return -trust * _given(log_p, labels) - (1.0 - trust) * _given(log_p, likeliest)


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
        targets: EMA targets t [..., K] of these samples, updated with this prediction by `moving_targets`.
        strength: lambda, at least 0.

    Returns:
        Per-sample losses [...].
    """
    log_p = log_soft_assignment(z, centers, tau)
    # 1 - <t, p> = sum of p_k (1 - t_k), as p sums to 1. This form keeps its precision where the value is small.
    log_rest = logsumexp(log_p + jnp.log1p(-jnp.minimum(targets, 1.0 - _EDGE)), axis=-1)
    return strength * log_rest - _given(log_p, labels)


def moving_targets(targets: Array, z: Array, centers: Array, tau: ArrayLike = 1.0, *, momentum: float = 0.7) -> Array:
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


PER_SAMPLE_LOSSES: dict[str, Callable[..., Array]] = {
    **CLUSTERING_LOSSES,
    "focal": focal_loss,
    "mae": mean_absolute_error_loss,
    "gce": generalized_cross_entropy_loss,
    "sce": symmetric_cross_entropy_loss,
    "nce-rce": nce_rce_loss,
    "nce-mae": nce_mae_loss,
    "label-smoothing": label_smoothing_loss,
    "bootstrap-soft": soft_bootstrapping_loss,
    "bootstrap-hard": hard_bootstrapping_loss,
    "forward": forward_correction_loss,
    "elr": early_learning_loss,
    "lq": lq_loss,
}
"""Name -> per-sample loss; "forward" and "elr" take more arguments. `methods.clustering` has all losses."""


def _given(log_p: Array, labels: Array) -> Array:
    return jnp.take_along_axis(log_p, labels[..., None], axis=-1)[..., 0]


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
    return _given(log_p, labels) / log_p.sum(axis=-1)
