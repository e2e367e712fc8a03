"""Train a model: configuration -> data -> epochs -> result.

python -m mrl_jax.train [PRESET] [flags] [--workdir DIR] [--resume]
"""

import argparse
import dataclasses
import hashlib
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mrl_jax import __version__
from mrl_jax.checkpoint import Checkpoints, MemoryCheckpoints, Snapshot
from mrl_jax.cli import Parser, run_command
from mrl_jax.config import PRESETS, Config, preset
from mrl_jax.data import Dataset, load_dataset
from mrl_jax.data.preprocess import apply_preprocess, fit_preprocess, kinds_for
from mrl_jax.errors import InputError, NonFiniteLossError
from mrl_jax.eval import score
from mrl_jax.noise import NoiseSpec, inject_noise
from mrl_jax.progress import epoch_progress
from mrl_jax.report import plot_curves, summary
from mrl_jax.retrieval import cross_modal_chance
from mrl_jax.run import Run, RunFolder, best_epoch, describe, recipe_of, template
from mrl_jax.train_step import (
    Recipe,
    StepMetrics,
    TrainData,
    TrainState,
    init_state,
    learning_rate_at,
    train_epoch,
)

__all__ = ["Result", "main", "train"]

_NOISE, _INIT, _BATCHES = range(3)  # independent streams of randomness, folded into the key of the run's seed


@dataclass(frozen=True)
class Result:
    """What a run found.

    Attributes:
        scores: content of `result.json`: test and validation mAP at the best and the last epoch, chance, time.
        metrics: content of `metrics.jsonl`, one mapping per epoch.
        noise: content of `noise.json`: the noise and the true share of wrong labels.
        data: content of `data.json`.
        run: the model of the best epoch.
        workdir: the run's folder, or None if it was trained in memory.
    """

    scores: Mapping[str, Any]
    metrics: Sequence[Mapping[str, Any]]
    noise: Mapping[str, Any]
    data: Mapping[str, Any]
    run: Run
    workdir: Path | None

    def table(self) -> str:
        """The result as text."""
        return summary(self.run.config, self.data, self.noise, self.scores, self.workdir)


def train(
    config: Config,
    workdir: str | os.PathLike[str] | None = None,
    *,
    data: Any = None,
    resume: bool = False,
    progress: bool = False,
) -> Result:
    """Train, choose the epoch with the best average validation mAP, and score it and the last one on the test split.

    Args:
        config: what to do; `preset(name, …)` makes one.
        workdir: folder for the run; new or empty, unless `resume`. None keeps everything in memory.
        data: anything `load_dataset` takes, such as a mapping of arrays; None for what `config` names.
        resume: go on after the last complete epoch of the run in `workdir`. It ends with the same bits, on the same
            machine, as a run that was never interrupted.
        progress: show a bar on a terminal, or a line per epoch elsewhere, on standard error.

    Returns:
        The scores, and the model of the best epoch.

    Raises:
        InputError: anything wrong with configuration, data or folder, before anything is written.
        NonFiniteLossError: the loss or a parameter became inf or NaN; checkpoints of earlier epochs stay.
        CheckpointError: a checkpoint could not be written.
    """
    started = time.perf_counter()
    if workdir is not None and not resume:
        RunFolder.refuse_occupied(workdir)  # before any work
    task = _prepare(config, data)
    folder = _open_folder(task, workdir, resume)
    if folder is None:
        return _train(task, None, started, progress)
    with folder.lock():
        folder.settle(task.described, task.noise)
        if progress:
            print(f"run folder: {folder.path}", file=sys.stderr)
        return _train(task, folder, started, progress)


