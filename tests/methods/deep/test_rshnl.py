"""RSHNL: its loss against loops in float64 and a transcription into PyTorch, its weights, and what it learns."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec
from toy import toy_arrays, toy_config

from mrl_jax import InputError, grid, sweep, train
from mrl_jax.losses.robust.bounded import lq_loss
from mrl_jax.methods.deep.parts import Hyperparameters, bounded
from mrl_jax.methods.deep.rshnl import centers_of, gamma_of, paced_losses, rshnl
from mrl_jax.methods.state import Batch, Shapes

B, L, K, Q, ALPHA, GAMMA = 11, 5, 4, 0.3, 0.2, 2.0
NUMBERS = (("alpha", ALPHA), ("gamma", GAMMA), ("q", Q), ("warmup", 5.0))
H = Hyperparameters(tau1=0.3, tau2=0.6, hidden_dims=(7,), embed_dim=L, learning_rate=0.01, numbers=NUMBERS)
METHOD = rshnl()
INIT, STEP = jax.jit(METHOD.init, static_argnums=2), jax.jit(METHOD.step)


def batch(dims=(6, 4), seed=0, missing=True):
    rng = np.random.default_rng(seed)
    mask = rng.random((len(dims), B)) > (0.25 if missing else -1.0)
    mask[:, 2] = not missing
    labels = np.where(mask, rng.integers(0, K, mask.shape), 99)
    features = tuple(jnp.asarray(rng.normal(size=(B, d)), jnp.float32) for d in dims)
    state = INIT(H, jax.random.key(seed), Shapes(dims, K))
    return state, Batch(features, jnp.asarray(labels, jnp.int32), jnp.asarray(mask), jnp.arange(B))


def ell(p, q=Q):
    return (1 - q) * (1 - p**q) / q + q * (1 - p)


def definition(z, centers, labels, mask, paced):
    """The loss of a batch, instance by instance."""
    z, centers = np.float64(z), np.float64(centers)
    total, contrast, weights, count = 0.0, 0.0, [], max(mask.any(axis=0).sum(), 1)
    for j in range(B):
        there = [i for i in range(len(z)) if mask[i, j]]
        loss, limit = 0.0, GAMMA * len(there) / 2
        for i in there:
            p = np.exp(centers @ z[i, j] / 0.3)
            loss += ell(p[labels[i, j]] / p.sum())
            s = {(m, t): np.exp(z[m, t] @ z[i, j] / 0.6) for m in range(len(z)) for t in range(B) if mask[m, t]}
            del s[i, j]
            own = sum(s[m, j] for m in there if m != i)
            contrast += ell(own / sum(s.values())) if own else 0.0
        if there:
            weights.append(max(0.0, 1.0 - loss / limit) if paced else 1.0)
            w = weights[-1]
            total += w * loss + (limit * (w * w / 2 - w) if paced else 0.0)
    return total / count + ALPHA * contrast / count, sum(weights) / count


@pytest.mark.parametrize("dims", [(6, 4), (6, 4, 5)])
@pytest.mark.parametrize("epoch", [4, 5])
def test_the_loss_is_that_of_loops_in_float64(dims, epoch):
    state, given = batch(dims)
    z = jnp.stack([METHOD.embed(H, state.params, i, x) for i, x in enumerate(given.features)])
    centers = centers_of(H, state.params)
    loss, weight = definition(z, centers, np.asarray(given.labels), np.asarray(given.mask), paced=epoch >= 5)
    _, metrics, samples = STEP(H, state, given, epoch)
    assert samples is None
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(metrics["weight"], weight, rtol=1e-5)


@pytest.mark.bench
def test_value_and_gradients_equal_pytorch():
    import torch

    def net(tree, x):
        leaves = []
        for name in ("Dense_0", "Dense_1"):
            layer = tree["params"][name]
            leaves += [torch.tensor(np.float64(layer[k]), requires_grad=True) for k in ("kernel", "bias")]
        x = torch.as_tensor(np.float64(x))
        return torch.relu(x @ leaves[0] + leaves[1]) @ leaves[2] + leaves[3], leaves

    state, given = batch(missing=False)
    raw = [net(tree, x) for tree, x in zip(state.params.encoders, given.features, strict=True)]
    out, of_classes = net(state.params.classes, np.eye(K))
    normalize = torch.nn.functional.normalize
    centers, z = normalize(torch.tanh(out)), [normalize(x) for x, _ in raw]
    rows = torch.arange(B)
    p = [torch.softmax(x @ centers.T / 0.3, 1)[rows, np.array(y)] for x, y in zip(z, given.labels, strict=True)]
    loss = ell(p[0]) + ell(p[1])
    weight = (1 - loss / GAMMA).detach().clamp(min=0)
    clustering = (weight * loss + GAMMA * (weight**2 / 2 - weight)).mean()
    both = torch.cat(z)
    s = (both @ both.T / 0.6).exp() * (1 - torch.eye(2 * B))
    own = s[torch.arange(2 * B), torch.arange(2 * B).roll(B)]
    total = clustering + ALPHA * 2 * ell(own / s.sum(1)).mean()
    total.backward()

    def ours(params):
        return METHOD.step(H, state._replace(params=params), given, 5)[1]["loss"]

    value, gradient = jax.jit(jax.value_and_grad(ours))(state.params)
    np.testing.assert_allclose(value, total.item(), rtol=1e-5)
    assert 0 < int((weight > 0).sum()) < B
    for tree, leaves in (
        (gradient.encoders[0], raw[0][1]),
        (gradient.encoders[1], raw[1][1]),
        (gradient.classes, of_classes),
    ):
        found = [tree["params"][name][k] for name in ("Dense_0", "Dense_1") for k in ("kernel", "bias")]
        for a, b in zip(found, leaves, strict=True):
            np.testing.assert_allclose(a, b.grad.numpy(), atol=1e-5)


def test_the_bounded_loss_is_that_of_the_clustering_losses():
    rng = np.random.default_rng(0)
    z, centers = (rng.normal(size=s).astype(np.float32) for s in ((B, L), (K, L)))
    labels = rng.integers(0, K, B)
    log_p = jax.nn.log_softmax(z @ centers.T)[np.arange(B), labels]
    for q in (0.01, 0.5, 1.0):
        np.testing.assert_allclose(bounded(-log_p, q), lq_loss(z, centers, labels, 1.0, q=q), rtol=1e-4)
    assert float(bounded(jnp.float32(1e4), 0.5)) == pytest.approx(0.5 / 0.5 + 0.5)  # p = 0
    assert float(bounded(jnp.float32(0.0), 0.01)) == 0.0


def test_weights_by_hand_minimise_the_loss():
    """Losses 1 + 1 and 2 + 3 with gamma 4: weights 1/2 and 0; one sample alone has half the gamma."""
    losses, valid = (
        jnp.array([[1.0, 2.0, 1.0, 9.0], [1.0, 3.0, 9.0, 9.0]]),
        jnp.array([[1, 1, 1, 0], [1, 1, 0, 0]], bool),
    )
    found, weights = paced_losses(losses, valid, 4.0, True)
    np.testing.assert_allclose(weights, [0.5, 0.0, 0.5, 0.0])
    np.testing.assert_allclose(found, [0.5 * 2 + 4 * (0.125 - 0.5), 0.0, 0.5 + 2 * (0.125 - 0.5), 0.0])
    least = [
        min(w * total + limit * (w * w / 2 - w) for w in np.linspace(0, 1, 101))
        for total, limit in ((2, 4), (5, 4), (1, 2))
    ]
    np.testing.assert_allclose(found[:3], least, atol=1e-6)
    slope = jax.grad(lambda x: paced_losses(x, valid, 4.0, True)[0].sum())(losses)
    np.testing.assert_allclose(slope, [[0.5, 0, 0.5, 0], [0.5, 0, 0, 0]])  # the weight, which is constant
    before, weights = paced_losses(losses, valid, 4.0, False)
    np.testing.assert_allclose(before, [2.0, 5.0, 1.0, 0.0])
    np.testing.assert_allclose(weights, [1.0, 1.0, 1.0, 0.0])


def test_gamma_is_that_of_the_paper_for_its_data():
    np.testing.assert_allclose([gamma_of(k) for k in (10, 20, 100, 200)], [3, 5, 8, 9])
    state, given = batch(missing=False)
    auto = dataclasses.replace(H, numbers=tuple((n, v) for n, v in NUMBERS if n != "gamma"))
    set_to = dataclasses.replace(H, numbers=tuple((n, gamma_of(K) if n == "gamma" else v) for n, v in NUMBERS))
    assert STEP(auto, state, given, 9)[1] == STEP(set_to, state, given, 9)[1]


def test_extremes_are_finite():
    state, given = batch()
    same = tuple(jnp.broadcast_to(x[:1], x.shape) for x in given.features)
    nothing, alone = jnp.zeros_like(given.mask), given.mask & (jnp.arange(B) == 4)[None]
    for tau in (1.0, 1e-4):
        h = dataclasses.replace(H, tau1=tau, tau2=tau)
        for changed in (given, given._replace(features=same), given._replace(mask=nothing), given._replace(mask=alone)):
            moved, metrics, _ = STEP(h, state, changed, 9)
            assert all(np.isfinite(x).all() for x in jax.tree.leaves((moved, metrics)))
        if tau == 1.0:
            assert float(STEP(h, state, given._replace(mask=nothing), 9)[1]["loss"]) == 0.0


def test_rows_that_do_not_count_change_nothing():
    state, given = batch()
    wild = tuple(jnp.where(on[:, None], x, 50.0) for x, on in zip(given.features, given.mask, strict=True))
    a, b = (STEP(H, state, x, 9)[:2] for x in (given, given._replace(features=wild)))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-7), a, b)


def test_shares_of_devices_sum_to_the_whole():
    state, given = batch()
    padded = jax.tree.map(lambda x: jnp.pad(x, [(0, 1) if n == B else (0, 0) for n in x.shape]), given)
    expected, metrics, _ = STEP(H, state, given, 9)
    rows, columns, same = PartitionSpec("batch"), PartitionSpec(None, "batch"), PartitionSpec()
    share = jax.shard_map(
        lambda state, batch: METHOD.step(H, state, batch, 9, "batch")[:2],
        mesh=Mesh(np.array(jax.devices()[:4]), ("batch",)),
        in_specs=(same, Batch(rows, columns, columns, rows)),
        out_specs=same,
    )
    found, shared = jax.jit(share)(state, padded)
    assert set(shared) == {"loss", "clustering", "contrastive", "weight"}
    for a, b in zip(jax.tree.leaves((expected, metrics)), jax.tree.leaves((found, shared)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def clusters(seed=0):
    """Separable clusters of three classes in two modalities."""
    rng, cut = np.random.default_rng(seed), {"train": 120, "valid": 30, "test": 60}
    means = {"a": 2.0 * rng.normal(size=(3, 6)), "b": 2.0 * rng.normal(size=(3, 5))}
    labels = {split: np.arange(n) % 3 for split, n in cut.items()}
    views = {
        (s, m): mean[y] + 0.4 * rng.normal(size=(len(y), mean.shape[1]))
        for m, mean in means.items()
        for s, y in labels.items()
    }
    return {f"{s}_{m}": x for (s, m), x in views.items()} | {f"{s}_labels": y for s, y in labels.items()}


@pytest.mark.slow
def test_wrong_labels_of_separable_clusters_lose_their_weight():
    options = {"noise_rate": 0.6, "noise_scope": "instance", "epochs": 8, "batch_size": 40}
    result = train(toy_config(method="rshnl", method_options=("gamma=2", "warmup=5"), **options), data=clusters())
    assert result.scores["test"]["last"]["average"] > 0.99
    weights = [m["train"]["weight"] for m in result.metrics]
    np.testing.assert_allclose(weights[:5], 1.0, rtol=1e-6)
    right = 1.0 - result.scores["wrong_share"]["a"]
    assert 0.5 * right < weights[-1] < right + 0.02  # instances with wrong labels have next to none


@pytest.mark.slow
def test_a_sweep_with_three_modalities_and_missing_samples_gives_the_numbers_of_one_run():
    arrays = toy_arrays(("sound", "touch", "smell")) | {"train_touch_mask": np.arange(60) % 7 != 2}
    config = toy_config(method="rshnl", noise_rate=0.3, batch_size=13, method_options=("warmup=1",))
    alone = train(config, data=arrays)
    first, _ = sweep(grid(config, seed=[0, 1]), data=arrays).runs.values()
    for a, b in zip(first.metrics, alone.metrics, strict=True):
        assert a["train"] == pytest.approx(b["train"], rel=1e-4, abs=1e-4)


def test_numbers_outside_of_their_range_are_refused():
    with pytest.raises(InputError, match=r"must be a number in \[0.001, 1\]"):
        toy_config(method="rshnl", method_options=("q=0",))
