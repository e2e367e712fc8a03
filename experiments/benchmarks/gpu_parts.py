"""The parts of the GPU check (gpu_check.py); each runs in a process of its own."""

import itertools
import json
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from experiments.shared.timings import log, seconds_of

__all__ = ["PARITY", "PARTS", "PRECISIONS", "SHAPES", "SMOKE", "Shape", "parity"]

PRECISIONS = ("float32", "tf32", "bfloat16")
EMBED_DIM, BYTES_PER_PARAMETER = 512, 40
PARITY = {"float32": (1e-3, 1e-2), "tf32": (2e-2, 5e-2), "bfloat16": (5e-2, 0.1)}
"""Upper bounds on differences of losses (relative) and embeddings: Adam amplifies the rounding of small gradients."""
AT_ONCE = 10  # calls that are timed together, so that the time to start them is small


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
        """Number of weights: modality -> layer."""
        widths = [[d, *self.hidden, EMBED_DIM] for d in self.dims]
        return [[a * b for a, b in itertools.pairwise(w)] for w in widths]

    @property
    def parameters(self) -> int:
        """Number of parameters of both encoders, with biases, and of the centres."""
        biases = len(self.dims) * (sum(self.hidden) + EMBED_DIM)
        return sum(map(sum, self.weights)) + biases + self.classes * EMBED_DIM

    @property
    def moved(self) -> int:
        """Bytes that a step must read and write."""
        return BYTES_PER_PARAMETER * self.parameters - 4 * sum(w[0] for w in self.weights)

    @property
    def operations(self) -> int:
        """Operations of the encoders' products in a step; there is no gradient with respect to features."""
        return 2 * self.batch_size * sum(3 * sum(w) - w[0] for w in self.weights)

    @property
    def steps(self) -> int:
        """Number of steps of an epoch."""
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
    """Precisions that a shape is timed in; only one for two shapes, because compiling takes most of the time."""
    return PRECISIONS[:1] if name in ("INRIA-Websearch", "XMediaNet") else PRECISIONS


def repeated(f: Callable[[], Any], calls: int = 5, seconds: float = 2.0) -> list[float]:
    """Seconds of calls with their results: at least `calls` and `seconds`, at most 100 calls; without the first."""
    import jax

    jax.block_until_ready(f())
    taken: list[float] = []
    while len(taken) < calls or (sum(taken) < seconds and len(taken) < 100):
        taken.append(seconds_of(lambda: jax.block_until_ready(f())))
    return taken


def median_of(f: Callable[[], Any], smoke: bool) -> float:
    """Median seconds of a call."""
    return statistics.median(repeated(f, 2, 0) if smoke else repeated(f))


def report(numbers: dict[str, Any], message: str) -> None:
    """Print the numbers so far, of which the parent process takes the last line, and log a message."""
    print(json.dumps(numbers), flush=True)
    log(f"  {message}")


# Parts


def floors(smoke: bool) -> dict[str, Any]:
    """Highest speed of the device for memory and for products."""
    import jax
    import jax.numpy as jnp

    size, width = (2**20, 256) if smoke else (2**28, 8192)
    state = {"x": jnp.ones(size)}
    scale = jax.jit(lambda x: x * 1.0001, donate_argnums=0)

    def move() -> Any:
        for _ in range(AT_ONCE):
            state["x"] = scale(state["x"])
        return state["x"]

    numbers: dict[str, Any] = {"bytes_per_second": 8 * size * AT_ONCE / median_of(move, smoke)}
    numbers["operations_per_second"] = {}
    a = jax.random.normal(jax.random.key(0), (width, width))
    for name, precision in {"float32": "highest", "tf32": "tensorfloat32", "bfloat16": None}.items():
        b = a.astype(jnp.bfloat16) if name == "bfloat16" else a
        product = jax.jit(lambda x, precision=precision: jnp.dot(x, x, precision=precision))
        seconds = median_of(lambda p=product, b=b: [p(b) for _ in range(AT_ONCE)], smoke) / AT_ONCE
        numbers["operations_per_second"][name] = 2 * width**3 / seconds
    return numbers


def start(shape: Shape, precision: str, device: Any = None) -> tuple[Any, Any, Any, Any]:
    """Recipe, state, data and key, on a device."""
    import jax
    import jax.numpy as jnp

    from mrl_jax.train_step import Recipe, TrainData, init_state

    device = device or jax.devices()[0]
    recipe = Recipe(beta=shape.beta, hidden_dims=shape.hidden, batch_size=shape.batch_size, precision=precision)
    features, labels = shape.arrays()
    # Initialised on the host, so that all devices start from the same bits.
    with jax.default_device(jax.devices("cpu")[0]):
        state = jax.jit(init_state, static_argnums=(1, 2))(jax.random.key(0), shape.dims, shape.classes, recipe)
        data, key = TrainData(tuple(map(jnp.asarray, features)), jnp.asarray(labels)), jax.random.key(1)
    return recipe, *jax.device_put((state, data, key), device)


