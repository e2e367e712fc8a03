"""Folders with unusual names, and homes and caches that cannot be written."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from client import XLA_FLAGS
from tasks import Bench, Task

_NAMES = (
    "a b", " ", "a\nb", "\tx", "Größe 检索", "🙂", "-x", "--help", "a'b\"c", "$HOME `x`", "a\\b", "*?[x]", "%s {x}",
    "~", "#x", "x" * 255, "é" * 127, "\x1b[31mred", "a\u202eb", os.fsdecode(b"\xff\xfe"), "...", "a;b", "=1+1",
    "config.json",
)  # fmt: skip
_UNWRITABLE = "/proc/none"
_VARIABLES = ("HOME", "XDG_CACHE_HOME", "TMPDIR", "MPLCONFIGDIR", "JAX_COMPILATION_CACHE_DIR", "MRL_JAX_DATA_DIR")


def odd_name(bench: Bench, task: Task, rng: np.random.Generator) -> str:
    """The folder has an unusual name, or is a link to one that has."""
    bench.fresh(task)
    name = _NAMES[rng.integers(len(_NAMES))]
    within = bench.place / name
    within.mkdir()
    at = bench.place / "link" if rng.integers(2) else within
    if at != within:
        at.symlink_to(within, target_is_directory=True)
    if task.needs_run:
        (bench.place / "run").rename(within / "run")
    done = bench.command(task, task.argv(at), at)
    if "\udcff" in name and done.code == 2 and done.in_one_line:  # not UTF-8
        return "" if not list(within.iterdir()) or task.needs_run else f"{name!r}: refused, but something is left"
    if done.code:
        return f"{name!r}: exit code {done.code}: {done.last}"
    found = bench.worker.outcome(task.name, at)
    if found == bench.references[task.name].outcome or task.name in ("eval", "search"):
        return ""
    return f"{name!r}: {found}"


def unwritable_home(bench: Bench, task: Task, rng: np.random.Generator) -> str:
    """One of the folders of a user, or all, cannot be written; in a process of its own."""
    at = bench.fresh(task)
    chosen = list(_VARIABLES) if rng.integers(3) == 0 else [_VARIABLES[rng.integers(len(_VARIABLES))]]
    if task.name == "prepare":
        chosen = [name for name in chosen if name != "MRL_JAX_DATA_DIR"]  # where it writes
    path = os.pathsep.join(str(Path(__file__).parents[i]) for i in (1, 2))
    env = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    env |= (
        {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": XLA_FLAGS}
        | task.env(at)
        | dict.fromkeys(chosen, _UNWRITABLE)
    )
    command, *rest = task.argv(at)
    done = subprocess.run([sys.executable, "-m", f"mrl_jax.{command}", *rest], env=env, capture_output=True, text=True)
    if done.returncode or "Traceback" in done.stderr:
        return f"{chosen}: exit code {done.returncode}: {(done.stderr.splitlines() or [''])[-1]}"
    return bench.finished(task)
