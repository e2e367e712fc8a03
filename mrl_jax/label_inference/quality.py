"""Quality of inferred labels, for experiments in which the clean labels are known.

Shape letters: M modalities, N instances, K classes.
"""

import numpy as np
from scipy.stats import rankdata

__all__ = ["auroc", "calibration_error", "label_quality", "wrong_probability"]


def wrong_probability(posterior: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Probability that each given label is wrong, 1 - q(y): [M, N] for labels [M, N] and a posterior [N, K]."""
    return 1.0 - np.take_along_axis(np.asarray(posterior, np.float64), np.asarray(labels).T, axis=1).T


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
        "accuracy" of the most probable class, "ece", "auroc" of 1 - q(y) for wrong labels, and the "estimated" and
        the "true" share of wrong labels.
    """
    present = np.ones(labels.shape, bool) if mask is None else np.asarray(mask, bool)
    wrong, p_wrong = np.asarray(labels) != clean, wrong_probability(posterior, labels)
    return {
        "accuracy": float((np.asarray(posterior).argmax(axis=1) == clean).mean()),
        "ece": calibration_error(posterior, clean),
        "auroc": auroc(p_wrong[present], wrong[present]),
        "estimated": float(p_wrong[present].mean()),
        "true": float(wrong[present].mean()),
    }
