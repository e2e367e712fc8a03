"""ELRCMR against loops in float64 and a transcription into PyTorch; its targets, and the weight that fades."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tolerances
from jax.sharding import Mesh, PartitionSpec
from toy import toy_arrays, toy_config

from mrl_jax import train
from mrl_jax.methods.deep import elrcmr
from mrl_jax.methods.deep.parts import Hyperparameters
from mrl_jax.methods.state import Batch, Shapes
from mrl_jax.training.epoch import train_step

M, B, L, K, N = 3, 8, 5, 4, 10
TAU1, TAU2, BETA, EPOCHS = 0.6, 0.4, 0.7, 10
NUMBERS = {"strength": 2.0, "momentum": 0.9, "zeta": 0.5, "ramp": 0.8}


def settings(**changes):
    return Hyperparameters(
        beta=BETA, tau1=TAU1, tau2=TAU2, epochs=EPOCHS, numbers=tuple(sorted((NUMBERS | changes).items()))
    )


def draw(m=M):
    rng = np.random.default_rng(m)
    z, centers = rng.normal(size=(m, B, L)), rng.normal(size=(K, L))
    z, centers = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (z, centers))
    before = 0.8 * rng.dirichlet(np.ones(K), (B, m))
    valid = np.ones((m, B), bool)
    valid[0, 2] = valid[m - 1, 4] = False
    valid[:, 7] = False
    return z, centers, rng.integers(0, K, (m, B)), valid, before


def definition(z, centers, labels, valid, before, epoch):
    """Loss and new targets by loops, in float64."""
    clustering = contrast = inside = 0.0
    after, p = before.copy(), {}
    for i, j in np.argwhere(valid):
        e = np.exp(centers @ z[i, j] / TAU1)
        p[i, j] = e / e.sum()
        after[j, i] = 0.9 * before[j, i] + 0.1 * p[i, j]
        clustering += np.log(1 - p[i, j][labels[i, j]]) + 2.0 * np.log(1 - after[j, i] @ p[i, j])
    for i, j in p:
        similar = {at: np.exp(z[at] @ z[i, j] / TAU2) for at in p if at != (i, j)}
        positive = [s for at, s in similar.items() if at[1] == j]
        if positive:
            contrast -= np.log(sum(positive) / sum(similar.values()))
        own = {at: s for at, s in similar.items() if at[0] == i}
        mates = [s for at, s in own.items() if p[at].argmax() == p[i, j].argmax()]
        if mates:
            inside -= np.mean(np.log(np.array(mates) / sum(own.values())))
    beta = BETA * (1 - np.exp(-5 * (1 - min(epoch / (0.8 * EPOCHS), 1.0)) ** 2))
    loss = beta * clustering + (1 - beta) * (contrast + 0.5 * inside)
    return loss / valid.any(axis=0).sum(), after


@jax.jit
def objective(z, centers, labels, valid, before, epoch):
    def loss(z, centers):
        batch = Batch((), labels, valid, samples=before)
        total, (_, samples) = elrcmr._objective(settings(), elrcmr.Weights(z, centers), batch, epoch, None)
        return total, samples

    (value, samples), gradients = jax.value_and_grad(loss, (0, 1), has_aux=True)(z, centers)
    return value, samples, gradients


def ours(z, centers, labels, valid, before, epoch, monkeypatch):
    """The objective at given embeddings, new targets, and gradients."""
    monkeypatch.setattr(elrcmr, "embed_all", lambda h, params, batch: params.encoders)
    return objective(z.astype("f"), centers.astype("f"), labels.astype("i"), valid, before.astype("f"), epoch)


@pytest.mark.parametrize("epoch", [0, 3, 9])
@pytest.mark.parametrize("m", [2, 3])
def test_the_loss_is_that_of_the_paper(monkeypatch, m, epoch):
    z, centers, labels, valid, before = draw(m)
    expected, after = definition(z, centers, labels, valid, before, epoch)
    value, samples, gradients = ours(z, centers, labels, valid, before, epoch, monkeypatch)
    np.testing.assert_allclose(value, expected, **tolerances.LOSS)
    np.testing.assert_allclose(samples, after, atol=1e-6)
    assert not np.asarray(gradients[0])[~valid].any()
    np.testing.assert_array_equal(np.asarray(samples).swapaxes(0, 1)[~valid], before.swapaxes(0, 1)[~valid].astype("f"))
    wild = np.where(valid, labels, 99)
    np.testing.assert_array_equal(ours(z, centers, wild, valid, before, epoch, monkeypatch)[0], value)


@pytest.mark.bench
@pytest.mark.parametrize("epoch", [0, 5])
def test_value_and_gradients_equal_pytorch(monkeypatch, epoch):
    import torch

    z, centers, labels, _, before = draw(2)
    leaves = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (z, centers)]
    x, c = leaves
    y, t = torch.tensor(labels), torch.tensor(before).transpose(0, 1)
    p = torch.softmax(x @ c.T / TAU1, dim=-1)
    t = (0.9 * t + 0.1 * p).detach()
    given = p.gather(-1, y[..., None])[..., 0]
    clustering = (torch.log(1 - given) + 2.0 * torch.log(1 - (t * p).sum(-1))).sum() / B
    every = x.reshape(2 * B, L)
    other = 1 - torch.eye(2 * B, dtype=torch.float64)
    e = torch.exp(every @ every.T / TAU2) * other
    own = torch.eye(B, dtype=torch.float64).repeat(2, 2) * other
    contrast = -torch.log((e * own).sum(1) / e.sum(1)).sum() / B
    inside = 0.0
    for i in range(2):
        s = x[i] @ x[i].T / TAU2
        apart = ~torch.eye(B, dtype=torch.bool)
        log = s - torch.log((torch.exp(s) * apart).sum(1, keepdim=True))
        mates = (p[i].argmax(1)[:, None] == p[i].argmax(1)[None]) & apart
        inside = inside - ((log * mates).sum(1) / mates.sum(1).clamp(min=1)).sum() / B
    beta = BETA * (1 - np.exp(-5 * (1 - epoch / (0.8 * EPOCHS)) ** 2))
    loss = beta * clustering + (1 - beta) * (contrast + 0.5 * inside)
    loss.backward()
    value, _, gradients = ours(z, centers, labels, np.ones((2, B), bool), before, epoch, monkeypatch)
    np.testing.assert_allclose(value, loss.item(), rtol=1e-5)
    for g, leaf in zip(gradients, leaves, strict=True):
        np.testing.assert_allclose(g, leaf.grad.numpy(), atol=1e-5)


def test_the_weight_fades_to_zero():
    h = settings(ramp=1.0)
    weights = [float(elrcmr.beta_at(h, epoch)) for epoch in range(EPOCHS + 1)]
    assert weights[0] == pytest.approx(BETA * (1 - np.exp(-5)), rel=1e-6)
    assert weights[5] == pytest.approx(BETA * (1 - np.exp(-1.25)), rel=1e-6)
    assert weights == sorted(weights, reverse=True)
    assert weights[EPOCHS] == 0.0
    assert float(elrcmr.beta_at(settings(ramp=0.5), 7)) == 0.0
    assert float(elrcmr.beta_at(settings(ramp=2.0), 10)) == pytest.approx(weights[5])


def test_the_regulariser_holds_the_average_prediction():
    """Its gradient raises the class of the targets; a certain target and prediction stay finite."""
    targets = jnp.array([0.1, 0.6, 0.1])
    gradient = jax.grad(lambda s: elrcmr.regulariser(jax.nn.log_softmax(s), targets))(jnp.zeros(3))
    assert int(gradient.argmin()) == 1
    assert float(gradient[1]) < 0 < float(gradient[0])
    sure = jax.nn.log_softmax(jnp.array([0.0, 200.0]))
    assert float(elrcmr.regulariser(sure, jnp.array([0.0, 1.0]))) == pytest.approx(np.log(1e-4), rel=1e-3)


def test_extremes_are_finite(monkeypatch):
    z, centers, labels, valid, before = draw()
    for case in (
        (z, centers, labels, np.zeros_like(valid), before),
        (z, centers, np.zeros_like(labels), valid, before),
        (np.broadcast_to(z[:1, :1], z.shape), centers, labels, valid, before),
        (z[:, :1], centers, labels[:, :1], valid[:, :1], before[:1]),
        (z, np.broadcast_to(centers[:1], centers.shape), labels, valid, np.zeros_like(before)),
    ):
        value, samples, gradients = ours(*case, 3, monkeypatch)
        assert all(np.isfinite(x).all() for x in (value, samples, *gradients))
    assert ours(z, centers, labels, np.zeros_like(valid), before, 3, monkeypatch)[0] == 0.0


def test_targets_are_those_of_one_device():
    """Four devices, missing samples and padding: every row of the state is that of one device."""
    rng = np.random.default_rng(0)
    h = Hyperparameters(hidden_dims=(6,), embed_dim=L, epochs=EPOCHS, numbers=tuple(sorted(NUMBERS.items())))
    method = elrcmr.elrcmr()
    state = jax.jit(lambda: method.init(h, jax.random.key(0), Shapes((3, 2), K, N)))()
    state = state._replace(samples=jnp.asarray(0.5 * rng.dirichlet(np.ones(K), (N, 2)), jnp.float32))
    mask = np.ones((2, B), bool)
    mask[0, 1] = mask[1, 6] = False
    mask[:, 7] = False  # padding
    rows = np.array([9, 3, 0, 5, 8, 2, 1, 0], np.int32)
    features = tuple(jnp.asarray(rng.normal(size=(B, d)), jnp.float32) for d in (3, 2))
    batch = Batch(features, jnp.asarray(rng.integers(0, K, (2, B)), jnp.int32), jnp.asarray(mask), jnp.asarray(rows))
    one = jax.jit(lambda s, b: train_step(method, h, s, b, 2))(state, batch)
    whole, part = PartitionSpec(), PartitionSpec("batch")
    columns = PartitionSpec(None, "batch")
    several = jax.shard_map(
        functools.partial(train_step, method, h, epoch=2, axis_name="batch"),
        mesh=Mesh(np.array(jax.devices()[:4]), ("batch",)),
        in_specs=(whole, Batch((part, part), columns, columns, part)),
        out_specs=whole,
    )
    four = jax.jit(several)(state, batch)
    np.testing.assert_allclose(four[1]["loss"], one[1]["loss"], rtol=1e-5)
    np.testing.assert_allclose(four[0].samples, one[0].samples, atol=1e-6)
    changed = (np.asarray(one[0].samples) != np.asarray(state.samples)).any(axis=-1)
    expected = np.zeros((N, 2), bool)
    expected[rows[:7]] = mask.T[:7]
    np.testing.assert_array_equal(changed, expected)


def test_it_needs_the_number_of_instances():
    with pytest.raises(ValueError, match="give num_instances"):
        elrcmr._init_samples(settings(), Shapes((3, 2), K))


@pytest.mark.slow
def test_it_learns_from_wrong_labels():
    result = train(toy_config(method="elrcmr", noise_rate=0.3, epochs=20), data=toy_arrays())
    assert result.scores["test"]["best"]["average"] > 0.85
    assert {"clustering", "contrastive", "class_contrast"} <= set(result.metrics[-1]["train"])
