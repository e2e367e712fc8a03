"""An epoch of every method beside one of MRL, and closed forms beside the decompositions that they cannot do without.

python -m experiments.benchmarks.method_timings [--smoke] [--rounds 5]
python -m experiments.benchmarks.method_timings --markdown  # the stored results

Random data of Wikipedia's shape, 2,173 pairs of 4,096 and 300 features and 10 classes; layers 1024-1024-512 and batches
of 100 for all, but for the batches and directions that dcca, dccae and smln need. An epoch is the compiled program of
training, in turn with that of MRL; medians of all rounds after one that compiles. A closed form is its `fit`; beside it
stands the time that its calls of SciPy's eigenvalue, singular value and linear solvers take. About 10 minutes on 2 idle
CPU cores. Results: experiments/results/method_timings.json.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from experiments.shared.command_line import run_main
from experiments.shared.field import FIELD
from experiments.shared.folders import RESULTS
from experiments.shared.machine import machine
from experiments.shared.tables import markdown
from experiments.shared.timings import log, read_numbers, seconds_of, timing_parser, turns, write_numbers
from mrl_jax import preset
from mrl_jax.config import with_settings
from mrl_jax.methods.registry import entry_of, hyperparameters_of
from mrl_jax.methods.state import Shapes, TrainData
from mrl_jax.training.placement import epoch_program

RESULTS_FILE = RESULTS / "method_timings.json"
CLASSES = 10


def _data(n: int, dims: Sequence[int]) -> tuple[list[np.ndarray], np.ndarray]:
    rng = np.random.default_rng(0)
    clean = rng.integers(0, CLASSES, n)
    labels = np.where(rng.random((len(dims), n)) < 0.4, rng.integers(0, CLASSES, (len(dims), n)), clean)
    centers = [rng.standard_normal((CLASSES, d), np.float32) for d in dims]
    return [rng.standard_normal((n, d), np.float32) + c[clean] for d, c in zip(dims, centers, strict=True)], labels


def epochs(names: Sequence[str], n: int, dims: Sequence[int], rounds: int, **change: Any) -> dict[str, list[float]]:
    """Seconds of an epoch of every gradient method, by round."""
    features, labels = _data(n, dims)
    data = TrainData(tuple(map(jnp.asarray, features)), jnp.asarray(labels, jnp.int32))
    key, runs = jax.random.key(0), dict[str, Callable[[], object]]()
    for name in names:
        config = preset("custom", method=name, epochs=30)
        wanted = {field: value for field, value in change.items() if config.has_effect(field)}
        taus = {tau: 0.5 for tau in ("tau1", "tau2") if config.has_effect(tau)}
        config = with_settings(config, **{**wanted, **entry_of(name).settings, **taus})
        config = with_settings(config, batch_size=min(config.batch_size, n))
        runs[name] = _epoch(config, Shapes(tuple(dims), CLASSES, n), data, key)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for r, name in turns(names, rounds + 1):
        taken = seconds_of(runs[name])
        if r:
            seconds[name].append(taken)
        else:
            log(f"{name}: compiled")
    return seconds


def _epoch(config: Any, shapes: Shapes, data: TrainData, key: Any) -> Callable[[], object]:
    entry = entry_of(config.method)
    method, h = entry.method(config), entry.for_steps(hyperparameters_of(config), 900)
    program = epoch_program(method, None, config.batch_size)
    state = jax.jit(method.init, static_argnums=(0, 2))(h, key, shapes)

    def run() -> None:
        nonlocal state
        state, metrics, _ = program(state, data, key, 10, h)
        jax.block_until_ready(metrics)

    return run


def closed_forms(names: Sequence[str], n: int, dims: Sequence[int], rounds: int) -> dict[str, list[list[float]]]:
    """Seconds of a closed form, and of the solvers and products in it, by round."""
    features, labels = _data(n, dims)
    data = TrainData(tuple(features), labels)  # type: ignore[arg-type]
    seconds: dict[str, list[list[float]]] = {name: [] for name in names}
    for r, name in turns(names, rounds + 1):
        config = preset("custom", method=name)
        method, h = entry_of(name).method(config), hyperparameters_of(config)
        assert method.fit is not None
        with _clocked() as clock:
            taken = seconds_of(lambda m=method, h=h: m.fit(h, data, Shapes(tuple(dims), CLASSES, n), {}))
        if r:
            seconds[name].append([taken, clock[0]])
    return seconds


_SOLVERS = ("eigh", "svd", "solve", "cho_factor", "cho_solve", "qr", "lstsq", "solve_triangular")


@contextmanager
def _clocked() -> Iterator[list[float]]:
    """Add up the seconds that solvers of SciPy and NumPy take."""
    clock, depth = [0.0], [0]
    modules = (scipy.linalg, np.linalg)
    whole = [(module, name, getattr(module, name)) for module in modules for name in _SOLVERS if hasattr(module, name)]

    def clocked(f: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            depth[0] += 1
            started = time.perf_counter()
            try:
                return f(*args, **kwargs)
            finally:
                depth[0] -= 1
                if not depth[0]:
                    clock[0] += time.perf_counter() - started

        return call

    try:
        for module, name, f in whole:
            setattr(module, name, clocked(f))
        yield clock
    finally:
        for module, name, f in whole:
            setattr(module, name, f)


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    seconds = {name: statistics.median(values) for name, values in results["epochs"].items()}
    rows = [["method", "an epoch", "of MRL's"]]
    rows += [[name, f"{s:.2f} s", f"{s / seconds['mrl']:.2f}"] for name, s in seconds.items()]
    closed = [["method", "closed form", "of its solvers'"]]
    for name, pairs in results["closed_forms"].items():
        total, solvers = (statistics.median(x) for x in zip(*pairs, strict=True))
        closed.append([name, f"{total:.2f} s", f"{total / solvers:.2f}"])
    return f"{markdown(rows)}\n\n{markdown(closed)}"


def main() -> None:
    """Measure, store and print."""
    args = timing_parser(__doc__, rounds=5).parse_args()
    if args.markdown:
        print(table(read_numbers(RESULTS_FILE)))
        return
    n, dims = (120, (8, 6)) if args.smoke else (2173, (4096, 300))
    rounds = 1 if args.smoke else args.rounds
    closed = [name for name in FIELD if entry_of(name).method(preset("custom", method=name)).fit is not None]
    others = ["mrl", *(name for name in FIELD if name not in (*closed, "mrl"))]
    change: dict[str, Any] = {"hidden_dims": (16,), "embed_dim": 8} if args.smoke else {}
    results = {
        "machine": machine(["jax", "jaxlib", "numpy", "scipy"]),
        "epochs": epochs(others, n, dims, rounds, **change),
        "closed_forms": closed_forms(closed, n, dims, rounds),
    }
    if not args.smoke:
        write_numbers(RESULTS_FILE, results)
    print(table(results))


if __name__ == "__main__":
    run_main(main)
