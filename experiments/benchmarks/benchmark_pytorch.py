"""Ours beside PyTorch programs: an epoch, an epoch with its evaluation, whole runs, start-up, peak memory.

python -m experiments.benchmarks.benchmark_pytorch [--shapes wikipedia reduced] [--rounds 5] [--smoke]
python -m experiments.benchmarks.benchmark_pytorch --from-results       # the table from the kept results

Random data of Wikipedia's sizes (2,173 / 231 / 462 pairs, 10 classes) at two shapes: "wikipedia", the paper's 4,096 and
300 features, layers 4096-4096-512, batch 50; "reduced", 128 and 100 features, layers 1024-1024-512, batch 100. "best",
"compiled" and "reference" are those of pytorch_mrl.py. Every program is a process of its own, and they take turns that
change direction; medians. On a GPU, where PyTorch and JAX both see one, all of it runs there.

- epoch: training alone. scored: with mAP of both directions on the validation split.
- run: the paper's protocol, 100 epochs, each scored, and test scores of the best epoch and the last; ours is
  `mrl_jax.train` in memory, with all that it does. At the large shape 2 epochs, as 100 would take all day.
- start: seconds from the command to the end of the first epoch; ours and "compiled" find what they compiled in their
  caches, as from the second start on; "first" compiles it (of ours alone: the other needs minutes).
- memory: the most that a process had that does not keep freed memory, in GB (on a GPU: of the host).

"best", "compiled" and "reference kept" run with glibc told to keep freed memory, without which each step faults its
gradients in again; "reference" runs as it is started. "compiled" needs a C++ compiler. Needs the extra `bench`, and
an hour of an idle machine (2 cores of an AMD EPYC, 2026-11-28).
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from experiments.benchmarks.benchmark_program import DEVICE, PROGRAMS, SHAPES
from experiments.shared.command_line import main_of
from experiments.shared.folders import RESULTS, ROOT
from experiments.shared.machine import KEEP_MEMORY, machine
from experiments.shared.outputs import markdown
from experiments.shared.store import read_results, write_results
from mrl_jax import InputError
from mrl_jax.files import write_whole

RESULTS_FILE = RESULTS / "benchmark_pytorch.json"
KEPT = ("best", "compiled", "reference kept")
"""Programs that keep freed memory; which needs more, so that theirs is that of another process, which does not."""
FULL = tuple(name for name in SHAPES if name != "smoke")


def common_device() -> str:
    """What PyTorch calls the device that both see: cuda, or cpu.

    Raises:
        InputError: one of them is not installed.
    """
    sees = "import jax, torch; print(torch.cuda.is_available() and jax.default_backend() == 'gpu')"
    done = subprocess.run([sys.executable, "-c", sees], capture_output=True, text=True, check=False)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["it ended"])[-1]
        raise InputError(f"PyTorch and JAX cannot both be imported ({why}); pip install -e '.[bench]'")
    return "cuda" if done.stdout.split()[-1] == "True" else "cpu"


# Who starts them and asks


class Server:
    """A program in a process of its own; `started` tells the seconds to the end of its first epoch."""

    def __init__(self, kind: str, shape: str, keep: bool, **environment: str) -> None:
        env = os.environ | (KEEP_MEMORY if keep else {}) | environment
        command = [sys.executable, "-m", "experiments.benchmarks.benchmark_program", kind, shape]
        began = time.perf_counter()
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env, cwd=ROOT, bufsize=1
        )
        self._told("ready")
        self.started = time.perf_counter() - began

    def _told(self, wanted: str = "") -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line or (wanted and line != wanted):
            raise SystemExit(f"a program ended: {' '.join(self._process.args[-2:])}")  # type: ignore[arg-type]
        return line

    def do(self, what: str) -> float:
        """Seconds of it."""
        assert self._process.stdin is not None
        self._process.stdin.write(what + "\n")
        return float(self._told())

    def end(self) -> float:
        """The most memory it had, bytes."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        most = float(self._told())
        self._process.wait()
        return most


