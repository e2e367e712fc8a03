"""Which runs of a sweep are trained together, and where."""

import math
from collections.abc import Hashable, Sequence
from typing import Any

import jax

from mrl_jax.run.representation import representation_of
from mrl_jax.training.active_run import ActiveRun
from mrl_jax.training.memory import device_memory
from mrl_jax.training.vmapped_runs import bytes_of_a_run

__all__ = ["common_epochs", "groups", "program_of"]

_USABLE = 0.8  # fraction of a device's memory
_MAX_RUNS = 64  # on one device: more are not faster
# On CPU, where operations start quickly, runs are faster together only while their parameters stay in the caches.
_SMALL = 1 << 20  # parameters


def groups(runs: Sequence[ActiveRun], done: Sequence[int], way: str, devices: Sequence[Any]) -> list[list[ActiveRun]]:
    """Divide runs into groups, each of which is one compiled program.

    Args:
        runs: the runs that are not complete.
        done: epochs that each has completed.
        way: "together" in one program as far as memory allows, "apart", or "auto" for whichever is faster.
        devices: the devices for the runs.

    Returns:
        Groups in the order of their first runs. A group of one is trained as `train` does it.
    """
    alike: dict[Any, list[ActiveRun]] = {}
    for i, (run, epochs) in enumerate(zip(runs, done, strict=True)):
        spec = run.spec
        closed = spec.method.fit is not None  # computed on the host
        apart = closed or spec.streams or way == "apart" or (way == "auto" and not _faster_together(run, devices))
        alike.setdefault(i if apart else (program_of([run]), epochs), []).append(run)
    divided = []
    for runs in alike.values():
        limit = len(runs) if len(runs) == 1 else _max_size(runs[0], devices)
        size = math.ceil(len(runs) / math.ceil(len(runs) / limit))  # groups of equal size compile once
        divided += [list(runs[i : i + size]) for i in range(0, len(runs), size)]
    return divided


def common_epochs(runs: Sequence[ActiveRun], saved: Sequence[Sequence[int]]) -> list[int]:
    """The epoch that each run goes on from, so that runs which were trained together are again, to the same bits.

    A sweep that is killed while it saves leaves some runs of a group one checkpoint ahead. Those go back.

    Args:
        runs: the runs that are not complete.
        saved: epochs of the checkpoints of each, ascending.
    """
    last = [max(epochs, default=0) for epochs in saved]
    programs = [program_of([run]) for run in runs]
    first = {program: min(e for p, e in zip(programs, last, strict=True) if p == program) for program in programs}
    return [
        first[program] if first[program] in epochs or (not first[program] and list(epochs) == [1]) else latest
        for program, epochs, latest in zip(programs, saved, last, strict=True)
    ]


def program_of(group: Sequence[ActiveRun]) -> Hashable:
    """What determines the compiled program of a group; groups with equal values compile once."""
    spec = group[0].spec
    numbers = jax.tree.structure(spec.hyperparameters)  # contains the static fields
    kind = representation_of(spec.config)
    return (id(spec.data), spec.method, kind, spec.config.batch_size, numbers, spec.mask is None, len(group))


def _faster_together(run: ActiveRun, devices: Sequence[Any]) -> bool:
    if devices[0].platform != "cpu":
        return True
    if run.spec.method.factorises:
        return False
    weights = jax.tree.leaves(run.spec.template.best)
    return sum(x.size for x in weights) <= _SMALL


def _max_size(run: ActiveRun, devices: Sequence[Any]) -> int:
    data = run.spec.data
    shared = sum(x.nbytes for x in data.features or ())
    shared += sum(x.nbytes for split in data.held_out.values() for x in split.values())
    memory = device_memory(devices[0]) / (len(devices) if devices[0].platform == "cpu" else 1)
    fit = int((_USABLE * memory - shared) / bytes_of_a_run(run.spec))
    return max(1, min(fit, _MAX_RUNS)) * len(devices)
