"""The PyTorch programs of the benchmarks: the losses of ours over fifty steps, from the same parameters and batches."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrl_jax.train_step import Recipe, TrainData, epoch_batches, init_state, train_epoch

pytestmark = pytest.mark.bench
DIMS, CLASSES, N, B = (9, 7), 4, 102, 10


@pytest.mark.parametrize("name", ["Reference", "Best"])
def test_fifty_steps_have_the_losses_of_ours(name, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parent.parent / "experiments"), *sys.path])
    import pytorch_mrl

    rng = np.random.default_rng(0)
    features = [rng.normal(size=(N, d)).astype(np.float32) for d in DIMS]
    labels = rng.integers(0, CLASSES, (2, N)).astype(np.int32)
    recipe = Recipe(beta=0.7, tau1=0.8, tau2=0.6, hidden_dims=(16,), embed_dim=8, batch_size=B, learning_rate=1e-3,
                    schedule="constant", epochs=5)  # fmt: skip
    state = jax.jit(init_state, static_argnums=(2, 3))(recipe, jax.random.key(0), DIMS, CLASSES)
    model = pytorch_mrl.Model(DIMS, recipe.hidden_dims, recipe.embed_dim, CLASSES)
    model.load(state.encoders, state.centers)
    theirs = getattr(pytorch_mrl, name)(model, features, labels, B, 1e-3, (0.7, 0.8, 0.6))
    data, key = TrainData(tuple(map(jnp.asarray, features)), jnp.asarray(labels)), jax.random.key(1)
    epoch = jax.jit(train_epoch)
    for number in range(5):
        rows, mask = (np.asarray(x) for x in epoch_batches(jax.random.fold_in(key, number), N, B))
        state, metrics = epoch(state, data, key, number, recipe)
        losses = theirs.epoch([r[m] for r, m in zip(rows, mask, strict=True)])
        np.testing.assert_allclose(losses, metrics.loss, atol=1e-4)
    assert len(theirs.epoch()) == 11


def test_the_timings_run():
    script = Path(__file__).parent.parent / "experiments" / "training_timings.py"
    done = subprocess.run([sys.executable, str(script), "--smoke"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "least time / ours" in done.stdout
