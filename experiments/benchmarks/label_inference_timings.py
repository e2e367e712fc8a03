"""Label inference beside training: seconds, memory, and the time that a million instances would take.

python -m experiments.benchmarks.label_inference_timings [--smoke]
python -m experiments.benchmarks.label_inference_timings --markdown  # the stored results

Features of NUS-WIDE's size, 4,096 and 300 numbers, random around the centres of 10 classes; labels with noise 0.6. Each
size runs in a process of its own: the kernel, the posterior, and an epoch of MRL with default layers and batches of
500 in turn, medians of three; peak memory is VmHWM of Linux, features included. "Share" is that of the inference in its
sum with 30 epochs. About 10 minutes on 2 idle CPU cores. Results:
experiments/results/label_inference_timings.json.
"""

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.shared.command_line import run_main
from experiments.shared.folders import RESULTS
from experiments.shared.machine import machine
from experiments.shared.tables import markdown
from experiments.shared.timings import log, read_numbers, run_module, seconds_of, timing_parser, write_numbers
from mrl_jax import Config
from mrl_jax.label_inference import infer_labels, vote_kernel
from mrl_jax.methods.mrl import mrl
from mrl_jax.methods.registry import hyperparameters_of
from mrl_jax.methods.state import Shapes, TrainData
from mrl_jax.training.placement import epoch_program

RESULTS_FILE = RESULTS / "label_inference_timings.json"
SIZES = (2_000, 10_000, 42_941)
DIMS, CLASSES, RATE, BATCH, EPOCHS = (4096, 300), 10, 0.6, 500, 30
MILLION = 1_000_000


def measured(count: int, dims: Sequence[int] = DIMS) -> dict[str, float]:
    """Median seconds of kernel, posterior and epoch at one size, and the peak memory."""
    rng = np.random.default_rng(0)
    clean = rng.integers(0, CLASSES, count)
    labels = np.where(rng.random((2, count)) < RATE, rng.integers(0, CLASSES, (2, count)), clean).astype(np.int32)
    features = []
    for d in dims:
        centers = rng.standard_normal((CLASSES, d), np.float32)
        features.append(jnp.asarray(rng.standard_normal((count, d), np.float32) + centers[clean]))
    config = Config(tau1=0.5, tau2=0.5, batch_size=BATCH, epochs=EPOCHS)
    h, method, key = hyperparameters_of(config), mrl("rc"), jax.random.key(0)
    data = TrainData(tuple(features), jnp.asarray(labels))
    state = method.init(h, key, Shapes(tuple(dims), CLASSES, count))
    program = epoch_program(method, None, BATCH)
    kernel: Any = None
    times: dict[str, list[float]] = {"kernel": [], "posterior": [], "epoch": []}

    def make_kernel() -> None:
        nonlocal kernel
        kernel = jax.block_until_ready(vote_kernel(features))

    def make_posterior() -> None:
        jax.block_until_ready(infer_labels(kernel, labels, CLASSES))

    def train() -> None:
        nonlocal state
        state = jax.block_until_ready(program(state, data, key, 0, h))[0]

    for _ in range(3):
        for name, part in (("kernel", make_kernel), ("posterior", make_posterior), ("epoch", train)):
            times[name].append(seconds_of(part))
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    peak = int(status["VmHWM"].split()[0]) * 1024
    return {name: statistics.median(t) for name, t in times.items()} | {"compiled": times["kernel"][0], "peak": peak}


def share(row: dict[str, float]) -> float:
    """The fraction of inference in its sum with `EPOCHS` epochs."""
    inference = row["kernel"] + row["posterior"]
    return inference / (inference + EPOCHS * row["epoch"])


def table(sizes: dict[str, dict[str, float]]) -> list[list[str]]:
    """One row per size, and one for a million: time per instance of the two largest sizes, continued."""
    rows = [["instances", "kernel", "posterior", "epoch of MRL", "share of 30 epochs", "peak memory"]]
    for count, row in sizes.items():
        seconds = [f"{row[name]:.2f} s" for name in ("kernel", "posterior", "epoch")]
        rows.append([f"{int(count):,}", *seconds, f"{share(row):.1%}", f"{row['peak'] / 1e9:.2f} GB"])
    if len(sizes) > 1:
        (small, low), (large, high) = list(sizes.items())[-2:]
        slope = {k: (high[k] - low[k]) / (int(large) - int(small)) for k in ("kernel", "posterior", "epoch")}
        far = {k: high[k] + slope[k] * (MILLION - int(large)) for k in slope}
        rows.append([f"{MILLION:,} (continued)", *(f"{v:.0f} s" for v in far.values()), f"{share(far):.1%}", ""])
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Measure every size in a process of its own, print and store."""
    flags = timing_parser(__doc__)
    flags.add_argument("--size", type=int, help="measure this size here, and print its numbers as JSON")
    args = flags.parse_args(argv)
    if args.size:
        print(json.dumps(measured(args.size, (64, 16) if args.smoke else DIMS)))
        return
    if args.markdown:
        print(markdown(table(read_numbers(RESULTS_FILE)["sizes"])))
        return
    sizes: dict[str, dict[str, float]] = {}
    for count in (600, 1200) if args.smoke else SIZES:
        log(f"{count:,} instances")
        flag = ["--smoke"] if args.smoke else []
        sizes[str(count)] = run_module("experiments.benchmarks.label_inference_timings", "--size", str(count), *flag)
        print(markdown(table(sizes)), file=sys.stderr)
    if not args.smoke:
        write_numbers(RESULTS_FILE, {"sizes": sizes, "machine": machine(["jax", "jaxlib", "numpy"])})


if __name__ == "__main__":
    run_main(main)
