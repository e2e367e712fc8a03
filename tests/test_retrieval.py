"""Retrieval metrics: hand values, a float64 reference with ties, block sizes, scikit-learn, conventions and errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import tolerances

import mrl_jax.retrieval
from mrl_jax.retrieval import average_precision, chance_map, cross_modal_map, mean_average_precision


def exact_rows(n, dim=8, distinct=12, seed=0):
    """Unit rows with four entries +-1/2, many of them repeated: their products are exact, so ties are ties."""
    rng = np.random.default_rng(seed)
    rows = np.zeros((distinct, dim), np.float32)
    for row in rows:
        row[rng.choice(dim, 4, replace=False)] = rng.choice([-0.5, 0.5], 4)
    return rows[rng.integers(0, distinct, n)]


def random_rows(n, dim=16, seed=0):
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)


def labels(n, k=4, seed=0):
    return np.random.default_rng([seed, n]).integers(0, k, n)


@pytest.fixture
def block_scores(monkeypatch):
    """A function that sets how many similarities a block may hold, for programs compiled from then on."""
    compiled = mrl_jax.retrieval._average_precisions

    def set_block_scores(value):
        monkeypatch.setattr(mrl_jax.retrieval, "_BLOCK_SCORES", value)
        compiled.clear_cache()

    yield set_block_scores
    compiled.clear_cache()


# Average precision of one ranking


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
    in_order = average_precision(jnp.array([0.9, 0.5, 0.4, -1.0]), jnp.array(relevant))
    shuffled = average_precision(jnp.array([0.4, 0.9, -1.0, 0.5]), jnp.array(relevant)[jnp.array([2, 0, 3, 1])])
    np.testing.assert_allclose([in_order, shuffled], [expected, expected], **tolerances.HAND)


def test_equal_scores_rank_in_gallery_order():
    relevant = jnp.array([False, True, False, True])
    tied = average_precision(jnp.zeros(4), relevant)
    np.testing.assert_allclose(tied, (1 / 2 + 2 / 4) / 2, **tolerances.HAND)


@pytest.mark.parametrize("scores", [[0.0, -0.0, 0.0], [-0.0, 0.0, -0.0]])
def test_zero_and_negative_zero_tie(scores):
    found = [average_precision(jnp.array(scores), jnp.arange(3) == i) for i in range(3)]
    np.testing.assert_allclose(found, [1.0, 1 / 2, 1 / 3], **tolerances.HAND)


def test_average_precision_runs_under_jit_and_vmap():
    scores = np.random.default_rng(0).integers(0, 4, (5, 30)).astype(np.float32)
    relevant = np.random.default_rng(1).random((5, 30)) < 0.3
    expected = [reference.average_precision(s, r) for s, r in zip(scores, relevant, strict=True)]
    np.testing.assert_allclose(jax.vmap(average_precision)(scores, relevant), expected, atol=tolerances.PRECISION)
    one = jax.jit(average_precision)(scores[0], relevant[0])
    np.testing.assert_allclose(one, expected[0], atol=tolerances.PRECISION)


# Mean average precision


def test_map_by_hand():
    queries = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    gallery = np.array([[1.0, 0.1], [0.1, 1.0], [-1.0, 0.0]])
    # Rankings: (0, 1, 2), (1, 0, 2) and, by a tie in gallery order, (0, 1, 2).
    found = mean_average_precision(queries, gallery, np.array([0, 0, 1]), np.array([0, 1, 0]))
    assert found == pytest.approx(((1 + 2 / 3) / 2 + (1 / 2 + 2 / 3) / 2 + 1 / 2) / 3, abs=tolerances.PRECISION)


@pytest.mark.parametrize(("q", "g"), [(1, 1), (1, 40), (40, 1), (7, 30), (60, 45)])
def test_map_equals_the_float64_reference_with_ties(q, g):
    queries, gallery = exact_rows(q), exact_rows(g, seed=1)
    for k in (1, 3, 50):
        arguments = (queries, gallery, labels(q, k), labels(g, k, seed=1))
        expected = reference.mean_average_precision(*arguments)
        assert mean_average_precision(*arguments) == pytest.approx(expected, abs=tolerances.PRECISION)


@pytest.mark.parametrize("queries_per_block", [1, 4, 7, 22, 23, 1000])
def test_blocks_of_any_size_give_the_same_map(queries_per_block, block_scores):
    arguments = (exact_rows(23), exact_rows(31, seed=1), labels(23), labels(31, seed=1))
    expected = reference.mean_average_precision(*arguments)
    block_scores(queries_per_block * 31)
    assert mean_average_precision(*arguments) == pytest.approx(expected, abs=tolerances.PRECISION)


def test_a_gallery_larger_than_a_block_gives_the_same_map(block_scores):
    arguments = (exact_rows(5), exact_rows(31, seed=1), labels(5), labels(31, seed=1))
    expected = reference.mean_average_precision(*arguments)
    block_scores(10)
    assert mean_average_precision(*arguments) == pytest.approx(expected, abs=tolerances.PRECISION)


def test_repeated_gallery_items_tie_whatever_their_embedding():
    gallery = random_rows(6, dim=33)[np.random.default_rng(2).integers(0, 6, 90)]
    arguments = (random_rows(11, dim=33, seed=1), gallery, labels(11), labels(90, seed=1))
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
    found = mean_average_precision(queries, gallery, query_labels, gallery_labels)
    assert found == pytest.approx(np.mean(expected), abs=tolerances.PRECISION)


def test_a_query_without_relevant_items_counts_zero():
    gallery = np.eye(2)
    found = mean_average_precision(np.eye(2), gallery, np.array([0, 7]), np.array([0, 1]))
    assert found == pytest.approx(1 / 2, abs=tolerances.PRECISION)
    assert mean_average_precision(np.eye(2), gallery, np.array([7, 7]), np.array([0, 1])) == 0.0


def test_zero_vectors_are_similar_to_nothing():
    gallery = np.array([[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])  # similarities to (1, 0): -1, 0, 1
    for item, rank in ((0, 3), (1, 2), (2, 1)):
        found = mean_average_precision(np.array([[1.0, 0.0]]), gallery, np.array([1]), np.arange(3) == item)
        assert found == pytest.approx(1 / rank, abs=tolerances.PRECISION)
    found = mean_average_precision(np.zeros((1, 2)), gallery, np.array([1]), np.array([0, 0, 1]))
    assert found == pytest.approx(1 / 3, abs=tolerances.PRECISION)  # everything ties, so gallery order


@pytest.mark.parametrize("scale", [2.0**-100, 0.37, 1e30])
def test_map_does_not_depend_on_the_length_of_embeddings(scale):
    arguments = (labels(20), labels(50, seed=1))
    queries, gallery = random_rows(20), random_rows(50, seed=1)
    lengths = np.random.default_rng(3).uniform(0.5, 2.0, (50, 1)).astype(np.float32)
    found = mean_average_precision(np.float32(scale) * queries, gallery * lengths, *arguments)
    expected = mean_average_precision(queries, gallery, *arguments)
    assert found == pytest.approx(expected, abs=tolerances.PRECISION)


def test_map_takes_lists_and_jax_arrays_and_returns_a_float():
    arguments = (exact_rows(7), exact_rows(30, seed=1), labels(7), labels(30, seed=1))
    expected = mean_average_precision(*arguments)
    assert type(expected) is float
    assert mean_average_precision(*(x.tolist() for x in arguments)) == expected
    assert mean_average_precision(*map(jnp.asarray, arguments)) == expected


# Between modalities


def test_every_ordered_pair_of_modalities_has_its_own_map():
    sizes = {"image": 20, "text": 30, "sound": 10}
    embeddings = {name: exact_rows(n, seed=n) for name, n in sizes.items()}
    given = {name: labels(n) for name, n in sizes.items()}
    found = cross_modal_map(embeddings, given)
    assert list(found) == ["image->text", "image->sound", "text->image", "text->sound", "sound->image", "sound->text"]
    for name, value in found.items():
        a, b = name.split("->")
        expected = reference.mean_average_precision(embeddings[a], embeddings[b], given[a], given[b])
        assert value == pytest.approx(expected, abs=tolerances.PRECISION)
    assert len(set(found.values())) == 6


def test_chance_is_the_mean_share_of_relevant_items():
    assert chance_map([0, 0, 1, 2], [0, 0, 1, 3]) == pytest.approx((2 / 4 + 2 / 4 + 1 / 4 + 0) / 4)
    assert chance_map([5], [5, 5]) == 1.0


def test_chance_is_about_the_map_of_random_embeddings():
    arguments = (labels(300, k=2), labels(300, k=2, seed=1))
    found = mean_average_precision(random_rows(300), random_rows(300, seed=1), *arguments)
    # The excess of a random ranking over the class prior is of order log(G) / G, here 0.02.
    assert 0.0 < found - chance_map(*arguments) < 0.03


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
    with pytest.raises(ValueError, match="it needs") as caught:
        mean_average_precision(*(np.ones(shape) for shape in shapes))
    assert all(str(shape) in str(caught.value) for shape in shapes)


def test_labels_beyond_32_bits_stay_different_and_other_labels_are_refused():
    z = np.eye(2)
    assert mean_average_precision(z[:1], z[::-1], np.array([2**32]), np.array([0, 2**32])) == 1.0
    assert mean_average_precision(z[:1], z[::-1], np.array([0]), np.array([0, 2**32])) == 0.5
    with pytest.raises(ValueError, match="labels are float64; they must be integers"):
        mean_average_precision(z, z, np.array([0.0, 1.0]), np.array([0, 1]))
