"""Exact top-k by upper bounds: the same results as a comparison with all rows, whatever the rows look like."""

import numpy as np
import pytest

from mrl_jax import Index
from mrl_jax.search import bounded
from mrl_jax.search.bounded import BoundedSearch


def rows_of(count, seed, decay=0.93):
    """Rows near few axes, as those of a trained model are, and in random directions with `decay=1`."""
    turned = np.linalg.qr(np.random.default_rng(0).normal(size=(128, 128)))[0]
    x = np.random.default_rng(seed).normal(size=(count, 128)) * decay ** np.arange(128)
    return (x @ turned).astype(np.float32)


def searched(x, queries, k, metric="cosine"):
    index = Index.build(x, metric=metric)
    search = BoundedSearch(index, queries)
    return search, search.search(queries, k), index.search(queries, k)


@pytest.mark.parametrize("metric", ["cosine", "dot"])
def test_rows_near_few_axes_are_ruled_out_and_results_are_exact(metric):
    x, q = rows_of(3000, 1), rows_of(32, 2)
    search, (scores, rows), exact = searched(x, q, 10, metric)
    assert search.head is not None
    assert search._bounded(search._asked(q), 10)[2].mean() > 0.9
    np.testing.assert_array_equal(rows, exact.rows)
    np.testing.assert_allclose(scores, exact.scores, rtol=2e-6)


def test_queries_that_the_bounds_do_not_settle_are_compared_with_all_rows():
    x, near = rows_of(3000, 1), rows_of(32, 2)
    search, index = BoundedSearch(Index.build(x), near), Index.build(x)
    far = rows_of(32, 3, decay=1.08)  # on the other axes
    for q in (far, np.concatenate([near[:31], far[:1]]), far[:1]):
        sure = search._bounded(search._asked(q), 10)[2]
        assert not sure.all()
        np.testing.assert_array_equal(search.search(q, 10)[1], index.search(q, 10).rows)


def test_random_directions_are_compared_with_all_rows():
    x, q = rows_of(2000, 4, decay=1), rows_of(8, 5, decay=1)
    search, (_, rows), exact = searched(x, q, 10)
    assert search.head is None
    np.testing.assert_array_equal(rows, exact.rows)


@pytest.mark.parametrize("count", [1, 63, 64, 300])
@pytest.mark.parametrize("k", [1, 7])
def test_small_galleries(count, k):
    x, q = rows_of(count, 5), rows_of(3, 6)
    _, (scores, rows), exact = searched(x, q, min(k, count))
    np.testing.assert_array_equal(rows, exact.rows)
    assert np.isfinite(scores).all()


def test_equal_rows_come_in_gallery_order_and_padding_never():
    x = np.repeat(rows_of(50, 7), 7, axis=0)  # 350 rows, 7 of each kind
    q = x[[0, 100, 349]]
    for k in (10, 350):  # with 10 by bounds, with all of them without
        _, (scores, rows), exact = searched(x, q, k)
        np.testing.assert_array_equal(np.sort(rows, axis=1), np.sort(exact.rows, axis=1))
        equal = np.diff(scores) == 0
        assert equal.any()
        assert (np.diff(rows)[equal] > 0).all()


def test_negative_scores_of_all_rows_precede_padding():
    x = np.abs(rows_of(70, 8))
    q = -np.abs(rows_of(2, 9))
    _, (scores, rows), exact = searched(x, q, 70)
    np.testing.assert_array_equal(rows, exact.rows)
    assert (scores < 0).all()


def test_the_bounds_are_bounds():
    x, q = rows_of(500, 10), rows_of(9, 11)
    axes = np.linalg.eigh((x.T @ x).astype(np.float64))[1].astype(np.float32)
    heads, asked = (np.asarray(bounded._heads(v, axes, 60), np.float64) for v in (x, q))
    assert heads.shape == (500, 64)
    assert (heads @ asked.T >= x.astype(np.float64) @ q.T.astype(np.float64) - 1e-4).all()


def test_which_indexes_hold_real_rows():
    signs = np.sign(rows_of(20, 12))
    assert Index.build(rows_of(20, 12)).real
    assert not Index.build(signs).real
    assert not Index.build(signs, metric="hamming").real
