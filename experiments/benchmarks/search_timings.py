"""Search: the command's first and further answers, and engines over the same gallery: seconds and recall.

python -m experiments.benchmarks.search_timings [--smoke] [--parts command engines]
python -m experiments.benchmarks.search_timings --markdown  # the kept results

The command answers on a run on the embedded data that this program trains: with nothing kept, with compiled programs
kept, and with the embedded gallery kept too; beside it stands a process that only imports JAX, for machines differ.
Engines find the ten nearest of 512-dimensional rows; recall is against the exact result. "clustered": a hundred rows
around each of many centres, as embeddings of a trained model lie; "random": independent directions, the worst case.
Needs the extra `bench`; about 15 minutes on 2 idle CPU cores. Results go to experiments/results/search_timings.json.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from experiments.shared.folders import RESULTS
from experiments.shared.machine import machine
from mrl_jax.search.faiss_index import FaissIndex
from mrl_jax.search.index import Index, recall, top_k

RESULTS_FILE = RESULTS / "search_timings.json"
PARTS = ("command", "engines")
PACKAGES = ("jax", "numpy", "faiss-cpu")
DIMENSIONS, NEAREST, QUERIES = 512, 10, 1000
GALLERIES = (20_000, 100_000)
ROWS_OF_A_CENTRE, SPREAD = 100, 1.0
progress = partial(print, file=sys.stderr, flush=True)


# The command


def timed_start(command: list[str], env: dict[str, str]) -> float:
    """Seconds from starting a process to the first byte that it prints."""
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=env) as process:
        process.stdout.read(1)
        seconds = time.perf_counter() - started
        process.stdout.read()
    if process.returncode:
        raise SystemExit(f"{command} failed")
    return seconds


def command(folder: Path, rounds: int, epochs: int | None) -> dict[str, list[float]]:
    """Seconds to answers on the emoji run, by what is kept from before."""
    python, run = [sys.executable, "-m"], folder / "run"
    env = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_COMPILATION", "JAX_PERSISTENT"))}
    env |= {"XDG_CACHE_HOME": str(folder / "cache"), "JAX_PLATFORMS": "cpu"}
    progress("training the run to search in")
    few = ["--epochs", str(epochs)] if epochs else []
    subprocess.run([*python, "mrl_jax.train", "--workdir", str(run), *few], env=env, check=True, capture_output=True)
    search = [*python, "mrl_jax.search", "--workdir", str(run)]
    text, row = [*search, "--text", "cat"], [*search, "--row", "image:test:7"]
    programs, gallery = folder / "cache" / "mrl_jax" / "compiled", run / "search"
    told: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, asked, gone in (
            ("importing JAX alone", [sys.executable, "-c", "import jax; print()"], ()),
            ("nothing kept", text, (programs, gallery)),
            ("compiled programs kept", text, (gallery,)),
            ("gallery kept too", text, ()),
            ("the same, by a row", row, ()),
        ):
            for path in gone:
                shutil.rmtree(path, ignore_errors=True)
            told.setdefault(name, []).append(timed_start(asked, env))
            progress(f"  {name}: {told[name][-1]:.2f} s")
    told["further answers, interactive"] = further(search, env)
    return told


def further(search: list[str], env: dict[str, str], answers: int = 20) -> list[float]:
    """Seconds of the second and later answers of one process."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": env}
    seconds = []
    with subprocess.Popen([*search, "--interactive", "--json"], **pipes) as process:
        for i in range(answers + 1):
            started = time.perf_counter()
            process.stdin.write(f"red flag {i}\n")
            process.stdin.flush()
            process.stdout.readline()
            seconds.append(time.perf_counter() - started)
        process.stdin.close()
    return seconds[1:]


# Engines


