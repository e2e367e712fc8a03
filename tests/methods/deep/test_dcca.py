"""DCCA and DCCAE against NumPy in float64, linear CCA of cca-zoo, and a transcription into PyTorch."""

import cca_zoo.linear
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import toy_arrays, toy_config

from mrl_jax import InputError, preset, train
from mrl_jax.methods.deep.dcca import _outputs, canonical_directions, correlation, dcca, reconstruction
from mrl_jax.methods.deep.parts import Hyperparameters
from mrl_jax.methods.state import Shapes, TrainData

N, L = 40, 5
RIDGE = 1e-2


def outputs(seed=0):
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(N, 3))
    x, y = (common @ rng.normal(size=(3, L)) + rng.normal(size=(N, L)) + 1.0 for _ in range(2))
    valid = np.ones(N, bool)
    valid[[3, 17]] = False
    return x.astype(np.float32), y.astype(np.float32), valid


def definition(x, y, valid):
    """T by symmetric roots, as the paper has it, in float64."""
    x, y = (np.asarray(z, np.float64)[valid] for z in (x, y))
    x, y = (z - z.mean(axis=0) for z in (x, y))
    roots = []
    for z in (x, y):
        values, vectors = np.linalg.eigh(z.T @ z / (len(z) - 1) + RIDGE * np.eye(L))
        roots.append(vectors @ np.diag(values**-0.5) @ vectors.T)
    return roots[0] @ (x.T @ y / (len(x) - 1)) @ roots[1]


def test_the_correlation_is_the_nuclear_norm_of_the_paper():
    x, y, valid = outputs()
    expected = np.linalg.svd(definition(x, y, valid), compute_uv=False).sum()
    assert float(jax.jit(correlation)(x, y, valid, RIDGE)) == pytest.approx(expected, rel=1e-5)


def test_rows_that_do_not_count_change_nothing():
    x, y, valid = outputs()
    wild = np.where(valid[:, None], x, 1e3).astype(np.float32)
    np.testing.assert_allclose(correlation(wild, y, valid, RIDGE), correlation(x, y, valid, RIDGE), rtol=1e-6)
    gradient = jax.grad(lambda x: correlation(x, y, valid, RIDGE))(wild)
    assert not np.asarray(gradient)[~valid].any()


def test_equal_eigenvalues_have_finite_gradients():
    """White outputs that are the same in both modalities: all canonical correlations are equal."""
    white = np.linalg.qr(np.random.default_rng(0).normal(size=(N, L)))[0].astype(np.float32)
    white -= white.mean(axis=0)
    gradient = jax.grad(lambda x: correlation(x, white, np.ones(N, bool), RIDGE))(white)
    assert np.isfinite(gradient).all()


@pytest.mark.bench
def test_value_and_gradients_equal_pytorch():
    import torch

    x, y, valid = outputs()
    leaves = [torch.tensor(z, dtype=torch.float64, requires_grad=True) for z in (x, y)]
    a, b = (z[torch.tensor(valid)] for z in leaves)
    a, b = a - a.mean(0), b - b.mean(0)
    root = [torch.linalg.eigh(z.T @ z / (len(z) - 1) + RIDGE * torch.eye(L)) for z in (a, b)]
    root = [v @ torch.diag(w**-0.5) @ v.T for w, v in root]
    t = root[0] @ (a.T @ b / (len(a) - 1)) @ root[1]
    value = torch.linalg.matrix_norm(t, "nuc")
    value.backward()
    found, gradients = jax.value_and_grad(correlation, (0, 1))(x, y, valid, RIDGE)
    np.testing.assert_allclose(found, value.item(), rtol=1e-5)
    for g, leaf in zip(gradients, leaves, strict=True):
        np.testing.assert_allclose(g, leaf.grad.numpy(), atol=1e-5)


def test_directions_are_those_of_cca_zoo():
    x, y, _ = outputs()
    (of_x, of_y), values = canonical_directions(x, y, np.ones(N, bool), 0.0)
    theirs = cca_zoo.linear.CCA(n_components=L).fit([x, y])
    for own, z, weights in zip((of_x, of_y), (x, y), theirs.weights_, strict=True):
        ours, other = (z - np.asarray(own.offset)) @ np.asarray(own.kernel), (z - z.mean(axis=0)) @ weights
        shares = [abs(np.corrcoef(a, b)[0, 1]) for a, b in zip(np.asarray(ours).T, other.T, strict=True)]
        np.testing.assert_allclose(shares, 1.0, atol=1e-4)
    scores = [(z - np.asarray(own.offset)) @ np.asarray(own.kernel) for z, own in ((x, of_x), (y, of_y))]
    cross = scores[0].T @ scores[1] / (N - 1)
    np.testing.assert_allclose(cross, np.diag(values), atol=1e-4)


