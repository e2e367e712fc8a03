"""Searches of integer embeddings against fractions, metrics other than the cosine, and ties in a comparison."""

from itertools import pairwise

import exact
import numpy as np
import pytest

from mrl_jax import InputError
from mrl_jax.retrieval.measure import pair_ranks, retrieval_metrics
from mrl_jax.search.exact import recall_with_ties
from mrl_jax.search.index import Index, top_k


def codes(kind, n, dim, seed=0):
    rng = np.random.default_rng([seed, n, dim])
    if kind == "signs":
        return rng.choice([-1, 1], (n, dim))
    if kind == "bits":
        return rng.random((n, dim)) < 0.3
    return rng.integers(-3, 4, (n, dim)).astype(np.float32) if kind == "small" else rng.integers(-99, 100, (n, dim))


def test_the_example_of_the_issue():
    scores, rows = top_k(np.ones((1, 3)), np.array([[1, -1, 1], [-1, 1, 1]]), k=2)
    assert rows.tolist() == [[0, 1]]
    assert scores[0, 0] == scores[0, 1] == np.float32(1 / 3)


@pytest.mark.parametrize(
    ("kind", "dim", "metric"),
    [
        ("signs", 8, "cosine"),
        ("signs", 33, "hamming"),
        ("bits", 12, "cosine"),
        ("bits", 12, "hamming"),
        ("bits", 12, "dot"),
        ("small", 6, "cosine"),
        ("large", 16, "cosine"),
        ("large", 3, "dot"),
    ],
)
@pytest.mark.parametrize("k", [1, 7, 300])
def test_integer_rows_are_found_as_by_fractions(kind, dim, metric, k):
    queries, gallery = codes(kind, 5, dim), codes(kind, 300, dim)
    scores, rows = top_k(queries, gallery, k, block=128, metric=metric)
    expected = [exact.order(q, gallery, metric)[:k] for q in queries]
    np.testing.assert_array_equal(rows, expected)
    assert scores.dtype == np.float32
    assert rows.dtype == np.int32
    for query, numbers, values in zip(queries, rows, scores, strict=True):
        value = exact.cosine if metric == "cosine" else lambda q, x: abs(float(exact.similarity(q, x, metric)))
        np.testing.assert_allclose(np.abs(values), [abs(value(query, gallery[j])) for j in numbers], rtol=1e-6)
        similar = [exact.similarity(query, gallery[j], metric) for j in numbers]
        assert [a == b for a, b in pairwise(values)] == [a == b for a, b in pairwise(similar)]
    index = Index(dim, block=128, metric=metric)
    for part in (slice(0, 100), slice(100, 101), slice(101, 300)):
        index.add(gallery[part])
    for other in (index, Index.build(gallery, metric=metric)):
        actual = other.search(queries, k)
        np.testing.assert_array_equal(actual.rows, rows)
        np.testing.assert_array_equal(actual.scores, scores)


@pytest.mark.parametrize("kind", ["ties", "near", "wide"])
@pytest.mark.parametrize("k", [1, 10, 600])
def test_large_blocks_are_filtered_without_losing_a_row(kind, k):
    """Keys of single precision choose the candidates: many ties, cosines that differ by 1e-7, and long rows."""
    rng = np.random.default_rng(1)
    queries, gallery = rng.integers(-2, 3, (20, 4)), rng.integers(-2, 3, (3000, 4))
    if kind != "ties":
        gallery = rng.integers(-2, 3, (30, 4)).repeat(100, axis=0) * 10**5 + rng.integers(-9, 10, (3000, 4))
    if kind == "wide":  # products beyond float32
        queries = queries * 40 + rng.integers(-9, 10, queries.shape)
    squares = [int((x.astype(object) ** 2).sum(axis=1).max()) for x in (queries, gallery)]
    assert (squares[0] * squares[1] > 2**48) == (kind == "wide")
    expected = [exact.order(q, gallery)[:k] for q in queries]
    for block in (128, 8192):
        np.testing.assert_array_equal(top_k(queries, gallery, k, block=block)[1], expected)


@pytest.mark.parametrize("kind", ["signs", "bits", "small"])
def test_searches_agree_with_ranks_and_metrics(kind):
    queries, gallery = codes(kind, 30, 9), codes(kind, 200, 9)
    rows = Index.build(gallery).search(queries, 200).rows
    for place in (0, 3, 199):
        np.testing.assert_array_equal(pair_ranks(queries, gallery, rows[:, place]), place + 1)
    y = np.arange(200) % 3
    hits = y[rows] == 0
    expected = (np.cumsum(hits, 1) / np.arange(1, 201) * hits).sum(1) / hits.sum(1)
    actual = retrieval_metrics(queries, gallery, np.zeros(30, int), y)["ap"]
    np.testing.assert_allclose(actual, expected, atol=1e-6)


