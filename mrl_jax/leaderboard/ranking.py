"""Rank methods by their scores in the same runs, and tell which of them are level.

Shape letters: M methods, R noises, S seeds, U test instances.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from mrl_jax.eval.differences import LEAST_SEEDS, Difference, bootstrap_samples, compared, with_holm

__all__ = ["Ranking", "compare_with", "rank_methods"]


@dataclass(frozen=True)
class Ranking:
    """Methods in order, and which of them are level.

    Attributes:
        names: the methods, the best first.
        average_rank: of each, over noises and seeds; 1 is the best.
        differences: (better, worse) -> how far the mean mAP of one lies above that of the other, for every pair in the
            order of `names`, corrected by Holm for all pairs.
        level: groups of neighbours in that order of which no two differ, as slices of `names`; the largest ones only.
            Empty without a test, which needs `LEAST_SEEDS` seeds.
    """

    names: tuple[str, ...]
    average_rank: Mapping[str, float]
    differences: Mapping[tuple[str, str], Difference]
    level: tuple[slice, ...]

    def level_with(self, name: str) -> list[str]:
        """The methods that a method does not differ from, in order."""
        pairs = [pair for pair, d in self.differences.items() if name in pair and d.verdict == "level"]
        others = {other for pair in pairs for other in pair if other != name}
        return [other for other in self.names if other in others]


def rank_methods(precision: Mapping[str, np.ndarray], units: np.ndarray | None = None) -> Ranking:
    """Rank methods by the mean of their ranks over noises and seeds, and test every pair.

    A pair differs if neither the paired t-interval over seeds nor the bootstrap interval over test instances of its
    mean difference holds 0, at levels that let all pairs together err in at most 5 % of the cases (Holm). Demšar
    (Statistical Comparisons of Classifiers over Multiple Data Sets, JMLR 2006) draws such groups as a critical-
    difference diagram; his test compares ranks over data sets, this one scores on one set.

    Args:
        precision: method -> float [R, S, U]: what each test instance adds to the mean average precision of a run, U
            times, so that the mean over U is the mAP of the run. The runs have the same noises, seeds and instances.
        units: integers [U], equal for instances that the bootstrap draws together, such as near-duplicates; None: each
            alone.

    Raises:
        ValueError: no method, or shapes that differ.
    """
    _check(precision)
    maps = np.stack([x.mean(axis=2) for x in precision.values()])  # [M, R, S]
    ranks = stats.rankdata(-maps, axis=0).mean(axis=(1, 2))
    average = dict(zip(precision, ranks.tolist(), strict=True))
    mean = dict(zip(precision, maps.mean(axis=(1, 2)).tolist(), strict=True))
    names = tuple(sorted(precision, key=lambda name: (average[name], -mean[name])))
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    differences = _differences(precision, pairs, units)
    return Ranking(names, average, differences, _groups(names, differences))


def compare_with(
    control: str, precision: Mapping[str, np.ndarray], units: np.ndarray | None = None
) -> dict[str, Difference]:
    """How far a method lies above each of the others, corrected by Holm for these comparisons alone.

    They are fewer than all pairs, so that smaller differences show. The control has to be named before the scores are
    known (Demšar, JMLR 2006, section 3.2.2): the best of the scores would not be a fair one.

    Args:
        control: the method that the others are compared with.
        precision: as for `rank_methods`, of the control and of the others.
        units: as for `rank_methods`.

    Returns:
        Other method -> the control less it, in the order of `precision`; empty with one seed.

    Raises:
        ValueError: shapes that differ, or no scores of the control.
    """
    _check(precision)
    if control not in precision:
        raise ValueError(f"no scores of the control {control!r}; it is none of {', '.join(precision)}")
    found = _differences(precision, [(control, other) for other in precision if other != control], units)
    return {other: difference for (_, other), difference in found.items()}


def _check(precision: Mapping[str, np.ndarray]) -> None:
    shapes = {x.shape for x in precision.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 3:
        raise ValueError(f"precision of shapes {sorted(shapes)}; give the same [R, S, U] for every method")


def _differences(
    precision: Mapping[str, np.ndarray], pairs: Sequence[tuple[str, str]], units: np.ndarray | None
) -> dict[tuple[str, str], Difference]:
    """The difference of each pair, corrected for all of these pairs; empty with one seed."""
    if not pairs or next(iter(precision.values())).shape[1] < 2:
        return {}
    of_seeds = {name: x.mean(axis=(0, 2)) for name, x in precision.items()}  # [S]
    samples = bootstrap_samples(np.stack([x.mean(axis=(0, 1)) for x in precision.values()], axis=1), units)  # [B, M]
    at = {name: samples[:, i] for i, name in enumerate(precision)}
    found = with_holm(compared(of_seeds[a], of_seeds[b], at[a] - at[b]) for a, b in pairs)
    return dict(zip(pairs, found, strict=True))


def _groups(names: Sequence[str], differences: Mapping[tuple[str, str], Difference]) -> tuple[slice, ...]:
    """The largest stretches of two or more neighbours of which no two differ."""
    if not differences or any(d.seeds < LEAST_SEEDS for d in differences.values()):
        return ()
    found: list[slice] = []
    for start in range(len(names)):
        stop = start + 1
        while stop < len(names) and all(differences[a, names[stop]].verdict == "level" for a in names[start:stop]):
            stop += 1
        if stop - start > 1 and (not found or stop > found[-1].stop):
            found.append(slice(start, stop))
    return tuple(found)
