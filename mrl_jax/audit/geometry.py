"""Neighbours, outliers and overlapping classes, in the principal axes of the kernel of the votes.

Shape letters: N instances, K classes, R axes, J neighbours.
"""

import numpy as np

from mrl_jax.label_inference import VoteKernel
from mrl_jax.search.exact import top_k

__all__ = ["axes", "class_overlap", "nearest", "outlyingness"]

_AXES = 64  # principal axes in which instances are compared
_LIMIT = 3.5  # of the modified z-score (Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993)
_TO_SIGMA = 0.6745  # median absolute deviation of a normal distribution


def axes(kernel: VoteKernel, most: int = _AXES) -> np.ndarray:
    """Coordinates of the instances in the first principal axes of the kernel, float32 [N, R]."""
    return np.asarray(kernel.basis[:, -most:])  # eigenvalues ascend


def nearest(coordinates: np.ndarray, wanted: np.ndarray, count: int) -> np.ndarray:
    """The nearest other instances of some instances by cosine.

    Args:
        coordinates: [N, R].
        wanted: numbers of the instances.
        count: J.

    Returns:
        Integers [N, J], best first; -1 in rows that are not wanted, or without that many neighbours.
    """
    found = np.full((len(coordinates), count), -1)
    count = min(count, len(coordinates) - 1)
    if not len(wanted) or count < 1:
        return found
    _, best = top_k(coordinates[wanted], coordinates, count + 1)
    keep = best != wanted[:, None]
    keep &= np.cumsum(keep, axis=1) <= count  # an instance with equal ones may not be among its own nearest
    found[wanted[:, None], np.arange(count)] = best[keep].reshape(len(wanted), count)
    return found


def outlyingness(coordinates: np.ndarray, posterior: np.ndarray) -> tuple[np.ndarray, float]:
    """How far instances are from every class.

    Args:
        coordinates: [N, R].
        posterior: class posterior [N, K].

    Returns:
        1 - the cosine to the nearest class mean, float64 [N], and the limit above which it is an outlier: a modified
        z-score of 3.5.
    """
    x = coordinates / np.maximum(np.linalg.norm(coordinates, axis=1, keepdims=True), 1e-12)
    means = posterior.T @ x
    means = means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    far = 1.0 - np.asarray(x @ means.T, np.float64).max(axis=1)
    middle = np.median(far)
    return far, float(middle + _LIMIT * np.median(np.abs(far - middle)) / _TO_SIGMA)


def class_overlap(posterior: np.ndarray, votes: np.ndarray) -> np.ndarray:
    """How much two classes are taken for each other: the mean of two ratios of votes.

    For class a the ratio is the mean vote for b over the mean vote for a, of the instances that are believed to be a.

    Args:
        posterior: [N, K].
        votes: [N, K], by other instances alone.

    Returns:
        Symmetric, float64 [K, K], 1 on the diagonal, at most 1.
    """
    mean = np.asarray(posterior, np.float64).T @ np.asarray(votes, np.float64)
    ratio = np.minimum(mean / np.maximum(np.diag(mean)[:, None], 1e-12), 1.0)
    overlap = (ratio + ratio.T) / 2.0
    np.fill_diagonal(overlap, 1.0)
    return overlap
