"""Quality of inferred labels, for experiments in which the clean labels are known.

Shape letters: M modalities, N instances, K classes.
"""

import math

import numpy as np
from scipy.stats import rankdata

from mrl_jax.errors import InputError
from mrl_jax.label_inference.posterior import annotators

__all__ = ["auroc", "calibration_error", "label_quality", "transition_error", "wrong_probability"]


def wrong_probability(posterior: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Probability that each given label is wrong, 1 - q(y): [M, N] for labels [M, N] and a posterior [N, K]."""
    return 1.0 - np.take_along_axis(np.asarray(posterior, np.float64), np.asarray(labels).T, axis=1).T


def _present(labels: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    return np.ones(labels.shape, bool) if mask is None else np.asarray(mask, bool)


def _checked(posterior: np.ndarray, labels: np.ndarray, clean: np.ndarray, present: np.ndarray) -> None:
    """Refuse shapes that do not belong together, and classes that the posterior lacks."""
    shapes = f"posterior {list(posterior.shape)}, labels {list(labels.shape)}, clean {list(clean.shape)}"
    if posterior.ndim != 2 or labels.ndim != 2 or not labels.shape[1] == len(posterior) == clean.size:
        raise InputError(f"{shapes}; they must be [N, K], [M, N] and [N]")
    if present.shape != labels.shape:
        raise InputError(f"mask is {list(present.shape)}; it must have the shape of the labels, {list(labels.shape)}")
    given = labels[present]
    if given.size and not 0 <= given.min() <= given.max() < posterior.shape[1]:
        raise InputError(
            f"labels are {given.min()} to {given.max()} with {posterior.shape[1]} classes; give 0 to "
            f"{posterior.shape[1] - 1}"
        )


def auroc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve: the probability that a positive has a higher score than a negative, ties counting 1/2.

    Args:
        scores: numbers of any shape.
        positive: bool, of the same shape.

    Returns:
        The area in [0, 1]; NaN if there are only positives or only negatives.

    Example:
        >>> auroc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True]))
        0.75
    """
    scores, positive = np.ravel(scores), np.ravel(positive).astype(bool)
    p, n = int(positive.sum()), int((~positive).sum())
    if not p or not n:
        return float("nan")
    return float((rankdata(scores)[positive].sum() - p * (p + 1) / 2) / (p * n))


def calibration_error(posterior: np.ndarray, clean: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error (Guo et al., On Calibration of Modern Neural Networks, ICML 2017).

    Args:
        posterior: [N, K].
        clean: true classes, integers [N].
        bins: equal intervals of the confidence max_k q(k).

    Returns:
        Mean over instances of |accuracy - confidence| of their bin.
    """
    posterior = np.asarray(posterior, np.float64)
    confidence, right = posterior.max(axis=1), posterior.argmax(axis=1) == clean
    at = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(at, right - confidence, bins)
    return float(np.abs(gaps).sum() / len(clean))


def label_quality(
    posterior: np.ndarray, labels: np.ndarray, clean: np.ndarray, mask: np.ndarray | None = None
) -> dict[str, float]:
    """Scores of inferred labels against clean ones.

    Args:
        posterior: [N, K].
        labels: given labels, integers [M, N].
        clean: true classes of the instances, integers [N].
        mask: bool [M, N], False where a sample is missing; None where none is.

    Returns:
        "accuracy" of the most probable class, "ece", "auroc" of 1 - q(y) for wrong labels, of all modalities together,
        "auroc_lowest" of the modality with the lowest, and the "estimated" and the "true" share of wrong labels.

    Raises:
        InputError: shapes that do not belong together, or labels outside of the classes.
    """
    posterior, labels, clean = np.asarray(posterior), np.asarray(labels), np.asarray(clean)
    present = _present(labels, mask)
    _checked(posterior, labels, clean, present)
    labels = np.where(present, labels, 0)  # of a missing sample it may be any number
    wrong, p_wrong = labels != clean, wrong_probability(posterior, labels)
    of_modalities = [auroc(p[there], w[there]) for p, w, there in zip(p_wrong, wrong, present, strict=True)]
    return {
        "accuracy": float((posterior.argmax(axis=1) == clean).mean()),
        "ece": calibration_error(posterior, clean),
        "auroc": auroc(p_wrong[present], wrong[present]),
        "auroc_lowest": min((area for area in of_modalities if not np.isnan(area)), default=math.nan),
        "estimated": float(p_wrong[present].mean()),
        "true": float(wrong[present].mean()),
    }


def transition_error(
    transition: np.ndarray, labels: np.ndarray, clean: np.ndarray, mask: np.ndarray | None = None
) -> float:
    """Distance of inferred transition matrices from the true ones.

    Args:
        transition: `Inferred.transition`, [A, K, K].
        labels: given labels, integers [M, N].
        clean: true classes of the instances, integers [N].
        mask: bool [M, N], False where a sample is missing; None where none is.

    Returns:
        Total variation distance between the inferred and the true distribution of the given label, the mean over all
        labels that the annotators gave: 0 for the true matrices, 1 at most.

    Raises:
        InputError: the matrices are not those of the annotators of these labels, or labels or classes do not fit them.
    """
    transition, labels, clean = np.asarray(transition, np.float64), np.asarray(labels), np.asarray(clean)
    classes = transition.shape[-1]
    _checked(np.empty((len(clean), classes)), labels, clean, _present(labels, mask))
    if clean.size and not 0 <= clean.min() <= clean.max() < classes:
        raise InputError(
            f"clean classes are {clean.min()} to {clean.max()} with {classes} classes; give 0 to {classes - 1}"
        )
    given, there = annotators(labels, mask)
    if transition.shape != (len(given), classes, classes):
        raise InputError(
            f"transition is {list(transition.shape)}; these labels have {len(given)} annotators, [A, K, K]"
        )
    distances = []
    for matrix, y, present in zip(transition, given, there, strict=True):
        counts = np.zeros((classes, classes))
        np.add.at(counts, (clean[present], y[present]), 1.0)
        true = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
        distances += [0.5 * np.abs(matrix - true).sum(axis=1)[clean[present]]]
    return float(np.concatenate(distances).mean())
