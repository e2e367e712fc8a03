"""Mean average precision by mrl_jax and by other libraries on the same embeddings: seconds, ratios, peak memory.

python -m experiments.benchmarks.retrieval_timings [--smoke] [--parts timings memory bf16 million] [--sizes 462x462 …]
python -m experiments.benchmarks.retrieval_timings --markdown  # the stored results

Embeddings of 512 dimensions and 10 classes around common centres, like those of trained models, and random ones.
Programs run in one process and take turns, in an order that changes direction. "ours" starts from embeddings of any
length, the others from unit length; "product" is the similarity product alone, in blocks, by JAX and by NumPy. Slow
programs score a sample of the queries against the whole gallery; their time is scaled. Peak memory is measured in a
process of its own per program, above the memory with the embeddings loaded. Needs Linux and the extra `bench`; about 20
minutes on 2 idle CPU cores. Results: experiments/results/retrieval_timings.json.
"""

import argparse
import contextlib
import json
import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmarks.retrieval_programs import (
    CLASSES,
    DIMENSIONS,
    LABELS,
    PROGRAMS,
    Data,
    block_rows,
    embeddings,
    ours,
    sampled,
)
from experiments.shared.command_line import require, require_backend, run_main
from experiments.shared.folders import RESULTS
from experiments.shared.machine import machine
from experiments.shared.tables import markdown
from experiments.shared.timings import log, read_numbers, run_module, seconds_of, timing_parser, turns, write_numbers

RESULTS_FILE = RESULTS / "retrieval_timings.json"
PARTS = ("timings", "memory", "bf16", "million")
SIZES = {"462x462": 5, "5000x5000": 5, "23661x23661": 3, "10000x100000": 3}  # queries x gallery -> rounds
LIMIT = 15.0  # seconds after which a slow program takes no further turn
PACKAGES = ("jax", "numpy", "numba", "scipy", "scikit-learn", "torch", "torchmetrics", "ranx", "pytrec-eval-terrier")


def timings(data: Data, rounds: int, names: list[str]) -> dict[str, dict[str, Any]]:
    """Seconds of all programs, and the difference of their mAP from that of mrl_jax."""
    from mrl_jax.retrieval.measure import retrieval_metrics

    ap = retrieval_metrics(*data)["ap"]
    calls, results = {}, {}
    for name in names:
        given = sampled(name, data)
        one = block_rows(given) if len(given.queries) * len(data.gallery) > 5e7 else len(given.queries)
        PROGRAMS[name][0](given.first(one))()  # compiles
        calls[name] = PROGRAMS[name][0](given)
        results[name] = {"queries": len(given.queries), "seconds": []}
    for _, name in turns(names, rounds):
        x = results[name]
        if sum(x["seconds"]) < LIMIT or PROGRAMS[name][1] is None:
            started = time.perf_counter()
            value = calls[name]()
            x["seconds"].append(time.perf_counter() - started)
            x["map_error"] = None if np.isnan(value) else abs(value - ap[: x["queries"]].mean())
            log(f"  {name}: {x['seconds'][-1]:.2f} s for {x['queries']} queries")
    for x in results.values():
        x["total"] = statistics.median(x["seconds"]) * len(data.queries) / x["queries"]
    return results