def compare(name: str, rounds: int, programs: Sequence[str] = PROGRAMS) -> dict[str, Any]:
    """Seconds of everything, all rounds; program -> what -> list."""
    shape = SHAPES[name]
    found: dict[str, dict[str, list[float]]] = {kind: {} for kind in programs}
    with tempfile.TemporaryDirectory() as cache:
        own = {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        own["TORCHINDUCTOR_CACHE_DIR"] = f"{cache}/inductor"
        for kind in ("ours", "compiled"):
            if kind in programs:
                print(f"{name}: first start of {kind}", file=sys.stderr, flush=True)
                Server(kind, name, kind in KEPT, **own).end()  # fills the cache
        for r in range(rounds):
            for kind in programs if r % 2 else programs[::-1]:
                if kind == "ours":
                    with tempfile.TemporaryDirectory() as empty:
                        first = Server(kind, name, False, **own | {"JAX_COMPILATION_CACHE_DIR": empty})
                        found[kind].setdefault("first start", []).append(first.started)
                        first.end()
                server = Server(kind, name, kind in KEPT, **own)
                found[kind].setdefault("start", []).append(server.started)
                server.end()
            print(f"{name}: start, {r + 1}", file=sys.stderr, flush=True)
        servers = {kind: Server(kind, name, kind in KEPT, **own) for kind in programs}
        for what, commands, repeats in (
            ("epoch", "epoch", rounds),
            ("scored", "epoch score", rounds),
            ("run", "run", shape.repeats),
        ):
            for r in range(repeats + 1):  # the first compiles what is left to compile
                for kind in programs if r % 2 else programs[::-1]:
                    seconds = servers[kind].do(commands)
                    if r:
                        found[kind].setdefault(what, []).append(seconds)
                print(f"{name}: {what}, {r + 1}", file=sys.stderr, flush=True)
        for kind, server in servers.items():
            most = server.end()
            if kind in KEPT:  # which takes more: without
                server = Server(kind, name, False, **own)
                server.do("epoch score run")
                most = server.end()
            found[kind]["memory"] = [most]
    return {"shape": shape._asdict(), "seconds": found}


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    programs = list(next(iter(results["shapes"].values()))["seconds"])
    rows = [["shape", "what", programs[0], *(f"{kind} (/ ours)" for kind in programs[1:])]]
    for name in sorted(results["shapes"], key=list(SHAPES).index):
        found = results["shapes"][name]
        for what in ("epoch", "scored", "run", "start", "first start", "memory"):
            median = {kind: statistics.median(x[what]) for kind, x in found["seconds"].items() if what in x}
            scale, unit = (1e9, "GB") if what == "memory" else (1.0, "s")
            cells = [f"{median[kind] / scale:.3g} {unit}" if kind in median else "" for kind in programs]
            for i, kind in enumerate(programs[1:], 1):
                cells[i] += f" ({median[kind] / median['ours']:.2f})" if kind in median else ""
            told = f"run of {found['shape']['epochs']} epochs" if what == "run" else what
            rows.append([name, told, *cells])
    return markdown(rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, keep and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--shapes", nargs="+", choices=FULL, default=list(FULL), help="default: all; the others keep what they had"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, nothing kept: does it run?")
    parser.add_argument("--from-results", action="store_true", help="print the table of the kept results")
    args = parser.parse_args(argv)
    if args.rounds < 1:
        raise InputError(f"--rounds {args.rounds}: must be at least 1")
    if args.from_results:
        if not RESULTS_FILE.exists():
            raise InputError(f"no results in {RESULTS_FILE}; run without --from-results to make them")
        print(table(read_results(RESULTS_FILE, shapes=dict)))
        return
    os.environ[DEVICE] = common_device()
    names, rounds = (["smoke"], 1) if args.smoke else (args.shapes, args.rounds)
    programs = [
        p for p in PROGRAMS if not (args.smoke and p in ("compiled", "reference kept"))
    ]  # compiling takes longer than all the rest
    kept = read_results(RESULTS_FILE, shapes=dict) if RESULTS_FILE.exists() and not args.smoke else {"shapes": {}}
    for name in names:
        where = {**machine(["jax", "jaxlib", "torch", "numpy"]), "device": os.environ[DEVICE]}
        kept["shapes"][name] = {"machine": where, **compare(name, rounds, programs)}
        if not args.smoke:
            write_results(RESULTS_FILE, kept)
            write_whole(RESULTS_FILE.with_suffix(".md"), table(kept) + "\n")
    print(table(kept))


if __name__ == "__main__":
    main_of(main)
