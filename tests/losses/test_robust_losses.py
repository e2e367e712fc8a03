"""Noisy-label losses: hand values, their equations in float64, extremes, gradients, selection of samples."""

import inspect
import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import tolerances

from mrl_jax.losses.mrl import cross_entropy_loss, mrl_loss
from mrl_jax.losses.robust import (
    PER_SAMPLE_LOSSES,
    early_learning_loss,
    ema_targets,
    forward_correction_loss,
    generalized_cross_entropy_loss,
    hard_bootstrapping_loss,
    symmetric_cross_entropy_loss,
)
from mrl_jax.losses.robust.selected import clean_posterior, small_loss_weights
from mrl_jax.methods.clustering import LOSS_PARTS
from mrl_jax.options import LOSSES

E, K, B, M = np.e, 5, 6, 2
P = E / (E + 2)  # of the given label, for three orthogonal centres, one of which is met
BY_HAND = {
    "rc": np.log(1 - P),
    "ce": -np.log(P),
    "focal": -((1 - P) ** 2) * np.log(P),
    "mae": 2 * (1 - P),
    "gce": (1 - P**0.7) / 0.7,
    "sce": -0.1 * np.log(P) + 4 * (1 - P),
    "nce-rce": (np.log(E + 2) - 1) / (3 * np.log(E + 2) - 1) + 4 * (1 - P),
    "nce-mae": (np.log(E + 2) - 1) / (3 * np.log(E + 2) - 1) + 2 * (1 - P),
    "label-smoothing": np.log(E + 2) - 0.9 - 0.1 / 3,
    "bootstrap-soft": np.log(E + 2) - 0.95 - 0.05 * P,
    "bootstrap-hard": np.log(E + 2) - 1,
    "forward": -np.log(0.4 * P + 0.3),  # 0.7 p + 0.3 (1 - p)
    "elr": np.log(E + 2) - 1 + 3 * np.log(1 - 0.5 * P - 0.1 * (1 - P) / 2),
    "lq": 0.99 * (1 - P**0.01) / 0.01 + 0.01 * (1 - P),
    "small-loss": -np.log(P),
    "gmm": -np.log(P),
}


def extra(name, k=K, shape=(M, B), seed=0):
    rng = np.random.default_rng(seed)
    if name == "forward":
        return {"transition": jnp.asarray(rng.dirichlet(np.ones(k), k), jnp.float32)}
    if name == "elr":
        return {"targets": jnp.asarray(0.9 * rng.dirichlet(np.ones(k), shape), jnp.float32)}
    return {}


def draw(seed=0, k=K, dim=8, shape=(M, B)):
    rng = np.random.default_rng(seed)
    z, centers = rng.normal(size=(*shape, dim)), rng.normal(size=(k, dim))
    z, centers = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (z, centers))
    return jnp.asarray(z, jnp.float32), jnp.asarray(centers, jnp.float32), jnp.asarray(rng.integers(0, k, shape))


def term(name, p, y, transition=None, target=None):
    """The equations as written, of probabilities [K]."""
    q, k = np.eye(len(p))[y], len(p)
    log_q = np.where(q > 0, 0.0, -4.0)
    ce, mae, rce = -(q * np.log(p)).sum(), np.abs(q - p).sum(), -(p * log_q).sum()
    nce = np.log(p[y]) / np.log(p).sum()
    smooth, soft = 0.9 * q + 0.1 / k, 0.95 * q + 0.05 * p
    hard = 0.8 * q + 0.2 * np.eye(k)[p.argmax()]
    return {
        "rc": lambda: np.log(1 - p[y]),
        "ce": lambda: ce,
        "focal": lambda: -((1 - p[y]) ** 2) * np.log(p[y]),
        "mae": lambda: mae,
        "gce": lambda: (1 - p[y] ** 0.7) / 0.7,
        "sce": lambda: (6 if k > 50 else 0.1) * ce + (0.1 if k > 50 else 1) * rce,
        "nce-rce": lambda: (10 if k > 50 else 1) * nce + (0.1 if k > 50 else 1) * rce,
        "nce-mae": lambda: (10 if k > 50 else 1) * nce + mae,
        "label-smoothing": lambda: -(smooth * np.log(p)).sum(),
        "bootstrap-soft": lambda: -(soft * np.log(p)).sum(),
        "bootstrap-hard": lambda: -(hard * np.log(p)).sum(),
        "forward": lambda: -np.log((transition.T @ p)[y]),
        "elr": lambda: ce + 3 * np.log(1 - target @ p),
        "lq": lambda: 0.99 * (1 - p[y] ** 0.01) / 0.01 + 0.01 * (1 - p[y]),
    }[name]()


