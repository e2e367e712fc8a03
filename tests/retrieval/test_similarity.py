"""Integer embeddings rank without rounding: against fractions, by every method, in blocks and on eight devices."""

import exact
import jax
import numpy as np
import pytest
import tolerances
from rows import labels, module_with, random_rows

from mrl_jax import InputError
from mrl_jax.retrieval.measure import mean_average_precision, pair_ranks, precision_recall_curve, retrieval_metrics
from mrl_jax.retrieval.similarity import exact_scores, key_order, key_rank, operands, scaled_lengths, squared_lengths

pytestmark = pytest.mark.slow
METHODS = ["numpy", "xla", pytest.param("numba", marks=pytest.mark.bench)]


def codes(kind, n, dim, seed=0):
    """Random integer rows: of one length (signs), of several, with negative numbers, with zero rows."""
    rng = np.random.default_rng([seed, n, dim])
    if kind == "signs":
        return rng.choice([-1.0, 1.0], (n, dim)).astype(np.float32)
    if kind == "bits":
        return rng.random((n, dim)) < 0.3
    if kind == "counts":
        return rng.poisson(0.4, (n, dim))
    return rng.integers(-127, 128, (n, dim)).astype({"int8": np.int8, "float64": np.float64}[kind])


def test_the_example_of_the_issue():
    queries, gallery = np.ones((1, 3)), np.array([[1, -1, 1], [-1, 1, 1]])
    assert pair_ranks(queries, gallery, [0]).tolist() == [1]
    assert pair_ranks(queries, gallery, [1]).tolist() == [2]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("kind", "dim", "metric"),
    [
        ("signs", 3, "cosine"),
        ("signs", 32, "cosine"),
        ("signs", 33, "hamming"),
        ("bits", 16, "cosine"),
        ("bits", 64, "hamming"),
        ("bits", 24, "dot"),
        ("counts", 12, "cosine"),
        ("int8", 48, "cosine"),
        ("int8", 5, "dot"),
        ("float64", 20, "cosine"),
    ],
)
def test_average_precisions_equal_fractions(kind, dim, metric, method):
    queries, gallery, a, b = codes(kind, 19, dim), codes(kind, 83, dim), labels(19, 3), labels(83, 3)
    expected = [exact.average_precision(q, gallery, y == b, metric) for q, y in zip(queries, a, strict=True)]
    actual = retrieval_metrics(queries, gallery, a, b, metric=metric, method=method)["ap"]
    np.testing.assert_allclose(actual, expected, atol=tolerances.PRECISION)
    # The other direction, and without the query itself.
    expected = [
        exact.average_precision(q, gallery, y == b, metric, skip=i)
        for i, (q, y) in enumerate(zip(gallery, b, strict=True))
    ]
    actual = mean_average_precision(gallery, gallery, b, b, metric=metric, method=method, exclude_self=True)
    assert actual == pytest.approx(np.mean(expected), abs=tolerances.PRECISION)


@pytest.mark.parametrize("kind", ["signs", "bits"])
def test_thousands_of_ties_on_one_device_and_on_eight(kind, monkeypatch):
    queries, gallery, a, b = codes(kind, 60, 32), codes(kind, 1000, 32), labels(60, 10), labels(1000, 10)
    expected = [exact.average_precision(q, gallery, y == b) for q, y in zip(queries, a, strict=True)]
    for options in ({"method": "numpy"}, {"method": "xla"}, {"devices": jax.devices()}, {"similarity": "bfloat16"}):
        actual = retrieval_metrics(queries, gallery, a, b, metrics=("ap",), **options)["ap"]
        np.testing.assert_allclose(actual, expected, atol=tolerances.PRECISION, err_msg=str(options))
    for name, value in (("_MIN_ROWS", 7), ("_CHUNK_SCORES", 1), ("_THREADS_PAY", 0), ("_CACHED_SCORES", 3000)):
        monkeypatch.setattr(module_with(name), name, value)
    actual = retrieval_metrics(queries, gallery, a, b, metrics=("ap",), method="numpy")["ap"]
    np.testing.assert_allclose(actual, expected, atol=tolerances.PRECISION)


