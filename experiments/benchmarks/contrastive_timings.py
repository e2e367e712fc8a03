"""The contrastive loss of large batches, value and gradient: seconds and memory of four forms.

python -m experiments.benchmarks.contrastive_timings [--smoke] [--parts forms devices large]
python -m experiments.benchmarks.contrastive_timings --markdown  # the kept results

- "program": the sums of exponentials as the authors' program writes them, over the whole matrix of similarities.
- "dense": the same over masked logits less their maximum, which padded batches and small temperatures need.
- "tiles": `mrl_jax.losses.mrl.contrastive_loss`.
- on 8 devices: "ring", the same with embeddings that go round, and "gathered", each device's rows of the dense form
  against all embeddings.

Two modalities, 512 dimensions. Memory is XLA's own account of a compiled program's temporary arrays, per device. Forms
take turns that change direction. `large` runs one batch of 65,536 in a fresh process. Needs Linux; about 10 minutes on
2 idle CPU cores. Results go to experiments/results/contrastive_timings.json.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, PartitionSpec

from experiments.shared.folders import RESULTS, ROOT
from experiments.shared.machine import machine
from mrl_jax.losses.mrl import contrastive_loss

RESULTS_FILE = RESULTS / "contrastive_timings.json"
PARTS = ("forms", "devices", "large")
MODALITIES, DIMENSIONS, DEVICES = 2, 512, 8
SIZES = {50: 41, 100: 41, 512: 21, 2048: 7, 8192: 3}  # instances -> rounds
ON_DEVICES = (8192, 16384, 32768, 65536, 131072, 1048576)  # instances of the global batch; only compiled
DENSE_UP_TO = 32768  # its compiled program is not worth waiting for beyond
LARGE = 65_536
progress = partial(print, file=sys.stderr, flush=True)


def program(z: jax.Array, mask: jax.Array) -> jax.Array:
    """As the authors' program does it; it knows no mask and no temperature far from 1."""
    m, b, dim = z.shape
    rows = z.reshape(m * b, dim)
    e = jnp.exp(rows @ rows.T)
    e = e - jnp.diag(jnp.diagonal(e))
    positive = e.reshape(m, b, m, b).diagonal(axis1=1, axis2=3).sum(axis=1)
    return -jnp.log(positive / e.sum(axis=1).reshape(m, b))


def dense(z: jax.Array, mask: jax.Array, others: jax.Array | None = None, first: Any = 0) -> jax.Array:
    """Masked logits of these rows [M, B, L] against all `others` [M, N, L], of which they are B from `first` on."""
    others = z if others is None else others
    counts = mask if others is z else jnp.ones(others.shape[:2], bool)
    (m, b, _), n = z.shape, others.shape[1]
    logits = jnp.einsum("ijd,ltd->ijlt", z, others)
    same = (first + jnp.arange(b))[:, None] == jnp.arange(n)[None]
    itself = jnp.eye(m, dtype=bool)[:, None, :, None] & same[None, :, None, :]
    logits = jnp.where(counts[None, None] & ~itself, logits, -jnp.inf)
    positive = jnp.where(same[None, :, None, :], logits, -jnp.inf)
    terms = jax.nn.logsumexp(logits, axis=(2, 3)) - jax.nn.logsumexp(positive, axis=(2, 3))
    return jnp.where(mask, terms, 0)


def tiles(z: jax.Array, mask: jax.Array) -> jax.Array:
    """Ours."""
    return contrastive_loss(z, 1.0, mask)


FORMS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {"program": program, "dense": dense, "tiles": tiles}


def embeddings(n: int) -> tuple[jax.Array, jax.Array]:
    """Unit rows [M, N, L], and a mask of ones [M, N]."""
    z = np.random.default_rng(0).standard_normal((MODALITIES, n, DIMENSIONS), np.float32)
    return jnp.asarray(z / np.linalg.norm(z, axis=-1, keepdims=True)), jnp.ones((MODALITIES, n), bool)


def slope(form: Callable[..., jax.Array]) -> Any:
    """Value and gradient of the sum, compiled on call."""
    return jax.jit(jax.value_and_grad(lambda z, mask: form(z, mask).sum()))


def forms(n: int, rounds: int) -> dict[str, dict[str, Any]]:
    """Seconds and temporary bytes of every form."""
    z, mask = embeddings(n)
    told: dict[str, dict[str, Any]] = {}
    compiled = {name: slope(form).lower(z, mask).compile() for name, form in FORMS.items()}
    for name, run in compiled.items():
        told[name] = {"bytes": run.memory_analysis().temp_size_in_bytes, "seconds": []}
        told[name]["value"] = float(run(z, mask)[0])
    for turn in range(rounds):
        for name in list(compiled)[:: -1 if turn % 2 else 1]:
            started = time.perf_counter()
            jax.block_until_ready(compiled[name](z, mask))
            told[name]["seconds"].append(time.perf_counter() - started)
    for x in told.values():
        x["median"] = statistics.median(x["seconds"])
    progress(
        f"  {n}: " + ", ".join(f"{k} {1e3 * x['median']:.3g} ms {x['bytes'] / 1e6:.4g} MB" for k, x in told.items())
    )
    return told


