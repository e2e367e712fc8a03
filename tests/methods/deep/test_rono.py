"""RONO against loops in float64 and a transcription into PyTorch; which samples are led away from their class."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tolerances
from toy import toy_arrays, toy_config

from mrl_jax import train
from mrl_jax.methods.deep import rono
from mrl_jax.methods.deep.parts import Hyperparameters
from mrl_jax.methods.state import Batch, Shapes

M, B, L, K = 3, 7, 6, 5
NUMBERS = {"margin": 0.3, "scale": 0.05, "warmup": 0.25, "classifier": 5.0, "contrastive": 0.5, "temperature": 0.22}
H = Hyperparameters(hidden_dims=(4,), embed_dim=L, epochs=20, numbers=tuple(sorted(NUMBERS.items())))


@jax.jit
def initial():
    return rono.rono().init_params(H, jax.random.key(1), Shapes((3, 3), K))


def draw(m=M):
    rng = np.random.default_rng(m)
    z = rng.normal(size=(m, B, L))
    z /= np.linalg.norm(z, axis=-1, keepdims=True)
    params = initial()
    valid = np.ones((m, B), bool)
    valid[0, 2] = valid[m - 1, 4] = False
    valid[:, 6] = False
    return z, params, rng.integers(0, K, (m, B)), valid


def layers(params):
    return [np.asarray(params.classifier["params"][f"Dense_{i}"][name]) for i in (0, 1) for name in ("kernel", "bias")]


def definition(z, params, labels, valid, epoch):
    """The loss by loops, in float64."""
    centers = np.asarray(params.centers, np.float64)
    centers = centers / np.linalg.norm(centers, axis=1, keepdims=True)
    mean, share = centers.mean(axis=0), min(epoch / 4.0, 1.0)
    first, first_bias, second, second_bias = (x.astype(np.float64) for x in layers(params))
    led = wrong = contrast = 0.0
    at = [tuple(x) for x in np.argwhere(valid)]
    for i, j in at:
        difference = np.exp(z[i, j] @ mean) - np.exp(z[i, j] @ centers[labels[i, j]])
        led += ((1 - share) * difference - share * abs(difference + 0.3)) / 0.05
        e = np.exp(np.maximum(z[i, j] @ first + first_bias, 0.0) @ second + second_bias)
        wrong += 1 - e[labels[i, j]] / e.sum()
        similar = {o: np.exp(z[o] @ z[i, j] / 0.22) for o in at if o != (i, j)}
        positive = [s for o, s in similar.items() if o[1] == j]
        if positive:
            contrast -= np.log(sum(positive) / sum(similar.values()))
    return (led / len(z) + 5.0 * wrong + 0.5 * contrast) / valid.any(axis=0).sum()


@jax.jit
def objective(params, labels, valid, epoch):
    return jax.value_and_grad(lambda p: rono._objective(H, p, Batch((), labels, valid), epoch, None)[0])(params)


def ours(z, params, labels, valid, epoch, monkeypatch):
    """The objective at given embeddings, and its gradients."""
    monkeypatch.setattr(rono, "embed_all", lambda h, params, batch: params.encoders)
    return objective(params._replace(encoders=z.astype("f")), labels.astype("i"), valid, epoch)


@pytest.mark.parametrize("epoch", [0, 1, 9])
@pytest.mark.parametrize("m", [2, 3])
def test_the_loss_is_that_of_the_paper(monkeypatch, m, epoch):
    z, params, labels, valid = draw(m)
    value, gradient = ours(z, params, labels, valid, epoch, monkeypatch)
    np.testing.assert_allclose(value, definition(z, params, labels, valid, epoch), rtol=1e-5)
    assert not np.asarray(gradient.encoders)[~valid].any()
    wild = np.where(valid, labels, 99)
    np.testing.assert_array_equal(ours(z, params, wild, valid, epoch, monkeypatch)[0], value)


@pytest.mark.bench
@pytest.mark.parametrize("epoch", [0, 2, 9])
def test_value_and_gradients_equal_pytorch(monkeypatch, epoch):
    import torch

    z, params, labels, _ = draw(2)
    arrays = [z, np.asarray(params.centers), *layers(params)]
    leaves = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in arrays]
    x, centers, first, first_bias, second, second_bias = leaves
    c = torch.nn.functional.normalize(centers, dim=1)
    every, y = x.reshape(2 * B, L), torch.tensor(labels).reshape(-1)
    difference = torch.exp(every @ c.mean(0)) - torch.exp((every * c[y]).sum(1))
    v = min(epoch / 4.0, 1.0)
    loss = ((1 - v) * difference / 0.05 - v * (difference + 0.3).abs() / 0.05).mean()
    p = torch.softmax(torch.relu(every @ first + first_bias) @ second + second_bias, dim=1)
    loss = loss + 5.0 * 2 * (1 - p.gather(1, y[:, None])).mean()
    other = 1 - torch.eye(2 * B, dtype=torch.float64)
    e = torch.exp(every @ every.T / 0.22) * other
    own = torch.eye(B, dtype=torch.float64).repeat(2, 2) * other
    loss = loss - 0.5 * 2 * torch.log((e * own).sum(1) / e.sum(1)).mean()
    loss.backward()
    value, gradient = ours(z, params, labels, np.ones((2, B), bool), epoch, monkeypatch)
    np.testing.assert_allclose(value, loss.item(), rtol=1e-5)
    for g, leaf in zip([gradient.encoders, gradient.centers, *layers(gradient)], leaves, strict=True):
        size = max(1.0, leaf.grad.abs().max().item())
        np.testing.assert_allclose(g, leaf.grad.numpy(), atol=tolerances.PARITY * size)


def test_center_losses_by_hand():
    """Two centres that are orthogonal, a sample on one of them: d = e^(1/2) - e, or e^(1/2) - 1 with a wrong label."""
    z, centers = jnp.eye(2)[jnp.array([0, 0])], jnp.eye(2)
    early, late = rono.center_losses(z, centers, jnp.array([0, 1]), 0.5, 0.25)
    d = np.exp(0.5) - np.exp([1.0, 0.0])
    np.testing.assert_allclose(early, 2 * d, **tolerances.HAND)
    np.testing.assert_allclose(late, -2 * np.abs(d + 0.25), **tolerances.HAND)


def test_mislabelled_samples_are_led_away_late():
    """Early, descent draws both samples to the centre of their label; late, only the one that is close to it."""
    z, labels = jnp.array([[0.9, 0.1, 0.0], [0.9, 0.1, 0.0]]), jnp.array([0, 1])

    def towards(which):
        gradient = jax.grad(lambda z: rono.center_losses(z, jnp.eye(3), labels, 0.05, 0.3)[which].sum())(z)
        return -np.asarray(gradient)[np.arange(2), labels]  # along the centre of the label

    assert (towards(0) > 0).all()
    assert towards(1)[0] > 0 > towards(1)[1]


def test_the_late_loss_comes_with_the_warm_up():
    assert [float(rono.late_share(0.5, 10, epoch)) for epoch in (0, 1, 4, 9)] == [0.0, 0.25, 1.0, 1.0]
    assert float(rono.late_share(0.0, 10, 0)) == float(rono.late_share(0.1, 10, 0)) == 1.0


@pytest.mark.parametrize("epoch", [0, 9])
def test_extremes_are_finite(monkeypatch, epoch):
    z, params, labels, valid = draw()
    for case in (
        (z, params, labels, np.zeros_like(valid)),
        (z, params, np.zeros_like(labels), valid),
        (np.broadcast_to(z[:1, :1], z.shape), params, labels, valid),
        (z[:, :1], params, labels[:, :1], valid[:, :1]),
        (z, params._replace(centers=jnp.zeros((K, L))), labels, valid),
    ):
        value, gradient = ours(*case, epoch, monkeypatch)
        assert all(np.isfinite(x).all() for x in (value, *jax.tree.leaves(gradient)))
    assert ours(z, params, labels, np.zeros_like(valid), epoch, monkeypatch)[0] == 0.0


@pytest.mark.slow
def test_it_learns_from_wrong_labels():
    options = {"method_options": ("warmup=0.25",), "noise_rate": 0.3, "epochs": 20}
    result = train(toy_config(method="rono", **options), data=toy_arrays())
    assert result.scores["test"]["best"]["average"] > 0.85
    assert {"centers", "classifier", "contrastive"} <= set(result.metrics[-1]["train"])
