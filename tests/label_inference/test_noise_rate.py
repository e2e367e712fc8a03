"""Estimated noise rates: against the injected noise, and the highest likelihood on a grid in float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from mrl_jax import InputError
from mrl_jax.label_inference import infer_labels, loo_scores, vote_kernel
from mrl_jax.label_inference.noise_rate import noise_rates
from mrl_jax.label_inference.posterior import given_targets, infer_from_log_p

N, K = 1200, 6


def views_of(clean, seed=0, spread=1.2):
    rng = np.random.default_rng(seed)
    return [
        1.5 * rng.normal(size=(clean.max() + 1, d))[clean] + spread * rng.normal(size=(len(clean), d)) for d in (8, 6)
    ]


def estimated(labels, views, mask=None, classes=K):
    kernel = vote_kernel(views, mask)
    scores = loo_scores(kernel, jnp.asarray(given_targets(labels, classes, mask)))
    return scores, noise_rates(scores, infer_labels(kernel, labels, classes, mask), labels, mask)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("rate", [0.0, 0.2, 0.6])
def test_symmetric_noise_is_estimated_within_three_points(rate, shared):
    rng = np.random.default_rng(1)
    clean = rng.integers(0, K, N)
    draws = [np.where(rng.random(N) < rate, rng.integers(0, K, N), clean) for _ in range(1 if shared else 2)]
    labels = np.stack(draws * (2 if shared else 1))
    _, found = estimated(labels, views_of(clean))
    true = (labels != clean).mean(axis=1)
    assert found.even
    np.testing.assert_allclose(found.rate, true, atol=0.03)
    assert (found.low <= found.rate).all()
    assert (found.rate <= found.high).all()
    assert (found.low - 0.01 <= true).all()
    assert (true <= found.high + 0.01).all()


def test_modalities_with_different_noise_have_their_own_rates_and_missing_samples_count_nowhere():
    rng = np.random.default_rng(2)
    clean = rng.integers(0, K, N)
    labels = np.stack([np.where(rng.random(N) < r, rng.integers(0, K, N), clean) for r in (0.1, 0.7)])
    mask = np.ones((2, N), bool)
    mask[1, :300] = False
    labels[1, :300] = 0  # of missing samples
    _, found = estimated(labels, views_of(clean), mask)
    true = [(labels[i] != clean)[mask[i]].mean() for i in range(2)]
    np.testing.assert_allclose(found.rate, true, atol=0.035)


def test_noise_between_pairs_of_classes_is_counted_and_said_to_be_uneven():
    rng = np.random.default_rng(3)
    clean = rng.integers(0, K, N)
    labels = np.stack([np.where(rng.random(N) < 0.3, (clean + 1) % K, clean) for _ in range(2)])
    _, found = estimated(labels, views_of(clean))
    assert not found.even
    np.testing.assert_allclose(found.rate, (labels != clean).mean(axis=1), atol=0.04)


def test_the_rate_has_the_highest_likelihood_on_a_grid_in_float64():
    rng = np.random.default_rng(4)
    clean = rng.integers(0, K, 400)
    labels = np.where(rng.random(400) < 0.5, rng.integers(0, K, 400), clean)[None]
    scores, found = estimated(labels, views_of(clean))
    scores, best, inside = np.asarray(scores, np.float64), (-np.inf, 0.0), []
    shares = np.linspace(0.001, 0.999, 999)
    profile = np.full(len(shares), -np.inf)
    for log_scale in np.linspace(-1, 10, 45):
        z = np.exp(log_scale) * scores
        p = np.exp(z - z.max(axis=1, keepdims=True))
        p = 0.995 * p / p.sum(axis=1, keepdims=True) + 0.005 / K
        own = p[np.arange(400), labels[0]]
        value = np.log(shares * own[:, None] + (1 - shares) * (1 - own[:, None]) / (K - 1)).sum(axis=0)
        profile = np.maximum(profile, value)
        best = max(best, (value.max(), 1 - shares[value.argmax()]))
    inside = 1 - shares[profile >= profile.max() - 1.92]
    np.testing.assert_allclose(found.rate, best[1], atol=0.01)
    np.testing.assert_allclose([found.low[0], found.high[0]], [inside.min(), inside.max()], atol=0.005)


def test_probabilities_of_a_model_take_the_place_of_votes():
    rng = np.random.default_rng(5)
    p = rng.dirichlet(np.full(K, 0.2), 4000)
    clean = (p.cumsum(axis=1) > rng.random((4000, 1))).argmax(axis=1)
    labels = np.where(rng.random(4000) < 0.5, rng.integers(0, K, 4000), clean)[None]
    kept, other = 0.5 + 0.5 / K, 0.5 / K
    exact = p * np.where(np.arange(K) == labels[0][:, None], kept, other)
    exact /= exact.sum(axis=1, keepdims=True)
    found = infer_from_log_p(np.log(np.maximum(p, 1e-9)), labels)
    error = np.abs(np.asarray(found.posterior) - exact).sum(axis=1) / 2  # total variation distance
    assert error.mean() < 0.05
    np.testing.assert_allclose(np.trace(np.asarray(found.transition)[0]) / K, kept, atol=0.05)
    # Over-confident probabilities are calibrated.
    sharp = infer_from_log_p(2.0 * np.log(np.maximum(p, 1e-9)), labels)
    assert (np.abs(np.asarray(sharp.posterior) - exact).sum(axis=1) / 2).mean() < 0.06


def test_targets_are_the_mean_of_the_annotators():
    labels = np.array([[0, 1, 2], [0, 2, 2]])
    mask = np.array([[True, True, False], [True, True, True]])
    expected = [[1, 0, 0], [0, 0.5, 0.5], [0, 0, 1]]
    np.testing.assert_allclose(given_targets(labels, 3, mask), expected)


@pytest.mark.parametrize(
    ("log_p", "message"),
    [(np.zeros((4, 3, 2)), "log-probabilities"), (np.full((4, 3), np.nan), "finite"), (np.zeros((5, 3)), "integers")],
)
def test_wrong_probabilities_are_refused(log_p, message):
    with pytest.raises(InputError, match=message):
        infer_from_log_p(log_p, np.zeros((1, 4), int))
