"""Retrieval scores from embeddings and labels: a float64 reference with ties, scikit-learn, conventions and errors."""

import itertools
import math

import jax.numpy as jnp
import numpy as np
import pytest
import reference
import tolerances
from numpy.testing import assert_allclose
from rows import exact_rows, labels, multi_hot, random_rows

from mrl_jax import InputError
from mrl_jax.retrieval.measure import (
    chance_map,
    cross_modal_chance,
    cross_modal_map,
    expected_average_precision,
    mean_average_precision,
    pair_ranks,
    precision_recall_curve,
    retrieval_metrics,
    summarize,
    summarize_by_class,
)

# Mean average precision


def test_map_by_hand():
    queries = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    gallery = np.array([[1.0, 0.1], [0.1, 1.0], [-1.0, 0.0]])
    # Rankings: (0, 1, 2), (1, 0, 2) and, by a tie in gallery order, (0, 1, 2).
    actual = mean_average_precision(queries, gallery, np.array([0, 0, 1]), np.array([0, 1, 0]))
    assert actual == pytest.approx(((1 + 2 / 3) / 2 + (1 / 2 + 2 / 3) / 2 + 1 / 2) / 3, abs=tolerances.PRECISION)


@pytest.mark.parametrize(("q", "g"), [(1, 1), (1, 40), (40, 1), (7, 30), (60, 45)])
def test_map_equals_the_float64_reference_with_ties(q, g):
    queries, gallery = exact_rows(q), exact_rows(g, seed=1)
    for k in (1, 3, 50):
        arguments = (queries, gallery, labels(q, k), labels(g, k, seed=1))
        expected = reference.mean_average_precision(*arguments)
        assert mean_average_precision(*arguments) == pytest.approx(expected, abs=tolerances.PRECISION)


def test_map_equals_scikit_learn_without_ties():
    from sklearn.metrics import average_precision_score

    queries, gallery = random_rows(20), random_rows(50, seed=1)
    query_labels, gallery_labels = labels(20), labels(50, seed=1)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries.astype(float), gallery.astype(float))]
    scores = unit[0] @ unit[1].T
    assert np.diff(np.sort(scores, axis=1)).min() > 1e-6  # no ties in float32 either
    expected = [
        average_precision_score(gallery_labels == label, s) for label, s in zip(query_labels, scores, strict=True)
    ]
    actual = mean_average_precision(queries, gallery, query_labels, gallery_labels)
    assert actual == pytest.approx(np.mean(expected), abs=tolerances.PRECISION)


def test_a_query_without_relevant_items_counts_zero():
    gallery = np.eye(2)
    actual = mean_average_precision(np.eye(2), gallery, np.array([0, 7]), np.array([0, 1]))
    assert actual == pytest.approx(1 / 2, abs=tolerances.PRECISION)
    assert mean_average_precision(np.eye(2), gallery, np.array([7, 7]), np.array([0, 1])) == 0.0


