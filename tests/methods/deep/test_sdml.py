"""SDML against plain loops in float64 and a transcription into PyTorch; fixed directions, modalities on their own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import toy_arrays, toy_config

from mrl_jax import InputError, train
from mrl_jax.methods.deep.parts import Hyperparameters
from mrl_jax.methods.deep.sdml import sdml, sdml_terms
from mrl_jax.methods.state import Batch, Shapes

B, D, L, K = 9, 6, 5, 4
H = Hyperparameters(hidden_dims=(7,), embed_dim=L, numbers=(("reconstruction", 0.3),))


def sample(seed=0):
    """Embeddings, outputs of a decoder, features, labels, directions, and which samples count."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(B, L))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    directions = np.linalg.qr(rng.normal(size=(L, L)))[0][:K]
    valid = np.ones(B, bool)
    valid[[2, 7]] = False
    labels = np.where(valid, rng.integers(0, K, B), [-1, 999, -1] * 3).astype(np.int32)
    x, decoded = rng.normal(size=(2, B, D))
    z, decoded, x, directions = (np.asarray(a, np.float32) for a in (z, decoded, x, directions))
    return z, decoded, x, labels, directions, valid


def definition(z, decoded, x, labels, directions, valid):
    """Both terms as the paper has them, one sample after the other."""
    reconstruction = classes = 0.0
    for j in range(B):
        if valid[j]:
            reconstruction += np.sqrt(sum((float(decoded[j, i]) - float(x[j, i])) ** 2 for i in range(D)))
            scores = [sum(float(directions[k, i]) * float(z[j, i]) for i in range(L)) for k in range(K)]
            classes += np.sqrt(sum((scores[k] - (k == labels[j])) ** 2 for k in range(K)))
    return reconstruction / valid.sum(), classes / valid.sum()


def batch_of(m=2, seed=3):
    rng = np.random.default_rng(seed)
    features = tuple(jnp.asarray(rng.normal(size=(B, d)), jnp.float32) for d in (6, 4, 5)[:m])
    mask = np.ones((m, B), bool)
    mask[0, 2] = mask[1, 5] = False
    mask[:, -1] = False
    return Batch(features, jnp.asarray(np.where(mask, rng.integers(0, K, (m, B)), 99), jnp.int32), jnp.asarray(mask))


def start(h=H, classes=K, dims=(6, 4)):
    return sdml().init(h, jax.random.key(1), Shapes(dims, classes))


def test_the_terms_are_those_of_the_paper():
    found = jax.jit(sdml_terms)(*sample())
    np.testing.assert_allclose(found, definition(*sample()), rtol=1e-5)


def test_the_terms_by_hand():
    z, directions = np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32)
    decoded, x = np.zeros((2, 2), np.float32), np.array([[3, 4], [0, 1]], np.float32)
    reconstruction, classes = sdml_terms(z, decoded, x, np.array([0, 0]), directions, np.array([True, True]))
    assert float(reconstruction) == pytest.approx((5 + 1) / 2)
    assert float(classes) == pytest.approx((0 + 2**0.5) / 2)


def test_samples_that_do_not_count_change_nothing():
    z, decoded, x, labels, directions, valid = sample()
    wild = np.where(valid[:, None], x, 1e6).astype(np.float32)
    assert [*sdml_terms(z, decoded, wild, labels, directions, valid)] == [*sdml_terms(*sample())]
    gradient = jax.grad(lambda z: sdml_terms(z, decoded, wild, labels, directions, valid)[1])(z)
    assert not np.asarray(gradient)[~valid].any()


def test_extremes_are_finite():
    z, decoded, x, labels, directions, _ = sample()

    def total(z, decoded, x, labels, valid):
        return sum(sdml_terms(z, decoded, x, labels, directions, valid))

    both = jax.value_and_grad(total, (0, 1))
    value, gradients = both(z, decoded, x, labels, np.zeros(B, bool))
    assert not any(np.asarray(g).any() for g in (value, *gradients))
    value, gradients = both(directions[:1], x[:1], x[:1], np.array([0]), np.ones(1, bool))  # all distances are 0
    assert float(value) == pytest.approx(0.0, abs=1e-6)
    assert np.isfinite(np.concatenate(gradients, axis=1)).all()