@pytest.mark.parametrize(("kind", "metric"), [("signs", "cosine"), ("counts", "cosine"), ("bits", "hamming")])
def test_a_query_ranks_alike_alone_and_among_others_in_any_type(kind, metric):
    queries, gallery, a, b = codes(kind, 70, 9), codes(kind, 90, 9), labels(70), labels(90)
    expected = retrieval_metrics(queries, gallery, a, b, metric=metric)
    for dtype in (np.float32, np.float64, np.int64):
        actual = retrieval_metrics(queries.astype(dtype), gallery.astype(dtype), a, b, metric=metric)
        np.testing.assert_array_equal(actual["ap"], expected["ap"])
    alone = [retrieval_metrics(queries[i : i + 1], gallery, a[i : i + 1], b, metric=metric)["ap"][0] for i in range(9)]
    np.testing.assert_allclose(alone, expected["ap"][:9], atol=tolerances.PRECISION)
    of_jax = retrieval_metrics(*(jax.numpy.asarray(x, "float32") for x in (queries, gallery)), a, b, metric=metric)
    np.testing.assert_array_equal(of_jax["ap"], expected["ap"])


@pytest.mark.parametrize("kind", ["signs", "bits", "int8"])
def test_pair_ranks_and_curves_agree_with_fractions(kind):
    queries, gallery = codes(kind, 40, 10), codes(kind, 40, 10, seed=1)
    expected = [exact.order(q, gallery).index(i) + 1 for i, q in enumerate(queries)]
    np.testing.assert_array_equal(pair_ranks(queries, gallery), expected)
    assert pair_ranks(queries[:2], gallery, [-1, 3])[0] == 0
    single = np.arange(40)
    rr = retrieval_metrics(queries, gallery, single, single, metrics=("rr",))["rr"]
    np.testing.assert_allclose(rr, 1 / np.array(expected), atol=tolerances.PRECISION)
    curve = precision_recall_curve(queries, gallery, single, single)
    assert curve[-1] == pytest.approx(rr.mean(), abs=tolerances.PRECISION)


def test_all_metrics_rank_codes_alike():
    x, g, a, b = codes("bits", 30, 40), codes("bits", 70, 40), labels(30), labels(70)
    signs = (2.0 * x - 1, 2.0 * g - 1)
    hamming = retrieval_metrics(x, g, a, b, metric="hamming")["ap"]
    for metric in ("cosine", "dot", "hamming"):
        np.testing.assert_array_equal(retrieval_metrics(*signs, a, b, metric=metric)["ap"], hamming)


# Keys


def neighbours(seed):
    """Products d, negative ones too, and squares n whose keys are so close that float64 cannot tell some apart."""
    rng = np.random.default_rng(seed)
    d = rng.integers(90_000_000, 94_906_265, 40)
    n = np.array([round(2**53 * 0.999 * int(x) ** 2 / 94_906_265**2) for x in d]) + rng.integers(-1, 2, 40)
    d[30:], n[30:] = d[:10], n[:10]  # exact ties
    return d * rng.choice([-1, 1], 40), n


def test_cosines_that_differ_with_the_same_key_are_put_in_order():
    confused = 0
    for seed in range(50):
        d, n = neighbours(seed)
        fractions = [exact.Fraction(int(x) * abs(int(x)), int(y)) for x, y in zip(d, n, strict=True)]
        confused += len(set(fractions)) - len(np.unique(d * np.abs(d.astype(np.float64)) / n))
        expected = sorted(range(40), key=lambda j: (-fractions[j], j))
        np.testing.assert_array_equal(key_order(d[None].astype(np.float64), n)[0], expected)
        np.testing.assert_array_equal([key_rank(d.astype(np.float64), n, j) for j in expected], range(1, 41))
        own = expected[3]
        last = key_order(d[None].astype(np.float64), n, np.array([own]))[0]
        np.testing.assert_array_equal(last, [*(j for j in expected if j != own), own])
    assert confused > 100  # the keys alone would not do


@pytest.mark.parametrize(
    ("queries", "gallery", "form"),
    [
        (np.ones((2, 3)), np.ones((4, 3)), "exact"),
        (np.ones((2, 3)), np.array([[1, 1, 1], [0, 0, 0], [1, -1, 1]]), "exact"),
        (np.ones((2, 3)), np.array([[1, 1, 1], [0, 0, 1]]), "ratio"),
        (np.full((1, 4), 2**11), np.full((1, 4), 2**11), "exact"),
        (np.full((1, 4), 2**12), np.full((1, 4), 2**12), "ratio"),
        (np.full((1, 8), 2**12), np.full((1, 8), 2**12), "unit"),
        (np.ones((2, 3)), np.array([[0.5, 0.5, 0.25]] * 2), "unit"),
        (np.array([[0.5, 0.5, 0.25]] * 2), np.ones((2, 3)), "unit"),
        (np.ones((2, 3)), np.array([[1, 1, 1.0]] * 9000 + [[1, 1, 1.25]]), "unit"),
        (np.array([[1e30, 2e30]]), np.ones((1, 2)), "unit"),
    ],
)
def test_the_range_of_exact_arithmetic(queries, gallery, form):
    assert operands(np.asarray(queries, np.float32), np.asarray(gallery, np.float32)).form == form


