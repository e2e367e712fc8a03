"""The contrastive loss of large batches, value and gradient: seconds and memory of four forms.

python -m experiments.benchmarks.contrastive_timings [--smoke] [--parts forms devices large]
python -m experiments.benchmarks.contrastive_timings --markdown  # the stored results

- "official": sums of exponentials over the whole matrix of similarities, as in the official implementation.
- "dense": the same with masked logits and the maximum subtracted, as padded batches and small temperatures need.
- "tiles": `mrl_jax.losses.contrastive.contrastive_loss`.
- on 8 devices: "ring" is "tiles" with embeddings passed from device to device; "gathered" is "dense" with the rows of
  each device against all embeddings.

Two modalities, 512 dimensions. Memory is that of the temporary arrays of the compiled program, per device, as XLA
reports it. The forms take turns; the order changes direction from round to round. `large` runs one batch of 65,536 in a
process of its own. Needs Linux; about 10 minutes on 2 idle CPU cores. Results:
experiments/results/contrastive_timings.json.
"""

import argparse
import json
import os
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, PartitionSpec

from experiments.shared.command_line import run_main
from experiments.shared.folders import RESULTS
from experiments.shared.machine import machine
from experiments.shared.tables import markdown
from experiments.shared.timings import log, read_numbers, run_module, seconds_of, timing_parser, turns, write_parts
from mrl_jax.losses.contrastive import contrastive_loss

RESULTS_FILE = RESULTS / "contrastive_timings.json"
PARTS = ("forms", "devices", "large")
MODALITIES, DIMENSIONS, DEVICES = 2, 512, 8
SIZES = {50: 41, 100: 41, 512: 21, 2048: 7, 8192: 3}  # instances -> rounds
ON_DEVICES = (8192, 16384, 32768, 65536, 131072, 1048576)  # instances of the global batch; only compiled
DENSE_UP_TO = 32768  # larger batches take too long to compile
LARGE = 65_536


def official(z: jax.Array, mask: jax.Array) -> jax.Array:
    """As in the official implementation, which has no mask and assumes a temperature near 1."""
    m, b, dim = z.shape
    rows = z.reshape(m * b, dim)
    e = jnp.exp(rows @ rows.T)
    e = e - jnp.diag(jnp.diagonal(e))
    positive = e.reshape(m, b, m, b).diagonal(axis1=1, axis2=3).sum(axis=1)
    return -jnp.log(positive / e.sum(axis=1).reshape(m, b))


def dense(z: jax.Array, mask: jax.Array, others: jax.Array | None = None, first: Any = 0) -> jax.Array:
    """Masked logits of the rows z [M, B, L] against all `others` [M, N, L]; z is `others[:, first : first + B]`."""
    others = z if others is None else others
    counts = mask if others is z else jnp.ones(others.shape[:2], bool)
    (m, b, _), n = z.shape, others.shape[1]
    logits = jnp.einsum("ijd,ltd->ijlt", z, others)
    same = (first + jnp.arange(b))[:, None] == jnp.arange(n)[None]
    itself = jnp.eye(m, dtype=bool)[:, None, :, None] & same[None, :, None, :]
    logits = jnp.where(counts[None, None] & ~itself, logits, -jnp.inf)
    positive = jnp.where(same[None, :, None, :], logits, -jnp.inf)
    losses = jax.nn.logsumexp(logits, axis=(2, 3)) - jax.nn.logsumexp(positive, axis=(2, 3))
    return jnp.where(mask, losses, 0)


def tiles(z: jax.Array, mask: jax.Array) -> jax.Array:
    """The loss of mrl_jax, which computes similarities tile by tile."""
    return contrastive_loss(z, 1.0, mask)


# "program" is the key of "official" in the file of results.
FORMS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {"program": official, "dense": dense, "tiles": tiles}


def embeddings(n: int) -> tuple[jax.Array, jax.Array]:
    """Unit rows [M, N, L], and a mask of ones [M, N]."""
    z = np.random.default_rng(0).standard_normal((MODALITIES, n, DIMENSIONS), np.float32)
    return jnp.asarray(z / np.linalg.norm(z, axis=-1, keepdims=True)), jnp.ones((MODALITIES, n), bool)


def value_and_gradient(form: Callable[..., jax.Array]) -> Any:
    """Value and gradient of the sum, compiled on call."""
    return jax.jit(jax.value_and_grad(lambda z, mask: form(z, mask).sum()))


def forms(n: int, rounds: int) -> dict[str, dict[str, Any]]:
    """Seconds and temporary bytes of every form."""
    z, mask = embeddings(n)
    results: dict[str, dict[str, Any]] = {}
    compiled = {name: value_and_gradient(form).lower(z, mask).compile() for name, form in FORMS.items()}
    for name, run in compiled.items():
        results[name] = {"bytes": run.memory_analysis().temp_size_in_bytes, "seconds": []}
        results[name]["value"] = float(run(z, mask)[0])
    for _, name in turns(compiled, rounds):
        seconds = seconds_of(lambda run=compiled[name]: jax.block_until_ready(run(z, mask)))
        results[name]["seconds"].append(seconds)
    for x in results.values():
        x["median"] = statistics.median(x["seconds"])
    log(f"  {n}: " + ", ".join(f"{k} {1e3 * x['median']:.3g} ms {x['bytes'] / 1e6:.4g} MB" for k, x in results.items()))
    return results


