"""Paired differences between two rows of a table, over seeds and over test instances, corrected for their number."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from mrl_jax.eval.significance import LEVEL, bootstrap_means, interval

__all__ = ["Difference", "compared", "holm", "instance_intervals", "with_holm"]

_SAMPLES = 10_000


class Difference(NamedTuple):
    """How far one row lies above another.

    Attributes:
        mean: mean difference.
        over_seeds: 95 % interval of the mean over seeds (Student's t).
        over_instances: 95 % interval over test instances (bootstrap), or None if they were not kept.
        p: two-sided p-value of the paired t-test over seeds; after `with_holm` the corrected one.
    """

    mean: float
    over_seeds: tuple[float, float]
    over_instances: tuple[float, float] | None
    p: float

    @property
    def verdict(self) -> str:
        """ "ahead" or "behind" where p is below 0.05 and no interval holds 0; "level" otherwise."""
        ends = [*self.over_seeds, *(self.over_instances or ())]
        if self.p < 1 - LEVEL and min(ends) > 0:
            return "ahead"
        return "behind" if self.p < 1 - LEVEL and max(ends) < 0 else "level"

    @property
    def text(self) -> str:
        """Mean, interval over seeds and verdict, as a cell of a table."""
        return f"{self.mean:+.3f} [{self.over_seeds[0]:+.3f}, {self.over_seeds[1]:+.3f}] {self.verdict}"


def compared(a: Sequence[float], b: Sequence[float], over_instances: tuple[float, float] | None = None) -> Difference:
    """The difference a - b of two rows with the same seeds.

    Args:
        a: mAP of every seed.
        b: that of the other row, in the same order.
        over_instances: their interval over test instances, from `instance_intervals`.

    Raises:
        ValueError: fewer than two seeds, or not the same number.
    """
    differences = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    if differences.ndim != 1 or len(differences) < 2:
        raise ValueError(f"{differences.shape} differences: a paired interval needs two seeds or more")
    mean, error = float(differences.mean()), float(stats.sem(differences))
    if error == 0:  # equal in every seed
        return Difference(mean, (mean, mean), over_instances, float(mean == 0))
    low, high = stats.t.interval(LEVEL, len(differences) - 1, loc=mean, scale=error)
    p = float(stats.ttest_1samp(differences, 0.0).pvalue)
    return Difference(mean, (float(low), float(high)), over_instances, p)


def instance_intervals(differences: np.ndarray) -> list[tuple[float, float]]:
    """95 % intervals of mean differences over test instances, from the same bootstrap samples for all.

    Args:
        differences: float [U, S], of U instances between S pairs of rows; the mean of the seeds.
    """
    (samples,) = bootstrap_means([(differences, np.arange(len(differences)))], _SAMPLES)
    return [(float(low), float(high)) for low, high in interval(samples).T]


def holm(p: Sequence[float]) -> list[float]:
    """p-values of several tests, corrected so that one false rejection among all has the level of a single test.

    References:
        Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 1979.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    order, highest = sorted(range(len(p)), key=lambda i: p[i]), 0.0
    corrected = [0.0] * len(p)
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p) - rank) * p[i]))
        corrected[i] = highest
    return corrected


def with_holm(differences: Iterable[Difference]) -> list[Difference]:
    """Differences with p-values corrected for the number of them."""
    differences = list(differences)
    return [d._replace(p=p) for d, p in zip(differences, holm([d.p for d in differences]), strict=True)]
