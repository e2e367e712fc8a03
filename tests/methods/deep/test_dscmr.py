"""DSCMR against plain loops in float64 and a transcription into PyTorch; the layers that modalities share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import toy_arrays, toy_config

from mrl_jax import InputError, train
from mrl_jax.methods.deep.dscmr import _outputs, dscmr, dscmr_terms
from mrl_jax.methods.deep.parts import Hyperparameters
from mrl_jax.methods.state import Batch, Shapes

B, L, K = 7, 5, 3
H = Hyperparameters(
    hidden_dims=(8, 6), embed_dim=L, numbers=(("discrimination", 0.4), ("invariance", 0.2)), learning_rate=0.01
)


def sample(m=2, seed=0):
    """Outputs, scores, labels, and which samples count."""
    rng = np.random.default_rng(seed)
    u = rng.normal(size=(m, B, L)).astype(np.float32)
    scores = rng.normal(size=(m, B, K)).astype(np.float32)
    valid = np.ones((m, B), bool)
    valid[0, 2] = valid[1, 4] = False
    valid[:, -1] = False
    labels = np.where(valid, rng.integers(0, K, (m, B)), 77).astype(np.int32)
    return u, scores, labels, valid


def definition(u, scores, labels, valid):
    """The three terms, one sample and one pair of samples after the other."""
    u, scores = np.asarray(u, np.float64), np.asarray(scores, np.float64)
    m = len(u)
    classes = pairs = apart = 0.0
    for a in range(m):
        own = [np.linalg.norm(scores[a, j] - np.eye(K)[labels[a, j]]) for j in range(B) if valid[a, j]]
        classes += np.mean(own)
        for b in range(a, m):
            losses = []
            for j in range(B):
                for t in range(B):
                    if valid[a, j] and valid[b, t]:
                        g = u[a, j] @ u[b, t] / np.linalg.norm(u[a, j]) / np.linalg.norm(u[b, t]) / 2
                        losses.append(np.log(1 + np.exp(g)) - (labels[a, j] == labels[b, t]) * g)
            pairs += np.mean(losses)
        for b in range(a + 1, m):
            apart += np.mean([np.linalg.norm(u[a, j] - u[b, j]) for j in range(B) if valid[a, j] and valid[b, j]])
    return classes, pairs, apart


def batch_of(seed=3):
    rng = np.random.default_rng(seed)
    features = tuple(jnp.asarray(rng.normal(size=(B, d)), jnp.float32) for d in (6, 4))
    _, _, labels, valid = sample()
    return Batch(features, jnp.asarray(labels), jnp.asarray(valid))


def start():
    return dscmr().init(H, jax.random.key(1), Shapes((6, 4), K))


@pytest.mark.parametrize("m", [2, 3])
def test_the_terms_are_those_of_the_paper(m):
    np.testing.assert_allclose(jax.jit(dscmr_terms)(*sample(m)), definition(*sample(m)), rtol=1e-5)


def test_the_terms_by_hand():
    u = np.array([[[2.0, 0.0]], [[0.0, 1.0]]], np.float32)
    scores = np.array([[[1.0, 0.0]], [[1.0, 1.0]]], np.float32)
    classes, pairs, apart = dscmr_terms(u, scores, np.zeros((2, 1), int), np.ones((2, 1), bool))
    assert float(classes) == pytest.approx(0.0 + 1.0)
    assert float(pairs) == pytest.approx(2 * (np.log(1 + np.exp(0.5)) - 0.5) + np.log(2))
    assert float(apart) == pytest.approx(5**0.5)


def test_samples_that_do_not_count_change_nothing():
    u, scores, labels, valid = sample()
    wild = np.where(valid[..., None], u, 1e6).astype(np.float32)
    terms = jax.jit(dscmr_terms)
    np.testing.assert_array_equal(terms(wild, scores, labels, valid), terms(u, scores, labels, valid))
    gradient = jax.jit(jax.grad(lambda u: sum(dscmr_terms(u, scores, labels, valid))))(wild)
    assert not np.asarray(gradient)[~valid].any()


@pytest.mark.parametrize("case", ["one", "none", "same", "zero", "one class"])
def test_extremes_are_finite(case):
    u, scores, labels, valid = sample()
    if case == "one":
        u, scores, labels, valid = (x[:, :1] for x in (u, scores, labels, valid))
    elif case == "none":
        valid = np.zeros_like(valid)
    elif case in ("same", "zero"):
        u, scores = (np.full_like(x, 0.0 if case == "zero" else 0.5) for x in (u, scores))
    else:
        labels = np.zeros_like(labels)
    both = jax.value_and_grad(lambda *x: sum(dscmr_terms(*x, labels, valid)), (0, 1))
    value, gradients = jax.jit(both)(u, scores)
    flat = np.concatenate([np.asarray(g).reshape(-1) for g in (value, *gradients)])
    assert np.isfinite(flat).all()
    assert flat.any() == (case != "none")


@pytest.mark.bench
def test_value_and_gradients_equal_pytorch():
    import torch

    batch, state = batch_of(), start()

    def tensor(x):
        return torch.tensor(np.asarray(x), dtype=torch.float64)

    def dense(x, tree, name="Dense_0"):
        return x @ tree["params"][name]["kernel"] + tree["params"][name]["bias"]

    params = jax.tree.map(lambda x: tensor(x).requires_grad_(), state.params)
    u, y = [], []
    for i, x in enumerate(batch.features):
        hidden = torch.relu(dense(tensor(x), params.encoders[i]))
        hidden = torch.relu(dense(hidden, params.encoders[i], "Dense_1"))
        u.append(dense(hidden, params.shared))
        y.append(torch.nn.functional.one_hot(torch.tensor(np.asarray(batch.labels[i]) % K).long(), K).double())
    on = torch.tensor(np.asarray(batch.mask))
    value = sum((a @ params.classifier - b).norm(dim=1)[o].mean() for a, b, o in zip(u, y, on, strict=True))
    for a, b in ((0, 0), (0, 1), (1, 1)):
        p, q = u[a][on[a]], u[b][on[b]]
        g = torch.nn.functional.normalize(p) @ torch.nn.functional.normalize(q).T / 2
        same = y[a][on[a]] @ y[b][on[b]].T
        value = value + 0.4 * ((1 + g.exp()).log() - same * g).mean()
    both = on[0] & on[1]
    value = value + 0.2 * (u[0][both] - u[1][both]).norm(dim=1).mean()
    value.backward()
    after, metrics, _ = jax.jit(dscmr().step)(H, state, batch, 0)
    np.testing.assert_allclose(metrics["loss"], value.item(), rtol=1e-5)
    moments = jax.tree.leaves(after.optimizer[-1].mu)  # of Adam after its first step: gradients by 1 - beta
    for g, leaf in zip(moments, jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(g / (1 - H.adam_betas[0]), leaf.grad.numpy(), atol=1e-5)


def test_hidden_layers_stand_per_modality_and_the_last_one_is_shared():
    params = start().params
    assert [p["params"]["Dense_0"]["kernel"].shape for p in params.encoders] == [(6, 8), (4, 8)]
    assert [p["params"]["Dense_1"]["kernel"].shape for p in params.encoders] == [(8, 6), (8, 6)]
    assert params.shared["params"]["Dense_0"]["kernel"].shape == (6, L)
    assert params.classifier.shape == (L, K)
    x = batch_of().features[1]
    hidden = x
    for name in ("Dense_0", "Dense_1"):
        layer = params.encoders[1]["params"][name]
        hidden = np.maximum(hidden @ layer["kernel"] + layer["bias"][None], 0.0)
    last = params.shared["params"]["Dense_0"]
    np.testing.assert_allclose(_outputs(H, params, 1, x), hidden @ last["kernel"] + last["bias"][None], atol=1e-6)


def test_the_class_of_an_embedding_is_that_of_the_classifier():
    params, x = start().params, batch_of().features[0]
    scores = _outputs(H, params, 0, x) @ params.classifier
    log_p = dscmr().assign(H, params, dscmr().embed(H, params, 0, x))
    np.testing.assert_array_equal(log_p.argmax(axis=1), scores.argmax(axis=1))
    np.testing.assert_allclose(np.exp(log_p).sum(axis=1), 1.0, rtol=1e-6)
    scaled = dscmr().assign(H, params._replace(classifier=100.0 * params.classifier), dscmr().embed(H, params, 0, x))
    np.testing.assert_allclose(scaled, log_p, rtol=1e-4)


def test_invariance_brings_the_samples_of_an_instance_together():
    ends = []
    for weight in (0, 10):
        config = toy_config(method="dscmr", epochs=5, method_options=(f"invariance={weight}",))
        ends.append(train(config, data=toy_arrays()).metrics[-1]["train"]["distance"])
    assert ends[1] < 0.3 * ends[0]


@pytest.mark.parametrize("modalities", [("sound", "touch"), ("sound", "touch", "smell")])
def test_it_retrieves_despite_wrong_labels(modalities):
    result = train(toy_config(method="dscmr", noise_rate=0.2, epochs=10), data=toy_arrays(modalities))
    assert result.scores["test"]["last"]["average"] > 0.85


def test_it_needs_a_hidden_layer():
    with pytest.raises(InputError, match="method dscmr shares the last layer; give hidden_dims"):
        toy_config(method="dscmr", hidden_dims=())
