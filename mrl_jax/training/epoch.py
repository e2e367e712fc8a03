"""A step and an epoch of any method, as pure functions that callers compile with `jit`.

Shape letters: M modalities, N training instances, B batch, S steps of an epoch.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from mrl_jax.methods.base import Method
from mrl_jax.methods.state import Batch, State, TrainData, instance_count

__all__ = ["Metrics", "epoch_batches", "train_epoch", "train_step"]

Metrics = dict[str, Any]
"""Name -> scalar of a step, stacked to [S] by `train_epoch`; "instances" is the number of instances that count."""

# The last batch gets a step of its own shape, compiled separately, if it has at least so many padded rows, and at least
# this fraction of all instances.
_PADDED, _PADDED_FRACTION = 64, 0.05


def train_step(
    method: Method, h: Any, state: State, batch: Batch, epoch: ArrayLike = 0, axis_name: str | None = None
) -> tuple[State, Metrics]:
    """One step of a method, including its per-sample state.

    Args:
        method: the method; it has a `step`.
        h: its hyperparameters.
        state: the state before the step.
        batch: the batch; padded rows and missing samples have no effect.
        epoch: epoch number from 0.
        axis_name: axis of the devices that share the batch, under `shard_map` or `pmap`. Each has the same state and
            its part of the batch. State and metrics are those of one device with the whole batch.

    Returns:
        The state after the step, and its metrics.

    Raises:
        ValueError: the method keeps per-sample state, and `batch.rows` is None.
    """
    assert method.step is not None
    keeps = bool(jax.tree.leaves(state.samples))
    if keeps:
        if batch.rows is None:
            raise ValueError(f"{method.name} keeps state of every training instance; give Batch(rows=…)")
        batch = batch._replace(samples=jax.tree.map(lambda x: x[batch.rows], state.samples))
    moved, metrics, samples = method.step(h, state, batch, epoch, axis_name)
    if keeps and samples is not None:
        moved = moved._replace(samples=_put(state.samples, batch, samples, axis_name))
    return moved, {**metrics, "instances": instance_count(batch.mask, axis_name)}


def _put(samples: Any, batch: Batch, new: Any, axis_name: str | None) -> Any:
    """Per-sample state with the new values of a batch; padded rows write nothing."""
    assert batch.rows is not None
    own = batch.rows
    counts = batch.mask if batch.mask.ndim == 1 else batch.mask.any(axis=0)

    def replaced(x: Array, new: Array) -> Array:
        rows = jnp.where(counts, own, len(x))  # out of range, where `mode="drop"` writes nothing
        if axis_name is not None:
            rows, new = _gathered(rows, axis_name), _gathered(new, axis_name)
        return x.at[rows].set(new, mode="drop")

    return jax.tree.map(replaced, samples, new)


def _gathered(x: Array, axis_name: str) -> Array:
    """The parts [B, ...] of all devices, computed as a sum, so that the compiler sees a replicated result."""
    shares, size = jax.lax.axis_size(axis_name), len(x)
    zeros = jnp.zeros((shares * size, *x.shape[1:]), x.dtype)
    own = jax.lax.dynamic_update_slice_in_dim(zeros, x, size * jax.lax.axis_index(axis_name), 0)
    return jax.lax.psum(own, axis_name)


def epoch_batches(key: Array, num_instances: int, batch_size: int, shares: int = 1) -> tuple[Array, Array]:
    """Draw the batches of an epoch: every instance once, the last, incomplete batch padded.

    Args:
        key: key of this epoch.
        num_instances: N.
        batch_size: B.
        shares: number of equal parts into which a batch will be cut; B is padded to a multiple of it.

    Returns:
        Row numbers int32 [S, B] and mask [S, B], False for padding, with S = ceil(N / B) and B as padded.
    """
    steps = math.ceil(num_instances / batch_size)
    rows = jax.random.permutation(key, num_instances)
    rows = jnp.pad(rows, (0, steps * batch_size - num_instances))
    mask = jnp.arange(steps * batch_size) < num_instances
    padding = [(0, 0), (0, -batch_size % shares)]
    return jnp.pad(rows.reshape(steps, batch_size), padding), jnp.pad(mask.reshape(steps, batch_size), padding)


def train_epoch(
    method: Method,
    h: Any,
    state: State,
    data: TrainData,
    key: Array,
    epoch: ArrayLike,
    batch_size: int,
    *,
    axis_name: str | None = None,
    sharding: Any = None,
) -> tuple[State, Metrics]:
    """One pass over the data of a method with steps: a `lax.scan` over them.

    A last batch with much padding is a step of its own shape.

    Args:
        method: the method.
        h: its hyperparameters.
        state: the state before the epoch.
        data: the training split, resident on the device.
        key: the run's key for batches. The epoch number is folded into it, so a resumed run needs no saved randomness.
        epoch: epoch number from 0.
        batch_size: B.
        axis_name: axis of the devices that share every batch, under `shard_map` or `pmap`; each has all the data.
        sharding: under `jit`, the `NamedSharding` of the instances of every batch along one axis of a mesh.

    Returns:
        The state after the epoch, and the metrics of its S steps, arrays [S].
    """
    key = jax.random.fold_in(key, epoch)
    if method.refresh is not None:
        state = method.refresh(h, state, data, epoch)
    shares = 1 if axis_name is None else jax.lax.axis_size(axis_name)
    shares = shares if sharding is None else sharding.mesh.shape[sharding.spec[0]]
    count = data.labels.shape[1]
    batches = epoch_batches(key, count, batch_size, shares)

    def part(batches: tuple[Array, Array]) -> tuple[Array, Array]:
        """Columns [S, B / shares] of this device."""
        if axis_name is None:
            return batches
        width = batches[0].shape[1] // shares
        first = width * jax.lax.axis_index(axis_name)
        return tuple(jax.lax.dynamic_slice_in_dim(x, first, width, axis=1) for x in batches)  # type: ignore[return-value]

    def body(state: State, batch: tuple[Array, Array]) -> tuple[State, Metrics]:
        rows, mask = batch if sharding is None else jax.lax.with_sharding_constraint(batch, sharding)
        own = [rows] * len(data.features) if data.partners is None else data.partners[:, rows]
        features = tuple(x[i] for x, i in zip(data.features, own, strict=True))
        if data.mask is not None:
            mask = data.mask[:, rows] & mask[None]
        return train_step(method, h, state, Batch(features, data.labels[:, rows], mask, rows), epoch, axis_name)

    padded = -count % batch_size
    if padded < max(_PADDED, _PADDED_FRACTION * count):
        state, metrics = jax.lax.scan(body, state, part(batches))
    else:
        last = batch_size - padded
        last += -last % shares
        state, steps = jax.lax.scan(body, state, part((batches[0][:-1], batches[1][:-1])))
        state, step = jax.lax.scan(body, state, part((batches[0][-1:, :last], batches[1][-1:, :last])))
        metrics = jax.tree.map(lambda *x: jnp.concatenate(x), steps, step)
    if method.complete is not None:
        state = state._replace(params=method.complete(h, state.params, data))
    return state, metrics
