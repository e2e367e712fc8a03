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


def ranked_gains(scores, gains):
    """Gains in the order of descending scores; equal scores rank in the given order."""
    return [gains[item] for item in np.argsort(-_float64(scores), kind="stable")]


def average_precision(scores, relevant, k=None, divisor="hits"):
    """Mean over the relevant items within rank k of the precision at their rank."""
    hits, precisions = 0, []
    for rank, gain in enumerate(ranked_gains(scores, relevant)[:k], start=1):
        if gain:
            hits += 1
            precisions.append(hits / rank)
    total = sum(bool(x) for x in relevant)
    count = hits if divisor == "hits" else min(total, k or total)
    return sum(precisions) / count if count else 0.0


def precision(scores, relevant, k):
    """Relevant items among the first k, divided by k."""
    return sum(bool(x) for x in ranked_gains(scores, relevant)[:k]) / k


def recall(scores, relevant, k):
    """Relevant items among the first k, divided by all relevant ones."""
    total = sum(bool(x) for x in relevant)
    return sum(bool(x) for x in ranked_gains(scores, relevant)[:k]) / total if total else 0.0


def r_precision(scores, relevant):
    """Precision at the number of relevant items."""
    total = sum(bool(x) for x in relevant)
    return precision(scores, relevant, total) if total else 0.0


def reciprocal_rank(scores, relevant):
    """One over the rank of the first relevant item."""
    for rank, gain in enumerate(ranked_gains(scores, relevant), start=1):
        if gain:
            return 1.0 / rank
    return 0.0


def ndcg(scores, gains, k=None):
    """Discounted gains of the first k, over those of the best order."""

    def dcg(ordered):
        return sum(float(gain) / math.log2(1 + rank) for rank, gain in enumerate(ordered[:k], start=1))

    best = dcg(sorted(gains, reverse=True))
    return dcg(ranked_gains(scores, gains)) / best if best else 0.0


def interpolated_precision(scores, relevant, levels=11):
    """Largest precision at a rank whose recall is at least t, for t from 0 to 1 in equal steps."""
    ordered = [bool(x) for x in ranked_gains(scores, relevant)]
    total, points, hits = sum(ordered), [], 0
    for rank, hit in enumerate(ordered, start=1):
        hits += hit
        points.append((hits, hits / rank))
    if not total:
        return [0.0] * levels
    reached = [[p for hits, p in points if hits * (levels - 1) >= level * total] for level in range(levels)]
    return [max(values) for values in reached]


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
