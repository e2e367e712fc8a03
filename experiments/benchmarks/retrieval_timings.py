"""Mean average precision by us and by others on the same embeddings: seconds, ratios and peak memory.

python -m experiments.benchmarks.retrieval_timings [--smoke] [--parts timings memory bf16 million] [--sizes 462x462 …]
python -m experiments.benchmarks.retrieval_timings --markdown  # the kept results

Embeddings of 512 dimensions and 10 classes around common centres, as trained ones lie, and plain random ones. Programs
run side by side in one process, in turns that change direction. Ours start from embeddings of any length, the others
from unit length; "product" is the similarity product alone, in blocks, by JAX and by NumPy. Slow ones score a sample of
the queries against the whole gallery, and their time is scaled. Peak memory is that of a fresh process each, over what
it held with the embeddings loaded. Needs Linux and the extra `bench`; about 20 minutes on 2 idle CPU cores. Results go
to experiments/results/retrieval_timings.json.
"""

import argparse
import contextlib
import json
import os
import re
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

from experiments.benchmarks.retrieval_programs import (
    CLASSES,
    DIMENSIONS,
    PROGRAMS,
    Data,
    block_rows,
    embeddings,
    ours,
    sampled,
)
from experiments.shared.folders import RESULTS, ROOT
from experiments.shared.machine import machine

RESULTS_FILE = RESULTS / "retrieval_timings.json"
PARTS = ("timings", "memory", "bf16", "million")
SIZES = {"462x462": 5, "5000x5000": 5, "23661x23661": 3, "10000x100000": 3}  # queries x gallery -> rounds
LIMIT = 15.0  # seconds after which a program takes no further turn
progress = partial(print, file=sys.stderr, flush=True)
PACKAGES = ("jax", "numpy", "numba", "scipy", "scikit-learn", "torch", "torchmetrics", "ranx", "pytrec-eval-terrier")


def timings(data: Data, rounds: int, names: list[str]) -> dict[str, dict[str, Any]]:
    """Seconds of all programs in alternating order, and how far their mAP is from ours."""
    from mrl_jax.retrieval.measure import retrieval_metrics

    ap = retrieval_metrics(*data)["ap"]
    calls, told = {}, {}
    for name in names:
        given = sampled(name, data)
        one = block_rows(given) if len(given.queries) * len(data.gallery) > 5e7 else len(given.queries)
        PROGRAMS[name][0](given.first(one))()  # compiles
        calls[name] = PROGRAMS[name][0](given)
        told[name] = {"queries": len(given.queries), "seconds": []}
    for turn in range(rounds):
        for name in names[:: -1 if turn % 2 else 1]:
            if sum(told[name]["seconds"]) < LIMIT or PROGRAMS[name][1] is None:
                started = time.perf_counter()
                found = calls[name]()
                told[name]["seconds"].append(time.perf_counter() - started)
                told[name]["map_error"] = None if np.isnan(found) else abs(found - ap[: told[name]["queries"]].mean())
                progress(f"  {name}: {told[name]['seconds'][-1]:.2f} s for {told[name]['queries']} queries")
    for x in told.values():
        x["total"] = statistics.median(x["seconds"]) * len(data.queries) / x["queries"]
    return told


