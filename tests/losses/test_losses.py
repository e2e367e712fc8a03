"""The losses: hand values, the equations in float64, extremes, gradients, masks, options, jit and vmap."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import tolerances
from jax.test_util import check_grads
from scipy.special import logsumexp

from mrl_jax.losses.contrastive import contrastive_loss
from mrl_jax.losses.mrl import (
    cross_entropy_loss,
    log_soft_assignment,
    mrl_loss,
    robust_clustering_loss,
    soft_assignment,
)

E = np.e
SHAPES = [(1, 1, 2), (1, 3, 3), (2, 1, 2), (2, 4, 5), (3, 3, 2), (4, 3, 4)]  # M, B, K
LOSSES = ("rc", "ce")


def unit(x):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def draw(m, b, k, dim=6, seed=0):
    rng = np.random.default_rng([seed, m, b, k])
    z, centers = unit(rng.normal(size=(m, b, dim))), unit(rng.normal(size=(k, dim)))
    return z, centers, rng.integers(0, k, size=(m, b)).astype(np.int32)


def draw_mask(m, b, seed=0):
    mask = np.random.default_rng([seed, m, b]).random((m, b)) < 0.6
    mask[0, 0] = True
    return mask


compiled_loss = jax.jit(mrl_loss, static_argnames=("loss", "self_similarity", "contrastive_scale"))
compiled_contrastive = jax.jit(contrastive_loss, static_argnames="self_similarity")


@jax.jit
def evaluate(z, centers, labels, mask=None, beta=0.6, tau1=0.5, tau2=0.2):
    """(loss, self_similarity) -> ((total, parts), (gradient in z, in the centres)), all in one compiled program."""

    def one(loss, self_similarity):
        def total(z, centers):
            options = {"beta": beta, "tau1": tau1, "tau2": tau2, "loss": loss, "self_similarity": self_similarity}
            return mrl_loss(z, centers, labels, mask=mask, **options)

        return jax.value_and_grad(total, (0, 1), has_aux=True)(z, centers)

    kinds = (True,) if z.shape[0] == 1 else (True, False)
    return {(loss, self_similarity): one(loss, self_similarity) for loss in LOSSES for self_similarity in kinds}


@jax.jit
def evaluate_terms(z, centers, labels, mask, tau):
    """Every function that gives terms, in one compiled program."""
    kinds = (True,) if z.shape[0] == 1 else (True, False)
    return {
        "p": soft_assignment(z, centers, tau),
        "log_p": log_soft_assignment(z, centers, tau),
        "ce": cross_entropy_loss(z, centers, labels, tau),
        "rc": robust_clustering_loss(z, centers, labels, tau),
        "contrastive": {kind: contrastive_loss(z, tau, mask, self_similarity=kind) for kind in kinds},
    }


def assert_finite(tree):
    for leaf in jax.tree.leaves(tree):
        assert np.isfinite(leaf).all(), leaf


def assert_close(found, expected, **tolerance):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


# Hand values


def test_probabilities_of_orthogonal_centers_follow_from_e():
    p = soft_assignment(jnp.eye(3)[:1], jnp.eye(3))
    np.testing.assert_allclose(p, [[E / (E + 2), 1 / (E + 2), 1 / (E + 2)]], **tolerances.HAND)


def test_a_temperature_of_one_half_squares_the_odds():
    p = soft_assignment(jnp.eye(2)[:1], jnp.eye(2), tau=0.5)
    np.testing.assert_allclose(p, [[E**2 / (E**2 + 1), 1 / (E**2 + 1)]], **tolerances.HAND)


def test_clustering_losses_of_orthogonal_centers_by_hand():
    z, centers = jnp.eye(3)[:1].repeat(2, axis=0), jnp.eye(3)
    labels = jnp.array([0, 1])  # p = e / (e + 2) and 1 / (e + 2)
    expected_ce = [np.log(E + 2) - 1, np.log(E + 2)]
    expected_rc = [np.log(2 / (E + 2)), np.log((E + 1) / (E + 2))]
    np.testing.assert_allclose(cross_entropy_loss(z, centers, labels), expected_ce, **tolerances.HAND)
    np.testing.assert_allclose(robust_clustering_loss(z, centers, labels), expected_rc, **tolerances.HAND)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("self_similarity", "expected"),
    [(False, -np.log(E / (E + 2))), (True, -np.log(2 * E / (2 * E + 2)))],
)
def test_contrastive_loss_of_two_agreeing_modalities_by_hand(self_similarity, expected):
    terms = compiled_contrastive(jnp.stack([jnp.eye(2), jnp.eye(2)]), self_similarity=self_similarity)
    np.testing.assert_allclose(terms, np.full((2, 2), expected), **tolerances.HAND)


def test_contrastive_loss_of_three_modalities_by_hand():
    z = jnp.stack([jnp.eye(2)] * 3)  # two positives at similarity 1, three negatives at 0; tau = 1/2
    expected = -np.log(2 * E**2 / (2 * E**2 + 3))
    np.testing.assert_allclose(compiled_contrastive(z, 0.5), np.full((3, 2), expected), **tolerances.HAND)


@pytest.mark.parametrize(("loss", "clustering"), [("rc", 2 * np.log(1 / (E + 1))), ("ce", 2 * np.log((E + 1) / E))])
@pytest.mark.parametrize(("self_similarity", "p"), [(False, E / (E + 2)), (True, E / (E + 1))])
@pytest.mark.parametrize(("scale", "factor"), [("equation", 3), ("program", 2)])
def test_every_option_gives_its_hand_value(loss, clustering, self_similarity, p, scale, factor):
    z = jnp.stack([jnp.eye(2)] * 3)
    if not self_similarity:
        p = 2 * E / (2 * E + 3)
    total, terms = compiled_loss(
        z,
        jnp.eye(2),
        jnp.array([0, 1]),
        beta=0.25,
        loss=loss,
        self_similarity=self_similarity,
        contrastive_scale=scale,
    )
    clustering = 1.5 * clustering  # three modalities; the parameter is written for two
    contrastive = -factor * np.log(p)
    np.testing.assert_allclose(terms.clustering, clustering, **tolerances.HAND)
    np.testing.assert_allclose(terms.contrastive, contrastive, **tolerances.HAND)
    np.testing.assert_allclose(total, 0.25 * clustering + 0.75 * contrastive, **tolerances.HAND)


def test_defaults_are_those_of_the_authors_program_at_two_modalities():
    z, centers, labels = draw(2, 4, 3)
    by_default, _ = compiled_loss(z, centers, labels)
    named, _ = compiled_loss(
        z,
        centers,
        labels,
        beta=0.7,
        tau1=1.0,
        tau2=1.0,
        loss="rc",
        self_similarity=False,
        contrastive_scale="program",
    )
    np.testing.assert_allclose(by_default, named, **tolerances.REORDERED)


# Against the equations in float64


@pytest.mark.slow
@pytest.mark.parametrize(("m", "b", "k"), SHAPES)
@pytest.mark.parametrize("tau", [1.0, 0.1])
@pytest.mark.parametrize("masked", [False, True])
def test_terms_equal_the_equations_in_float64(m, b, k, tau, masked):
    z, centers, labels = draw(m, b, k)
    mask = draw_mask(m, b) if masked else np.ones((m, b), bool)
    terms = evaluate_terms(z, centers, labels, mask, tau)
    p = [[reference.soft_assignment(x, centers, tau) for x in row] for row in z]
    np.testing.assert_allclose(terms["p"], p, **tolerances.LOSS)
    np.testing.assert_allclose(terms["log_p"], np.log(p), **tolerances.LOSS)
    np.testing.assert_allclose(terms["ce"], reference.cross_entropy(z, centers, labels, tau), **tolerances.LOSS)
    np.testing.assert_allclose(terms["rc"], reference.robust_clustering(z, centers, labels, tau), **tolerances.LOSS)
    for self_similarity, found in terms["contrastive"].items():
        expected = reference.contrastive(z, tau, mask, self_similarity)
        np.testing.assert_allclose(found, expected, **tolerances.LOSS)


@pytest.mark.slow
@pytest.mark.parametrize(("m", "b", "k"), SHAPES)
@pytest.mark.parametrize("masked", [False, True])
def test_total_equals_equation_8_in_float64_and_gradients_its_central_differences(m, b, k, masked):
    z, centers, labels = draw(m, b, k)
    mask = draw_mask(m, b) if masked else np.ones((m, b), bool)
    for (loss, self_similarity), (value, gradients) in evaluate(z, centers, labels, mask).items():

        def equation(z, centers, loss=loss, self_similarity=self_similarity):
            return reference.total(z, centers, labels, 0.6, 0.5, 0.2, mask, loss, self_similarity)

        assert_close(value, equation(z, centers), **tolerances.LOSS)
        by_z = reference.central_differences(lambda x, f=equation: f(x, centers)[0], z)
        by_centers = reference.central_differences(lambda x, f=equation: f(z, x)[0], centers)
        assert_close(gradients, (by_z, by_centers), **tolerances.GRADIENT)


@pytest.mark.slow
def test_no_mask_is_a_mask_of_ones():
    z, centers, labels = draw(2, 4, 5)
    masked = evaluate(z, centers, labels, np.ones((2, 4), bool))
    assert_close(evaluate(z, centers, labels), masked, **tolerances.REORDERED)
    terms = [compiled_contrastive(z, mask=mask) for mask in (None, np.ones(4, bool), np.ones((2, 4), bool))]
    assert_close(terms[1:], [terms[0]] * 2, **tolerances.REORDERED)


def test_labels_of_one_row_are_shared_by_all_modalities():
    z, centers, labels = draw(3, 4, 3)
    shared = compiled_loss(z, centers, labels[0])
    repeated = compiled_loss(z, centers, np.broadcast_to(labels[0], (3, 4)))
    np.testing.assert_array_equal(jnp.stack(jax.tree.leaves(shared)), jnp.stack(jax.tree.leaves(repeated)))


@pytest.mark.slow
@pytest.mark.parametrize("m", [2, 3, 4])
@pytest.mark.parametrize("mask", [[True] * 5, [True, True, False, True, False]])
def test_scale_of_the_program_is_two_over_m_of_the_equation(m, mask):
    z, centers, labels = draw(m, 5, 3)
    mask = np.array(mask)
    _, equation = compiled_loss(z, centers, labels, mask=mask, contrastive_scale="equation")
    _, program = compiled_loss(z, centers, labels, mask=mask, contrastive_scale="program")
    np.testing.assert_allclose(program.contrastive, equation.contrastive * 2 / m, **tolerances.REORDERED)
    np.testing.assert_array_equal(program.clustering, equation.clustering)


@pytest.mark.slow
@pytest.mark.parametrize(("beta", "part"), [(0.0, "contrastive"), (1.0, "clustering")])
def test_beta_at_its_ends_leaves_one_part_in_value_and_gradient(beta, part):
    z, centers, labels = draw(2, 4, 3)

    def total(z, centers):
        return compiled_loss(z, centers, labels, beta=beta)[0]

    def alone(z, centers):
        return getattr(compiled_loss(z, centers, labels)[1], part)

    for whole, one in zip(
        jax.tree.leaves(jax.value_and_grad(total, (0, 1))(z, centers)),
        jax.tree.leaves(jax.value_and_grad(alone, (0, 1))(z, centers)),
        strict=True,
    ):
        np.testing.assert_allclose(whole, one, **tolerances.REORDERED)


def test_reordering_modalities_or_instances_reorders_the_terms():
    z, centers, labels = draw(3, 4, 3)
    mask = draw_mask(3, 4)
    modalities, instances = np.array([2, 0, 1]), np.array([3, 1, 0, 2])
    order = np.ix_(modalities, instances)
    terms = compiled_contrastive(z, 0.3, mask)
    np.testing.assert_allclose(
        compiled_contrastive(z[order], 0.3, mask[order]), np.asarray(terms)[order], **tolerances.REORDERED
    )
    total, _ = compiled_loss(z, centers, labels, mask=mask)
    reordered, _ = compiled_loss(z[order], centers, labels[order], mask=mask[order])
    np.testing.assert_allclose(reordered, total, **tolerances.REORDERED)


@pytest.mark.slow
def test_probabilities_sum_to_one_and_renaming_classes_renames_them():
    z, centers, labels = draw(2, 4, 5)
    p = soft_assignment(z, centers, 0.1)
    np.testing.assert_allclose(p.sum(-1), np.ones((2, 4)), **tolerances.UNIT)
    order = np.array([4, 2, 0, 1, 3])
    renamed = np.argsort(order)[labels]
    np.testing.assert_allclose(soft_assignment(z, centers[order], 0.1), p[..., order], **tolerances.REORDERED)
    np.testing.assert_allclose(
        robust_clustering_loss(z, centers[order], renamed),
        robust_clustering_loss(z, centers, labels),
        **tolerances.LOSS,
    )


# Extremes


@pytest.mark.slow
@pytest.mark.parametrize("tau", [0.01, 1e-4])
def test_samples_at_or_opposite_their_center_have_their_limit_values(tau):
    k = 4
    centers, labels = jnp.eye(k), jnp.array([0, 0])
    z = jnp.stack([jnp.eye(k)[0], -jnp.eye(k)[0]])
    # At the centre 1 - p = (K - 1) / (K - 1 + exp(1/tau)); opposite it p = exp(-1/tau) / (exp(-1/tau) + K - 1).
    expected_rc = [np.log(k - 1) - 1 / tau, 0.0]
    expected_ce = [0.0, np.log(k - 1) + 1 / tau]
    np.testing.assert_allclose(robust_clustering_loss(z, centers, labels, tau), expected_rc, **tolerances.HAND)
    np.testing.assert_allclose(cross_entropy_loss(z, centers, labels, tau), expected_ce, **tolerances.HAND)


@pytest.mark.slow
@pytest.mark.parametrize("tau", [0.01, 1e-4])
def test_gradient_at_and_opposite_the_center_has_its_limit_value(tau):
    centers, labels = jnp.eye(2), jnp.array([0, 0])
    z = jnp.stack([jnp.eye(2)[0], -jnp.eye(2)[0]])
    gradient = jax.grad(lambda z: robust_clustering_loss(z, centers, labels, tau).sum())(z)
    # d log(1 - p) / d logits = (-p, p) for K = 2, and p is 1 at the centre, 0 opposite it.
    np.testing.assert_allclose(gradient * tau, [[-1.0, 1.0], [0.0, 0.0]], **tolerances.HAND)


@pytest.mark.slow
@pytest.mark.parametrize("norm", [1.0, 30.0, 1e3])
@pytest.mark.parametrize("tau", [1.0, 0.01])
def test_large_embeddings_give_finite_values_and_gradients(norm, tau):
    z, centers, labels = draw(3, 6, 4)
    z[0, 0], z[0, 1], z[1, 2] = centers[labels[0, 0]], -centers[labels[0, 1]], z[2, 2]
    z[:, 5] = z[:, 4]  # two instances that are the same in every modality
    z[2] = -z[2]
    assert_finite(evaluate(np.float32(norm) * z, centers, labels, None, 0.6, tau, tau))


def test_unit_rows_stay_finite_down_to_the_smallest_documented_temperature():
    z, centers, labels = draw(3, 6, 4)
    z[0, 0], z[0, 1] = centers[labels[0, 0]], -centers[labels[0, 1]]
    assert_finite(evaluate(z, centers, labels, None, 0.6, 1e-37, 1e-37))


@pytest.mark.slow
@pytest.mark.parametrize("tau", [1.0, 0.01, 1e-4])
def test_identical_rows_leave_the_contrastive_loss_at_the_logarithm_of_the_batch(tau):
    m, b = 3, 4
    z = jnp.broadcast_to(jnp.eye(5)[0], (m, b, 5))
    np.testing.assert_allclose(
        compiled_contrastive(z, tau, self_similarity=True), np.full((m, b), np.log(b)), **tolerances.HAND
    )
    expected = np.full((m, b), np.log((m * b - 1) / (m - 1)))
    np.testing.assert_allclose(compiled_contrastive(z, tau), expected, **tolerances.HAND)
    assert_finite(jax.grad(lambda z: compiled_contrastive(z, tau).sum())(z))


@pytest.mark.slow
@pytest.mark.parametrize("m", [2, 3])
@pytest.mark.parametrize("self_similarity", [True, False])
def test_a_batch_of_one_has_no_negatives_so_its_contrastive_loss_is_zero(m, self_similarity):
    z, _, _ = draw(m, 1, 2)

    def summed(z):
        return compiled_contrastive(z, 0.1, self_similarity=self_similarity).sum()

    value, gradient = jax.value_and_grad(summed)(z)
    np.testing.assert_allclose(value, 0.0, **tolerances.HAND)
    np.testing.assert_allclose(gradient, np.zeros_like(z), atol=1e-5)  # differences of softmax entries, over tau


def test_one_class_makes_cross_entropy_zero_and_robust_clustering_an_error():
    z, centers, labels = draw(2, 3, 1)
    np.testing.assert_array_equal(cross_entropy_loss(z, centers, labels, 0.1), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="K = 2"):
        robust_clustering_loss(z, centers, labels)
    with pytest.raises(ValueError, match="K = 2"):
        mrl_loss(z, centers, labels)


@pytest.mark.slow
@pytest.mark.parametrize("p", [1e-2, 1e-4, 1e-6, 1e-8])
def test_small_probabilities_keep_an_absolute_error_of_two_ulp_and_an_accurate_gradient(p):
    logit = np.float32(np.log(p) - np.log1p(-p))  # two classes: p = 1 / (1 + exp(-logit))
    exact = 1.0 / (1.0 + np.exp(-np.float64(logit)))

    def term(x):
        return robust_clustering_loss(jnp.stack([x, jnp.zeros(())])[None], jnp.eye(2), jnp.array([0]))[0]

    value, gradient = jax.value_and_grad(term)(jnp.asarray(logit))
    assert abs(float(value) - np.log1p(-exact)) <= tolerances.SMALL_PROBABILITY_ABSOLUTE
    np.testing.assert_allclose(gradient, -exact, rtol=1e-5)


@pytest.mark.parametrize(("classes", "dim"), [(10, 128), (10, 512), (100, 512), (1000, 512)])
@pytest.mark.parametrize("tau", tolerances.ROBUST_CLUSTERING_ABSOLUTE)
def test_the_float32_error_of_robust_clustering_is_the_documented_one(tau, classes, dim):
    rng = np.random.default_rng([classes, dim])
    centers, labels = unit(rng.normal(size=(classes, dim))), rng.integers(0, classes, 1000)
    near = centers[np.where(rng.random(1000) < 0.5, labels, rng.integers(0, classes, 1000))]
    z = unit(rng.normal(size=(1000, dim)) / dim**0.5 + 3 * rng.random((1000, 1)) * near)  # from no class to its centre
    logits = z.astype(np.float64) @ centers.astype(np.float64).T / tau
    others = np.where(np.arange(classes) == labels[:, None], -np.inf, logits)
    expected = logsumexp(others, axis=1) - logsumexp(logits, axis=1)
    error = np.abs(np.asarray(robust_clustering_loss(z, centers, labels, tau), np.float64) - expected)
    assert error.max() < tolerances.ROBUST_CLUSTERING_ABSOLUTE[tau]


@pytest.mark.slow
@pytest.mark.parametrize("tau", [1.0, 0.05])
def test_gradient_of_robust_clustering_in_the_logits_stays_within_one(tau):
    rng = np.random.default_rng(0)
    logits = np.concatenate([rng.normal(size=(50, 4)), 20 * rng.normal(size=(50, 4)), 200 * rng.normal(size=(50, 4))])
    labels = rng.integers(0, 4, 150)
    x = jnp.asarray(logits * tau, jnp.float32)  # with the unit axes as centres the similarities are x itself
    gradient = tau * jax.grad(lambda x: robust_clustering_loss(x, jnp.eye(4), labels, tau).sum())(x)
    assert np.abs(gradient).max() <= 1.0 + 1e-6
    np.testing.assert_allclose(gradient.sum(-1), np.zeros(150), atol=1e-5)


# Gradients


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["rc", "ce"])
def test_derivatives_agree_with_differences_in_float64(loss):
    z, centers, labels = draw(3, 3, 3)
    mask = np.array([True, False, True])
    with jax.enable_x64(True):

        def total(z, centers, beta, tau1, tau2):
            return compiled_loss(z, centers, labels, beta=beta, tau1=tau1, tau2=tau2, mask=mask, loss=loss)[0]

        arguments = [jnp.asarray(x, jnp.float64) for x in (z, centers, 0.6, 0.5, 0.3)]
        check_grads(jax.jit(total), arguments, order=1, modes=("rev",), atol=1e-6, rtol=1e-6)


# Masks


@pytest.mark.slow
@pytest.mark.parametrize("garbage", [0.0, 1.0, 1e30, 3e38, np.inf, np.nan])
def test_masked_rows_count_for_nothing_in_value_and_gradient(garbage):
    z, centers, labels = draw(3, 5, 4)
    mask = np.array([True, False, True, True, False])
    padded = z.copy()
    padded[:, ~mask] = garbage
    short = evaluate(z[:, mask], centers, labels[:, mask])
    for options, (value, (by_z, by_centers)) in evaluate(padded, centers, labels, mask).items():
        expected, (short_by_z, short_by_centers) = short[options]
        assert_close(value, expected, **tolerances.REORDERED)
        assert_close((by_z[:, mask], by_centers), (short_by_z, short_by_centers), **tolerances.REORDERED)
        np.testing.assert_array_equal(by_z[:, ~mask], np.zeros((3, 2, 6)))


@pytest.mark.slow
@pytest.mark.parametrize("self_similarity", [True, False])
def test_overflow_in_masked_rows_does_not_reach_the_contrastive_gradient(self_similarity):
    z, _, _ = draw(3, 5, 4)
    mask = np.array([True, False, True, True, False])
    padded = np.where(mask[:, None], z, np.float32(1e36))  # over the temperature their similarities are infinite

    def summed(z, mask=None):
        return compiled_contrastive(z, 1e-3, mask, self_similarity=self_similarity).sum()

    gradient = jax.grad(summed)(padded, mask)
    np.testing.assert_allclose(gradient[:, mask], jax.grad(summed)(z[:, mask]), rtol=1e-4, atol=1e-3)  # up to 1e3
    np.testing.assert_array_equal(gradient[:, ~mask], np.zeros((3, 2, 6)))


@pytest.mark.parametrize("label", [-1, 4, 10**6])
def test_labels_of_masked_rows_may_be_no_class_at_all(label):
    z, centers, labels = draw(3, 5, 4)
    mask = np.array([True, False, True, True, False])
    garbage = np.where(mask, labels, np.int32(label))
    found, expected = (evaluate(z, centers, x, mask) for x in (garbage, labels))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_a_sample_that_one_modality_lacks_is_no_positive_and_no_negative():
    z, centers, labels = draw(2, 4, 3)
    mask = np.ones((2, 4), bool)
    mask[1, 2] = False

    def total(z):
        terms = compiled_contrastive(z, 0.5, mask)
        return compiled_loss(z, centers, labels, beta=0.0, mask=mask)[0], terms

    gradient, terms = jax.grad(total, has_aux=True)(z)
    np.testing.assert_array_equal(terms[:, 2], [0.0, 0.0])  # itself, and its partner, which has no positive left
    np.testing.assert_array_equal(gradient[1, 2], np.zeros(6))
    assert np.abs(gradient[0, 2]).max() > 0.0  # it remains a negative of the others


def test_a_batch_in_which_nothing_counts_has_loss_and_gradient_zero():
    z, centers, labels = draw(3, 5, 4)
    for leaf in jax.tree.leaves(evaluate(z, centers, labels, np.zeros(5, bool))):
        np.testing.assert_array_equal(leaf, np.zeros_like(leaf))
    program, _ = compiled_loss(z, centers, labels, mask=np.zeros(5, bool), contrastive_scale="program")
    assert float(program) == 0.0


# Transformations


@pytest.mark.slow
def test_jit_equals_plain_in_value_and_gradient():
    arguments = (*draw(2, 4, 5), np.ones((2, 4), bool))
    assert_close(evaluate(*arguments), evaluate.__wrapped__(*arguments), **tolerances.REORDERED)


@pytest.mark.slow
def test_vmap_over_beta_and_temperatures_equals_one_call_each():
    z, centers, labels = draw(2, 4, 5)
    mask = np.ones((2, 4), bool)
    numbers = np.array([[0.0, 1.0, 0.1], [0.5, 0.2, 1.0], [1.0, 0.1, 0.2]], np.float32)
    together = jax.vmap(lambda row: evaluate(z, centers, labels, mask, *row))(jnp.asarray(numbers))
    for r, row in enumerate(numbers):
        one = evaluate(z, centers, labels, mask, *row)
        assert_close(jax.tree.map(lambda x, r=r: x[r], together), one, **tolerances.LOSS)


@pytest.mark.slow
def test_vmap_over_batches_equals_one_call_each():
    batches = [(*draw(2, 4, 5, seed=seed), draw_mask(2, 4, seed)) for seed in range(3)]
    together = jax.vmap(lambda *batch: evaluate(*batch))(*map(np.stack, zip(*batches, strict=True)))
    for r, batch in enumerate(batches):
        one = evaluate(*batch)
        assert_close(jax.tree.map(lambda x, r=r: x[r], together), one, **tolerances.REORDERED)


# Errors


def test_unknown_names_are_refused_with_the_known_ones():
    arguments = draw(2, 3, 4)
    with pytest.raises(ValueError, match=r"'mse'.*rc.*ce"):
        mrl_loss(*arguments, loss="mse")
    with pytest.raises(ValueError, match=r"losses have shape \(\); it must be \("):
        mrl_loss(*arguments, loss=lambda z, *_: z.sum())
    with pytest.raises(ValueError, match=r"'mean'.*equation.*program"):
        mrl_loss(*arguments, contrastive_scale="mean")


def test_contrastive_loss_needs_positives():
    with pytest.raises(ValueError, match="no positives"):
        contrastive_loss(draw(1, 3, 2)[0])


def test_embeddings_of_another_rank_are_refused_with_their_shape():
    z, centers, labels = draw(2, 3, 4)
    with pytest.raises(ValueError, match=r"\(3, 6\).*modalities, batch, embedding"):
        contrastive_loss(z[0])
    with pytest.raises(ValueError, match=r"\(3, 6\).*modalities, batch, embedding"):
        mrl_loss(z[0], centers, labels[0])
