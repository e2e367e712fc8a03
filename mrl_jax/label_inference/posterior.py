r"""The posterior of the true class, from the given labels of an instance and the votes of the others.

Every given label is the answer of an annotator who confuses classes (Dawid and Skene, Applied Statistics 1979): the
modalities of an instance, or one annotator for all of them if they share their labels. The prior of an instance is not
the class frequency, but the votes of all other instances (`votes`), scaled to probabilities. What an annotator confuses
is learned from all other instances, too: else every instance would confirm its own label, above all with many classes,
where few labels stand behind a confusion. No clean label and no noise rate is needed.

Shape letters: M modalities, A annotators, N instances, K classes.
"""

from functools import partial
from itertools import combinations
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from mrl_jax.errors import InputError
from mrl_jax.label_inference.votes import VoteKernel, loo_scores

__all__ = ["Inferred", "annotators", "given_targets", "infer_from_log_p", "infer_labels"]

ROUNDS = 2  # regressions: on the given labels, then on their posterior
_ITERATIONS = 15  # of EM after every regression
_TAIL = 0.03  # share of instances whose class has nothing to do with their features
_STRENGTHS = (5120.0, 1280.0, 320.0, 80.0, 20.0, 5.0)  # pseudo-counts of a class, for one kept share per annotator
_FIT_ROWS = 4096  # rows on which the scale of the votes is chosen
_SCALES = np.linspace(-1.0, 10.0, 56, dtype=np.float32)  # logarithms of the scales to try; many classes need high ones
_ERRORS = 1.0  # standard errors within which a smaller scale, or more pseudo-counts, are taken


class Inferred(NamedTuple):
    """What `infer_labels` finds.

    Attributes:
        posterior: q(k) of every instance, float32 [N, K].
        votes: probabilities by the votes of the other instances alone, float32 [N, K].
        transition: probability that an annotator gives class y to an instance of class k, float32 [A, K, K].
    """

    posterior: Array
    votes: Array
    transition: Array


