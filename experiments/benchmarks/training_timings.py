"""A training epoch of ours beside two PyTorch programs, and what its floating-point operations need at least.

python -m experiments.benchmarks.training_timings [--smoke] [--batch-sizes 50 100 500] [--rounds 5]
python -m experiments.benchmarks.training_timings --markdown  # the kept results

Random data of Wikipedia's shape: 2,173 pairs of 4,096 and 300 features, layers 4096-4096-512, 10 classes, float32.
"best" and "reference" are those of pytorch_mrl.py. Programs take turns that change direction; medians, after one round
to compile. The least time: the operations of the encoders' products over the machine's fastest product of two
2048 x 2048 matrices, measured beside each round, of JAX or PyTorch. The process is told to keep freed memory
(`machine.KEEP_MEMORY`), without which PyTorch faults its gradients in again at every step, a fourth of its time. About
8 minutes on 2 idle CPU cores; needs the extra `bench`. Results go to experiments/results/training_timings.json.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import torch

from experiments.benchmarks.pytorch_mrl import Best, Model, Reference
from experiments.shared.folders import RESULTS
from experiments.shared.machine import keep_memory, machine
from mrl_jax.training.placement import epoch_program
from mrl_jax.training.train_step import Recipe, TrainData, init_state

RESULTS_FILE = RESULTS / "training_timings.json"
OBJECTIVE = (0.7, 1.0, 1.0)
PROGRAMS = ("ours", "best", "reference")


def compare(n: int, dims: tuple[int, ...], hidden: tuple[int, ...], batch_size: int, rounds: int) -> dict[str, object]:
    """Seconds per epoch of each program, all rounds, and billions of operations a second of the fastest product."""
    rng, classes, embed_dim = np.random.default_rng(0), 10, 512
    features = [rng.normal(size=(n, d)).astype(np.float32) for d in dims]
    labels = rng.integers(0, classes, (len(dims), n)).astype(np.int32)
    recipe = Recipe(beta=OBJECTIVE[0], hidden_dims=hidden, embed_dim=embed_dim, batch_size=batch_size)
    state = jax.jit(init_state, static_argnums=(2, 3))(recipe, jax.random.key(0), dims, classes)
    data, key, program = (
        TrainData(tuple(map(jnp.asarray, features)), jnp.asarray(labels)),
        jax.random.key(1),
        epoch_program(None),
    )

    def ours(epoch: int) -> None:
        nonlocal state
        state, metrics, _ = program(state, data, key, epoch, recipe)
        jax.block_until_ready(metrics)

    runs: dict[str, Callable[[int], object]] = {"ours": ours}
    for name, kind in (("best", Best), ("reference", Reference)):
        theirs = kind(Model(dims, hidden, embed_dim, classes), features, labels, batch_size, 1e-4, OBJECTIVE)
        runs[name] = lambda _, theirs=theirs: theirs.epoch()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    products = []
    for r in range(rounds + 1):
        products.append(fastest_product())
        for name in list(runs) if r % 2 else list(runs)[::-1]:
            started = time.perf_counter()
            runs[name](r)
            if r:
                seconds[name].append(time.perf_counter() - started)
    weights = [(d * hidden[0], *(a * b for a, b in zip(hidden, (*hidden[1:], embed_dim), strict=True))) for d in dims]
    operations = n * sum(2 * (3 * sum(w) - w[0]) for w in weights)  # features need no gradient
    return {"seconds": seconds, "operations": operations, "product": products}


def fastest_product(size: int = 2048) -> float:
    """Operations a second of a product of two square float32 matrices."""
    a = np.random.default_rng(0).normal(size=(size, size)).astype(np.float32)
    ours, theirs, product = jnp.asarray(a), torch.tensor(a), jax.jit(lambda a: a @ a)
    product(ours).block_until_ready()
    taken = []
    for _ in range(5):
        for f in (lambda: product(ours).block_until_ready(), lambda: theirs @ theirs):
            started = time.perf_counter()
            f()
            taken.append(time.perf_counter() - started)
    return 2 * size**3 / min(taken)


def table(results: dict) -> str:
    """The results as Markdown."""
    heads = ["batch", *PROGRAMS, "best / ours", "reference / ours", "least time / ours"]
    rows = [heads, ["---"] * len(heads)]
    for batch_size, found in results["batches"].items():
        median = {name: statistics.median(found["seconds"][name]) for name in PROGRAMS}
        least = found["operations"] / statistics.median(found["product"])
        ratios = [median["best"] / median["ours"], median["reference"] / median["ours"], least / median["ours"]]
        rows.append([batch_size, *(f"{median[name]:.2f} s" for name in PROGRAMS), *(f"{r:.2f}" for r in ratios)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    """Measure, keep and print."""
    keep_memory()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[50, 100, 500])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, nothing kept: does it run?")
    parser.add_argument("--markdown", action="store_true", help="print the table of the kept results")
    args = parser.parse_args()
    if args.markdown:
        print(table(json.loads(RESULTS_FILE.read_text("utf-8"))))
        return
    sizes = (60, (8, 6), (16, 16)) if args.smoke else (2173, (4096, 300), (4096, 4096))
    batches = {}
    for batch_size in [20] if args.smoke else args.batch_sizes:
        batches[str(batch_size)] = compare(*sizes, batch_size, 1 if args.smoke else args.rounds)
        print(f"batch {batch_size} done", file=sys.stderr, flush=True)
    results = {"machine": machine(["jax", "jaxlib", "torch"]), "batches": batches}
    if not args.smoke:
        RESULTS_FILE.parent.mkdir(exist_ok=True)
        RESULTS_FILE.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(table(results))


if __name__ == "__main__":
    main()