def _train(task: "_Task", folder: RunFolder | None, started: float, progress: bool) -> Result:
    store = MemoryCheckpoints() if folder is None else Checkpoints(folder.checkpoints)
    with jax.default_matmul_precision(task.config.matmul_precision), store:
        state, log, spent = _begin(task, store, folder)
        if log and progress:
            print(f"resuming after epoch {len(log)} of {task.config.epochs}", file=sys.stderr)
        with epoch_progress(task.config.epochs, len(log), progress) as show:
            for epoch in range(len(log), task.config.epochs):
                state, line = _run_epoch(task, state, epoch)
                log.append(line)
                if folder is not None:
                    folder.log(line)
                kept = {"epoch": epoch + 1, "average": line["valid"]["average"]}
                kept["seconds"] = spent + time.perf_counter() - started
                store.save(epoch + 1, Snapshot(state, task.preprocess), kept)
                show(log)
        store.wait()
        best = best_epoch(log)
        snapshot = store.restore(best, task.template)
        scores = None if folder is None else folder.result()  # a complete run keeps its result
        if scores is None:
            test = {
                "best": {"epoch": best, **task.score(snapshot.state, "test")},
                "last": {"epoch": len(log), **task.score(state, "test")},
            }
            scores = _scores(task, log, test, spent + time.perf_counter() - started)

    if folder is not None and folder.result() is None:
        folder.write_result(scores)
    if folder is not None:
        plot_curves(folder.path / "curves.png", log, scores, _title(task))
    run = Run(task.config, best, *snapshot, task.dataset.modalities, task.dataset.class_names)
    return Result(scores, log, task.noise, task.described, run, None if folder is None else folder.path)