@pytest.mark.parametrize(("kind", "metric"), [("bits", "cosine"), ("signs", "hamming"), ("small", "dot")])
def test_files_hold_integer_rows_as_they_are(tmp_path, kind, metric):
    queries, gallery = codes(kind, 4, 10), codes(kind, 50, 10)
    index = Index.build(gallery, metric=metric, labels=np.arange(50))
    index.save(tmp_path / "a.npz")
    again = Index.load(tmp_path / "a.npz")
    assert again.metric == metric
    np.testing.assert_array_equal(again.search(queries, 50).rows, index.search(queries, 50).rows)
    np.testing.assert_array_equal(again.search(queries, 50).scores, index.search(queries, 50).scores)
    np.testing.assert_array_equal(again.vectors([3, 49]), gallery[[3, 49]])
    again.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    index.export_parquet(tmp_path / "a.parquet")
    Index(3, metric="dot").save(tmp_path / "c.npz")
    assert Index.load(tmp_path / "c.npz").metric == "dot"


def test_real_rows_after_integers_scale_the_index():
    gallery, real = codes("small", 20, 5), np.random.default_rng(0).normal(size=(200, 5))
    index = Index.build(gallery, block=128)
    index.add(real)
    expected = Index.build(np.concatenate([real[:1], gallery, real]), block=128)
    actual, expected = (np.concatenate(list(x.embeddings())) for x in (index, expected))
    np.testing.assert_array_equal(actual, expected[1:])
    np.testing.assert_array_equal(index.search(real[:3], 1).rows[:, 0], [20, 21, 22])
    integers = Index.build(gallery, block=128)
    scores = integers.search(real, 20).scores
    cosines = real @ gallery.T / np.linalg.norm(real, axis=1)[:, None] / np.linalg.norm(gallery, axis=1)
    np.testing.assert_allclose(scores, -np.sort(-cosines, axis=1), atol=1e-6)
    before = integers.search(gallery, 20)
    with pytest.raises(InputError, match="hold NaN"):
        integers.add(np.full((1, 5), np.nan))
    np.testing.assert_array_equal(integers.search(gallery, 20).rows, before.rows)


def test_products_of_real_rows_are_found():
    rng = np.random.default_rng(0)
    queries, gallery = rng.normal(size=(4, 6)), rng.normal(size=(300, 6)) * rng.random((300, 1))
    products = queries.astype(np.float32) @ gallery.astype(np.float32).T
    for found in (top_k(queries, gallery, 300, metric="dot"), Index.build(gallery, metric="dot").search(queries, 300)):
        scores, rows = found if isinstance(found, tuple) else (found.scores, found.rows)
        np.testing.assert_allclose(scores, np.take_along_axis(products, rows, axis=1), atol=1e-6)
        np.testing.assert_allclose(scores, -np.sort(-products, axis=1), atol=1e-6)


@pytest.mark.parametrize("width", [3, 16, 33, 513])
def test_equal_real_rows_tie_at_every_place_of_a_block(width):
    rng = np.random.default_rng(width)
    row, gallery = rng.normal(size=(1, width)), rng.normal(size=(700, width))
    gallery[::3] = row
    for count in (1, 3, 70):
        queries = rng.normal(size=(count, width))
        queries[::2] = queries[0]
        scores, rows = top_k(queries, gallery, 700, block=256)
        by_row = np.take_along_axis(scores, np.argsort(rows, axis=1), axis=1)
        assert (by_row[:, ::3] == by_row[:, :1]).all()
        assert (by_row[::2] == by_row[0]).all()


def test_a_gallery_of_ones_may_be_bits_or_signs():
    for queries in ([[0, 1, 1]], [[-1, 1, 1]]):
        scores, _ = top_k(queries, np.ones((2, 3)), 2, metric="hamming")
        assert scores.tolist() == [[1, 1]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: top_k(np.eye(2), np.eye(2), 1, metric="l2"), "metric 'l2': choose from cosine, dot, hamming"),
        (lambda: Index(2, metric="l2"), "choose from cosine, dot, hamming"),
        (lambda: top_k(np.eye(2), np.eye(2) / 2, 1, metric="hamming"), "gallery: metric hamming compares codes"),
        (lambda: top_k(2 * np.eye(2) - 1, np.eye(2), 1, metric="hamming"), "queries: metric hamming compares codes"),
        (lambda: Index.build(np.eye(2), metric="hamming").add([[0, -1]]), "embeddings: metric hamming"),
        (lambda: top_k([[3e38, 1]], [[2.5, 1]], 1, metric="dot"), "products must stay below 1e38"),
    ],
)
def test_rows_that_do_not_fit_the_metric_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_recall_counts_items_that_tie_with_the_last_one():
    gallery = np.array([[1, 1], [2, 2], [1, -1], [3, 3], [0, 0]])
    rows_of = gallery.__getitem__
    assert recall_with_ties(np.array([[1, 1]]), rows_of, np.array([[3, 1]]), np.array([[0, 1]])) == 1
    assert recall_with_ties(np.array([[1, 1]]), rows_of, np.array([[3, 2]]), np.array([[0, 1]])) == 0.5
    assert recall_with_ties(np.array([[1, 1]]), rows_of, np.array([[-1, 4]]), np.array([[0, 1]])) == 0


