"""Paired differences against hand values, SciPy, and the steps of Holm's procedure."""

import numpy as np
import pytest
from scipy import stats

from mrl_jax.eval.differences import bootstrap_samples, compared, holm_levels, with_holm


def test_the_interval_over_seeds_is_that_of_the_paired_t_test():
    a, b = [0.52, 0.50, 0.53, 0.51, 0.55], [0.50, 0.49, 0.50, 0.50, 0.52]
    found = compared(a, b)
    # Differences .02 .01 .03 .01 .03: mean .02, standard deviation .01, error .01 / sqrt(5); t(4) has .975 at 2.776445.
    assert found.mean == pytest.approx(0.02)
    assert found.over_seeds == pytest.approx((0.02 - 2.776445 * 0.01 / 5**0.5, 0.02 + 2.776445 * 0.01 / 5**0.5))
    assert found.p == pytest.approx(stats.ttest_rel(a, b).pvalue)
    assert found.verdict == "ahead"
    assert found.text == "+0.020 [+0.008, +0.032] ahead"
    assert compared(b, a).verdict == "behind"


def test_few_seeds_give_no_verdict():
    found = compared([0.52, 0.53, 0.54, 0.55], [0.32, 0.33, 0.33, 0.34])
    assert found.over_seeds[0] > 0
    assert (found.verdict, found.text[-1]) == ("", "]")


def test_instances_can_make_a_difference_level():
    a, b = [0.52, 0.53, 0.54, 0.52, 0.53], [0.50, 0.51, 0.52, 0.50, 0.51]
    few = np.zeros(40)
    few[0] = 40 * 0.02  # the whole difference is one instance
    of_few, of_all = bootstrap_samples(np.stack([few, np.full(40, 0.02)], axis=1)).T
    level, ahead = compared(a, b, of_few), compared(a, b, of_all)
    assert level.over_instances[0] == 0 < 0.02 < level.over_instances[1]
    assert ahead.over_instances == pytest.approx((0.02, 0.02))
    assert compared(a, b).verdict == ahead.verdict == "ahead"
    assert level.over_seeds[0] > 0
    assert level.verdict == "level"
    assert level.text.startswith("+0.020 [+0.000, ")


def test_the_interval_over_instances_is_that_of_the_mean():
    """Of many instances it is close to 1.96 standard errors on both sides."""
    differences = np.random.default_rng(0).normal(0.01, 0.2, (400, 2))
    error = differences.std(axis=0, ddof=1) / 20
    samples = bootstrap_samples(differences).T
    for own, mean, wide in zip(samples, differences.mean(axis=0), error, strict=True):
        found = compared([0.5, 0.6], [0.4, 0.5], own).over_instances
        assert found == pytest.approx((mean - 1.96 * wide, mean + 1.96 * wide), abs=0.05 * wide + 1e-3)


def test_instances_of_a_unit_are_drawn_together():
    """Five copies of every instance tell no more than one."""
    one = np.random.default_rng(0).normal(0.01, 0.2, (60, 1))
    spread = {
        "one": bootstrap_samples(one).std(),
        "together": bootstrap_samples(np.repeat(one, 5, axis=0), np.repeat(np.arange(60), 5)).std(),
        "apart": bootstrap_samples(np.repeat(one, 5, axis=0)).std(),
    }
    assert spread["together"] == pytest.approx(spread["one"])
    assert spread["apart"] < 0.5 * spread["one"]


def test_equal_rows_are_level_and_a_constant_difference_is_certain():
    equal = compared([0.5] * 5, [0.5] * 5)
    assert (equal.mean, equal.over_seeds, equal.p, equal.verdict) == (0.0, (0.0, 0.0), 1.0, "level")
    assert compared([0.5, 0.5], [0.25, 0.25]).p == 0.0
    with pytest.raises(ValueError, match="needs two seeds"):
        compared([0.5], [0.4])


def test_holm_rejects_what_its_steps_reject():
    """Step k compares the k-th smallest p with 0.05 / (n - k + 1), and stops at the first that is larger."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        p = rng.random(7) ** 3 / 4
        order, rejected = np.argsort(p), set()
        for k, i in enumerate(order):
            if p[i] > 0.05 / (len(p) - k):
                break
            rejected.add(int(i))
        assert {i for i, level in enumerate(holm_levels(p.tolist())) if p[i] <= 1 - level} == rejected


def test_a_corrected_interval_holds_0_where_the_corrected_test_does_not_reject():
    rng = np.random.default_rng(1)
    found = [compared(0.01 * rng.random() + 0.01 * rng.normal(size=6), np.zeros(6)) for _ in range(30)]
    corrected = with_holm(found)
    order = np.argsort([d.p for d in found])
    first = next((k for k, i in enumerate(order) if found[i].p > 0.05 / (30 - k)), 30)
    for k, i in enumerate(order):
        assert (corrected[i].verdict != "level") == (k < first)
        assert corrected[i].over_seeds[0] < found[i].over_seeds[0]


def test_holm_counts_the_larger_p_value_of_seeds_and_instances():
    """Seeds are certain of both differences; the instances doubt one of them more than a single test allows."""
    a, b = [0.52, 0.53, 0.54, 0.52, 0.531], [0.50, 0.51, 0.52, 0.50, 0.51]
    rng = np.random.default_rng(0)
    sure, doubted = (rng.normal(0.02, spread, 10_000) for spread in (0.004, 0.0095))
    first, second = compared(a, b, sure), compared(a, b, doubted)
    assert first.p == pytest.approx(stats.ttest_rel(a, b).pvalue, abs=1e-4)
    assert second.p == pytest.approx(2 * stats.norm.sf(0.02 / 0.0095), abs=0.004)
    assert second.verdict == "ahead"  # alone, p is below 0.05
    doubtful = [compared(a, b, doubted) for _ in range(2)]
    assert [d.verdict for d in with_holm([first, *doubtful])] == ["ahead", "level", "level"]  # 0.035 > 0.05 / 2
