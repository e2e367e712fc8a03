"""An epoch of training beside two PyTorch programs, and the least time that its floating-point operations need.

python -m experiments.benchmarks.training_timings [--smoke] [--batch-sizes 50 100 500] [--rounds 5]
python -m experiments.benchmarks.training_timings --markdown  # the stored results

Random data of Wikipedia's shape: 2,173 pairs of 4,096 and 300 features, layers 4096-4096-512, 10 classes, float32.
"best" and "reference" are those of pytorch_mrl.py. Programs take turns, in an order that changes direction; medians,
after one round that compiles. The least time: the operations of the encoders' matrix products, at the speed of the
fastest product of two 2048 x 2048 matrices in JAX or PyTorch, measured in each round. The process keeps freed memory
(`machine.KEEP_MEMORY`): else PyTorch has page faults on its gradients at every step, a fourth of its time. About 8
minutes on 2 idle CPU cores; needs the extra `bench`. Results: experiments/results/training_timings.json.
"""

import statistics
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.shared.command_line import require, run_main
from experiments.shared.folders import RESULTS
from experiments.shared.machine import keep_memory, machine
from experiments.shared.tables import markdown
from experiments.shared.timings import log, read_numbers, seconds_of, timing_parser, turns, write_numbers
from mrl_jax.methods.mrl import mrl
from mrl_jax.train_step import Recipe, TrainData, init_state
from mrl_jax.training.placement import epoch_program

RESULTS_FILE = RESULTS / "training_timings.json"
OBJECTIVE = (0.7, 1.0, 1.0)
PROGRAMS = ("ours", "best", "reference")


def compare(n: int, dims: tuple[int, ...], hidden: tuple[int, ...], batch_size: int, rounds: int) -> dict[str, Any]:
    """Seconds of an epoch (program -> round), operations of an epoch, operations per second of the fastest product."""
    from experiments.benchmarks.pytorch_mrl import Best, Model, Reference

    rng, classes, embed_dim = np.random.default_rng(0), 10, 512
    features = [rng.normal(size=(n, d)).astype(np.float32) for d in dims]
    labels = rng.integers(0, classes, (len(dims), n)).astype(np.int32)
    recipe = Recipe(beta=OBJECTIVE[0], hidden_dims=hidden, embed_dim=embed_dim, batch_size=batch_size)
    state = jax.jit(init_state, static_argnums=(1, 2))(jax.random.key(0), dims, classes, recipe)
    data, key, program = (
        TrainData(tuple(map(jnp.asarray, features)), jnp.asarray(labels)),
        jax.random.key(1),
        epoch_program(mrl(recipe.loss), None, recipe.batch_size),
    )

    def ours(epoch: int) -> None:
        nonlocal state
        state, metrics, _ = program(state, data, key, epoch, recipe)
        jax.block_until_ready(metrics)

    runs: dict[str, Callable[[int], object]] = {"ours": ours}
    for name, kind in (("best", Best), ("reference", Reference)):
        pytorch = kind(Model(dims, hidden, embed_dim, classes), features, labels, batch_size, 1e-4, OBJECTIVE)
        runs[name] = lambda _, pytorch=pytorch: pytorch.epoch()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    products = []
    for r, name in turns(runs, rounds + 1):
        if len(products) == r:  # first turn of the round
            products.append(fastest_product())
        taken = seconds_of(lambda name=name, r=r: runs[name](r))
        if r:  # round 0 compiles
            seconds[name].append(taken)
    weights = [(d * hidden[0], *(a * b for a, b in zip(hidden, (*hidden[1:], embed_dim), strict=True))) for d in dims]
    operations = n * sum(2 * (3 * sum(w) - w[0]) for w in weights)  # no gradient with respect to features
    return {"seconds": seconds, "operations": operations, "product": products}


def fastest_product(size: int = 2048) -> float:
    """Operations per second of a product of two square float32 matrices, the faster of JAX and PyTorch."""
    import torch

    a = np.random.default_rng(0).normal(size=(size, size)).astype(np.float32)
    array, tensor, product = jnp.asarray(a), torch.tensor(a), jax.jit(lambda a: a @ a)
    product(array).block_until_ready()
    products = (lambda: product(array).block_until_ready(), lambda: tensor @ tensor)
    return 2 * size**3 / min(seconds_of(f) for _ in range(5) for f in products)


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    rows = [["batch", *PROGRAMS, "best / ours", "reference / ours", "least time / ours"]]
    for batch_size, numbers in results["batches"].items():
        median = {name: statistics.median(numbers["seconds"][name]) for name in PROGRAMS}
        least = numbers["operations"] / statistics.median(numbers["product"])
        ratios = [x / median["ours"] for x in (median["best"], median["reference"], least)]
        rows.append([batch_size, *(f"{median[name]:.2f} s" for name in PROGRAMS), *(f"{r:.2f}" for r in ratios)])
    return markdown(rows)


def main() -> None:
    """Measure, store and print."""
    keep_memory()
    parser = timing_parser(__doc__, rounds=5)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[50, 100, 500])
    args = parser.parse_args()
    if args.markdown:
        print(table(read_numbers(RESULTS_FILE)))
        return
    require("torch")
    sizes = (60, (8, 6), (16, 16)) if args.smoke else (2173, (4096, 300), (4096, 4096))
    batches = {}
    for batch_size in [20] if args.smoke else args.batch_sizes:
        batches[str(batch_size)] = compare(*sizes, batch_size, 1 if args.smoke else args.rounds)
        log(f"batch {batch_size} done")
    results = {"machine": machine(["jax", "jaxlib", "torch"]), "batches": batches}
    if not args.smoke:
        write_numbers(RESULTS_FILE, results)
    print(table(results))


if __name__ == "__main__":
    run_main(main)
