"""Does a long run stay as it began? Memory, file handles, time per epoch and compiled programs over 2,000 epochs.

    python -m experiments.benchmarks.long_run [--epochs 2000] [--smoke]

Trains on random clusters in a folder of its own, as `mrl_jax.train` does, and looks at the process after every epoch.
Writes `experiments/results/long_run.json` and the plot `experiments/results/long_run.png`.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.shared.command_line import run_main
from experiments.shared.folders import RESULTS
from experiments.shared.machine import machine
from experiments.shared.timings import log, timing_parser, write_numbers
from mrl_jax import preset, train
from mrl_jax.errors import InputError
from mrl_jax.run.folder import RunFolder

FILE = RESULTS / "long_run.json"
PICTURE = RESULTS / "long_run.png"
_SETTLED = 100  # epochs after which libraries have loaded all they need
_PART = 20  # epochs that share a point of the plot


def clusters(instances: int = 200) -> dict[str, np.ndarray]:
    """Gaussian clusters of ten classes in two modalities, with a validation and a test split of half the size."""
    rng = np.random.default_rng(0)
    means = {"sound": rng.normal(size=(10, 64)), "touch": rng.normal(size=(10, 32))}
    arrays = {}
    for split, n in {"train": instances, "valid": instances // 2, "test": instances // 2}.items():
        labels = np.arange(n) % 10
        arrays[f"{split}_labels"] = labels
        for m, mean in means.items():
            arrays[f"{split}_{m}"] = (mean[labels] + rng.normal(size=(n, mean.shape[1]))).astype(np.float32)
    return arrays


def watched(epochs: int, folder: Path) -> dict[str, list[float]]:
    """Train, and look at the process after every epoch.

    Returns:
        name of a figure -> its value after each epoch: "memory" in MB, "handles", "compiled" programs so far, and
        "seconds" of the epoch, checkpoints included.
    """
    compiled = 0
    found: dict[str, list[float]] = {name: [] for name in ("memory", "handles", "compiled", "seconds")}
    began, page = time.perf_counter(), os.sysconf("SC_PAGE_SIZE")
    write = RunFolder.log

    def count(event: str, _: float, **__: Any) -> None:
        nonlocal compiled
        compiled += event == "/jax/core/compile/backend_compile_duration"

    def look(self: RunFolder, line: Mapping[str, Any]) -> None:
        nonlocal began
        write(self, line)
        found["memory"].append(int(Path("/proc/self/statm").read_text().split()[1]) * page / 1e6)
        found["handles"].append(len(os.listdir("/proc/self/fd")))
        found["compiled"].append(compiled)
        found["seconds"].append(time.perf_counter() - began)
        began = time.perf_counter()
        if line["epoch"] % 200 == 0:
            log(f"epoch {line['epoch']}: {found['memory'][-1]:.0f} MB, {found['handles'][-1]} handles")

    jax.monitoring.register_event_duration_secs_listener(count)
    RunFolder.log = look  # type: ignore[method-assign]
    try:
        config = preset("custom", epochs=epochs, hidden_dims=(64,), embed_dim=32, batch_size=50, noise_rate=0.4)
        train(config, folder, data=clusters())
    finally:
        RunFolder.log = write  # type: ignore[method-assign]
    return found


def summary(found: Mapping[str, Sequence[float]], settled: int = _SETTLED) -> dict[str, Any]:
    """What the docs say of a run."""
    memory, handles, seconds = (found[name][settled:] for name in ("memory", "handles", "seconds"))
    tenth = len(seconds) // 10 or 1
    return {
        "epochs": len(found["memory"]),
        "settled": settled,
        "memory_mb": [round(min(memory)), round(max(memory))],
        "memory_mb_first_and_last": [round(memory[0], 1), round(memory[-1], 1)],
        "handles": [min(handles), max(handles)],
        "seconds_first_and_last_tenth": [
            round(statistics.median(seconds[:tenth]), 4),
            round(statistics.median(seconds[-tenth:]), 4),
        ],
        "compiled_in_first_epoch": found["compiled"][0],
        "compiled_later": {str(e + 2): int(n) for e, n in enumerate(np.diff(found["compiled"])) if n},
    }


def draw(points: Mapping[str, Sequence[float]], picture: Path) -> None:
    """Plot memory, handles and seconds of an epoch against the epoch."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    titles = {"memory": "resident memory, MB", "handles": "file handles", "seconds": "seconds an epoch"}
    for axes, (name, title) in zip(figure.subplots(3, sharex=True), titles.items(), strict=True):
        axes.plot(points["epoch"], points[name])
        axes.set_ylabel(title)
        axes.set_ylim(0, 1.2 * max(points[name]))
    axes.set_xlabel("epoch")
    figure.savefig(picture, dpi=90)


def main() -> None:
    """The program."""
    flags = timing_parser(__doc__, smoke="30 epochs; nothing is stored", markdown=False)
    flags.add_argument("--epochs", type=int, default=2000, help="default: 2000")
    args = flags.parse_args()
    if not Path("/proc/self/statm").exists():
        raise InputError("this program reads /proc, which Linux has")
    with tempfile.TemporaryDirectory() as folder:
        found = watched(30 if args.smoke else args.epochs, Path(folder) / "run")
    if args.smoke:
        log(summary(found, 10))
        return
    starts = range(0, len(found["memory"]), _PART)
    points = {name: [round(statistics.median(x[i : i + _PART]), 4) for i in starts] for name, x in found.items()}
    points["epoch"] = [i + 1 for i in starts]
    write_numbers(
        FILE, {"machine": machine(("jax", "flax", "orbax-checkpoint")), "summary": summary(found), "points": points}
    )
    draw(points, PICTURE)


if __name__ == "__main__":
    run_main(main)