def _scores(task: "_Task", log: Sequence[Mapping[str, Any]], test: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """The content of `result.json`."""
    packages = ("jax", "flax", "optax", "orbax-checkpoint", "numpy")
    return {
        "test": test,
        "valid": {k: {"epoch": v["epoch"], **log[v["epoch"] - 1]["valid"]} for k, v in test.items()},
        "chance": cross_modal_chance(task.dataset.splits["test"].labels),
        "wrong_share": task.noise["wrong_share"],
        "seconds": round(seconds, 3),
        "device": _device(),
        "versions": {"mrl_jax": __version__} | {p: version(p) for p in packages},
    }


@dataclass(frozen=True)
class _Task:
    """One run's configuration and data, checked, preprocessed, and on the device."""

    config: Config
    dataset: Dataset
    described: Mapping[str, Any]
    noise: Mapping[str, Any]
    preprocess: Mapping[str, Mapping[str, Any]]
    train: TrainData
    held_out: Mapping[str, Mapping[str, Array]]  # valid and test: modality -> preprocessed features

    @property
    def recipe(self) -> Recipe:
        return recipe_of(self.config)

    @property
    def template(self) -> Snapshot:
        dims = list(self.dataset.dims.values())
        return template(self.config, dims, self.dataset.num_classes, self.dataset.modalities)

    def stream(self, purpose: int) -> Array:
        return jax.random.fold_in(jax.random.key(self.config.seed), purpose)

    def score(self, state: TrainState, split: str) -> dict[str, Any]:
        return score(self.recipe, state.encoders, self.held_out[split], self.dataset.splits[split].labels)


def _prepare(config: Config, data: Any) -> _Task:
    dataset = load_dataset(_source(config) if data is None else data, config.modalities)
    modalities, train_split = dataset.modalities, dataset.splits["train"]
    config = dataclasses.replace(config, modalities=modalities)
    kinds = kinds_for(modalities, config.preprocess)
    if config.batch_size > len(train_split):
        raise InputError(
            f"batch_size {config.batch_size} is larger than the training split ({len(train_split)} instances); "
            "choose a smaller one"
        )
    spec = NoiseSpec(config.noise_rate, config.noise_kind, config.noise_scope)
    key = jax.random.fold_in(jax.random.key(config.seed), _NOISE)
    clean = np.stack([train_split.labels[m] for m in modalities])
    labels = inject_noise(clean, spec, key, dataset.num_classes).labels

    preprocess = fit_preprocess(kinds, train_split.features)
    features = {
        name: {m: jnp.asarray(apply_preprocess(kinds[m], preprocess[m], x)) for m, x in split.features.items()}
        for name, split in dataset.splits.items()
    }
    train_data = TrainData(tuple(features.pop("train").values()), labels)
    noise = _noise_record(spec, config.seed, modalities, clean, np.asarray(labels))
    described = {**describe(dataset), "in_memory": data is not None}
    return _Task(config, dataset, described, noise, preprocess, train_data, features)


def _source(config: Config) -> str:
    if config.data_path is not None:
        if config.preset == "emoji":
            raise InputError("preset emoji brings its own data; leave out --data-path, or use the preset custom")
        return config.data_path
    if config.preset != "emoji":
        raise InputError(f"preset {config.preset} needs data: --data-path FILE (or data=… in Python)")
    return "emoji"


def _noise_record(
    spec: NoiseSpec, seed: int, modalities: Sequence[str], clean: np.ndarray, given: np.ndarray
) -> dict[str, Any]:
    wrong = given != clean
    return {
        **dataclasses.asdict(spec),
        "seed": seed,
        "wrong_share": {m: float(w.mean()) for m, w in zip(modalities, wrong, strict=True)},
        "labels_sha256": hashlib.sha256(np.ascontiguousarray(given, "<i4").tobytes()).hexdigest(),
    }


def _open_folder(task: _Task, workdir: str | os.PathLike[str] | None, resume: bool) -> RunFolder | None:
    if workdir is None:
        if resume:
            raise InputError("resume needs the folder of the run: --workdir DIR")
        return None
    if not resume:
        folder = RunFolder.create(workdir, task.config)
    else:
        folder = RunFolder.open(workdir)
        refuse_other_config(folder, task.config)
    return folder


def refuse_other_config(folder: RunFolder, config: Config) -> None:
    """Raise an InputError that names the first field in which a run's configuration differs from the given one."""
    stored = folder.config()
    for f in dataclasses.fields(Config):
        old, new = getattr(stored, f.name), getattr(config, f.name)
        if old != new:
            raise InputError(
                f"{f.name} {_shown(new)} was given, but the run in {str(folder.path)!r} has {_shown(old)}; "
                "a run resumes with its own configuration: leave the flag out, or name a new folder"
            )


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _begin(
    task: _Task, store: Checkpoints | MemoryCheckpoints, folder: RunFolder | None
) -> tuple[TrainState, list[dict[str, Any]], float]:
    """State, log and seconds so far: from the last checkpoint, or from scratch."""
    saved = store.epochs()
    if folder is not None and folder.result() is not None and (not saved or saved[-1] < task.config.epochs):
        raise InputError(f"{folder.path}: the run is complete, but its last checkpoint is gone; name a new folder")
    if not saved:
        dims = tuple(task.dataset.dims.values())
        state = _init(task.recipe, task.stream(_INIT), dims, task.dataset.num_classes)
        return state, folder.rewind(0) if folder is not None else [], 0.0
    # A copy on the device: the program that runs the epochs may overwrite its input, and must own it.
    state = jax.tree.map(jnp.array, store.restore(saved[-1], task.template).state)
    log = folder.rewind(saved[-1]) if folder is not None else []
    return state, log, store.metrics(saved[-1])["seconds"]


def _run_epoch(task: _Task, state: TrainState, epoch: int) -> tuple[TrainState, dict[str, Any]]:
    """Train one epoch (counted from 0) and validate: the new state and its line of `metrics.jsonl`."""
    state, steps, finite = _epoch(state, task.train, task.stream(_BATCHES), epoch, task.recipe)
    steps = jax.tree.map(lambda x: np.asarray(x, np.float64), steps)
    bad = np.flatnonzero(~np.isfinite(steps.loss))
    if len(bad):
        raise _non_finite(epoch, f"the loss is {steps.loss[bad[0]]} in step {bad[0] + 1} of {len(steps.loss)}")
    if not finite:
        raise _non_finite(epoch, f"parameters are not finite after step {len(steps.loss)}, the last")
    try:
        valid = task.score(state, "valid")
    except NonFiniteLossError as error:
        raise _non_finite(epoch, str(error)) from None
    weights = steps.instances / steps.instances.sum()
    return state, {
        "epoch": epoch + 1,
        "learning_rate": float(learning_rate_at(task.recipe, epoch)),
        "train": {name: float(getattr(steps, name) @ weights) for name in ("loss", "clustering", "contrastive")},
        "valid": valid,
    }


def _non_finite(epoch: int, what: str) -> NonFiniteLossError:
    return NonFiniteLossError(
        f"epoch {epoch + 1}: {what}; {'checkpoints of earlier epochs stay; ' if epoch else ''}try a lower learning "
        "rate, a higher temperature, or --clip-norm 1"
    )


_init = jax.jit(init_state, static_argnums=(2, 3))


@partial(jax.jit, donate_argnums=0)
def _epoch(
    state: TrainState, data: TrainData, key: Array, epoch: int, recipe: Recipe
) -> tuple[TrainState, StepMetrics, Array]:
    state, steps = train_epoch(state, data, key, epoch, recipe)
    leaves = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]
    return state, steps, jnp.stack([jnp.isfinite(x).all() for x in leaves]).all()


