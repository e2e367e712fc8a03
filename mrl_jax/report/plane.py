"""Samples of all modalities in a plane, near each other as what the run retrieves by is.

Shape letters: n samples, D numbers that they are retrieved by, K classes.
"""

from collections.abc import Mapping

import numpy as np

__all__ = ["even_sample", "in_plane"]

_PERPLEXITY = 30.0  # of t-SNE: about how many neighbours count
_LEAST = 12  # points from which on t-SNE is drawn; of fewer, principal components
_COMPONENTS = 50  # to which wide rows are reduced first, as van der Maaten and Hinton do


def even_sample(labels: np.ndarray, most: int, seed: int = 0) -> np.ndarray:
    """At most so many samples, about equally many of each class: their places, ascending, integers.

    Args:
        labels: integers [n].
        most: upper bound.
        seed: seed of the order in which the samples of a class are taken.

    Example:
        >>> labels = np.array([0] * 100 + [1] * 3)
        >>> np.bincount(labels[even_sample(labels, 8)]).tolist()
        [5, 3]
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    turn = np.empty(len(labels), np.int64)  # which sample of its class it is
    for k in np.unique(labels):
        mine = order[labels[order] == k]
        turn[mine] = np.arange(len(mine))
    taken = np.lexsort((np.argsort(order), labels, turn))[:most]
    return np.sort(taken)


def in_plane(rows: Mapping[str, np.ndarray], seed: int = 0) -> tuple[dict[str, np.ndarray], str]:
    """Coordinates of the samples of all modalities in one plane, the same in every call.

    By t-SNE, from the principal components; of fewer than 12 samples these are the coordinates.

    Args:
        rows: modality -> what is retrieved by, float [n, D], the same D for all.
        seed: seed of t-SNE.

    Returns:
        Modality -> float [n, 2], and the name of the method.

    Reference:
        van der Maaten & Hinton, Visualizing Data using t-SNE, JMLR 2008.
    """
    from sklearn.decomposition import PCA  # deferred: slow to import
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    x = np.concatenate([np.asarray(z, np.float64) for z in rows.values()])
    ends = np.cumsum([len(z) for z in rows.values()])[:-1]
    xy, name = np.zeros((len(x), 2)), "principal components"
    with threadpool_limits(1):  # sums of several threads come in any order, and t-SNE enlarges the difference
        if np.ptp(x, axis=0).any():  # equal rows have no components
            parts = PCA(min(_COMPONENTS, *x.shape), svd_solver="full").fit_transform(x)
            xy[:, : parts.shape[1]] = parts[:, :2]
            if len(x) >= _LEAST:
                start = (xy / parts[:, 0].std() * 1e-4).astype(np.float32)
                perplexity = min(_PERPLEXITY, (len(x) - 1) / 3)
                tsne = TSNE(2, perplexity=perplexity, init=start, random_state=seed)
                xy, name = tsne.fit_transform(parts.astype(np.float32)), "t-SNE"
    return dict(zip(rows, np.split(np.asarray(xy, np.float64), ends), strict=True)), name
