"""A program of benchmark_pytorch.py in its process: does what comes on standard input and tells the seconds.

Imports no more than the program itself needs, as its start and its memory are measured.
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
DEVICE = "BENCHMARK_DEVICE"  # tells the programs where to run
RATE, CLASSES, EMBED_DIM = 1e-4, 10, 512


class Shape(NamedTuple):
    """Sizes of the splits, features, layers, batch, epochs of a run, how often it is repeated."""

    sizes: tuple[int, int, int]
    dims: tuple[int, int]
    hidden: tuple[int, ...]
    batch_size: int
    epochs: int
    repeats: int

    def arrays(self) -> dict[str, np.ndarray]:
        """All splits, as `train` takes them."""
        rng, found = np.random.default_rng(0), {}
        for split, n in zip(("train", "valid", "test"), self.sizes, strict=True):
            for name, d in zip(("image", "text"), self.dims, strict=True):
                found[f"{split}_{name}"] = rng.standard_normal((n, d), np.float32)
            found[f"{split}_labels"] = rng.integers(0, CLASSES, n)
        return found


SHAPES = {
    "wikipedia": Shape((2173, 231, 462), (4096, 300), (4096, 4096), 50, 2, 5),
    "reduced": Shape((2173, 231, 462), (128, 100), (1024, 1024), 100, 100, 5),
    "smoke": Shape((60, 20, 20), (8, 6), (16,), 20, 2, 1),
}


def ours(shape: Shape) -> dict[str, Callable[[], object]]:
    """What our program does on command."""
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


def theirs(kind: str, shape: Shape) -> dict[str, Callable[[], object]]:
    """What a PyTorch program does on command."""
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
        program.restore([(p.detach(), {}) for p in model().parameters()])  # from the start, with what is compiled
        program.run(held_out, shape.epochs, rate_at)

    return {"epoch": program.epoch, "score": lambda: program.scores(*held_out["valid"]), "run": run}


def serve(kind: str, shape: Shape) -> None:
    """Do what comes on standard input, tell the seconds of each; an epoch comes first, unasked."""
    if kind == "ours":
        from mrl_jax.compile_cache import keep_compiled

        keep_compiled(True)
    does = ours(shape) if kind == "ours" else theirs(kind, shape)
    does["epoch"]()
    print("ready", flush=True)
    for line in sys.stdin:
        started = time.perf_counter()
        for part in line.split():
            does[part]()
        print(time.perf_counter() - started, flush=True)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


if __name__ == "__main__":
    serve(sys.argv[1], SHAPES[sys.argv[2]])