def test_rows_of_real_numbers_are_known_by_the_first():
    class Rows:
        def __init__(self, x):
            self.x, self.read = x, 0

        def __len__(self):
            return len(self.x)

        def __getitem__(self, part):
            self.read += len(self.x[part])
            return self.x[part]

    rows = Rows(random_rows(1000))
    assert squared_lengths(rows) is None
    assert rows.read == 1


def test_scores_are_those_of_fractions():
    queries, gallery = codes("counts", 9, 7), codes("counts", 30, 7, seed=1)
    d, q, n = queries @ gallery.T, (queries**2).sum(1)[:, None], (gallery**2).sum(1)
    actual = exact_scores(d, q, n, "cosine")
    expected = [[exact.cosine(x, y) for y in gallery] for x in queries]
    np.testing.assert_allclose(actual, expected, **tolerances.UNIT)
    similar = [[exact.similarity(x, y) for y in gallery] for x in queries]
    for scores, numbers in zip(actual, similar, strict=True):
        assert len(set(scores.tolist())) == len(set(numbers))
    assert exact_scores(4, 4, 4, "hamming") == 0
    assert exact_scores(-4, 4, 4, "hamming") == 4


# Real rows: equal rows of either side


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dim", [33, 100, 513])
def test_equal_queries_rank_alike_whatever_their_place(dim, method, monkeypatch):
    for name, value in (("_MIN_ROWS", 17), ("_CHUNK_SCORES", 1), ("_BLOCK_SCORES", 1), ("_THREADS_PAY", 0)):
        monkeypatch.setattr(module_with(name), name, value)
    chosen = np.random.default_rng(1).integers(0, 40, 129)
    queries, gallery = random_rows(40, dim)[chosen], random_rows(6, dim, seed=1)[np.arange(97) % 6]
    gallery += np.random.default_rng(2).integers(0, 2, (97, 1)) * np.float32(1e-7)  # similarities one bit apart
    x = retrieval_metrics(queries, gallery, np.zeros(129, int), labels(97, 2), method=method)
    for name, values in x.items():
        for group in range(40):
            assert len(np.unique(values[chosen == group], axis=0)) <= 1, name
    ranks = pair_ranks(queries, gallery, np.full(129, 5))
    assert all(len(set(ranks[chosen == group])) <= 1 for group in range(40))


def test_groups_of_queries_keep_their_labels_and_order():
    chosen = np.random.default_rng(1).integers(0, 9, 50)
    queries, gallery, a, b = random_rows(9)[chosen], random_rows(31, seed=1), labels(50), labels(31)
    apart = [retrieval_metrics(queries[i : i + 1], gallery, a[i : i + 1], b)["ap"][0] for i in range(50)]
    for options in ({"method": "numpy"}, {"method": "xla"}, {"devices": jax.devices()}):
        actual = retrieval_metrics(queries, gallery, a, b, **options)["ap"]
        np.testing.assert_allclose(actual, apart, atol=tolerances.PRECISION)
    within = retrieval_metrics(queries, queries, a, a, exclude_self=True)["ap"]
    others = [np.delete(np.arange(50), i) for i in range(50)]
    apart = [retrieval_metrics(queries[[i]], queries[o], a[[i]], a[o])["ap"][0] for i, o in enumerate(others)]
    np.testing.assert_allclose(within, apart, atol=tolerances.PRECISION)


# Metrics of choice


def test_products_of_real_rows_depend_on_their_lengths():
    queries, gallery = random_rows(20), random_rows(50, seed=1) * np.arange(1, 51, dtype=np.float32)[:, None]
    a, b = labels(20), labels(50)
    for method in ("numpy", "xla"):
        actual = retrieval_metrics(queries, gallery, a, b, metric="dot", method=method)["ap"]
        order = np.argsort(-(queries.astype(float) @ gallery.astype(float).T), axis=1, kind="stable")
        hits = b[order] == a[:, None]
        precisions = np.cumsum(hits, axis=1) / np.arange(1, 51)
        expected = (precisions * hits).sum(axis=1) / hits.sum(axis=1)
        np.testing.assert_allclose(actual, expected, atol=tolerances.PRECISION)
    np.testing.assert_array_equal(pair_ranks(queries, gallery, order[:, 0], metric="dot"), 1)


