"""NIRNL: votes, centres and losses against loops in float64 and a transcription into PyTorch, and what it learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec
from toy import toy_arrays, toy_config

from mrl_jax import InputError, grid, sweep, train
from mrl_jax.losses.mrl import log_soft_assignment
from mrl_jax.methods.deep.nirnl import class_means, confirmed, margin_loss, nirnl, refined_losses
from mrl_jax.methods.deep.parts import Hyperparameters
from mrl_jax.methods.state import Batch, Shapes, TrainData

M, B, L, K = 3, 14, 5, 4
NUMBERS = (("alpha", 0.9), ("margin", 0.9), ("neighbours", 3))
VOTE = jax.jit(confirmed, static_argnums=(3, 4))
METHOD = nirnl()
INIT, STEP = jax.jit(METHOD.init, static_argnums=2), jax.jit(METHOD.step)
H = Hyperparameters(tau1=0.5, hidden_dims=(7,), embed_dim=L, learning_rate=0.01, numbers=NUMBERS)


def unit(x):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def batch(seed=0, modalities=M):
    """Unit rows, centres, labels with rubbish where samples are missing, confirmed labels, and presence."""
    rng = np.random.default_rng(seed)
    valid = rng.random((modalities, B)) > 0.2
    valid[:, 2], valid[:, 4] = False, True
    labels = np.where(valid, rng.integers(0, K, (modalities, B)), 99)
    z, centers = unit(rng.normal(size=(modalities, B, L))), unit(rng.normal(size=(K, L)))
    return z, centers, labels, rng.random((modalities, B)) > 0.5, valid


def definition(z, centers, labels, kept, valid, tau, alpha, margin):
    """The loss of a batch, instance by instance."""
    z, centers = np.float64(z), np.float64(centers)
    total, kinds, count = 0.0, [], max(valid.any(axis=0).sum(), 1)
    for j in range(z.shape[1]):
        there = [i for i in range(len(z)) if valid[i, j]]
        p = {i: np.exp(centers @ z[i, j] / tau) for i in there}
        p = {i: x / x.sum() for i, x in p.items()}
        w = 1.0 - np.prod([1.0 - x for x in p.values()], axis=0)
        kind = {len(there): "pure", 0: "noisy"}.get(sum(kept[i, j] for i in there), "hard") if there else None
        kinds.append(kind)
        for i in there:
            y = labels[i, j]
            if kind == "noisy":
                total += np.abs(np.eye(K)[w.argmax()] - p[i]).sum()
            else:
                total -= (w[y] if kind == "hard" else 1.0) * np.log(p[i][y])
    pairs = 0.0
    for a in range(len(z)):
        for b in range(len(z)):
            hinges = [
                max(z[a, i] @ z[b, j] - z[a, i] @ z[b, i] + margin, 0.0)
                for i in range(z.shape[1])
                for j in range(z.shape[1])
                if i != j and a != b and valid[a, i] and valid[b, i] and valid[b, j]
            ]
            pairs += np.mean(hinges) if hinges else 0.0
    return total / count + alpha * pairs, kinds


def found(z, centers, labels, kept, valid, tau=0.5, alpha=0.9, margin=0.9):
    log_p = log_soft_assignment(z, centers, tau)
    losses, _, _ = refined_losses(log_p, labels, kept, valid)
    return losses.sum() / jnp.maximum(valid.any(axis=0).sum(), 1) + alpha * margin_loss(z, valid, margin)


@pytest.mark.parametrize("modalities", [2, 3])
def test_the_loss_is_that_of_loops_in_float64(modalities):
    for seed in range(3):
        given = batch(seed, modalities)
        expected, kinds = definition(*given, 0.5, 0.9, 0.9)
        assert {"pure", "hard", "noisy", None} == set(kinds)
        np.testing.assert_allclose(jax.jit(found)(*given), expected, rtol=1e-5)
        _, pure, noisy = refined_losses(log_soft_assignment(*given[:2], 0.5), *given[2:])
        assert [kind == "pure" for kind in kinds] == pure.tolist()
        assert [kind == "noisy" for kind in kinds] == noisy.tolist()


@pytest.mark.bench
def test_value_and_gradients_equal_pytorch():
    import torch

    z, centers, labels, kept, valid = batch(1, 2)
    valid = np.ones_like(valid)
    labels = np.random.default_rng(0).integers(0, K, valid.shape)
    own = torch.tensor(z, dtype=torch.float64, requires_grad=True)
    p = torch.softmax(own @ torch.tensor(centers, dtype=torch.float64).T / 0.5, dim=2)
    soft = (1 - (1 - p[0]) * (1 - p[1])).detach()
    given, guess = (torch.nn.functional.one_hot(torch.as_tensor(y), K).double() for y in (labels, soft.argmax(dim=1)))
    pure, noisy = torch.tensor(kept.all(axis=0)), torch.tensor(~kept.any(axis=0))
    per_kind = [-(given * p.log()).sum(2), -(soft * given * p.log()).sum(2), (guess - p).abs().sum(2)]
    losses = torch.where(pure, per_kind[0], torch.where(noisy, per_kind[2], per_kind[1]))
    total = losses.sum(0).mean()
    for a, b in ((0, 1), (1, 0)):
        s = own[a] @ own[b].T
        hinge = torch.relu(s - torch.diag(s)[:, None] + 0.9)
        total = total + 0.9 * hinge[~torch.eye(B, dtype=bool)].mean()
    total.backward()
    value, gradient = jax.value_and_grad(found)(z, centers, labels, kept, valid)
    np.testing.assert_allclose(value, total.item(), rtol=1e-5)
    np.testing.assert_allclose(gradient, own.grad.numpy(), atol=1e-5)


def test_losses_of_the_three_kinds_by_hand():
    """Two classes; p(y) is 0.8 and 0.5 in the two modalities, so that w(y) = 1 - 0.2 * 0.5."""
    log_p = jnp.log(jnp.array([[[0.8, 0.2]] * 3, [[0.5, 0.5]] * 3]))
    labels, valid = jnp.zeros((2, 3), int), jnp.ones((2, 3), bool)
    kept = jnp.array([[True, True, False], [True, False, False]])
    losses, _, _ = refined_losses(log_p, labels, kept, valid)
    expected = [[-np.log(0.8), -0.9 * np.log(0.8), 0.4], [-np.log(0.5), -0.9 * np.log(0.5), 1.0]]
    np.testing.assert_allclose(losses, expected, rtol=1e-6)


def test_the_margin_by_hand():
    z = jnp.array([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 0.0]]])
    both = jnp.ones((2, 2), bool)
    # First to second: 1 - 1 + 0.9 and 0 - 0 + 0.9; second to first: 0 - 1 + 0.9 < 0 and 1 - 0 + 0.9.
    assert float(margin_loss(z, both, 0.9)) == pytest.approx(0.9 + 0.95)
    assert float(margin_loss(z, both.at[1, 1].set(False), 0.9)) == 0.0 + 0.0  # one hinge is left, 0 - 1 + 0.9


def test_extremes_are_finite():
    z, centers, labels, kept, valid = batch()
    everything = jax.jit(jax.value_and_grad(found))
    for tau in (1.0, 1e-4):
        for on in (valid, np.zeros_like(valid)):
            for rows in (z, np.broadcast_to(centers[0], z.shape)):
                value, gradient = everything(rows, centers, labels, kept, on, tau)
                assert np.isfinite(value)
                assert np.isfinite(gradient).all()
                assert not np.asarray(gradient)[~on].any()
    one = everything(z[:, 4:5], centers, labels[:, 4:5], kept[:, 4:5], valid[:, 4:5])
    assert all(np.isfinite(x).all() for x in one)


def votes_of_loops(z, labels, valid, k):
    out = []
    for j in range(len(z)):
        cosines = {t: float(z[t] @ z[j]) for t in range(len(z)) if t != j and valid[t]}
        near = sorted(cosines, key=lambda t: -cosines[t])[:k]
        votes = {}
        for t in near:
            number, closeness = votes.get(labels[t], (0, 0.0))
            votes[labels[t]] = number + 1, closeness + cosines[t]
        out.append(bool(valid[j] and votes and max(votes, key=votes.get) == labels[j]))
    return out


def test_neighbours_vote_as_in_loops():
    rng = np.random.default_rng(3)
    z, valid = unit(rng.normal(size=(300, L))), rng.random(300) > 0.1  # more samples than are compared at once
    labels = np.where(valid, rng.integers(0, K, 300), -7)
    for k in (1, 4, 10):
        expected = votes_of_loops(np.float64(z), labels, valid, k)
        assert VOTE(z, labels, valid, K, k).tolist() == expected
        assert 0 < sum(expected) < 300


def test_votes_where_there_are_few_neighbours():
    z, labels = unit(np.ones((3, 2))), np.zeros(3, int)
    assert VOTE(z, labels, np.ones(3, bool), 2, 10).tolist() == [True, True, True]
    assert VOTE(z, labels, np.array([True, False, False]), 2, 10).tolist() == [False, False, False]
    assert VOTE(z[:1], labels[:1], np.ones(1, bool), 2, 10).tolist() == [False]


def test_equal_numbers_of_votes_go_to_the_closer_class():
    angle = np.array([0.0, 0.1, 0.5])
    z = np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)
    every = np.ones(3, bool)
    assert bool(VOTE(z, np.array([1, 1, 0]), every, 2, 2)[0])  # the lowest number would be 0
    assert bool(VOTE(z, np.array([0, 0, 1]), every, 2, 2)[0])


def test_centres_are_means_on_the_sphere():
    z, _, labels, _, valid = batch()
    labels = np.where(labels == 3, 1, labels)
    before = unit(np.ones((K, L)))
    found = jax.jit(class_means)(list(z), labels, valid, before)
    for k in range(3):
        mean = z[valid & (labels == k)].astype(np.float64).sum(axis=0)
        np.testing.assert_allclose(found[k], mean / np.linalg.norm(mean), atol=1e-6)
    np.testing.assert_array_equal(found[3], before[3])  # a class without samples keeps its centre


def test_refreshing_follows_moved_rows_and_training_leaves_the_centres():
    rng = np.random.default_rng(4)
    features = tuple(jnp.asarray(rng.normal(size=(B, d)), jnp.float32) for d in (6, 4))
    labels = jnp.asarray(rng.integers(0, K, (2, B)), jnp.int32)
    partners = jnp.stack([jnp.arange(B), jnp.roll(jnp.arange(B), 1)])
    start = INIT(H, jax.random.key(0), Shapes((6, 4), K, B))
    refresh = jax.jit(METHOD.refresh)
    moved = refresh(H, start, TrainData(features, labels, None, partners), 0)
    plain = TrainData((features[0], features[1][partners[1]]), labels)
    expected = refresh(H, start, plain, 0)
    np.testing.assert_array_equal(moved.samples, expected.samples)
    np.testing.assert_allclose(moved.params.centers, expected.params.centers, atol=1e-6)
    z = [METHOD.embed(H, start.params, i, x) for i, x in enumerate(plain.features)]
    for i in range(2):
        assert moved.samples[:, i].tolist() == votes_of_loops(np.float64(z[i]), labels[i].tolist(), [True] * B, 3)
    one = Batch(plain.features, labels, jnp.ones(B, bool), jnp.arange(B), expected.samples)
    state, metrics, _ = STEP(H, expected, one, 0)
    np.testing.assert_array_equal(state.params.centers, expected.params.centers)
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), state.params.encoders, start.params.encoders)
    assert all(jax.tree.leaves(changed))
    every = jnp.ones((2, B), bool)
    loss = found(jnp.stack(z), expected.params.centers, labels, expected.samples.T, every)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)


def test_shares_of_devices_sum_to_the_whole():
    rng = np.random.default_rng(5)
    features = tuple(jnp.asarray(rng.normal(size=(12, d)), jnp.float32) for d in (6, 4))
    labels, mask = jnp.asarray(rng.integers(0, K, (2, 12)), jnp.int32), jnp.asarray(rng.random((2, 12)) > 0.3)
    kept = jnp.asarray(rng.random((12, 2)) > 0.5)
    state = INIT(H, jax.random.key(0), Shapes((6, 4), K, 12))
    whole = Batch(features, labels, mask, jnp.arange(12), kept)
    expected, metrics, _ = STEP(H, state, whole, 0)
    rows, columns, same = PartitionSpec("batch"), PartitionSpec(None, "batch"), PartitionSpec()
    share = jax.shard_map(
        lambda state, batch: METHOD.step(H, state, batch, 0, "batch")[:2],
        mesh=Mesh(np.array(jax.devices()[:4]), ("batch",)),
        in_specs=(same, Batch(rows, columns, columns, rows, rows)),
        out_specs=same,
    )
    found, shared = jax.jit(share)(state, whole)
    assert set(shared) == {"loss", "clustering", "margin", "pure", "noisy"}
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
def test_it_resists_wrong_labels_of_separable_clusters():
    result = train(toy_config(method="nirnl", noise_rate=0.6, epochs=6, batch_size=40), data=clusters())
    assert result.scores["test"]["last"]["average"] > 0.99
    last, wrong = result.metrics[-1]["train"], result.scores["wrong_share"]
    right = [1.0 - share for share in wrong.values()]
    assert last["pure"] == pytest.approx(np.prod(right), abs=0.08)  # both labels are right
    assert last["noisy"] == pytest.approx(np.prod(list(wrong.values())), abs=0.08)


@pytest.mark.slow
def test_a_sweep_with_three_modalities_and_missing_samples_gives_the_numbers_of_one_run():
    arrays = toy_arrays(("sound", "touch", "smell")) | {"train_touch_mask": np.arange(60) % 7 != 2}
    config = toy_config(method="nirnl", noise_rate=0.3, batch_size=13)
    alone = train(config, data=arrays)
    first, _ = sweep(grid(config, seed=[0, 1]), data=arrays).runs.values()
    for a, b in zip(first.metrics, alone.metrics, strict=True):
        assert a["train"] == pytest.approx(b["train"], rel=1e-4, abs=1e-4)


def test_what_it_cannot_use_is_refused():
    with pytest.raises(InputError, match=r"neighbours=2\.5': must be a whole number, such as neighbours=2"):
        toy_config(method="nirnl", method_options=("neighbours=2.5",))
    with pytest.raises(InputError, match="streaming does not allow"):
        train(toy_config(method="nirnl", stream="on"), data=toy_arrays())
    with pytest.raises(ValueError, match="give num_instances"):
        METHOD.init(H, jax.random.key(0), Shapes((6, 4), K))
