"""Several runs as one compiled program: `vmap` over runs, with the run axis divided over devices.

Shape letters: R runs; the last run is repeated until all devices have the same number. Others as in `methods.state`.
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
from mrl_jax.losses.tiled_logsumexp import TILE
from mrl_jax.methods.base import Method
from mrl_jax.methods.state import Shapes, State, TrainData
from mrl_jax.retrieval.score import score
from mrl_jax.run.checkpoint import Snapshot
from mrl_jax.run.model import embed_rows
from mrl_jax.run.representation import metric_of, represent, representation_of, representation_width
from mrl_jax.run.shapes import embedding_width
from mrl_jax.training.epoch import Metrics, train_epoch
from mrl_jax.training.memory import bytes_of
from mrl_jax.training.placement import all_finite, compile_training
from mrl_jax.training.prepare import prepared_samples
from mrl_jax.training.run_spec import RunSpec

__all__ = ["VmappedRuns", "bytes_of_a_run"]

_SHARED, _OWN = PartitionSpec(), PartitionSpec("run")
_ROWS = 4096  # rows that all runs of a device together embed at once


class VmappedRuns:
    """The `loop.Trainer` of runs that share method, representation, data and static parts of their hyperparameters.

    Args:
        specs: the runs, with the same `RunData`, which is resident, and the same structure of `hyperparameters`.
        devices: the devices; each takes an equal number of runs.
    """

    def __init__(self, specs: Sequence[RunSpec], devices: Sequence[Any]) -> None:
        self._specs, self._data, self._method = specs, specs[0].data, specs[0].method
        mesh = Mesh(np.array(devices), ("run",))
        self._own, self._shared = NamedSharding(mesh, _OWN), NamedSharding(mesh, _SHARED)
        self._programs = _programs(self._method, mesh, specs[0].config.batch_size)
        self._padded = [*specs, *[specs[-1]] * (-len(specs) % len(devices))]

        features = jax.device_put(self._data.features, self._shared)
        n = specs[0].labels.shape
        masks = [s.mask for s in self._padded]
        partners = [np.broadcast_to(np.arange(n[1]), n) if s.partners is None else s.partners for s in self._padded]
        moved = any(s.partners is not None for s in specs)
        self._train = TrainData(
            features,
            self._stacked([s.labels for s in self._padded]),
            None if masks[0] is None else self._stacked(masks),
            self._stacked(partners) if moved else None,
        )
        self._keys = jax.device_put(jnp.stack([s.batch_key for s in self._padded]), self._own)
        numbers = [s.hyperparameters for s in self._padded]
        self._h = jax.tree.map(lambda *x: self._stacked([np.float32(v) for v in x]), *numbers)
        self._held_out = {
            split: {m: jax.device_put(x, self._shared) for m, x in samples.items()}
            for split, samples in self._data.held_out.items()
        }
        self._state: State
        self._best: Any

    def _stacked(self, arrays: Sequence[Any]) -> Array:
        return jax.device_put(np.stack(arrays), self._own)

    def begin(self, snapshots: Sequence[Snapshot | None]) -> None:
        """Start all runs from snapshots of the same epoch, or from the beginning."""
        if snapshots[0] is None:
            keys = jax.device_put(jnp.stack([s.init_key for s in self._padded]), self._own)
            self._state = self._programs.init(self._h, keys, self._specs[0].shapes)
            if self._data.start is not None:
                params = jax.tree.map(lambda x: self._stacked([x] * len(self._padded)), self._data.start.params)
                self._state = self._state._replace(params=params)
            if self._method.prepare is not None:
                prepared = [prepared_samples(s) for s in self._specs]
                prepared += prepared[-1:] * (len(self._padded) - len(prepared))
                samples = jax.tree.map(lambda *x: self._stacked(x), *prepared)
                self._state = self._state._replace(samples=samples)
            self._best = jax.tree.map(jnp.array, self._state.params)
        else:
            padded = [*snapshots, *list(snapshots)[-1:] * (len(self._padded) - len(snapshots))]
            pairs = [(s.state, s.best) for s in padded]  # type: ignore[union-attr]
            self._state, self._best = jax.tree.map(lambda *x: self._stacked(x), *pairs)

    def run_epoch(self, epoch: int) -> tuple[Metrics, np.ndarray]:
        """Train an epoch, counted from 0; returns step metrics [R, S], and whether all parameters are finite [R]."""
        self._state, metrics, finite = self._programs.epoch(self._state, self._train, self._keys, epoch, self._h)
        return jax.device_get(metrics), jax.device_get(finite)

    def keep_best(self, which: Sequence[bool]) -> None:
        """Keep the current parameters of the selected runs as their best ones."""
        if any(which):
            chosen = np.zeros(len(self._padded), bool)
            chosen[: len(which)] = which
            self._best = _choose(self._best, self._state.params, jax.device_put(chosen, self._own))

    def score(self, split: str, best: bool = False) -> list[dict[str, Any] | NonFiniteLossError]:
        """Scores of every run on valid (with noisy labels if the run uses them) or test, or the error of each."""
        params = self._best if best else self._state.params
        block = max(1, _ROWS * len(self._own.device_set) // len(self._padded))
        kind = representation_of(self._specs[0].config)
        rows, classes = [], []
        for i, x in enumerate(self._held_out[split].values()):
            z = self._programs.embed(self._h, params, i, x, block)
            rows.append(_by_run(z if kind == "embedding" else self._programs.represent(self._h, params, z, kind)))
            if self._method.assign is not None:
                classes.append(_by_run(self._programs.most_probable(self._h, params, z)))
        scores: list[dict[str, Any] | NonFiniteLossError] = []
        for i, spec in enumerate(self._specs):
            rows_of = {m: x[i] for m, x in zip(self._data.kinds, rows, strict=True)}
            classes_of = {m: x[i] for m, x in zip(self._data.kinds, classes, strict=False)}
            try:
                scores.append(score(rows_of, spec.held_out[split], classes_of or None, metric_of(kind)))
            except NonFiniteLossError as error:
                scores.append(error)
        return scores

    def snapshot(self, run: int = 0) -> Snapshot:
        """The content of a checkpoint of a run."""
        state, best = jax.tree.map(lambda x: _entry(x, run), (self._state, self._best))
        return Snapshot(state, best, self._data.stats)

    def extra_scores(self) -> dict[str, Any]:
        """None: the runs do not stream."""
        return {}


def bytes_of_a_run(spec: RunSpec) -> int:
    """Upper estimate of the bytes of device memory that a run needs in addition to the features.

    It counts the state; gradient, update and best parameters; per-sample state after a step; and held-out rows.
    And the layers of a batch, forward and backward, and tiles of a contrastive loss.
    """
    state, shapes = spec.template.state, spec.shapes
    width, kind = embedding_width(spec.config, state.params, shapes.dims[0]), representation_of(spec.config)
    if kind != "embedding":  # beside the embeddings
        width += representation_width(spec.config, state.params, shapes.dims[0], kind)
    held_out = 4 * width * sum(len(x) for x in spec.data.held_out["test"].values())
    total = bytes_of(state) + 3 * bytes_of(state.params) + bytes_of(state.samples) + 2 * held_out
    batch = spec.config.batch_size
    widths = sum(shapes.dims) + sum(x.shape[-1] for x in jax.tree.leaves(state.params) if x.ndim > 1)
    tile = min(len(shapes.dims) * batch, TILE) ** 2
    return total + 4 * (4 * batch * widths + 4 * tile)


class _Programs(NamedTuple):
    init: Callable[..., State]
    epoch: Callable[..., tuple[State, Metrics, Array]]
    embed: Callable[..., Array]
    represent: Callable[..., Array]
    most_probable: Callable[..., Array]


@functools.cache  # groups of the same size share one compilation
def _programs(method: Method, mesh: Mesh, batch_size: int) -> _Programs:
    def on_devices(f: Callable[..., Any], specs: Any) -> Callable[..., Any]:
        # Each device works on its own runs only, so replication need not be tracked.
        return jax.shard_map(f, mesh=mesh, in_specs=specs, out_specs=_OWN, check_vma=False)

    @functools.partial(jax.jit, static_argnums=2)
    def init(h: Any, keys: Array, shapes: Shapes) -> State:
        def own(h: Any, keys: Array) -> State:  # one by one, for the same bits as in a run alone
            return jax.lax.map(lambda one: method.init(one[0], one[1], shapes), (h, keys))

        return on_devices(own, (_OWN, _OWN))(h, keys)

    @compile_training
    def epoch(state: State, data: TrainData, keys: Array, number: int, h: Any) -> tuple[State, Metrics, Array]:
        def own(state: State, data: TrainData, key: Array, number: int, h: Any) -> Any:
            state, metrics = train_epoch(method, h, state, data, key, number, batch_size)
            return state, metrics, all_finite(state)

        axes = (0, TrainData(None, 0, 0, 0), 0, None, 0)  # type: ignore[arg-type]
        specs = (_OWN, TrainData(_SHARED, _OWN, _OWN, _OWN), _OWN, _SHARED, _OWN)  # type: ignore[arg-type]
        return on_devices(jax.vmap(own, in_axes=axes), specs)(state, data, keys, number, h)

    @functools.partial(jax.jit, static_argnums=(2, 4))
    def embed(h: Any, params: Any, modality: int, x: Array, block: int) -> Array:
        each = jax.vmap(lambda h, params, x: embed_rows(method, h, params, modality, x, block), in_axes=(0, 0, None))
        return on_devices(each, (_OWN, _OWN, _SHARED))(h, params, x)

    @functools.partial(jax.jit, static_argnums=3)
    def represented(h: Any, params: Any, z: Array, representation: str) -> Array:
        each = jax.vmap(lambda h, params, z: represent(method, h, params, z, representation))
        return on_devices(each, (_OWN, _OWN, _OWN))(h, params, z)

    @jax.jit
    def most_probable(h: Any, params: Any, z: Array) -> Array:
        assert method.assign is not None
        assign = method.assign
        each = jax.vmap(lambda h, params, z: assign(h, params, z).argmax(axis=-1))
        return on_devices(each, (_OWN, _OWN, _OWN))(h, params, z)

    return _Programs(init, epoch, embed, represented, most_probable)


@functools.partial(jax.jit, donate_argnums=0)
def _choose(old: Any, new: Any, which: Array) -> Any:
    return jax.tree.map(lambda o, n: jnp.where(which.reshape(-1, *[1] * (o.ndim - 1)), n, o), old, new)


def _entry(x: Array, run: int) -> Array:
    """Entry `run` of an array, read from its device without the communication that `x[run]` would need."""
    for shard in x.addressable_shards:
        first = shard.index[0].start or 0
        if first <= run < first + len(shard.data):
            own = shard.data
            on_cpu = next(iter(own.devices())).platform == "cpu"
            return jax.device_put(np.array(np.asarray(own)[run - first])) if on_cpu else own[run - first]
    raise IndexError(f"run {run} of {len(x)}")


def _by_run(z: Array) -> list[Any]:
    """The entries of all runs, such as rows [N, L]: views of one host array on CPU, else copies on the first device."""
    if next(iter(z.devices())).platform == "cpu":
        return list(np.asarray(z))
    shards = sorted(z.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return [jax.device_put(rows, jax.devices()[0]) for shard in shards for rows in shard.data]
