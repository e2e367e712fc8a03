"""A step and an epoch of any method as pure functions. Nothing here is compiled; callers wrap it in `jit`.

Shape letters: M modalities, N training instances, B batch, S steps of an epoch.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from mrl_jax.methods.base import Method
from mrl_jax.methods.state import Batch, State, TrainData

__all__ = ["Metrics", "epoch_batches", "train_epoch", "train_step"]

Metrics = dict[str, Any]
"""Scalars of a step by name, stacked to [S] by `train_epoch`; "instances" is the size of the batch."""

# Padded rows of the last batch, and their share of all instances, from which that batch is worth compiling a step of
# its own shape.
_PADDED, _PADDED_SHARE = 64, 0.05


def train_step(
    method: Method, h: Any, state: State, batch: Batch, epoch: ArrayLike = 0, axis_name: str | None = None
) -> tuple[State, Metrics]:
    """One step of a method, its per-sample state included.

    Args:
        method: the method; it has a `step`.
        h: its hyperparameters.
        state: the state before the step.
        batch: the batch; padded rows and missing samples have no effect.
        epoch: epoch number from 0.
        axis_name: of the devices that share the batch, under `shard_map` or `pmap`: each has the same state and its
            part of the batch. The step is that of one device with the whole batch, the metrics too.

    Raises:
        ValueError: the method keeps per-sample state, and `batch.rows` does not tell the instances.
    """
    assert method.step is not None
    keeps = bool(jax.tree.leaves(state.samples))
    if keeps:
        if batch.rows is None:
            raise ValueError(f"{method.name} keeps state of every training instance; give Batch(rows=…)")
        batch = batch._replace(samples=jax.tree.map(lambda x: x[batch.rows], state.samples))
    moved, metrics, samples = method.step(h, state, batch, epoch, axis_name)
    instances = batch.mask.sum() if batch.mask.ndim == 1 else batch.mask.any(axis=0).sum()
    if axis_name is not None:
        instances = jax.lax.psum(instances, axis_name)
    if keeps and samples is not None:
        moved = moved._replace(samples=_put(state.samples, batch, samples, axis_name))
    return moved, {**metrics, "instances": instances}


def _put(samples: Any, batch: Batch, new: Any, axis_name: str | None) -> Any:
    """Per-sample state with that of a batch replaced; what padded rows would write is dropped."""
    assert batch.rows is not None
    own = batch.rows
    counts = batch.mask if batch.mask.ndim == 1 else batch.mask.any(axis=0)

    def replaced(x: Array, new: Array) -> Array:
        rows = jnp.where(counts, own, len(x))  # outside, where `mode="drop"` writes nothing
        if axis_name is not None:
            rows, new = _gathered(rows, axis_name), _gathered(new, axis_name)
        return x.at[rows].set(new, mode="drop")

    return jax.tree.map(replaced, samples, new)


def _gathered(x: Array, axis_name: str) -> Array:
    """The parts [B, ...] of all devices; as a sum, which the compiler knows to be replicated."""
    shares, size = jax.lax.axis_size(axis_name), len(x)
    room = jnp.zeros((shares * size, *x.shape[1:]), x.dtype)
    own = jax.lax.dynamic_update_slice_in_dim(room, x, size * jax.lax.axis_index(axis_name), 0)
    return jax.lax.psum(own, axis_name)


def epoch_batches(key: Array, num_instances: int, batch_size: int, shares: int = 1) -> tuple[Array, Array]:
    """Draw the batches of an epoch: every instance once, the last, incomplete batch padded.

    Args:
        key: key of this epoch.
        num_instances: N.
        batch_size: B.
        shares: into how many equal parts a batch will be cut; B is padded to a multiple of it.

    Returns:
        Row numbers int32 [S, B] and mask [S, B], False where padded, with S = ceil(N / B); padded, B is larger.
    """
    steps = math.ceil(num_instances / batch_size)
    rows = jax.random.permutation(key, num_instances)
    rows = jnp.pad(rows, (0, steps * batch_size - num_instances))
    mask = jnp.arange(steps * batch_size) < num_instances
    behind = [(0, 0), (0, -batch_size % shares)]
    return jnp.pad(rows.reshape(steps, batch_size), behind), jnp.pad(mask.reshape(steps, batch_size), behind)


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
    """One pass over the data: a closed form, or a single `lax.scan` over steps.

    A last batch that is mostly padding is a step of its own shape.

    Args:
        method: the method.
        h: its hyperparameters.
        state: the state before the epoch.
        data: the training split, resident on the device.
        key: the run's key for batches; the epoch folds its number into it, so resuming needs no saved randomness.
        epoch: epoch number from 0.
        batch_size: B.
        axis_name: of the devices that share every batch, under `shard_map` or `pmap`; each has all the data.
        sharding: of the instances of every batch over devices, under `jit`: a `NamedSharding` along one axis of a mesh.

    Returns:
        The state after the epoch, and the metrics of its S steps, arrays [S]; of a closed form none.
    """
    key = jax.random.fold_in(key, epoch)
    if method.fit is not None:
        return method.fit(h, state, data, key), {}
    if method.refresh is not None:
        state = state._replace(samples=method.refresh(h, state, data, epoch))
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
    if padded < max(_PADDED, _PADDED_SHARE * count):
        return jax.lax.scan(body, state, part(batches))
    last = batch_size - padded
    last += -last % shares
    state, steps = jax.lax.scan(body, state, part((batches[0][:-1], batches[1][:-1])))
    state, step = jax.lax.scan(body, state, part((batches[0][-1:, :last], batches[1][-1:, :last])))
    return state, jax.tree.map(lambda *x: jnp.concatenate(x), steps, step)
