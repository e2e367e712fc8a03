r"""The posterior of the true class, from the given labels of an instance and the votes of the others.

Every given label is the answer of an annotator who confuses classes (Dawid and Skene, Applied Statistics 1979): the
modalities of an instance, or one annotator for all of them if they share their labels. The prior of an instance is not
the class frequency, but the votes of all other instances (`votes`), scaled to probabilities. No clean label and no
noise rate is needed.

Shape letters: M modalities, A annotators, N instances, K classes.
"""

from functools import partial
from itertools import combinations
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mrl_jax.errors import InputError
from mrl_jax.label_inference.votes import VoteKernel, loo_scores

__all__ = ["Inferred", "annotators", "infer_labels"]

ROUNDS = 2  # regressions: on the given labels, then on their posterior
_ITERATIONS = 15  # of EM after every regression
_TAIL = 0.03  # share of instances whose class has nothing to do with their features
_PSEUDO = 20.0  # instances per class that stand for one kept share of an annotator
_FIT_ROWS = 4096  # rows on which the scale of the votes is chosen
_SCALES = np.linspace(-1.0, 5.0, 31, dtype=np.float32)  # logarithms of the scales to try
_ERRORS = 1.0  # standard errors within which a smaller scale is taken


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
    $T_a[k, y] \propto \sum_j q_j(k) [y_j^a = y]$, and pseudo-counts of one kept share per annotator. The scale of the
    votes maximises the likelihood of the given labels.

    Args:
        kernel: from `vote_kernel`, of the same instances.
        labels: given labels 0..K-1, [M, N].
        classes: K.
        mask: bool [M, N], False where a sample is missing; None where none is.
        rounds: regressions of the votes: the first on the given labels, others on the posterior.

    Raises:
        InputError: labels or mask that do not fit the kernel or the classes.
    """
    labels, count = np.asarray(labels), len(kernel.basis)
    if labels.ndim != 2 or labels.shape[1] != count or labels.dtype.kind not in "iu":
        raise InputError(f"labels are {labels.dtype} {list(labels.shape)}; they must be integers [M, {count}]")
    if mask is not None and np.shape(mask) != labels.shape:
        raise InputError(f"mask is {list(np.shape(mask))}; it must have the shape of the labels, {list(labels.shape)}")
    known = labels if mask is None else labels[np.asarray(mask, bool)]
    if classes < 2 or (known.size and not 0 <= known.min() <= known.max() < classes):
        ends = f"{known.min()} to {known.max()}" if known.size else "none"
        raise InputError(f"labels are {ends} with classes={classes}; give 0 to classes - 1, and two classes or more")
    given, there = annotators(labels, mask)
    return _infer(kernel, jnp.asarray(given), jnp.asarray(there), classes, rounds)


class _Fit(NamedTuple):
    """Parameters of EM: log scale of the votes, bias of the classes [K], transitions [A, K, K], posterior and votes."""

    log_scale: Array
    bias: Array
    transition: Array
    posterior: Array
    votes: Array


@partial(jax.jit, static_argnames=("classes", "rounds"))
def _infer(kernel: VoteKernel, labels: Array, present: Array, classes: int, rounds: int) -> Inferred:
    one_hot = jax.nn.one_hot(labels, classes) * present[..., None]  # [A, N, K]
    targets = one_hot.sum(axis=0) / jnp.maximum(present.sum(axis=0), 1)[:, None]
    scores = loo_scores(kernel, targets)
    fit = _first(scores, labels, present, classes)
    fit = _expectation_maximisation(scores, labels, present, one_hot, fit)
    for _ in range(rounds - 1):
        scores = loo_scores(kernel, fit.posterior)
        fit = _expectation_maximisation(scores, labels, present, one_hot, fit, learn_transition=False)
    return Inferred(fit.posterior, fit.votes, fit.transition)


def _log_votes(scores: Array, log_scale: Array, bias: Array) -> Array:
    """Log-probabilities [N, K] from scores: a softmax, and a tail of all classes."""
    p = jax.nn.softmax(jnp.exp(log_scale) * scores + bias[None], axis=-1)
    return jnp.log((1.0 - _TAIL) * p + _TAIL / scores.shape[-1])


def _log_likelihood(labels: Array, present: Array, transition: Array) -> Array:
    """log of the product over annotators of T_a[k, y], [N, K]."""
    of_annotator = jnp.log(jnp.swapaxes(transition, 1, 2))[jnp.arange(len(labels))[:, None], labels]  # [A, N, K]
    return jnp.where(present[..., None], of_annotator, 0.0).sum(axis=0)


def _kept(share: Array, classes: int) -> Array:
    """The transition matrix of an annotator who keeps a share and draws the others evenly, [..., K, K]."""
    share, same = jnp.asarray(share)[..., None, None], jnp.eye(classes, dtype=bool)
    return jnp.where(same.reshape((1,) * (share.ndim - 2) + same.shape), share, (1.0 - share) / max(classes - 1, 1))


def _sampled(scores: Array, labels: Array, present: Array) -> tuple[Array, Array, Array]:
    """Rows evenly spread over all."""
    count = len(scores)
    at = jnp.linspace(0, count - 1, min(_FIT_ROWS, count)).round().astype(jnp.int32)
    return scores[at], labels[:, at], present[:, at]


def _evidence(scores: Array, bias: Array, log_likelihood: Array, log_scale: Array) -> Array:
    """Log-likelihood of the given labels of every instance, [N]."""
    joint = _log_votes(scores, log_scale, bias) + log_likelihood
    return jax.scipy.special.logsumexp(joint, axis=-1)


def _first(scores: Array, labels: Array, present: Array, classes: int) -> _Fit:
    """The most likely pair of a scale and one kept share for all annotators, on a grid."""
    own, given, there = _sampled(scores, labels, present)
    bias = jnp.zeros(classes)
    shares = jnp.linspace(1.0 / classes + 0.03, 0.99, 14)
    scales = jnp.asarray(_SCALES[::2])

    def of_share(share: Array) -> Array:
        likelihood = _log_likelihood(given, there, jnp.stack([_kept(share, classes)] * len(labels)))
        return jax.lax.map(lambda t: _evidence(own, bias, likelihood, t).mean(), scales)

    best = jax.lax.map(of_share, shares).argmax()
    share, scale = shares[best // len(scales)], scales[best % len(scales)]
    transition = jnp.stack([_kept(share, classes)] * len(labels))
    return _Fit(scale, bias, transition, jnp.zeros_like(scores), jnp.zeros_like(scores))


def _expectation_maximisation(
    scores: Array, labels: Array, present: Array, one_hot: Array, fit: _Fit, learn_transition: bool = True
) -> _Fit:
    own, given, there = _sampled(scores, labels, present)
    classes = scores.shape[-1]

    def iterate(_: int, fit: _Fit) -> _Fit:
        likelihood = _log_likelihood(given, there, fit.transition)
        log_scale = _scale(own, fit.bias, likelihood)
        log_votes = _log_votes(scores, log_scale, fit.bias)
        posterior = jax.nn.softmax(log_votes + _log_likelihood(labels, present, fit.transition), axis=-1)
        counts = jnp.einsum("nk,any->aky", posterior, one_hot, precision="highest")
        total = jnp.maximum(counts.sum(axis=(1, 2)), 1.0)
        counts += _PSEUDO * _kept(jnp.trace(counts, axis1=1, axis2=2) / total, classes)
        votes = jnp.exp(log_votes)
        bias = fit.bias + jnp.log((posterior.sum(axis=0) + 1.0) / (votes.sum(axis=0) + 1.0))
        transition = counts / counts.sum(axis=2, keepdims=True) if learn_transition else fit.transition
        return _Fit(log_scale, bias - bias.mean(), transition, posterior, votes)

    return jax.lax.fori_loop(0, _ITERATIONS, iterate, fit)


def _scale(scores: Array, bias: Array, log_likelihood: Array) -> Array:
    """The smallest scale whose likelihood lies within a standard error of the highest.

    With much noise, sharp votes and a low kept share explain the labels about as well as soft votes and a higher one;
    of these, the soft ones are calibrated. The standard error is that of the difference of two scales over instances.
    """
    scales = jnp.asarray(_SCALES)
    evidence = jax.lax.map(lambda t: _evidence(scores, bias, log_likelihood, t), scales)  # [S, N]
    behind = evidence[evidence.mean(axis=1).argmax()][None] - evidence
    error = behind.std(axis=1) / jnp.sqrt(behind.shape[1])
    return scales[(behind.mean(axis=1) <= _ERRORS * error).argmax()]