def parity(smoke: bool) -> dict[str, Any]:
    """Largest differences of losses and embeddings after three steps from those of the CPU in float32."""
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
        return np.array(losses), np.asarray(jax.jit(embed)(state.params.encoders, first, recipe), np.float64)

    numbers: dict[str, Any] = {}
    far = []
    for name, shape in (SMOKE if smoke else {k: SHAPES[k] for k in ("Wikipedia", "INRIA-Websearch")}).items():
        losses, z = steps(shape, "float32", jax.devices("cpu")[0])
        numbers[name] = {}
        for precision in PRECISIONS:
            other, w = steps(shape, precision, jax.devices()[0])
            differences = float(abs(other / losses - 1).max()), float(abs(z - w).max())
            numbers[name][precision] = dict(zip(("loss", "embedding"), differences, strict=True))
            if not all(x <= bound for x, bound in zip(differences, PARITY[precision], strict=True)):  # also for NaN
                far.append(f"{name}, {precision}")
    return numbers | ({"failed": f"too far from the CPU: {'; '.join(far)}"} if far else {})


def ours(smoke: bool) -> dict[str, Any]:
    """Seconds of an epoch of mrl_jax, and of compiling it."""
    from mrl_jax.methods.mrl import mrl
    from mrl_jax.training.placement import epoch_program

    numbers: dict[str, Any] = {}
    for name, shape in (SMOKE if smoke else SHAPES).items():
        numbers[name] = {}
        for precision in precisions(name):
            recipe, state, data, key = start(shape, precision)
            carry = {"state": state}  # the epoch donates the state
            del state
            started = time.perf_counter()
            compiled = epoch_program(mrl(recipe.loss), None, recipe.batch_size)
            program = compiled.lower(carry["state"], data, key, 0, recipe).compile()
            compiling = time.perf_counter() - started

            def epoch(program: Any = program, carry: Any = carry, rest: Any = (data, key, 1, recipe)) -> Any:
                carry["state"], metrics, _ = program(carry["state"], *rest)
                carry["loss"] = metrics["loss"]
                return metrics

            seconds = median_of(epoch, smoke)
            loss = float(np.mean(carry["loss"]))
            numbers[name][precision] = {"epoch_seconds": seconds, "compile_seconds": compiling, "loss": loss}
            if not np.isfinite(loss):
                numbers["failed"] = f"{name}, {precision}: the loss is {loss}"
            report(numbers, f"{name}, {precision}: {seconds:.4g} s an epoch")
    return numbers


def pytorch(smoke: bool) -> dict[str, Any]:
    """Seconds of an epoch of two PyTorch programs."""
    import torch

    from experiments.benchmarks.pytorch_mrl import Best, Graphed, Model, Reference

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not smoke:
        return {"skipped": "this PyTorch sees no GPU"}
    best = Graphed if device == "cuda" else Best
    numbers: dict[str, Any] = {"device": device, "best": best.__name__}
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
            return numbers | {"failed": f"the CUDA graph gives losses {losses[1]}, without it they are {losses[0]}"}
    for name, shape in (SMOKE if smoke else SHAPES).items():
        features, labels = shape.arrays()
        numbers[name] = {}
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
                losses = program.epoch()  # a list, so the device has finished
                seconds.append(time.perf_counter() - started)
            label = "reference" if kind is Reference else precision
            numbers[name][label] = {"epoch_seconds": statistics.median(seconds), "loss": float(np.mean(losses))}
            if not np.isfinite(losses).all():
                numbers["failed"] = f"{name}, {label}: a loss is not finite"
            report(numbers, f"{name}, {label}: {numbers[name][label]['epoch_seconds']:.4g} s an epoch")
            del program, model
    return numbers


def configured(shape: Shape, epochs: int, **options: Any) -> Any:
    """The configuration of a run."""
    from mrl_jax import Config

    return Config(
        epochs=epochs, batch_size=shape.batch_size, beta=shape.beta, hidden_dims=shape.hidden, noise_rate=0.4, **options
    )


def dataset(shape: Shape) -> dict[str, np.ndarray]:
    """All splits, in the form that `train` takes."""
    arrays = {}
    for split in ("train", "valid", "test"):
        features, labels = shape.arrays(split)
        arrays |= {f"{split}_image": features[0], f"{split}_text": features[1], f"{split}_labels": labels[0]}
    return arrays


def runs(smoke: bool) -> dict[str, Any]:
    """Seconds of whole runs, from arrays on the host to scores."""
    from mrl_jax import train

    numbers, epochs = {}, 3 if smoke else 100
    for name, shape in (SMOKE if smoke else SHAPES).items():
        arrays = dataset(shape)
        started = time.perf_counter()
        result = train(configured(shape, epochs), data=arrays)
        numbers[name] = {"seconds": time.perf_counter() - started, "epochs": len(result.metrics)}
        report(numbers, f"{name}: {numbers[name]['seconds']:.4g} s")
    return numbers


def sweep(smoke: bool) -> dict[str, Any]:
    """Seconds of 20 runs of Wikipedia's shape, together and one after the other, compiling included."""
    from mrl_jax import sweep as run_sweep

    shape, count, epochs = (SMOKE["tiny"], 3, 2) if smoke else (SHAPES["Wikipedia"], 20, 10)
    arrays = dataset(shape)
    configs = [configured(shape, epochs, seed=seed) for seed in range(count)]
    numbers: dict[str, Any] = {"runs": count, "epochs": epochs}
    for way in ("together", "apart"):
        started = time.perf_counter()
        run_sweep(configs, data=arrays, way=way)
        numbers[way] = time.perf_counter() - started
        report(numbers, f"{way}: {numbers[way]:.4g} s")
    return numbers


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

    from mrl_jax.losses.contrastive import contrastive_loss

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
"""Part -> its function, and its time limit in seconds."""