@pytest.mark.parametrize("kind", ["signs", "bits"])
def test_faiss_and_exact_results_agree_but_for_ties(kind):
    pytest.importorskip("faiss")
    from mrl_jax.search.faiss_index import FaissIndex

    queries, gallery = codes(kind, 40, 16), codes(kind, 500, 16)
    engine = FaissIndex.build(gallery, "flat")
    assert engine.recall(queries, gallery, k=10) == 1
    index = Index.build(gallery)
    assert FaissIndex.build(index, "flat").recall(queries, index, k=10) == 1
    np.testing.assert_allclose(engine.search(queries, 10)[0], index.search(queries, 10).scores, atol=1e-6)
    with pytest.raises(InputError, match="ranks by dot, FAISS here by cosine"):
        FaissIndex.build(Index.build(gallery, metric="dot"), "flat")


@pytest.mark.parametrize("density", [None, 0.3])
def test_scaled_codes_are_found_by_their_signs(tmp_path, density):
    rng = np.random.default_rng(3)
    code = rng.choice([-1.0, 1.0], (700, 24)) if density is None else (rng.random((700, 24)) < density) * 1.0
    scaled = (code / np.maximum(np.linalg.norm(code, axis=1, keepdims=True), 1)).astype(np.float32)
    expected = top_k(code[:9], code, 60)
    for queries, gallery in ((scaled, scaled), (code, scaled), (scaled, code)):
        found = Index.build(gallery).search(queries[:9], 60)
        for actual in (top_k(queries[:9], gallery, 60, block=128), (found.scores, found.rows)):
            np.testing.assert_array_equal(actual[0], expected[0])
            np.testing.assert_array_equal(actual[1], expected[1])
    index = Index.build(scaled[:300])
    index.add(scaled[300:])
    index.save(tmp_path / "x.npz")
    for found in (index.search(code[:9], 60), Index.load(tmp_path / "x.npz").search(code[:9], 60)):
        np.testing.assert_array_equal(found.rows, expected[1])
    np.testing.assert_array_equal(index.vectors(range(700)), scaled)


def test_products_of_scaled_codes_are_found_by_their_signs(tmp_path):
    code = np.random.default_rng(3).choice([-1.0, 1.0], (700, 32))
    scaled = (code / np.sqrt(32)).astype(np.float32)
    expected = top_k(code[:9], code, 60, metric="dot")
    scores = {(False, False): 1.0, (True, False): scaled.max(), (False, True): scaled.max()}
    scores[True, True] = np.float64(scaled.max()) ** 2
    for (first, second), factor in scores.items():
        queries, gallery = (scaled if first else code)[:9], scaled if second else code
        found = Index.build(gallery, metric="dot").search(queries, 60)
        for actual in (top_k(queries, gallery, 60, block=128, metric="dot"), (found.scores, found.rows)):
            np.testing.assert_allclose(actual[0], expected[0] * factor, rtol=1e-6)
            np.testing.assert_array_equal(actual[1], expected[1])
            for row in actual[0]:
                assert len(np.unique(row)) == len(np.unique(np.round(row / factor)))  # equal products, equal scores
    index = Index.build(scaled[:300], metric="dot")
    index.add(scaled[300:])
    index.save(tmp_path / "x.npz")
    for found in (index.search(scaled[:9], 60), Index.load(tmp_path / "x.npz").search(scaled[:9], 60)):
        np.testing.assert_array_equal(found.rows, expected[1])
    index.add(scaled[:3] * 2)  # another magnitude: real rows
    found = index.search(scaled[:3], 1)
    assert found.rows.ravel().tolist() == [700, 701, 702]
    np.testing.assert_allclose(found.scores, 2, rtol=1e-6)
    with pytest.raises(InputError, match="products must stay below 1e38"):
        top_k(np.full((1, 2), 1e25), np.full((2, 2), 1e25), 1, metric="dot")
    assert top_k(np.full((1, 2), 1e15), np.array([[1e15, 1.0]]), 1, metric="dot")[0] == pytest.approx(1e30)


def test_integers_and_scaled_codes_in_one_index_are_found_as_real_rows():
    rows = np.random.default_rng(4).integers(-3, 4, (20, 8))
    index = Index.build(rows)
    index.add(np.full((1, 8), 0.5))
    index.add(rows[:3] + 0.25)
    found = index.search(np.full((1, 8), 0.5), 1)
    assert found.rows.tolist() == [[20]]
    assert found.scores[0, 0] == pytest.approx(1, abs=1e-6)
