"""What the record of training samples costs a run: processor time of recording beside that of the whole training.

python -m experiments.benchmarks.record_timings [--smoke] [--rounds 1]
python -m experiments.benchmarks.record_timings --markdown  # the stored results

`train` as its command calls it, on the embedded set with the defaults of each method, into a folder that is removed.
Every run records at 8 epochs; the measure is the processor time of `training.loop._record`, which begins when the epoch
before it is complete and ends when its file is written. Processor time, of all cores together, leaves out what else the
machine does. The first run of a process compiles, and stands for itself; of the others the medians. Results:
experiments/results/record_timings.json.
"""

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

from experiments.shared.command_line import require_backend, run_main
from experiments.shared.folders import RESULTS
from experiments.shared.machine import machine
from experiments.shared.tables import markdown
from experiments.shared.timings import log, read_numbers, timing_parser, turns, write_table
from mrl_jax import load_dataset, preset, train
from mrl_jax.config import with_settings
from mrl_jax.data.dataset import Dataset
from mrl_jax.training import loop

RESULTS_FILE = RESULTS / "record_timings.json"
METHODS = ("mrl", "consensus")
SMOKE = {"hidden_dims": (8,), "embed_dim": 8, "epochs": 2}


def measured(method: str, data: Dataset, change: dict[str, Any]) -> dict[str, float]:
    """Processor seconds of a run, of which some are those of recording, and the number of records."""
    config = with_settings(preset("emoji", method=method), **change)
    recording: list[float] = []

    def timed(*args: Any) -> None:
        started = time.process_time()
        record(*args)
        recording.append(time.process_time() - started)

    record = loop._record
    with tempfile.TemporaryDirectory() as folder, patch.object(loop, "_record", timed):
        started = time.process_time()
        train(config, Path(folder) / "run", data=data)
        whole = time.process_time() - started
    return {"run": round(whole, 3), "recording": round(sum(recording), 3), "records": len(recording)}


def measure(rounds: int, change: dict[str, Any]) -> dict[str, Any]:
    """Method -> its runs in order; the first one compiles."""
    data, runs = load_dataset("emoji", ("image", "text")), {name: [] for name in METHODS}
    for r, name in turns(METHODS, rounds + 1):
        runs[name].append(measured(name, data, change))
        log(f"round {r}, {name}: {runs[name][-1]}")
    return {"runs": runs, "machine": machine(["jax", "numpy"])}


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    rows = [["method", "runs", "CPU seconds of a run", "of these recording", "share"]]
    for name, runs in results["runs"].items():
        for what, own in (("first, compiles", runs[:1]), (f"later, median of {len(runs) - 1}", runs[1:])):
            whole, recording = (statistics.median(run[key] for run in own) for key in ("run", "recording"))
            share = statistics.median(run["recording"] / run["run"] for run in own)
            rows.append([name, what, f"{whole:.1f}", f"{recording:.2f}", f"{share:.1%}"])
    return markdown(rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, store and print."""
    args = timing_parser(__doc__, rounds=1).parse_args(argv)
    if args.markdown:
        print(table(read_numbers(RESULTS_FILE)))
        return
    require_backend()
    results = measure(1 if args.smoke else args.rounds, SMOKE if args.smoke else {})
    print(table(results))
    if not args.smoke:
        write_table(RESULTS_FILE, results, table(results))


if __name__ == "__main__":
    run_main(main)
