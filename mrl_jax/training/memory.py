"""Memory: what a device has, and what a run needs at the least."""

from typing import Any

import jax

from mrl_jax.config import Config, shown
from mrl_jax.errors import InputError
from mrl_jax.interface import option
from mrl_jax.methods.registry import method_of
from mrl_jax.methods.state import Shapes
from mrl_jax.run.shapes import state_shapes

__all__ = ["bytes_of", "check_memory", "device_memory", "least_bytes"]


def device_memory(device: Any = None) -> float:
    """Bytes of memory of a device, by default the first. For a CPU it is the memory of the machine."""
    device = device or jax.local_devices()[0]
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return float(stats["bytes_limit"])
    import psutil

    return float(psutil.virtual_memory().total)


def least_bytes(config: Config, shapes: Shapes) -> dict[str, int]:
    """Lower bounds on the bytes that a run has on its device, part by part; no array is made.

    Activations, batches, data and the best parameters so far come on top.

    Args:
        config: its settings.
        shapes: the sizes of its data.
    """
    state = state_shapes(config, shapes)
    parameters = bytes_of(state.params)
    return {
        "parameters": parameters,
        "gradients": parameters if method_of(config).step is not None else 0,
        "optimiser": bytes_of(state.optimizer),
        "state of the samples": bytes_of(state.samples),
    }


def check_memory(config: Config, shapes: Shapes, parts: int = 1) -> None:
    """Refuse a run that its device cannot hold, whatever its batches are.

    Args:
        config: its settings.
        shapes: the sizes of its data.
        parts: number of devices over which its parameters are divided.

    Raises:
        InputError: the parts of `least_bytes` together exceed the device's memory.
    """
    needed, memory = least_bytes(config, shapes), device_memory()
    total = sum(needed.values())
    if total / parts <= memory:
        return
    own = ", ".join(f"{name} {size:,}" for name, size in needed.items() if size)
    over = f" over {parts} devices" if parts > 1 else ""
    widths = [n for n in ("hidden_dims", "embed_dim") if config.has_effect(n)]
    remedy = " or ".join(f"{option(n, '…')} (now {shown(getattr(config, n))})" for n in widths)
    remedy = f"give smaller {remedy}" if widths else "use fewer features or instances"
    raise InputError(
        f"training needs {total:,} bytes{over} or more ({own}), and the {jax.local_devices()[0].platform} has "
        f"{int(memory):,}{' each' if parts > 1 else ''}; {remedy}"
    )


def bytes_of(tree: Any) -> int:
    """The bytes of all arrays, or shapes of arrays, in a tree."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