@pytest.mark.bench
def test_value_and_gradients_equal_pytorch():
    import torch

    batch, params = batch_of(), start().params

    def tensor(x):
        return torch.tensor(np.asarray(x), dtype=torch.float64)

    def layers(x, tree):
        for name in ("Dense_0", "Dense_1"):
            x = x @ tree["params"][name]["kernel"] + tree["params"][name]["bias"]
            x = torch.relu(x) if name == "Dense_0" else x
        return x

    leaves = jax.tree.map(lambda x: tensor(x).requires_grad_(), params)
    value = 0.0
    for i, x in enumerate(batch.features):
        on = torch.tensor(np.asarray(batch.mask[i]))
        x, labels = tensor(x)[on], torch.tensor(np.asarray(batch.labels[i]), dtype=torch.int64)[on]
        z = torch.nn.functional.normalize(layers(x, leaves.encoders[i]))
        distance = (layers(z, leaves.decoders[i]) - x).norm(dim=1).mean()
        scores = z @ leaves.directions.T
        value = value + 0.3 * distance
        value = value + 0.7 * (scores - torch.nn.functional.one_hot(labels, K)).norm(dim=1).mean()
    value.backward()
    after, metrics, _ = jax.jit(sdml().step)(H, start(), batch, 0)
    np.testing.assert_allclose(metrics["loss"], value.item(), rtol=1e-5)
    moments = after.optimizer[-1].mu  # of Adam after its first step: gradients by 1 - beta
    for found, expected in zip((moments.encoders, moments.decoders), (leaves.encoders, leaves.decoders), strict=True):
        for g, leaf in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(g / (1 - H.adam_betas[0]), leaf.grad.numpy(), atol=1e-5)


def test_directions_are_orthonormal_shared_and_never_trained():
    h = Hyperparameters(hidden_dims=(7,), embed_dim=L, weight_decay=0.5, clip_norm=0.1, numbers=H.numbers)
    state = first = start(h)
    step = jax.jit(sdml().step)
    np.testing.assert_allclose(first.params.directions @ first.params.directions.T, np.eye(K), atol=1e-6)
    for _ in range(3):
        state, _, _ = step(h, state, batch_of(), 0)
    np.testing.assert_array_equal(state.params.directions, first.params.directions)
    assert (
        state.params.encoders[0]["params"]["Dense_0"]["kernel"]
        != first.params.encoders[0]["params"]["Dense_0"]["kernel"]
    ).any()


def test_more_classes_than_dimensions_have_unit_directions():
    directions = start(classes=12).params.directions
    assert directions.shape == (12, L)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1.0, rtol=1e-6)


def test_every_modality_is_trained_alone():
    """The networks of one end with the same bits, whatever the other one is."""
    ends, step = [], jax.jit(sdml().step)
    for scale in (1.0, -30.0):
        batch = batch_of()
        batch = batch._replace(
            features=(batch.features[0], scale * batch.features[1]),
            labels=batch.labels.at[1].set(0),
            mask=batch.mask.at[1, 0].set(scale > 0),
        )
        state = start()
        for _ in range(3):
            state, _, _ = step(H, state, batch, 0)
        ends.append((state.params.encoders[0], state.params.decoders[0]))
    jax.tree.map(np.testing.assert_array_equal, *ends)


def test_without_decoders_embeddings_reach_the_directions_of_their_classes():
    config = toy_config(method="sdml", epochs=30, method_options=("reconstruction=0",))
    assert train(config, data=toy_arrays()).metrics[-1]["train"]["classes"] < 0.15  # two modalities; 2.3 at first


@pytest.mark.parametrize("modalities", [("sound", "touch"), ("sound", "touch", "smell")])
def test_it_retrieves_despite_wrong_labels(modalities):
    arrays = toy_arrays(modalities)
    result = train(toy_config(method="sdml", noise_rate=0.2, epochs=10), data=arrays)
    assert result.scores["test"]["last"]["average"] > 0.85
    assert min(result.metrics[-1]["valid"]["accuracy"].values()) > 0.85


def test_the_weight_of_the_decoders_is_a_share():
    with pytest.raises(InputError, match="reconstruction"):
        toy_config(method="sdml", method_options=("reconstruction=1.5",))
