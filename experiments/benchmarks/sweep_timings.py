"""Seconds per epoch and run: many runs in one compiled program, beside the same runs one after the other.

python -m experiments.benchmarks.sweep_timings [--smoke] [--rounds 7]
python -m experiments.benchmarks.sweep_timings --markdown  # the stored results

Random data of two modalities; networks from tiny ones to that of the embedded data. "alone" is the compiled program of
`mrl_jax.train`, "together" that of a sweep. They take turns, in an order that changes direction; medians, after one
round that compiles. About 2 minutes on 2 idle CPU cores. Results: experiments/results/sweep_timings.json.
"""

import statistics
from typing import Any

import jax
import numpy as np

from experiments.shared.command_line import run_main
from experiments.shared.folders import RESULTS
from experiments.shared.machine import machine
from experiments.shared.tables import markdown
from experiments.shared.timings import log, read_numbers, seconds_of, timing_parser, turns, write_numbers
from mrl_jax import Config
from mrl_jax.training.run_spec import prepare_data, prepare_run
from mrl_jax.training.single_run import SingleRun
from mrl_jax.training.vmapped_runs import VmappedRuns

RESULTS_FILE = RESULTS / "sweep_timings.json"
# features, hidden layers, embedding, instances, batch, runs
NETWORKS = [
    ((6, 4), (16,), 8, 60, 16, 8),
    ((6, 4), (64,), 8, 600, 16, 8),
    ((784, 512), (128,), 64, 1338, 100, 8),
    ((784, 512), (256,), 512, 1338, 100, 8),
    ((784, 512), (1024, 1024), 512, 1338, 100, 6),
]


def compare(network: tuple[Any, ...], rounds: int) -> dict[str, list[float]]:
    """Seconds of an epoch per run: program -> round."""
    dims, hidden, embed_dim, n, batch_size, count = network
    rng, arrays = np.random.default_rng(0), {}
    for split, size in (("train", n), ("valid", 40), ("test", 40)):
        for modality, d in zip(("image", "text"), dims, strict=True):
            arrays[f"{split}_{modality}"] = rng.standard_normal((size, d), np.float32)
        arrays[f"{split}_labels"] = np.arange(size) % 4
    common = {"hidden_dims": hidden, "embed_dim": embed_dim, "batch_size": batch_size, "noise_rate": 0.4}
    configs = [Config(**common, seed=seed) for seed in range(count)]
    data = prepare_data(configs[0], arrays)
    tasks = [prepare_run(c, data) for c in configs]
    programs: dict[str, tuple[Any, int]] = {
        "alone": (SingleRun(tasks[0]), 1),
        "together": (VmappedRuns(tasks, jax.devices()[:1]), count),
    }
    for program, runs in programs.values():
        program.begin([None] * runs)
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for r, name in turns(programs, rounds + 1):
        program, runs = programs[name]
        taken = seconds_of(lambda program=program, r=r: program.run_epoch(r)) / runs
        if r:  # round 0 compiles
            seconds[name].append(taken)
    return seconds


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    rows = [["features", "layers", "instances, batch", "alone", "together", "together / alone"]]
    for (dims, hidden, embed_dim, n, batch_size, runs), seconds in results["networks"]:
        alone, together = (statistics.median(seconds[name]) for name in ("alone", "together"))
        sizes = [f"{dims[0]}, {dims[1]}", "-".join(map(str, [*hidden, embed_dim])), f"{n:,}, {batch_size}"]
        times = [f"{1e3 * alone:.3g} ms", f"{1e3 * together:.3g} ms ({runs} runs)", f"{together / alone:.2f}"]
        rows.append([*sizes, *times])
    return markdown(rows)


def main() -> None:
    """Measure, store and print."""
    args = timing_parser(__doc__, "the smallest network, nothing is stored: does it run?", rounds=7).parse_args()
    if args.markdown:
        print(table(read_numbers(RESULTS_FILE)))
        return
    networks = []
    for network in NETWORKS[:1] if args.smoke else NETWORKS:
        networks.append([network, compare(network, 1 if args.smoke else args.rounds)])
        log(f"layers {network[1]} done")
    results = {"machine": machine(["jax", "jaxlib"]), "networks": networks}
    if not args.smoke:
        write_numbers(RESULTS_FILE, results)
    print(table(results))


if __name__ == "__main__":
    run_main(main)
