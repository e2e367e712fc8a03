r"""The share of wrong labels of every modality, from the labels and the votes of other instances alone.

The posterior of `posterior` takes the softest votes that explain the labels, which ranks wrong labels best but counts
too few of them. Here the scale of the votes and the shares of kept labels are those with the highest likelihood, if the
wrong labels of a class spread over all others. If they do not, two classes that are taken for each other cannot be told
from one; then the posterior counts.

Shape letters: M modalities, A annotators, N instances, K classes.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mrl_jax.label_inference.posterior import Inferred, annotators

__all__ = ["NoiseRates", "noise_rates"]

_TAIL = 0.005  # share of instances whose class has nothing to do with their features; more of it hides noise
_SCALES = np.linspace(-1.0, 10.0, 45, dtype=np.float32)  # logarithms of the scales of the votes
_SHARES = np.linspace(0.001, 0.999, 500, dtype=np.float32)  # kept shares of the profile likelihood
_ITERATIONS = 30
_NUMBERS = 4_000_000  # rows times classes that are read
_HALF_CHI2 = 1.92  # half the 95 % quantile of chi2 with one degree of freedom
_UNEVEN = 0.1  # nats per label by which a transition matrix may explain labels better than an even one
_NORMAL = 1.96


class NoiseRates(NamedTuple):
    """Estimated shares of wrong labels, with intervals of 95 %.

    Attributes:
        rate: float64 [M].
        low: lower ends of the intervals.
        high: upper ends. The intervals hold the uncertainty of the draw, not that of the model.
        even: whether the wrong labels of a class spread evenly over the others, as far as can be told.
    """

    rate: np.ndarray
    low: np.ndarray
    high: np.ndarray
    even: bool


def noise_rates(scores: Array, inferred: Inferred, labels: np.ndarray, mask: np.ndarray | None = None) -> NoiseRates:
    """Estimate the share of wrong labels of every modality.

    Args:
        scores: votes of the other instances on the given labels, [N, K], such as from `loo_scores`.
        inferred: what `infer_labels` found for the same labels.
        labels: given labels 0..K-1, [M, N].
        mask: bool [M, N], False where a sample is missing; None where none is.
    """
    labels = np.asarray(labels)
    present = np.ones(labels.shape, bool) if mask is None else np.asarray(mask, bool)
    if _unevenness(inferred) > _UNEVEN:
        return _counted(np.asarray(inferred.posterior, np.float64), labels, present)
    given, there = annotators(labels, mask)
    count, classes = scores.shape
    at = np.linspace(0, count - 1, min(count, max(_NUMBERS // classes, 1))).round().astype(int)
    rate, low, high = (
        np.asarray(x, np.float64)
        for x in _fitted(jnp.asarray(scores)[at], jnp.asarray(given[:, at]), jnp.asarray(there[:, at]))
    )
    of = [_annotator(y, own, given) for y, own in zip(labels, present, strict=True)]
    return NoiseRates(rate[of], low[of], high[of], True)


def _annotator(labels: np.ndarray, present: np.ndarray, given: np.ndarray) -> int:
    """The number of the annotator that a modality is part of."""
    return next(a for a, y in enumerate(given) if (y[present] == labels[present]).all())


def _unevenness(inferred: Inferred) -> float:
    """By how many nats per label the transition matrices explain labels better than even ones, at most."""
    prior = np.asarray(inferred.posterior, np.float64).mean(axis=0)
    found = 0.0
    for matrix in np.asarray(inferred.transition, np.float64):
        others = matrix * (1.0 - np.eye(len(matrix)))
        even = others.sum(axis=1, keepdims=True) / max(len(matrix) - 1, 1)
        gain = np.where(others > 0, others * np.log(np.where(others > 0, others, 1.0) / np.maximum(even, 1e-12)), 0.0)
        found = max(found, float(prior @ gain.sum(axis=1)))
    return found


def _counted(posterior: np.ndarray, labels: np.ndarray, present: np.ndarray) -> NoiseRates:
    """The mean of 1 - q(y)."""
    rate, error = np.zeros(len(labels)), np.zeros(len(labels))
    for i, (y, there) in enumerate(zip(labels, present, strict=True)):
        p = 1.0 - posterior[np.flatnonzero(there), y[there]]
        rate[i], error[i] = p.mean(), np.sqrt((p * (1.0 - p)).sum()) / max(len(p), 1)
    return NoiseRates(
        rate, np.maximum(rate - _NORMAL * error, 0.0), np.minimum(rate + _NORMAL * error, 1.0), even=False
    )


@jax.jit
def _fitted(scores: Array, labels: Array, present: Array) -> tuple[Array, Array, Array]:
    """The most likely rate of every annotator, and the ends of its interval by profile likelihood, each [A]."""
    classes = scores.shape[1]
    own = jax.nn.one_hot(labels, classes, dtype=bool)  # [A, N, K]
    counts = jnp.maximum(present.sum(axis=1), 1)

    def answers(shares: Array) -> Array:
        """Probability of the label that each annotator gave, by class, [A, N, K]."""
        kept = jnp.where(own, shares[:, None, None], (1.0 - shares[:, None, None]) / max(classes - 1, 1))
        return jnp.where(present[..., None], kept, 1.0)

    def at_scale(log_scale: Array) -> tuple[Array, Array]:
        votes = (1.0 - _TAIL) * jax.nn.softmax(jnp.exp(log_scale) * scores, axis=-1) + _TAIL / classes

        def iterate(_: int, shares: Array) -> Array:
            joint = votes * answers(shares).prod(axis=0)
            right = (jnp.where(own, joint[None], 0.0).sum(axis=2) / joint.sum(axis=1)[None]) * present
            return jnp.clip(right.sum(axis=1) / counts, 1.0 / classes, 0.999)

        shares = jax.lax.fori_loop(0, _ITERATIONS, iterate, jnp.full(len(labels), 0.6))
        each = answers(shares)
        profiles = []
        for a in range(len(labels)):
            others = votes * each.at[a].set(1.0).prod(axis=0)
            kept = jnp.where(own[a], others, 0.0).sum(axis=1)
            lost = (others.sum(axis=1) - kept) / max(classes - 1, 1)

            def likelihood(share: Array, kept: Array = kept, lost: Array = lost, there: Array = present[a]) -> Array:
                return jnp.where(there, jnp.log(share * kept + (1.0 - share) * lost), 0.0).sum()

            profiles.append(jax.lax.map(likelihood, jnp.asarray(_SHARES)))
        return shares, jnp.stack(profiles)

    shares, profiles = jax.lax.map(at_scale, jnp.asarray(_SCALES))  # [T, A], [T, A, S]
    best = profiles.max(axis=2).sum(axis=1).argmax()
    profile = profiles.max(axis=0)
    inside = profile >= profile.max(axis=1, keepdims=True) - _HALF_CHI2
    grid = jnp.asarray(_SHARES)
    low, high = jnp.where(inside, grid, 1.0).min(axis=1), jnp.where(inside, grid, 0.0).max(axis=1)
    rate = 1.0 - shares[best]
    return rate, jnp.minimum(1.0 - high, rate), jnp.maximum(1.0 - low, rate)
