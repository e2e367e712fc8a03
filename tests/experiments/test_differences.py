"""Paired differences against hand values, SciPy, and the steps of Holm's procedure."""

import numpy as np
import pytest
from scipy import stats

from experiments.shared.differences import Difference, compared, holm, instance_intervals, with_holm


def test_the_interval_over_seeds_is_that_of_the_paired_t_test():
    a, b = [0.52, 0.50, 0.53, 0.51, 0.55], [0.50, 0.49, 0.50, 0.50, 0.52]
    found = compared(a, b)
    # Differences .02 .01 .03 .01 .03: mean .02, standard deviation .01, error .01 / sqrt(5); t(4) has .975 at 2.776445.
    assert found.mean == pytest.approx(0.02)
    assert found.over_seeds == pytest.approx((0.02 - 2.776445 * 0.01 / 5**0.5, 0.02 + 2.776445 * 0.01 / 5**0.5))
    assert found.p == pytest.approx(stats.ttest_rel(a, b).pvalue)
    assert found.verdict == "ahead"
    assert compared(b, a).verdict == "behind"


def test_instances_can_make_a_difference_level():
    a, b = [0.52, 0.53, 0.54], [0.50, 0.51, 0.52]
    few = np.zeros(40)
    few[0] = 40 * 0.02  # the whole difference is one instance
    of_few, of_all = instance_intervals(np.stack([few, np.full(40, 0.02)], axis=1))
    assert of_few[0] == 0 < 0.02 < of_few[1]
    assert of_all == pytest.approx((0.02, 0.02))
    assert compared(a, b).verdict == compared(a, b, of_all).verdict == "ahead"
    assert compared(a, b, of_few).over_seeds[0] > 0
    assert compared(a, b, of_few).verdict == "level"


def test_the_interval_over_instances_is_that_of_the_mean():
    """Of many instances it is close to 1.96 standard errors on both sides."""
    differences = np.random.default_rng(0).normal(0.01, 0.2, (400, 2))
    error = differences.std(axis=0, ddof=1) / 20
    for found, mean, wide in zip(instance_intervals(differences), differences.mean(axis=0), error, strict=True):
        assert found == pytest.approx((mean - 1.96 * wide, mean + 1.96 * wide), abs=0.05 * wide + 1e-3)


def test_equal_rows_are_level_and_a_constant_difference_is_certain():
    assert compared([0.5, 0.6], [0.5, 0.6]) == Difference(0.0, (0.0, 0.0), None, 1.0)
    assert compared([0.5, 0.5], [0.25, 0.25]).p == 0.0
    with pytest.raises(ValueError, match="needs two seeds"):
        compared([0.5], [0.4])


def test_holm_rejects_what_its_steps_reject():
    """Step k compares the k-th smallest p with level / (n - k + 1), and stops at the first that is larger."""
    rng, level = np.random.default_rng(0), 0.05
    for _ in range(200):
        p = rng.random(7) ** 3 / 4
        order, rejected = np.argsort(p), set()
        for k, i in enumerate(order):
            if p[i] > level / (len(p) - k):
                break
            rejected.add(int(i))
        assert {i for i, q in enumerate(holm(p.tolist())) if q <= level} == rejected
    assert [d.p for d in with_holm([Difference(0, (0, 0), None, q) for q in (0.01, 0.5)])] == [0.02, 0.5]
