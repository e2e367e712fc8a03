"""FGCrossNet against NumPy in float64, a transcription into PyTorch, and the draw of its quadruplets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec
from toy import toy_arrays, toy_config

from mrl_jax import InputError, train
from mrl_jax.methods.deep.fgcrossnet import (
    _objective,
    _outputs,
    _with_keys,
    center_loss,
    draw_quadruplets,
    fgcrossnet,
    ranking_loss,
)
from mrl_jax.methods.deep.parts import Hyperparameters
from mrl_jax.methods.state import Batch, Shapes
from mrl_jax.training.epoch import train_step

B, K, DIMS = 16, 4, (6, 4, 5)
NUMBERS = {"center": 0.3, "ranking": 0.1, "ranking_start": 0.5, "margin": 1.0, "margin_negatives": 0.5}


def problem(modalities=2, masked=True, seed=0, **numbers):
    """Hyperparameters, state and batch; labels and features of missing samples are wild."""
    rng, given = np.random.default_rng(seed), tuple((NUMBERS | numbers).items())
    h = Hyperparameters(hidden_dims=(7, 6), epochs=10, learning_rate=1e-2, numbers=given)
    mask = rng.random((modalities, B)) > 0.2 if masked else np.ones((modalities, B), bool)
    labels = np.where(mask, rng.integers(0, K, (modalities, B)), 99)
    features = [np.where(mask[i][:, None], rng.normal(size=(B, d)), 1e3) for i, d in enumerate(DIMS[:modalities])]
    features = tuple(jnp.asarray(x, jnp.float32) for x in features)
    batch = Batch(features, jnp.asarray(labels, jnp.int32), jnp.asarray(mask), jnp.arange(5, 5 + B))
    return h, fgcrossnet().init(h, jax.random.key(seed), Shapes(DIMS[:modalities], K)), batch


def with_keys(h, batch, step=3):
    return _with_keys(h, batch, jnp.int32(step), None)


def samples_of(batch):
    """Modality, row, label and draws of all samples, in the order of the program; and which count."""
    labels, mask = np.asarray(batch.labels).T.reshape(-1), np.asarray(batch.mask).T.reshape(-1)
    draws = jax.vmap(lambda key: jax.random.uniform(key, (len(batch.features), 6)))(batch.keys)
    return labels, mask, np.asarray(draws, np.float64).reshape(-1, 6)


def quadruplets_of(labels, mask, draws):
    """(anchor, positive, first and second negative) by the definition, with loops."""

    def drawn(anchor, rows, member):
        ahead = {t: (draws[t, 2 * member] - draws[anchor, 2 * member + 1]) % 1.0 for t in rows}
        return min(ahead, key=ahead.get) if ahead else None

    found, counted = [], [s for s in range(len(labels)) if mask[s]]
    for a in counted:
        p = drawn(a, [t for t in counted if t != a and labels[t] == labels[a]], 0)
        first = drawn(a, [t for t in counted if labels[t] != labels[a]], 1)
        if p is None or first is None:
            continue
        second = drawn(a, [t for t in counted if labels[t] not in (labels[a], labels[first])], 2)
        if second is not None:
            found.append((a, p, first, second))
    return found


def definition(outputs, centers, batch):
    """Label, centre and ranking loss of a batch from the outputs of all samples, by loops."""
    o, centers = np.asarray(outputs, np.float64), np.asarray(centers, np.float64)
    labels, mask, draws = samples_of(batch)
    rows = np.flatnonzero(mask)
    label = sum(np.log(np.exp(o[s]).sum()) - o[s][labels[s]] for s in rows) / np.asarray(batch.mask).any(axis=0).sum()
    center = sum(((o[s] - centers[labels[s]]) ** 2).sum() for s in rows) / len(rows)
    losses = []
    for a, p, first, second in quadruplets_of(labels, mask, draws):
        near, far, apart = (np.linalg.norm(o[x] - o[y]) for x, y in ((a, p), (a, first), (first, second)))
        losses.append(max(near - far + 1.0 + near - apart + 0.5, 0.0))
    return label, center, sum(losses) / max(sum(x > 0 for x in losses), 1)


@pytest.mark.parametrize(("modalities", "masked"), [(2, False), (3, True)])
def test_the_parts_are_those_of_the_definition(modalities, masked):
    h, state, batch = problem(modalities, masked)
    batch = with_keys(h, batch)
    total, (parts, _) = jax.jit(_objective, static_argnums=4)(h, state.params, batch, 7, None)
    outputs = np.stack([_outputs(h, state.params, i, x) for i, x in enumerate(batch.features)], axis=1)
    label, center, ranking = definition(outputs.reshape(-1, K), state.params.centers, batch)
    assert ranking > 0
    np.testing.assert_allclose([parts[k] for k in ("label", "center", "ranking")], [label, center, ranking], 1e-5)
    np.testing.assert_allclose(total, label + 0.3 * center + 0.1 * ranking, rtol=1e-5)


@pytest.mark.bench
def test_value_and_gradients_equal_pytorch():
    import torch

    h, state, batch = problem()
    batch = with_keys(h, batch)
    params = jax.tree.map(lambda x: torch.tensor(np.asarray(x), dtype=torch.float64, requires_grad=True), state.params)
    labels, mask, draws = samples_of(batch)
    outputs = []
    for own, x in zip(params.encoders, batch.features, strict=True):
        x, shared = torch.tensor(np.asarray(x), dtype=torch.float64), params.shared["params"]
        for layer in (own["params"]["Dense_0"], shared["Dense_0"]):
            x = torch.relu(x @ layer["kernel"] + layer["bias"])
        outputs.append(x @ shared["Dense_1"]["kernel"] + shared["Dense_1"]["bias"])
    o, rows = torch.stack(outputs, 1).reshape(-1, K), np.flatnonzero(mask)
    y = torch.tensor(labels[rows], dtype=torch.long)
    label = torch.nn.functional.cross_entropy(o[rows], y, reduction="sum") / int(np.asarray(batch.mask).any(0).sum())
    center = ((o[rows] - params.centers[y]) ** 2).sum(1).mean()
    a, p, first, second = (list(x) for x in zip(*quadruplets_of(labels, mask, draws), strict=True))
    near, far, apart = ((o[x] - o[y]).norm(dim=1) for x, y in ((a, p), (a, first), (first, second)))
    losses = torch.relu(2 * near - far - apart + 1.5)
    total = label + 0.3 * center + 0.1 * losses.sum() / (losses > 0).sum()
    total.backward()
    found, gradient = jax.value_and_grad(lambda p: _objective(h, p, batch, 7, None)[0])(state.params)
    np.testing.assert_allclose(found, total.item(), rtol=1e-5)
    for g, leaf in zip(jax.tree.leaves(gradient), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(g, leaf.grad.numpy(), atol=1e-5)


def test_losses_by_hand():
    outputs = jnp.array([[0.0, 0.0], [3.0, 4.0], [0.0, 2.0], [1.0, 0.0]])
    all_four = jnp.ones(4, bool)
    centers = jnp.array([[1.0, 0.0], [0.0, 0.0]])
    center = center_loss(outputs, jnp.array([0, 1, 1, 0]), all_four, centers)
    assert float(center) == pytest.approx((1 + 25 + 4 + 0) / 4)
    # Anchor 0: positive at 5, first negative at 2, negatives apart by the root of 5.
    chosen = jnp.array([[1] * 4, [2] * 4, [3] * 4])
    ranking = ranking_loss(outputs, chosen, jnp.array([True, False, False, False]), 1.0, 0.5)
    assert float(ranking) == pytest.approx(2 * 5 - 2 - 5**0.5 + 1.5)
    far = ranking_loss(outputs, jnp.array([[0] * 4, [1] * 4, [2] * 4]), jnp.arange(4) == 0, 1.0, 0.5)
    assert float(far) == 0.0  # the positive at 0, the negatives at 5 and further apart than the margin


def test_only_violated_quadruplets_count_in_the_mean():
    outputs = jnp.array([[0.0], [9.0], [0.5], [30.0]])
    chosen = jnp.array([[0, 0, 0, 0], [1, 1, 1, 1], [3, 3, 3, 3]])
    near = jnp.array([True, True, False, False])  # anchor 0 is satisfied, anchor 1 is not
    assert float(ranking_loss(outputs, chosen, near, 1.0, 0.5)) == 0.0
    assert float(ranking_loss(outputs, chosen, near, 10.0, 10.0)) == pytest.approx(18 - 0 - 21 + 20)


def test_members_of_quadruplets_have_the_classes_they_must():
    h, _, batch = problem(3, seed=4)
    for step in range(5):
        labels, mask, draws = samples_of(with_keys(h, batch, step))
        (p, first, second), complete = (
            np.asarray(x) for x in draw_quadruplets(*map(jnp.asarray, (labels, mask, draws)))
        )
        assert complete.any()
        assert not complete[~mask].any()
        for a in np.flatnonzero(complete):
            assert mask[[p[a], first[a], second[a]]].all()
            assert p[a] != a
            assert labels[p[a]] == labels[a]
            assert len({labels[a], labels[first[a]], labels[second[a]]}) == 3


def test_every_eligible_sample_is_drawn_equally_often():
    labels, mask = jnp.array([0, 0, 0, 0, 1, 1, 2, 3]), jnp.ones(8, bool)
    draws = jax.random.uniform(jax.random.key(0), (4000, 8, 6))
    (p, first, second), complete = jax.vmap(draw_quadruplets, (None, None, 0), (1, 0))(labels, mask, draws)
    assert complete.all(axis=0).tolist() == [True] * 6 + [False] * 2  # classes 2 and 3 have one sample each
    near = {"atol": 0.03}
    np.testing.assert_allclose(np.bincount(p[:, 0], minlength=8) / 4000, [0, 1 / 3, 1 / 3, 1 / 3, 0, 0, 0, 0], **near)
    np.testing.assert_allclose(np.bincount(first[:, 0], minlength=8) / 4000, [0] * 4 + [0.25] * 4, **near)
    of_two = np.asarray(second[:, 0])[np.asarray(first[:, 0]) == 6]
    np.testing.assert_allclose(
        np.bincount(of_two, minlength=8) / len(of_two), [0] * 4 + [1 / 3] * 2 + [0, 1 / 3], **near
    )


def test_draws_differ_between_steps_and_belong_to_the_instance():
    h, _, batch = problem()
    first, again, later = (np.asarray(samples_of(with_keys(h, batch, step))[2]) for step in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != later).mean() > 0.9
    part = batch._replace(**{"features": tuple(x[4:8] for x in batch.features), "rows": batch.rows[4:8]})
    own = samples_of(with_keys(h, part, 1)._replace(labels=batch.labels[:, 4:8], mask=batch.mask[:, 4:8]))[2]
    np.testing.assert_array_equal(own, first.reshape(B, -1)[4:8].reshape(own.shape))


def test_the_ranking_joins_in_the_second_stage():
    h, state, batch = problem()
    batch = with_keys(h, batch)
    value = jax.jit(lambda epoch: _objective(h, state.params, batch, epoch, None))
    for epoch, weight in ((0, 0.0), (4, 0.0), (5, 0.1), (9, 0.1)):
        total, (parts, _) = value(epoch)
        expected = parts["label"] + 0.3 * parts["center"] + weight * parts["ranking"]
        assert float(total) == pytest.approx(float(expected), rel=1e-6)
    never, _, _ = problem(ranking_start=1.0)
    total, (parts, _) = _objective(never, state.params, batch, 9, None)
    assert float(total) == pytest.approx(float(parts["label"] + 0.3 * parts["center"]), rel=1e-6)


def test_extremes_are_finite():
    h, state, batch = problem(masked=False)
    batch = with_keys(h, batch)
    value = jax.jit(jax.value_and_grad(lambda p, b: _objective(h, p, b, 9, None)[0]))
    ranking = jax.jit(lambda b: _objective(h, state.params, b, 9, None)[1][0]["ranking"])
    loss, gradient = value(state.params, batch._replace(mask=jnp.zeros((2, B), bool)))
    assert float(loss) == 0.0
    assert not any(np.asarray(g).any() for g in jax.tree.leaves(gradient))
    one_class = batch._replace(labels=jnp.zeros_like(batch.labels))
    two_classes = batch._replace(labels=batch.labels % 2)
    alone = batch._replace(mask=batch.mask & (jnp.arange(B) == 3)[None])
    for case in (one_class, two_classes, alone):
        assert float(ranking(case)) == 0.0
    same = batch._replace(features=tuple(jnp.zeros_like(x) for x in batch.features))
    for case in (one_class, two_classes, alone, same):
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(value(state.params, case)))


def test_samples_that_do_not_count_change_nothing():
    h, state, batch = problem()
    other = batch._replace(
        features=tuple(jnp.where(m[:, None], x, -7.0) for x, m in zip(batch.features, batch.mask, strict=True)),
        labels=jnp.where(batch.mask, batch.labels, -1),
    )
    step = jax.jit(lambda batch: train_step(fgcrossnet(), h, state, batch, 9)[0])
    a, b = step(batch), step(other)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


def test_four_devices_take_the_step_of_one():
    h, state, batch = problem(3)
    mesh, everywhere = Mesh(np.array(jax.devices()[:4]), ("batch",)), PartitionSpec()
    rows, columns = PartitionSpec("batch"), PartitionSpec(None, "batch")

    def own(state, batch):
        return train_step(fgcrossnet(), h, state, batch, 9, "batch")

    specs = (everywhere, Batch(rows, columns, columns, rows))
    divided = jax.jit(jax.shard_map(own, mesh=mesh, in_specs=specs, out_specs=everywhere))
    one = jax.jit(lambda state, batch: train_step(fgcrossnet(), h, state, batch, 9))
    for a, b in zip(jax.tree.leaves(divided(state, batch)), jax.tree.leaves(one(state, batch)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5)


def test_modalities_share_all_layers_but_the_first():
    _, state, _ = problem(3)
    assert [p["params"]["Dense_0"]["kernel"].shape for p in state.params.encoders] == [(6, 7), (4, 7), (5, 7)]
    shapes = [x["kernel"].shape for _, x in sorted(state.params.shared["params"].items())]
    assert shapes == [(7, 6), (6, K)]
    assert state.params.centers.shape == (K, K)


def test_what_it_cannot_use_is_refused():
    h, state, batch = problem()
    with pytest.raises(ValueError, match="give Batch"):
        fgcrossnet().step(h, state, batch._replace(rows=None), 0)
    with pytest.raises(InputError, match="give --hidden-dims"):
        train(toy_config(method="fgcrossnet", hidden_dims=()), data=toy_arrays())


def clusters(seed=0):
    """Separable clusters of five classes in two modalities."""
    rng, dims = np.random.default_rng(seed), {"sound": 12, "touch": 9}
    means = {m: 3.0 * rng.normal(size=(5, d)) for m, d in dims.items()}
    arrays = {}
    for split, n in {"train": 200, "valid": 60, "test": 60}.items():
        arrays[f"{split}_labels"] = labels = np.arange(n) % 5
        arrays |= {f"{split}_{m}": means[m][labels] + rng.normal(size=(n, d)) for m, d in dims.items()}
    return arrays


@pytest.mark.slow
def test_it_learns_separable_clusters_from_noisy_labels():
    options = {"batch_size": 50, "hidden_dims": (32, 32), "epochs": 15, "learning_rate": 3e-3, "noise_rate": 0.25}
    result = train(toy_config(method="fgcrossnet", **options), data=clusters())  # a fifth of the labels is wrong
    assert result.scores["test"]["last"]["average"] > 0.95
    assert min(result.metrics[-1]["valid"]["accuracy"].values()) > 0.9