def status(name: str) -> int:
    """Bytes of this process by the kernel's count."""
    return int(re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024


def memory(data: Data, name: str) -> dict[str, Any]:
    """Peak over what is held with embeddings loaded and libraries warm; for a fresh process."""
    given = sampled(name, data)
    PROGRAMS[name][0](Data(*(x[:30] for x in given)))()
    if name in ("ours", "ours, all metrics"):
        ours(Data(*(x[:30] for x in given)), "numba")()  # which "auto" takes for the size measured
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here, where the kernel lets it
    before = status("VmRSS")
    PROGRAMS[name][0](given)()
    return {"peak_bytes": status("VmHWM") - before, "queries": len(given.queries)}


def bf16(data: Data) -> dict[str, Any]:
    """Similarities in bfloat16: seconds beside float32, and how far average precisions move."""
    from mrl_jax.retrieval.measure import retrieval_metrics

    given, seconds, ap = data.first(2048), {}, {}
    for kind in ("float32", "bfloat16") * 2:  # the first of each compiles
        started = time.perf_counter()
        ap[kind] = retrieval_metrics(*given, similarity=kind, k=())["ap"]
        seconds[kind] = time.perf_counter() - started
    moved = ap["bfloat16"] - ap["float32"]
    errors = {"map_error": abs(float(moved.mean())), "largest_ap_error": float(np.abs(moved).max())}
    return {"queries": len(given.queries), "seconds": seconds, "map": float(ap["float32"].mean()), **errors}


def million(data: Data, repeats: int = 3) -> dict[str, Any]:
    """Some queries, and four times as many more, against a large gallery: what is done once, and what they cost."""
    block, total = len(data.queries) // 5, len(data.gallery)
    ours(data.first(block))()  # compiles
    once, more = [], []
    for _ in range(repeats):
        for found, n in ((once, block), (more, 5 * block)):
            started = time.perf_counter()
            ours(data.first(n))()
            found.append(time.perf_counter() - started)
            progress(f"  {n} queries: {found[-1]:.2f} s")
    per_block = (statistics.median(more) - statistics.median(once)) / 4
    fixed = max(0.0, statistics.median(once) - per_block)
    told = {"gallery": total, "block": block, "per_block": per_block, "fixed": fixed}
    told |= {"estimated_seconds": fixed + total / block * per_block, "one_block": once, "five_blocks": more}
    return {**told, "gallery_bytes": data.gallery.nbytes, "peak_bytes": status("VmHWM")}


def child(task: dict[str, Any]) -> dict[str, Any]:
    """Run a task in a fresh process."""
    command = [sys.executable, "-m", "experiments.benchmarks.retrieval_timings", "--child", json.dumps(task)]
    environment = {"JAX_PLATFORMS": "cpu", **os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def perform(task: dict[str, Any]) -> dict[str, Any]:
    """What the child does."""
    if task["part"] == "million":
        return million(embeddings(task["block"] * 5, task["gallery"], "clustered"))
    data, part = Data(**np.load(task["file"])), {"timings": timings, "memory": memory, "bf16": bf16}[task["part"]]
    return part(data, *task["arguments"])


def measure(size: str, kind: str, rounds: int, parts: list[str], folder: Path) -> dict[str, Any]:
    """All that is asked of one size."""
    (q, g), file = map(int, size.split("x")), folder / "embeddings.npz"
    np.savez(file, **embeddings(q, g, kind)._asdict())
    names = list(PROGRAMS) if kind == "clustered" else ["ours", "product, JAX", "product, NumPy", "NumPy"]
    told: dict[str, Any] = {"queries": q, "gallery": g, "kind": kind, "programs": {}}
    progress(f"{size}, {kind}")
    if "timings" in parts:
        told["programs"] = child({"part": "timings", "file": str(file), "arguments": [rounds, names]})
    if "memory" in parts and kind == "clustered":
        for name in names if size in SIZES else names[:2]:
            found = child({"part": "memory", "file": str(file), "arguments": [name]})
            told["programs"].setdefault(name, {}).update(found)
            progress(f"  {name}: {found['peak_bytes'] / 1e6:.0f} MB")
    if "bf16" in parts and g >= 5000:
        told["bf16"] = child({"part": "bf16", "file": str(file), "arguments": []})
    return told


def markdown(told: dict[str, Any]) -> str:
    """Tables for the docs."""
    sizes = [x for x in told["sizes"] if x["kind"] == "clustered"]

    def table(title: str, key: str, cell: Callable[[dict[str, Any], dict[str, Any]], str]) -> list[str]:
        lines = [f"| {title} |" + "".join(f" {x['queries']:,} x {x['gallery']:,} |" for x in sizes)]
        lines.append("|---" * (len(sizes) + 1) + "|")
        for name in PROGRAMS:
            found = [(x["programs"].get(name, {}), x) for x in sizes]
            cells = [cell(c, x["programs"].get("ours", {})) + star(c, x) if key in c else "" for c, x in found]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        return [*lines, ""]

    def star(c: dict[str, Any], x: dict[str, Any]) -> str:
        return f" [{c['queries']:,}]" if c["queries"] < x["queries"] else ""

    def seconds(c: dict[str, Any], base: dict[str, Any]) -> str:
        return f"{digits(c['total'])} s, {c['total'] / base['total']:.3g}x"

    lines = table("seconds, times ours", "total", seconds)
    lines += ["[n]: of a sample of n queries; seconds are scaled to all of them, memory is not.", ""]
    lines += table("peak memory", "peak_bytes", lambda c, _: f"{c['peak_bytes'] / 1e6:,.0f} MB")
    for x in told["sizes"]:
        if "total" in (p := x["programs"]).get("ours", {}):
            share = p["ours"]["total"] / min(p[f"product, {by}"]["total"] for by in ("JAX", "NumPy"))
            error = max(c.get("map_error") or 0 for c in p.values())
            lines.append(f"- {x['kind']}, {x['queries']:,} x {x['gallery']:,}: ours {digits(p['ours']['total'])} s = ")
            lines[-1] += f"{share:.2f} times the faster product; mAPs of all programs within {error:.0e}"
    title = "| bfloat16 | seconds | float32, seconds | mAP | its error | largest error of an AP |"
    lines += ["", title, "|---" * 6 + "|"]
    for x in told["sizes"]:
        if b := x.get("bf16"):
            both = f"{b['seconds']['bfloat16']:.2f} | {b['seconds']['float32']:.2f} | {b['map']:.4f}"
            name = f"{x['kind']}, {b['queries']:,} x {x['gallery']:,}"
            lines.append(f"| {name} | {both} | {b['map_error']:.1e} | {b['largest_ap_error']:.1e} |")
    if m := told.get("million"):
        lines += ["", f"{m['gallery']:,} x {m['gallery']:,}: {m['fixed']:.1f} s + {m['gallery']:,} / {m['block']} x "]
        lines[-1] += f"{m['per_block']:.3f} s = {m['estimated_seconds'] / 3600:.1f} h; peak of the process "
        lines[-1] += f"{m['peak_bytes'] / 1e9:.1f} GB, of it {m['gallery_bytes'] / 1e9:.2f} GB the gallery as given"
    facts = told["machine"]
    return "\n".join([*lines, "", f"({facts['cores']} CPU cores, {facts['cpu']}, {facts['date']}.)"])


def digits(seconds: float) -> str:
    """Three significant ones, without exponent."""
    return f"{seconds:,.0f}" if seconds >= 100 else f"{seconds:.3g}"


def main() -> None:
    """Measure, print, and keep the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="default: all")
    parser.add_argument("--sizes", nargs="*", default=list(SIZES), metavar="QxG", help=f"default: {' '.join(SIZES)}")
    parser.add_argument("--smoke", action="store_true", help="small sizes, to see that all works; nothing is kept")
    parser.add_argument("--rounds", type=int, help="turns of each program (default: 5, 5, 3, 3); fewer are not kept")
    parser.add_argument("--output", type=Path, help="where results go; default: kept if all is measured")
    parser.add_argument("--markdown", action="store_true", help="print the tables of the results instead")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(perform(json.loads(args.child))))
        return
    if args.markdown:
        print(markdown(json.loads((args.output or RESULTS_FILE).read_text("utf-8"))))
        return
    sizes, large = (["100x5000"], 20_000) if args.smoke else (args.sizes, 1_000_000)
    told: dict[str, Any] = {"machine": machine(PACKAGES), "dimensions": DIMENSIONS, "classes": CLASSES, "sizes": []}
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            for kind in ("clustered", "random") if size == "23661x23661" else ("clustered",):
                told["sizes"].append(measure(size, kind, args.rounds or SIZES.get(size, 2), args.parts, Path(folder)))
    if "million" in args.parts:
        progress(f"{large} items")
        told["million"] = child({"part": "million", "gallery": large, "block": 256})
    print(markdown(told))
    everything = not (args.smoke or args.rounds) and set(args.parts) == set(PARTS) and args.sizes == list(SIZES)
    output = args.output or (RESULTS_FILE if everything else None)
    if output:
        output.write_text(json.dumps(told, indent=2) + "\n", "utf-8")
        print(f"\nwritten to {output}")


if __name__ == "__main__":
    main()
