"""Consensus: its loss against float64, one way through training, and labels that it must not read."""

import dataclasses
import gc
import json
import shutil
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import assert_same_checkpoints, lose, toy_arrays, toy_config

from mrl_jax import evaluate, grid, load_run, sweep, train
from mrl_jax.label_inference import vote_kernel
from mrl_jax.methods.augmentation import augment
from mrl_jax.methods.consensus import consensus
from mrl_jax.methods.mrl import Hyperparameters
from mrl_jax.methods.state import Batch, Shapes, TrainData
from mrl_jax.search.searcher import Query, Searcher
from mrl_jax.training.active_run import ActiveRun
from mrl_jax.training.prepare import prepared_samples
from mrl_jax.training.run_spec import prepare_data, prepare_run

H = Hyperparameters(beta=1.0, tau1=0.5, hidden_dims=(6,), embed_dim=5, learning_rate=0.0)
SHAPES = Shapes((4, 3), 3, 12)
RNG = np.random.default_rng(0)


def config_of(**more):
    return toy_config(method="consensus", **{"noise_rate": 0.4, **more})


def test_the_loss_is_the_weighted_cross_entropy_of_the_posterior():
    method = consensus()
    state = method.init(H, jax.random.key(0), SHAPES)
    q = RNG.dirichlet(np.ones(3), size=12).astype(np.float32)
    state = state._replace(samples=jnp.asarray(q))
    features = tuple(jnp.asarray(RNG.normal(size=(12, d)), jnp.float32) for d in SHAPES.dims)
    rows = jnp.arange(12)
    mask = np.ones((2, 12), bool)
    mask[1, 3] = False
    batch = Batch(features, jnp.zeros((2, 12), jnp.int32), jnp.asarray(mask), rows, state.samples)
    _, metrics, samples = method.step(H, state, batch, 0)
    assert samples is None
    expected, centers = 0.0, np.asarray(state.params.centers, np.float64)
    centers /= np.linalg.norm(centers, axis=1, keepdims=True)
    for i, x in enumerate(features):
        z = np.asarray(method.embed(H, state.params, i, x), np.float64)
        logits = z @ centers.T / 0.5
        log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        expected += (-(q * log_p).sum(axis=1) * q.max(axis=1))[mask[i]].sum() / 12
    assert float(metrics["loss"]) == pytest.approx(expected, rel=1e-5)


def test_clean_labels_are_not_read():
    """Noise that is injected, and the same labels given as the labels of the data: the same bits of training."""
    arrays = toy_arrays()
    spec = prepare_run(config := config_of(noise_rate=0.6), prepare_data(config, arrays))
    injected = train(config_of(noise_rate=0.6), data=arrays)
    given = {name: x for name, x in arrays.items() if name != "train_labels"}
    for name, labels in zip(("sound", "touch"), spec.labels, strict=True):
        given[f"train_{name}_labels"] = labels
    as_given = train(config_of(noise_rate=0.0), data=given)
    assert [m["train"] for m in injected.metrics] == [m["train"] for m in as_given.metrics]
    assert injected.scores["test"] == as_given.scores["test"]


@pytest.mark.slow
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("kind", ["symmetric", "pair-mismatch"])
def test_streaming_gives_the_same_numbers(kind, missing):
    arrays = toy_arrays()
    if missing:
        arrays["train_touch_mask"] = np.arange(60) % 7 != 2
    runs = [train(config_of(stream=s, noise_kind=kind), data=arrays) for s in ("on", "off")]
    samples = []
    for s in ("on", "off"):
        config = config_of(stream=s, noise_kind=kind)
        samples.append(prepared_samples(prepare_run(config, prepare_data(config, arrays))))
    np.testing.assert_allclose(*samples, atol=1e-5)
    assert runs[0].scores["test"]["last"]["map"] == pytest.approx(runs[1].scores["test"]["last"]["map"], abs=1e-6)


@pytest.mark.slow
def test_a_run_resumes_to_the_same_bits_and_is_evaluated_and_searched(tmp_path):
    arrays = toy_arrays()
    whole = train(config_of(), tmp_path / "whole", data=arrays, keep_checkpoints=True)
    train(config_of(), tmp_path / "again", data=arrays, keep_checkpoints=True)
    lose(tmp_path / "again", "result.json", "model.npz")
    epochs = sorted(int(p.name) for p in (tmp_path / "again" / "checkpoints").iterdir())
    for epoch in epochs[1:]:
        (tmp_path / "again" / "checkpoints" / str(epoch)).rename(tmp_path / f"moved-{epoch}")
    resumed = train(config_of(), tmp_path / "again", data=arrays, resume=True)
    assert resumed.metrics == whole.metrics
    assert_same_checkpoints(tmp_path / "whole", tmp_path / "again")
    assert whole.scores["kept"] == "last"
    assert "the model of the last epoch is kept" in whole.table()
    assert evaluate(tmp_path / "whole", data=arrays)["map"] == whole.scores["test"]["last"]["map"]
    assert evaluate(whole.run, data=arrays)["map"] == whole.scores["test"]["last"]["map"]
    best = evaluate(tmp_path / "whole", data=arrays, checkpoint="best")
    assert (best["epoch"], best["map"]) == tuple(whole.scores["test"]["best"][name] for name in ("epoch", "map"))
    shutil.copytree(tmp_path / "whole", tmp_path / "under way")
    lose(tmp_path / "under way", "result.json", "model.npz")
    assert load_run(tmp_path / "under way").epoch == len(whole.metrics)
    assert len(Searcher(tmp_path / "whole", data=arrays).answer(Query("row", "sound:test:0"))["results"]) == 10
    assert json.loads((tmp_path / "whole" / "config.json").read_text())["method"] == "consensus"


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["jit", "shard_map", "pmap"])
def test_eight_devices_give_the_numbers_of_one(parallel):
    one = train(config_of(batch_size=13), data=toy_arrays())
    eight = train(config_of(batch_size=13), data=toy_arrays(), parallel=parallel)
    for a, b in zip(eight.metrics, one.metrics, strict=True):
        assert a["train"] == pytest.approx(b["train"], rel=1e-4, abs=1e-4)