def devices(n: int) -> dict[str, int]:
    """Temporary bytes per device of a global batch; nothing is run."""
    mesh = jax.make_mesh((DEVICES,), ("batch",), axis_types=(AxisType.Auto,))
    spec = PartitionSpec(None, "batch")

    def ring(z: jax.Array, mask: jax.Array) -> jax.Array:
        return contrastive_loss(z, 1.0, mask, axis_name="batch")

    def gathered(z: jax.Array, mask: jax.Array) -> jax.Array:
        everything = jax.lax.all_gather(z, "batch", axis=1, tiled=True)
        return dense(z, mask, everything, jax.lax.axis_index("batch") * z.shape[1])

    shapes = jax.ShapeDtypeStruct((MODALITIES, n, DIMENSIONS), np.float32), jax.ShapeDtypeStruct((MODALITIES, n), bool)
    told = {}
    for name, local in {"ring": ring, "gathered": gathered}.items():
        if name == "gathered" and n > DENSE_UP_TO:
            continue
        sharded = jax.shard_map(local, mesh=mesh, in_specs=(spec, spec), out_specs=spec)
        told[name] = slope(sharded).lower(*shapes).compile().memory_analysis().temp_size_in_bytes
    progress(f"  {n} on {DEVICES} devices: " + ", ".join(f"{k} {v / 1e6:.4g} MB" for k, v in told.items()))
    return told


def large(n: int) -> dict[str, Any]:
    """One value and gradient of a very large batch, in this process: seconds, and the peak of its memory."""
    z, mask = embeddings(n)
    started = time.perf_counter()
    value, gradient = slope(tiles)(z, mask)
    jax.block_until_ready(gradient)
    # Not ru_maxrss, which a process inherits from the one that started it.
    peak = int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024
    return {"instances": n, "seconds": time.perf_counter() - started, "peak_bytes": peak, "value": float(value)}


def child(part: str, n: int) -> dict[str, Any]:
    """Run a part in a fresh process."""
    flags = os.environ.get("XLA_FLAGS", "") + f" --xla_force_host_platform_device_count={DEVICES}"
    env = {**os.environ, "XLA_FLAGS": flags} if part == "devices" else dict(os.environ)
    command = [sys.executable, "-m", "experiments.benchmarks.contrastive_timings", "--child", part, str(n)]
    return json.loads(subprocess.run(command, env=env, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout)


def markdown(told: dict[str, Any]) -> str:
    """Tables for the docs."""
    lines = []
    if "forms" in told:
        lines += ["| instances | program | dense | tiles | dense / tiles |", "|---|---|---|---|---|"]
        for n, x in told["forms"].items():
            cells = [f"{1e3 * x[f]['median']:,.3g} ms, {x[f]['bytes'] / 1e6:,.4g} MB" for f in FORMS]
            ratio = (x["dense"][k] / x["tiles"][k] for k in ("median", "bytes"))
            cells.append(", ".join(f"{r:.2g}x" for r in ratio))
            lines.append(f"| {int(n):,} | {' | '.join(cells)} |")
        lines.append("")
    if "devices" in told:
        lines += [f"| instances, {DEVICES} devices | ring | gathered | ratio |", "|---|---|---|---|"]
        for n, x in told["devices"].items():
            cells = [f"{x['ring'] / 1e6:,.4g} MB", "", ""]
            if "gathered" in x:
                cells[1:] = [f"{x['gathered'] / 1e6:,.4g} MB", f"{x['gathered'] / x['ring']:.3g}x"]
            lines.append(f"| {int(n):,} | {' | '.join(cells)} |")
        lines.append("")
    if "large" in told:
        x = told["large"]
        lines.append(f"{x['instances']:,} instances: {x['seconds']:.0f} s, peak {x['peak_bytes'] / 1e9:.2f} GB")
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and keep the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="default: all")
    parser.add_argument("--smoke", action="store_true", help="small sizes, to see that all works; nothing is kept")
    parser.add_argument("--markdown", action="store_true", help="print the tables of the kept results instead")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps({"devices": devices, "large": large}[args.child[0]](int(args.child[1]))))
        return
    if args.markdown:
        print(markdown(json.loads(RESULTS_FILE.read_text("utf-8"))))
        return
    told: dict[str, Any] = {"machine": {part: machine(("jax", "numpy")) for part in args.parts}}
    if "forms" in args.parts:
        sizes = {64: 3} if args.smoke else SIZES
        told["forms"] = {str(n): forms(n, rounds) for n, rounds in sizes.items()}
    if "devices" in args.parts:
        told["devices"] = {str(n): child("devices", n) for n in ((64,) if args.smoke else ON_DEVICES)}
    if "large" in args.parts:
        told["large"] = child("large", 256 if args.smoke else LARGE)
    print(markdown(told))
    if not args.smoke:  # a part that was left out stays as it was
        kept = json.loads(RESULTS_FILE.read_text("utf-8")) if RESULTS_FILE.exists() else {"machine": {}}
        told = {**kept, **told, "machine": {**kept["machine"], **told["machine"]}}
        RESULTS_FILE.write_text(json.dumps(told, indent=2) + "\n", "utf-8")
        print(f"written to {RESULTS_FILE}")


if __name__ == "__main__":
    main()
