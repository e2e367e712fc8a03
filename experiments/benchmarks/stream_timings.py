"""Streamed against resident data: seconds per epoch, and the fraction of time that steps wait for batches.

python -m experiments.benchmarks.stream_timings [--rows 10000] [--epochs 3]

Random features of NUS-WIDE's widths (4096 + 300) in memory-mapped files, batches of 500. The paper's layers and two
small networks, whose short steps leave less time for reading. Epochs of both paths alternate; medians. About 5 minutes
on 2 CPU cores. Results: experiments/results/stream_timings.json.
"""

import os
import statistics
import tempfile
from datetime import date
from pathlib import Path

import jax
import numpy as np

from experiments.shared.command_line import run_main
from experiments.shared.folders import RESULTS
from experiments.shared.timings import seconds_of, timing_parser, write_numbers
from mrl_jax.config import Config
from mrl_jax.data.dataset import Dataset, Split
from mrl_jax.training.run_spec import prepare_data, prepare_run
from mrl_jax.training.single_run import SingleRun

RESULTS_FILE = RESULTS / "stream_timings.json"
DIMS, CLASSES = {"image": 4096, "text": 300}, 10
LAYERS = {"4096-4096-512 (paper)": (4096, 4096), "1024-1024-512": (1024, 1024), "256-512": (256,)}


def mapped_set(folder: Path, rows: int) -> Dataset:
    """A data set with its features in memory-mapped files."""
    rng = np.random.default_rng(0)

    def split(name: str, n: int) -> Split:
        labels = (np.arange(n) % CLASSES).astype(np.int32)
        features = {}
        for m, d in DIMS.items():
            np.save(folder / f"{name}_{m}.npy", rng.normal(size=(n, d)).astype(np.float32))
            features[m] = np.load(folder / f"{name}_{m}.npy", mmap_mode="r")
        return Split(features, dict.fromkeys(DIMS, labels))

    splits = {name: split(name, n) for name, n in (("train", rows), ("valid", 100), ("test", 100))}
    return Dataset("random", tuple(DIMS), tuple(map(str, range(CLASSES))), splits)


def compare(data: Dataset, hidden: tuple[int, ...], epochs: int) -> dict[str, float]:
    """Median seconds per epoch of both paths, after one epoch that compiles, and the fraction of time spent waiting."""
    base = {"batch_size": 500, "hidden_dims": hidden, "preprocess": ("standardize",)}
    runs = {}
    for stream in ("off", "on"):
        config = Config(stream=stream, **base)
        runs[stream] = SingleRun(prepare_run(config, prepare_data(config, data)))
        runs[stream].begin([None])
    seconds: dict[str, list[float]] = {stream: [] for stream in runs}
    for epoch in range(epochs + 1):
        for stream, run in runs.items():
            if epoch == 1 and stream == "on":
                run.stream.clock.waited = run.stream.clock.total = 0.0  # leave out the epoch that compiles
            taken = seconds_of(lambda run=run, epoch=epoch: run.run_epoch(epoch))
            if epoch > 0:
                seconds[stream].append(taken)
    resident, streamed = (statistics.median(seconds[s]) for s in ("off", "on"))
    waiting = runs["on"].stream.clock.share
    return {"resident": resident, "streamed": streamed, "ratio": streamed / resident, "waiting_share": waiting}


def main() -> None:
    """Measure, print and store."""
    parser = timing_parser(__doc__, smoke="", markdown=False)
    parser.add_argument("--rows", type=int, default=10_000, help="training rows (default: 10000)")
    parser.add_argument("--epochs", type=int, default=3, help="timed epochs of each path (default: 3)")
    args = parser.parse_args()
    rows = {}
    print(f"{'layers':<24}{'resident, s':>12}{'streamed, s':>12}{'ratio':>8}{'waiting':>9}")
    with tempfile.TemporaryDirectory() as temporary:
        data = mapped_set(Path(temporary), args.rows)
        for name, hidden in LAYERS.items():
            rows[name] = numbers = compare(data, hidden, args.epochs)
            print(
                f"{name:<24}{numbers['resident']:>12.2f}{numbers['streamed']:>12.2f}{numbers['ratio']:>8.2f}"
                f"{numbers['waiting_share']:>9.1%}",
                flush=True,
            )
    device = jax.devices()[0]
    results = {"rows": args.rows, "epochs": args.epochs, "layers": rows, "device": device.device_kind}
    if args.rows == parser.get_default("rows"):
        write_numbers(RESULTS_FILE, results | {"date": date.today().isoformat(), "cores": os.cpu_count()})


if __name__ == "__main__":
    run_main(main)
