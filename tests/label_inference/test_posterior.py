"""Inferred labels: steps of EM against float64, and noise that is known to the test alone."""

import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from mrl_jax import InputError
from mrl_jax.label_inference import posterior
from mrl_jax.label_inference.posterior import annotators, infer_labels
from mrl_jax.label_inference.quality import label_quality
from mrl_jax.label_inference.votes import vote_kernel

N, K = 900, 5


def problem(rate, labels_per_instance=2, seed=0, spread=1.0):
    """Two views of five clusters, and labels of which a share is drawn evenly over all classes."""
    rng = np.random.default_rng(seed)
    clean = rng.integers(0, K, N)
    views = [2.0 * rng.normal(size=(K, d))[clean] + spread * rng.normal(size=(N, d)) for d in (8, 12)]
    drawn = [np.where(rng.random(N) < rate, rng.integers(0, K, N), clean) for _ in range(labels_per_instance)]
    return views, np.stack(drawn * (2 // labels_per_instance)), clean


@pytest.mark.parametrize(("rate", "each", "right"), [(0.2, 2, 0.98), (0.6, 2, 0.95), (0.2, 1, 0.97), (0.6, 1, 0.92)])
def test_labels_and_noise_rate_are_found(rate, each, right):
    views, labels, clean = problem(rate, each)
    found = infer_labels(vote_kernel(views), labels, K)
    quality = label_quality(np.asarray(found.posterior), labels, clean)
    assert quality["accuracy"] > right
    assert quality["auroc"] > 0.95
    assert quality["estimated"] == pytest.approx(quality["true"], abs=0.03 if each == 2 else 0.05)
    assert found.transition.shape == (each, K, K)
    np.testing.assert_allclose(np.asarray(found.posterior).sum(axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(np.asarray(found.transition).sum(axis=-1), 1.0, atol=1e-5)


def test_the_transition_of_noise_that_depends_on_the_class_is_found():
    rng = np.random.default_rng(3)
    views, _, clean = problem(0.0)
    next_class = np.where((clean < 2) & (rng.random((2, N)) < 0.45), clean + 1, clean)
    found = infer_labels(vote_kernel(views), next_class, K)
    for i, transition in enumerate(np.asarray(found.transition)):
        true = np.stack([np.bincount(next_class[i, clean == k], minlength=K) / (clean == k).sum() for k in range(K)])
        assert np.abs(transition - true).max() < 0.15  # pseudo-counts draw it towards even errors
    assert (np.asarray(found.posterior).argmax(axis=1) == clean).mean() > 0.97


def test_noise_free_labels_are_kept():
    views, labels, clean = problem(0.0, 1)
    found = label_quality(np.asarray(infer_labels(vote_kernel(views), labels, K).posterior), labels, clean)
    assert found["accuracy"] > 0.99
    assert found["estimated"] < 0.02


def test_an_expectation_step_equals_float64():
    """The confusions of the annotators are counted anew for every instance, over all others."""
    rng = np.random.default_rng(0)
    scores, bias, strength = rng.normal(size=(7, 3)), np.array([0.2, -0.1, -0.1]), 2.5
    q, prior = rng.dirichlet(np.ones(3), size=7), rng.dirichlet(np.ones(3), size=(2, 3))
    labels, there = rng.integers(0, 3, (2, 7)), np.array([[True] * 7, [True, False] * 3 + [True]])
    p = np.exp(2.0 * scores + bias)
    p = 0.97 * p / p.sum(axis=1, keepdims=True) + 0.03 / 3
    joint, counts = p.copy(), np.zeros((2, 3, 3))
    for a in range(2):
        for j in range(7):
            others = strength * prior[a]
            for i in range(7):
                if there[a, i]:
                    others[:, labels[a, i]] += q[i] * (i != j)
                    counts[a, :, labels[a, i]] += q[i] * (j == 0)
            if there[a, j]:
                joint[j] *= others[:, labels[a, j]] / others.sum(axis=1)
    confusions = posterior._Confusions(*map(jnp.asarray, (counts, prior, strength)))
    log_votes = posterior._log_votes(jnp.asarray(scores), jnp.log(2.0), jnp.asarray(bias))
    log_likelihood = posterior._log_likelihood(jnp.asarray(labels), jnp.asarray(there), confusions, jnp.asarray(q))
    np.testing.assert_allclose(jnp.exp(log_votes), p, rtol=1e-5)
    np.testing.assert_allclose(jnp.exp(log_votes + log_likelihood), joint, rtol=1e-5)
    evidence = posterior._evidence(jnp.asarray(scores), jnp.asarray(bias), log_likelihood, jnp.log(2.0))
    np.testing.assert_allclose(evidence, np.log(joint.sum(axis=1)), rtol=1e-5)
    whole = counts + strength * prior
    np.testing.assert_allclose(confusions.transition, whole / whole.sum(axis=2, keepdims=True), rtol=1e-5)


def test_with_many_classes_an_instance_does_not_confirm_its_own_label():
    """15 instances per class, 8 labels of 10 drawn anew: q must know how much it does not know."""
    rng = np.random.default_rng(0)
    classes, clean = 60, np.arange(900) % 60
    views = [1.2 * rng.normal(size=(classes, d))[clean] + rng.normal(size=(900, d)) for d in (10, 12)]
    drawn = np.where(rng.random((2, 900)) < 0.8, rng.integers(0, classes, (2, 900)), clean)
    found = label_quality(np.asarray(infer_labels(vote_kernel(views), drawn, classes).posterior), drawn, clean)
    assert found["accuracy"] > 0.55
    assert found["ece"] < 0.1  # 0.22 if an instance counts in the confusions that judge its label
    assert found["estimated"] == pytest.approx(found["true"], abs=0.08)


def test_modalities_that_share_their_labels_are_one_annotator():
    one, other = np.array([0, 1, 2, 1]), np.array([0, 2, 2, 1])
    labels, there = annotators(np.stack([one, one, other]))
    assert labels.tolist() == [one.tolist(), other.tolist()]
    assert there.all()
    mask = np.array([[True, False, True, True], [False, True, True, True]])
    labels, there = annotators(np.stack([np.array([0, 9, 2, 1]), np.array([9, 1, 2, 1])]), mask)
    assert (labels.tolist(), there.tolist()) == ([[0, 1, 2, 1]], [[True] * 4])
    mask = np.array([[True, True, False, False], [False, False, True, True], [False, True, True, False]])
    for order in ([0, 1, 2], [2, 1, 0], [0, 2, 1]):  # the first two share no instance
        labels, there = annotators(np.stack([one] * 3), mask[order])
        assert (labels.tolist(), there.tolist()) == ([one.tolist()], [[True] * 4])


def test_missing_samples_have_no_label_and_no_features():
    views, labels, clean = problem(0.4)
    mask = np.stack([np.arange(N) % 4 != 1, np.arange(N) % 3 != 0])
    changed = np.where(mask, labels, (labels + 1) % K)
    moved = [np.where(m[:, None], x, 99.0) for x, m in zip(views, mask, strict=True)]
    found = [infer_labels(vote_kernel(x, mask), y, K, mask) for x, y in ((views, labels), (moved, changed))]
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)
    at_least_one = mask.any(axis=0)
    assert (np.asarray(found[0].posterior).argmax(axis=1) == clean)[at_least_one].mean() > 0.9


def test_three_modalities_and_one_label():
    views, labels, clean = problem(0.5)
    found = infer_labels(vote_kernel([*views, views[0]]), np.stack([*labels, labels[0]]), K)
    assert found.transition.shape == (2, K, K)  # the third shares its labels with the first
    assert (np.asarray(found.posterior).argmax(axis=1) == clean).mean() > 0.9


def test_the_example_of_the_docs_runs():
    page = (Path(__file__).parents[2] / "docs" / "consensus.md").read_text("utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    exec(compile(block, "docs/consensus.md", "exec"), {})


X = np.random.default_rng(0).normal(size=(20, 4))
Y = np.zeros((2, 20), int)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: vote_kernel([]), "features have [] rows; give one modality or more"),
        (lambda: vote_kernel([X, X[:5]]), "features have [20, 5] rows"),
        (lambda: vote_kernel([X], np.ones((1, 3), bool)), "mask has the shape [1, 3]; it must be [1, 20]"),
        (lambda: vote_kernel([np.where(np.eye(20, 4) > 0, np.nan, X)]), "features are not finite"),
        (lambda: vote_kernel([X * 1e25]), "or their squares are not in float32"),
        (lambda: vote_kernel([np.where(np.eye(20, 4) > 0, 1e39, X)]), "features are not finite"),
        (lambda: vote_kernel([X[:, 0]]), "features are float64 [20]; each modality must be real numbers [N, D]"),
        (lambda: vote_kernel([X + 1j]), "features are complex128 [20, 4]"),
        (lambda: vote_kernel([X.astype(str)]), "features are <U32 [20, 4]"),
        (lambda: vote_kernel([X], landmarks=0), "landmarks=0, block=4096; both must be 1 or more"),
        (lambda: infer_labels(vote_kernel([X]), Y[:, :7], 3), "labels are int64 [2, 7]; they must be integers [M, 20]"),
        (lambda: infer_labels(vote_kernel([X]), Y + 0.5, 3), "labels are float64"),
        (lambda: infer_labels(vote_kernel([X]), Y + 9, 3), "labels are 9 to 9 with classes=3"),
        (lambda: infer_labels(vote_kernel([X]), Y, 1), "two classes or more"),
        (lambda: infer_labels(vote_kernel([X]), Y, 3, np.ones(20, bool)), "mask is [20]; it must have the shape"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=re.escape(message)):
        call()


@pytest.mark.parametrize("factor", [1.0, 100.0, 3000.0])
def test_the_scale_of_small_scores_is_found(factor):
    """Labels are drawn from a softmax of logits; with many classes, scores are small parts of these."""
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=2.0, size=(3000, 50))
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    log_likelihood = np.where(np.arange(50) == labels[:, None], 0.0, -30.0)
    found = posterior._scale(jnp.float32(logits / factor), jnp.zeros(50), jnp.float32(log_likelihood))
    assert float(found) == pytest.approx(np.log(factor), abs=0.25)