def annotators(labels: np.ndarray, mask: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The annotators of labels: modalities whose labels agree wherever both are present are one annotator.

    Args:
        labels: given labels, integers [M, N].
        mask: bool [M, N], False where a sample is missing; None where none is.

    Returns:
        Labels int32 [A, N], and bool [A, N], whether the annotator has labelled the instance.
    """
    labels = np.asarray(labels)
    present = np.ones(labels.shape, bool) if mask is None else np.asarray(mask, bool)
    found = list(zip(labels, present, strict=True))
    while pair := next((p for p in combinations(range(len(found)), 2) if _agree(*(found[i] for i in p))), None):
        # Together, the two may agree with an annotator that shares no instance with one of them.
        (known, given), (y, there) = found[pair[0]], found.pop(pair[1])
        found[pair[0]] = np.where(given, known, y), given | there
    return np.stack([y for y, _ in found]).astype(np.int32), np.stack([there for _, there in found])


def _agree(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> bool:
    both = a[1] & b[1]
    return bool(both.any()) and bool((a[0][both] == b[0][both]).all())


def infer_labels(
    kernel: VoteKernel, labels: np.ndarray, classes: int, mask: np.ndarray | None = None, *, rounds: int = ROUNDS
) -> Inferred:
    r"""Infer the true classes of instances from noisy labels.

    E step: $q_j(k) \propto v_j(k) \prod_a T_a[k, y_j^a]$ over the annotators of the instance, with the votes v. M step:
    $T_a[k, y] \propto \sum_{l \neq j} q_l(k) [y_l^a = y]$, and pseudo-counts of one kept share per annotator. The
    number of pseudo-counts and the scale of the votes follow from the likelihood of the given labels.

    Args:
        kernel: from `vote_kernel`, of the same instances.
        labels: given labels 0..K-1, [M, N].
        classes: K.
        mask: bool [M, N], False where a sample is missing; None where none is.
        rounds: regressions of the votes: the first on the given labels, others on the posterior.

    Raises:
        InputError: labels or mask that do not fit the kernel or the classes.
    """
    given, there = _checked(labels, mask, len(kernel.basis), classes)
    return _infer(kernel, jnp.asarray(given), jnp.asarray(there), classes, rounds)


def infer_from_log_p(log_p: ArrayLike, labels: np.ndarray, mask: np.ndarray | None = None) -> Inferred:
    r"""Infer the true classes from given labels and the class probabilities of any model, in place of votes.

    The model must not have been trained on the labels of the instances that it scores (cross-validation, or another
    set), else it confirms them.

    Args:
        log_p: log-probabilities of the classes, [N, K]; they are scaled to be calibrated.
        labels: given labels 0..K-1, [M, N].
        mask: bool [M, N], False where a sample is missing; None where none is.

    Raises:
        InputError: labels or mask that do not fit, fewer than two classes, or log-probabilities that are not finite.
    """
    scores = np.asarray(log_p, np.float32)
    if scores.ndim != 2 or not np.isfinite(scores).all():
        raise InputError(f"log_p is {list(scores.shape)}; give finite log-probabilities [N, K], such as log(p + 1e-9)")
    given, there = _checked(labels, mask, len(scores), scores.shape[1])
    return _infer_from_scores(jnp.asarray(scores), jnp.asarray(given), jnp.asarray(there))


def given_targets(labels: np.ndarray, classes: int, mask: np.ndarray | None = None) -> np.ndarray:
    """What votes are first regressed on: the mean of the one-hot labels of the annotators, float32 [N, K]."""
    given, there = annotators(labels, mask)
    one_hot = np.eye(classes, dtype=np.float32)[given] * there[..., None]
    return one_hot.sum(axis=0) / np.maximum(there.sum(axis=0), 1)[:, None].astype(np.float32)


def _checked(labels: np.ndarray, mask: np.ndarray | None, count: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """The annotators of labels [M, N] that fit the number of instances and classes."""
    labels = np.asarray(labels)
    if labels.ndim != 2 or labels.shape[1] != count or labels.dtype.kind not in "iu":
        raise InputError(f"labels are {labels.dtype} {list(labels.shape)}; they must be integers [M, {count}]")
    if mask is not None and np.shape(mask) != labels.shape:
        raise InputError(f"mask is {list(np.shape(mask))}; it must have the shape of the labels, {list(labels.shape)}")
    known = labels if mask is None else labels[np.asarray(mask, bool)]
    if classes < 2 or (known.size and not 0 <= known.min() <= known.max() < classes):
        ends = f"{known.min()} to {known.max()}" if known.size else "none"
        raise InputError(f"labels are {ends} with classes={classes}; give 0 to classes - 1, and two classes or more")
    return annotators(labels, mask)


class _Confusions(NamedTuple):
    """What the annotators answer: counts [A, K, K] by class and label, their prior [A, K, K], and its pseudo-counts."""

    counts: Array
    prior: Array
    strength: Array

    @property
    def transition(self) -> Array:
        """T_a[k, y], [A, K, K]."""
        total = self.counts + self.strength * self.prior
        return total / total.sum(axis=2, keepdims=True)


class _Fit(NamedTuple):
    """Parameters of EM: log scale of the votes, bias of the classes [K], confusions, posterior and votes [N, K]."""

    log_scale: Array
    bias: Array
    confusions: _Confusions
    posterior: Array
    votes: Array


@partial(jax.jit, static_argnames=("classes", "rounds"))
def _infer(kernel: VoteKernel, labels: Array, present: Array, classes: int, rounds: int) -> Inferred:
    one_hot = jax.nn.one_hot(labels, classes) * present[..., None]  # [A, N, K]
    targets = one_hot.sum(axis=0) / jnp.maximum(present.sum(axis=0), 1)[:, None]
    scores = loo_scores(kernel, targets)
    fit = _expectation_maximisation(scores, labels, present, one_hot, _first(scores, labels, present, classes))
    likelihood = _log_likelihood(labels, present, fit.confusions, fit.posterior)  # is held from here on
    for _ in range(rounds - 1):
        fit = _vote_again(loo_scores(kernel, fit.posterior), likelihood, fit)
    return Inferred(fit.posterior, fit.votes, fit.confusions.transition)


@jax.jit
def _infer_from_scores(scores: Array, labels: Array, present: Array) -> Inferred:
    classes = scores.shape[1]
    one_hot = jax.nn.one_hot(labels, classes) * present[..., None]
    fit = _expectation_maximisation(scores, labels, present, one_hot, _first(scores, labels, present, classes))
    return Inferred(fit.posterior, fit.votes, fit.confusions.transition)


def _log_votes(scores: Array, log_scale: Array, bias: Array) -> Array:
    """Log-probabilities [N, K] from scores: a softmax, and a tail of all classes."""
    p = jax.nn.softmax(jnp.exp(log_scale) * scores + bias[None], axis=-1)
    return jnp.log((1.0 - _TAIL) * p + _TAIL / scores.shape[-1])


def _log_likelihood(labels: Array, present: Array, confusions: _Confusions, posterior: Array) -> Array:
    """log of the product over annotators of T_a[k, y], [N, K], each without the part that the instance had in T."""
    own = posterior[None] * present[..., None]  # [A, N, K]
    at = jnp.arange(len(labels))[:, None], labels

    def of_label(matrix: Array) -> Array:
        return jnp.swapaxes(matrix, 1, 2)[at]  # [A, N, K]

    answers = jnp.maximum(of_label(confusions.counts) - own, 0.0) + confusions.strength * of_label(confusions.prior)
    instances = jnp.maximum(confusions.counts.sum(axis=2)[:, None] - own, 0.0) + confusions.strength
    return jnp.where(present[..., None], jnp.log(answers / instances), 0.0).sum(axis=0)


def _kept(share: Array, classes: int) -> Array:
    """The transition matrix of an annotator who keeps a share and draws the others evenly, [..., K, K]."""
    share, same = jnp.asarray(share)[..., None, None], jnp.eye(classes, dtype=bool)
    return jnp.where(same.reshape((1,) * (share.ndim - 2) + same.shape), share, (1.0 - share) / max(classes - 1, 1))


def _sampled(count: int) -> Array:
    """Numbers of rows evenly spread over all."""
    return jnp.linspace(0, count - 1, min(_FIT_ROWS, count)).round().astype(jnp.int32)


def _evidence(scores: Array, bias: Array, log_likelihood: Array, log_scale: Array) -> Array:
    """Log-likelihood of the given labels of every instance, [N]."""
    joint = _log_votes(scores, log_scale, bias) + log_likelihood
    return jax.scipy.special.logsumexp(joint, axis=-1)


def _first(scores: Array, labels: Array, present: Array, classes: int) -> _Fit:
    """The most likely pair of a scale and one kept share for all annotators, on a grid."""
    at = _sampled(len(scores))
    own, given, there = scores[at], labels[:, at], present[:, at]
    bias, none = jnp.zeros(classes), jnp.zeros_like(scores)
    shares = jnp.linspace(1.0 / classes + 0.03, 0.99, 14)
    scales = jnp.asarray(_SCALES[::2])

    def confusions_of(share: Array) -> _Confusions:
        prior = jnp.stack([_kept(share, classes)] * len(labels))
        return _Confusions(jnp.zeros_like(prior), prior, jnp.float32(1.0))

    def of_share(share: Array) -> Array:
        likelihood = _log_likelihood(given, there, confusions_of(share), none[at])
        return jax.lax.map(lambda t: _evidence(own, bias, likelihood, t).mean(), scales)

    best = jax.lax.map(of_share, shares).argmax()
    share, scale = shares[best // len(scales)], scales[best % len(scales)]
    return _Fit(scale, bias, confusions_of(share), none, none)


def _expectation_maximisation(scores: Array, labels: Array, present: Array, one_hot: Array, fit: _Fit) -> _Fit:
    at, classes = _sampled(len(scores)), scores.shape[-1]
    own, given, there = scores[at], labels[:, at], present[:, at]

    def iterate(_: int, fit: _Fit) -> _Fit:
        def evidence(strength: Array) -> Array:
            likelihood = _log_likelihood(given, there, fit.confusions._replace(strength=strength), fit.posterior[at])
            return _evidence(own, fit.bias, likelihood, fit.log_scale)

        strengths = jnp.asarray(_STRENGTHS)
        strength = strengths[_simplest(jax.lax.map(evidence, strengths))]
        confusions = fit.confusions._replace(strength=strength)
        likelihood = _log_likelihood(labels, present, confusions, fit.posterior)
        fit = _voted(scores, likelihood, fit)
        counts = jnp.einsum("nk,any->aky", fit.posterior, one_hot, precision="highest")
        share = jnp.trace(counts, axis1=1, axis2=2) / jnp.maximum(counts.sum(axis=(1, 2)), 1.0)
        return fit._replace(confusions=confusions._replace(counts=counts, prior=_kept(share, classes)))

    return jax.lax.fori_loop(0, _ITERATIONS, iterate, fit)


def _vote_again(scores: Array, likelihood: Array, fit: _Fit) -> _Fit:
    """EM over the scale and the bias of other votes, with what is known of the annotators."""
    return jax.lax.fori_loop(0, _ITERATIONS, lambda _, fit: _voted(scores, likelihood, fit), fit)


def _voted(scores: Array, likelihood: Array, fit: _Fit) -> _Fit:
    """The posterior [N, K] of votes and log-likelihood, and the bias that gives votes and posterior the same shares."""
    at = _sampled(len(scores))
    log_scale = _scale(scores[at], fit.bias, likelihood[at])
    log_votes = _log_votes(scores, log_scale, fit.bias)
    posterior, votes = jax.nn.softmax(log_votes + likelihood, axis=-1), jnp.exp(log_votes)
    bias = fit.bias + jnp.log((posterior.sum(axis=0) + 1.0) / (votes.sum(axis=0) + 1.0))
    return fit._replace(log_scale=log_scale, bias=bias - bias.mean(), posterior=posterior, votes=votes)


def _scale(scores: Array, bias: Array, log_likelihood: Array) -> Array:
    """The smallest scale whose likelihood lies within a standard error of the highest.

    With much noise, sharp votes and a low kept share explain the labels about as well as soft votes and a higher one;
    of these, the soft ones are calibrated.
    """
    scales = jnp.asarray(_SCALES)
    return scales[_simplest(jax.lax.map(lambda t: _evidence(scores, bias, log_likelihood, t), scales))]


def _simplest(evidence: Array) -> Array:
    """The first of several values [S] whose evidence [S, N] lies within a standard error of the highest.

    The standard error is that of the difference of two values over instances.
    """
    behind = evidence[evidence.mean(axis=1).argmax()][None] - evidence
    error = behind.std(axis=1) / jnp.sqrt(behind.shape[1])
    return (behind.mean(axis=1) <= _ERRORS * error).argmax()
