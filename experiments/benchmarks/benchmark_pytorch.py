"""mrl_jax beside PyTorch programs: an epoch, an epoch with its evaluation, whole runs, start-up, peak memory.

python -m experiments.benchmarks.benchmark_pytorch [--shapes wikipedia reduced] [--rounds 5] [--smoke]
python -m experiments.benchmarks.benchmark_pytorch --from-results  # the stored results

Random data of Wikipedia's sizes (2,173 / 231 / 462 pairs, 10 classes) at two shapes: "wikipedia", the paper's 4,096 and
300 features, layers 4096-4096-512, batch 50; "reduced", 128 and 100 features, layers 1024-1024-512, batch 100. "best",
"compiled" and "reference" are those of pytorch_mrl.py. Every program is a process of its own. The programs take turns,
in an order that changes direction; medians. If PyTorch and JAX both see a GPU, all programs run on it.

- epoch: training alone. scored: training and mAP of both directions on the validation split.
- run: the paper's protocol, 100 epochs, each scored, and test scores of the best epoch and the last; ours is the whole
  of `mrl_jax.train`, in memory. At the large shape 2 epochs, because 100 would take all day.
- start: seconds from the command to the end of the first epoch, with compiled programs in the caches; "first start" is
  with empty caches (for ours only: "compiled" then needs minutes).
- memory: peak memory of a process that returns freed memory to the system, in GB (on a GPU: memory of the host).

In "best", "compiled" and "reference kept", glibc keeps freed memory; else there are page faults on the gradients at
each step. "reference" has the default of glibc. "compiled" needs a C++ compiler. Needs the extra `bench`, and an hour
on an idle machine (2 cores of an AMD EPYC, 2026-11-28).
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from experiments.benchmarks.benchmark_program import DEVICE, PROGRAMS, SHAPES
from experiments.shared.command_line import require_backend, run_main
from experiments.shared.folders import RESULTS, ROOT
from experiments.shared.machine import KEEP_MEMORY, machine
from experiments.shared.store import read_results, write_results
from experiments.shared.tables import markdown
from experiments.shared.timings import log, timing_parser, turns
from mrl_jax import InputError
from mrl_jax.files import write_atomically

RESULTS_FILE = RESULTS / "benchmark_pytorch.json"
KEPT = ("best", "compiled", "reference kept")
"""Programs that keep freed memory. It raises their peak, so their memory is measured in a process that does not."""
FULL = tuple(name for name in SHAPES if name != "smoke")


def common_device() -> str:
    """Name in PyTorch of the device that PyTorch and JAX both see: cuda, or cpu.

    Raises:
        InputError: PyTorch or JAX is not installed.
    """
    sees = "import jax, torch; print(torch.cuda.is_available() and jax.default_backend() == 'gpu')"
    done = subprocess.run([sys.executable, "-c", sees], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(
            f"PyTorch and JAX cannot both be imported ({reason}); run: pip install torch (for all programs: "
            "pip install -e '.[bench]')"
        )
    return "cuda" if done.stdout.split()[-1] == "True" else "cpu"


class Server:
    """A program in a process of its own; `started` is the seconds to the end of its first epoch."""

    def __init__(self, kind: str, shape: str, keep: bool, **environment: str) -> None:
        env = os.environ | (KEEP_MEMORY if keep else {}) | environment
        command = [sys.executable, "-m", "experiments.benchmarks.benchmark_program", kind, shape]
        began = time.perf_counter()
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env, cwd=ROOT, bufsize=1
        )
        self._read("ready")
        self.started = time.perf_counter() - began

    def _read(self, wanted: str = "") -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line or (wanted and line != wanted):
            raise SystemExit(f"this program ended early: {' '.join(self._process.args[-2:])}")  # type: ignore[arg-type]
        return line

    def do(self, what: str) -> float:
        """Seconds of a line of commands."""
        assert self._process.stdin is not None
        self._process.stdin.write(what + "\n")
        return float(self._read())

    def end(self) -> float:
        """End the process; returns its peak memory in bytes."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        peak = float(self._read())
        self._process.wait()
        return peak


