"""Bootstrap intervals and the paired randomisation test: exact enumeration, scipy, coverage, uniform p-values."""

import itertools
import math
import tracemalloc

import numpy as np
import pytest
import tolerances
from numpy.testing import assert_allclose
from scipy import stats

from mrl_jax.eval import significance
from mrl_jax.eval.significance import bootstrap_means, bootstrap_medians, interval, randomization_test, unit_means


def column(values, units=None):
    values = np.asarray(values, np.float64)
    return values[:, None], np.arange(len(values)) if units is None else np.asarray(units)


def exact_p(differences):
    """All 2^U signs, one by one."""
    signs = np.array(list(itertools.product((-1, 1), repeat=len(differences))))
    sums = np.abs(signs @ np.asarray(differences))
    return float(np.mean(sums >= abs(sum(differences)) - 1e-12))


@pytest.mark.parametrize("n", [1, 2, 5, 9])
@pytest.mark.parametrize("shift", [0.0, 0.4, 2.0])
def test_p_approaches_the_exact_enumeration(n, shift):
    differences = np.random.default_rng(n).normal(shift, 1.0, n)
    exact, permutations = exact_p(differences), 20_000
    error = 4 * math.sqrt(exact * (1 - exact) / permutations) + 1 / permutations  # four standard errors
    assert abs(randomization_test(differences, permutations) - exact) <= error


@pytest.mark.parametrize("n", [8, 60])
def test_p_agrees_with_scipy(n):
    rng = np.random.default_rng(0)
    a = rng.uniform(size=n)
    b = np.clip(a + rng.normal(0.04, 0.2, n), 0, 1)
    theirs = stats.permutation_test(
        (a, b), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=20_000, vectorized=False, rng=rng
    )
    assert 0.01 < theirs.pvalue < 0.95
    assert abs(randomization_test(a - b, 20_000) - theirs.pvalue) < 0.015


def test_p_by_hand():
    # +++ and --- of the eight signs reach 3; the observed signs count once more.
    assert_allclose(randomization_test([1.0, 1.0, 1.0], 80_000), 2 / 8, atol=0.007)
    assert randomization_test([0.0, 0.0], 99) == 1.0
    assert randomization_test([0.3], 99) == 1.0  # one query: either sign is as large
    assert randomization_test(np.ones(40), 999) == 1 / 1000  # the smallest there is, never 0
    assert randomization_test([0.1, 0.2, -0.3], 99) == 1.0  # a sum of 0 up to rounding
    # An odd sum of tenths is at least 0.1 whatever the signs, and this one is 0.1, up to rounding.
    assert randomization_test(np.array([-3, -2, -3, 4, 2, 4, -1]) * 0.1, 999) == 1.0


def test_p_is_two_sided_seeded_and_the_same_for_one_column_or_many():
    differences = np.random.default_rng(3).normal(0.2, 1, (40, 3))
    p = randomization_test(differences, 500, seed=7)
    assert_allclose(randomization_test(-differences, 500, seed=7), p)
    assert [randomization_test(d, 500, seed=7) for d in differences.T] == p.tolist()
    assert randomization_test(differences, 500, seed=8).tolist() != p.tolist()


