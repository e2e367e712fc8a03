"""Seconds from the command to the end of its first epoch, and the part of it that JAX itself needs.

python -m experiments.benchmarks.startup_timings [--smoke] [--rounds 5]

- "import": a process that imports jax and lists the devices.
- "bare": a process that imports jax and the training step, compiles initialisation and epoch at the same shapes, and
  runs that epoch on zeros.
- "train": `python -m mrl_jax.train` on the embedded data, which also reads and preprocesses them, draws noise, and
  writes the folder of the run.

A first start has no compiled programs in the cache, a second start has those of the first. The data are prepared
before. About 3 minutes on 2 idle CPU cores. Results: experiments/results/startup_timings.json.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from experiments.shared.command_line import require_backend, run_main
from experiments.shared.folders import RESULTS
from experiments.shared.machine import machine
from experiments.shared.tables import markdown
from experiments.shared.timings import log, timing_parser, write_numbers

RESULTS_FILE = RESULTS / "startup_timings.json"
IMPORT = "import jax; jax.devices()"
BARE = """
import sys, jax, jax.numpy as jnp
from experiments.shared.folders import RESULTS
from mrl_jax.compile_cache import keep_compiled
from mrl_jax.methods.mrl import mrl
from mrl_jax.training.placement import epoch_program
from mrl_jax.train_step import Recipe, TrainData, init_state
keep_compiled(True)
dims, n, classes, batch_size, hidden, epochs = map(eval, sys.argv[1:])
recipe = Recipe(batch_size=batch_size, hidden_dims=hidden, epochs=epochs)
state = jax.jit(init_state, static_argnums=(1, 2))(jax.random.key(0), tuple(dims), classes, recipe)
data = TrainData(tuple(jnp.zeros((n, d)) for d in dims), jnp.zeros((len(dims), n), jnp.int32))
program = epoch_program(mrl(recipe.loss), None, recipe.batch_size)
jax.block_until_ready(program(state, data, jax.random.key(1), 0, recipe)[1])
"""
TRAIN = """
import os, sys
from mrl_jax.training.single_run import SingleRun
from mrl_jax.train import main
train = SingleRun.run_epoch
def first(self, epoch):
    train(self, epoch)
    os._exit(0)
SingleRun.run_epoch = first
sys.exit(main(["emoji", "--workdir", sys.argv[1]]))
"""
SHAPES = """
from mrl_jax import preset
from mrl_jax.config import auto_epochs
from mrl_jax.training.run_spec import prepare_data
config = preset("emoji")
data = prepare_data(config, None)
split = data.dataset.splits["train"]
sizes = [[x.shape[1] for x in data.features], len(split), data.dataset.num_classes]
print(*sizes, config.batch_size, config.hidden_dims, auto_epochs(config, len(split)), sep="|")
"""


def seconds_of_code(code: str, cache: str, *args: str) -> float:
    """Seconds of a Python process with its caches in a folder."""
    environment = {**os.environ, "XDG_CACHE_HOME": cache}
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, *args], env=environment, capture_output=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(done.stderr.decode())
    return seconds


def measure(rounds: int) -> dict[str, dict[str, list[float]]]:
    """Seconds: program -> first or second start -> round."""
    with tempfile.TemporaryDirectory() as data:
        printed = subprocess.check_output(
            [sys.executable, "-c", SHAPES], text=True, env=os.environ | {"XDG_CACHE_HOME": data}
        )
        shapes = printed.strip().split("|")
        seconds: dict[str, dict[str, list[float]]] = {"import": {"second": []}}
        seconds |= {name: {"first": [], "second": []} for name in ("bare", "train")}
        for r in range(rounds):
            seconds["import"]["second"].append(seconds_of_code(IMPORT, data))
            for name in ("bare", "train") if r % 2 else ("train", "bare"):
                with tempfile.TemporaryDirectory() as cache:
                    (Path(cache) / "mrl_jax").mkdir()
                    for entry in (Path(data) / "mrl_jax").iterdir():  # prepared data without compiled programs
                        if entry.name != "compiled":
                            (Path(cache) / "mrl_jax" / entry.name).symlink_to(entry)
                    for which in ("first", "second"):
                        args = shapes if name == "bare" else [f"{cache}/run-{which}"]
                        seconds[name][which].append(seconds_of_code(BARE if name == "bare" else TRAIN, cache, *args))
            log(f"round {r + 1} of {rounds} done")
    return seconds


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    median = {name: {k: statistics.median(v) for k, v in x.items()} for name, x in results["seconds"].items()}
    rows = [["start", "bare", "train", "train / bare"]]
    for which in ("first", "second"):
        bare, train = median["bare"][which], median["train"][which]
        rows.append([which, f"{bare:.1f} s", f"{train:.1f} s", f"{train / bare:.2f}"])
    return f"import jax: {median['import']['second']:.1f} s\n\n{markdown(rows)}"


def main() -> None:
    """Measure, store and print."""
    smoke = "one round, nothing is stored: does it run?"
    args = timing_parser(__doc__, smoke, rounds=5, markdown=False).parse_args()
    require_backend()
    results = {"machine": machine(["jax", "jaxlib"]), "seconds": measure(1 if args.smoke else args.rounds)}
    if not args.smoke:
        write_numbers(RESULTS_FILE, results)
    print(table(results))


if __name__ == "__main__":
    run_main(main)
