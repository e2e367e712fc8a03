"""Training with losses that look beyond a sample: oracle noise, EMA targets, selected samples."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import assert_same_checkpoints, placement_of, toy_arrays, toy_config

from mrl_jax import InputError, load_run, sweep, train
from mrl_jax.errors import DatasetWarning
from mrl_jax.losses.mrl import cross_entropy_loss, soft_assignment
from mrl_jax.losses.robust.selected import clean_posterior
from mrl_jax.methods.mrl import mrl
from mrl_jax.sweep.sweep import grid
from mrl_jax.train_step import (
    Batch,
    OracleNoise,
    Recipe,
    TrainData,
    embed,
    epoch_batches,
    init_state,
    train_epoch,
    train_step,
)
from mrl_jax.training import loop
from mrl_jax.training.placement import epoch_program
from mrl_jax.training.run_spec import prepare_data, prepare_run

pytestmark = pytest.mark.slow
K, N, M, B = 3, 50, 2, 16
SMALL = Recipe(hidden_dims=(8,), embed_dim=6, batch_size=B, epochs=20, learning_rate=1e-2, tau1=0.5, tau2=0.5)
TRANSITION = np.full((M, K, K), 0.2, np.float32) + 0.4 * np.eye(K, dtype=np.float32)
ORACLE = OracleNoise(TRANSITION, np.full(M, 0.4, np.float32))
initial = jax.jit(init_state, static_argnums=(1, 2, 4))
run_epoch = jax.jit(train_epoch)


def problem(loss, masked=False, **options):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, K, N)
    given = np.where(rng.random((M, N)) < 0.4, rng.integers(0, K, (M, N)), labels)
    means = 2 * rng.normal(size=(M, K, 5))
    features = tuple(jnp.asarray(means[i][labels] + rng.normal(size=(N, 5)), jnp.float32) for i in range(M))
    mask = jnp.asarray(rng.random((M, N)) > 0.1) if masked else None
    recipe = dataclasses.replace(
        SMALL, loss=loss, noise=ORACLE if loss in ("forward", "small-loss") else None, **options
    )
    return (
        TrainData(features, jnp.asarray(given, jnp.int32), mask),
        recipe,
        initial(jax.random.key(0), (5, 5), K, recipe, N),
    )


def batch_of(data, rows, mask=None):
    mask = jnp.ones(len(rows), bool) if mask is None else mask
    return Batch(tuple(x[rows] for x in data.features), data.labels[:, rows], mask, rows)


def clean_samples(state, data, recipe):
    """What the GMM split trusts after its warmup, [M, N]."""
    return mrl("gmm").refresh(recipe, state, data, 100).samples.T


def losses_of(state, data, rows, tau=0.5):
    """Per-sample cross-entropy [M, B], and the probabilities of all classes [M, B, K]."""
    z = embed(state.params.encoders, [x[rows] for x in data.features], SMALL)
    centers = state.params.centers / jnp.linalg.norm(state.params.centers, axis=1, keepdims=True)
    ce = [cross_entropy_loss(x, centers, y, tau) for x, y in zip(z, data.labels[:, rows], strict=True)]
    return jnp.stack(ce), jnp.stack([soft_assignment(x, centers, tau) for x in z])


@pytest.mark.parametrize("loss", ["gce", "forward", "elr", "small-loss", "gmm"])
def test_a_loss_of_every_kind_learns_the_classes(loss):
    data, recipe, state = problem(loss, beta=1.0, loss_options=(("warmup", 2.0),) if loss == "gmm" else ())
    clean = data._replace(labels=jnp.tile(np.random.default_rng(0).integers(0, K, N), (M, 1)))
    before, _ = losses_of(state, clean, np.arange(N))
    for epoch in range(12):
        state, steps = run_epoch(state, data, jax.random.key(1), epoch, recipe)
        assert np.isfinite(steps["loss"]).all()
    after, _ = losses_of(state, clean, np.arange(N))
    assert after.mean() < 0.8 * before.mean()


# What a step uses


def test_targets_of_the_batch_are_updated_and_no_others():
    data, recipe, state = problem("elr", loss_options=(("momentum", 0.6),))
    rows = jnp.array([7, 3, 11, 0, 0])
    counted = jnp.array([True, True, True, False, False])  # padding names row 0
    _, p = losses_of(state, data, rows)
    found, _ = train_step(state, batch_of(data, rows, counted), recipe)
    expected = np.zeros((M, N, K))
    expected[:, [7, 3, 11]] = 0.4 * p[:, :3]
    np.testing.assert_allclose(np.swapaxes(found.samples, 0, 1), expected, rtol=1e-5, atol=1e-6)


def test_a_missing_sample_keeps_its_targets():
    data, recipe, state = problem("elr")
    rows, mask = jnp.arange(4), jnp.array([[True, False, True, True], [True, True, True, False]])
    found, _ = train_step(state, batch_of(data, rows, mask), recipe)
    np.testing.assert_array_equal((found.samples[:4] > 0).all(axis=-1), mask.T)


def test_small_loss_drops_more_from_epoch_to_epoch():
    data, recipe, state = problem("small-loss", beta=1.0, loss_options=(("ramp", 4.0),))
    rows = jnp.arange(20)
    losses, _ = losses_of(state, data, rows)
    for epoch, kept in ((0, 20), (2, 16), (4, 12), (9, 12)):  # 0.4 of 20 are wrong
        _, metrics = train_step(state, batch_of(data, rows), recipe, epoch)
        expected = np.sort(losses, axis=1)[:, :kept].mean(axis=1).sum()
        np.testing.assert_allclose(metrics["clustering"], expected, rtol=1e-5)


def test_clean_samples_are_those_of_the_posterior_and_count_alone():
    data, recipe, state = problem("gmm", masked=True, beta=1.0, loss_options=(("warmup", 1.0),))
    for epoch in range(3):
        state, _ = run_epoch(state, data, jax.random.key(1), epoch, recipe)
    losses, _ = losses_of(state, data, jnp.arange(N))
    clean = jnp.stack([clean_posterior(t, v) > 0.5 for t, v in zip(losses, data.mask, strict=True)])
    found = jax.jit(clean_samples)(state, data, recipe)
    np.testing.assert_array_equal(found, clean)
    assert not np.any(found & ~data.mask)
    assert 0 < found.sum() < data.mask.sum()

    key = jax.random.key(1)
    rows, there = (x[0] for x in epoch_batches(jax.random.fold_in(key, 3), N, B))
    mask = data.mask[:, rows] & there[None]
    _, metrics = run_epoch(state, data, key, 3, recipe)
    kept = found[:, rows] & mask
    means = (jnp.where(kept, losses[:, rows], 0.0).sum(axis=1) / kept.sum(axis=1)) * mask.sum(axis=1)
    np.testing.assert_allclose(metrics["clustering"][0], means.sum() / mask.any(axis=0).sum(), rtol=1e-5)


def test_all_samples_count_while_the_mixture_warms_up():
    data, recipe, state = problem("gmm", loss_options=(("warmup", 2.0),))
    plain = dataclasses.replace(recipe, loss="ce", loss_options=())
    for epoch, same in ((1, True), (2, False)):
        a, b = (run_epoch(state, data, jax.random.key(1), epoch, r)[1]["clustering"] for r in (recipe, plain))
        assert np.allclose(a, b, rtol=1e-5) == same


def test_swapped_partners_are_judged_by_the_label_beside_them():
    data, recipe, state = problem("gmm")
    partners = jnp.stack([jnp.arange(N), jnp.roll(jnp.arange(N), 5)]).astype(jnp.int32)
    moved = data._replace(partners=partners)
    laid_out = data._replace(features=(data.features[0], data.features[1][partners[1]]))
    np.testing.assert_array_equal(clean_samples(state, moved, recipe), clean_samples(state, laid_out, recipe))


def test_what_a_loss_lacks_is_named():
    data, recipe, state = problem("ce")
    batch = batch_of(data, jnp.arange(4))
    for loss in ("forward", "small-loss"):
        with pytest.raises(ValueError, match="OracleNoise"):
            train_step(state, batch, dataclasses.replace(recipe, loss=loss))
    with pytest.raises(ValueError, match="num_instances"):
        init_state(jax.random.key(0), (5, 5), K, dataclasses.replace(recipe, loss="elr"))
    _, elr, targets = problem("elr")
    with pytest.raises(ValueError, match="rows"):
        train_step(targets, batch._replace(rows=None), elr)
    with pytest.raises(ValueError, match="unknown loss 'no'"):
        train_step(state, batch, dataclasses.replace(recipe, loss="no"))


def test_a_loss_with_oracle_noise_warns_if_there_is_none():
    with pytest.warns(DatasetWarning, match="forward is plain cross-entropy here: no noise .* --assumed-noise"):
        prepare_run(config := toy_config(loss="forward"), prepare_data(config, toy_arrays()))
    prepare_run(config := toy_config(loss="forward", assumed_noise=0.2), prepare_data(config, toy_arrays()))


def test_a_warmup_as_long_as_the_run_warns():
    with pytest.warns(
        DatasetWarning, match="gmm is plain cross-entropy here: its warmup of 5 epochs takes all 4; give"
    ):
        prepare_run(config := toy_config(loss="gmm", epochs=4), prepare_data(config, toy_arrays()))
    config = toy_config(loss="gmm", epochs=4, loss_options=("warmup=3",))
    prepare_run(config, prepare_data(config, toy_arrays()))  # warnings are errors


def test_noise_that_leaves_a_class_without_labels_trains():
    # Seed 3 maps all of class 0, the label that masked rows have, onto another: a column of zeros.
    config = toy_config(loss="forward", noise_kind="asymmetric", noise_rate=1.0, seed=3)
    spec = prepare_run(config, prepare_data(config, toy_arrays()))
    assert (spec.hyperparameters.noise.transition[:, :, 0] == 0).all(axis=1).any()
    assert np.isfinite([line["train"]["loss"] for line in train(config, data=toy_arrays()).metrics]).all()


# Several devices


@pytest.mark.parametrize("loss", ["elr", "small-loss", "gmm", "forward"])
def test_an_epoch_on_eight_devices_gives_the_numbers_of_one(loss):
    options = {"gmm": (("warmup", 1.0),), "small-loss": (("ramp", 1.0),)}.get(loss, ())
    data, recipe, start = problem(loss, masked=True, loss_options=options, learning_rate=1e-3)
    key, state = jax.random.key(1), start
    for epoch in range(2):
        state, expected = run_epoch(state, data, key, epoch, recipe)
    for mode in ("jit", "shard_map", "pmap"):
        placement = placement_of(mode)
        found, arguments = placement.place(jax.device_get(start)), placement.place((data, key))
        for epoch in range(2):
            found, metrics, _ = epoch_program(mrl(loss), placement, B)(found, *arguments, epoch, recipe)
        np.testing.assert_allclose(metrics["loss"], expected["loss"], rtol=1e-4, atol=1e-5, err_msg=mode)
        for a, b in zip(jax.tree.leaves(placement.own(found)), jax.tree.leaves(state), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5, err_msg=mode)


# Runs


def test_the_oracle_noise_is_the_one_injected_or_the_one_assumed(tmp_path):
    arrays = toy_arrays()
    oracle = {}
    for kind in ("symmetric", "asymmetric", "cyclic", "nearest-class", "instance-dependent"):
        config = toy_config(noise_rate=0.6, noise_kind=kind, loss="forward")
        spec = prepare_run(config, prepare_data(config, arrays))
        oracle[kind] = spec.hyperparameters.noise
        assert oracle[kind].transition.shape == (2, K, K)
        np.testing.assert_allclose(oracle[kind].transition.sum(axis=-1), 1.0, rtol=1e-5)
        given, clean = spec.labels, np.arange(60) % K
        np.testing.assert_allclose(oracle[kind].wrong_share, (given != clean).mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(oracle["symmetric"].transition[0], 0.4 * np.eye(K) + 0.2, rtol=1e-5)
    counts = np.zeros((K, K))  # of the last one, whose flips no matrix tells
    np.add.at(counts, (clean, given[1]), 1)
    np.testing.assert_allclose(
        oracle["instance-dependent"].transition[1], counts / counts.sum(axis=1)[:, None], rtol=1e-5
    )
    config = toy_config(loss="small-loss", assumed_noise=0.3)
    assumed = prepare_run(config, prepare_data(config, arrays)).hyperparameters.noise
    np.testing.assert_allclose(assumed.wrong_share, [0.3, 0.3])
    np.testing.assert_allclose(assumed.transition[0], 0.55 * np.eye(K) + 0.15, rtol=1e-5)
    train(toy_config(noise_rate=0.6, epochs=1), tmp_path / "drawn", data=arrays)
    config = toy_config(loss="forward", noise_file=str(tmp_path / "drawn" / "noise.json"))
    counted = prepare_run(config, prepare_data(config, arrays)).hyperparameters.noise
    assert np.abs(counted.transition - oracle["symmetric"].transition).max() < 0.2
    assert 0.3 < counted.wrong_share.mean() < 0.5


@pytest.mark.parametrize("loss", ["elr", "small-loss", "forward"])
def test_streamed_runs_equal_resident_ones(loss, tmp_path):
    for stream in ("on", "off"):
        config = toy_config(loss=loss, stream=stream, noise_rate=0.4)
        train(config, tmp_path / stream, data=toy_arrays())
    assert_same_checkpoints(tmp_path / "on", tmp_path / "off")


def test_a_mixture_cannot_stream():
    config = toy_config(loss="gmm", stream="on")
    with pytest.raises(InputError, match="--stream off"):
        train(config, data=toy_arrays())


@pytest.mark.parametrize("loss", ["elr", "gmm", "small-loss"])
def test_runs_together_have_the_numbers_of_each_alone(loss):
    base = toy_config(noise_rate=0.4, loss=loss, epochs=4, loss_options=("warmup=2",) if loss == "gmm" else ())
    configs = grid(base, noise_rate=[0.2, 0.6], seed=[0, 1])
    together = sweep(configs, data=toy_arrays(), way="together")
    for config, outcome in zip(configs, together.runs.values(), strict=True):
        alone = train(config, data=toy_arrays())
        for a, b in zip(outcome.metrics, alone.metrics, strict=True):
            assert a["train"] == pytest.approx(b["train"], rel=1e-3, abs=1e-3)
        assert outcome.scores["trained_together"] == 4


def test_targets_are_kept_in_checkpoints(tmp_path):
    config = toy_config(loss="elr", noise_rate=0.4)
    whole = train(config, tmp_path / "whole", data=toy_arrays())
    folder = tmp_path / "stopped"
    stop = pytest.MonkeyPatch()
    stop.setattr(loop._Pace, "due", lambda self: True)
    stop.setattr(loop.ActiveRun, "add", _interrupted(loop.ActiveRun.add, 2))
    with pytest.raises(KeyboardInterrupt):
        train(config, folder, data=toy_arrays())
    stop.undo()
    resumed = train(config, folder, data=toy_arrays(), resume=True)
    assert [line["train"] for line in resumed.metrics] == [line["train"] for line in whole.metrics]
    assert_same_checkpoints(tmp_path / "whole", folder)
    (folder / "model.npz").unlink()
    assert load_run(folder).epoch == load_run(tmp_path / "whole").epoch


def _interrupted(add, at):
    def interrupted(self, epoch, *rest):
        if epoch == at:
            raise KeyboardInterrupt
        return add(self, epoch, *rest)

    return interrupted