@pytest.mark.parametrize(
    ("queries", "gallery", "metric", "message"),
    [
        (np.eye(2), np.eye(2), "euclidean", "metric 'euclidean': choose from cosine, dot, hamming"),
        (np.eye(2), np.eye(2) * 2 - 1, "hamming", "gallery: metric hamming compares codes"),
        (np.eye(2) - 0.5, np.eye(2), "hamming", "queries: .*values are -0.5, 0.5; give codes"),
        (np.array([[3, 255]]), np.eye(2), "hamming", "np.unpackbits of packed bits"),
        (np.array([[-1, 0], [1, 1]]), np.eye(2), "hamming", "values are -1, 0"),
        (np.full((1, 2), 3e38), np.full((2, 2), 1.5), "dot", "products must stay below 1e38; scale"),
    ],
)
def test_rows_that_do_not_fit_the_metric_are_refused(queries, gallery, metric, message):
    with pytest.raises(InputError, match=message):
        retrieval_metrics(queries, gallery, np.zeros(len(queries), int), np.zeros(2, int), metric=metric)


def scaled(kind, n, dim, seed):
    """Codes, and the same times a factor: of the array, or of each row so that it has unit length."""
    rng = np.random.default_rng([seed, n, dim])
    code = rng.choice([-1.0, 1.0] if kind != "bits" else [0.0, 1.0], (n, dim))
    length = np.maximum(np.linalg.norm(code, axis=1, keepdims=True), 1)
    return code, {"halves": code * 0.5, "signs": code / np.sqrt(dim), "bits": code / length}[kind].astype(np.float32)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("kind", "dim"), [("halves", 16), ("signs", 33), ("signs", 64), ("bits", 24)])
def test_scaled_codes_rank_by_their_signs(kind, dim, method):
    (q, x), (g, y), a, b = scaled(kind, 23, dim, 0), scaled(kind, 91, dim, 1), labels(23, 3), labels(91, 3)
    expected = [exact.average_precision(row, g, k == b) for row, k in zip(q, a, strict=True)]
    for queries, gallery in ((x, y), (q, y), (x, g)):
        actual = retrieval_metrics(queries, gallery, a, b, method=method)["ap"]
        np.testing.assert_allclose(actual, expected, atol=tolerances.PRECISION)
    pairs = np.arange(23) * 3
    np.testing.assert_array_equal(pair_ranks(x, y, pairs), pair_ranks(q, g, pairs))


def test_scaled_codes_are_known_by_their_rows():
    assert scaled_lengths(np.array([[0.5, -0.5, 0], [0.1, 0.1, 0.1], [0, 0, 0]])).tolist() == [2, 3, 0]
    for row in ([0.5, 0.25], [np.nan, 1], [np.inf, np.inf], [1e-45, 1e-45]):
        assert scaled_lengths(np.array([[1.0, 1.0], row])) is None
    assert operands(np.array([[0.5, 0.5]]), np.array([[0.5, 0.25]])).form == "unit"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dim", [32, 33])
def test_products_of_scaled_codes_rank_by_their_signs(dim, method):
    (q, x), (g, y), a, b = scaled("signs", 23, dim, 0), scaled("signs", 91, dim, 1), labels(23, 3), labels(91, 3)
    expected = [exact.average_precision(row, g, k == b, "dot") for row, k in zip(q, a, strict=True)]
    own_length = (x * np.arange(1, 24, dtype=np.float32)[:, None]).astype(np.float32)
    for queries, gallery in ((x, y), (q, y), (x, g), (own_length, y)):
        actual = retrieval_metrics(queries, gallery, a, b, metric="dot", method=method)["ap"]
        np.testing.assert_allclose(actual, expected, atol=tolerances.PRECISION)
    pairs = np.arange(23) * 3
    np.testing.assert_array_equal(pair_ranks(x, y, pairs, metric="dot"), pair_ranks(q, g, pairs, metric="dot"))


def test_products_of_scaled_codes_need_one_magnitude_in_the_gallery():
    half, mixed = np.array([[0.5, -0.5], [0.5, 0.0]]), np.array([[0.5, 0.5], [0.25, 0.25]])
    assert operands(mixed, half, "dot").form == "exact"
    assert operands(half, mixed, "dot").form == "real"
    real = np.array([[0.5, 0.25], [0.5, 0.5]])
    assert operands(half, real, "dot").form == "real"
    assert operands(real, half, "dot").form == "real"
