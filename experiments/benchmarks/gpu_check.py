"""MRL on one GPU: numbers against CPU, times against what the device can do, and against PyTorch.

experiments/gpu_check.sh [--smoke] [--parts PART …] [--limit 460] [--markdown]

Random data of the paper's shapes, layers 4096-4096-512. Every part is a process of its own, so that one that fails or
lacks a package takes no other along; results are kept after each, in experiments/results/gpu_check.json.

- floors: bytes a second of a pass over memory, operations a second of a large product, in every precision.
- parity: steps from one state on this device and on its host's CPU (float32 there), within `PARITY`.
- ours: seconds of an epoch, at every shape, at two of them in every precision. The least time of a step is the larger
  of two: the 40 bytes per parameter that it must move (read for the forward pass, the backward pass and the update,
  gradient written and read, Adam's two moments read and written, parameter written; first layers are not read for the
  backward pass), and the operations of the encoders' products.
- pytorch: the same of the programs of pytorch_mrl.py: "best" (resident data, fused Adam, a step as one CUDA graph,
  whose losses must be those without it) and "reference" (the style of the authors' loop, float32).
- runs: `train`, 100 epochs with scores after each, at every shape; least time and PyTorch's are of the training alone.
- sweep: 20 runs together and one after the other.
- map: mAP of 23,661 queries and as many items, one direction.
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
from experiments.shared.folders import RESULTS, ROOT
from experiments.shared.machine import machine

RESULTS_FILE = RESULTS / "gpu_check.json"
NEEDED = ("jax", "flax", "optax", "orbax.checkpoint")


# What they found


def rows_of(results: dict[str, Any]) -> list[list[str]]:
    """Part, what, found."""
    parts, rows = results["parts"], []

    def found(part: str) -> dict[str, Any]:
        told = {name: x for name, x in parts.get(part, {}).items() if name not in ("device", "best")}
        if why := told.pop("skipped", None) or told.pop("failed", None):
            rows.append([part, "-", why])
        return told

    floor = found("floors")

    def least(shape: Shape, precision: str) -> tuple[float, float]:
        """Seconds that a step needs for memory and for products."""
        return (
            shape.moved / floor["bytes_per_second"],
            shape.operations / floor["operations_per_second"][precision],
        )

    if floor:
        rows.append(["floors", "memory", f"{floor['bytes_per_second'] / 1e9:.4g} GB/s"])
        for name, speed in floor["operations_per_second"].items():
            rows.append(["floors", f"product, {name}", f"{speed / 1e12:.4g} TFLOP/s"])
    for name, told in found("parity").items():
        for precision, x in told.items():
            what = f"loss {x['loss']:.1e} relative, embeddings {x['embedding']:.1e}"
            rows.append(["parity", f"{name}, {precision}", what])
    theirs = found("pytorch")
    if "best" in (told := parts.get("pytorch", {})):
        rows.append(["pytorch", "best", f"{told['best']} on {told['device']}"])
    for name, told in found("ours").items():
        shape = {**SHAPES, **SMOKE}[name]
        for precision, x in told.items():
            step = x["epoch_seconds"] / shape.steps
            what = f"{1e3 * step:.3g} ms a step"
            if floor:
                memory, products = least(shape, precision)
                what += f"; least time {max(memory, products) / step:.2f} of it (memory {memory / step:.2f}"
                what += f", products {products / step:.2f})"
            for program, label in {"best": precision, "reference": "reference"}.items():
                if label in theirs.get(name, {}) and (program == "best" or precision == "float32"):
                    ratio = theirs[name][label]["epoch_seconds"] / x["epoch_seconds"]
                    what += f"; {program} PyTorch / ours {ratio:.2f}"
            rows.append(["step", f"{name}, {precision}", what])
    for name, x in found("runs").items():
        shape, what = {**SHAPES, **SMOKE}[name], f"{x['seconds']:.3g} s"
        if floor:
            what += f"; least time {x['epochs'] * shape.steps * max(least(shape, 'float32')) / x['seconds']:.2f} of it"
        if "float32" in theirs.get(name, {}):
            ratio = x["epochs"] * theirs[name]["float32"]["epoch_seconds"] / x["seconds"]
            what += f"; training alone by the best PyTorch / ours {ratio:.2f}"
        rows.append(["runs", f"{name}, {x['epochs']} epochs", what])
    if "apart" in (x := found("sweep")):
        what = f"together {x['together']:.3g} s, apart {x['apart']:.3g} s"
        rows.append(["sweep", f"{x['runs']} runs, {x['epochs']} epochs", what])
    if x := found("map"):
        rows.append(["map", f"{x['queries']:,} x {x['queries']:,}", f"{1e3 * x['seconds']:.3g} ms"])
    if x := found("contrastive"):
        what = f"{1e3 * x['seconds']:.3g} ms, {x['temporary_bytes'] / 1e6:.4g} MB"
        rows.append(["contrastive", f"{x['instances']:,} instances", what])
    return rows


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    rows = [["part", "of", results["device"]], ["---"] * 3, *rows_of(results)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


# Driving


def run_part(name: str, smoke: bool, limit: float) -> dict[str, Any]:
    """Run a part in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "experiments.benchmarks.gpu_check",
        "--part",
        name,
        *(["--smoke"] if smoke else []),
    ]
    failed, env = {}, dict(os.environ)
    if (platforms := env.get("JAX_PLATFORMS", "")) and "cpu" not in platforms.split(","):
        env["JAX_PLATFORMS"] = f"{platforms},cpu"  # whose numbers are compared, and where states are drawn
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env, cwd=ROOT) as process:
        try:
            told, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            process.kill()
            told, _ = process.communicate()
            failed = {"failed": f"took longer than {limit:.0f} s"}
    if process.returncode and not failed:
        failed = {"failed": f"exit code {process.returncode}"}
    for line in reversed(told.splitlines()):  # libraries may have printed, too
        try:
            kept = json.loads(line)
        except ValueError:
            continue
        if isinstance(kept, dict):
            return kept | failed
    return failed or {"failed": "it told nothing"}