def data_of(mask=None, partners=None):
    rng = np.random.default_rng(2)
    features = tuple(jnp.asarray(rng.normal(size=(N, d)), jnp.float32) for d in (6, 4))
    return TrainData(features, jnp.zeros((2, N), jnp.int32), mask, partners)


def test_completed_directions_correlate_the_outputs_of_training_pairs():
    h = Hyperparameters(hidden_dims=(7,), embed_dim=3, numbers=(("ridge", 0.0),))
    method = dcca()
    params = method.init(h, jax.random.key(0), Shapes((6, 4), 2)).params
    partners = jnp.stack([jnp.arange(N), jnp.roll(jnp.arange(N), 1)])
    mask = jnp.ones((2, N), bool).at[1, 5].set(False)
    data = data_of(mask, partners)
    done = method.complete(h, params, data)
    z = [np.asarray(_outputs(h, params, i, x), np.float64)[partners[i]] for i, x in enumerate(data.features)]
    z = [x[np.asarray(mask.all(axis=0))] for x in z]
    scores = [(x - x.mean(axis=0)) @ np.asarray(p.kernel) for x, p in zip(z, done.projections, strict=True)]
    for s in scores:
        np.testing.assert_allclose(s.T @ s / (len(s) - 1), np.eye(3), atol=1e-3)
    cross = scores[0].T @ scores[1] / (len(z[0]) - 1)
    np.testing.assert_allclose(cross, np.diag(np.diag(cross)), atol=1e-3)


def test_reconstruction_by_hand():
    x, d = [np.array([[1.0, 2.0], [0.0, 0.0]])], [np.array([[0.0, 0.0], [3.0, 4.0]])]
    both = np.array([[True, True]])
    assert float(reconstruction(x, d, both)) == pytest.approx((5 + 25) / 2)
    assert float(reconstruction(x, d, np.array([[True, False]]))) == pytest.approx(5.0)


def nonlinear(n=240, seed=0):
    """Two views of one number: by its sine and cosine, and by its powers; no linear map relates them well."""
    rng = np.random.default_rng(seed)
    t = rng.uniform(-1.0, 1.0, n)
    views = {"a": np.stack([np.sin(3 * t), np.cos(3 * t)], 1), "b": np.stack([t, t**2, t**3], 1)}
    labels = np.digitize(t, [-0.5, 0.0, 0.5])
    cut = {"train": slice(0, 160), "valid": slice(160, 200), "test": slice(200, n)}
    return {f"{s}_{m}": x[rows] for s, rows in cut.items() for m, x in (views | {"labels": labels}).items()}


@pytest.mark.slow
def test_it_finds_the_common_number_of_two_views():
    """One direction suffices; its sign, the same for both views, tells the halves of the range apart."""
    options = {"hidden_dims": (32,), "embed_dim": 1, "batch_size": 160, "epochs": 100, "learning_rate": 1e-2}
    for method, more in (("dcca", {}), ("dccae", {"method_options": ("reconstruction=0.001",)})):
        result = train(preset("custom", method=method, preprocess=("none",), **options, **more), data=nonlinear())
        assert result.metrics[-1]["train"]["correlation"] > 0.97
        assert "reconstruction" in result.metrics[-1]["train"] or method == "dcca"


@pytest.mark.parametrize("method", ["dcca", "dccae"])
def test_noise_changes_nothing(method):
    config = {"batch_size": 60, "hidden_dims": (8,), "embed_dim": 2, "epochs": 2}
    runs = [train(toy_config(method=method, noise_rate=r, **config), data=toy_arrays()) for r in (0.0, 0.6)]
    assert runs[0].scores["test"] == runs[1].scores["test"]


def test_what_it_cannot_use_is_refused():
    three = toy_arrays(("sound", "touch", "smell"))
    with pytest.raises(InputError, match="takes two modalities; the data have 3"):
        train(toy_config(method="dcca"), data=three)
    with pytest.raises(InputError, match="streaming does not allow"):
        train(toy_config(method="dcca", stream="on"), data=toy_arrays())


def test_it_begins_with_its_own_batches():
    config = preset("custom", method="dccae")
    assert (config.batch_size, config.embed_dim) == (800, 64)
    assert preset("custom", method="dcca", batch_size=70).batch_size == 70
