"""Do two versions of the project give the same bits? Trains the same configurations with both and compares the files.

    python -m experiments.benchmarks.same_bits BEFORE AFTER [--keep DIR]

BEFORE and AFTER are checkouts; both run with this Python. `metrics.jsonl` and `result.json` are compared, without times
and versions. Then runs that BEFORE wrote are resumed from their first checkpoint by AFTER, and evaluated and searched
by both. Exit code 1 and the names of the configurations if anything differs.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from experiments.shared.command_line import run_main
from experiments.shared.tables import markdown

SMALL = "--hidden-dims 64 --embed-dim 32 --batch-size 50 --epochs 4 --learning-rate 1e-3"
PAIR, FOUR = "--data-path pair.npz --noise-rate 0.4", "--data-path four.npz --noise-rate 0.4"
EIGHT = "--xla_force_host_platform_device_count=8"

# Name -> command, flags, devices. In every training the batches are uneven.
CONFIGURATIONS: dict[str, tuple[str, str, int]] = {
    "mrl, the embedded set": ("train", "emoji --hidden-dims 128 --embed-dim 64 --epochs 3", 1),
    "paper's recipe, cosine": ("train", f"{PAIR} --recipe paper --schedule cosine {SMALL}", 1),
    "cross-entropy, clipped, decayed": ("train", f"{PAIR} --loss ce --clip-norm 1 --weight-decay 0.01 {SMALL}", 1),
    "bounded loss (gce), bfloat16": ("train", f"{PAIR} --loss gce --precision bfloat16 {SMALL}", 1),
    "corrected loss (forward)": ("train", f"{PAIR} --loss forward {SMALL}", 1),
    "early learning (elr)": ("train", f"{PAIR} --loss elr {SMALL}", 1),
    "small losses of a batch": ("train", f"{PAIR} --loss small-loss --loss-options ramp=2 {SMALL}", 1),
    "GMM split": ("train", f"{PAIR} --loss gmm --loss-options warmup=1 {SMALL}", 1),
    "four modalities, missing samples, noisy validation": ("train", f"{FOUR} --noisy-validation {SMALL}", 1),
    "unpaired samples": ("train", f"{PAIR} --noise-kind pair-mismatch {SMALL}", 1),
    "streamed": ("train", f"{FOUR} --stream on {SMALL}", 1),
    "streamed, early learning": ("train", f"{PAIR} --stream on --loss elr {SMALL}", 1),
    "sweep, one program": (
        "sweep",
        f"{PAIR.replace('--noise-rate 0.4', '')} {SMALL} --seeds 2 --noise-rates 0.2 0.6",
        1,
    ),
    "sweep of the GMM split": (
        "sweep",
        f"{PAIR.replace('--noise-rate 0.4', '')} {SMALL} --seeds 2 --noise-rates 0.2 "
        "--loss gmm --loss-options warmup=1",
        1,
    ),
    "8 devices, shard_map": ("train", f"{FOUR} --parallel shard_map {SMALL}", 8),
    "8 devices, jit": ("train", f"{FOUR} --parallel jit {SMALL}", 8),
    "8 devices, pmap, early learning": ("train", f"{PAIR} --parallel pmap --loss elr {SMALL}", 8),
    "8 devices, GMM split": ("train", f"{PAIR} --parallel shard_map --loss gmm --loss-options warmup=1 {SMALL}", 8),
}
TITLES = ("configuration", "metrics.jsonl, result.json", "resumed from the first checkpoint", "evaluated, searched")
_UNCOMPARED = ("seconds", "versions", "stream_waiting_share")


def write_data(folder: Path) -> None:
    """Two sets of Gaussian clusters: two modalities, and four with missing samples."""
    rng = np.random.default_rng(0)
    for name, dims in {"pair": (30, 20), "four": (30, 20, 12, 8)}.items():
        arrays: dict[str, np.ndarray] = {}
        means = [1.2 * rng.normal(size=(6, d)) for d in dims]
        for split, n in {"train": 330, "valid": 90, "test": 110}.items():
            labels = np.arange(n) % 6
            arrays[f"{split}_labels"] = labels
            for m, mean in zip("abcd", means, strict=False):
                arrays[f"{split}_{m}"] = (mean[labels] + rng.normal(size=(n, mean.shape[1]))).astype(np.float32)
                if name == "four" and split == "train":
                    arrays[f"{split}_{m}_mask"] = rng.random(n) > 0.15
        np.savez(folder / f"{name}.npz", **arrays)  # type: ignore[arg-type]


def run_command(tree: Path, folder: Path, module: str, flags: Sequence[str], devices: int = 1) -> str:
    """Run a command of a checkout in a folder; returns what it prints.

    Raises:
        SystemExit: the command failed.
    """
    env = os.environ | {"PYTHONPATH": str(tree), "JAX_PLATFORMS": "cpu", "PYTHONSAFEPATH": "1"}
    if devices > 1:
        env["XLA_FLAGS"] = EIGHT
    process = subprocess.run(
        [sys.executable, "-m", f"mrl_jax.{module}", *flags],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode:
        raise SystemExit(f"{tree}: {module} {' '.join(flags)}\n{process.stderr[-3000:]}")
    return process.stdout


def train_all(tree: Path, folder: Path) -> None:
    """Train every configuration that is not complete in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_data(folder)

    def train(name: str) -> None:
        module, flags, devices = CONFIGURATIONS[name]
        run = folder / _slug(name)
        if not (run / "done").exists():
            shutil.rmtree(run, ignore_errors=True)
            run_command(tree, folder, module, [*flags.split(), "--workdir", run.name], devices)
            (run / "done").touch()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(train, CONFIGURATIONS))


