"""One run over several devices, of one process or many: meshes, the three ways to compile a step, processes.

Every device has the whole state and its part of each batch; `train_step` finds the gradient of the whole batch
(`axis_name`). The ways differ in who cuts the program up: `shard_map` and `pmap` run the local step on every device,
`jit` leaves it to the compiler. All give the numbers of one device, up to the order of sums.
"""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mrl_jax.errors import InputError, ProcessLostError
from mrl_jax.train_step import Batch, Recipe, StepMetrics, TrainData, TrainState, train_epoch, train_step

__all__ = [
    "PARALLEL",
    "Layout",
    "all_finite",
    "choose_layout",
    "epoch_program",
    "in_all",
    "is_main",
    "leave",
    "lost_processes_told",
    "on_main",
    "start_processes",
    "step_program",
]

PARALLEL = ("auto", "jit", "shard_map", "pmap")
_AXIS = "batch"
# Instances that a device must get before several are worth their talking: they send all gradients at every step.
_WORTH = 512
_HEARTBEAT = 20  # seconds without a sign of life after which a process counts as lost
_PATIENCE = 120  # seconds to wait for others at the start and at the end
_T = TypeVar("_T")


@dataclass(frozen=True)
class Layout:
    """How a run lies on devices.

    Attributes:
        way: "jit", "shard_map" or "pmap".
        mesh: the devices, one axis; those of all processes.
    """

    way: str
    mesh: Mesh

    @property
    def everywhere(self) -> NamedSharding:
        """Whole on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def instances(self) -> NamedSharding:
        """The first axis cut among devices."""
        return NamedSharding(self.mesh, PartitionSpec(_AXIS))

    @property
    def shares(self) -> int:
        """Number of devices."""
        return self.mesh.size

    def replicate(self, tree: Any) -> Any:
        """Put arrays, the same in every process, on every device; where one is already, it is not copied."""
        return jax.tree.map(lambda x: _from_local(self.everywhere, x), tree)

    def own(self, tree: Any) -> Any:
        """Arrays that every device has, as arrays of this process's first device alone."""
        return jax.tree.map(lambda x: x.addressable_data(0), tree)

    def own_rows(self, size: int) -> slice:
        """The part of a batch of this size, padded to a multiple of `shares`, that this process's devices have."""
        here = [i for i, d in enumerate(self.mesh.devices) if d.process_index == jax.process_index()]
        each = size // self.shares
        return slice(here[0] * each, (here[-1] + 1) * each)

    def batch(self, local: Batch) -> Batch:
        """The batch of all processes from the rows of each.

        Args:
            local: this process's part, on the host.
        """
        if self.way == "pmap":  # [devices, …] of this process
            here = len(self.mesh.local_devices)

            def cut(x: Any, axis: int) -> Any:
                return np.stack(np.split(np.asarray(x), here, axis=axis))

            features = tuple(cut(x, 0) for x in local.features)
            return Batch(features, cut(local.labels, 1), cut(local.mask, local.mask.ndim - 1))
        specs = _batch_specs(local.mask.ndim)

        def put(x: Any, spec: PartitionSpec) -> Array:
            return _from_local(NamedSharding(self.mesh, spec), x)

        features = tuple(put(x, specs.features) for x in local.features)
        return Batch(features, put(local.labels, specs.labels), put(local.mask, specs.mask))


