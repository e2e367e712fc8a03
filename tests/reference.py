"""The paper's equations 1-8 and average precision in float64 NumPy, by explicit loops and as written, not as computed.

Shape letters: M modalities, B instances, L embedding dimensions, K classes, Q queries, G gallery items. `mask` is
[M, B], False for samples that do not exist.
"""

import math

import numpy as np


def soft_assignment(z, centers, tau):
    """Eq. 1-2: probabilities [K] of one embedding [L]."""
    weights = [math.exp(float(np.dot(c, z)) / tau) for c in _float64(centers)]
    return [w / sum(weights) for w in weights]


def robust_clustering(z, centers, labels, tau):
    """Summands of eq. 5, [M, B]."""
    return _per_sample(z, lambda i, j, x: math.log(1.0 - soft_assignment(x, centers, tau)[labels[i][j]]))


def cross_entropy(z, centers, labels, tau):
    """Summands of eq. 3, [M, B]: the one-hot sum over k leaves the label's own term."""

    def term(i, j, x):
        p = soft_assignment(x, centers, tau)
        return -sum((1.0 if k == labels[i][j] else 0.0) * math.log(p[k]) for k in range(len(p)))

    return _per_sample(z, term)


def contrastive(z, tau, mask=None, self_similarity=True):
    """Summands of eq. 7 with P of eq. 6, [M, B]; 0 where masked and where no positive is left."""
    z = _float64(z)
    m, b, _ = z.shape
    mask = np.ones((m, b), bool) if mask is None else mask

    def term(i, j, x):
        numerator = denominator = 0.0
        for l in range(m):  # noqa: E741
            for t in range(b):
                if not mask[l][t] or ((l, t) == (i, j) and not self_similarity):
                    continue
                weight = math.exp(float(np.dot(z[l, t], x)) / tau)
                denominator += weight
                if t == j:
                    numerator += weight
        return -math.log(numerator / denominator) if mask[i][j] and numerator > 0.0 else 0.0

    return _per_sample(z, term)


def total(z, centers, labels, beta, tau1, tau2, mask=None, loss="rc", self_similarity=True):
    """Eq. 8: total loss, clustering part, contrastive part; both parts sum over samples and divide by N."""
    m, b, _ = z.shape
    mask = np.ones((m, b), bool) if mask is None else mask
    n = max(1, sum(any(mask[i][j] for i in range(m)) for j in range(b)))
    clustering = {"rc": robust_clustering, "ce": cross_entropy}[loss](z, centers, labels, tau1)
    l_r = sum(clustering[i][j] for i in range(m) for j in range(b) if mask[i][j]) / n
    l_c = contrastive(z, tau2, mask, self_similarity).sum() / n
    return beta * l_r + (1.0 - beta) * l_c, l_r, l_c


def central_differences(f, x, step=1e-5):
    """Gradient of the scalar function f at the array x."""
    x = _float64(x)
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        ahead, behind = x.copy(), x.copy()
        ahead[index] += step
        behind[index] -= step
        gradient[index] = (f(ahead) - f(behind)) / (2.0 * step)
    return gradient


def average_precision(scores, relevant):
    """Mean over the relevant items of the precision at their rank; equal scores rank in the given order."""
    hits, precisions = 0, []
    for rank, item in enumerate(np.argsort(-_float64(scores), kind="stable"), start=1):
        if relevant[item]:
            hits += 1
            precisions.append(hits / rank)
    return sum(precisions) / len(precisions) if precisions else 0.0


def mean_average_precision(queries, gallery, query_labels, gallery_labels):
    """mAP over the full ranking by cosine similarity; a zero vector is similar to nothing."""
    queries, gallery = (_unit(x) for x in (queries, gallery))
    result = []
    for query, label in zip(queries, query_labels, strict=True):
        scores = [math.fsum(item * query) for item in gallery]
        result.append(average_precision(scores, [other == label for other in gallery_labels]))
    return sum(result) / len(result)


def _float64(x):
    return np.asarray(x, np.float64)


def _unit(x):
    x = _float64(x)
    return np.array([row / math.sqrt(math.fsum(row * row)) if row.any() else row for row in x])


def _per_sample(z, term):
    z = _float64(z)
    return np.array([[term(i, j, z[i, j]) for j in range(z.shape[1])] for i in range(z.shape[0])])