def by_reference(name, z, centers, labels, tau, transition=None, targets=None):
    out = np.zeros(labels.shape)
    for index in np.ndindex(*labels.shape):
        p = np.array(reference.soft_assignment(np.asarray(z[index], np.float64), centers, tau))
        matrix = None if transition is None else np.asarray(transition, np.float64)
        out[index] = term(name, p, int(labels[index]), matrix, None if targets is None else np.asarray(targets[index]))
    return out


def test_every_loss_of_the_configuration_is_there_and_takes_its_options():
    assert set(LOSS_PARTS) == set(LOSSES)
    assert set(PER_SAMPLE_LOSSES) == set(LOSSES) - {"small-loss", "gmm"}
    for name, loss in PER_SAMPLE_LOSSES.items():
        taken = {p.name for p in inspect.signature(loss).parameters.values() if p.kind == p.KEYWORD_ONLY}
        beside = {"momentum"} if name == "elr" else set()  # of the EMA targets
        assert set(LOSSES[name].numbers) == taken - {"transition", "targets"} | beside, name


@pytest.mark.parametrize("name", PER_SAMPLE_LOSSES)
def test_hand_value(name):
    more = {
        "forward": {"transition": 0.3 + 0.4 * jnp.eye(3)},
        "elr": {"targets": jnp.array([[0.5, 0.05, 0.05]])},
    }.get(name, {})
    found = PER_SAMPLE_LOSSES[name](jnp.eye(3)[:1], jnp.eye(3), jnp.array([0]), **more)
    np.testing.assert_allclose(found, [BY_HAND[name]], **tolerances.HAND)


