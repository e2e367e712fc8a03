"""Commands on a full disk, in a folder that cannot be written any more, with few file handles, with little memory."""

import subprocess

import numpy as np
from client import Done
from tasks import Bench, Task

SKIPPED = "skipped"


def _mount(*arguments: object) -> bool:
    return subprocess.run(["mount", *map(str, arguments)], capture_output=True).returncode == 0


def may_mount(bench: Bench) -> bool:
    """Whether this process may mount file systems."""
    bench.fresh(next(iter(bench.tasks.values())))
    return _mount("-t", "tmpfs", "none", bench.place) and not _unmount(bench)


def _unmount(bench: Bench) -> int:
    return subprocess.run(["umount", "-l", str(bench.place)]).returncode


def _refused_or_done(done: Done) -> str:
    """What is wrong with a command that had too little of something."""
    return "" if done.code == 0 or done.in_one_line else f"exit code {done.code}: {done.last}"


def full_disk(bench: Bench, task: Task, rng: np.random.Generator) -> str:
    """The disk is full after a random part of what the command writes; then there is space again."""
    at, size = bench.fresh(task), bench.references[task.name].size
    if task.needs_run:  # only what the command itself writes can be missing
        size += 1 << 16
    if not may_mount(bench):
        largest = int(rng.integers(1, 1 << 16))
        done = bench.command(task, task.argv(at), at, limit={"file size": largest})
        return _refused_or_done(done) or bench.finished(task)
    _mount("-t", "tmpfs", "-o", "size=64m", "none", at)
    try:
        bench.furnish(task)
        used = sum(path.stat().st_size + 4096 for path in at.rglob("*"))
        _mount("-o", f"remount,size={max(4096, int(rng.uniform(used, used + 1.2 * (size - used))))}", at)
        done = bench.command(task, task.argv(at), at)
        _mount("-o", "remount,size=64m", at)
        return _refused_or_done(done) or bench.finished(task)
    finally:
        _unmount(bench)


def read_only(bench: Bench, task: Task, rng: np.random.Generator) -> str:
    """The folder cannot be written any more from a random change on; then it can again."""
    if not may_mount(bench):
        return f"{SKIPPED}: needs the right to mount"
    at = bench.place
    _mount("-t", "tmpfs", "-o", "size=64m", "none", at)
    try:
        bench.furnish(task)
        event = int(rng.integers(1, bench.references[task.name].events + 1))
        done = bench.command(
            task, task.argv(at), at, event=event, number=19, stopped=lambda: _mount("-o", "remount,ro", at)
        )
        _mount("-o", "remount,rw", at)
        return _refused_or_done(done) or bench.finished(task)
    finally:
        _unmount(bench)


def few_handles(bench: Bench, task: Task, rng: np.random.Generator) -> str:
    """Up to 40 file handles more than there are."""
    at = bench.fresh(task)
    done = bench.command(task, task.argv(at), at, limit={"files": int(rng.integers(0, 40))})
    if done.ended:
        return f"the process ended with {done.code}: {done.last}"
    return _refused_or_done(done) or bench.finished(task)


def little_memory(bench: Bench, task: Task, rng: np.random.Generator) -> str:
    """Up to 200 MB of addresses more than there are. Libraries may then end the process: nothing is lost by that."""
    at = bench.fresh(task)
    done = bench.command(task, task.argv(at), at, limit={"memory": int(rng.integers(0, 200 << 20))})
    if not done.ended:
        bench.worker.kill()  # libraries that ran short of memory may be in any state
    return bench.finished(task)
