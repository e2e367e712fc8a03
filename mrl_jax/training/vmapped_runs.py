"""Several runs as one compiled program: `vmap` over runs, the run axis over all devices, no communication.

Shape letters: R runs, the last ones repeated so that devices have equally many; others as in `train_step`.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mrl_jax.errors import NonFiniteLossError
from mrl_jax.eval.evaluate import score
from mrl_jax.losses.tiled_logsumexp import TILE
from mrl_jax.run.checkpoint import Snapshot
from mrl_jax.run.run import embed_rows
from mrl_jax.training.placement import all_finite, compile_training
from mrl_jax.training.run_spec import Task
from mrl_jax.training.train_step import (
    Recipe,
    StepMetrics,
    TrainData,
    TrainState,
    Weights,
    init_state,
    train_epoch,
)

__all__ = ["ManyRuns", "bytes_of_a_run"]

_SHARED, _OWN = PartitionSpec(), PartitionSpec("run")
_ROWS = 4096  # that all runs of a device embed at once


class ManyRuns:
    """What `loop.train_epochs` drives: runs that share data and all static parts of their recipes.

    Args:
        tasks: the runs; same `TaskData`, which is resident, same structure of `recipe`.
        devices: where; each takes an equal number of them.
    """

    def __init__(self, tasks: Sequence[Task], devices: Sequence[Any]) -> None:
        self._tasks, self._data = tasks, tasks[0].data
        mesh = Mesh(np.array(devices), ("run",))
        self._own, self._shared = NamedSharding(mesh, _OWN), NamedSharding(mesh, _SHARED)
        self._programs = _programs(mesh)
        self._padded = [*tasks, *[tasks[-1]] * (-len(tasks) % len(devices))]

        features = jax.device_put(self._data.features, self._shared)
        n = tasks[0].labels.shape
        masks = [t.mask for t in self._padded]
        partners = [np.broadcast_to(np.arange(n[1]), n) if t.partners is None else t.partners for t in self._padded]
        moved = any(t.partners is not None for t in tasks)
        self._train = TrainData(
            features,
            self._stacked([t.labels for t in self._padded]),
            None if masks[0] is None else self._stacked(masks),
            self._stacked(partners) if moved else None,
        )
        self._keys = jax.device_put(jnp.stack([t.batch_key for t in self._padded]), self._own)
        recipes = [t.recipe for t in self._padded]
        self._recipes: Recipe = jax.tree.map(lambda *x: self._stacked([np.float32(v) for v in x]), *recipes)
        self._held_out = {
            split: {m: jax.device_put(x, self._shared) for m, x in samples.items()}
            for split, samples in self._data.held_out.items()
        }
        self._state: TrainState
        self._best: Weights

    def _stacked(self, arrays: Sequence[Any]) -> Array:
        return jax.device_put(np.stack(arrays), self._own)

    def begin(self, snapshots: Sequence[Snapshot | None]) -> None:
        """Start all runs from snapshots of the same epoch, or anew."""
        if snapshots[0] is None:
            keys = jax.device_put(jnp.stack([t.init_key for t in self._padded]), self._own)
            self._state = self._programs.init(self._recipes, keys, *self._tasks[0].sizes)
            self._best = jax.tree.map(jnp.array, self._state.weights)
        else:
            padded = [*snapshots, *list(snapshots)[-1:] * (len(self._padded) - len(snapshots))]
            read = jax.tree.map(lambda *x: self._stacked(x), *[(s.state, s.best) for s in padded])  # type: ignore[union-attr]
            self._state, self._best = read

    def run_epoch(self, epoch: int) -> tuple[StepMetrics, np.ndarray]:
        """Train one epoch, counted from 0: metrics of the steps [R, S], whether all parameters are finite [R]."""
        self._state, steps, finite = self._programs.epoch(self._state, self._train, self._keys, epoch, self._recipes)
        return jax.device_get(steps), jax.device_get(finite)

    def keep_best(self, which: Sequence[bool]) -> None:
        """Keep the weights of these runs as their best so far."""
        if any(which):
            chosen = np.zeros(len(self._padded), bool)
            chosen[: len(which)] = which
            self._best = _choose(self._best, self._state.weights, jax.device_put(chosen, self._own))

    def score(self, split: str, best: bool = False) -> list[dict[str, Any] | NonFiniteLossError]:
        """Scores of every run on valid (noisy labels if it asks for them) or test, or why there are none."""
        encoders, centers = self._best if best else self._state.weights
        block = max(1, _ROWS * len(self._own.device_set) // len(self._padded))
        z = [
            _by_run(self._programs.embed(self._recipes, encoder, x, block))
            for encoder, x in zip(encoders, self._held_out[split].values(), strict=True)
        ]
        found: list[dict[str, Any] | NonFiniteLossError] = []
        own = _by_run(centers)
        for i, task in enumerate(self._tasks):
            rows_of = {m: rows[i] for m, rows in zip(self._data.kinds, z, strict=True)}
            try:
                found.append(score(rows_of, task.held_out[split], own[i]))
            except NonFiniteLossError as error:
                found.append(error)
        return found

    def snapshot(self, run: int = 0) -> Snapshot:
        """What a checkpoint of a run holds."""
        state, best = jax.tree.map(lambda x: _entry(x, run), (self._state, self._best))
        return Snapshot(state, best, self._data.stats)


def bytes_of_a_run(task: Task) -> int:
    """Bytes of device memory that a run needs beside the features, rather more than less.

    Parameters, two moments, gradient, update, best weights; layers of a batch, forward and backward; tiles of the
    contrastive loss; held-out rows.
    """
    config = task.config
    state = jax.eval_shape(lambda: init_state(task.recipe, jax.random.key(0), *task.sizes))
    weights = sum(x.size for x in jax.tree.leaves(state.weights))
    targets = 0 if state.targets is None else 2 * state.targets.size
    widths = sum(task.dims) + len(task.dims) * (sum(config.hidden_dims) + config.embed_dim)
    tile = min(len(task.dims) * config.batch_size, TILE) ** 2
    held_out = sum(len(x) for x in task.data.held_out["test"].values()) * config.embed_dim
    return 4 * (6 * weights + targets + 4 * config.batch_size * widths + 4 * tile + 2 * held_out)


class _Programs(NamedTuple):
    init: Callable[..., TrainState]
    epoch: Callable[..., tuple[TrainState, StepMetrics, Array]]
    embed: Callable[..., Array]


@functools.cache  # groups of one size compile once
def _programs(mesh: Mesh) -> _Programs:
    def on_devices(f: Callable[..., Any], specs: Any) -> Callable[..., Any]:
        # Each device works on its runs alone, so there is nothing whose replication had to be tracked.
        return jax.shard_map(f, mesh=mesh, in_specs=specs, out_specs=_OWN, check_vma=False)

    @functools.partial(jax.jit, static_argnums=(2, 3, 4))
    def init(recipes: Recipe, keys: Array, *sizes: Any) -> TrainState:
        def own(recipes: Recipe, keys: Array) -> TrainState:  # one by one: the bits of a run alone
            return jax.lax.map(lambda one: init_state(one[0], one[1], *sizes), (recipes, keys))

        return on_devices(own, (_OWN, _OWN))(recipes, keys)

    @compile_training
    def epoch(
        state: TrainState, data: TrainData, keys: Array, number: int, recipes: Recipe
    ) -> tuple[TrainState, StepMetrics, Array]:
        def own(state: TrainState, data: TrainData, key: Array, number: int, recipe: Recipe) -> Any:
            state, steps = train_epoch(state, data, key, number, recipe)
            return state, steps, all_finite(state)

        axes = (0, TrainData(None, 0, 0, 0), 0, None, 0)  # type: ignore[arg-type]
        specs = (_OWN, TrainData(_SHARED, _OWN, _OWN, _OWN), _OWN, _SHARED, _OWN)  # type: ignore[arg-type]
        return on_devices(jax.vmap(own, in_axes=axes), specs)(state, data, keys, number, recipes)

    @functools.partial(jax.jit, static_argnums=3)
    def embed(recipes: Recipe, encoders: Any, x: Array, block: int) -> Array:
        each = jax.vmap(lambda recipe, encoder, x: embed_rows(recipe, encoder, x, block), in_axes=(0, 0, None))
        return on_devices(each, (_OWN, _OWN, _SHARED))(recipes, encoders, x)

    return _Programs(init, epoch, embed)


@functools.partial(jax.jit, donate_argnums=0)
def _choose(old: Weights, new: Weights, which: Array) -> Weights:
    return jax.tree.map(lambda o, n: jnp.where(which.reshape(-1, *[1] * (o.ndim - 1)), n, o), old, new)


def _entry(x: Array, run: int) -> Array:
    """What a run has, from the device that holds it: without communication, which `x[run]` would need."""
    for shard in x.addressable_shards:
        first = shard.index[0].start or 0
        if first <= run < first + len(shard.data):
            own = shard.data
            on_cpu = next(iter(own.devices())).platform == "cpu"
            return jax.device_put(np.array(np.asarray(own)[run - first])) if on_cpu else own[run - first]
    raise IndexError(f"run {run} of {len(x)}")


def _by_run(z: Array) -> list[Any]:
    """What every run has, such as rows [N, L]; on CPU views of one host array, else on the first device."""
    if next(iter(z.devices())).platform == "cpu":
        return list(np.asarray(z))
    shards = sorted(z.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return [jax.device_put(rows, jax.devices()[0]) for shard in shards for rows in shard.data]
