"""RFCMH against loops in float64 and a transcription into PyTorch; whether it tells right labels from wrong ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tolerances
from toy import toy_arrays, toy_config

from mrl_jax import train
from mrl_jax.methods.deep import rfcmh
from mrl_jax.methods.deep.parts import Hyperparameters
from mrl_jax.methods.registry import entry_of
from mrl_jax.methods.state import Batch, Shapes

M, B, L, K, RIVALS = 3, 7, 5, 6, 4
NUMBERS = {name: number.default for name, number in entry_of("rfcmh").numbers.items()} | {"inter": 0.3}


def draw(m=M, per_pair=False):
    rng = np.random.default_rng(m)
    z, centers = rng.normal(size=(m, B, L)), rng.normal(size=(K, L))
    z, centers = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (z, centers))
    labels = rng.integers(0, 3, (1 if per_pair else m, B)) * np.ones((m, 1), int)
    valid = np.ones((m, B), bool)
    valid[0, 2] = valid[m - 1, 4] = False
    valid[:, 6] = False
    return z, centers, labels, valid


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def admissible(z, centers, y, rivals=RIVALS):
    """Admissibilities of one sample with the label y."""
    p = sigmoid(centers @ z / 0.5) ** 2
    strongest = sorted((p[k] for k in range(K) if k != y), reverse=True)[:rivals]
    a = [(p[k] + 1.0 - p[y]) / 2 for k in range(K)]
    a[y] = (p[y] + rivals * (1.0 - np.mean(strongest))) / (1 + rivals)
    return np.array(a)


def weights_of(z, centers, labels, valid):
    gaps = {}
    for i, j in np.argwhere(valid):
        a = np.mean([admissible(z[k, j], centers, labels[i, j]) for k in range(len(z)) if valid[k, j]], axis=0)
        gaps[i, j] = a[labels[i, j]] - max(a[k] for k in range(K) if k != labels[i, j])
    values = np.array(list(gaps.values()))
    return {at: sigmoid((gap - values.mean()) / values.std() / 0.7) for at, gap in gaps.items()}


def definition(z, centers, labels, valid, warm):
    """The loss by loops, in float64."""
    m = len(z)
    instances = valid.any(axis=0).sum()
    intra = first = hinge = inter = 0.0
    for i, j in np.argwhere(valid):
        y = np.eye(K)[labels[i, j]]
        first += ((admissible(z[i, j], centers, labels[i, j]) - y) ** 2).sum()
        positive = [np.exp(z[k, j] @ z[i, j] / 0.7) for k in range(m) if k != i and valid[k, j]]
        negative = [np.exp(z[k, t] @ z[i, j] / 0.7) for k, t in np.argwhere(valid) if t != j]
        if positive:
            p = sum(positive) / (sum(positive) + sum(negative))
            intra += (1 - 0.01) * (1 - p**0.01) / 0.01 + 0.01 * (1 - p)
    w = weights_of(z, centers, labels, valid)
    for i in range(m):
        for k in range(i + 1, m):
            pairs = [(j, t) for j in range(B) for t in range(B) if j != t and valid[i, j] and valid[k, t]]
            of_pair = [min(w[i, j], w[k, t]) for j, t in pairs]
            terms = [
                max(0.2 - (1 if labels[i, j] == labels[k, t] else -1) * (z[i, j] @ z[k, t]), 0.0) for j, t in pairs
            ]
            hinge += np.dot(of_pair, terms) / sum(of_pair)
    for i in range(m):
        for k in range(m):
            for j in range(B):
                if i == k or not (valid[i, j] and valid[k, j]):
                    continue
                own = z[i, j] @ z[k, j]
                total = np.exp(own)
                for t in range(B):
                    if t != j and valid[k, t] and labels[i, j] != labels[k, t]:
                        s = z[i, j] @ z[k, t]
                        total += np.exp(s if s >= own - 0.2 else s - 1.0)
                inter += np.log(total) - own + 0.2
    return 0.1 * intra / instances + (first / instances if warm else hinge + 0.3 * inter / instances)


@jax.jit
def objective(z, centers, labels, valid, epoch):
    h = Hyperparameters(numbers=tuple(NUMBERS.items()))

    def loss(z):
        return rfcmh._objective(h, rfcmh.Weights(z, centers), Batch((), labels, valid), epoch, None)[0]

    return jax.value_and_grad(loss)(z)


def ours(z, centers, labels, valid, epoch, monkeypatch):
    """The objective at given embeddings, and its gradient."""
    monkeypatch.setattr(rfcmh, "embed_all", lambda h, params, batch: params.encoders)
    return objective(z.astype("f"), centers.astype("f"), labels.astype("i"), valid, epoch)


@pytest.mark.parametrize("epoch", [0, 2, 3])
@pytest.mark.parametrize("m", [2, 3])
def test_the_loss_is_that_of_the_paper(monkeypatch, m, epoch):
    """Warm-up for three epochs, then the weighted hinge; with missing samples, and labels that differ."""
    z, centers, labels, valid = draw(m)
    expected = definition(z, centers, labels, valid, warm=epoch < 3)
    value, gradient = ours(z, centers, labels, valid, epoch, monkeypatch)
    np.testing.assert_allclose(value, expected, **tolerances.LOSS)
    assert not np.asarray(gradient)[~valid].any()
    wild = np.where(valid, labels, 99)
    np.testing.assert_array_equal(ours(z, centers, wild, valid, epoch, monkeypatch)[0], value)


@pytest.mark.bench
@pytest.mark.parametrize("warm", [True, False])
def test_value_and_gradients_equal_pytorch(monkeypatch, warm):
    """Two modalities with one label per pair, as in the paper."""
    import torch

    z, centers, labels, _ = draw(2, per_pair=True)
    leaf = torch.tensor(z, dtype=torch.float64, requires_grad=True)
    c, y = torch.tensor(centers), torch.tensor(labels[0])
    one_hot = torch.nn.functional.one_hot(y, K).double()
    eye = torch.eye(B, dtype=torch.double)

    def admissibilities(z):
        p = torch.sigmoid(z @ c.T / 0.5) ** 2
        mine = (p * one_hot).sum(1, keepdim=True)
        rivals = (p * (1 - one_hot)).topk(RIVALS, dim=1).values.mean(1, keepdim=True)
        return one_hot * (p + RIVALS * (1 - rivals)) / (1 + RIVALS) + (1 - one_hot) * (p + 1 - mine) / 2

    a = [admissibilities(x) for x in leaf]
    every = torch.cat(list(leaf))
    e = torch.exp(every @ every.T / 0.7) * (1 - torch.eye(2 * B))
    e = e.reshape(2 * B, 2, B).sum(1)
    p = torch.cat([e[:B].diagonal(), e[B:].diagonal()]) / e.sum(1)
    loss = 0.1 * ((1 - 0.01) * (1 - p**0.01) / 0.01 + 0.01 * (1 - p)).sum() / B
    if warm:
        loss = loss + sum(((x - one_hot) ** 2).sum() for x in a) / B
    else:
        mean = (a[0] + a[1]).detach() / 2
        gap = (mean * one_hot).sum(1) - (mean - 9 * one_hot).max(1).values
        w = torch.sigmoid((gap - gap.mean()) / gap.std(unbiased=False) / 0.7)
        w = torch.minimum(w[:, None], w[None]) * (1 - eye)
        same = (y[:, None] == y[None]).double()
        s = leaf[0] @ leaf[1].T
        loss = loss + (w * torch.relu(0.2 - (2 * same - 1) * s)).sum() / w.sum()
        keep = 1 - same * (1 - eye)
        for x in (s, s.T):
            own = x.diagonal()[:, None]
            total = (keep * torch.exp(torch.where(x >= own - 0.2, x, x - 1))).sum(1)
            loss = loss + 0.3 * (total.log() - own[:, 0] + 0.2).mean()
    loss.backward()
    value, gradient = ours(z, centers, labels, np.ones((2, B), bool), 0 if warm else 3, monkeypatch)
    np.testing.assert_allclose(value, loss.item(), rtol=1e-5)
    np.testing.assert_allclose(gradient, leaf.grad.numpy(), atol=1e-5)


def test_admissibility_by_hand():
    p = jnp.array([0.8, 0.4, 0.2, 0.1, 0.3])
    expected = [(0.8 + 4 * (1 - 0.25)) / 5, 0.3, 0.2, 0.15, 0.25]
    np.testing.assert_allclose(rfcmh.admissibility(p, jnp.array(0), 4), expected, **tolerances.HAND)
    np.testing.assert_allclose(rfcmh.admissibility(p, jnp.array(0), 9), expected, **tolerances.HAND)
    np.testing.assert_array_equal(rfcmh.admissibility(p[:1], jnp.array(0), 4), p[:1])


@pytest.mark.parametrize("epoch", [0, 3])
def test_extremes_are_finite(monkeypatch, epoch):
    z, centers, labels, valid = draw()
    for case in (
        (z, centers, labels, np.zeros_like(valid)),  # nothing counts
        (z, centers, np.zeros_like(labels), valid),  # one class
        (np.broadcast_to(z[:1, :1], z.shape), centers, labels, valid),  # identical rows
        (z[:, :1], centers, labels[:, :1], valid[:, :1]),  # one instance
        (z, centers[:1], np.zeros_like(labels), valid),  # a set of one class
    ):
        value, gradient = ours(*case, epoch, monkeypatch)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()
    assert ours(z, centers, labels, np.zeros_like(valid), epoch, monkeypatch)[0] == 0.0


def test_wrong_labels_weigh_less():
    """Samples on the centres of their classes: a wrong label has the lowest weights, in the modality that has it."""
    labels = np.arange(12) % 4
    p = jnp.exp(rfcmh.log_possibility(jnp.eye(4)[labels], jnp.eye(4), 0.5, 2.0))
    given = np.stack([labels, labels])
    given[0, :3] = (labels[:3] + 1) % 4
    w = rfcmh.label_weights(jnp.stack([p, p]), given, np.ones((2, 12), bool), 3, 0.0, 0.7)
    wrong = np.zeros((2, 12), bool)
    wrong[0, :3] = True
    assert np.asarray(w)[wrong].max() < 0.1
    assert np.asarray(w)[~wrong].min() > 0.5


def test_centres_stay_as_they_are():
    h = Hyperparameters(hidden_dims=(4,), embed_dim=L, numbers=tuple(NUMBERS.items()), epochs=9)
    method = rfcmh.rfcmh()
    state = jax.jit(lambda: method.init(h, jax.random.key(0), Shapes((3, 2), 3)))()
    batch = Batch((jnp.ones((4, 3)), jnp.ones((4, 2))), jnp.arange(8).reshape(2, 4) % 3, jnp.ones(4, bool))
    moved = jax.jit(method.step, static_argnums=4)(h, state, batch, 0, None)[0]
    np.testing.assert_array_equal(moved.params.centers, state.params.centers)
    np.testing.assert_allclose(state.params.centers @ state.params.centers.T, np.eye(3), atol=1e-6)
    assert (moved.params.encoders[0]["params"]["Dense_0"]["kernel"] != 0).all()


@pytest.mark.slow
def test_it_learns_from_wrong_labels():
    result = train(toy_config(method="rfcmh", noise_rate=0.3, epochs=20), data=toy_arrays())
    assert result.scores["test"]["best"]["average"] > 0.85
    assert min(result.scores["test"]["best"]["accuracy"].values()) > 0.8
    assert "hinge" in result.metrics[-1]["train"]
