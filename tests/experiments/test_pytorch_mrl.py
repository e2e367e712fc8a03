"""The PyTorch programs of the benchmarks: the losses of ours over fifty steps, from the same parameters and batches."""

import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import toy_arrays, toy_config

from mrl_jax import train
from mrl_jax.train_step import Recipe, TrainData, epoch_batches, init_state, learning_rate_at, train_epoch
from mrl_jax.training.run_spec import prepare_data, prepare_run

pytestmark = pytest.mark.bench
ROOT = Path(__file__).parents[2]
DIMS, CLASSES, N, B = (9, 7), 4, 102, 10


def command(name, *flags):
    """A benchmark in a process of its own."""
    started = [sys.executable, "-m", f"experiments.benchmarks.{name}", *flags]
    return subprocess.run(started, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.filterwarnings("ignore:::torch")  # of its compiler's own code
@pytest.mark.parametrize("name", ["Reference", "Best", "Compiled"])
def test_fifty_steps_have_the_losses_of_ours(name):
    from experiments.benchmarks import pytorch_mrl

    rng = np.random.default_rng(0)
    features = [rng.normal(size=(N, d)).astype(np.float32) for d in DIMS]
    labels = rng.integers(0, CLASSES, (2, N)).astype(np.int32)
    recipe = Recipe(beta=0.7, tau1=0.8, tau2=0.6, hidden_dims=(16,), embed_dim=8, batch_size=B, learning_rate=1e-3,
                    schedule="constant", epochs=5)  # fmt: skip
    state = jax.jit(init_state, static_argnums=(1, 2))(jax.random.key(0), DIMS, CLASSES, recipe)
    model = pytorch_mrl.Model(DIMS, recipe.hidden_dims, recipe.embed_dim, CLASSES)
    model.load(state.params.encoders, state.params.centers)
    theirs = getattr(pytorch_mrl, name)(model, features, labels, B, 1e-3, (0.7, 0.8, 0.6))
    data, key = TrainData(tuple(map(jnp.asarray, features)), jnp.asarray(labels)), jax.random.key(1)
    epoch = jax.jit(train_epoch)
    for number in range(5):
        rows, mask = (np.asarray(x) for x in epoch_batches(jax.random.fold_in(key, number), N, B))
        state, metrics = epoch(state, data, key, number, recipe)
        losses = theirs.epoch([r[m] for r, m in zip(rows, mask, strict=True)])
        np.testing.assert_allclose(losses, metrics["loss"], atol=1e-4)
    assert len(theirs.epoch()) == 11


@pytest.mark.parametrize(("name", "expected"), [("training", "least time / ours"), ("sweep", "together / alone")])
def test_the_timings_run(name, expected):
    done = command(f"{name}_timings", "--smoke")
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout


def test_the_benchmark_beside_pytorch_runs():
    done = command("benchmark_pytorch", "--smoke")
    assert done.returncode == 0, done.stderr
    for what in ("epoch", "scored", "run of 2 epochs", "start", "first start", "memory"):
        assert f"| smoke | {what} | " in done.stdout


def gpu_check(*flags, **environment):
    script = ROOT / "experiments" / "gpu_check.sh"
    env = {**os.environ, "PYTHON": sys.executable, "JAX_PLATFORMS": "cpu", **environment}
    return subprocess.run(["bash", str(script), *flags], env=env, capture_output=True, text=True, check=False)


def test_the_gpu_check_runs_on_a_cpu_at_small_size():
    done = gpu_check("--smoke")
    assert done.returncode == 0, done.stderr
    for found in (
        "GB/s",
        "embeddings",
        "best PyTorch / ours",
        "reference PyTorch / ours",
        "together",
        "300 x 300",
        "MB",
    ):
        assert found in done.stdout
    numbers = re.findall(r"parity \| tiny, float32 \| loss (\S+) relative, embeddings (\S+)", done.stdout)[0]
    assert max(map(float, numbers)) == 0  # the device is the CPU
    assert "| pytorch | best | Best on cpu |" in done.stdout
    assert re.search(r"ms a step; least time [\d.e-]+ of it \(memory", done.stdout)
    assert re.search(r"runs \| tiny, 3 epochs \| [\d.]+ s", done.stdout)


def test_the_gpu_check_leaves_out_parts_whose_packages_are_missing_and_reports_what_failed(tmp_path):
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError('none', name='torch')")
    (tmp_path / "optax.py").write_text("raise RuntimeError('broken')")
    done = gpu_check("--smoke", "--parts", "pytorch", "contrastive", "parity", PYTHONPATH=str(tmp_path))
    assert "| pytorch | - | needs torch, which is not installed |" in done.stdout
    assert "600 instances" in done.stdout
    assert "| parity | - | exit code 1 |" in done.stdout
    assert done.returncode == 1
    assert "failed: parity" in done.stderr
    refused = gpu_check()
    assert refused.returncode == 1
    assert "no accelerator is visible to JAX" in refused.stderr


def test_what_the_gpu_check_found_in_part_is_shown_and_far_numbers_fail(monkeypatch):
    from experiments.benchmarks import gpu_check as check
    from experiments.benchmarks import gpu_parts

    parts = {
        "ours": {"tiny": {"float32": {"epoch_seconds": 0.5}, "tf32": {"epoch_seconds": 0.25}}},
        "pytorch": {"device": "cuda", "best": "Graphed", "tiny": {"float32": {"epoch_seconds": 1.0}}, "failed": "slow"},
        "runs": {"tiny": {"seconds": 2.0, "epochs": 3}},
    }
    rows = check.rows_of({"parts": parts})
    assert ["pytorch", "-", "slow"] in rows
    assert ["step", "tiny, float32", "100 ms a step; best PyTorch / ours 2.00"] in rows
    assert ["step", "tiny, tf32", "50 ms a step"] in rows
    assert ["runs", "tiny, 3 epochs", "2 s; training alone by the best PyTorch / ours 1.50"] in rows
    monkeypatch.setattr(gpu_parts, "PARITY", dict.fromkeys(gpu_parts.PRECISIONS, (-1.0, -1.0)))
    assert gpu_parts.parity(smoke=True)["failed"].startswith("too far from the CPU: tiny, float32")
    assert check.child("pytorch", smoke=False) == {"skipped": "this PyTorch sees no GPU"}


def test_steps_before_a_graph_is_recorded_are_taken_back():
    import torch

    from experiments.benchmarks import pytorch_mrl

    rng = np.random.default_rng(0)
    features, labels = [rng.normal(size=(20, d)).astype(np.float32) for d in DIMS], np.zeros((2, 20), int)
    model = pytorch_mrl.Model(DIMS, (8,), 4, CLASSES)
    program = pytorch_mrl.Graphed(model, features, labels, 8, 1e-2, (0.7, 1.0, 1.0))
    rows = [torch.arange(8), torch.arange(8, 16)]
    for steps in range(2):
        before = program.snapshot()
        losses = []
        for _ in range(2):
            losses.append([float(pytorch_mrl.Best.train_rows(program, r)) for r in rows])
            program.restore(before)
        assert losses[0] == losses[1], steps
        pytorch_mrl.Best.train_rows(program, rows[0])


def test_a_recorded_graph_leaves_the_last_batch_to_the_steps_before_it():
    import torch

    from experiments.benchmarks import pytorch_mrl

    class Recorded:  # what is left of a capture, where there is no GPU
        def replay(self):
            program.replayed = torch.tensor(7.0)

    rng = np.random.default_rng(0)
    features, labels = [rng.normal(size=(20, d)).astype(np.float32) for d in DIMS], np.zeros((2, 20), int)
    program = pytorch_mrl.Graphed(pytorch_mrl.Model(DIMS, (8,), 4, CLASSES), features, labels, 8, 1e-2, (0.7, 1.0, 1.0))
    program.graph, program.rows = Recorded(), torch.arange(8)
    losses = program.epoch([np.arange(8), np.arange(8, 16), np.arange(16, 20)])
    assert losses[:2] == [7.0, 7.0]
    assert np.isfinite(losses[2])
    np.testing.assert_array_equal(program.rows, np.arange(8, 16))


def test_map_of_both_programs_is_ours():
    import torch

    from experiments.benchmarks import pytorch_mrl
    from mrl_jax import mean_average_precision

    rng = np.random.default_rng(0)
    queries, gallery = (rng.normal(size=(n, 5)).astype(np.float32) for n in (30, 40))
    queries, gallery = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, gallery))
    labels = rng.integers(0, 4, 30), rng.integers(0, 3, 40)  # of one class there is none in the gallery
    expected = mean_average_precision(queries, gallery, *labels)
    assert pytorch_mrl.mean_ap_in_loops(queries, gallery, *labels) == pytest.approx(expected, abs=1e-6)
    found = pytorch_mrl.mean_ap(*map(torch.tensor, (queries, gallery, *labels)))
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", ["Reference", "Best"])
def test_a_whole_run_ends_as_ours(name):
    from experiments.benchmarks import pytorch_mrl

    arrays = toy_arrays()
    task = prepare_run(config := toy_config(noise_rate=0.4, epochs=6), prepare_data(config, arrays))
    ours = train(config, data=arrays)
    model = pytorch_mrl.Model(task.shapes.dims, (16,), 8, 3)
    dims, classes, instances = task.shapes
    start = jax.jit(init_state, static_argnums=(1, 2, 4))(task.init_key, dims, classes, task.hyperparameters, instances)
    model.load(start.params.encoders, start.params.centers)
    objective = config.beta, task.config.tau1, task.config.tau2
    program = getattr(pytorch_mrl, name)(model, task.data.features, task.labels, 16, config.learning_rate, objective)
    held_out = {
        split: ([np.array(x) for x in task.data.held_out[split].values()], arrays[f"{split}_labels"])
        for split in ("valid", "test")
    }

    def rows_of(epoch):
        rows, mask = epoch_batches(jax.random.fold_in(task.batch_key, epoch), 60, 16)
        return [np.asarray(r)[np.asarray(m)] for r, m in zip(rows, mask, strict=True)]

    found = program.run(held_out, 6, lambda epoch: float(learning_rate_at(task.hyperparameters, epoch)), rows_of)
    assert found["valid"] == pytest.approx([line["valid"]["average"] for line in ours.metrics], abs=2e-3)
    for which in ("best", "last"):
        assert found["test"][which] == pytest.approx(list(ours.scores["test"][which]["map"].values()), abs=2e-3)
