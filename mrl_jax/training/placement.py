"""Placement of one run on several devices, of one process or many: meshes, and three modes to compile a step.

Every device has the whole state and its part of each batch; `train_step` computes the gradient of the whole batch
(`axis_name`). The modes differ in what partitions the program: `shard_map` and `pmap` run the local step on every
device, `jit` leaves the partition to the compiler. All give the numbers of one device, up to the order of sums.

If one device cannot hold parameters and optimiser state, the columns of every layer can be divided along a second axis
of the mesh. Only `jit` supports that.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mrl_jax.errors import InputError
from mrl_jax.methods.base import Method
from mrl_jax.methods.state import Batch, State, TrainData
from mrl_jax.options import PARALLEL
from mrl_jax.run.shapes import path_names
from mrl_jax.training.epoch import Metrics, train_epoch, train_step

__all__ = ["Placement", "all_finite", "choose_placement", "compile_training", "epoch_program", "step_program"]

_AXIS, _MODEL = "batch", "model"
# Instances of a batch that justify one more device: devices exchange all gradients at every step.
_INSTANCES_PER_DEVICE = 512


@dataclass(frozen=True)
class Placement:
    """Placement of a run on devices.

    Attributes:
        mode: "jit", "shard_map" or "pmap".
        mesh: the devices of all processes, along "batch", and along "model" where the parameters are divided.
    """

    mode: str
    mesh: Mesh

    @property
    def everywhere(self) -> NamedSharding:
        """Sharding that copies an array to every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def instances(self) -> NamedSharding:
        """Sharding that cuts the first axis into `batch_parts` parts."""
        return NamedSharding(self.mesh, PartitionSpec(_AXIS))

    @property
    def batch_parts(self) -> int:
        """Number of parts into which a batch is cut, one for each device or group of devices."""
        return self.mesh.shape[_AXIS]

    @property
    def divides(self) -> bool:
        """Whether parameters are divided."""
        return _MODEL in self.mesh.axis_names

    @property
    def model_parts(self) -> int:
        """Over how many devices parameters are divided."""
        return self.mesh.shape[_MODEL] if self.divides else 1

    def of_state(self, state: Any) -> Any:
        """Shardings of a state: a tree of them for a tree of arrays or of shapes."""

        def of(x: Any, of_layer: bool) -> NamedSharding:
            if not of_layer or x.shape[-1] % self.mesh.shape[_MODEL]:
                return self.everywhere
            return NamedSharding(self.mesh, PartitionSpec(*[None] * (x.ndim - 1), _MODEL))

        if not self.divides:
            return jax.tree.map(lambda _: self.everywhere, state)
        return jax.tree.map(of, state, _of_layers(state))

    def check_layers(self, method: Method, state: Any) -> None:
        """Refuse a method whose parameters cannot be divided; a placement that divides none accepts all.

        Args:
            method: the method.
            state: its state, or the shapes of it.

        Raises:
            InputError: the method is a closed form, has no layers, or has one of a width that does not divide.
        """
        if not self.divides:
            return
        size = self.mesh.shape[_MODEL]
        if method.fit is not None:
            raise InputError(
                f"model_parallel {size}: {method.name} is a closed form, which is computed on one device; leave "
                "model_parallel out"
            )
        layers = zip(jax.tree.leaves(state), jax.tree.leaves(_of_layers(state)), strict=True)
        widths = [x.shape[-1] for x, of_layer in layers if of_layer and x.ndim >= 2]
        if not widths:
            raise InputError(f"model_parallel {size}: {method.name} has no layers to divide; leave model_parallel out")
        if odd := [width for width in widths if width % size]:
            raise InputError(f"model_parallel {size}: must divide the width of every layer; one is {odd[0]}")

    def place(self, tree: Any, shardings: Any = None) -> Any:
        """Put arrays on the devices; every process passes the same ones. An array that is already there is not copied.

        Args:
            tree: the arrays.
            shardings: a tree of shardings; None copies every array to every device.
        """
        if shardings is None:
            shardings = jax.tree.map(lambda _: self.everywhere, tree)
        return jax.tree.map(_placed, tree, shardings)

    def own(self, tree: Any) -> Any:
        """Complete arrays for this process: on its first device, or on the host if they are divided."""
        return jax.tree.map(lambda x: x.addressable_data(0) if x.is_fully_replicated else _on_host(x), tree)

    def own_rows(self, size: int) -> slice:
        """Rows of a batch that belong to the devices of this process; `size` is a multiple of `batch_parts`."""
        devices_of = self.mesh.devices.reshape(self.batch_parts, -1)  # of each part
        here = [i for i, ds in enumerate(devices_of) if any(d.process_index == jax.process_index() for d in ds)]
        each = size // self.batch_parts
        return slice(here[0] * each, (here[-1] + 1) * each)

    def batch(self, local: Batch) -> Batch:
        """The batch of all processes, from the part of each.

        Args:
            local: the part of this process, on the host.
        """
        if self.mode == "pmap":  # [devices, …] of this process
            here = len(self.mesh.local_devices)

            def cut(x: Any, axis: int) -> Any:
                return np.stack(np.split(np.asarray(x), here, axis=axis))

            features = tuple(cut(x, 0) for x in local.features)
            return Batch(features, cut(local.labels, 1), cut(local.mask, local.mask.ndim - 1), cut(local.rows, 0))
        specs = _batch_specs(local.mask.ndim)

        def put(x: Any, spec: PartitionSpec) -> Array:
            if jax.process_count() == 1:
                return jax.device_put(x, NamedSharding(self.mesh, spec))
            return jax.make_array_from_process_local_data(NamedSharding(self.mesh, spec), np.asarray(x))

        features = tuple(put(x, specs.features) for x in local.features)
        rows = put(local.rows, specs.rows)
        return Batch(features, put(local.labels, specs.labels), put(local.mask, specs.mask), rows)