@pytest.mark.slow
@pytest.mark.parametrize("k", [2, 60])
@pytest.mark.parametrize("name", PER_SAMPLE_LOSSES)
def test_values_and_gradients_equal_the_equations(name, k):
    z, centers, labels = draw(k=k)
    more = extra(name, k)
    loss = PER_SAMPLE_LOSSES[name]
    plain = {key: np.asarray(x) for key, x in more.items()}

    @jax.jit
    def evaluate(z, centers, tau):
        terms = loss(z, centers, labels, tau, **more)
        return terms, jax.grad(lambda *x: loss(*x, labels, tau, **more).sum(), (0, 1))(z, centers)

    for tau in (1.0, 0.2):
        terms, (slope, of_centers) = evaluate(z, centers, tau)
        np.testing.assert_allclose(terms, by_reference(name, z, centers, labels, tau, **plain), rtol=1e-5, atol=1e-5)
    direction = np.random.default_rng(1).normal(size=z.shape), np.random.default_rng(2).normal(size=centers.shape)
    ahead, behind = (
        by_reference(
            name,
            np.asarray(z, np.float64) + sign * 1e-5 * direction[0],
            np.asarray(centers, np.float64) + sign * 1e-5 * direction[1],
            labels,
            0.2,
            **plain,
        ).sum()
        for sign in (1, -1)
    )
    found = (np.asarray(slope) * direction[0]).sum() + (np.asarray(of_centers) * direction[1]).sum()
    np.testing.assert_allclose(found, (ahead - behind) / 2e-5, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", PER_SAMPLE_LOSSES)
def test_sure_samples_right_or_wrong_stay_finite(name):
    z, labels = jnp.stack([jnp.eye(3)] * 2), jnp.array([[0, 1, 2], [1, 2, 0]])  # p is 1 and 0 in float32
    for target in (0.0, 1.0):
        more = {"targets": jnp.full((2, 3, 3), target)} if name == "elr" else extra(name, 3)

        def total(z, centers, more=more):
            return PER_SAMPLE_LOSSES[name](z, centers, labels, 1e-3, **more).sum()

        value, slopes = jax.value_and_grad(total, (0, 1))(z, jnp.eye(3))
        assert np.isfinite(value)
        assert all(np.isfinite(x).all() for x in slopes)


@pytest.mark.slow
def test_limits_join_the_losses():
    z, centers, labels = draw()
    near = {"rtol": 1e-4, "atol": 1e-5}
    ce, p = cross_entropy_loss(z, centers, labels), jnp.exp(-cross_entropy_loss(z, centers, labels))
    np.testing.assert_allclose(generalized_cross_entropy_loss(z, centers, labels, q=1.0), 1 - p, **near)
    np.testing.assert_allclose(forward_correction_loss(z, centers, labels, transition=jnp.eye(K)), ce, **near)
    own = forward_correction_loss(z, centers, labels, transition=jnp.stack([jnp.eye(K)] * M))
    np.testing.assert_allclose(own, ce, **near)
    np.testing.assert_allclose(early_learning_loss(z, centers, labels, targets=jnp.zeros((M, B, K))), ce, **near)
    np.testing.assert_allclose(PER_SAMPLE_LOSSES["focal"](z, centers, labels, gamma=0.0), ce, **near)
    np.testing.assert_allclose(PER_SAMPLE_LOSSES["label-smoothing"](z, centers, labels, epsilon=0.0), ce, **near)
    np.testing.assert_allclose(hard_bootstrapping_loss(z, centers, labels, trust=1.0), ce, **near)
    np.testing.assert_allclose(symmetric_cross_entropy_loss(z, centers, labels, a=1.0, b=0.0), ce, **near)


@pytest.mark.slow
def test_a_transition_for_each_modality_is_its_own():
    z, centers, labels = draw()
    both = jnp.stack([extra("forward", seed=s)["transition"] for s in range(M)])
    found = forward_correction_loss(z, centers, labels, transition=both)
    for i in range(M):
        expected = forward_correction_loss(z[i], centers, labels[i], transition=both[i])
        np.testing.assert_allclose(found[i], expected, **tolerances.REORDERED)


@pytest.mark.slow
def test_a_label_that_no_class_gets_tells_nothing_and_masked_rows_may_have_it():
    z, centers, labels = draw(k=3)
    transition, labels = jnp.array([[0.0, 1, 0], [0, 1, 0], [0, 0, 1]]), jnp.maximum(labels, 1)
    mask = jnp.ones((M, B), bool).at[:, -1].set(False)  # `mrl_loss` gives such rows the label 0

    def total(z, centers):
        loss = partial(forward_correction_loss, transition=transition)
        return mrl_loss(z, centers, labels, beta=0.5, mask=mask, loss=loss)[0]

    value, slopes = jax.value_and_grad(total, (0, 1))(z, centers)
    assert np.isfinite(value)
    assert all(np.isfinite(x).all() for x in slopes)
    zero = jnp.zeros((M, B), int)
    terms = forward_correction_loss(z, centers, zero, transition=transition)
    np.testing.assert_allclose(terms, 0, atol=1e-6)
    expected = -np.log(np.asarray(1 - np.exp(-cross_entropy_loss(z, centers, zero + 2))))  # p of the classes 0 and 1
    found = forward_correction_loss(z, centers, zero + 1, transition=transition)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_losses_that_need_two_classes_say_so():
    one = jnp.ones((1, 1)), jnp.ones((1, 1)), jnp.zeros(1, int)
    for name in ("rc", "focal", "nce-rce", "nce-mae"):
        with pytest.raises(ValueError, match="K = 2"):
            PER_SAMPLE_LOSSES[name](*one)


# EMA targets


def test_targets_are_the_running_mean_of_predictions():
    z, centers, _ = draw()
    p = np.array([[reference.soft_assignment(x, centers, 0.5) for x in row] for row in np.asarray(z)])
    targets = jnp.zeros((M, B, K))
    for _ in range(2):
        targets = ema_targets(targets, z, centers, 0.5, momentum=0.6)
    np.testing.assert_allclose(targets, (1 - 0.6**2) * p, rtol=1e-5)
    assert not np.any(jax.grad(lambda z: ema_targets(targets, z, centers).sum())(z))


def test_targets_of_sure_predictions_stay_below_one():
    targets = jnp.zeros((1, 1, 2))
    for _ in range(100):
        targets = ema_targets(targets, jnp.eye(2)[:1][None], jnp.eye(2), 1e-3)
    np.testing.assert_allclose(targets, [[[1 - 1e-4, 1e-4]]], rtol=1e-4)


# Small losses


def test_the_smallest_of_those_that_count_are_kept_and_their_mean_is_the_mean():
    terms = jnp.array([[5.0, 1, 3, 2, 4, 0], [1, 2, 3, 4, 5, 6]])
    valid = jnp.array([[True] * 5 + [False], [True] * 6])
    weights = small_loss_weights(terms, jnp.array([0.6, 0.5]), valid)
    np.testing.assert_allclose(weights, [[0, 5 / 3, 5 / 3, 5 / 3, 0, 0], [2, 2, 2, 0, 0, 0]], rtol=1e-6)
    np.testing.assert_allclose((weights * terms).sum(axis=1) / valid.sum(axis=1), [2, 2], rtol=1e-6)


def test_at_least_one_is_kept_and_with_share_one_all_are():
    terms, valid = jnp.array([[3.0, 1, 2]]), jnp.ones((1, 3), bool)
    np.testing.assert_allclose(small_loss_weights(terms, jnp.zeros(1), valid), [[0, 3, 0]])
    np.testing.assert_allclose(small_loss_weights(terms, jnp.ones(1), valid), [[1, 1, 1]])
    none = small_loss_weights(terms, jnp.ones(1), jnp.zeros((1, 3), bool))
    np.testing.assert_allclose(none, [[0, 0, 0]])


# Two Gaussians


def mixture(seed=0, n=400, share=0.3):
    rng = np.random.default_rng(seed)
    wrong = rng.random(n) < share
    return np.where(wrong, rng.normal(3.0, 0.5, n), rng.normal(0.5, 0.3, n)).astype(np.float32), wrong


@pytest.mark.slow
def test_posterior_equals_scikit_learn():
    from sklearn.mixture import GaussianMixture

    terms, wrong = mixture()
    x = ((terms - terms.min()) / (terms.max() - terms.min())).astype(np.float64)[:, None]
    precision = 1.0 / (x.var() + 5e-4)
    theirs = GaussianMixture(
        2,
        covariance_type="spherical",
        reg_covar=5e-4,
        max_iter=50,
        tol=0.0,
        means_init=[[0.0], [1.0]],
        weights_init=[0.5, 0.5],
        precisions_init=[precision] * 2,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged to a tolerance of 0
        theirs.fit(x)
    expected = theirs.predict_proba(x)[:, theirs.means_.argmin()]
    found = clean_posterior(jnp.asarray(terms), jnp.ones(len(terms), bool))
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert ((found > 0.5) == ~wrong).mean() > 0.99


@pytest.mark.slow
def test_posterior_of_present_samples_does_not_see_the_missing():
    terms, _ = mixture()
    valid = np.arange(len(terms)) % 3 != 0
    spoilt = jnp.asarray(np.where(valid, terms, 1e6))
    found = clean_posterior(spoilt, jnp.asarray(valid))
    expected = clean_posterior(jnp.asarray(terms[valid]), jnp.ones(valid.sum(), bool))
    np.testing.assert_allclose(found[valid], expected, atol=1e-5)
    assert not np.any(found[~valid])


@pytest.mark.slow
def test_equal_losses_are_all_clean():
    np.testing.assert_array_equal(clean_posterior(jnp.full(5, 2.0), jnp.ones(5, bool)), np.ones(5))
