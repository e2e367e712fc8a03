"""Which runs of a sweep are trained together, and where."""

import math
from collections.abc import Sequence
from typing import Any

import jax

from mrl_jax.training.loop import ActiveRun
from mrl_jax.training.run_spec import device_memory
from mrl_jax.training.vmapped_runs import bytes_of_a_run

__all__ = ["groups"]

_USABLE = 0.8  # fraction of a device's memory
_MAX_RUNS = 64  # on one device: more are not faster
# On CPU, where operations start quickly, runs are faster together only while their parameters stay in the caches.
_SMALL = 1 << 20  # parameters


def groups(
    members: Sequence[ActiveRun], done: Sequence[int], way: str, devices: Sequence[Any]
) -> list[list[ActiveRun]]:
    """Divide runs into groups, each of which is one compiled program.

    Args:
        members: the runs that are not complete.
        done: epochs that each has completed.
        way: "together" in one program as far as memory allows, "apart", or "auto" for whichever is faster.
        devices: the devices for the runs.

    Returns:
        Groups in the order of their first runs. A group of one is trained as `train` does it.
    """
    alike: dict[Any, list[ActiveRun]] = {}
    for i, (member, epochs) in enumerate(zip(members, done, strict=True)):
        spec = member.spec
        apart = spec.streams or way == "apart" or (way == "auto" and not _faster_together(member, devices))
        numbers = jax.tree.structure(spec.hyperparameters)  # contains the static fields
        same = (id(spec.data), spec.method, spec.config.batch_size, numbers, spec.mask is None, epochs)
        alike.setdefault(i if apart else same, []).append(member)
    divided = []
    for members in alike.values():
        limit = len(members) if len(members) == 1 else _max_size(members[0], devices)
        size = math.ceil(len(members) / math.ceil(len(members) / limit))  # groups of equal size compile once
        divided += [list(members[i : i + size]) for i in range(0, len(members), size)]
    return divided


def _faster_together(member: ActiveRun, devices: Sequence[Any]) -> bool:
    if devices[0].platform != "cpu":
        return True
    weights = jax.tree.leaves(member.spec.template.best)
    return sum(x.size for x in weights) <= _SMALL


def _max_size(member: ActiveRun, devices: Sequence[Any]) -> int:
    data = member.spec.data
    shared = sum(x.nbytes for x in data.features or ())
    shared += sum(x.nbytes for split in data.held_out.values() for x in split.values())
    memory = device_memory(devices[0]) / (len(devices) if devices[0].platform == "cpu" else 1)
    fit = int((_USABLE * memory - shared) / bytes_of_a_run(member.spec))
    return max(1, min(fit, _MAX_RUNS)) * len(devices)
