"""Uncertainty of a mean over queries: bootstrap intervals, and the paired randomisation test between two systems.

The unit of resampling is the instance: its queries in all directions are drawn together, because they are not
independent. With one query per instance and direction this is the usual resampling of queries. Everything is float64
NumPy, seeded, and computed in blocks, so that memory does not grow with the number of draws.

Shape letters: Q queries of a group (a direction), U units, S statistics, B bootstrap samples, P permutations.
"""

from collections.abc import Iterator, Sequence

import numpy as np

__all__ = ["LEVEL", "bootstrap_means", "bootstrap_medians", "interval", "randomization_test", "unit_means"]

LEVEL = 0.95
"""Level of every interval."""

_BLOCK = 1 << 22  # numbers that are drawn at once

Group = tuple[np.ndarray, np.ndarray]  # values [Q, S] and the unit of each query [Q], integers


def bootstrap_means(groups: Sequence[Group], samples: int, seed: int = 0) -> list[np.ndarray]:
    """Bootstrap means of every group: units are drawn with replacement, the same draw for all groups.

    Args:
        groups: values float [Q, S] of the queries, and the unit of each query, integers [Q]. Groups may differ in Q
            and S and share units.
        samples: B, number of bootstrap samples.
        seed: seed of the draws.

    Returns:
        Per group, float64 [B, S]; NaN in samples without any unit of the group.

    Raises:
        ValueError: no group, a group without queries, or a number of samples below 1.

    Reference:
        Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapters 6 and 13.
    """
    if samples < 1 or not groups or any(len(values) == 0 for values, _ in groups):
        raise ValueError(f"bootstrap_means: {samples} samples of {len(groups)} groups; give 1 or more, with queries")
    totals, number = _per_unit(groups)
    out = []
    for counts in _draws(number, samples, seed):
        out.append(counts.astype(np.float64) @ totals)
    sums = np.concatenate(out)
    means, at = [], 0
    for values, _ in groups:
        width = values.shape[1]
        size = sums[:, at + width : at + width + 1]
        means.append(np.divide(sums[:, at : at + width], size, out=np.full((samples, width), np.nan), where=size > 0))
        at += width + 1
    return means


def bootstrap_medians(values: np.ndarray, units: np.ndarray, samples: int, seed: int = 0) -> np.ndarray:
    """Bootstrap medians float64 [B] of values [Q], whose units [Q], integers, are drawn with replacement.

    Raises:
        ValueError: no values, or a number of samples below 1.
    """
    values = np.asarray(values, np.float64)
    if samples < 1 or values.ndim != 1 or not len(values):
        raise ValueError(
            f"bootstrap_medians: {samples} samples of values {values.shape}; give 1 sample or more, and values [Q]"
        )
    order, medians = np.argsort(values, kind="stable"), []
    numbers, mine = np.unique(units, return_inverse=True)
    ordered, mine = values[order], mine[order]
    for counts in _draws(len(numbers), samples, seed):
        for reached in np.cumsum(counts[:, mine], axis=1):  # sorted value i has the positions below reached[i]
            middle = (reached[-1] - 1) // 2, reached[-1] // 2
            medians.append(ordered[np.searchsorted(reached, middle, "right")].mean())
    return np.array(medians)


def interval(samples: np.ndarray, level: float = LEVEL) -> np.ndarray:
    """The percentile interval of bootstrap samples [B] or [B, S]: its low and high end, float64 [2] or [2, S]."""
    tail = (1 - level) / 2
    return np.nanquantile(np.asarray(samples, np.float64), [tail, 1 - tail], axis=0)


def unit_means(groups: Sequence[Group]) -> np.ndarray:
    """The contributions of the units to the average of the groups' means: float64 [U, S], which sum to it.

    Args:
        groups: as in `bootstrap_means`, all with the same S.
    """
    totals, _ = _per_unit(groups)
    width = groups[0][0].shape[1]
    parts = [totals[:, i * (width + 1) : i * (width + 1) + width] / len(v) for i, (v, _) in enumerate(groups)]
    return np.sum(parts, axis=0) / len(groups)


def randomization_test(contributions: np.ndarray, permutations: int = 10_000, seed: int = 0) -> np.ndarray | float:
    """Two-sided paired randomisation test of the hypothesis that two systems do not differ.

    Under the hypothesis, swapping the two scores of a unit is equally likely, so that the sign of its difference is a
    coin toss. With b permutations of the signs whose summed difference is at least as large as the observed one, p is
    (b + 1) / (P + 1), which is a valid p-value for any P and never 0.

    Args:
        contributions: difference of each unit [U], or of S statistics [U, S], which get the same signs.
        permutations: P, number of permutations of the signs.
        seed: seed of the signs.

    Returns:
        p in [1 / (P + 1), 1]: a float, or float64 [S].

    Raises:
        ValueError: no unit, values that are not finite, or a number of permutations below 1.

    References:
        Smucker, Allan & Carterette, A comparison of statistical significance tests for information retrieval
        evaluation, CIKM 2007. The estimate: Phipson & Smyth, Permutation p-values should never be zero, 2010.
    """
    differences = np.asarray(contributions, np.float64)
    if permutations < 1 or differences.ndim not in (1, 2) or not differences.size:
        raise ValueError(
            f"randomization_test: {permutations} permutations of differences {differences.shape}; give [U] or "
            "[U, S], all at least 1"
        )
    if not np.isfinite(differences).all():
        raise ValueError("randomization_test: differences hold NaN or inf; leave such units out")
    columns = differences.reshape(len(differences), -1)
    observed = np.abs(columns.sum(axis=0))
    # Sums that are equal in exact arithmetic may differ in the last bits: they count as equal.
    observed -= 1e-12 * np.abs(columns).sum(axis=0)
    reached = np.zeros(columns.shape[1], np.int64)
    rng, rows = np.random.default_rng(seed), max(1, _BLOCK // len(columns))
    for start in range(0, permutations, rows):
        tosses = (min(rows, permutations - start), len(columns))
        bits = np.frombuffer(rng.bytes(-(-tosses[0] * tosses[1] // 8)), np.uint8)
        heads = np.unpackbits(bits, count=tosses[0] * tosses[1]).reshape(tosses)
        sums = 2 * (heads.astype(np.float64) @ columns) - columns.sum(axis=0)
        reached += (np.abs(sums) >= observed).sum(axis=0)
    p = (reached + 1) / (permutations + 1)
    return float(p[0]) if differences.ndim == 1 else p


def _per_unit(groups: Sequence[Group]) -> tuple[np.ndarray, int]:
    """Per unit, the sums of each group's values and its number of queries, side by side [U, sum of S + 1]; and U."""
    units = np.unique(np.concatenate([unit for _, unit in groups]), return_inverse=True)[1]
    number, columns, at = int(units.max()) + 1, [], 0
    for values, own in groups:
        mine = units[at : at + len(own)]
        at += len(own)
        table = np.zeros((number, values.shape[1] + 1))
        np.add.at(table, mine, np.column_stack([values, np.ones(len(own))]))
        columns.append(table)
    return np.concatenate(columns, axis=1), number


def _draws(number: int, samples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each of `number` units is drawn, integers [B, U], in blocks of rows."""
    rng, rows = np.random.default_rng(seed), max(1, _BLOCK // number)
    for start in range(0, samples, rows):
        n = min(rows, samples - start)
        drawn = rng.integers(number, size=(n, number), dtype=np.int32) + number * np.arange(n)[:, None]
        yield np.bincount(drawn.ravel(), minlength=n * number).reshape(n, number)
