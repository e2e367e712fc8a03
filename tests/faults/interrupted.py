"""Commands that are killed, ended or interrupted at random moments: half of them before a change in their folder."""

import signal

import numpy as np
from tasks import Bench, Task


def _disturbed(number: int, bench: Bench, task: Task, rng: np.random.Generator) -> str:
    """Send a signal; what is wrong afterwards."""
    reference = bench.references[task.name]
    when: dict[str, object] = {"event": int(rng.integers(1, reference.events + 1))}
    if rng.integers(2):
        when = {"after": float(rng.uniform(0, reference.seconds))}
    at = bench.fresh(task)
    stop = number != signal.SIGSTOP
    done = bench.command(task, task.argv(at), at, number=number, stopped=bench.take_image, stop_after=stop, **when)
    if stop and done.code and not done.in_one_line:
        return f"exit code {done.code}: {done.last}"
    if bench.image.exists():
        bench.use_image()
    return bench.finished(task)


def killed(bench: Bench, task: Task, rng: np.random.Generator) -> str:
    """SIGKILL. The process stops, its files are copied, and the copy is continued."""
    return _disturbed(signal.SIGSTOP, bench, task, rng)


def ended(bench: Bench, task: Task, rng: np.random.Generator) -> str:
    """SIGTERM."""
    return _disturbed(signal.SIGTERM, bench, task, rng)


def interrupted(bench: Bench, task: Task, rng: np.random.Generator) -> str:
    """Ctrl-C."""
    return _disturbed(signal.SIGINT, bench, task, rng)