def compared(folder: Path) -> dict[str, Any]:
    """What is compared of a run or a sweep: relative path -> content."""
    contents: dict[str, Any] = {}
    for path in sorted([*folder.rglob("metrics.jsonl"), *folder.rglob("result.json")]):
        content: Any = re.sub(r', "check": "[0-9a-f]{16}"\}$', "}", path.read_text("utf-8"), flags=re.MULTILINE)
        if path.name == "result.json":
            content = {k: v for k, v in json.loads(content).items() if k not in _UNCOMPARED}
            content = {"kept": "best"} | content  # versions that do not say so kept the best
        contents[str(path.relative_to(folder))] = content
    return contents


def cut_back(run: Path, target: Path) -> None:
    """Copy the folder of a run as it was after its first checkpoint."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(run, target)
    for epoch in sorted(int(path.name) for path in (target / "checkpoints").glob("[0-9]*"))[1:]:
        shutil.rmtree(target / "checkpoints" / str(epoch))
    for name in ("result.json", "model.npz", "curves.png"):
        (target / name).unlink(missing_ok=True)


def resumed_alike(name: str, after: Path, old: Path, new: Path) -> bool:
    """Whether AFTER, from the first checkpoint of a run of BEFORE, ends with the files of BEFORE.

    Args:
        name: the configuration.
        after: checkout.
        old: folder with the runs of BEFORE.
        new: folder with the runs of AFTER.
    """
    _, flags, devices = CONFIGURATIONS[name]
    words, target = flags.split(), new / f"resumed-{_slug(name)}"
    cut_back(old / _slug(name), target)
    parallel = words[words.index("--parallel") :][:2] if "--parallel" in words else []
    run_command(after, new, "train", ["--resume", "--workdir", target.name, *parallel], devices)
    return compared(target) == compared(old / _slug(name))


def opened_alike(name: str, before: Path, after: Path, old: Path, new: Path) -> bool:
    """Whether both versions evaluate and search a run of BEFORE with the same output; arguments as above."""
    row = "image:test:3" if "emoji" in CONFIGURATIONS[name][1] else "a:test:3"
    for module, flags in (("eval", ["--bootstrap", "100"]), ("search", ["--row", row])):
        printed = []
        for tree, folder in ((before, old), (after, new)):
            run = folder / "opened" / _slug(name)
            shutil.rmtree(run, ignore_errors=True)
            shutil.copytree(old / _slug(name), run)
            output = run_command(
                tree, folder, module, ["--workdir", str(run), "--checkpoint", "best", "--json", *flags]
            )
            printed.append(output.replace(str(folder), ""))
        if printed[0] != printed[1]:
            return False
    return True


def main() -> None:
    """Train, compare and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="checkout of the earlier version")
    parser.add_argument("after", type=Path, help="checkout of the later version")
    parser.add_argument("--keep", type=Path, help="folder of the runs, used again; default: a temporary folder")
    args = parser.parse_args()
    base, before, after = (path.absolute() for path in (args.keep or Path(tempfile.mkdtemp()), args.before, args.after))
    old, new = base / "before", base / "after"
    train_all(before, old)
    train_all(after, new)
    different = []
    print(markdown([TITLES]))
    for name, (module, *_) in CONFIGURATIONS.items():
        same = [compared(old / _slug(name)) == compared(new / _slug(name))]
        if module == "train":
            same += [resumed_alike(name, after, old, new), opened_alike(name, before, after, old, new)]
        cells = ["same bits" if x else "DIFFERENT" for x in same]
        different += [] if all(same) else [name]
        print(f"| {name} | {' | '.join(cells + ['-'] * (3 - len(cells)))} |", flush=True)
    raise SystemExit(f"different: {', '.join(different)}" if different else 0)


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name)


if __name__ == "__main__":
    run_main(main)
