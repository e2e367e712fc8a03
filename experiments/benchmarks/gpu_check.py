"""MRL on one GPU: numbers against the CPU, times against the limits of the device and against PyTorch.

bash experiments/gpu_check.sh [--smoke] [--parts PART …] [--limit 460] [--markdown]

Random data of the paper's shapes, layers 4096-4096-512. Every part is a process of its own, so that a part that fails
or lacks a package does not stop the others. Results are stored after each part, in experiments/results/gpu_check.json.

- floors: bytes per second of a pass over memory, operations per second of a large product, in every precision.
- parity: steps from one state on this device and on the CPU of its host (there in float32), within `PARITY`.
- ours: seconds of an epoch at every shape, at two of them in every precision. The least time of a step is the larger of
  the times for two things: the 40 bytes per parameter that it must move (parameters read for the forward pass, the
  backward pass and the update, and written; gradient written and read; both moments of Adam read and written; first
  layers are not read for the backward pass), and the operations of the encoders' products.
- pytorch: the same for the programs of pytorch_mrl.py: "best" (resident data, fused Adam, a step as one CUDA graph,
  with the same losses as without the graph) and "reference" (the style of the official implementation, float32).
- runs: `train`, 100 epochs with scores after each, at every shape; the least time and the time of PyTorch are those of
  the training alone.
- sweep: 20 runs together, and one after the other.
- map: mAP of 23,661 queries against 23,661 items, one direction.
- contrastive: value and gradient of the contrastive loss at 65,536 instances.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from typing import Any

from experiments.benchmarks.gpu_parts import PARTS, SHAPES, SMOKE, Shape
from experiments.shared.command_line import require_backend, run_main
from experiments.shared.folders import RESULTS, ROOT
from experiments.shared.machine import machine
from experiments.shared.tables import markdown
from experiments.shared.timings import log, read_numbers, timing_parser, write_numbers
from mrl_jax import InputError

RESULTS_FILE = RESULTS / "gpu_check.json"
NEEDED = ("jax", "flax", "optax", "orbax.checkpoint")


def rows_of(results: dict[str, Any]) -> list[list[str]]:
    """Rows of the table: part, what was measured, numbers."""
    parts, rows = results["parts"], []

    def numbers_of(part: str) -> dict[str, Any]:
        numbers = {name: x for name, x in parts.get(part, {}).items() if name not in ("device", "best")}
        if reason := numbers.pop("skipped", None) or numbers.pop("failed", None):
            rows.append([part, "-", reason])
        return numbers

    floor = numbers_of("floors")

    def least(shape: Shape, precision: str) -> tuple[float, float]:
        """Least seconds of a step for memory, and for products."""
        return (
            shape.moved / floor["bytes_per_second"],
            shape.operations / floor["operations_per_second"][precision],
        )

    if floor:
        rows.append(["floors", "memory", f"{floor['bytes_per_second'] / 1e9:.4g} GB/s"])
        for name, speed in floor["operations_per_second"].items():
            rows.append(["floors", f"product, {name}", f"{speed / 1e12:.4g} TFLOP/s"])
    for name, numbers in numbers_of("parity").items():
        for precision, x in numbers.items():
            what = f"loss {x['loss']:.1e} relative, embeddings {x['embedding']:.1e}"
            rows.append(["parity", f"{name}, {precision}", what])
    pytorch = numbers_of("pytorch")
    if "best" in (programs := parts.get("pytorch", {})):
        rows.append(["pytorch", "best", f"{programs['best']} on {programs['device']}"])
    for name, numbers in numbers_of("ours").items():
        shape = {**SHAPES, **SMOKE}[name]
        for precision, x in numbers.items():
            step = x["epoch_seconds"] / shape.steps
            what = f"{1e3 * step:.3g} ms a step"
            if floor:
                memory, products = least(shape, precision)
                what += f"; least time {max(memory, products) / step:.2f} of it (memory {memory / step:.2f}"
                what += f", products {products / step:.2f})"
            for program, label in {"best": precision, "reference": "reference"}.items():
                if label in pytorch.get(name, {}) and (program == "best" or precision == "float32"):
                    ratio = pytorch[name][label]["epoch_seconds"] / x["epoch_seconds"]
                    what += f"; {program} PyTorch / ours {ratio:.2f}"
            rows.append(["step", f"{name}, {precision}", what])
    for name, x in numbers_of("runs").items():
        shape, what = {**SHAPES, **SMOKE}[name], f"{x['seconds']:.3g} s"
        if floor:
            what += f"; least time {x['epochs'] * shape.steps * max(least(shape, 'float32')) / x['seconds']:.2f} of it"
        if "float32" in pytorch.get(name, {}):
            ratio = x["epochs"] * pytorch[name]["float32"]["epoch_seconds"] / x["seconds"]
            what += f"; training alone by the best PyTorch / ours {ratio:.2f}"
        rows.append(["runs", f"{name}, {x['epochs']} epochs", what])
    if "apart" in (x := numbers_of("sweep")):
        what = f"together {x['together']:.3g} s, apart {x['apart']:.3g} s"
        rows.append(["sweep", f"{x['runs']} runs, {x['epochs']} epochs", what])
    if x := numbers_of("map"):
        rows.append(["map", f"{x['queries']:,} x {x['queries']:,}", f"{1e3 * x['seconds']:.3g} ms"])
    if x := numbers_of("contrastive"):
        what = f"{1e3 * x['seconds']:.3g} ms, {x['temporary_bytes'] / 1e6:.4g} MB"
        rows.append(["contrastive", f"{x['instances']:,} instances", what])
    return rows


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    return markdown([["part", "of", results["device"]], *rows_of(results)])


def run_part(name: str, smoke: bool, limit: float) -> dict[str, Any]:
    """Run a part in a process of its own; returns its last numbers, and "failed" with the reason if it failed."""
    command = [sys.executable, "-m", "experiments.benchmarks.gpu_check", "--part", name]
    command += ["--smoke"] if smoke else []
    failed, env = {}, dict(os.environ)
    if (platforms := env.get("JAX_PLATFORMS", "")) and "cpu" not in platforms.split(","):
        env["JAX_PLATFORMS"] = f"{platforms},cpu"  # states are initialised on the CPU, and compared with it
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env, cwd=ROOT) as process:
        try:
            printed, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            process.kill()
            printed, _ = process.communicate()
            failed = {"failed": f"took longer than {limit:.0f} s"}
    if process.returncode and not failed:
        failed = {"failed": f"exit code {process.returncode}"}
    for line in reversed(printed.splitlines()):  # libraries may print other lines
        try:
            numbers = json.loads(line)
        except ValueError:
            continue
        if isinstance(numbers, dict):
            return numbers | failed
    return failed or {"failed": "it printed no numbers"}


def child(name: str, smoke: bool) -> dict[str, Any]:
    """Run a part in this process."""
    try:
        return PARTS[name][0](smoke)
    except ModuleNotFoundError as error:
        return {"skipped": f"needs {error.name}, which is not installed"}


def main() -> None:
    """Run the parts, store and print their numbers."""
    parser = timing_parser(__doc__, parts=tuple(PARTS))
    parser.add_argument("--limit", type=float, default=460, help="seconds for all parts; default: 460")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        print(json.dumps(child(args.part, args.smoke)))
        return
    if args.markdown:
        print(table(read_numbers(RESULTS_FILE)))
        return
    if missing := [name for name in NEEDED if not has(name)]:
        raise InputError(
            f"{sys.executable} has no {', '.join(missing)}; run pip install -e . in the clone, or set PYTHON"
        )
    require_backend()
    query = "import jax; d = jax.devices()[0]; print(d.platform, d.device_kind, sep='|')"
    platform, device = subprocess.check_output([sys.executable, "-c", query], text=True).strip().split("|")
    if platform == "cpu" and not args.smoke:
        sys.exit("no accelerator is visible to JAX: `--smoke` runs tiny sizes on a CPU")
    versions = machine([p for p in ("jax", "jaxlib", "flax", "optax", "torch") if has(p)])
    results: dict[str, Any] = {"device": device, "machine": versions, "parts": {}}
    if not args.smoke and RESULTS_FILE.exists():  # other parts stay, if they are of the same device
        stored = read_numbers(RESULTS_FILE)
        results["parts"] = stored["parts"] if stored["device"] == device else {}
    started = time.monotonic()
    for name in args.parts:
        left = args.limit - (time.monotonic() - started)
        if left < 5:
            results["parts"][name] = {"failed": "no time was left"}
        else:
            results["parts"][name] = run_part(name, args.smoke, min(left, PARTS[name][1]))
        log(f"{name}: done, {time.monotonic() - started:.0f} s in all")
        if not args.smoke:
            write_numbers(RESULTS_FILE, results)
    print(table(results))
    if failed := [name for name, numbers in results["parts"].items() if "failed" in numbers]:
        sys.exit(f"failed: {', '.join(failed)}")


def has(name: str) -> bool:
    """Whether a package can be imported."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


if __name__ == "__main__":
    run_main(main)
