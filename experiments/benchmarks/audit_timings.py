"""Seconds of an audit of 100,000 instances with two modalities, once they are embedded.

python -m experiments.benchmarks.audit_timings [--smoke]
python -m experiments.benchmarks.audit_timings --markdown  # the stored results

Embeddings of 512 numbers are drawn around 50 class means, and 40 % of the labels anew, for each modality. One run, with
compiling. Results: experiments/results/audit_timings.json.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.shared.command_line import require_backend, run_main
from experiments.shared.folders import RESULTS
from experiments.shared.machine import machine
from experiments.shared.tables import markdown
from experiments.shared.timings import read_numbers, timing_parser, write_table
from mrl_jax.audit import audit_labels
from mrl_jax.audit.output import audit_csv
from mrl_jax.label_inference import vote_kernel

RESULTS_FILE = RESULTS / "audit_timings.json"
CLASSES, WIDTH, NOISE = 50, 512, 0.4
PARTS = {"kernel": "kernel of the votes", "audit": "labels, noise, neighbours, outliers", "csv": "CSV file"}


def measure(instances: int) -> dict[str, Any]:
    """Seconds of each part."""
    rng = np.random.default_rng(0)
    clean = rng.integers(0, CLASSES, instances)
    z = [
        (rng.normal(size=(CLASSES, WIDTH))[clean] + 3.0 * rng.normal(size=(instances, WIDTH))).astype(np.float32)
        for _ in range(2)
    ]
    labels = np.stack([np.where(rng.random(instances) < NOISE, rng.integers(0, CLASSES, instances), clean) for _ in z])
    seconds = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = work()
        seconds[name] = round(time.perf_counter() - started, 2)
        return result

    kernel = timed("kernel", lambda: _ready(vote_kernel(z)))
    found = timed("audit", lambda: audit_labels(labels, kernel=kernel))
    timed("csv", lambda: audit_csv(found))
    return {"instances": instances, "seconds": seconds, "machine": machine(["jax", "numpy"])}


def _ready(kernel: Any) -> Any:
    kernel.basis.block_until_ready()
    return kernel


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    seconds = results["seconds"]
    rows = [["part", f"seconds of {results['instances']:,} instances"]]
    rows += [[text, f"{seconds[name]:.0f}"] for name, text in PARTS.items()]
    return markdown([*rows, ["all", f"{sum(seconds.values()):.0f}"]])


def main(argv: Any = None) -> None:
    """Measure, store and print."""
    args: argparse.Namespace = timing_parser(__doc__).parse_args(argv)
    if args.markdown:
        print(table(read_numbers(RESULTS_FILE)))
        return
    require_backend()
    results = measure(2000 if args.smoke else 100_000)
    print(table(results))
    if not args.smoke:
        write_table(RESULTS_FILE, results, table(results))


if __name__ == "__main__":
    run_main(main)