def child(name: str, smoke: bool) -> dict[str, Any]:
    """A part, in this process."""
    try:
        return PARTS[name][0](smoke)
    except ModuleNotFoundError as error:
        return {"skipped": f"needs {error.name}, which is not installed"}


def main() -> None:
    """Run the parts, keep and print what they found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--limit", type=float, default=460, help="seconds for all parts")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, nothing kept: does it run?")
    parser.add_argument("--markdown", action="store_true", help="print the table of the kept results")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        print(json.dumps(child(args.part, args.smoke)))
        return
    if args.markdown:
        print(table(json.loads(RESULTS_FILE.read_text("utf-8"))))
        return
    if missing := [name for name in NEEDED if not has(name)]:
        sys.exit(f"{sys.executable} has no {', '.join(missing)}: install the package first, or set PYTHON")
    ask = "import jax; d = jax.devices()[0]; print(d.platform, d.device_kind, sep='|')"
    platform, device = subprocess.check_output([sys.executable, "-c", ask], text=True).strip().split("|")
    if platform == "cpu" and not args.smoke:
        sys.exit("no accelerator is visible to JAX: `--smoke` runs tiny sizes on a CPU")
    versions = machine([p for p in ("jax", "jaxlib", "flax", "optax", "torch") if has(p)])
    results: dict[str, Any] = {"device": device, "machine": versions, "parts": {}}
    if not args.smoke and RESULTS_FILE.exists():  # parts that are not run again stay, of the same device
        kept = json.loads(RESULTS_FILE.read_text("utf-8"))
        results["parts"] = kept["parts"] if kept["device"] == device else {}
    started = time.monotonic()
    for name in args.parts:
        left = args.limit - (time.monotonic() - started)
        if left < 5:
            results["parts"][name] = {"failed": "no time was left"}
        else:
            results["parts"][name] = run_part(name, args.smoke, min(left, PARTS[name][1]))
        print(f"{name}: done, {time.monotonic() - started:.0f} s in all", file=sys.stderr, flush=True)
        if not args.smoke:
            RESULTS_FILE.parent.mkdir(exist_ok=True)
            RESULTS_FILE.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(table(results))
    if failed := [name for name, told in results["parts"].items() if "failed" in told]:
        sys.exit(f"failed: {', '.join(failed)}")


def has(name: str) -> bool:
    """Whether a package can be imported."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


if __name__ == "__main__":
    main()
