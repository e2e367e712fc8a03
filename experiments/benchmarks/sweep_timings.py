"""Seconds per epoch and run: many runs in one program, beside the same runs one after the other.

python -m experiments.benchmarks.sweep_timings [--smoke] [--rounds 7]
python -m experiments.benchmarks.sweep_timings --markdown  # the kept results

Random data of two modalities, networks from tiny to those of the embedded data. "alone" is the program of
`mrl_jax.train`, compiled once; "together" that of a sweep. They take turns that change direction; medians, after one
round to compile. About 2 minutes on 2 idle CPU cores; results go to experiments/results/sweep_timings.json.
"""

import argparse
import json
import statistics
import sys
import time

import jax
import numpy as np

from experiments.shared.folders import RESULTS
from experiments.shared.machine import machine
from mrl_jax import Config
from mrl_jax.training.run_spec import prepare_data, prepare_task
from mrl_jax.training.single_run import OneRun
from mrl_jax.training.vmapped_runs import ManyRuns

RESULTS_FILE = RESULTS / "sweep_timings.json"
# features, hidden layers, embedding, instances, batch, runs
NETWORKS = [
    ((6, 4), (16,), 8, 60, 16, 8),
    ((6, 4), (64,), 8, 600, 16, 8),
    ((784, 512), (128,), 64, 1338, 100, 8),
    ((784, 512), (256,), 512, 1338, 100, 8),
    ((784, 512), (1024, 1024), 512, 1338, 100, 6),
]


def compare(network: tuple, rounds: int) -> dict[str, list[float]]:
    """Seconds of an epoch of one run, all rounds."""
    dims, hidden, embed_dim, n, batch_size, count = network
    rng, arrays = np.random.default_rng(0), {}
    for split, size in (("train", n), ("valid", 40), ("test", 40)):
        for modality, d in zip(("image", "text"), dims, strict=True):
            arrays[f"{split}_{modality}"] = rng.standard_normal((size, d), np.float32)
        arrays[f"{split}_labels"] = np.arange(size) % 4
    common = {"hidden_dims": hidden, "embed_dim": embed_dim, "batch_size": batch_size, "noise_rate": 0.4}
    configs = [Config(**common, seed=seed) for seed in range(count)]
    data = prepare_data(configs[0], arrays)
    tasks = [prepare_task(c, data) for c in configs]
    programs = {"alone": (OneRun(tasks[0]), 1), "together": (ManyRuns(tasks, jax.devices()[:1]), count)}
    for program, runs in programs.values():
        program.begin([None] * runs)
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for r in range(rounds + 1):
        for name in list(programs)[:: -1 if r % 2 else 1]:
            program, runs = programs[name]
            started = time.perf_counter()
            program.run_epoch(r)  # waits
            if r:
                seconds[name].append((time.perf_counter() - started) / runs)
    return seconds


def table(results: dict) -> str:
    """The results as Markdown."""
    lines = [
        "| features | layers | instances, batch | alone | together | together / alone |",
        "|---|---|---|---|---|---|",
    ]
    for (dims, hidden, embed_dim, n, batch_size, runs), seconds in results["networks"]:
        alone, together = (statistics.median(seconds[name]) for name in ("alone", "together"))
        layers = "-".join(map(str, [*hidden, embed_dim]))
        times = f"{1e3 * alone:.3g} ms | {1e3 * together:.3g} ms ({runs} runs) | {together / alone:.2f}"
        lines.append(f"| {dims[0]}, {dims[1]} | {layers} | {n:,}, {batch_size} | {times} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, keep and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--smoke", action="store_true", help="the smallest network, nothing kept: does it run?")
    parser.add_argument("--markdown", action="store_true", help="print the table of the kept results")
    args = parser.parse_args()
    if args.markdown:
        print(table(json.loads(RESULTS_FILE.read_text("utf-8"))))
        return
    networks = []
    for network in NETWORKS[:1] if args.smoke else NETWORKS:
        networks.append([network, compare(network, 1 if args.smoke else args.rounds)])
        print(f"layers {network[1]} done", file=sys.stderr, flush=True)
    results = {"machine": machine(["jax", "jaxlib"]), "networks": networks}
    if not args.smoke:
        RESULTS_FILE.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(table(results))


if __name__ == "__main__":
    main()