def test_blocks_keep_memory_bounded_and_do_not_change_the_law(monkeypatch):
    differences = np.random.default_rng(0).normal(0.05, 1, 1000)
    monkeypatch.setattr(significance, "_BLOCK", 50_000)
    tracemalloc.start()
    blocked = randomization_test(differences, 4000)
    bootstrap_means([column(differences)], 1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4e6  # all tosses at once would take 4 MB as bytes, 32 MB as numbers
    monkeypatch.setattr(significance, "_BLOCK", 1 << 30)
    assert abs(blocked - randomization_test(differences, 4000)) < 0.05


def test_p_values_are_uniform_under_the_null():
    rng = np.random.default_rng(1)
    ps = np.sort([randomization_test(rng.normal(size=30), 199, seed=i) for i in range(300)])
    assert stats.kstest(ps, "uniform").pvalue > 1e-3
    assert np.mean(ps <= 0.05) < 0.1


@pytest.mark.parametrize(("values", "permutations"), [([], 9), ([[[1.0]]], 9), ([1.0, np.nan], 9), ([1.0], 0)])
def test_bad_input_to_the_test_is_refused(values, permutations):
    with pytest.raises(ValueError, match="randomization_test"):
        randomization_test(values, permutations)


def test_bootstrap_means_equal_means_over_drawn_rows():
    rng = np.random.default_rng(0)
    values, samples = rng.uniform(size=(7, 2)), 50
    (actual,) = bootstrap_means([(values, np.arange(7))], samples, seed=5)
    drawn = np.random.default_rng(5).integers(7, size=(samples, 7), dtype=np.int32)
    assert_allclose(actual, values[drawn].mean(axis=1), **tolerances.FLOAT64)


def test_units_are_drawn_with_all_their_queries_in_all_groups():
    values = np.array([0.1, 0.5, 0.9])
    one, other = bootstrap_means([column(values), column(values[::-1], [2, 1, 0])], 200)
    assert_allclose(one, other, **tolerances.FLOAT64)  # the same instances, in another order
    twice, alone = bootstrap_means([column(np.repeat(values, 2), np.repeat(np.arange(3), 2)), column(values)], 200)
    assert_allclose(twice, alone, **tolerances.FLOAT64)
    many = np.linspace(0, 1, 30)
    apart = bootstrap_means([column(many), column(many, np.arange(30, 60))], 200)
    assert abs(np.corrcoef(apart[0][:, 0], apart[1][:, 0])[0, 1]) < 0.3
    rare, _ = bootstrap_means([column([1.0], [0]), column(np.ones(30))], 100)
    assert np.isnan(rare).any()  # sometimes the only unit of a group is not drawn
    assert interval(rare).tolist() == [[1.0], [1.0]]


def test_medians_equal_medians_of_drawn_rows():
    for n in (1, 4, 7):
        values = np.random.default_rng(n).integers(1, 6, n)
        drawn = np.random.default_rng(2).integers(n, size=(60, n), dtype=np.int32)
        assert bootstrap_medians(values, np.arange(n), 60, 2).tolist() == np.median(values[drawn], axis=1).tolist()


def test_medians_draw_all_rows_of_a_unit_together():
    rng = np.random.default_rng(0)
    values, units = rng.integers(1, 9, 23), rng.integers(0, 6, 23) * 10
    numbers = np.unique(units)
    drawn = np.random.default_rng(3).integers(len(numbers), size=(40, len(numbers)), dtype=np.int32)
    expected = [np.median(np.concatenate([values[units == numbers[i]] for i in row])) for row in drawn]
    assert bootstrap_medians(values, units, 40, 3).tolist() == expected


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says():
    rng, hits, trials = np.random.default_rng(4), 0, 400
    for seed in range(trials):
        values = rng.beta(0.8, 1.2, size=80)  # skewed, as average precisions are
        low, high = interval(bootstrap_means([column(values)], 300, seed)[0][:, 0])
        hits += low <= 0.4 <= high
    assert 0.91 < hits / trials < 0.98


def test_interval_by_hand():
    assert_allclose(interval(np.arange(1001.0)), [25.0, 975.0])
    assert interval(np.full((5, 2), 0.3)).tolist() == [[0.3, 0.3], [0.3, 0.3]]


def test_unit_means_sum_to_the_average_over_groups():
    rng = np.random.default_rng(0)
    a, b = rng.uniform(size=(5, 1)), rng.uniform(size=(8, 1))
    parts = unit_means([(a, np.arange(5)), (b, np.arange(3, 11))])
    assert parts.shape == (11, 1)
    assert_allclose(parts.sum(), (a.mean() + b.mean()) / 2, **tolerances.FLOAT64)


def test_directions_that_mirror_each_other_are_no_more_evidence_than_one():
    values = np.random.default_rng(5).normal(size=40)
    differences = column(values - values.mean() + 0.25)
    one, both, apart = (
        randomization_test(unit_means(groups)[:, 0])
        for groups in ([differences], [differences] * 2, [differences, (differences[0], differences[1] + 40)])
    )
    assert one == both
    assert apart < one / 2  # as if there were twice as many queries
    narrow, wide = (
        np.ptp(interval(np.mean(bootstrap_means(groups, 2000), axis=0)[:, 0]))
        for groups in ([differences, (differences[0], differences[1] + 40)], [differences] * 2)
    )
    assert 1.3 < wide / narrow < 1.55  # the square root of 2


@pytest.mark.parametrize(
    "call",
    [
        lambda: bootstrap_means([], 9),
        lambda: bootstrap_means([column([])], 9),
        lambda: bootstrap_means([column([1.0])], 0),
        lambda: bootstrap_medians([], [], 9),
    ],
)
def test_bad_input_to_the_bootstrap_is_refused(call):
    with pytest.raises(ValueError, match="bootstrap_me"):
        call()
