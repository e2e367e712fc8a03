"""What holds for every method with networks: rows that do not count, several devices, resuming, sweeps."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from toy import assert_same_checkpoints, placement_of, save_npz, toy_arrays, toy_config

from mrl_jax import evaluate, grid, sweep, train
from mrl_jax.config import with_settings
from mrl_jax.methods.base import NEEDS
from mrl_jax.methods.registry import METHODS, entry_of, hyperparameters_of
from mrl_jax.methods.state import Batch, Shapes, TrainData
from mrl_jax.training import loop
from mrl_jax.training.epoch import train_step

DEEP = [name for name, module in METHODS.items() if ".deep." in str(module)]
B, DIMS, CLASSES = 16, (6, 4, 5), 3
REAL = 13  # instances of the batch that count


def config_of(name, **more):
    config = toy_config(method=name, **{"batch_size": 30, "epochs": 2, "noise_rate": 0.4, **more})
    small = {"embed_dim": 4, "tau1": 0.5, "tau2": 0.5}
    return with_settings(config, **{field: value for field, value in small.items() if config.has_effect(field)})


@functools.cache
def start(name, seed=0):
    """Method, hyperparameters, state and a batch with padding and a missing sample."""
    config, views = config_of(name), modalities_of(name)
    method, h = entry_of(name).method(config), hyperparameters_of(config)
    h = entry_of(name).for_steps(h, 10)
    state = jax.jit(method.init, static_argnums=(0, 2))(h, jax.random.key(seed), Shapes(DIMS[:views], CLASSES, B))
    rng = np.random.default_rng(seed)
    mask = np.broadcast_to(np.arange(B) < REAL, (views, B)).copy()
    mask[1, 2] = False
    features = tuple(jnp.asarray(rng.normal(size=(B, d)), jnp.float32) for d in DIMS[:views])
    labels = jnp.asarray(rng.integers(0, CLASSES, (views, B)), jnp.int32)
    batch = Batch(features, labels, jnp.asarray(mask), jnp.arange(B, dtype=jnp.int32))
    if method.refresh is not None:
        state = jax.jit(method.refresh)(h, state, TrainData(features, labels, jnp.asarray(mask)), EPOCH)
    return method, h, state, batch


EPOCH = 7  # beyond the warm-up of every method


def modalities_of(name):
    return 2 if "two modalities" in entry_of(name).method(toy_config(method=name)).needs else 3


def step_of(method, h, state, batch, axis_name=None):
    return train_step(method, h, state, batch, EPOCH, axis_name)


def close(a, b):
    """Moments, per-sample state and metrics agree up to the order of sums, so gradients do.

    Parameters need not: Adam divides a gradient by its size, also one that is rounding alone.
    """
    for x, y in zip(*map(jax.tree.leaves, ((s.optimizer, s.samples) for s in (a[0], b[0]))), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5)
    assert set(a[1]) == set(b[1])
    for name in a[1]:
        np.testing.assert_allclose(a[1][name], b[1][name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", DEEP)
def test_rows_that_do_not_count_change_nothing(name):
    method, h, state, batch = start(name)
    rng = np.random.default_rng(1)
    on = np.asarray(batch.mask)
    features = tuple(jnp.where(on[i][:, None], x, 5.0) for i, x in enumerate(batch.features))
    labels = jnp.where(on, batch.labels, jnp.asarray(rng.integers(0, CLASSES, on.shape)))
    other = batch._replace(features=features, labels=labels)
    step = jax.jit(functools.partial(step_of, method))
    before, after = step(h, state, batch), step(h, state, other)
    close(before, after)
    assert before[1]["instances"] == REAL
    pairs = zip(*map(jax.tree.leaves, (state.params, before[0].params)), strict=True)
    assert any(not np.array_equal(x, y) for x, y in pairs)


@pytest.mark.parametrize("name", DEEP)
def test_several_devices_give_the_step_of_one(name):
    method, h, state, batch = start(name)
    mesh, first, second = placement_of("shard_map", 4).mesh, PartitionSpec("batch"), PartitionSpec(None, "batch")
    specs = (PartitionSpec(), Batch(first, second, second, first))
    local = functools.partial(step_of, method, h, axis_name="batch")
    parts = jax.jit(jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=PartitionSpec()))(state, batch)
    close(jax.jit(functools.partial(step_of, method))(h, state, batch), parts)


@pytest.mark.parametrize("name", DEEP)
def test_a_batch_in_which_nothing_counts_moves_nothing_to_nan(name):
    method, h, state, batch = start(name)
    moved, metrics = jax.jit(functools.partial(step_of, method))(h, state, batch._replace(mask=batch.mask & False))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((moved.params, metrics)))


@pytest.mark.parametrize("name", DEEP)
def test_what_its_entry_declares(name):
    entry, config = entry_of(name), config_of(name)
    method = entry.method(config)
    assert entry.method(config_of(name)) is method
    assert method.needs <= set(NEEDS)
    assert ("representation" in entry.uses) == (method.assign is not None)
    _, h, state, batch = start(name)
    for i, x in enumerate(batch.features):
        z = method.embed(h, state.params, i, x)
        np.testing.assert_allclose(np.linalg.norm(z, axis=-1), 1.0, atol=1e-5)
        if method.assign is not None:
            np.testing.assert_allclose(np.exp(method.assign(h, state.params, z)).sum(axis=-1), 1.0, atol=1e-5)


@pytest.mark.parametrize("name", DEEP)
def test_a_method_says_whether_its_step_factorises_matrices(name):
    method, h, state, batch = start(name)
    program = str(jax.make_jaxpr(functools.partial(step_of, method))(h, state, batch))
    found = re.search(r"= (svd|cholesky|eigh|lu|qr|householder\w*)\b", program)
    assert method.factorises == (found is not None)


def arrays_of(name, missing=True):
    views = ("sound", "touch", "smell")[: modalities_of(name)]
    arrays = toy_arrays(views)
    if missing:
        arrays["train_touch_mask"] = np.arange(60) % 7 != 2
    return arrays


@pytest.mark.slow
@pytest.mark.parametrize("name", DEEP)
def test_a_run_is_evaluated_resumed_and_swept(name, tmp_path, monkeypatch):
    views = ("sound", "touch", "smell")[: modalities_of(name)]
    data = save_npz(tmp_path / "toy.npz", toy_arrays(views), train_touch_mask=np.arange(60) % 7 != 2)
    config = config_of(name, data_path=str(data), epochs=3)
    whole = train(config, tmp_path / "whole")
    assert evaluate(tmp_path / "whole")["map"] == whole.scores["test"][whole.scores["kept"]]["map"]
    with monkeypatch.context() as stop:
        stop.setattr(loop._Pace, "due", lambda self: True)
        stop.setattr(loop.ActiveRun, "add", _interrupted(loop.ActiveRun.add, 2))
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "cut")
    train(config, tmp_path / "cut", resume=True)
    assert_same_checkpoints(tmp_path / "whole", tmp_path / "cut")
    found = sweep(grid(config, seed=[0, 1]), tmp_path / "sweep")
    alone = next(run for run in found.runs.values() if run.config.seed == 0)
    for a, b in zip(alone.metrics, whole.metrics, strict=True):
        assert a["train"]["loss"] == pytest.approx(b["train"]["loss"], rel=1e-3, abs=1e-4)


def _interrupted(add, at):
    def interrupted(self, epoch, *rest):
        if epoch == at:
            raise KeyboardInterrupt
        return add(self, epoch, *rest)

    return interrupted
