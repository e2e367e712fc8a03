"""Search: seconds of the first and further answers of the command; seconds and recall of engines over one gallery.

python -m experiments.benchmarks.search_timings [--smoke] [--parts command engines]
python -m experiments.benchmarks.search_timings --markdown  # the stored results

This program trains a run on the embedded data; the command answers on it with empty caches, with compiled programs
cached, and with the embedded gallery cached too. A process that only imports JAX is timed beside it, for comparison
between machines. Engines return the ten nearest of 512-dimensional rows; recall is against the exact result.
"clustered": a hundred rows around each of many centres, like embeddings of a trained model; "random": independent
directions, the worst case. Needs the extra `bench`; about 15 minutes on 2 idle CPU cores. Results:
experiments/results/search_timings.json.
"""

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

from experiments.shared.command_line import require, run_main
from experiments.shared.folders import RESULTS
from experiments.shared.machine import machine
from experiments.shared.tables import markdown
from experiments.shared.timings import log, read_numbers, seconds_of, timing_parser, turns, write_parts
from mrl_jax.search.faiss_index import FaissIndex
from mrl_jax.search.index import Index, recall, top_k

RESULTS_FILE = RESULTS / "search_timings.json"
PARTS = ("command", "engines")
PACKAGES = ("jax", "numpy", "faiss-cpu")
DIMENSIONS, NEAREST, QUERIES = 512, 10, 1000
GALLERIES = (20_000, 100_000)
ROWS_OF_A_CENTRE, SPREAD = 100, 1.0


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
    """Seconds to answers on a run on emoji, by what is cached."""
    python, run = [sys.executable, "-m"], folder / "run"
    env = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_COMPILATION", "JAX_PERSISTENT"))}
    env |= {"XDG_CACHE_HOME": str(folder / "cache"), "JAX_PLATFORMS": "cpu"}
    log("training the run to search in")
    few = ["--epochs", str(epochs)] if epochs else []
    subprocess.run([*python, "mrl_jax.train", "--workdir", str(run), *few], env=env, check=True, capture_output=True)
    search = [*python, "mrl_jax.search", "--workdir", str(run)]
    text, row = [*search, "--text", "cat"], [*search, "--row", "image:test:7"]
    programs, gallery = folder / "cache" / "mrl_jax" / "compiled", run / "search"
    seconds: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, process, removed in (
            ("importing JAX alone", [sys.executable, "-c", "import jax; print()"], ()),
            ("nothing kept", text, (programs, gallery)),
            ("compiled programs kept", text, (gallery,)),
            ("gallery kept too", text, ()),
            ("the same, by a row", row, ()),
        ):
            for path in removed:
                shutil.rmtree(path, ignore_errors=True)
            seconds.setdefault(name, []).append(timed_start(process, env))
            log(f"  {name}: {seconds[name][-1]:.2f} s")
    seconds["further answers, interactive"] = further(search, env)
    return seconds


def further(search: list[str], env: dict[str, str], answers: int = 20) -> list[float]:
    """Seconds of the second and later answers of a process."""
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
    """Rows [count, L] around the centres, or in random directions; not of unit length."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, DIMENSIONS), np.float32)
    return x if kind == "random" else SPREAD * x / DIMENSIONS**0.5 + centres[rng.integers(len(centres), size=count)]


def centres_of(gallery: int) -> np.ndarray:
    """Unit rows, one for every hundred of the gallery."""
    x = np.random.default_rng(0).standard_normal((max(1, gallery // ROWS_OF_A_CENTRE), DIMENSIONS), np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def numpy_search(queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """The usual NumPy code: product, partition, sort of the nearest."""
    blocks = []
    for start in range(0, len(queries), 256):
        scores = queries[start : start + 256] @ gallery.T
        best = np.argpartition(-scores, NEAREST, axis=1)[:, :NEAREST]
        order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
        blocks.append(np.take_along_axis(best, order, axis=1))
    return np.concatenate(blocks)


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
    results: dict[str, dict[str, float]] = {}
    built = {}
    for name, (build, search) in searches.items():
        started = time.perf_counter()
        built[name] = build()
        results[name] = {"build": time.perf_counter() - started}
        results[name]["recall"] = recall(search(built[name], q), exact)  # also compiles
        search(built[name], q[:1])
        log(f"  {name}: built in {results[name]['build']:.1f} s, recall {results[name]['recall']:.3f}")
    seconds: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in searches}
    for _, name in turns(searches, rounds):
        for taken, some in zip(seconds[name], (q, q[:1]), strict=True):
            taken.append(seconds_of(lambda name=name, some=some: searches[name][1](built[name], some)))
    for name, (many, one) in seconds.items():
        results[name] |= {"queries": statistics.median(many), "single": statistics.median(one)}
    return results


def tables(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    blocks = []
    if "command" in results:
        rows = [["answer of the command", "seconds, median (range)"]]
        for name, seconds in results["command"].items():
            rows.append([name, f"{statistics.median(seconds):.3g} ({min(seconds):.3g}-{max(seconds):.3g})"])
        blocks.append(markdown(rows))
    for of_gallery in results.get("engines", ()):
        queries = f"{of_gallery['queries']:,} queries, s"
        rows = [["engine", "build, s", queries, "a single one, ms", f"recall@{NEAREST}"]]
        for name, x in of_gallery["programs"].items():
            numbers = f"{x['build']:.1f}", f"{x['queries']:.2f}", f"{1e3 * x['single']:.1f}", f"{x['recall']:.3f}"
            rows.append([name, *numbers])
        blocks.append(f"{of_gallery['kind']}, gallery of {of_gallery['gallery']:,}:\n\n{markdown(rows)}")
    return "\n\n".join(blocks)


def main() -> None:
    """Measure, store and print."""
    args = timing_parser(__doc__, parts=PARTS).parse_args()
    if args.markdown:
        print(tables(read_numbers(RESULTS_FILE)))
        return
    if "engines" in args.parts:
        require("faiss")
    results: dict[str, Any] = {"dimensions": DIMENSIONS, "machine": {part: machine(PACKAGES) for part in args.parts}}
    if "command" in args.parts:
        with tempfile.TemporaryDirectory() as folder:
            results["command"] = command(Path(folder), *((1, 1) if args.smoke else (5, None)))
    if "engines" in args.parts:
        results["engines"] = []
        for gallery, kind in [(n, k) for n in ((1000,) if args.smoke else GALLERIES) for k in ("clustered", "random")]:
            log(f"{kind}, gallery of {gallery:,}")
            queries = 50 if args.smoke else QUERIES
            sizes = {"gallery": gallery, "kind": kind, "queries": queries}
            results["engines"].append({**sizes, "programs": engines(gallery, kind, queries, 1 if args.smoke else 3)})
    print(tables(results))
    if not args.smoke:
        write_parts(RESULTS_FILE, results)


if __name__ == "__main__":
    run_main(main)
