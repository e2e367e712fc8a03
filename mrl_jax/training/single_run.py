"""One run's state on the device, and the compiled programs that train, embed and score it."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mrl_jax.errors import NonFiniteLossError
from mrl_jax.eval.evaluate import score
from mrl_jax.run.checkpoint import Snapshot
from mrl_jax.run.run import embed_from_host, embed_rows
from mrl_jax.training.placement import Layout, all_finite, epoch_program, step_program
from mrl_jax.training.run_spec import Task
from mrl_jax.training.stream import BatchStream, HostData
from mrl_jax.training.train_step import StepMetrics, TrainData, TrainState, Weights, init_state

__all__ = ["OneRun"]


class OneRun:
    """What `loop.train_epochs` drives: a single run. Results come as lists of one, as from several runs.

    Args:
        task: the run.
        layout: how it lies on several devices; None for one.
    """

    def __init__(self, task: Task, layout: Layout | None = None) -> None:
        self._task, self._layout, data = task, layout, task.data
        split = data.dataset.splits["train"]
        self.stream: BatchStream | None = None
        if data.features is None:
            kinds, stats = list(data.kinds.values()), list(data.stats.values())
            features = tuple(split.features[m] for m in data.kinds)
            host = HostData(features, kinds, stats, task.labels, task.mask, task.partners)
            self.stream = BatchStream(host, task.batch_key, task.config.batch_size, task.config.epochs, layout)
        else:
            mask, partners = (None if x is None else jnp.asarray(x) for x in (task.mask, task.partners))
            self._train = TrainData(data.features, jnp.asarray(task.labels), mask, partners)
            self._key = task.batch_key
            if layout is not None:
                self._train, self._key = layout.place((self._train, self._key))
        divided = layout is not None and layout.divides and self.stream is None
        self._held_out = layout.place(data.held_out) if divided and layout else data.held_out
        self._state: TrainState
        self._best: Weights

    def begin(self, snapshots: Sequence[Snapshot | None]) -> None:
        """Start from a snapshot, or anew."""
        task, layout, snapshot = self._task, self._layout, snapshots[0]
        if snapshot is None:
            arguments = task.recipe, task.init_key, *task.sizes
            if layout is None:
                self._state = _init(*arguments)
            else:  # where it is to lie from the start: it may not fit one device
                shardings = layout.of_state(task.template.state)
                self._state = jax.jit(init_state, static_argnums=(2, 3, 4), out_shardings=shardings)(*arguments)
            self._best = self._state.weights  # until the first epoch, which is the best so far
        elif layout is None:
            # A copy on the device: the program that runs the epochs may overwrite its input, and must own it.
            self._state, self._best, _ = jax.tree.map(jnp.array, snapshot)
        else:
            held = jax.tree.map(np.array, (snapshot.state, snapshot.best))  # likewise
            self._state, self._best = layout.place(held, layout.of_state(held))

    def run_epoch(self, epoch: int) -> tuple[StepMetrics, np.ndarray]:
        """Train one epoch, counted from 0: metrics of its steps [1, S], whether all parameters are finite [1]."""
        recipe = self._task.recipe
        if self.stream is not None:
            step = step_program(self._layout)
            self._state, steps = self.stream.run(lambda state, x: step(state, x, recipe, epoch), self._state, epoch)
            finite = _finite(self._state)
        else:
            program = epoch_program(self._layout)
            self._state, steps, finite = program(self._state, self._train, self._key, epoch, recipe)
        return jax.tree.map(lambda x: np.asarray(x)[None], steps), np.asarray(finite)[None]

    def keep_best(self, which: Sequence[bool]) -> None:
        """Keep the weights as the best so far; a copy, for the next epoch overwrites them."""
        if which[0]:
            self._best = jax.tree.map(jnp.array, self._state.weights)

    def score(self, split: str, best: bool = False) -> list[dict[str, Any] | NonFiniteLossError]:
        """Scores on valid (noisy labels if the run asks for them) or test, or why there are none."""
        data, recipe = self._task.data, self._task.recipe
        layout, model, z = self._layout, self._best if best else self._state.weights, {}
        encoders, centers = model
        if layout is not None:
            centers = layout.own(centers)
            encoders = encoders if layout.divides else layout.own(encoders)
        for encoder, (m, x) in zip(encoders, self._held_out[split].items(), strict=True):
            if self.stream is not None:
                z[m] = embed_from_host(recipe, encoder, data.kinds[m], data.stats[m], x)
            else:
                z[m] = embed_rows(recipe, encoder, x)
            if layout is not None and layout.divides:
                z[m] = layout.own(jax.device_put(z[m], layout.everywhere))
        try:
            return [score(z, self._task.held_out[split], centers)]
        except NonFiniteLossError as error:
            return [error]

    def snapshot(self, run: int = 0) -> Snapshot:
        """What a checkpoint holds."""
        state, best = self._own((self._state, self._best))
        return Snapshot(state, best, self._task.data.stats)

    def _own(self, tree: Any) -> Any:
        return tree if self._layout is None else self._layout.own(tree)


_init = jax.jit(init_state, static_argnums=(2, 3, 4))
_finite = jax.jit(all_finite)
