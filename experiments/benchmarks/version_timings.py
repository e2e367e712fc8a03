"""Is a version slower than another? Epoch, start and memory of two checkouts, in turns.

    python -m experiments.benchmarks.version_timings BEFORE AFTER [--rounds 5]

Both run with this Python. Each command is a process of its own. A first round, not counted, fills the caches of
compiled programs. An epoch is what forty more of them add to a training. Prints medians and ratios; CPU seconds are
those of all cores together, and depend less on what else runs on the machine.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from experiments.shared.command_line import run_main
from experiments.shared.tables import markdown

TRAIN = ["-m", "mrl_jax.train", "emoji", "--workdir", "{}"]
EXTRA = 40  # epochs; fewer drown in the differences between starts


class Usage(NamedTuple):
    """What a command used: seconds, CPU seconds of all cores, peak memory in MB."""

    wall: float
    cpu: float
    memory: float


def measured(tree: Path, folder: Path, command: list[str]) -> Usage:
    """Run a command of a checkout and measure it.

    Raises:
        SystemExit: it failed.
    """
    env = os.environ | {"PYTHONPATH": str(tree), "PYTHONSAFEPATH": "1", "JAX_PLATFORMS": "cpu"}
    env["JAX_COMPILATION_CACHE_DIR"] = str(folder / "compiled")
    started = time.perf_counter()
    silent = subprocess.DEVNULL
    child = subprocess.Popen([sys.executable, *command], cwd=folder, env=env, stdout=silent, stderr=silent)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{tree}: {' '.join(command)} failed")
    memory = usage.ru_maxrss / (1024 if sys.platform == "linux" else 2**20)
    return Usage(time.perf_counter() - started, usage.ru_utime + usage.ru_stime, memory)


def round_of(tree: Path, folder: Path, number: int) -> dict[str, float]:
    """Every figure of a checkout, once."""
    folder.mkdir(exist_ok=True)
    runs = {}
    for epochs in (1, 1 + EXTRA):
        command = [part.format(f"run-{number}-{epochs}") for part in TRAIN] + ["--epochs", str(epochs)]
        runs[epochs] = measured(tree, folder, command)
    search = ["-m", "mrl_jax.search", "--workdir", f"run-{number}-1", "--text", "cat"]
    measured(tree, folder, search)  # embeds the gallery, which is kept
    one, more, found = runs[1], runs[1 + EXTRA], measured(tree, folder, search)
    return {
        "command to the end of one epoch, s": one.wall,
        "command to the end of one epoch, CPU s": one.cpu,
        "an epoch, s": (more.wall - one.wall) / EXTRA,
        "an epoch, CPU s": (more.cpu - one.cpu) / EXTRA,
        "peak memory of training, MB": more.memory,
        "search, s": found.wall,
        "search, CPU s": found.cpu,
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="checkout of the older version")
    parser.add_argument("after", type=Path, help="checkout of the newer version")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that are counted; default: 5")
    args = parser.parse_args()
    trees = {"before": args.before.absolute(), "after": args.after.absolute()}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in trees}
    with tempfile.TemporaryDirectory() as base:
        for number in range(args.rounds + 1):
            for name in trees if number % 2 else reversed(trees):
                one = round_of(trees[name], Path(base, name), number)
                if number:
                    found[name].append(one)
                print(f"round {number}, {name}: {one}", file=sys.stderr, flush=True)
    rows = []
    for figure in found["before"][0]:
        old, new = (statistics.median(one[figure] for one in found[name]) for name in trees)
        rows.append([figure, f"{old:.3g}", f"{new:.3g}", f"{new / old:.2f}"])
    print(markdown([["", "before", "after", "ratio"], *rows]))


if __name__ == "__main__":
    run_main(main)