def test_zero_vectors_are_similar_to_nothing():
    gallery = np.array([[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])  # similarities to (1, 0): -1, 0, 1
    for item, rank in ((0, 3), (1, 2), (2, 1)):
        actual = mean_average_precision(np.array([[1.0, 0.0]]), gallery, np.array([1]), np.arange(3) == item)
        assert actual == pytest.approx(1 / rank, abs=tolerances.PRECISION)
    actual = mean_average_precision(np.zeros((1, 2)), gallery, np.array([1]), np.array([0, 0, 1]))
    assert actual == pytest.approx(1 / 3, abs=tolerances.PRECISION)  # everything ties, so gallery order


@pytest.mark.parametrize("scale", [2.0**-100, 0.37, 1e30])
def test_map_does_not_depend_on_the_length_of_embeddings(scale):
    arguments = (labels(20), labels(50, seed=1))
    queries, gallery = random_rows(20), random_rows(50, seed=1)
    lengths = np.random.default_rng(3).uniform(0.5, 2.0, (50, 1)).astype(np.float32)
    actual = mean_average_precision(np.float32(scale) * queries, gallery * lengths, *arguments)
    expected = mean_average_precision(queries, gallery, *arguments)
    assert actual == pytest.approx(expected, abs=tolerances.PRECISION)


def test_map_takes_lists_and_jax_arrays_and_returns_a_float():
    arguments = (exact_rows(7), exact_rows(30, seed=1), labels(7), labels(30, seed=1))
    expected = mean_average_precision(*arguments)
    assert type(expected) is float
    assert mean_average_precision(*(x.tolist() for x in arguments)) == expected
    assert mean_average_precision(*map(jnp.asarray, arguments)) == expected


# Every metric


def expected_metrics(queries, gallery, gains, ks, exclude_self=False):
    """By explicit loops in float64."""
    scores = [[float(np.dot(g.astype(np.float64), q)) for g in gallery] for q in queries]
    actual = []
    for i, (s, g) in enumerate(zip(scores, gains.tolist(), strict=True)):
        if exclude_self:
            s, g = s[:i] + s[i + 1 :], g[:i] + g[i + 1 :]
        row = {
            "ap": reference.average_precision(s, g),
            "ndcg": reference.ndcg(s, g),
            "r_precision": reference.r_precision(s, g),
            "rr": reference.reciprocal_rank(s, g),
            "curve": reference.interpolated_precision(s, g),
            "relevant": sum(x > 0 for x in g),
        }
        for k in ks:
            row[f"ap@{k}"] = reference.average_precision(s, g, k)
            row[f"ap_min@{k}"] = reference.average_precision(s, g, k, "relevant")
            row[f"precision@{k}"] = reference.precision(s, g, k)
            row[f"recall@{k}"] = reference.recall(s, g, k)
            row[f"ndcg@{k}"] = reference.ndcg(s, g, k)
        actual.append(row)
    return {name: np.array([row[name] for row in actual]) for name in actual[0]}


@pytest.mark.slow
@pytest.mark.parametrize("multi", [False, True])
@pytest.mark.parametrize("exclude_self", [False, True])
def test_every_metric_equals_explicit_loops_with_ties(multi, exclude_self):
    z, other = exact_rows(31), exact_rows(31, seed=1)
    gallery = z if exclude_self else other
    given = [multi_hot(31, seed=s) if multi else labels(31, k=8, seed=s) for s in (0, 0 if exclude_self else 1)]
    gains = given[0].astype(int) @ given[1].T if multi else (given[0][:, None] == given[1]).astype(int)
    ks = (1, 5, 30, 100)
    actual = retrieval_metrics(z, gallery, *given, k=ks, exclude_self=exclude_self)
    expected = expected_metrics(z, gallery, gains, ks, exclude_self)
    assert set(actual) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(actual[name], values, atol=tolerances.PRECISION, err_msg=name)


def test_multi_hot_labels_of_one_class_each_equal_class_numbers():
    z, g, a, b = random_rows(20), random_rows(40, seed=1), labels(20), labels(40, seed=1)
    single, multi = retrieval_metrics(z, g, a, b), retrieval_metrics(z, g, np.eye(4)[a], np.eye(4, dtype=bool)[b])
    for name, values in single.items():
        np.testing.assert_array_equal(multi[name], values, err_msg=name)
    assert chance_map(np.eye(4)[a], np.eye(4)[b]) == pytest.approx(chance_map(a, b))


def test_chance_of_multi_hot_labels_counts_the_items_that_share_a_label():
    a, b = multi_hot(20), multi_hot(30)
    a[0] = False  # a query with no relevant item
    relevant = ((a.astype(int) @ b.T.astype(int)) > 0).sum(axis=1)
    assert relevant.min() == 0
    assert chance_map(a, b) == pytest.approx(expected_average_precision(relevant, 30).mean())


@pytest.mark.slow
def test_means_count_queries_without_relevant_items_or_leave_them_out():
    actual = retrieval_metrics(np.eye(3), np.eye(3)[:2], np.array([0, 1, 7]), np.array([0, 1]), k=(2,))
    assert actual["relevant"].tolist() == [1, 1, 0]
    zero, skip = summarize(actual), summarize(actual, "skip")
    assert (zero["map"], zero["queries"]) == (pytest.approx(2 / 3), 3)
    assert (skip["map"], skip["queries"]) == (pytest.approx(1.0), 2)
    assert skip["precision@2"] == pytest.approx(1 / 2)
    assert {"map", "map@2", "map_min@2", "mrr", "ndcg", "recall@2", "r_precision", "curve"} <= set(zero)
    assert len(zero["curve"]) == 11
    arguments = (np.eye(3), np.eye(3)[:2], np.array([0, 1, 7]), np.array([0, 1]))
    assert mean_average_precision(*arguments, without_relevant="skip") == pytest.approx(1.0)
    none = (np.eye(2), np.eye(2), np.array([5, 6]), np.array([0, 1]))
    assert mean_average_precision(*none, without_relevant="skip") == 0.0
    with pytest.raises(ValueError, match="choose zero or skip"):
        mean_average_precision(*arguments, without_relevant="drop")


def test_map_at_k_by_both_divisors():
    # Ranked by the first axis: hits at ranks 1, 3, 4 of 5; R = 3.
    gallery = np.array([[1.0, i / 10] for i in range(5)])
    arguments = (np.array([[1.0, 0.0]]), gallery, np.array([1]), np.array([1, 0, 1, 1, 0]))
    assert mean_average_precision(*arguments, k=3) == pytest.approx((1 + 2 / 3) / 2)
    assert mean_average_precision(*arguments, k=3, divisor="relevant") == pytest.approx((1 + 2 / 3) / 3)
    assert mean_average_precision(*arguments, k=2, divisor="relevant") == pytest.approx(1 / 2)
    assert mean_average_precision(*arguments, k=50) == mean_average_precision(*arguments)


def test_means_by_class():
    values = {"ap": [0.2, 0.4, 0.9, 0.0], "ap@2": [1.0, 0.0, 0.5, 0.0], "rr": [1, 1, 1, 0], "relevant": [1, 1, 1, 0]}
    labels = np.array([3, 3, 5, 9])
    actual = summarize_by_class(values, labels)
    assert list(actual) == [3, 5, 9]
    assert actual[3] == {"map": pytest.approx(0.3), "map@2": 0.5, "mrr": 1.0, "queries": 2}
    assert actual[5] == {"map": 0.9, "map@2": 0.5, "mrr": 1.0, "queries": 1}
    assert list(summarize_by_class(values, labels, "skip")) == [3, 5]  # of class 9 no query is left
    hot = np.array([[1, 1, 0], [0, 1, 0], [0, 1, 0], [0, 0, 0]])
    assert {k: v["map"] for k, v in summarize_by_class(values, hot).items()} == pytest.approx({0: 0.2, 1: 0.5})


def test_means_by_class_take_names():
    values = {"ap": [0.2, 0.4, 0.9], "relevant": [1, 1, 1]}
    expected = {"cat": {"map": pytest.approx(0.3), "queries": 2}, "dog": {"map": 0.9, "queries": 1}}
    for names in (["cat", "cat", "dog"], np.array(["cat", "cat", "dog"], object)):
        actual = summarize_by_class(values, names)
        assert actual == expected
        assert [type(name) for name in actual] == [str, str]
    for wrong in (["cat", "dog"], [0.5, 1, 2], [[["cat"]]] * 3, [["cat"], ["cat"], ["dog"]], 3):
        with pytest.raises(InputError, match=r"query_labels are .*; give integers or names \[3\], one per query"):
            summarize_by_class(values, wrong)


def test_only_the_metrics_that_are_asked_for():
    rng = np.random.default_rng(0)
    arguments = (rng.normal(size=(20, 8)), rng.normal(size=(30, 8)), np.arange(20) % 3, np.arange(30) % 3)
    every = retrieval_metrics(*arguments, k=(3, 7))
    some = retrieval_metrics(*arguments, k=(3, 7), metrics=("rr", "ndcg@7", "curve"))
    assert set(some) == {"rr", "ndcg@7", "curve", "relevant"}
    for name, values in some.items():
        assert_allclose(values, every[name], rtol=1e-6)
    assert set(retrieval_metrics(*arguments, k=3, metrics=("ap@3",))) == {"ap@3", "relevant"}
    with pytest.raises(ValueError, match=r"'ap@5' is an unknown metric; choose from ap, ndcg, .*ndcg@7, curve, rel"):
        retrieval_metrics(*arguments, k=(3, 7), metrics=("ap@5",))


def test_curve_of_any_number_of_points():
    arguments = (exact_rows(9), exact_rows(31, seed=1), labels(9), labels(31, seed=1))
    eleven = summarize(retrieval_metrics(*arguments))["curve"]
    np.testing.assert_allclose(precision_recall_curve(*arguments, levels=11), eleven, atol=tolerances.PRECISION)
    np.testing.assert_allclose(precision_recall_curve(*arguments)[::10], eleven, atol=tolerances.PRECISION)
    with pytest.raises(ValueError, match="levels is 1"):
        precision_recall_curve(*arguments, levels=1)


# The pair itself


def test_ranks_of_pairs_with_ties_and_queries_without_a_pair():
    queries, gallery = exact_rows(23), exact_rows(31, seed=1)
    pairs = np.random.default_rng(0).integers(-1, 31, 23)
    expected = []
    for q, own in zip(queries, pairs, strict=True):
        order = np.argsort(-(gallery.astype(np.float64) @ q), kind="stable").tolist()
        expected.append(order.index(own) + 1 if own >= 0 else 0)
    assert pair_ranks(queries, gallery, pairs).tolist() == expected
    assert pair_ranks(np.eye(4), np.eye(4)).tolist() == [1, 1, 1, 1]


def test_ranks_of_pairs_in_blocks(monkeypatch):
    z, g = random_rows(23), random_rows(23, seed=1)
    expected = pair_ranks(z, g)
    monkeypatch.setattr("mrl_jax.retrieval.pairs._PAIR_SCORES", 5 * 23)
    np.testing.assert_array_equal(pair_ranks(z, g), expected)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [(None, "do not pair by row"), ([0, 1, 4], "from -1 to 3"), ([0.0, 1, 2], "integers"), ([0, 1], "integers")],
)
def test_pairs_that_do_not_fit_are_refused(pairs, message):
    with pytest.raises(ValueError, match=message):
        pair_ranks(np.eye(4)[:3], np.eye(4), pairs)


