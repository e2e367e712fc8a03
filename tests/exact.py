"""Rankings by Python's integers and fractions: no rounding anywhere."""

from fractions import Fraction

import numpy as np


def similarity(query, item, metric="cosine"):
    """A number that orders gallery items as the similarity to a query does; for "hamming" minus the distance."""
    query, item = ([int(v) for v in row] for row in (query, item))
    d = sum(a * b for a, b in zip(query, item, strict=True))
    if metric == "dot":
        return Fraction(d)
    if metric == "hamming":
        return -Fraction(sum(a != b for a, b in zip(query, item, strict=True)))
    n = sum(b * b for b in item)
    return Fraction(d * abs(d), n) if n else Fraction(0)  # sign(d) d^2 / n; the query's length is the same for all


def order(query, gallery, metric="cosine"):
    """Item numbers, most similar first, ties in gallery order."""
    scores = [similarity(query, item, metric) for item in gallery]
    return sorted(range(len(gallery)), key=lambda j: (-scores[j], j))


def average_precision(query, gallery, relevant, metric="cosine", skip=None):
    ranked = [j for j in order(query, gallery, metric) if j != skip]
    hits = [i for i, j in enumerate(ranked, start=1) if relevant[j]]
    return sum(n / i for n, i in enumerate(hits, start=1)) / len(hits) if hits else 0.0


def cosine(query, item):
    """The cosine in float64; 0 for a zero vector."""
    length = sum(int(v) ** 2 for v in query)
    squared = similarity(query, item) / length if length else Fraction(0)
    return float(np.sign(squared) * abs(float(squared)) ** 0.5)