def choose_placement(parallel: str, batch_size: int, model_parallel: int = 1) -> Placement | None:
    """The placement of a run, or None for a single device.

    Args:
        parallel: one of `PARALLEL`. "auto" takes one device for every 512 instances of a batch, or all devices if there
            are several processes or parameters are divided. The others take all devices.
        batch_size: B.
        model_parallel: number of devices over which parameters and optimiser state are divided;
            `Placement.check_layers` checks the parameters.

    Raises:
        InputError: unknown `parallel`, or `model_parallel` does not divide the number of devices or does not go with
            `parallel`.
    """
    if parallel not in PARALLEL:
        raise InputError(f"parallel {parallel!r}: choose from {', '.join(PARALLEL)}")
    devices = sorted(jax.devices(), key=lambda d: (d.process_index, d.id))  # devices of a process are adjacent
    if model_parallel != 1:
        if model_parallel < 1 or len(devices) % model_parallel:
            raise InputError(
                f"model_parallel {model_parallel}: must divide the number of devices, which is {len(devices)}"
            )
        if parallel not in ("auto", "jit"):
            raise InputError(f"model_parallel {model_parallel} goes with parallel jit alone; leave {parallel} out")
        return Placement("jit", Mesh(np.array(devices).reshape(-1, model_parallel), (_AXIS, _MODEL)))
    if parallel == "auto" and jax.process_count() == 1:
        devices = devices[: max(1, batch_size // _INSTANCES_PER_DEVICE)]
    if len(devices) == 1:
        return None
    return Placement("shard_map" if parallel == "auto" else parallel, Mesh(np.array(devices), (_AXIS,)))


def all_finite(state: State) -> Array:
    """Whether all parameters and moments are finite, a scalar."""
    leaves = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.stack([jnp.isfinite(x).all() for x in leaves]).all()


def compile_training(program: Callable[..., Any]) -> Callable[..., Any]:
    """`jax.jit` of a training program for one device; its first argument, the state, is overwritten."""
    return jax.jit(program, donate_argnums=0, compiler_options=_options())


@functools.cache
def _options() -> dict[str, bool] | None:
    """Compiler option for the CPU that avoids copies of the state, up to a fifth of a step's time; None without it.

    It must not be used with several devices: collectives would have no fixed order and could deadlock.
    """
    options = {"xla_cpu_copy_insertion_use_region_analysis": True}
    if jax.default_backend() != "cpu":
        return None
    try:
        jax.jit(lambda x: x, compiler_options=options).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:
        return None
    return options


@functools.cache
def epoch_program(
    method: Method, placement: Placement | None, batch_size: int
) -> Callable[..., tuple[State, Metrics, Array]]:
    """Compiled `train_epoch` of a method, which also returns whether all parameters are finite.

    The program takes state, data, key, epoch and hyperparameters, the first three as `Placement.place` puts them. The
    state is overwritten.
    """

    def epoch(
        state: State, data: TrainData, key: Array, number: Array, h: Any, **options: Any
    ) -> tuple[State, Metrics, Array]:
        state, metrics = train_epoch(method, h, state, data, key, number, batch_size, **options)
        return state, metrics, all_finite(state)

    if placement is None:
        return compile_training(epoch)
    if placement.mode == "jit":
        return jax.jit(
            _constrain_outputs(placement, functools.partial(epoch, sharding=placement.instances)), donate_argnums=0
        )
    local = functools.partial(epoch, axis_name=_AXIS)
    if placement.mode == "shard_map":
        everywhere = PartitionSpec()
        return jax.jit(
            jax.shard_map(local, mesh=placement.mesh, in_specs=everywhere, out_specs=everywhere), donate_argnums=0
        )
    mapped = jax.pmap(
        lambda _, *args: local(*args),
        _AXIS,
        in_axes=(0, *[None] * 5),
        out_axes=None,
        devices=list(placement.mesh.devices),
        donate_argnums=1,
    )
    return lambda *args: mapped(np.arange(len(placement.mesh.local_devices)), *args)


@functools.cache
def step_program(method: Method, placement: Placement | None) -> Callable[..., tuple[State, Metrics]]:
    """Compiled `train_step` of a method.

    The program takes state, batch as from `Placement.batch`, hyperparameters and epoch. The state is overwritten.
    """

    def step(state: State, batch: Batch, h: Any, epoch: Array, axis_name: str | None = None) -> tuple[State, Metrics]:
        return train_step(method, h, state, batch, epoch, axis_name)

    if placement is None:
        return compile_training(step)
    if placement.mode == "jit":
        return jax.jit(_constrain_outputs(placement, step), donate_argnums=0)
    local = functools.partial(step, axis_name=_AXIS)
    if placement.mode == "shard_map":

        def mapped(state: State, batch: Batch, h: Any, epoch: Array) -> tuple[State, Metrics]:
            everywhere = PartitionSpec()
            specs = (everywhere, _batch_specs(batch.mask.ndim), everywhere, everywhere)
            return jax.shard_map(local, mesh=placement.mesh, in_specs=specs, out_specs=everywhere)(
                state, batch, h, epoch
            )

        return jax.jit(mapped, donate_argnums=0)
    return jax.pmap(
        lambda *args: local(*args),
        _AXIS,
        in_axes=(None, 0, None, None),
        out_axes=None,
        devices=list(placement.mesh.devices),
        donate_argnums=0,
    )


def _of_layers(state: Any) -> Any:
    """Whether each array of a state belongs to a layer whose columns may be divided: a tree of bool.

    These are the arrays of `encoders`; in a state without encoders, all arrays of two or more dimensions that are not
    kept per sample. The optimiser's arrays have the paths of the parameters.
    """
    paths = [path_names(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)]
    has_encoders = any("encoders" in names for names in paths)

    def of_layer(path: tuple[Any, ...], x: Any) -> bool:
        names = path_names(path)
        return x.ndim >= 1 and "encoders" in names if has_encoders else x.ndim >= 2 and "samples" not in names

    return jax.tree_util.tree_map_with_path(of_layer, state)


def _batch_specs(mask_ndim: int) -> Any:
    first, second = PartitionSpec(_AXIS), PartitionSpec(None, _AXIS)
    return Batch(first, second, first if mask_ndim == 1 else second, first)  # type: ignore[arg-type]


def _constrain_outputs(placement: Placement, program: Callable[..., Any]) -> Callable[..., Any]:
    """The program with fixed shardings of its results: the state as in `of_state`, the others on every device."""

    def constrained(*args: Any) -> Any:
        state, *others = program(*args)
        state = jax.lax.with_sharding_constraint(state, placement.of_state(state))
        return state, *jax.lax.with_sharding_constraint(others, placement.everywhere)

    return constrained


def _placed(x: Any, sharding: NamedSharding) -> Array:
    if jax.process_count() == 1:
        return jax.device_put(x, sharding)
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        data = _placed(jax.random.key_data(x), sharding)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
    host = np.asarray(x)
    return jax.make_array_from_callback(host.shape, sharding, lambda part: host[part])


def _on_host(x: Array) -> np.ndarray:
    if x.is_fully_addressable:
        return np.asarray(x)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(x, tiled=True))
