"""SMLN: its graph against loops, its loss against generalised eigenvalues in SciPy and PyTorch, and its optimum."""

import jax
import numpy as np
import pytest
import scipy.linalg
from toy import toy_arrays, toy_config

from mrl_jax import InputError, preset, train
from mrl_jax.errors import DatasetWarning
from mrl_jax.methods.deep.smln import affinity, spectral_loss

B, L, K = 12, 4, 3
RIDGE, SHIFT = 2e-2, 1.5


def graph_of(m=2, seed=0):
    """Features, labels, and which samples count."""
    rng = np.random.default_rng(seed)
    features = [rng.normal(size=(B, d)).astype(np.float32) for d in (5, 6, 7)[:m]]
    valid = np.ones((m, B), bool)
    valid[0, 3] = valid[1, 8] = False
    valid[:, -1] = False
    return features, np.where(valid, rng.integers(0, K, (m, B)), 55).astype(np.int32), valid


def edges(features, labels, valid, neighbours):
    """The graph, one pair of samples after the other."""
    m = len(features)
    near = np.zeros((m, B, B), bool)
    for i, x in enumerate(np.asarray(f, np.float64) for f in features):
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        for j in range(B):
            others = [t for t in range(B) if t != j and valid[i, t]]
            for t in sorted(others, key=lambda t: -unit[j] @ unit[t])[:neighbours]:
                near[i, j, t] = near[i, t, j] = True
    w = np.zeros((m * B, m * B))
    for a in range(m):
        for b in range(m):
            for j in range(B):
                for t in range(B):
                    edge = labels[a, j] == labels[b, t] or j == t or (a == b and near[a, j, t])
                    w[a * B + j, b * B + t] = edge and valid[a, j] and valid[b, t]
    return w


def embeddings(m=2, seed=1, size=L):
    z = np.random.default_rng(seed).normal(size=(m * B, size))
    return (z / np.linalg.norm(z, axis=1, keepdims=True)).astype(np.float32)


def matrices(z, w):
    z, degree = np.asarray(z, np.float64), w.sum(axis=1)
    return z.T @ w @ z / w.sum(), z.T @ np.diag(degree) @ z / w.sum() + RIDGE * np.eye(z.shape[1])


@pytest.mark.parametrize(("m", "neighbours"), [(2, 0), (2, 3), (3, 2), (2, 40)])
def test_the_graph_has_classes_instances_and_neighbours(m, neighbours):
    found = jax.jit(affinity, static_argnums=3)(*graph_of(m), neighbours)
    np.testing.assert_array_equal(found, edges(*graph_of(m), neighbours))


@pytest.mark.parametrize("m", [2, 3])
def test_the_loss_has_the_generalised_eigenvalues(m):
    w = edges(*graph_of(m), 3)
    values = scipy.linalg.eigh(*matrices(embeddings(m), w), eigvals_only=True)
    loss, mean = jax.jit(spectral_loss)(embeddings(m), w.astype(np.float32), RIDGE, SHIFT)
    assert float(loss) == pytest.approx(-np.log(values + SHIFT).sum(), rel=1e-5)
    assert float(mean) == pytest.approx(values.mean(), rel=1e-4)


@pytest.mark.bench
def test_value_and_gradients_equal_pytorch():
    import torch

    w = edges(*graph_of(), 3)
    z = torch.tensor(embeddings(), dtype=torch.float64, requires_grad=True)
    t = torch.tensor(w)
    scatter = z.T @ torch.diag(t.sum(1)) @ z / t.sum() + RIDGE * torch.eye(L)
    values, vectors = torch.linalg.eigh(scatter)
    root = vectors @ torch.diag(values**-0.5) @ vectors.T
    value = -(torch.linalg.eigvalsh(root @ (z.T @ t @ z / t.sum()) @ root) + SHIFT).log().sum()
    value.backward()
    found, gradient = jax.value_and_grad(lambda z: spectral_loss(z, w.astype(np.float32), RIDGE, SHIFT)[0])(
        embeddings()
    )
    np.testing.assert_allclose(found, value.item(), rtol=1e-5)
    np.testing.assert_allclose(gradient, z.grad.numpy(), atol=1e-5)