# Between modalities


def test_every_ordered_pair_of_modalities_has_its_own_map():
    sizes = {"image": 20, "text": 30, "sound": 10}
    embeddings = {name: exact_rows(n, seed=n) for name, n in sizes.items()}
    given = {name: labels(n) for name, n in sizes.items()}
    actual = cross_modal_map(embeddings, given)
    assert list(actual) == ["image->text", "image->sound", "text->image", "text->sound", "sound->image", "sound->text"]
    for name, value in actual.items():
        a, b = name.split("->")
        expected = reference.mean_average_precision(embeddings[a], embeddings[b], given[a], given[b])
        assert value == pytest.approx(expected, abs=tolerances.PRECISION)
    assert len(set(actual.values())) == 6


@pytest.mark.parametrize("size", range(1, 8))
def test_the_expected_average_precision_is_the_mean_over_all_orders(size):
    scores = -np.arange(size)
    expected = [
        np.mean([reference.average_precision(scores, hits) for hits in itertools.permutations(np.arange(size) < r)])
        for r in range(1, size + 1)
    ]
    assert_allclose(expected_average_precision(range(1, size + 1), size), expected, **tolerances.FLOAT64)
    assert expected_average_precision([0, size], size).tolist() == [0.0, pytest.approx(1.0)]


