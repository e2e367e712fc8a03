"""One program of benchmark_pytorch.py, in a process of its own: reads commands from standard input, prints seconds.

    python -m experiments.benchmarks.benchmark_program KIND SHAPE

Imports only what the program needs, because its start and its memory are measured; PyTorch programs import no JAX.
"""

import os
import resource
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

__all__ = ["DEVICE", "PROGRAMS", "SHAPES", "Shape"]

CLASSES_OF = {"best": "Best", "compiled": "Compiled", "reference": "Reference", "reference kept": "Reference"}
PROGRAMS = ("ours", *CLASSES_OF)
OBJECTIVE = (0.7, 1.0, 1.0)
DEVICE = "BENCHMARK_DEVICE"  # environment variable with the device of the programs
RATE, CLASSES, EMBED_DIM = 1e-4, 10, 512


class Shape(NamedTuple):
    """Sizes of splits, features, layers and batch; epochs of a run; repeats of a run."""

    sizes: tuple[int, int, int]
    dims: tuple[int, int]
    hidden: tuple[int, ...]
    batch_size: int
    epochs: int
    repeats: int

    def arrays(self) -> dict[str, np.ndarray]:
        """All splits, in the form that `train` takes."""
        rng, arrays = np.random.default_rng(0), {}
        for split, n in zip(("train", "valid", "test"), self.sizes, strict=True):
            for name, d in zip(("image", "text"), self.dims, strict=True):
                arrays[f"{split}_{name}"] = rng.standard_normal((n, d), np.float32)
            arrays[f"{split}_labels"] = rng.integers(0, CLASSES, n)
        return arrays


SHAPES = {
    "wikipedia": Shape((2173, 231, 462), (4096, 300), (4096, 4096), 50, 2, 5),
    "reduced": Shape((2173, 231, 462), (128, 100), (1024, 1024), 100, 100, 5),
    "smoke": Shape((60, 20, 20), (8, 6), (16,), 20, 2, 1),
}


def ours(shape: Shape) -> dict[str, Callable[[], object]]:
    """Commands of mrl_jax: name -> function."""
    from mrl_jax import Config, train
    from mrl_jax.training.run_spec import prepare_data, prepare_run
    from mrl_jax.training.single_run import SingleRun

    arrays, count = shape.arrays(), iter(range(1 << 30))
    beta, tau1, tau2 = OBJECTIVE
    config = Config(
        beta=beta,
        tau1=tau1,
        tau2=tau2,
        hidden_dims=shape.hidden,
        embed_dim=EMBED_DIM,
        batch_size=shape.batch_size,
        learning_rate=RATE,
        epochs=shape.epochs,
        preprocess="none",
        stream="off",
    )
    run = SingleRun(prepare_run(config, prepare_data(config, arrays)))
    run.begin([None])

    def epoch() -> None:
        run.run_epoch(min(next(count), shape.epochs - 1))

    return {"epoch": epoch, "score": lambda: run.score("valid"), "run": lambda: train(config, data=arrays)}


def pytorch(kind: str, shape: Shape) -> dict[str, Callable[[], object]]:
    """Commands of a PyTorch program: name -> function."""
    import torch

    from experiments.benchmarks import pytorch_mrl

    device, arrays = os.environ[DEVICE], shape.arrays()
    features, labels = [arrays["train_image"], arrays["train_text"]], np.stack([arrays["train_labels"]] * 2)
    held_out = {s: ([arrays[f"{s}_image"], arrays[f"{s}_text"]], arrays[f"{s}_labels"]) for s in ("valid", "test")}
    name = "Graphed" if (kind, device) == ("best", "cuda") else CLASSES_OF[kind]

    def model() -> pytorch_mrl.Model:
        return pytorch_mrl.Model(shape.dims, shape.hidden, EMBED_DIM, CLASSES).to(device)

    program = getattr(pytorch_mrl, name)(model(), features, labels, shape.batch_size, RATE, OBJECTIVE, device)
    if program.resident:
        held_out = {s: ([torch.tensor(x, device=device) for x in f], y) for s, (f, y) in held_out.items()}

    def rate_at(epoch: int) -> float:
        return 0.5 * RATE * (1 + np.cos(np.pi * epoch / shape.epochs))

    def run() -> None:
        program.restore([(p.detach(), {}) for p in model().parameters()])  # start again, keep compiled code
        program.run(held_out, shape.epochs, rate_at)

    return {"epoch": program.epoch, "score": lambda: program.scores(*held_out["valid"]), "run": run}


def serve(kind: str, shape: Shape) -> None:
    """Train an epoch, print "ready"; run each line of commands and print its seconds; at the end print peak memory."""
    if kind == "ours":
        from mrl_jax.compile_cache import keep_compiled

        keep_compiled(True)
    commands = ours(shape) if kind == "ours" else pytorch(kind, shape)
    commands["epoch"]()
    print("ready", flush=True)
    for line in sys.stdin:
        started = time.perf_counter()
        for part in line.split():
            commands[part]()
        print(time.perf_counter() - started, flush=True)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def main() -> None:
    """Serve the program that the arguments name."""
    if len(sys.argv) != 3 or sys.argv[1] not in PROGRAMS or sys.argv[2] not in SHAPES:
        print(f"error: give KIND ({', '.join(PROGRAMS)}) and SHAPE ({', '.join(SHAPES)})", file=sys.stderr)
        sys.exit(2)
    kind, shape = sys.argv[1], SHAPES[sys.argv[2]]
    if kind == "ours":
        from experiments.shared.command_line import run_main  # its imports are those of `mrl_jax.train`, too

        run_main(lambda: serve(kind, shape))
        return
    try:
        serve(kind, shape)
    except ModuleNotFoundError as error:  # without `run_main`, whose imports would be measured
        print(f"error: {error.name} is not installed; run: pip install {error.name}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