@pytest.mark.slow
def test_runs_of_a_sweep_infer_their_own_labels():
    configs = grid(config_of(), seed=[0, 1], noise_rate=[0.2, 0.6])
    found = sweep(configs, data=toy_arrays(), way="together")
    for config, outcome in zip(configs, found.runs.values(), strict=True):
        alone = train(config, data=toy_arrays())
        expected = alone.scores["test"]["last"]["average"]
        assert outcome.scores["test"]["last"]["average"] == pytest.approx(expected, abs=0.02)
    cell = found.summary()["cells"][0]
    assert (cell["kept"], cell["test"]["kept"]) == (["last"], cell["test"]["last"])
    assert "Test mAP at the last epoch, which the method keeps, mean" in found.markdown()


def test_the_kernel_of_the_features_is_shared_by_runs():
    config = config_of()
    data = prepare_data(config, toy_arrays())
    first = prepared_samples(prepare_run(config, data))
    assert set(data.shared) == {"vote_kernel"}
    kernel = data.shared["vote_kernel"]
    other = prepared_samples(prepare_run(config_of(seed=1), data))
    assert data.shared["vote_kernel"] is kernel
    assert np.abs(np.asarray(first) - np.asarray(other)).max() > 0.1
    moved = config_of(noise_kind="pair-mismatch")
    prepared_samples(prepare_run(moved, data))
    assert data.shared["vote_kernel"] is kernel  # pairs of another run: not shared


def test_long_runs_have_more_dropout_of_units():
    """60 instances in batches of 16 are 4 steps an epoch."""
    for epochs, rate in ((250, 0.0), (500, 0.15), (1000, 0.3), (9000, 0.3)):
        config = config_of(epochs=epochs)
        spec = prepare_run(config, prepare_data(config, toy_arrays()))
        assert spec.hyperparameters.hidden_dropout == pytest.approx(rate)
    config = config_of(epochs=9000, method_options=("hidden_dropout=0.1",))
    assert prepare_run(config, prepare_data(config, toy_arrays())).hyperparameters.hidden_dropout == 0.1


def test_a_single_run_frees_the_kernel_before_it_trains(monkeypatch):
    kernels, freed, add = [], [], ActiveRun.add

    def kept(*args):
        kernel = vote_kernel(*args)
        kernels.append(weakref.ref(kernel.basis))
        return kernel

    def after_an_epoch(self, *args):
        gc.collect()
        freed.append(kernels[0]() is None)
        return add(self, *args)

    monkeypatch.setattr("mrl_jax.methods.consensus.vote_kernel", kept)
    monkeypatch.setattr(ActiveRun, "add", after_an_epoch)
    train(config_of(epochs=2), data=toy_arrays())
    assert freed == [True, True]


def test_mixup_counts_the_posteriors_of_both_instances():
    """The loss of a batch in which instance j has a share of instance l, in float64."""
    method, h = consensus(), dataclasses.replace(H, mixup=0.5)
    state = method.init(h, jax.random.key(0), SHAPES)
    q = RNG.dirichlet(np.ones(3), size=12).astype(np.float32)
    features = tuple(jnp.asarray(RNG.normal(size=(12, d)), jnp.float32) for d in SHAPES.dims)
    batch = Batch(features, jnp.zeros((2, 12), jnp.int32), jnp.ones(12, bool), jnp.arange(12), jnp.asarray(q))
    _, metrics, _ = method.step(h, state, batch, 0)
    share = np.asarray(augment(h, batch, state.step, None).partners.share, np.float64)
    other, expected, centers = (np.arange(12) + 1) % 12, 0.0, np.asarray(state.params.centers, np.float64)
    centers /= np.linalg.norm(centers, axis=1, keepdims=True)
    for i, x in enumerate(features):
        mixed = (1 - share[:, None]) * x + share[:, None] * np.asarray(x)[other]
        z = np.asarray(method.embed(h, state.params, i, jnp.asarray(mixed, jnp.float32)), np.float64)
        logits = z @ centers.T / 0.5
        log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        weighted = q.max(axis=1, keepdims=True) * q
        target = (1 - share[:, None]) * weighted + share[:, None] * weighted[other]
        expected -= (target * log_p).sum() / 12
    assert float(metrics["loss"]) == pytest.approx(expected, rel=1e-5)


def test_dropout_needs_row_numbers():
    state = consensus().init(H, jax.random.key(0), SHAPES)
    data = TrainData(tuple(jnp.ones((12, d)) for d in SHAPES.dims), jnp.zeros((2, 12), jnp.int32))
    batch = Batch(data.features, data.labels, jnp.ones(12, bool), None, state.samples)
    h = Hyperparameters(hidden_dims=(6,), embed_dim=5, dropout=0.5)
    with pytest.raises(ValueError, match=r"dropout and mixup need the number of every instance; give Batch\(rows=…\)"):
        consensus().step(h, state, batch, 0)


def test_an_unknown_number_of_instances_is_named():
    with pytest.raises(ValueError, match="keeps a posterior of every training instance; give num_instances"):
        consensus().init(H, jax.random.key(0), Shapes((4, 3), 3))
