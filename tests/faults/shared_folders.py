"""Two processes in one folder, and the locks of processes that were killed."""

import signal

import numpy as np
from client import Done
from tasks import Bench, Task


def two_processes(bench: Bench, task: Task, rng: np.random.Generator) -> str:
    """While one stands still before a change, another gives the same command; then the first goes on."""
    at, others = bench.fresh(task), list[Done]()
    event = int(rng.integers(1, bench.references[task.name].events + 1))

    def give() -> None:
        others.append(bench.second.run(task.again(at), at, env=task.env(at)))

    done = bench.command(task, task.argv(at), at, event=event, number=signal.SIGSTOP, stopped=give)
    if wrong := [f"exit code {x.code}: {x.last}" for x in (done, *others) if x.code and not x.in_one_line]:
        return wrong[0]
    if done.code and all(x.code for x in others):
        return f"both were refused: {done.last}; {[x.last for x in others]}"
    return bench.finished(task)


def stale_lock(bench: Bench, task: Task, rng: np.random.Generator) -> str:
    """A process is killed before a change while it holds its locks."""
    at = bench.fresh(task)
    event = int(rng.integers(1, bench.references[task.name].events + 1))
    bench.command(task, task.argv(at), at, event=event, number=signal.SIGSTOP, stopped=bench.worker.kill)
    return bench.finished(task)
