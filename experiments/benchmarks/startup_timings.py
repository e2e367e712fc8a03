"""Seconds from the command to the end of its first epoch, beside what JAX itself needs for that.

python -m experiments.benchmarks.startup_timings [--smoke] [--rounds 5]

- "import": a Python that imports jax and asks for devices.
- "bare": a Python that imports jax and the training step, compiles initialisation and epoch at the same shapes, and
  runs that epoch on zeros.
- "train": `python -m mrl_jax.train` on the embedded data, which also reads and preprocesses them, draws noise, and
  writes the folder of the run.

First starts find no compiled programs, second ones those of the first. Data are prepared before. About 3 minutes on 2
idle CPU cores; results go to experiments/results/startup_timings.json.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from experiments.shared.folders import RESULTS
from experiments.shared.machine import machine

RESULTS_FILE = RESULTS / "startup_timings.json"
IMPORT = "import jax; jax.devices()"
BARE = """
import sys, jax, jax.numpy as jnp
from experiments.shared.folders import RESULTS
from mrl_jax.compile_cache import keep_compiled
from mrl_jax.training.placement import epoch_program
from mrl_jax.training.train_step import Recipe, TrainData, init_state
keep_compiled(True)
dims, n, classes, batch_size, hidden, epochs = map(eval, sys.argv[1:])
recipe = Recipe(batch_size=batch_size, hidden_dims=hidden, epochs=epochs)
state = jax.jit(init_state, static_argnums=(2, 3))(recipe, jax.random.key(0), tuple(dims), classes)
data = TrainData(tuple(jnp.zeros((n, d)) for d in dims), jnp.zeros((len(dims), n), jnp.int32))
jax.block_until_ready(epoch_program(None)(state, data, jax.random.key(1), 0, recipe)[1])
"""
TRAIN = """
import os, sys
from mrl_jax.training.single_run import OneRun
from mrl_jax.train import main
train = OneRun.run_epoch
def first(self, epoch):
    train(self, epoch)
    os._exit(0)
OneRun.run_epoch = first
sys.exit(main(["emoji", "--workdir", sys.argv[1]]))
"""
SHAPES = """
from mrl_jax import preset
from mrl_jax.training.run_spec import prepare_data
config = preset("emoji")
data = prepare_data(config, None)
split = data.dataset.splits["train"]
sizes = [[x.shape[1] for x in data.features], len(split), data.dataset.num_classes]
print(*sizes, config.batch_size, config.hidden_dims, config.epochs, sep="|")
"""


def taken(code: str, cache: str, *args: str) -> float:
    """Seconds of a Python."""
    environment = {**os.environ, "XDG_CACHE_HOME": cache}
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, *args], env=environment, capture_output=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(done.stderr.decode())
    return seconds


def measure(rounds: int) -> dict[str, dict[str, list[float]]]:
    """Program -> first or second start -> seconds of all rounds."""
    with tempfile.TemporaryDirectory() as data:
        told = subprocess.check_output(
            [sys.executable, "-c", SHAPES], text=True, env=os.environ | {"XDG_CACHE_HOME": data}
        )
        shapes = told.strip().split("|")
        seconds: dict[str, dict[str, list[float]]] = {"import": {"second": []}}
        seconds |= {name: {"first": [], "second": []} for name in ("bare", "train")}
        for r in range(rounds):
            seconds["import"]["second"].append(taken(IMPORT, data))
            for name in ("bare", "train") if r % 2 else ("train", "bare"):
                with tempfile.TemporaryDirectory() as cache:
                    (Path(cache) / "mrl_jax").mkdir()
                    for kept in (Path(data) / "mrl_jax").iterdir():  # data, but no compiled programs
                        if kept.name != "compiled":
                            (Path(cache) / "mrl_jax" / kept.name).symlink_to(kept)
                    for which in ("first", "second"):
                        args = shapes if name == "bare" else [f"{cache}/run-{which}"]
                        seconds[name][which].append(taken(BARE if name == "bare" else TRAIN, cache, *args))
            print(f"round {r + 1} of {rounds} done", file=sys.stderr, flush=True)
    return seconds


def table(results: dict) -> str:
    """The results as Markdown."""
    median = {name: {k: statistics.median(v) for k, v in x.items()} for name, x in results["seconds"].items()}
    lines = [
        f"import jax: {median['import']['second']:.1f} s",
        "",
        "| start | bare | train | train / bare |",
        "|---|---|---|---|",
    ]
    for which in ("first", "second"):
        bare, ours = median["bare"][which], median["train"][which]
        lines.append(f"| {which} | {bare:.1f} s | {ours:.1f} s | {ours / bare:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, keep and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--smoke", action="store_true", help="one round, nothing kept: does it run?")
    args = parser.parse_args()
    results = {"machine": machine(["jax", "jaxlib"]), "seconds": measure(1 if args.smoke else args.rounds)}
    if not args.smoke:
        RESULTS_FILE.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(table(results))


if __name__ == "__main__":
    main()
