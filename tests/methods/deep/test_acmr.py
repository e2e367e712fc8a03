"""ACMR against NumPy in float64, a transcription into PyTorch, optax, and what its game should lead to."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, PartitionSpec
from toy import toy_config

from mrl_jax import train
from mrl_jax.methods.deep.acmr import _modality_part, _objective, acmr, modality_loss, reversal, triplet_loss
from mrl_jax.methods.deep.parts import Hyperparameters
from mrl_jax.methods.gradient import learning_rate_at
from mrl_jax.methods.state import Batch, Shapes
from mrl_jax.training.epoch import train_step

B, L, K, DIMS = 16, 8, 3, (6, 4, 5)
NUMBERS = {"label": 100.0, "triplet": 32.0, "margin": 0.1, "ratio": 5.0, "adversary": 1.0}
WEIGHT, TAU = jnp.float32(0.7), 0.5


def hyperparameters(**numbers):
    given = tuple((NUMBERS | numbers).items())
    return Hyperparameters(hidden_dims=(7,), embed_dim=L, tau1=TAU, epochs=10, learning_rate=1e-2, numbers=given)


def problem(modalities=2, masked=True, seed=0, **numbers):
    """Hyperparameters, state and batch; labels and features of missing samples are wild."""
    rng, h = np.random.default_rng(seed), hyperparameters(**numbers)
    mask = rng.random((modalities, B)) > 0.2 if masked else np.ones((modalities, B), bool)
    labels = np.where(mask, rng.integers(0, K, (modalities, B)), 99)
    features = [np.where(mask[i][:, None], rng.normal(size=(B, d)), 1e3) for i, d in enumerate(DIMS[:modalities])]
    batch = Batch(
        tuple(jnp.asarray(x, jnp.float32) for x in features), jnp.asarray(labels, jnp.int32), jnp.asarray(mask)
    )
    return h, acmr().init(h, jax.random.key(seed), Shapes(DIMS[:modalities], K)), batch


def layers(tree):
    """Kernels and biases of a network, in order."""
    return [(layer["kernel"], layer["bias"]) for _, layer in sorted(tree["params"].items())]


def perceptron(tree, x, maximum=np.maximum):
    *hidden, last = layers(tree)
    for kernel, bias in hidden:
        x = maximum(x @ kernel + bias, 0.0)
    return x @ last[0] + last[1]


def negatives(x, labels, mask, i, other):
    """The negative of every anchor of modality i in the other one, None without; x are the features of i."""
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    pair, found = mask[i] & mask[other], []
    for a in range(len(x)):
        rows = [t for t in range(len(x)) if t != a and pair[a] and pair[t] and labels[other][t] != labels[i][a]]
        found.append(max(rows, key=lambda t: unit[t] @ unit[a]) if rows else None)
    return found


def definition(params, features, labels, mask):
    """Label loss, triplet loss and modality loss of a batch, by loops."""
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    features = [np.asarray(x, np.float64) for x in features]
    labels, mask, instances = np.asarray(labels), np.asarray(mask), np.asarray(mask).any(axis=0).sum()
    z = [perceptron(p, x) for p, x in zip(params.encoders, features, strict=True)]
    z = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in z]
    label = triplet = modality = 0.0
    for i in range(len(z)):
        for j in np.flatnonzero(mask[i]):
            scores = perceptron(params.classifier, z[i][j]) / TAU
            label += np.log(np.exp(scores).sum()) - scores[labels[i][j]]
            scores = perceptron(params.discriminator, z[i][j])
            modality += np.log(np.exp(scores).sum()) - scores[i]
        for other in set(range(len(z))) - {i}:
            for j, t in enumerate(negatives(features[i], labels, mask, i, other)):
                if t is not None:
                    near, far = ((z[i][j] - z[other][j]) ** 2).sum(), ((z[i][j] - z[other][t]) ** 2).sum()
                    triplet += max(NUMBERS["margin"] + NUMBERS["ratio"] * near - far, 0.0)
    return label / instances, triplet / instances, modality / instances


@pytest.mark.parametrize(("modalities", "masked"), [(2, False), (3, True)])
def test_the_parts_are_those_of_the_definition(modalities, masked):
    h, state, batch = problem(modalities, masked)
    total, parts = jax.jit(_objective, static_argnums=5)(
        h, state.params, state.params.discriminator, batch, WEIGHT, None
    )
    label, triplet, modality = definition(state.params, batch.features, batch.labels, batch.mask)
    np.testing.assert_allclose([parts[k] for k in ("label", "triplet", "modality")], [label, triplet, modality], 1e-5)
    np.testing.assert_allclose(total, 100 * label + 32 * triplet - 0.7 * modality, rtol=1e-5)


@pytest.mark.bench
def test_value_and_gradients_equal_pytorch():
    import torch

    h, state, batch = problem()
    params = jax.tree.map(lambda x: torch.tensor(np.asarray(x), dtype=torch.float64, requires_grad=True), state.params)
    features = [torch.tensor(np.asarray(x), dtype=torch.float64) for x in batch.features]
    labels, mask = np.asarray(batch.labels), np.asarray(batch.mask)
    instances = mask.any(axis=0).sum()

    def relu(x, zero):
        return torch.clamp(x, min=zero)

    z = [torch.nn.functional.normalize(perceptron(p, x, relu)) for p, x in zip(params.encoders, features, strict=True)]
    label = triplet = modality = 0.0
    for i in (0, 1):
        rows, other = np.flatnonzero(mask[i]), 1 - i
        scores, truth = perceptron(params.classifier, z[i][rows], relu) / TAU, torch.tensor(labels[i][rows]).long()
        label = label + torch.nn.functional.cross_entropy(scores, truth, reduction="sum")
        scores, truth = perceptron(params.discriminator, z[i][rows], relu), torch.full((len(rows),), i)
        modality = modality + torch.nn.functional.cross_entropy(scores, truth, reduction="sum")
        found = negatives(features[i].numpy(), labels, mask, i, other)
        rows = [j for j, t in enumerate(found) if t is not None]
        near = ((z[i][rows] - z[other][rows]) ** 2).sum(1)
        far = ((z[i][rows] - z[other][[found[j] for j in rows]]) ** 2).sum(1)
        triplet = triplet + torch.relu(0.1 + 5.0 * near - far).sum()
    total = (100.0 * label + 32.0 * triplet - 0.7 * modality) / instances

    (found, _), gradient = jax.value_and_grad(
        lambda p: _objective(h, p, p.discriminator, batch, WEIGHT, None), has_aux=True
    )(state.params)
    np.testing.assert_allclose(found, total.item(), rtol=1e-5)
    total.backward(retain_graph=True)
    size = max(np.abs(g).max() for g in jax.tree.leaves(gradient))
    for g, leaf in zip(jax.tree.leaves(gradient), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(g / size, leaf.grad.numpy() / size, atol=1e-5)


def test_triplets_by_hand():
    eye, both = jnp.eye(2), jnp.ones((2, 2), bool)
    labels = jnp.array([[0, 0], [1, 1]])
    apart = float(triplet_loss([eye, eye], [eye, eye], labels, both, 0.1, 5.0))
    crossed = float(triplet_loss([eye, eye[::-1]], [eye, eye], labels, both, 0.1, 5.0))
    assert apart == 0.0  # the pair at 0, the negative at 2
    assert crossed == pytest.approx(4 * (0.1 + 5 * 2 - 0))


def test_the_negative_is_the_nearest_of_another_class_by_features():
    """Instance 0 has class 0; by its features 1 is nearest (same class), then 3, then 2."""
    x = jnp.array([[1.0, 0.0], [1.0, 0.1], [-1.0, 0.0], [0.0, 1.0]])
    z = jnp.array([[0.0], [0.0], [1.0], [2.0]])  # distances from 0 tell which one was taken
    labels = jnp.array([[0, 0], [0, 0], [1, 1], [1, 1]])
    valid = jnp.zeros((4, 2), bool).at[:, 1].set(True).at[:, 0].set(True)
    only = triplet_loss([z, z], [x, x], labels, valid, 100.0, 0.0)
    # anchors 0 and 1 take 3; anchor 2 takes 0 or 1 (both at 0), anchor 3 takes 1
    assert float(only) == pytest.approx(2 * ((100 - 4) + (100 - 4) + (100 - 1) + (100 - 4)))
    without = triplet_loss([z, z], [x, x], labels, valid.at[3].set(False), 100.0, 0.0)
    assert float(without) == pytest.approx(2 * 3 * (100 - 1))


def test_extremes_are_finite_and_without_pairs_zero():
    h, state, batch = problem(masked=False)
    value = jax.jit(jax.value_and_grad(lambda p, b: _objective(h, p, p.discriminator, b, WEIGHT, None)[0]))
    parts = jax.jit(lambda b: _objective(h, state.params, state.params.discriminator, b, WEIGHT, None)[1])
    nothing = batch._replace(mask=jnp.zeros((2, B), bool))
    loss, gradient = value(state.params, nothing)
    assert float(loss) == 0.0
    assert not any(np.asarray(g).any() for g in jax.tree.leaves(gradient))
    one_class = batch._replace(labels=jnp.zeros_like(batch.labels))
    alone = batch._replace(mask=batch.mask & (jnp.arange(B) == 3)[None])
    same = batch._replace(features=tuple(jnp.ones_like(x) for x in batch.features))
    zero = batch._replace(features=tuple(jnp.zeros_like(x) for x in batch.features))
    for case in (one_class, alone):
        assert float(parts(case)["triplet"]) == 0.0
    for case in (one_class, alone, same, zero):
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(value(state.params, case)))


def test_samples_that_do_not_count_change_nothing():
    h, state, batch = problem()
    other = batch._replace(
        features=tuple(jnp.where(m[:, None], x, -7.0) for x, m in zip(batch.features, batch.mask, strict=True)),
        labels=jnp.where(batch.mask, batch.labels, -1),
    )
    step = jax.jit(lambda batch: train_step(acmr(), h, state, batch, 5)[0])
    a, b = step(batch), step(other)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


def test_the_reversed_gradient_grows_from_zero_to_one():
    shares = np.array([0.0, 0.1, 0.5, 1.0])
    np.testing.assert_allclose(reversal(shares), 2 / (1 + np.exp(-10 * shares)) - 1, atol=1e-6)
    assert acmr().log(hyperparameters(adversary=2.0), 5)["reversal"] == pytest.approx(2 * np.tanh(2.5))


def test_the_networks_get_the_gradient_of_the_discriminator_reversed():
    h, state, batch = problem()
    opponent = state.params.discriminator
    of = jax.jit(jax.grad(lambda p, w: _objective(h, p, opponent, batch, w, None)[0]))
    part = jax.jit(jax.grad(lambda p: _objective(h, p, opponent, batch, 0.0, None)[1]["modality"]))
    played, alone, own = of(state.params, 50.0), of(state.params, 0.0), part(state.params)
    for a, b, c in zip(*(jax.tree.leaves(g.encoders) for g in (played, alone, own)), strict=True):
        np.testing.assert_allclose(a, b - 50.0 * c, rtol=1e-4, atol=1e-3)
    assert not any(np.asarray(g).any() for g in jax.tree.leaves((own.classifier, own.discriminator)))


def test_a_step_is_one_of_each_optimiser_and_the_second_sees_the_new_embeddings():
    h, state, batch = problem()
    epoch, old, own = 4, state.params, state.params.discriminator
    moved, metrics, _ = jax.jit(acmr().step)(h, state, batch, epoch)
    adam, learned = optax.adam(learning_rate_at(h, epoch), 0.5, 0.999), (old.encoders, old.classifier)
    weight = 2 / (1 + np.exp(-4.0)) - 1  # p is 0.4

    def play(learned):
        return _objective(h, old._replace(encoders=learned[0], classifier=learned[1]), own, batch, weight, None)[0]

    value, gradient = jax.value_and_grad(play)(learned)
    expected = optax.apply_updates(learned, adam.update(gradient, adam.init(learned))[0])
    assert float(metrics["loss"]) == pytest.approx(float(value), rel=1e-5)
    z = [acmr().embed(h, moved.params, i, x) for i, x in enumerate(batch.features)]
    gradient = jax.grad(lambda d: _modality_part(h, d, z, batch.mask.T))(own)
    turned = optax.apply_updates(own, adam.update(gradient, adam.init(own))[0])
    found = (moved.params.encoders, moved.params.classifier, moved.params.discriminator)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves((*expected, turned)), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


def test_the_networks_confuse_the_discriminator_and_it_learns_again():
    """Without labels and triplets only the game is left."""
    h, state, batch = problem(masked=False, label=0.0, triplet=0.0)
    moved = jax.jit(acmr().step)(h, state, batch, 9)[0]

    def modality(encoders, discriminator):
        z = [acmr().embed(h, state.params._replace(encoders=encoders), i, x) for i, x in enumerate(batch.features)]
        return float(_modality_part(h, discriminator, z, batch.mask.T))

    old, new = state.params, moved.params
    assert modality(new.encoders, old.discriminator) > modality(old.encoders, old.discriminator)
    assert modality(new.encoders, new.discriminator) < modality(new.encoders, old.discriminator)


def test_modalities_that_look_alike_cost_the_logarithm_of_two():
    assert float(modality_loss(jnp.zeros((3, 2, 2)), jnp.ones((3, 2), bool))) == pytest.approx(6 * np.log(2))


def test_four_devices_take_the_step_of_one():
    h, state, batch = problem(3)
    mesh, everywhere = Mesh(np.array(jax.devices()[:4]), ("batch",)), PartitionSpec()
    columns = PartitionSpec(None, "batch")
    specs = Batch(PartitionSpec("batch"), columns, columns)

    def own(state, batch):
        return train_step(acmr(), h, state, batch, 5, "batch")

    divided = jax.shard_map(own, mesh=mesh, in_specs=(everywhere, specs), out_specs=everywhere)
    found, expected = jax.jit(divided)(state, batch), jax.jit(lambda s, b: train_step(acmr(), h, s, b, 5))(state, batch)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5)


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
    options = {"batch_size": 50, "hidden_dims": (32,), "epochs": 15, "learning_rate": 1e-2, "noise_rate": 0.25}
    result = train(toy_config(method="acmr", **options), data=clusters())  # a fifth of the labels is wrong
    assert result.scores["test"]["last"]["average"] > 0.95
    assert min(result.metrics[-1]["valid"]["accuracy"].values()) > 0.9
