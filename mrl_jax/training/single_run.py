"""The state of a single run on its devices, and the compiled programs that train, embed and score it."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mrl_jax.errors import NonFiniteLossError
from mrl_jax.methods.base import Method
from mrl_jax.methods.state import Shapes, State, TrainData
from mrl_jax.retrieval.score import score
from mrl_jax.run.checkpoint import Snapshot
from mrl_jax.run.model import embed_from_host, embed_rows
from mrl_jax.run.representation import metric_of, represent, representation_of
from mrl_jax.training.epoch import Metrics
from mrl_jax.training.placement import Placement, all_finite, epoch_program, step_program
from mrl_jax.training.prepare import fitted_params, prepared_samples
from mrl_jax.training.run_spec import RunSpec
from mrl_jax.training.stream import BatchStream, HostData

__all__ = ["SingleRun", "assigned_classes"]


class SingleRun:
    """The `loop.Trainer` of a single run. Its results are lists or arrays of one run.

    Args:
        spec: the run.
        placement: placement of the run on several devices, None for one.
    """

    def __init__(self, spec: RunSpec, placement: Placement | None = None) -> None:
        self._spec, self._placement, data = spec, placement, spec.data
        self._method, self._h = spec.method, spec.hyperparameters
        split = data.dataset.splits["train"]
        self._stream: BatchStream | None = None
        if self._method.fit is not None:
            pass  # reads its rows by itself
        elif data.features is None:
            kinds, stats = list(data.kinds.values()), list(data.stats.values())
            features = tuple(split.features[m] for m in data.kinds)
            host = HostData(features, kinds, stats, spec.labels, spec.mask, spec.partners)
            self._stream = BatchStream(host, spec.batch_key, spec.config.batch_size, spec.epochs, placement)
        else:
            mask, partners = (None if x is None else jnp.asarray(x) for x in (spec.mask, spec.partners))
            self._train = TrainData(data.features, jnp.asarray(spec.labels), mask, partners)
            self._key = spec.batch_key
            if placement is not None:
                self._train, self._key = placement.place((self._train, self._key))
        divided = placement is not None and placement.divides and not spec.streams
        self._held_out = placement.place(data.held_out) if divided and placement else data.held_out
        self._state: State
        self._best: Any

    def begin(self, snapshots: Sequence[Snapshot | None]) -> None:
        """Start from a snapshot, or from the beginning if it is None."""
        spec, placement, snapshot = self._spec, self._placement, snapshots[0]
        if snapshot is None:
            init = _compiled_init
            if placement is not None:  # with its final shardings: it may not fit on one device
                shardings = placement.of_state(spec.template.state)
                init = jax.jit(_init, static_argnums=(0, 3), out_shardings=shardings)
            self._state = init(self._method, self._h, spec.init_key, spec.shapes)
            if spec.data.start is not None:
                params = jax.tree.map(np.array, spec.data.start.params)  # of its own: an epoch overwrites its input
                if placement is None:
                    params = jax.tree.map(jnp.array, params)
                else:
                    params = placement.place(params, placement.of_state(spec.template.state).params)
                self._state = self._state._replace(params=params)
            samples = prepared_samples(spec)
            if samples is not None:
                samples = jax.tree.map(jnp.array, samples) if placement is None else placement.place(samples)
                self._state = self._state._replace(samples=samples)
            self._best = self._state.params  # until the first epoch, which is the best so far
        elif placement is None:
            # A copy on the device: the program of the epochs overwrites its input, and must own it.
            self._state, self._best, _ = jax.tree.map(jnp.array, snapshot)
        else:
            copy = jax.tree.map(np.array, (snapshot.state, snapshot.best))  # for the same reason
            self._state, self._best = placement.place(copy, placement.of_state(copy))

    def run_epoch(self, epoch: int) -> tuple[Metrics, np.ndarray]:
        """Train an epoch, counted from 0; returns step metrics [1, S], and whether all parameters are finite [1]."""
        if self._method.fit is not None:
            params = fitted_params(self._spec)
            if placement := self._placement:
                params = placement.place(params, placement.of_state(self._spec.template.state).params)
            self._state = self._state._replace(params=jax.tree.map(jnp.asarray, params), step=self._state.step + 1)
            return {}, np.asarray(_finite(self._state))[None]
        if self._stream is not None:
            step, h = step_program(self._method, self._placement), self._h
            self._state, metrics = self._stream.run(lambda state, x: step(state, x, h, epoch), self._state, epoch)
            finite = _finite(self._state)
        else:
            program = epoch_program(self._method, self._placement, self._spec.config.batch_size)
            self._state, metrics, finite = program(self._state, self._train, self._key, epoch, self._h)
        return jax.tree.map(lambda x: np.asarray(x)[None], metrics), np.asarray(finite)[None]

    def keep_best(self, which: Sequence[bool]) -> None:
        """Keep a copy of the parameters as the best so far; the next epoch overwrites the parameters."""
        if which[0]:
            self._best = jax.tree.map(jnp.array, self._state.params)

    def score(self, split: str, best: bool = False) -> list[dict[str, Any] | NonFiniteLossError]:
        """Scores on valid (with noisy labels if the run uses them) or test, or the error that prevents them."""
        data, placement = self._spec.data, self._placement
        params, z = self._best if best else self._state.params, {}
        whole = params
        if placement is not None:
            whole = placement.own(params)
            params = params if placement.divides else whole
        for i, (m, x) in enumerate(self._held_out[split].items()):
            if self._spec.streams:
                z[m] = embed_from_host(self._method, self._h, params, i, data.kinds[m], data.stats[m], x)
            else:
                z[m] = embed_rows(self._method, self._h, params, i, x)
            if placement is not None and placement.divides:
                z[m] = placement.own(jax.device_put(z[m], placement.everywhere))
        try:
            classes, kind = assigned_classes(self._method, self._h, whole, z), representation_of(self._spec.config)
            rows = {m: represent(self._method, self._h, whole, x, kind) for m, x in z.items()}
            return [score(rows, self._spec.held_out[split], classes, metric_of(kind))]
        except NonFiniteLossError as error:
            return [error]

    def snapshot(self, run: int = 0) -> Snapshot:
        """The content of a checkpoint."""
        state, best = self._own((self._state, self._best))
        return Snapshot(state, best, self._spec.data.stats)

    def extra_scores(self) -> dict[str, Any]:
        """The fraction of the time that steps waited for their batches, of a run that streams."""
        return {} if self._stream is None else {"stream_waiting_share": round(self._stream.clock.share, 4)}

    def _own(self, tree: Any) -> Any:
        return tree if self._placement is None else self._placement.own(tree)


def assigned_classes(method: Method, h: Any, params: Any, z: Mapping[str, Array]) -> dict[str, np.ndarray] | None:
    """The most probable class of every embedding: modality -> integers [N]; None if the method assigns no classes."""
    if method.assign is None:
        return None
    return {m: np.asarray(_most_probable(method, h, params, rows)) for m, rows in z.items()}


@partial(jax.jit, static_argnums=0)
def _most_probable(method: Method, h: Any, params: Any, z: Array) -> Array:
    assert method.assign is not None
    return method.assign(h, params, z).argmax(axis=-1)


def _init(method: Method, h: Any, key: Array, shapes: Shapes) -> State:
    return method.init(h, key, shapes)


_compiled_init = jax.jit(_init, static_argnums=(0, 3))
_finite = jax.jit(all_finite)
