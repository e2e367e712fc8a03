"""The parts of the GPU check (gpu_check.py): each finds its numbers in a process of its own."""

import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

__all__ = ["PARITY", "PARTS", "PRECISIONS", "SHAPES", "SMOKE", "Shape", "parity"]

PRECISIONS = ("float32", "tf32", "bfloat16")
EMBED_DIM, BYTES_PER_PARAMETER = 512, 40
PARITY = {"float32": (1e-3, 1e-2), "tf32": (2e-2, 5e-2), "bfloat16": (5e-2, 0.1)}
"""Largest differences of losses (relative) and embeddings: Adam turns the rounding of a small gradient into a step."""
AT_ONCE = 10  # calls that are timed together, so that starting them counts for little


class Shape(NamedTuple):
    """A data set of the paper: sizes of its splits, features, classes, batch size and beta."""

    train: int
    valid: int
    test: int
    dims: tuple[int, int]
    classes: int
    batch_size: int
    beta: float
    hidden: tuple[int, ...] = (4096, 4096)

    @property
    def weights(self) -> list[list[int]]:
        """Numbers of weights: modality -> layer."""
        widths = [[d, *self.hidden, EMBED_DIM] for d in self.dims]
        return [[a * b for a, b in itertools.pairwise(w)] for w in widths]

    @property
    def parameters(self) -> int:
        """Of both encoders, with biases, and centres."""
        biases = len(self.dims) * (sum(self.hidden) + EMBED_DIM)
        return sum(map(sum, self.weights)) + biases + self.classes * EMBED_DIM

    @property
    def moved(self) -> int:
        """Bytes that a step must move."""
        return BYTES_PER_PARAMETER * self.parameters - 4 * sum(w[0] for w in self.weights)

    @property
    def operations(self) -> int:
        """Of the encoders' products in a step; features need no gradient."""
        return 2 * self.batch_size * sum(3 * sum(w) - w[0] for w in self.weights)

    @property
    def steps(self) -> int:
        """Of an epoch."""
        return -(-self.train // self.batch_size)

    def arrays(self, split: str = "train") -> tuple[list[np.ndarray], np.ndarray]:
        """Random features, one [N, D] per modality, and labels [M, N]."""
        rng, n = np.random.default_rng(0), getattr(self, split)
        features = [rng.standard_normal((n, d), np.float32) for d in self.dims]
        return features, np.tile(rng.integers(0, self.classes, n, np.int32), (len(self.dims), 1))


SHAPES = {
    "Wikipedia": Shape(2173, 231, 462, (4096, 300), 10, 50, 0.7),
    "INRIA-Websearch": Shape(9000, 1332, 4366, (4096, 1000), 100, 200, 0.9),
    "NUS-WIDE": Shape(42941, 5000, 23661, (4096, 300), 10, 500, 0.9),
    "XMediaNet": Shape(32000, 4000, 4000, (4096, 300), 200, 500, 0.9),
}
SMOKE = {"tiny": Shape(90, 20, 20, (12, 6), 4, 20, 0.7, (16, 16))}


def precisions(name: str) -> tuple[str, ...]:
    """Those that a shape is timed in: compiling takes most of the time, and a shape of each kind shows what they do."""
    return PRECISIONS[:1] if name in ("INRIA-Websearch", "XMediaNet") else PRECISIONS


def repeated(f: Callable[[], Any], least: int = 5, seconds: float = 2.0) -> list[float]:
    """Seconds of calls that wait for their result: at least so many, until so much time is gone; the first left out."""
    import jax

    jax.block_until_ready(f())
    taken: list[float] = []
    while len(taken) < least or (sum(taken) < seconds and len(taken) < 100):
        started = time.perf_counter()
        jax.block_until_ready(f())
        taken.append(time.perf_counter() - started)
    return taken


def median_of(f: Callable[[], Any], smoke: bool) -> float:
    """Seconds of a call."""
    return statistics.median(repeated(f, 2, 0) if smoke else repeated(f))


def tell(told: dict[str, Any], what: str) -> None:
    """What a part has found so far: a line for the process that started it, which takes the last, and one to read."""
    print(json.dumps(told), flush=True)
    print(f"  {what}", file=sys.stderr, flush=True)


# Parts


def floors(smoke: bool) -> dict[str, Any]:
    """What the device does at its best."""
    import jax
    import jax.numpy as jnp

    size, width = (2**20, 256) if smoke else (2**28, 8192)
    state = {"x": jnp.ones(size)}
    scale = jax.jit(lambda x: x * 1.0001, donate_argnums=0)

    def move() -> Any:
        for _ in range(AT_ONCE):
            state["x"] = scale(state["x"])
        return state["x"]

    told: dict[str, Any] = {"bytes_per_second": 8 * size * AT_ONCE / median_of(move, smoke)}
    told["operations_per_second"] = {}
    a = jax.random.normal(jax.random.key(0), (width, width))
    for name, how in {"float32": "highest", "tf32": "tensorfloat32", "bfloat16": None}.items():
        b = a.astype(jnp.bfloat16) if name == "bfloat16" else a
        product = jax.jit(lambda x, how=how: jnp.dot(x, x, precision=how))
        seconds = median_of(lambda p=product, b=b: [p(b) for _ in range(AT_ONCE)], smoke) / AT_ONCE
        told["operations_per_second"][name] = 2 * width**3 / seconds
    return told


def start(shape: Shape, precision: str, device: Any = None) -> tuple[Any, Any, Any, Any]:
    """Recipe, state, data and key, on a device."""
    import jax
    import jax.numpy as jnp

    from mrl_jax.train_step import Recipe, TrainData, init_state

    device = device or jax.devices()[0]
    recipe = Recipe(beta=shape.beta, hidden_dims=shape.hidden, batch_size=shape.batch_size, precision=precision)
    features, labels = shape.arrays()
    # Drawn on the host, so that all devices start from the same bits.
    with jax.default_device(jax.devices("cpu")[0]):
        state = jax.jit(init_state, static_argnums=(2, 3))(recipe, jax.random.key(0), shape.dims, shape.classes)
        data, key = TrainData(tuple(map(jnp.asarray, features)), jnp.asarray(labels)), jax.random.key(1)
    return recipe, *jax.device_put((state, data, key), device)


def parity(smoke: bool) -> dict[str, Any]:
    """Largest differences after three steps: of losses and embeddings, from those of the CPU in float32."""
    import jax

    from mrl_jax.train_step import Batch, embed, epoch_batches, train_step

    def steps(shape: Shape, precision: str, device: Any) -> tuple[np.ndarray, np.ndarray]:
        recipe, state, data, key = start(shape, precision, device)
        rows = np.asarray(epoch_batches(key, shape.train, shape.batch_size)[0][:3])
        losses, step = [], jax.jit(train_step)
        for r in rows:
            batch = Batch(tuple(x[r] for x in data.features), data.labels[:, r], np.ones(len(r), bool))
            state, metrics = step(state, jax.device_put(batch, device), recipe)
            losses.append(float(metrics["loss"]))
        first = tuple(x[: shape.batch_size] for x in data.features)
        return np.array(losses), np.asarray(jax.jit(embed)(recipe, state.params.encoders, first), np.float64)

    told: dict[str, Any] = {}
    far = []
    for name, shape in (SMOKE if smoke else {k: SHAPES[k] for k in ("Wikipedia", "INRIA-Websearch")}).items():
        losses, z = steps(shape, "float32", jax.devices("cpu")[0])
        told[name] = {}
        for precision in PRECISIONS:
            other, w = steps(shape, precision, jax.devices()[0])
            apart = float(abs(other / losses - 1).max()), float(abs(z - w).max())
            told[name][precision] = dict(zip(("loss", "embedding"), apart, strict=True))
            if not all(x <= most for x, most in zip(apart, PARITY[precision], strict=True)):  # NaN is far, too
                far.append(f"{name}, {precision}")
    return told | ({"failed": f"too far from the CPU: {'; '.join(far)}"} if far else {})


def ours(smoke: bool) -> dict[str, Any]:
    """Seconds of an epoch and of compiling."""
    from mrl_jax.methods.mrl import mrl
    from mrl_jax.training.placement import epoch_program

    told: dict[str, Any] = {}
    for name, shape in (SMOKE if smoke else SHAPES).items():
        told[name] = {}
        for precision in precisions(name):
            recipe, state, data, key = start(shape, precision)
            kept = {"state": state}
            del state
            started = time.perf_counter()
            compiled = epoch_program(mrl(recipe.loss), None, recipe.batch_size)
            program = compiled.lower(kept["state"], data, key, 0, recipe).compile()
            compiling = time.perf_counter() - started

            def epoch(program: Any = program, kept: Any = kept, rest: Any = (data, key, 1, recipe)) -> Any:
                kept["state"], metrics, _ = program(kept["state"], *rest)
                kept["loss"] = metrics["loss"]
                return metrics

            seconds = median_of(epoch, smoke)
            loss = float(np.mean(kept["loss"]))
            told[name][precision] = {"epoch_seconds": seconds, "compile_seconds": compiling, "loss": loss}
            if not np.isfinite(loss):
                told["failed"] = f"{name}, {precision}: the loss is {loss}"
            tell(told, f"{name}, {precision}: {seconds:.4g} s an epoch")
    return told


def pytorch(smoke: bool) -> dict[str, Any]:
    """Seconds of an epoch of both programs."""
    import torch

    from experiments.benchmarks.pytorch_mrl import Best, Graphed, Model, Reference

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not smoke:
        return {"skipped": "this PyTorch sees no GPU"}
    best = Graphed if device == "cuda" else Best
    told: dict[str, Any] = {"device": device, "best": best.__name__}
    if best is Graphed:
        shape, losses = SMOKE["tiny"], []
        features, labels = shape.arrays()
        rows = [np.arange(i, i + shape.batch_size) for i in range(0, 3 * shape.batch_size, shape.batch_size)]
        for kind in (Best, Graphed):
            torch.manual_seed(0)
            model = Model(shape.dims, shape.hidden, EMBED_DIM, shape.classes).to(device)
            program = kind(model, features, labels, shape.batch_size, 1e-2, (shape.beta, 1.0, 1.0), device)
            losses.append(program.epoch(rows))
        if not np.allclose(*losses, rtol=1e-3):
            return told | {"failed": f"the CUDA graph gives losses {losses[1]}, without it they are {losses[0]}"}
    for name, shape in (SMOKE if smoke else SHAPES).items():
        features, labels = shape.arrays()
        told[name] = {}
        for kind, precision in [*((best, p) for p in precisions(name)), (Reference, "float32")]:
            torch.manual_seed(0)
            torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
            model = Model(shape.dims, shape.hidden, EMBED_DIM, shape.classes).to(device)
            program = kind(
                model, features, labels, shape.batch_size, 1e-4, (shape.beta, 1.0, 1.0), device, precision == "bfloat16"
            )
            losses = program.epoch()
            seconds = []
            for _ in range(2 if smoke or kind is Reference else 5):
                started = time.perf_counter()
                losses = program.epoch()  # a list: it waits
                seconds.append(time.perf_counter() - started)
            label = "reference" if kind is Reference else precision
            told[name][label] = {"epoch_seconds": statistics.median(seconds), "loss": float(np.mean(losses))}
            if not np.isfinite(losses).all():
                told["failed"] = f"{name}, {label}: a loss is not finite"
            tell(told, f"{name}, {label}: {told[name][label]['epoch_seconds']:.4g} s an epoch")
            del program, model
    return told


def configured(shape: Shape, epochs: int, **options: Any) -> Any:
    """The configuration of a run."""
    from mrl_jax import Config

    return Config(
        epochs=epochs, batch_size=shape.batch_size, beta=shape.beta, hidden_dims=shape.hidden, noise_rate=0.4, **options
    )


def dataset(shape: Shape) -> dict[str, np.ndarray]:
    """All splits as `train` takes them."""
    arrays = {}
    for split in ("train", "valid", "test"):
        features, labels = shape.arrays(split)
        arrays |= {f"{split}_image": features[0], f"{split}_text": features[1], f"{split}_labels": labels[0]}
    return arrays


def runs(smoke: bool) -> dict[str, Any]:
    """Seconds of whole runs, from arrays on the host to scores."""
    from mrl_jax import train

    told, epochs = {}, 3 if smoke else 100
    for name, shape in (SMOKE if smoke else SHAPES).items():
        arrays = dataset(shape)
        started = time.perf_counter()
        result = train(configured(shape, epochs), data=arrays)
        told[name] = {"seconds": time.perf_counter() - started, "epochs": len(result.metrics)}
        tell(told, f"{name}: {told[name]['seconds']:.4g} s")
    return told


def sweep(smoke: bool) -> dict[str, Any]:
    """Seconds of 20 runs of Wikipedia's shape, together and apart, compiling included."""
    from mrl_jax import sweep as run_sweep

    shape, count, epochs = (SMOKE["tiny"], 3, 2) if smoke else (SHAPES["Wikipedia"], 20, 10)
    arrays = dataset(shape)
    configs = [configured(shape, epochs, seed=seed) for seed in range(count)]
    told: dict[str, Any] = {"runs": count, "epochs": epochs}
    for way in ("together", "apart"):
        started = time.perf_counter()
        run_sweep(configs, data=arrays, way=way)
        told[way] = time.perf_counter() - started
        tell(told, f"{way}: {told[way]:.4g} s")
    return told


def mean_ap(smoke: bool) -> dict[str, Any]:
    """Seconds of mAP over the full ranking of NUS-WIDE's test split."""
    import jax
    import jax.numpy as jnp

    from mrl_jax.retrieval.measure import mean_average_precision

    n = 300 if smoke else SHAPES["NUS-WIDE"].test
    z = jax.random.normal(jax.random.key(0), (2, n, EMBED_DIM))
    labels = jnp.asarray(np.random.default_rng(0).integers(0, 10, n))
    value = []
    seconds = median_of(lambda: value.append(mean_average_precision(z[0], z[1], labels, labels)), smoke)
    return {"queries": n, "seconds": seconds, "map": value[-1]}


def contrastive(smoke: bool) -> dict[str, Any]:
    """Seconds and memory of value and gradient."""
    import jax

    from mrl_jax.losses.mrl import contrastive_loss

    n = 600 if smoke else 65_536
    z = jax.random.normal(jax.random.key(0), (2, n, EMBED_DIM))
    z /= (z**2).sum(axis=-1, keepdims=True) ** 0.5
    program = jax.jit(jax.value_and_grad(lambda z: contrastive_loss(z, 1.0).mean())).lower(z).compile()
    started = time.perf_counter()
    value, _ = jax.block_until_ready(program(z))
    seconds = time.perf_counter() - started
    if seconds < 5:
        seconds = median_of(lambda: program(z), smoke)
    memory = program.memory_analysis().temp_size_in_bytes
    return {"instances": n, "seconds": seconds, "temporary_bytes": memory, "value": float(value)}


PARTS: dict[str, tuple[Callable[[bool], dict[str, Any]], int]] = {
    "floors": (floors, 60),
    "parity": (parity, 90),
    "ours": (ours, 180),
    "pytorch": (pytorch, 120),
    "map": (mean_ap, 60),
    "contrastive": (contrastive, 60),
    "sweep": (sweep, 120),
    "runs": (runs, 150),
}
"""Part -> what runs it, and its limit in seconds."""
