"""Preparing and loading a set of NUS-WIDE's size: seconds and peak memory, each in a process of its own.

python experiments/data_timings.py [--scale 1.0] [--folder DIR]

Writes random features in NUS-WIDE's layout (42,941 + 5,000 + 23,661 rows of 4096 + 300 float32, 1.26 GB) as HDF5,
prepares them, and loads them. Needs about 4 times that size of disk space, and about a minute on 2 CPU cores.
Results go to experiments/results/data_timings.json.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import h5py
import numpy as np

from mrl_jax.data.catalog import CATALOG

RESULTS = Path(__file__).parent / "results" / "data_timings.json"
NAME = "nus-wide"

# Prints seconds from start to end, imports included, and the peak of resident memory in bytes (Linux counts mapped
# pages that were touched).
MEASURE = """
import json, resource, sys, time
started = time.perf_counter()
{body}
told = {{"seconds": time.perf_counter() - started, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}}
print(json.dumps(told))
"""
STEPS = {
    "load the HDF5 file directly": "from mrl_jax import load_dataset; load_dataset({source!r}, set_name='nus-wide')",
    "prepare": "from mrl_jax.data import prepared; prepared.prepare('nus-wide', {source!r})",
    "load the prepared copy": "from mrl_jax import load_dataset; load_dataset('nus-wide').digest()",
    "load it and read every number": (
        "from mrl_jax import load_dataset; [x.max() for x in load_dataset('nus-wide').arrays().values()]"
    ),
}


def write_source(path: Path, scale: float) -> int:
    """Random features in the layout of the set's file; returns the bytes of the features."""
    rng, facts, size = np.random.default_rng(0), CATALOG[NAME], 0
    with h5py.File(path, "w") as file:
        for split, n in facts.sizes.items():
            n = max(facts.classes, int(n * scale))
            for key, d in (("imgs_deep", facts.dims["image"]), ("texts", facts.dims["text"])):
                features = file.create_dataset(f"{split}_{key}", (n, d), np.float32)
                for start in range(0, n, 4096):
                    features[start : start + 4096] = rng.random((min(4096, n - start), d), np.float32)
                size += n * d * 4
            file[f"{split}_imgs_labels"] = file[f"{split}_texts_labels"] = np.arange(n) % facts.classes
    return size


def measure(body: str, folder: Path) -> dict[str, float]:
    """Run a step in a fresh process."""
    environment = {**os.environ, "MRL_JAX_DATA_DIR": str(folder / "cache"), "PYTHONWARNINGS": "ignore"}
    code = MEASURE.format(body=body)
    done = subprocess.run([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    """Measure, print, and keep the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the set's rows; results are kept for 1")
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as temporary:
        folder = Path(temporary)
        source = folder / "nus_wide_deep_doc2vec_data_42941.h5py"
        print("writing the source file …", flush=True)
        started = time.perf_counter()
        size = write_source(source, args.scale)
        print(f"{size / 1e9:.2f} GB of features, written in {time.perf_counter() - started:.0f} s\n")
        print(f"{'step':<32}{'seconds':>9}{'peak memory, GB':>17}{'of the set':>12}", flush=True)
        rows = {}
        for step, body in STEPS.items():
            repeats = 1 if step == "prepare" else 3
            told = [measure(body.format(source=str(source)), folder) for _ in range(repeats)]
            seconds, peak = (statistics.median(t[k] for t in told) for k in ("seconds", "peak"))
            rows[step] = {"seconds": seconds, "peak_bytes": peak, "peak_share": peak / size, "repeats": repeats}
            print(f"{step:<32}{seconds:>9.2f}{peak / 1e9:>17.2f}{peak / size:>12.2f}", flush=True)
    if args.scale == 1.0:
        told = {"features_bytes": size, "steps": rows, "date": date.today().isoformat(), "cores": os.cpu_count()}
        RESULTS.write_text(json.dumps({**told, "machine": platform.machine()}, indent=2) + "\n", "utf-8")
        print(f"\nwritten to {RESULTS}")


if __name__ == "__main__":
    main()