def compare(name: str, rounds: int, programs: Sequence[str] = PROGRAMS) -> dict[str, Any]:
    """All measurements at a shape: program -> what -> list over rounds."""
    shape = SHAPES[name]
    numbers: dict[str, dict[str, list[float]]] = {kind: {} for kind in programs}
    with tempfile.TemporaryDirectory() as cache:
        caches = {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        caches["TORCHINDUCTOR_CACHE_DIR"] = f"{cache}/inductor"
        for kind in ("ours", "compiled"):
            if kind in programs:
                log(f"{name}: first start of {kind}")
                Server(kind, name, kind in KEPT, **caches).end()  # fills the cache
        for r, kind in turns(programs, rounds):
            if kind == "ours":
                with tempfile.TemporaryDirectory() as empty:
                    first = Server(kind, name, False, **caches | {"JAX_COMPILATION_CACHE_DIR": empty})
                    numbers[kind].setdefault("first start", []).append(first.started)
                    first.end()
            server = Server(kind, name, kind in KEPT, **caches)
            numbers[kind].setdefault("start", []).append(server.started)
            server.end()
            log(f"{name}: start of {kind}, {r + 1}")
        servers = {kind: Server(kind, name, kind in KEPT, **caches) for kind in programs}
        for what, commands, repeats in (
            ("epoch", "epoch", rounds),
            ("scored", "epoch score", rounds),
            ("run", "run", shape.repeats),
        ):
            for r, kind in turns(programs, repeats + 1):
                seconds = servers[kind].do(commands)
                if r:  # round 0 may compile
                    numbers[kind].setdefault(what, []).append(seconds)
                log(f"{name}: {what} of {kind}, {r + 1}")
        for kind, server in servers.items():
            peak = server.end()
            if kind in KEPT:
                server = Server(kind, name, False, **caches)
                server.do("epoch score run")
                peak = server.end()
            numbers[kind]["memory"] = [peak]
    return {"shape": shape._asdict(), "seconds": numbers}


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    programs = list(next(iter(results["shapes"].values()))["seconds"])
    rows = [["shape", "what", programs[0], *(f"{kind} (/ ours)" for kind in programs[1:])]]
    for name in sorted(results["shapes"], key=list(SHAPES).index):
        of_shape = results["shapes"][name]
        for what in ("epoch", "scored", "run", "start", "first start", "memory"):
            median = {kind: statistics.median(x[what]) for kind, x in of_shape["seconds"].items() if what in x}
            scale, unit = (1e9, "GB") if what == "memory" else (1.0, "s")
            cells = [f"{median[kind] / scale:.3g} {unit}" if kind in median else "" for kind in programs]
            for i, kind in enumerate(programs[1:], 1):
                cells[i] += f" ({median[kind] / median['ours']:.2f})" if kind in median else ""
            title = f"run of {of_shape['shape']['epochs']} epochs" if what == "run" else what
            rows.append([name, title, *cells])
    return markdown(rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, store and print."""
    parser = timing_parser(__doc__, rounds=5, markdown=False)
    parser.add_argument(
        "--shapes", nargs="+", choices=FULL, default=list(FULL), help="default: all; the results of others stay"
    )
    parser.add_argument("--from-results", action="store_true", help="print the table of the stored results")
    args = parser.parse_args(argv)
    if args.rounds < 1:
        raise InputError(f"--rounds {args.rounds}: must be at least 1")
    if args.from_results:
        if not RESULTS_FILE.exists():
            raise InputError(f"no results in {RESULTS_FILE}; run without --from-results to make them")
        print(table(read_results(RESULTS_FILE, shapes=dict)))
        return
    require_backend()
    os.environ[DEVICE] = common_device()
    names, rounds = (["smoke"], 1) if args.smoke else (args.shapes, args.rounds)
    slow = ("compiled", "reference kept") if args.smoke else ()  # compiling takes longer than all the rest
    programs = [p for p in PROGRAMS if p not in slow]
    results = read_results(RESULTS_FILE, shapes=dict) if RESULTS_FILE.exists() and not args.smoke else {"shapes": {}}
    for name in names:
        where = {**machine(["jax", "jaxlib", "torch", "numpy"]), "device": os.environ[DEVICE]}
        results["shapes"][name] = {"machine": where, **compare(name, rounds, programs)}
        if not args.smoke:
            write_results(RESULTS_FILE, results)
            write_atomically(RESULTS_FILE.with_suffix(".md"), table(results) + "\n")
    print(table(results))


if __name__ == "__main__":
    run_main(main)