def devices(n: int) -> dict[str, int]:
    """Temporary bytes per device for a global batch; the program is compiled, not run."""
    mesh = jax.make_mesh((DEVICES,), ("batch",), axis_types=(AxisType.Auto,))
    spec = PartitionSpec(None, "batch")

    def ring(z: jax.Array, mask: jax.Array) -> jax.Array:
        return contrastive_loss(z, 1.0, mask, axis_name="batch")

    def gathered(z: jax.Array, mask: jax.Array) -> jax.Array:
        everything = jax.lax.all_gather(z, "batch", axis=1, tiled=True)
        return dense(z, mask, everything, jax.lax.axis_index("batch") * z.shape[1])

    shapes = jax.ShapeDtypeStruct((MODALITIES, n, DIMENSIONS), np.float32), jax.ShapeDtypeStruct((MODALITIES, n), bool)
    sizes = {}
    for name, local in {"ring": ring, "gathered": gathered}.items():
        if name == "gathered" and n > DENSE_UP_TO:
            continue
        sharded = jax.shard_map(local, mesh=mesh, in_specs=(spec, spec), out_specs=spec)
        sizes[name] = value_and_gradient(sharded).lower(*shapes).compile().memory_analysis().temp_size_in_bytes
    log(f"  {n} on {DEVICES} devices: " + ", ".join(f"{k} {v / 1e6:.4g} MB" for k, v in sizes.items()))
    return sizes


def large(n: int) -> dict[str, Any]:
    """One value and gradient of a very large batch: seconds, and peak memory of this process."""
    z, mask = embeddings(n)
    started = time.perf_counter()
    value, gradient = value_and_gradient(tiles)(z, mask)
    jax.block_until_ready(gradient)
    # Not ru_maxrss: a process inherits it from its parent.
    peak = int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024
    return {"instances": n, "seconds": time.perf_counter() - started, "peak_bytes": peak, "value": float(value)}


def child(part: str, n: int) -> dict[str, Any]:
    """Run a part in a process of its own."""
    flags = os.environ.get("XLA_FLAGS", "") + f" --xla_force_host_platform_device_count={DEVICES}"
    environment = {**os.environ, "XLA_FLAGS": flags} if part == "devices" else dict(os.environ)
    return run_module("experiments.benchmarks.contrastive_timings", "--child", part, str(n), environment=environment)


def tables(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    blocks = []
    if "forms" in results:
        rows = [["instances", "official", "dense", "tiles", "dense / tiles"]]
        for n, x in results["forms"].items():
            cells = [f"{1e3 * x[f]['median']:,.3g} ms, {x[f]['bytes'] / 1e6:,.4g} MB" for f in FORMS]
            ratio = ", ".join(f"{x['dense'][k] / x['tiles'][k]:.2g}x" for k in ("median", "bytes"))
            rows.append([f"{int(n):,}", *cells, ratio])
        blocks.append(markdown(rows))
    if "devices" in results:
        rows = [[f"instances, {DEVICES} devices", "ring", "gathered", "ratio"]]
        for n, x in results["devices"].items():
            cells = [f"{x['ring'] / 1e6:,.4g} MB", "", ""]
            if "gathered" in x:
                cells[1:] = [f"{x['gathered'] / 1e6:,.4g} MB", f"{x['gathered'] / x['ring']:.3g}x"]
            rows.append([f"{int(n):,}", *cells])
        blocks.append(markdown(rows))
    if x := results.get("large"):
        blocks.append(f"{x['instances']:,} instances: {x['seconds']:.0f} s, peak {x['peak_bytes'] / 1e9:.2f} GB")
    return "\n\n".join(blocks)


def main() -> None:
    """Measure, store and print."""
    parser = timing_parser(__doc__, parts=PARTS)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps({"devices": devices, "large": large}[args.child[0]](int(args.child[1]))))
        return
    if args.markdown:
        print(tables(read_numbers(RESULTS_FILE)))
        return
    results: dict[str, Any] = {"machine": {part: machine(("jax", "numpy")) for part in args.parts}}
    if "forms" in args.parts:
        sizes = {64: 3} if args.smoke else SIZES
        results["forms"] = {str(n): forms(n, rounds) for n, rounds in sizes.items()}
    if "devices" in args.parts:
        results["devices"] = {str(n): child("devices", n) for n in ((64,) if args.smoke else ON_DEVICES)}
    if "large" in args.parts:
        results["large"] = child("large", 256 if args.smoke else LARGE)
    print(tables(results))
    if not args.smoke:
        write_parts(RESULTS_FILE, results)


if __name__ == "__main__":
    run_main(main)
