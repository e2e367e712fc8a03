"""Paired differences between two rows of a table, over seeds and over test instances, corrected for their number."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from mrl_jax.eval.significance import LEVEL, bootstrap_means

__all__ = ["LEAST_SEEDS", "Difference", "bootstrap_samples", "compared", "holm_levels", "with_holm"]

LEAST_SEEDS = 5
"""With fewer seeds there is no verdict: corrected intervals are then so wide that hardly anything could be told."""
_SAMPLES = 10_000


@dataclass(frozen=True)
class Difference:
    """How far one row lies above another.

    Attributes:
        mean: mean difference over seeds.
        error: its standard error.
        seeds: number of seeds.
        samples: bootstrap samples of the mean difference over test instances, float [B], or None if the average
            precision of instances was not kept.
        level: confidence of the intervals; 0.95, and more after `with_holm`.
    """

    mean: float
    error: float
    seeds: int
    samples: np.ndarray | None = None
    level: float = LEVEL

    @property
    def p(self) -> float:
        """Two-sided p-value, not corrected: of the paired t-test over seeds, or of the bootstrap over test instances.

        The larger one counts, as `verdict` asks that neither interval holds 0.
        """
        if self.error == 0:  # equal in every seed, or apart by the same
            over_seeds = float(self.mean == 0)
        else:
            over_seeds = float(2 * stats.t.sf(abs(self.mean) / self.error, self.seeds - 1))
        if self.samples is None:
            return over_seeds
        beyond = min((self.samples <= 0).mean(), (self.samples >= 0).mean())
        return max(over_seeds, min(2 * float(beyond), 1.0))

    @property
    def over_seeds(self) -> tuple[float, float]:
        """Interval of the mean over seeds (Student's t)."""
        wide = float(stats.t.ppf((1 + self.level) / 2, self.seeds - 1)) * self.error
        return self.mean - wide, self.mean + wide

    @property
    def over_instances(self) -> tuple[float, float] | None:
        """Interval over test instances (bootstrap), or None."""
        if self.samples is None:
            return None
        low, high = np.quantile(self.samples, [(1 - self.level) / 2, (1 + self.level) / 2])
        return float(low), float(high)

    @property
    def verdict(self) -> str:
        """ "ahead" or "behind" if no interval holds 0, else "level"; "" with fewer than `LEAST_SEEDS` seeds."""
        if self.seeds < LEAST_SEEDS:
            return ""
        ends = [*self.over_seeds, *(self.over_instances or ())]
        if min(ends) > 0:
            return "ahead"
        return "behind" if max(ends) < 0 else "level"

    @property
    def text(self) -> str:
        """Mean, the smallest interval that holds those over seeds and over instances, and verdict, as a cell."""
        ends = [*self.over_seeds, *(self.over_instances or ())]
        return f"{self.mean:+.3f} [{min(ends):+.3f}, {max(ends):+.3f}] {self.verdict}".rstrip()


def compared(a: Sequence[float], b: Sequence[float], samples: np.ndarray | None = None) -> Difference:
    """The difference a - b of two rows with the same seeds.

    Args:
        a: mAP of every seed.
        b: that of the other row, in the same order.
        samples: their bootstrap samples, from `bootstrap_samples`.

    Raises:
        ValueError: fewer than two seeds, or not the same number.
    """
    differences = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    if differences.ndim != 1 or len(differences) < 2:
        raise ValueError(f"{differences.shape} differences: a paired interval needs two seeds or more")
    return Difference(float(differences.mean()), float(stats.sem(differences)), len(differences), samples)


def bootstrap_samples(differences: np.ndarray, units: np.ndarray | None = None) -> np.ndarray:
    """Bootstrap samples [B, S] of mean differences over test instances, from the same draws for all.

    Args:
        differences: float [N, S], of N instances between S pairs of rows; the mean of the seeds.
        units: integers [N], equal for instances that are drawn together, such as near-duplicates; None: each alone.
    """
    (samples,) = bootstrap_means([(differences, np.arange(len(differences)) if units is None else units)], _SAMPLES)
    return samples


def holm_levels(p: Sequence[float]) -> list[float]:
    """Confidence levels of several intervals, so that all verdicts together err with the probability of a single one.

    A difference is significant if its interval at this level does not hold 0. That is Holm's procedure: the k-th
    smallest of n p-values is held against 0.05 / (n - k + 1), up to the first that is larger; all later ones are held
    against what that one was.

    References:
        Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 1979.

    Example:
        >>> [round(1 - level, 4) for level in holm_levels([0.01, 0.04, 0.03])]
        [0.0167, 0.025, 0.025]
    """
    levels, left, stopped = [0.0] * len(p), len(p), False
    for i in sorted(range(len(p)), key=lambda i: p[i]):
        levels[i] = 1 - (1 - LEVEL) / left
        stopped = stopped or p[i] > (1 - LEVEL) / left
        left -= not stopped
    return levels


def with_holm(differences: Iterable[Difference]) -> list[Difference]:
    """Differences with intervals that are corrected for the number of them (Holm), by their p-values."""
    differences = list(differences)
    levels = holm_levels([d.p for d in differences])
    return [replace(d, level=level) for d, level in zip(differences, levels, strict=True)]
