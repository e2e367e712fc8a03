"""Batches from arrays on the host or on disk, for training splits larger than the device.

The same batches as the resident path: `train_epoch` draws rows from the same key in the same way.

Shape letters: M modalities, N training instances, B batch, S steps of an epoch, D features.
"""

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import Array

from mrl_jax.data.preprocess import apply_preprocess
from mrl_jax.train_step import Batch, StepMetrics, epoch_batches

__all__ = ["BatchStream", "HostData", "StreamClock"]

_AHEAD = 2  # batches on the device beyond the one in use
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
        return Batch(tuple(parts), np.take(self.labels, rows, axis=1), mask)  # type: ignore[arg-type]


class StreamClock:
    """How long steps waited for their batches.

    Attributes:
        waited: seconds in which the device had nothing to do because no batch was there (an upper bound).
        total: seconds of the epochs, the first batch of each left out.
    """

    def __init__(self) -> None:
        self.waited = self.total = 0.0

    @property
    def share(self) -> float:
        """Share of waiting, in [0, 1]."""
        return self.waited / self.total if self.total else 0.0


class BatchStream:
    """Iterates over the batches of an epoch, on the device and ahead of their use.

    Args:
        data: the training split.
        key: the run's key for batches, as for `train_epoch`.
        batch_size: B.
    """

    def __init__(self, data: HostData, key: Array, batch_size: int) -> None:
        self._data, self._key, self._batch_size = data, key, batch_size
        self.clock = StreamClock()

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The S batches of an epoch, counted from 0.

        Args:
            epoch: its number.

        Yields:
            Batches on the device; the last one is padded.
        """
        import grain  # deferred: only runs that stream need it

        rows, mask = _rows(self._key, epoch, self._data.labels.shape[1], self._batch_size)
        steps = _Steps(self._data, np.asarray(rows), np.asarray(mask))
        options = grain.ReadOptions(num_threads=_THREADS, prefetch_buffer_size=_BUFFER)
        batches = iter(grain.MapDataset.source(steps).to_iter_dataset(options))
        ready: deque[Batch] = deque()
        for batch in batches:
            ready.append(jax.device_put(batch))
            if len(ready) > _AHEAD:
                yield ready.popleft()
        yield from ready

    def run(self, step: Any, state: Any, epoch: int) -> tuple[Any, StepMetrics]:
        """Run `step(state, batch) -> (state, metrics)` over an epoch.

        Returns:
            The last state, and the metrics stacked to [S].
        """
        metrics: list[StepMetrics] = []
        batches = self.epoch(epoch)
        batch = next(batches, None)
        started = time.perf_counter()
        while batch is not None:
            state, told = step(state, batch)
            metrics.append(told)
            if len(metrics) > _AHEAD:  # the host runs a little ahead of the device, and no more
                jax.block_until_ready(metrics[-1 - _AHEAD].loss)
            asked = time.perf_counter()
            batch = next(batches, None)
            if batch is not None and told.loss.is_ready():  # the device ran dry before the batch came
                self.clock.waited += time.perf_counter() - asked
        jax.block_until_ready(state)
        self.clock.total += time.perf_counter() - started
        return state, StepMetrics(*(np.stack(values) for values in zip(*jax.device_get(metrics), strict=True)))  # type: ignore[arg-type]


class _Steps:
    """Random access to the batches of an epoch, as Grain wants its source."""

    def __init__(self, data: HostData, rows: np.ndarray, mask: np.ndarray) -> None:
        self._data, self._rows, self._mask = data, rows, mask

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, step: int) -> Batch:
        return self._data.batch(self._rows[step], self._mask[step])


@partial(jax.jit, static_argnums=(2, 3))
def _rows(key: Array, epoch: int, num_instances: int, batch_size: int) -> tuple[Array, Array]:
    return epoch_batches(jax.random.fold_in(key, epoch), num_instances, batch_size)