def rows(count: int, kind: str, centres: np.ndarray, seed: int) -> np.ndarray:
    """Rows [count, L] around the centres, or anywhere; not of unit length."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, DIMENSIONS), np.float32)
    return x if kind == "random" else SPREAD * x / DIMENSIONS**0.5 + centres[rng.integers(len(centres), size=count)]


def centres_of(gallery: int) -> np.ndarray:
    """Unit rows, one for every hundred of the gallery."""
    x = np.random.default_rng(0).standard_normal((max(1, gallery // ROWS_OF_A_CENTRE), DIMENSIONS), np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def numpy_search(queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """What people write: product, partition, sort of what is left."""
    found = []
    for start in range(0, len(queries), 256):
        scores = queries[start : start + 256] @ gallery.T
        best = np.argpartition(-scores, NEAREST, axis=1)[:, :NEAREST]
        order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
        found.append(np.take_along_axis(best, order, axis=1))
    return np.concatenate(found)


def engines(gallery: int, kind: str, queries: int, rounds: int) -> dict[str, dict[str, float]]:
    """Build, search and recall of every engine."""
    centres = centres_of(gallery)
    x, q = rows(gallery, kind, centres, 1), rows(queries, kind, centres, 2)
    x, q = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, q))
    exact = top_k(q, x, NEAREST)[1]
    searches: dict[str, tuple[Callable[[], Any], Callable[[Any, np.ndarray], np.ndarray]]] = {
        "Index (exact)": (lambda: Index.build(x), lambda e, q: e.search(q, NEAREST).rows),
        "Index, approximate": (lambda: Index.build(x), lambda e, q: e.search(q, NEAREST, approximate=True).rows),
        "NumPy (exact)": (lambda: x, lambda e, q: numpy_search(q, e)),
        "FAISS flat (exact)": (lambda: FaissIndex.build(x, "flat"), lambda e, q: e.search(q, NEAREST)[1]),
        "FAISS hnsw": (lambda: FaissIndex.build(x, "hnsw"), lambda e, q: e.search(q, NEAREST)[1]),
    }
    for size in (64, 128):
        searches[f"FAISS ivfpq, {size} bytes"] = (
            partial(FaissIndex.build, x, "ivfpq", code_bytes=size),
            lambda e, q: e.search(q, NEAREST)[1],
        )
    told: dict[str, dict[str, float]] = {}
    built = {}
    for name, (build, search) in searches.items():
        started = time.perf_counter()
        built[name] = build()
        told[name] = {"build": time.perf_counter() - started}
        told[name]["recall"] = recall(search(built[name], q), exact)  # also compiles
        search(built[name], q[:1])
        progress(f"  {name}: built in {told[name]['build']:.1f} s, recall {told[name]['recall']:.3f}")
    seconds: dict[str, list[list[float]]] = {name: [[], []] for name in searches}
    for turn in range(rounds):
        for name in list(searches)[:: -1 if turn % 2 else 1]:
            for kept, some in zip(seconds[name], (q, q[:1]), strict=True):
                started = time.perf_counter()
                searches[name][1](built[name], some)
                kept.append(time.perf_counter() - started)
    for name, (many, one) in seconds.items():
        told[name] |= {"queries": statistics.median(many), "single": statistics.median(one)}
    return told


def markdown(told: dict[str, Any]) -> str:
    """Tables for the docs."""
    lines = []
    if "command" in told:
        lines += ["| answer of the command | seconds, median (range) |", "|---|---|"]
        for name, seconds in told["command"].items():
            ends = f"{min(seconds):.3g}-{max(seconds):.3g}"
            lines.append(f"| {name} | {statistics.median(seconds):.3g} ({ends}) |")
        lines.append("")
    for one in told.get("engines", ()):
        lines += [
            f"{one['kind']}, gallery of {one['gallery']:,}:",
            "",
            f"| engine | build, s | {one['queries']:,} queries, s | a single one, ms | recall@{NEAREST} |",
            "|---|---|---|---|---|",
        ]
        for name, x in one["programs"].items():
            numbers = f"{x['build']:.1f} | {x['queries']:.2f} | {1e3 * x['single']:.1f} | {x['recall']:.3f}"
            lines.append(f"| {name} | {numbers} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and keep the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="default: all")
    parser.add_argument("--smoke", action="store_true", help="small sizes, to see that all works; nothing is kept")
    parser.add_argument("--markdown", action="store_true", help="print the tables of the kept results instead")
    args = parser.parse_args()
    if args.markdown:
        print(markdown(json.loads(RESULTS_FILE.read_text("utf-8"))))
        return
    told: dict[str, Any] = {"dimensions": DIMENSIONS, "machine": {part: machine(PACKAGES) for part in args.parts}}
    if "command" in args.parts:
        with tempfile.TemporaryDirectory() as folder:
            told["command"] = command(Path(folder), *((1, 1) if args.smoke else (5, None)))
    if "engines" in args.parts:
        told["engines"] = []
        for gallery, kind in [(n, k) for n in ((1000,) if args.smoke else GALLERIES) for k in ("clustered", "random")]:
            progress(f"{kind}, gallery of {gallery:,}")
            queries = 50 if args.smoke else QUERIES
            one = {"gallery": gallery, "kind": kind, "queries": queries}
            told["engines"].append({**one, "programs": engines(gallery, kind, queries, 1 if args.smoke else 3)})
    print(markdown(told))
    if not args.smoke:  # a part that was left out stays as it was
        kept = json.loads(RESULTS_FILE.read_text("utf-8")) if RESULTS_FILE.exists() else {"machine": {}}
        told = {**kept, **told, "machine": {**kept["machine"], **told["machine"]}}
        RESULTS_FILE.write_text(json.dumps(told, indent=2) + "\n", "utf-8")
        print(f"written to {RESULTS_FILE}")


if __name__ == "__main__":
    main()
