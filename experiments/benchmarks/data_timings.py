"""Preparing and loading a set of NUS-WIDE's size: seconds and peak memory, each step in a process of its own.

python -m experiments.benchmarks.data_timings [--scale 1.0] [--folder DIR]

Writes random features in NUS-WIDE's layout (42,941 + 5,000 + 23,661 rows of 4096 + 300 float32, 1.26 GB) as HDF5,
prepares them, and loads them; then prepares the same numbers from HDF5 in double precision and from MATLAB 5. Linux
only. Needs about 5 times that size on disk, and some minutes on 2 CPU cores. Results:
experiments/results/data_timings.json.
"""

import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import h5py
import numpy as np
import scipy.io

from experiments.shared.command_line import run_main
from experiments.shared.folders import RESULTS
from experiments.shared.timings import timing_parser, write_numbers
from mrl_jax.data.published.catalog import CATALOG

RESULTS_FILE = RESULTS / "data_timings.json"
NAME = "nus-wide"

# Prints seconds with imports, and peak resident memory in bytes, which includes the mapped pages that were read.
# VmHWM starts anew in each process; ru_maxrss starts at the value of the parent.
MEASURE = """
import json, pathlib, time
started = time.perf_counter()
{body}
seconds = time.perf_counter() - started
status = dict(line.split(":", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines())
print(json.dumps({{"seconds": seconds, "peak": int(status["VmHWM"].split()[0]) * 1024}}))
"""
LOAD = "from mrl_jax import load_dataset; data = load_dataset({what}); "
PREPARE = "from mrl_jax.data.published.prepare import prepare; prepare('nus-wide', {source!r})"
# step -> form of its source, repeats, code
STEPS = {
    "prepare from HDF5": ("hdf5", 1, PREPARE),
    "load the prepared copy": ("hdf5", 3, LOAD.format(what="'nus-wide'") + "data.digest()"),
    "load it and read every number": (
        "hdf5",
        3,
        LOAD.format(what="'nus-wide'") + "[x.max() for x in data.arrays().values()]",
    ),
    "load the HDF5 file directly": ("hdf5", 3, LOAD.format(what="{source!r}, set_name='nus-wide'")),
    "prepare from HDF5, float64": ("hdf5, float64", 1, PREPARE),
    "prepare from MATLAB 5": ("matlab", 1, PREPARE),
}


def write_source(form: str, folder: Path, scale: float) -> tuple[Path, int]:
    """Write random features in the layout of the set; returns path, and bytes of the features as float32."""
    rng, published, size = np.random.default_rng(0), CATALOG[NAME], 0
    path = folder / "nus_wide_deep_doc2vec_data_42941.h5py"
    arrays: dict[str, np.ndarray] = {}  # MATLAB 5 files are written at once
    with contextlib.nullcontext(arrays) if form == "matlab" else h5py.File(path, "w") as file:
        for split, n in published.sizes.items():
            n = max(published.classes, int(n * scale))
            for key, d in (("imgs_deep", published.dims["image"]), ("texts", published.dims["text"])):
                features = rng.random((n, d), np.float32)
                file[f"{split}_{key}"] = features.astype(np.float64) if "float64" in form else features
                size += features.nbytes
            file[f"{split}_imgs_labels"] = file[f"{split}_texts_labels"] = np.arange(n) % published.classes
    if form == "matlab":
        path = path.with_suffix(".mat")
        scipy.io.savemat(path, arrays)
    return path, size


def measure(body: str, folder: Path) -> dict[str, float]:
    """Run a step in a process of its own: seconds, peak resident memory, and its part that maps no file."""
    environment = {**os.environ, "MRL_JAX_DATA_DIR": str(folder / "cache"), "PYTHONWARNINGS": "ignore"}
    code, unmapped = MEASURE.format(body=body), 0
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
                if line.startswith("RssAnon:"):  # the kernel has no peak of it
                    unmapped = max(unmapped, int(line.split()[1]) * 1024)
            time.sleep(0.005)
        if process.returncode:
            raise SystemExit(f"this step failed: {body}")
        return {**json.loads(process.stdout.read()), "unmapped": unmapped}


def main() -> None:
    """Measure, print and store."""
    parser = timing_parser(__doc__, smoke="", markdown=False)
    parser.add_argument(
        "--scale", type=float, default=1.0, help="fraction of the rows of the set; results are stored for 1"
    )
    parser.add_argument("--folder", type=Path, help="folder for the files; default: a temporary folder")
    args = parser.parse_args()
    rows, present = {}, None
    print(f"{'step':<32}{'seconds':>9}{'peak, GB':>10}{'of the set':>12}{'unmapped, GB':>14}", flush=True)
    with tempfile.TemporaryDirectory(dir=args.folder) as temporary:
        folder = Path(temporary)
        for step, (form, repeats, body) in STEPS.items():
            if form != present:
                for old in folder.iterdir():
                    shutil.rmtree(old) if old.is_dir() else old.unlink()
                (source, size), present = write_source(form, folder, args.scale), form
            measured = [measure(body.format(source=str(source)), folder) for _ in range(repeats)]
            seconds, peak, unmapped = (
                statistics.median(x[k] for x in measured) for k in ("seconds", "peak", "unmapped")
            )
            rows[step] = {"seconds": seconds, "peak_bytes": peak, "peak_share": peak / size, "unmapped_bytes": unmapped}
            rows[step]["repeats"] = repeats
            print(
                f"{step:<32}{seconds:>9.2f}{peak / 1e9:>10.2f}{peak / size:>12.2f}{unmapped / 1e9:>14.2f}", flush=True
            )
    if args.scale == 1.0:
        results = {"features_bytes": size, "steps": rows, "date": date.today().isoformat(), "cores": os.cpu_count()}
        write_numbers(RESULTS_FILE, results | {"machine": platform.machine()})


if __name__ == "__main__":
    run_main(main)