def _device() -> str:
    first = jax.devices()[0]
    return f"cpu ({os.cpu_count()} cores)" if first.platform == "cpu" else f"{first.device_kind} ({first.platform})"


def _title(task: _Task) -> str:
    c, noise = task.config, task.noise
    told = f"{noise['kind']} noise {noise['rate']:g}" if noise["rate"] > 0 else "labels as given"
    return f"{task.dataset.name}, {told}, {c.loss} loss, beta {c.beta:g}"


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run_command(lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> None:
    given = vars(_parser().parse_args(argv))
    workdir, resume = given.pop("workdir", None), given.pop("resume")
    if "data_path" in given:
        given["data_path"] = Config(data_path=given["data_path"]).data_path  # absolute, as the run keeps it
    if resume:
        if workdir is None:
            raise InputError("--resume needs the folder of the run: --workdir DIR")
        folder = RunFolder.open(workdir)
        config = dataclasses.replace(folder.config(), **given)
        refuse_other_config(folder, config)
    else:
        name = given.pop("preset", "custom" if "data_path" in given else "emoji")
        config = preset(name, **given)
        workdir = workdir or time.strftime(f"runs/{name}-%Y%m%d-%H%M%S")
    print(train(config, workdir, resume=resume, progress=True).table())


def _parser() -> argparse.ArgumentParser:
    """One flag per field of `Config`; flags that are not given stay absent, so that presets fill them."""
    parser = Parser(
        prog="python -m mrl_jax.train",
        description="Learn a common space for retrieval between modalities from noisy labels (MRL, CVPR 2021).",
    )
    parser.add_argument("preset", nargs="?", metavar="PRESET", default=argparse.SUPPRESS, help=", ".join(PRESETS))
    hints = get_type_hints(Config)
    for f in dataclasses.fields(Config):
        if f.name == "preset":
            continue
        options: dict[str, Any] = {"default": argparse.SUPPRESS, "help": _help(f)}
        kind = next((a for a in get_args(hints[f.name]) if a not in (type(None), ...)), hints[f.name])
        if kind is bool:
            options["action"] = argparse.BooleanOptionalAction
        else:
            options["type"] = kind
            options["metavar"] = (
                "{" + ",".join(f.metadata["choices"]) + "}" if "choices" in f.metadata else kind.__name__.upper()
            )
            if get_origin(hints[f.name]) is tuple:
                options["nargs"] = "+"
        parser.add_argument("--" + f.name.replace("_", "-"), **options)
    parser.add_argument("--workdir", metavar="DIR", help="folder of the run, new or empty; default: runs/PRESET-TIME")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --workdir")
    return parser


def _help(f: dataclasses.Field[Any]) -> str:
    text = str(f.metadata["help"]).replace("%", "%%")
    return text if f.default in (None, ()) else f"{text}; default: {_shown(f.default)}"


if __name__ == "__main__":
    sys.exit(main())