def test_the_expected_average_precision_in_a_large_gallery():
    for size in (1000, 10**6):
        harmonic = math.fsum(1 / i for i in range(1, size + 1))  # exact sum
        expected = [harmonic / size, (harmonic + (size - harmonic) * (size / 10 - 1) / (size - 1)) / size]
        assert_allclose(expected_average_precision([1, size // 10], size), expected, rtol=1e-14)


def test_chance_counts_a_query_without_relevant_items_as_map_does():
    one, two = expected_average_precision([1, 2], 4)
    assert chance_map([0, 0, 1, 2], [0, 0, 1, 3]) == pytest.approx((two + two + one + 0) / 4)
    assert chance_map([5], [5, 5]) == 1.0
    assert chance_map([5], [6]) == 0.0


SIGMAS = 5


def test_chance_is_the_mean_map_of_random_rankings():
    """Three modalities of other sizes, classes of other sizes, and a class that no gallery item has."""
    rng = np.random.default_rng(0)
    shares = {"a": [0.5, 0.3, 0.15, 0.05], "b": [0.1, 0.2, 0.6, 0.0, 0.1], "c": [0.4, 0.6]}
    given = {name: rng.choice(len(p), size, p=p) for size, (name, p) in zip((30, 45, 12), shares.items(), strict=True)}
    chance = cross_modal_chance(given)
    assert list(chance) == ["a->b", "a->c", "b->a", "b->c", "c->a", "c->b"]
    drawn = {name: [] for name in chance}
    for _ in range(40):  # random directions: every order of a gallery is as likely as any other
        z = {name: rng.normal(size=(len(x), 8)) for name, x in given.items()}
        for name, value in cross_modal_map(z, given).items():
            drawn[name].append(value)
    for name, values in drawn.items():
        error = np.std(values, ddof=1) / len(values) ** 0.5  # 0 where all items are relevant
        assert abs(np.mean(values) - chance[name]) < SIGMAS * error + tolerances.PRECISION


def test_chance_in_float64_is_that_of_many_random_orders():
    rng = np.random.default_rng(1)
    size, relevant = 60, np.array([1, 2, 7, 20, 59])
    draws = [
        [reference.average_precision(rng.random(size), np.arange(size) < r) for r in relevant] for _ in range(3000)
    ]
    error = np.std(draws, axis=0, ddof=1) / len(draws) ** 0.5
    assert (np.abs(np.mean(draws, axis=0) - expected_average_precision(relevant, size)) < SIGMAS * error).all()


# Errors


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", [0, 1])
def test_values_that_are_not_finite_are_refused_by_name(bad, which):
    embeddings = [np.eye(3), np.eye(3)]
    embeddings[which][1, 2] = bad
    with pytest.raises(ValueError, match=["queries hold NaN or inf", "gallery hold NaN or inf"][which]):
        mean_average_precision(*embeddings, np.arange(3), np.arange(3))


@pytest.mark.parametrize(
    ("queries", "gallery", "query_labels", "gallery_labels"),
    [
        ((3, 2), (3, 4), (3,), (3,)),
        ((3, 2), (4, 2), (3,), (3,)),
        ((3, 2), (3, 2), (2,), (3,)),
        ((3, 2), (3, 2), (3, 1), (3,)),
        ((2,), (3, 2), (2,), (3,)),
        ((1, 3, 2), (3, 2), (1,), (3,)),
        ((0, 2), (3, 2), (0,), (3,)),
        ((3, 2), (0, 2), (3,), (0,)),
        ((3, 0), (3, 0), (3,), (3,)),
    ],
)
def test_shapes_that_do_not_fit_are_refused_with_the_shapes(queries, gallery, query_labels, gallery_labels):
    shapes = (queries, gallery, query_labels, gallery_labels)
    with pytest.raises(ValueError, match="give ") as caught:
        mean_average_precision(*(np.ones(shape) for shape in shapes))
    assert all(str(shape) in str(caught.value) for shape in shapes)


@pytest.mark.parametrize(
    ("query_labels", "message"),
    [
        (np.array([[2, 0], [0, 1]]), "must be multi-hot"),
        (np.array([["a", "b"], ["c", "d"]]), "must be multi-hot"),
        (np.array([True, False]), "labels are bool; give integers"),
        (np.ones((2, 3)), "give .Q, L"),
    ],
)
def test_labels_that_are_neither_classes_nor_multi_hot_are_refused(query_labels, message):
    gallery_labels = np.arange(2) if "Q, L" in message else query_labels
    with pytest.raises(ValueError, match=message):
        mean_average_precision(np.eye(2), np.eye(2), query_labels, gallery_labels)


def test_more_than_255_shared_labels_are_refused():
    with pytest.raises(ValueError, match="up to 300 labels"):
        mean_average_precision(np.eye(2), np.eye(2), np.ones((2, 300)), np.ones((2, 300)))


@pytest.mark.parametrize("k", [(0,), (5, -1), (2.5,)])
def test_cut_offs_below_one_or_broken_are_refused(k):
    with pytest.raises(ValueError, match="integers of at least 1"):
        retrieval_metrics(np.eye(2), np.eye(2), np.arange(2), np.arange(2), k=k)


def test_labels_beyond_32_bits_stay_different_and_other_labels_are_refused():
    z = np.eye(2)
    assert mean_average_precision(z[:1], z[::-1], np.array([2**32]), np.array([0, 2**32])) == 1.0
    assert mean_average_precision(z[:1], z[::-1], np.array([0]), np.array([0, 2**32])) == 0.5
    with pytest.raises(ValueError, match="labels are float64; give integers"):
        mean_average_precision(z, z, np.array([0.0, 1.0]), np.array([0, 1]))


@pytest.mark.parametrize("make", [np.asarray, jnp.asarray])
def test_complex_numbers_and_text_are_refused(make):
    x, y = np.eye(3), np.arange(3)
    with pytest.raises(InputError, match=r"queries are complex\d+ \[3, 3\] \(complex numbers\); give real numbers"):
        mean_average_precision(make(x + 1j), x, y, y)
    with pytest.raises(InputError, match=r"pair_ranks: gallery are <U\d+ \[3, 3\] \(could not.*give real numbers"):
        pair_ranks(x, np.full((3, 3), "a"))


@pytest.mark.parametrize("form", ["U", "S", object])
def test_names_as_labels_are_refused_with_the_conversion(form):
    names = np.array(["cat", "dog", "cat"]).astype(form)
    with pytest.raises(InputError, match=r"retrieval_metrics: labels are names .*together: np\.unique"):
        retrieval_metrics(np.eye(3), np.eye(3), names, names)
