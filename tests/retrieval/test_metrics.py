"""Metrics of a ranking: hand values, explicit float64 loops, gains, cut-offs, transformations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import tolerances

from mrl_jax.retrieval import metrics
from mrl_jax.retrieval.metrics import average_precision, interpolated_precision, ndcg, precision, rank

SCORES = jnp.array([0.9, 0.5, 0.4, -1.0])


@pytest.mark.parametrize(
    ("relevant", "expected"),
    [
        ([True, False, False, False], 1.0),
        ([False, False, False, True], 1 / 4),
        ([True, False, True, False], (1 + 2 / 3) / 2),
        ([False, True, True, False], (1 / 2 + 2 / 3) / 2),
        ([True, True, True, True], 1.0),
        ([False, False, False, False], 0.0),
    ],
)
def test_average_precision_by_hand(relevant, expected):
    in_order = average_precision(rank(SCORES, jnp.array(relevant)))
    order = jnp.array([2, 0, 3, 1])
    shuffled = average_precision(rank(SCORES[order], jnp.array(relevant)[order]))
    np.testing.assert_allclose([in_order, shuffled], [expected, expected], **tolerances.HAND)


def test_every_metric_by_hand():
    # Ten items in order; relevant at ranks 1, 4 and 8, with gains 1, 3 and 2.
    gains = jnp.zeros(10, jnp.uint8).at[jnp.array([0, 3, 7])].set(jnp.array([1, 3, 2], jnp.uint8))
    r = rank(-jnp.arange(10.0), gains)
    log2 = np.log2
    ideal = 3 / log2(2) + 2 / log2(3) + 1 / log2(4)
    expected = {
        "relevant_items": 3,
        "average_precision": (1 + 2 / 4 + 3 / 8) / 3,
        "ap@5": (1 + 2 / 4) / 2,
        "ap@5, min(k, R)": (1 + 2 / 4) / 3,
        "ap@2, min(k, R)": 1 / 2,
        "precision@5": 2 / 5,
        "recall@5": 2 / 3,
        "r_precision": 1 / 3,
        "reciprocal_rank": 1.0,
        "ndcg": (1 / log2(2) + 3 / log2(5) + 2 / log2(9)) / ideal,
        "ndcg@4": (1 / log2(2) + 3 / log2(5)) / ideal,
        "ndcg@2": (1 / log2(2)) / (3 / log2(2) + 2 / log2(3)),
    }
    actual = {
        "relevant_items": metrics.relevant_items(r),
        "average_precision": average_precision(r),
        "ap@5": average_precision(r, 5),
        "ap@5, min(k, R)": average_precision(r, 5, "relevant"),
        "ap@2, min(k, R)": average_precision(r, 2, "relevant"),
        "precision@5": precision(r, 5),
        "recall@5": metrics.recall(r, 5),
        "r_precision": metrics.r_precision(r),
        "reciprocal_rank": metrics.reciprocal_rank(r),
        "ndcg": ndcg(r, None, most=3),
        "ndcg@4": ndcg(r, 4, most=3),
        "ndcg@2": ndcg(r, 2, most=3),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, **tolerances.HAND, err_msg=name)
    # Recall 0 to 1/3 is reached at rank 1, up to 2/3 at rank 4 (precision 2/4), up to 1 at rank 8 (3/8).
    np.testing.assert_allclose(interpolated_precision(r), [1] * 4 + [1 / 2] * 3 + [3 / 8] * 4, **tolerances.HAND)
    np.testing.assert_allclose(interpolated_precision(r, 4), [1, 1, 1 / 2, 3 / 8], **tolerances.HAND)


def test_equal_scores_rank_in_gallery_order():
    tied = average_precision(rank(jnp.zeros(4), jnp.array([False, True, False, True])))
    np.testing.assert_allclose(tied, (1 / 2 + 2 / 4) / 2, **tolerances.HAND)


@pytest.mark.parametrize("scores", [[0.0, -0.0, 0.0], [-0.0, 0.0, -0.0]])
def test_zero_and_negative_zero_tie(scores):
    actual = [average_precision(rank(jnp.array(scores), jnp.arange(3) == i)) for i in range(3)]
    np.testing.assert_allclose(actual, [1.0, 1 / 2, 1 / 3], **tolerances.HAND)


METRICS = {
    "average_precision": (average_precision, reference.average_precision),
    "ap@7": (lambda r: average_precision(r, 7), lambda s, g: reference.average_precision(s, g, 7)),
    "ap@7, min(k, R)": (
        lambda r: average_precision(r, 7, "relevant"),
        lambda s, g: reference.average_precision(s, g, 7, "relevant"),
    ),
    "precision@7": (lambda r: precision(r, 7), lambda s, g: reference.precision(s, g, 7)),
    "precision@60": (lambda r: precision(r, 60), lambda s, g: reference.precision(s, g, 60)),
    "recall@7": (lambda r: metrics.recall(r, 7), lambda s, g: reference.recall(s, g, 7)),
    "recall@60": (lambda r: metrics.recall(r, 60), lambda s, g: reference.recall(s, g, 60)),
    "r_precision": (metrics.r_precision, reference.r_precision),
    "reciprocal_rank": (metrics.reciprocal_rank, reference.reciprocal_rank),
    "ndcg": (lambda r: ndcg(r, None, most=4), reference.ndcg),
    "ndcg@7": (lambda r: ndcg(r, 7, most=4), lambda s, g: reference.ndcg(s, g, 7)),
    "ndcg@60": (lambda r: ndcg(r, 60, most=4), lambda s, g: reference.ndcg(s, g, 60)),
    "curve": (interpolated_precision, reference.interpolated_precision),
    "curve, 101": (
        lambda r: interpolated_precision(r, 101),
        lambda s, g: reference.interpolated_precision(s, g, 101),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", METRICS)
def test_metrics_equal_explicit_loops_under_jit_vmap_and_in_batches(name):
    ours, explicit = METRICS[name]
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 12, (9, 40)).astype(np.float32)  # many ties
    gains = rng.integers(0, 5, (9, 40)) * (rng.random((9, 40)) < 0.2)
    gains[0], gains[1] = 0, 1  # nothing relevant, everything
    expected = [explicit(s, g.tolist()) for s, g in zip(scores, gains, strict=True)]
    gains = gains.astype(np.uint8)
    together = ours(rank(jnp.asarray(scores), jnp.asarray(gains)))
    np.testing.assert_allclose(together, expected, atol=tolerances.PRECISION)
    mapped = jax.jit(jax.vmap(lambda s, g: ours(rank(s, g))))(scores, gains)
    np.testing.assert_allclose(mapped, expected, atol=tolerances.PRECISION)


@pytest.mark.slow
def test_sums_over_long_rankings_keep_their_precision():
    n = 300_000
    gains = (np.random.default_rng(0).random(n) < 0.4).astype(np.uint8)
    places = np.flatnonzero(gains) + 1.0
    r = rank(jnp.asarray(-np.arange(n, dtype=np.float32)), jnp.asarray(gains))
    ap = (np.arange(1, len(places) + 1) / places).mean()
    np.testing.assert_allclose(average_precision(r), ap, rtol=tolerances.PRECISION)
    best = (1 / np.log2(1 + np.arange(1, len(places) + 1))).sum()
    np.testing.assert_allclose(ndcg(r), (1 / np.log2(1 + places)).sum() / best, rtol=tolerances.PRECISION)


@pytest.mark.slow
def test_fine_curves_of_long_rankings_stay_exact():
    n, levels = 50_000, 10_001
    relevant = jnp.ones(n, jnp.uint8).at[0].set(0)  # the first item is wrong: precision grows to the end
    curve = interpolated_precision(rank(-jnp.arange(float(n)), relevant), levels)
    np.testing.assert_allclose(curve, np.full(levels, (n - 1) / n), atol=tolerances.PRECISION)
    falling = interpolated_precision(rank(-jnp.arange(float(2 * n)), jnp.arange(2 * n) % 2 == 0), levels)
    hits = np.maximum(np.ceil(np.arange(levels) * n / (levels - 1)), 1)
    np.testing.assert_allclose(falling, hits / (2 * hits - 1), atol=tolerances.PRECISION)
    with pytest.raises(ValueError, match="levels is 50001"):
        interpolated_precision(rank(SCORES, SCORES > 0), 50_001)


@pytest.mark.parametrize(
    ("k", "divisor", "message"),
    [(0, "hits", "at least 1"), (2.5, "hits", "an integer"), (3, "all", "choose hits or relev")],
)
def test_bad_cut_offs_and_divisors_are_refused(k, divisor, message):
    with pytest.raises(ValueError, match=message):
        average_precision(rank(SCORES, SCORES > 0), k, divisor)