def status(name: str) -> int:
    """Bytes of this process, by a field of /proc/self/status."""
    return int(re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024


def memory(data: Data, name: str) -> dict[str, Any]:
    """Peak above the memory with embeddings loaded and libraries warm; run it in a process of its own."""
    given = sampled(name, data)
    PROGRAMS[name][0](Data(*(x[:30] for x in given)))()
    if name in ("ours", "ours, all metrics"):
        ours(Data(*(x[:30] for x in given)), "numba")()  # "auto" chooses it for the size that is measured
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here, where the kernel allows it
    before = status("VmRSS")
    PROGRAMS[name][0](given)()
    return {"peak_bytes": status("VmHWM") - before, "queries": len(given.queries)}


def bf16(data: Data) -> dict[str, Any]:
    """Similarities in bfloat16: seconds beside float32, and differences of average precisions."""
    from mrl_jax.retrieval.measure import retrieval_metrics

    given, seconds, ap = data.first(2048), {}, {}
    for kind in ("float32", "bfloat16") * 2:  # the first of each compiles
        started = time.perf_counter()
        ap[kind] = retrieval_metrics(*given, similarity=kind, k=())["ap"]
        seconds[kind] = time.perf_counter() - started
    difference = ap["bfloat16"] - ap["float32"]
    errors = {"map_error": abs(float(difference.mean())), "largest_ap_error": float(np.abs(difference).max())}
    return {"queries": len(given.queries), "seconds": seconds, "map": float(ap["float32"].mean()), **errors}


def million(data: Data, repeats: int = 3) -> dict[str, Any]:
    """One block of queries, and five blocks, against a large gallery: fixed time, and time per block."""
    block, total = len(data.queries) // 5, len(data.gallery)
    ours(data.first(block))()  # compiles
    once, more = [], []
    for _ in range(repeats):
        for seconds, n in ((once, block), (more, 5 * block)):
            seconds.append(seconds_of(lambda n=n: ours(data.first(n))()))
            log(f"  {n} queries: {seconds[-1]:.2f} s")
    per_block = (statistics.median(more) - statistics.median(once)) / 4
    fixed = max(0.0, statistics.median(once) - per_block)
    results = {"gallery": total, "block": block, "per_block": per_block, "fixed": fixed}
    results |= {"estimated_seconds": fixed + total / block * per_block, "one_block": once, "five_blocks": more}
    return {**results, "gallery_bytes": data.gallery.nbytes, "peak_bytes": status("VmHWM")}


def child(task: dict[str, Any]) -> dict[str, Any]:
    """Run a task in a process of its own."""
    environment = {"JAX_PLATFORMS": "cpu", **os.environ, "PYTHONWARNINGS": "ignore"}
    module = "experiments.benchmarks.retrieval_timings"
    return run_module(module, "--child", json.dumps(task), environment=environment)


def perform(task: dict[str, Any]) -> dict[str, Any]:
    """A task, in this process."""
    if task["part"] == "million":
        return million(embeddings(task["block"] * 5, task["gallery"], "clustered"))
    data, part = Data(**np.load(task["file"])), {"timings": timings, "memory": memory, "bf16": bf16}[task["part"]]
    return part(data, *task["arguments"])


def measure(size: str, kind: str, rounds: int, parts: list[str], folder: Path) -> dict[str, Any]:
    """All parts for one size."""
    (q, g), file = map(int, size.split("x")), folder / "embeddings.npz"
    np.savez(file, **embeddings(q, g, kind)._asdict())
    names = list(PROGRAMS) if kind == "clustered" else ["ours", "product, JAX", "product, NumPy", "NumPy"]
    results: dict[str, Any] = {"queries": q, "gallery": g, "kind": kind, "programs": {}}
    log(f"{size}, {kind}")
    if "timings" in parts:
        results["programs"] = child({"part": "timings", "file": str(file), "arguments": [rounds, names]})
    if "memory" in parts and kind == "clustered":
        for name in names if size in SIZES else names[:2]:
            peak = child({"part": "memory", "file": str(file), "arguments": [name]})
            results["programs"].setdefault(name, {}).update(peak)
            log(f"  {name}: {peak['peak_bytes'] / 1e6:.0f} MB")
    if "bf16" in parts and g >= 5000:
        results["bf16"] = child({"part": "bf16", "file": str(file), "arguments": []})
    return results


def tables(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    sizes = [x for x in results["sizes"] if x["kind"] == "clustered"]

    def table(title: str, key: str, cell: Callable[[dict[str, Any], dict[str, Any]], str]) -> str:
        rows = [[title, *(f"{x['queries']:,} x {x['gallery']:,}" for x in sizes)]]
        for name in PROGRAMS:
            numbers = [(x["programs"].get(name, {}), x) for x in sizes]
            cells = [cell(c, x["programs"].get("ours", {})) + sample(c, x) if key in c else "" for c, x in numbers]
            rows.append([LABELS.get(name, name), *cells])
        return markdown(rows)

    def sample(c: dict[str, Any], x: dict[str, Any]) -> str:
        return f" [{c['queries']:,}]" if c["queries"] < x["queries"] else ""

    def seconds(c: dict[str, Any], ours: dict[str, Any]) -> str:
        return f"{digits(c['total'])} s, {c['total'] / ours['total']:.3g}x"

    blocks = [table("seconds, times ours", "total", seconds)]
    blocks.append("[n]: of a sample of n queries; seconds are scaled to all of them, memory is not.")
    blocks.append(table("peak memory", "peak_bytes", lambda c, _: f"{c['peak_bytes'] / 1e6:,.0f} MB"))
    lines = []
    for x in results["sizes"]:
        if "total" in (p := x["programs"]).get("ours", {}):
            ratio = p["ours"]["total"] / min(p[f"product, {by}"]["total"] for by in ("JAX", "NumPy"))
            error = max(c.get("map_error") or 0 for c in p.values())
            lines.append(f"- {x['kind']}, {x['queries']:,} x {x['gallery']:,}: ours {digits(p['ours']['total'])} s = ")
            lines[-1] += f"{ratio:.2f} times the faster product; mAPs of all programs within {error:.0e}"
    blocks.append("\n".join(lines))
    rows = [["bfloat16", "seconds", "float32, seconds", "mAP", "its error", "largest error of an AP"]]
    for x in results["sizes"]:
        if b := x.get("bf16"):
            both = [f"{b['seconds'][kind]:.2f}" for kind in ("bfloat16", "float32")]
            errors = [f"{b[key]:.1e}" for key in ("map_error", "largest_ap_error")]
            rows.append([f"{x['kind']}, {b['queries']:,} x {x['gallery']:,}", *both, f"{b['map']:.4f}", *errors])
    blocks.append(markdown(rows))
    if m := results.get("million"):
        line = f"{m['gallery']:,} x {m['gallery']:,}: {m['fixed']:.1f} s + {m['gallery']:,} / {m['block']} x "
        line += f"{m['per_block']:.3f} s = {m['estimated_seconds'] / 3600:.1f} h; peak of the process "
        line += f"{m['peak_bytes'] / 1e9:.1f} GB, of it {m['gallery_bytes'] / 1e9:.2f} GB the gallery as given"
        blocks.append(line)
    where = results["machine"]
    blocks.append(f"({where['cores']} CPU cores, {where['cpu']}, {where['date']}.)")
    return "\n\n".join(blocks)


def digits(seconds: float) -> str:
    """Seconds with three significant digits, without exponent."""
    return f"{seconds:,.0f}" if seconds >= 100 else f"{seconds:.3g}"


def main() -> None:
    """Measure, store and print."""
    parser = timing_parser(__doc__, parts=PARTS)
    parser.add_argument("--sizes", nargs="*", default=list(SIZES), metavar="QxG", help=f"default: {' '.join(SIZES)}")
    parser.add_argument(
        "--rounds", type=int, help="turns of each program; default: 5, 5, 3, 3. With another number nothing is stored"
    )
    parser.add_argument("--output", type=Path, help="file of the results; default: stored if all parts are measured")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(perform(json.loads(args.child))))
        return
    if args.markdown:
        print(tables(read_numbers(args.output or RESULTS_FILE)))
        return
    require("numba", "torch", "torchmetrics", "ranx", "pytrec_eval")
    require_backend()
    sizes, large = (["100x5000"], 20_000) if args.smoke else (args.sizes, 1_000_000)
    results: dict[str, Any] = {"machine": machine(PACKAGES), "dimensions": DIMENSIONS, "classes": CLASSES, "sizes": []}
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            for kind in ("clustered", "random") if size == "23661x23661" else ("clustered",):
                rounds = args.rounds or SIZES.get(size, 2)
                results["sizes"].append(measure(size, kind, rounds, args.parts, Path(folder)))
    if "million" in args.parts:
        log(f"{large} items")
        results["million"] = child({"part": "million", "gallery": large, "block": 256})
    print(tables(results))
    everything = not (args.smoke or args.rounds) and set(args.parts) == set(PARTS) and args.sizes == list(SIZES)
    if output := args.output or (RESULTS_FILE if everything else None):
        write_numbers(output, results)


if __name__ == "__main__":
    run_main(main)
