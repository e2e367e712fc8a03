"""Batches from arrays on the host or on disk, for training splits larger than the device.

The same batches as the resident path: `train_epoch` draws rows from the same key in the same way.

Shape letters: M modalities, N training instances, B batch, S steps of an epoch, D features.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax import Array

from mrl_jax.data.preprocess import apply_preprocess
from mrl_jax.training.train_step import Batch, StepMetrics, epoch_batches

if TYPE_CHECKING:
    from mrl_jax.training.placement import Layout

__all__ = ["BatchStream", "HostData", "StreamClock"]

_AHEAD = 2  # steps that are queued on the device
_THREADS, _BUFFER = 2, 8  # Grain's; a batch is one gather of rows, which runs without the interpreter's lock


@dataclass(frozen=True)
class HostData:
    """A training split on the host; features may be memory maps.

    Attributes:
        features: raw features, one [N, D] per modality.
        kinds: preprocessing of each modality.
        stats: fitted statistics of each modality.
        labels: given labels, int32 [M, N].
        mask: bool [M, N], False where a sample is missing; None where none is.
        partners: int32 [M, N], which row of a modality stands at an instance; None for its own.
    """

    features: Sequence[np.ndarray]
    kinds: Sequence[str]
    stats: Sequence[Mapping[str, Any]]
    labels: np.ndarray
    mask: np.ndarray | None = None
    partners: np.ndarray | None = None

    def batch(self, rows: np.ndarray, valid: np.ndarray) -> Batch:
        """Gather and preprocess the given rows [B]; `valid` [B] is False where they are padding."""
        parts = []
        for i, x in enumerate(self.features):
            own = rows if self.partners is None else self.partners[i, rows]
            parts.append(apply_preprocess(self.kinds[i], self.stats[i], np.take(x, own, axis=0)))
        mask = valid if self.mask is None else self.mask[:, rows] & valid
        return Batch(tuple(parts), np.take(self.labels, rows, axis=1), mask, rows)  # type: ignore[arg-type]


class StreamClock:
    """How long steps waited for their batches.

    Attributes:
        waited: seconds in which the device had nothing to do since no batch was there: all of a wait at whose end it
            was idle, so rather too much. Copies that a step waits for on the device itself are not seen.
        total: seconds of the epochs, from their first request to the end of their last step.
    """

    def __init__(self) -> None:
        self.waited = self.total = 0.0

    @property
    def share(self) -> float:
        """Share of waiting, in [0, 1]."""
        return self.waited / self.total if self.total else 0.0


class BatchStream:
    """The batches of a run, prepared ahead by Grain's threads, over the ends of epochs, too.

    Args:
        data: the training split.
        key: the run's key for batches, as for `train_epoch`.
        batch_size: B.
        epochs: how many epochs the run has.
        layout: of the run on several devices; each process reads the rows of its own.
    """

    def __init__(
        self, data: HostData, key: Array, batch_size: int, epochs: int, layout: "Layout | None" = None
    ) -> None:
        self._steps = _Steps(data, key, batch_size, epochs, layout)
        self._layout = layout
        self._batches: Iterator[Batch] = iter(())
        self._next_epoch = -1
        self.clock = StreamClock()

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The S batches of an epoch, counted from 0, on the device, each copied while the one before it is in use.

        Args:
            epoch: its number.
        """
        if epoch != self._next_epoch:
            import grain  # deferred: only runs that stream need it

            options = grain.ReadOptions(num_threads=_THREADS, prefetch_buffer_size=_BUFFER)
            rest = grain.MapDataset.source(self._steps)[epoch * self._steps.per_epoch :]
            self._batches = iter(rest.to_iter_dataset(options))
        self._next_epoch = epoch + 1
        for _ in range(self._steps.per_epoch):
            batch = next(self._batches)
            yield jax.device_put(batch) if self._layout is None else self._layout.batch(batch)

    def run(self, step: Any, state: Any, epoch: int) -> tuple[Any, StepMetrics]:
        """Run `step(state, batch) -> (state, metrics)` over an epoch.

        Returns:
            The last state, and the metrics stacked to [S].
        """
        started = time.perf_counter()
        metrics: list[StepMetrics] = []
        batches = self.epoch(epoch)
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            if batch is None:
                break
            # The device ran dry before the batch came.
            if not metrics or metrics[-1].loss.is_ready():  # type: ignore[attr-defined]
                self.clock.waited += time.perf_counter() - asked
            state, told = step(state, batch)
            metrics.append(told)
            if len(metrics) > _AHEAD:  # the host runs a little ahead of the device, and no more
                jax.block_until_ready(metrics[-1 - _AHEAD].loss)
        jax.block_until_ready(state)
        self.clock.total += time.perf_counter() - started
        return state, StepMetrics(*(np.stack(values) for values in zip(*jax.device_get(metrics), strict=True)))  # type: ignore[arg-type]


class _Steps:
    """Random access to the batches of all epochs, one after the other, as Grain wants its source."""

    def __init__(self, data: HostData, key: Array, batch_size: int, epochs: int, layout: "Layout | None") -> None:
        self._data, self._key, self._batch_size, self._epochs, self._layout = data, key, batch_size, epochs, layout
        self._num_instances = data.labels.shape[1]
        self.per_epoch = math.ceil(self._num_instances / batch_size)
        self._rows = lru_cache(maxsize=2)(self._draw)  # an epoch and the next one

    def _draw(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        shares = 1 if self._layout is None else self._layout.shares
        rows, mask = _epoch_rows(self._key, epoch, self._num_instances, self._batch_size, shares)
        own = slice(None) if self._layout is None else self._layout.own_rows(rows.shape[1])
        return np.asarray(rows)[:, own], np.asarray(mask)[:, own]

    def __len__(self) -> int:
        return self._epochs * self.per_epoch

    def __getitem__(self, index: int) -> Batch:
        epoch, step = divmod(index, self.per_epoch)
        rows, mask = self._rows(epoch)
        return self._data.batch(rows[step], mask[step])


@partial(jax.jit, static_argnums=(2, 3, 4))
def _epoch_rows(key: Array, epoch: int, num_instances: int, batch_size: int, shares: int) -> tuple[Array, Array]:
    return epoch_batches(jax.random.fold_in(key, epoch), num_instances, batch_size, shares)