def choose_layout(parallel: str, batch_size: int) -> Layout | None:
    """The devices for a run, or None for a single one.

    Args:
        parallel: one of `PARALLEL`. "auto" takes as many devices as get 512 instances of a batch each, and all
            where there are several processes; the others take all.
        batch_size: B.

    Raises:
        InputError: unknown `parallel`.
    """
    if parallel not in PARALLEL:
        raise InputError(f"parallel {parallel!r}: choose from {', '.join(PARALLEL)}")
    devices = jax.devices()
    if parallel == "auto" and jax.process_count() == 1:
        devices = devices[: max(1, batch_size // _WORTH)]
    if len(devices) == 1:
        return None
    return Layout("shard_map" if parallel == "auto" else parallel, Mesh(np.array(devices), (_AXIS,)))


def all_finite(state: TrainState) -> Array:
    """Whether all parameters and moments are finite, a scalar."""
    leaves = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.stack([jnp.isfinite(x).all() for x in leaves]).all()


@functools.cache
def epoch_program(layout: Layout | None) -> Callable[..., tuple[TrainState, StepMetrics, Array]]:
    """`train_epoch` compiled, with whether all parameters are finite; it overwrites the state that it takes.

    Takes state, data, key, epoch, recipe, the first three on every device of the layout.
    """

    def epoch(
        state: TrainState, data: TrainData, key: Array, number: Array, recipe: Recipe, **how: Any
    ) -> tuple[TrainState, StepMetrics, Array]:
        state, steps = train_epoch(state, data, key, number, recipe, **how)
        return state, steps, all_finite(state)

    if layout is None:
        return jax.jit(epoch, donate_argnums=0)
    if layout.way == "jit":
        return jax.jit(
            functools.partial(epoch, sharding=layout.instances), donate_argnums=0, out_shardings=layout.everywhere
        )
    local = functools.partial(epoch, axis_name=_AXIS)
    if layout.way == "shard_map":
        everywhere = PartitionSpec()
        return jax.jit(
            jax.shard_map(local, mesh=layout.mesh, in_specs=everywhere, out_specs=everywhere), donate_argnums=0
        )
    mapped = jax.pmap(
        lambda _, *args: local(*args),
        _AXIS,
        in_axes=(0, *[None] * 5),
        out_axes=None,
        devices=list(layout.mesh.devices),
        donate_argnums=1,
    )
    return lambda *args: mapped(np.arange(len(layout.mesh.local_devices)), *args)


@functools.cache
def step_program(layout: Layout | None) -> Callable[..., tuple[TrainState, StepMetrics]]:
    """`train_step` compiled; it overwrites the state. Takes state, batch as `Layout.batch` gives it, recipe, epoch."""
    if layout is None:
        return jax.jit(train_step, donate_argnums=0)
    if layout.way == "jit":
        return jax.jit(train_step, donate_argnums=0, out_shardings=layout.everywhere)
    local = functools.partial(train_step, axis_name=_AXIS)
    if layout.way == "shard_map":

        def mapped(state: TrainState, batch: Batch, recipe: Recipe, epoch: Array) -> tuple[TrainState, StepMetrics]:
            everywhere = PartitionSpec()
            specs = (everywhere, _batch_specs(batch.mask.ndim), everywhere, everywhere)
            return jax.shard_map(local, mesh=layout.mesh, in_specs=specs, out_specs=everywhere)(
                state, batch, recipe, epoch
            )

        return jax.jit(mapped, donate_argnums=0)
    return jax.pmap(
        lambda *args: local(*args),
        _AXIS,
        in_axes=(None, 0, None, None),
        out_axes=None,
        devices=list(layout.mesh.devices),
        donate_argnums=0,
    )


def start_processes(address: str | None, count: int | None, index: int | None) -> None:
    """Join the other processes of a run; before anything else is computed.

    Args:
        address: HOST:PORT of the first process, the same for all; with none of the three the cluster is asked (SLURM,
            Open MPI, Kubernetes, TPU pods), as `jax.distributed.initialize` does.
        count: how many processes.
        index: which of them this is, from 0.

    Raises:
        InputError: they do not fit each other, nothing was detected, or the others did not come.
    """
    given = (address, count, index)
    if None in given and any(x is not None for x in given):
        raise InputError("coordinator address, number of processes and process id need each other; give all three")
    if count is not None and index is not None and not 0 <= index < count:
        raise InputError(f"process id {index} of {count} processes: must be from 0 to {count - 1}")
    try:
        jax.distributed.initialize(
            address,
            count,
            index,
            initialization_timeout=_PATIENCE,
            heartbeat_timeout_seconds=_HEARTBEAT,
            shutdown_timeout_seconds=_PATIENCE,
        )
    except (RuntimeError, ValueError) as error:
        why = str(error).strip().splitlines()[0]
        hint = "start all of them" if address else "give the coordinator's address, the number and this process's id"
        raise InputError(f"the processes of the run cannot be joined ({why}); {hint}") from error
    _Witness.of_this_process = _Witness()


class _Witness:
    """A small process that says so if this one ends without a word.

    JAX aborts a process when it has lost another one, where no Python of ours runs any more; and a process that is
    killed cannot speak at all.
    """

    of_this_process: "_Witness | None" = None
    _WATCH = "import sys; sys.stdin.read() or print(sys.argv[1], file=sys.stderr, flush=True)"

    def __init__(self) -> None:
        told = (
            f"error: process {jax.process_index()} of {jax.process_count()} was killed, or ended since another one was "
            "lost; checkpoints stay: start all again with --resume"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", self._WATCH, told], stdin=subprocess.PIPE, start_new_session=True
        )

    def dismiss(self) -> None:
        """The process ends in order."""
        self._process.communicate(b"done")


def leave(code: int) -> None:
    """End a process of several after its command: after an error at once, for the others may be no more."""
    if _Witness.of_this_process is not None:
        _Witness.of_this_process.dismiss()
        if code:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def is_main() -> bool:
    """Whether this is the process that writes files and speaks."""
    return jax.process_index() == 0


@contextmanager
def lost_processes_told() -> Iterator[None]:
    """Turn what the loss of another process does to this one into an error of our own.

    Raises:
        ProcessLostError: another process ended, or cannot be reached.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        raise ProcessLostError(
            f"process {jax.process_index()}: another process of the run ended or cannot be reached "
            f"({str(error).strip().splitlines()[0][:200]}); start all again with --resume"
        ) from error


def in_all(action: Callable[[], _T]) -> _T:
    """Do something in every process; where it fails in one, all fail.

    Raises:
        InputError: the action raised it, here or elsewhere.
    """
    if jax.process_count() == 1:
        return action()
    from jax.experimental import multihost_utils

    failure: Exception | None = None
    value = None
    try:
        value = action()
    except Exception as error:  # the others must hear of any
        failure = error
    failed = np.flatnonzero(multihost_utils.process_allgather(np.int32(failure is not None)))
    if failure is not None:
        raise failure
    if len(failed):
        raise InputError(f"process {failed[0]} could not begin; its own message says why")
    return value  # type: ignore[return-value]


def on_main(action: Callable[[], Any]) -> Any:
    """Do something in one process of many, such as writing a file; all get what it gives, or raise as it does.

    Args:
        action: gives a value that JSON can hold.

    Raises:
        InputError: the action raised it.
    """
    if jax.process_count() == 1:
        return action()
    from jax.experimental import multihost_utils

    told = b""
    if is_main():
        try:
            told = json.dumps({"value": action()}).encode()
        except InputError as error:
            told = json.dumps({"error": str(error)}).encode()
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(told))))
    buffer = np.frombuffer(told or bytes(length), np.uint8)
    content = json.loads(np.asarray(multihost_utils.broadcast_one_to_all(buffer)).tobytes())
    if "error" in content:
        raise InputError(content["error"])
    return content["value"]


def _batch_specs(mask_ndim: int) -> Any:
    first, second = PartitionSpec(_AXIS), PartitionSpec(None, _AXIS)
    return Batch(first, second, first if mask_ndim == 1 else second)  # type: ignore[arg-type]


def _from_local(sharding: NamedSharding, x: Any) -> Array:
    if jax.process_count() == 1:
        return jax.device_put(x, sharding)
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        data = _from_local(sharding, jax.random.key_data(x))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
    return jax.make_array_from_process_local_data(sharding, np.asarray(x))
