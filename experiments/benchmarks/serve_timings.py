"""The search page under load: milliseconds of an answer, with 1 and with 20 clients that ask again at once.

python -m experiments.benchmarks.serve_timings [--smoke] [--requests 4000]
python -m experiments.benchmarks.serve_timings --markdown  # the stored results

A run with embeddings of 512 numbers is trained on generated data for some seconds. `python -m mrl_jax.search --serve`
then serves it with a gallery of 100,000 rows, as a process of its own; the clients are one other process, all on this
machine and over loopback. Every client sends its next query when it has the answer to the last; the queries are rows,
drawn at random, of the modality that is not the gallery's. "health" is an address that computes nothing: what the
connections alone cost. "noise" is the same run with another gallery, whose features are noise without clusters: the
hardest case. The number of requests and the time are bounded. Needs the extra `serve`; about 4 minutes on 2 idle CPU
cores. Results: experiments/results/serve_timings.json.
"""

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.shared.command_line import require, require_backend, run_main
from experiments.shared.folders import RESULTS
from experiments.shared.machine import machine
from experiments.shared.tables import markdown
from experiments.shared.timings import log, read_numbers, timing_parser, write_table

RESULTS_FILE = RESULTS / "serve_timings.json"
GALLERY, CLASSES, FEATURES, NEAREST = 100_000, 50, 64, 10
CLIENTS = (1, 20)
MOST_SECONDS = 60.0  # of one measurement
FLAGS = ["--method", "mrl", "--hidden-dims", "256", "--embed-dim", "512", "--epochs", "20", "--learning-rate", "0.001"]


def generated(path: Path, test: int, distance: float = 1.0) -> Path:
    """Data of two modalities: clusters around a mean per class, which overlap; no clusters at a distance of 0."""
    rng = np.random.default_rng(0)
    means = {m: distance * rng.normal(size=(CLASSES, FEATURES)) for m in ("a", "b")}
    arrays: dict[str, np.ndarray] = {}
    for split, n in {"train": 2000, "valid": 500, "test": test}.items():
        labels = arrays[f"{split}_labels"] = rng.integers(CLASSES, size=n)
        for m, mean in means.items():
            arrays[f"{split}_{m}"] = (mean[labels] + 1.5 * rng.normal(size=(n, FEATURES))).astype(np.float32)
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def trained(folder: Path) -> Path:
    """The folder of a run."""
    data = generated(folder / "small.npz", 500)
    command = [sys.executable, "-m", "mrl_jax.train", "--data-path", str(data), "--workdir", str(folder / "run")]
    subprocess.run([*command, *FLAGS], check=True, capture_output=True)
    return folder / "run"


async def client(host: str, port: int, addresses: list[str], end: float) -> list[float]:
    """Seconds of each request of one connection."""
    reader, writer = await asyncio.open_connection(host, port)
    seconds = []
    for address in addresses:
        started = time.perf_counter()
        if started > end:
            break
        writer.write(f"GET {address} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"{address}: {head.splitlines()[0].decode()}")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        seconds.append(time.perf_counter() - started)
    writer.close()
    return seconds


async def load(host: str, port: int, clients: int, addresses: list[str]) -> dict[str, float]:
    """Milliseconds by percentile, and requests per second, of some clients at once."""
    started = time.perf_counter()
    shares = [addresses[i::clients] for i in range(clients)]
    parts = await asyncio.gather(*(client(host, port, share, started + MOST_SECONDS) for share in shares))
    took, ms = time.perf_counter() - started, 1e3 * np.concatenate(parts)
    numbers = {f"p{q}": round(float(np.percentile(ms, q)), 2) for q in (50, 90, 99)}
    return {"clients": clients, "requests": len(ms), **numbers, "per_second": round(len(ms) / took, 1)}


def measure(requests: int, gallery: int) -> list[dict[str, Any]]:
    """All measurements, on servers that this function starts and ends."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log("training the run to serve")
        run = trained(folder)
        clusters, noise = (generated(folder / f"{d:g}.npz", gallery, d) for d in (1.0, 0.0))
        return [
            *measured(run, clusters, ("health", "search"), requests, gallery),
            *measured(run, noise, ("noise",), requests, gallery),
        ]


def measured(run: Path, data: Path, kinds: Sequence[str], requests: int, gallery: int) -> list[dict[str, Any]]:
    """The measurements of one server."""
    command = [sys.executable, "-m", "mrl_jax.search", "--workdir", str(run), "--data-path", str(data), "--serve"]
    with subprocess.Popen([*command, "--port", "0"], stdout=subprocess.PIPE, text=True) as server:
        try:
            address = server.stdout.readline().split(" ")[0]  # type: ignore[union-attr]
            if not address:
                raise SystemExit("the server did not start; its message is above")
            host, port = address.removeprefix("http://").split(":")
            rng, results = np.random.default_rng(1), []
            for kind in kinds:
                for clients in CLIENTS:
                    count = requests if clients > 1 else max(1, requests // 10)
                    rows = rng.integers(gallery, size=count + 200)
                    search = [f"/api/search?row=a:test:{i}&gallery=b&top={NEAREST}" for i in rows]
                    addresses = ["/healthz"] * len(rows) if kind == "health" else search
                    asyncio.run(load(host, int(port), clients, addresses[:200]))  # not counted
                    results.append({"of": kind, **asyncio.run(load(host, int(port), clients, addresses[200:]))})
                    log(f"  {results[-1]}")
        finally:
            server.terminate()
    if server.returncode != 143:
        raise SystemExit(f"the server ended with {server.returncode}, not with 143")
    return results


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    rows = [["what is asked", "clients", "requests", "p50, ms", "p90, ms", "p99, ms", "answers per second"]]
    nearest = f"{NEAREST} nearest of {results['gallery']:,}"
    names = {"health": "nothing (`/healthz`)", "search": nearest, "noise": f"{nearest}, features without clusters"}
    for x in results["load"]:
        numbers = [f"{x[q]:.1f}" for q in ("p50", "p90", "p99")]
        rows.append([names[x["of"]], str(x["clients"]), f"{x['requests']:,}", *numbers, f"{x['per_second']:,.0f}"])
    return markdown(rows)


def parsed() -> argparse.Namespace:
    """The flags."""
    flags = timing_parser(__doc__)
    flags.add_argument("--requests", type=int, default=4000, help="of 20 clients together; default: 4000")
    return flags.parse_args()


def main() -> None:
    """Measure, store and print."""
    args = parsed()
    if args.markdown:
        print(table(read_numbers(RESULTS_FILE)))
        return
    require("starlette", "uvicorn", "httptools")
    require_backend()
    gallery = 2000 if args.smoke else GALLERY
    results = {"gallery": gallery, "numbers": 512, "machine": machine(["jax", "numpy", "starlette", "uvicorn"])}
    results["load"] = measure(200 if args.smoke else min(args.requests, 20_000), gallery)
    print(table(results))
    if not args.smoke:
        write_table(RESULTS_FILE, results, table(results))


if __name__ == "__main__":
    run_main(main)
