"""Batches from arrays on the host or on disk, for training splits that do not fit on the device.

The batches are those of resident data: `train_epoch` draws the same rows from the same key.

Shape letters: M modalities, N training instances, B batch, S steps of an epoch, D features.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np
from jax import Array

from mrl_jax.data.preprocess import apply_preprocess
from mrl_jax.methods.state import Batch
from mrl_jax.training.epoch import Metrics, epoch_batches
from mrl_jax.training.placement import Placement

__all__ = ["BatchStream", "HostData", "StreamClock"]

_AHEAD = 2  # upper bound on the steps queued on the device
_THREADS, _BUFFER = 2, 8  # of Grain; a batch is one gather of rows, which releases the interpreter lock


@dataclass(frozen=True)
class HostData:
    """A training split on the host; features may be memory maps.

    Attributes:
        features: raw features, one [N, D] per modality.
        kinds: preprocessing of each modality.
        stats: fitted statistics of each modality.
        labels: given labels, int32 [M, N].
        mask: bool [M, N], False where a sample is missing; None if no sample is missing.
        partners: int32 [M, N], the row of each modality that belongs to an instance; None for row j at instance j.
    """

    features: Sequence[np.ndarray]
    kinds: Sequence[str]
    stats: Sequence[Mapping[str, Any]]
    labels: np.ndarray
    mask: np.ndarray | None = None
    partners: np.ndarray | None = None

    def batch(self, rows: np.ndarray, valid: np.ndarray) -> Batch:
        """Gather and preprocess the given rows [B]; `valid` [B] is False for padding."""
        parts = []
        for i, x in enumerate(self.features):
            own = rows if self.partners is None else self.partners[i, rows]
            parts.append(apply_preprocess(self.kinds[i], self.stats[i], np.take(x, own, axis=0)))
        mask = valid if self.mask is None else self.mask[:, rows] & valid
        return Batch(tuple(parts), np.take(self.labels, rows, axis=1), mask, rows)  # type: ignore[arg-type]


class StreamClock:
    """Time that steps waited for their batches.

    Attributes:
        waited: seconds in which the device was idle because no batch was ready. A wait counts completely if the device
            is idle at its end, so this is an upper bound. Waits for copies on the device itself are not included.
        total: seconds of the epochs, each from its first request to the end of its last step.
    """

    def __init__(self) -> None:
        self.waited = self.total = 0.0

    @property
    def share(self) -> float:
        """Fraction of the time spent waiting, in [0, 1]."""
        return self.waited / self.total if self.total else 0.0


class BatchStream:
    """The batches of a run, prepared ahead by Grain's threads, also across the ends of epochs.

    Args:
        data: the training split.
        key: the run's key for batches, as for `train_epoch`.
        batch_size: B.
        epochs: number of epochs of the run.
        placement: placement on several devices, None for one; each process reads the rows of its own devices.
    """

    def __init__(
        self, data: HostData, key: Array, batch_size: int, epochs: int, placement: Placement | None = None
    ) -> None:
        self._steps = _Steps(data, key, batch_size, epochs, placement)
        self._placement = placement
        self._batches: Iterator[Batch] = iter(())
        self._next_epoch = -1
        self.clock = StreamClock()

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The S batches of an epoch on the device. Each is copied while the previous one is in use.

        Args:
            epoch: number of the epoch, from 0.
        """
        if epoch != self._next_epoch:
            import grain  # deferred: only streamed runs need it

            options = grain.ReadOptions(num_threads=_THREADS, prefetch_buffer_size=_BUFFER)
            rest = grain.MapDataset.source(self._steps)[epoch * self._steps.per_epoch :]
            self._batches = iter(rest.to_iter_dataset(options))
        self._next_epoch = epoch + 1
        for _ in range(self._steps.per_epoch):
            batch = next(self._batches)
            yield jax.device_put(batch) if self._placement is None else self._placement.batch(batch)

    def run(self, step: Any, state: Any, epoch: int) -> tuple[Any, Metrics]:
        """Run `step(state, batch) -> (state, metrics)` over an epoch.

        Returns:
            The last state, and the metrics stacked to [S].
        """
        started = time.perf_counter()
        metrics: list[Metrics] = []
        batches = self.epoch(epoch)
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            if batch is None:
                break
            # The device was idle before the batch was ready.
            if not metrics or metrics[-1]["loss"].is_ready():
                self.clock.waited += time.perf_counter() - asked
            state, of_step = step(state, batch)
            metrics.append(of_step)
            if len(metrics) > _AHEAD:  # limit how far the host runs ahead of the device
                jax.block_until_ready(metrics[-1 - _AHEAD])
        jax.block_until_ready(state)
        self.clock.total += time.perf_counter() - started
        values = jax.device_get(metrics)
        return state, {name: np.stack([m[name] for m in values]) for name in values[0]}


class _Steps:
    """Random access to the batches of all epochs in sequence: the source that Grain reads."""

    def __init__(self, data: HostData, key: Array, batch_size: int, epochs: int, placement: Placement | None) -> None:
        self._data, self._key, self._batch_size, self._epochs, self._placement = (
            data,
            key,
            batch_size,
            epochs,
            placement,
        )
        self._num_instances = data.labels.shape[1]
        self.per_epoch = math.ceil(self._num_instances / batch_size)
        self._rows = lru_cache(maxsize=2)(self._draw)  # an epoch and the next one

    def _draw(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        parts = 1 if self._placement is None else self._placement.batch_parts
        rows, mask = _epoch_rows(self._key, epoch, self._num_instances, self._batch_size, parts)
        own = slice(None) if self._placement is None else self._placement.own_rows(rows.shape[1])
        return np.asarray(rows)[:, own], np.asarray(mask)[:, own]

    def __len__(self) -> int:
        return self._epochs * self.per_epoch

    def __getitem__(self, index: int) -> Batch:
        epoch, step = divmod(index, self.per_epoch)
        rows, mask = self._rows(epoch)
        return self._data.batch(rows[step], mask[step])


@partial(jax.jit, static_argnums=(2, 3, 4))
def _epoch_rows(key: Array, epoch: int, num_instances: int, batch_size: int, parts: int) -> tuple[Array, Array]:
    return epoch_batches(jax.random.fold_in(key, epoch), num_instances, batch_size, parts)