def test_samples_that_do_not_count_change_nothing():
    features, labels, valid = graph_of()
    off = ~valid[..., None]
    w = affinity([np.where(o, 1e3, x).astype(np.float32) for x, o in zip(features, off, strict=True)], labels, valid, 3)
    np.testing.assert_array_equal(w, affinity(features, labels, valid, 3))
    gradient = jax.grad(lambda z: spectral_loss(z, w, RIDGE, 1.0)[0])(embeddings())
    assert not np.asarray(gradient)[~valid.reshape(-1)].any()


def test_one_direction_per_class_is_the_optimum_and_has_finite_gradients():
    """Classes of equal size: all eigenvalues are p / (p + epsilon) with the share p = 1/3 of every class."""
    labels = np.arange(2 * B).reshape(2, B) % K
    z = np.eye(K, dtype=np.float32)[labels.reshape(-1)]
    w = (labels.reshape(-1, 1) == labels.reshape(1, -1)).astype(np.float32)
    best = -K * np.log(1 + (1 / 3) / (1 / 3 + RIDGE))
    value, gradient = jax.value_and_grad(lambda z: spectral_loss(z, w, RIDGE, 1.0)[0])(z)
    assert float(value) == pytest.approx(best, rel=1e-6)
    assert np.isfinite(gradient).all()
    for seed in range(5):
        assert float(spectral_loss(embeddings(seed=seed, size=K), w, RIDGE, 1.0)[0]) > best


@pytest.mark.parametrize("case", ["one", "none", "same", "one class", "worst"])
def test_extremes_are_finite(case):
    features, labels, valid = graph_of()
    z = embeddings()
    if case == "one":
        features, labels, valid = [x[:1] for x in features], labels[:, :1], valid[:, :1]
        z = z[:2]
    elif case == "none":
        valid = np.zeros_like(valid)
    elif case == "same":
        z, features = np.ones_like(z) / 2, [np.ones_like(x) for x in features]
    elif case == "one class":
        labels = np.zeros_like(labels)
    w = np.asarray(affinity(features, labels, valid, 3))
    if case == "worst":  # edges only between opposite embeddings: eigenvalues near -1
        z = np.concatenate([z[:B], -z[:B]])
        w = np.kron(1 - np.eye(2), np.eye(B)).astype(np.float32)
    for ridge in (1e-4, 0.1):
        value, gradient = jax.value_and_grad(lambda z, e=ridge: spectral_loss(z, w, e, 1.0)[0])(z)
        assert np.isfinite([float(value), *np.asarray(gradient).reshape(-1)]).all()
        if case == "none":
            assert float(value) == pytest.approx(0.0, abs=1e-5)
            assert not np.asarray(gradient).any()


def test_all_eigenvalues_approach_one():
    """As many directions as classes, and labels that are right: every direction can be that of one class."""
    numbers = ("neighbours=0", "ridge=0.001")
    config = toy_config(method="smln", embed_dim=3, batch_size=60, epochs=60, method_options=numbers)
    assert train(config, data=toy_arrays()).metrics[-1]["train"]["eigenvalue"] > 0.9


@pytest.mark.parametrize("modalities", [("sound", "touch"), ("sound", "touch", "smell")])
def test_it_retrieves_despite_wrong_labels(modalities):
    config = toy_config(method="smln", noise_rate=0.2, batch_size=60, epochs=20, embed_dim=4)
    assert train(config, data=toy_arrays(modalities)).scores["test"]["last"]["average"] > 0.85


def test_it_begins_with_its_own_batches_and_warns_of_small_ones():
    config = preset("custom", method="smln")
    assert (config.batch_size, config.embed_dim) == (256, 64)
    with pytest.warns(DatasetWarning, match="method smln finds 8 directions in batches of 15; give --batch-size 16"):
        train(toy_config(method="smln", batch_size=15, epochs=1), data=toy_arrays())


def test_what_it_cannot_use_is_refused():
    for number in ("shift=0.5", "ridge=0"):
        with pytest.raises(InputError, match=number.partition("=")[0]):
            toy_config(method="smln", method_options=(number,))
