"""What a run works on: configuration and data, checked, with noisy labels, preprocessed, resident or streamed."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mrl_jax.checkpoint import Snapshot, template
from mrl_jax.config import Config
from mrl_jax.data import Dataset, load_dataset
from mrl_jax.data.catalog import CATALOG
from mrl_jax.data.dataset import Split
from mrl_jax.data.preprocess import apply_preprocess, fit_preprocess, kinds_for
from mrl_jax.data.stream import BatchStream, HostData
from mrl_jax.errors import InputError
from mrl_jax.eval import score
from mrl_jax.noise import NoiseSource, NoiseSpec, NoisyLabels, inject_noise
from mrl_jax.noise_file import noise_record, read_noise_file, read_transition_matrix
from mrl_jax.run import describe, embed_from_host, embed_rows, recipe_of
from mrl_jax.train_step import (
    Recipe,
    StepMetrics,
    TrainData,
    TrainState,
    init_state,
    train_epoch,
    train_step,
)

__all__ = ["Task", "prepare_task"]

_NOISE, _INIT, _BATCHES = range(3)  # independent streams of randomness, folded into the key of the run's seed
_VALIDATION = 1  # folded into the key of the noise for the validation labels
_DEVICE_SHARE = 0.5  # of a device's memory that resident features may take; the rest is for the model


@dataclass(frozen=True)
class Task:
    """One run's configuration and data.

    Attributes:
        config: its configuration, modalities filled in.
        dataset: the data set, clean labels.
        described: content of `data.json`.
        noise: content of `noise.json`.
        preprocess: modality -> fitted statistics.
        train: the training split, on the device or as a stream.
        held_out: valid and test: modality -> features and labels to score with; on the device and preprocessed, unless
            the run streams.
    """

    config: Config
    dataset: Dataset
    described: Mapping[str, Any]
    noise: Mapping[str, Any]
    preprocess: Mapping[str, Mapping[str, Any]]
    train: TrainData | BatchStream
    held_out: Mapping[str, Mapping[str, tuple[Any, np.ndarray]]]

    @property
    def recipe(self) -> Recipe:
        """What `train_step` needs of the configuration."""
        return recipe_of(self.config)

    @property
    def template(self) -> Snapshot:
        """Shapes and dtypes of the run's checkpoints."""
        dims = list(self.dataset.dims.values())
        return template(self.config, dims, self.dataset.num_classes, self.dataset.modalities)

    @property
    def streams(self) -> bool:
        """Whether batches are read from the host."""
        return isinstance(self.train, BatchStream)

    def initial_state(self) -> TrainState:
        """The state before the first epoch."""
        dims = tuple(self.dataset.dims.values())
        return _init(self.recipe, _stream_key(self.config, _INIT), dims, self.dataset.num_classes)

    def run_epoch(self, state: TrainState, epoch: int) -> tuple[TrainState, StepMetrics, bool]:
        """Train one epoch, counted from 0: new state, metrics of its steps [S], whether all parameters are finite."""
        if isinstance(self.train, BatchStream):
            state, steps = self.train.run(partial(_step, recipe=self.recipe, epoch=epoch), state, epoch)
            return state, steps, bool(_finite(state))
        state, steps, finite = _epoch(state, self.train, _stream_key(self.config, _BATCHES), epoch, self.recipe)
        return state, steps, bool(finite)

    def score(self, state: TrainState, split: str) -> dict[str, Any]:
        """mAP of every direction on valid (noisy labels if the run asks for them) or test."""
        kinds = kinds_for(self.dataset.modalities, self.config.preprocess)
        z, labels = {}, {}
        for encoder, (m, (x, labels[m])) in zip(state.encoders, self.held_out[split].items(), strict=True):
            if self.streams:
                z[m] = embed_from_host(self.recipe, encoder, kinds[m], self.preprocess[m], x)
            else:
                z[m] = embed_rows(self.recipe, encoder, x)
        return score(z, labels)


def prepare_task(config: Config, data: Any, recorded: Path | None = None) -> Task:
    """Load the data, draw the noise, fit the preprocessing, put the features where they belong.

    Args:
        config: the configuration.
        data: anything `load_dataset` takes, or None for what the configuration names.
        recorded: `noise.json` of the run that goes on; it stands in for files of labels or a matrix.

    Raises:
        InputError: anything wrong with configuration or data.
    """
    set_name = config.preset if config.preset in CATALOG else None
    dataset = load_dataset(_source(config) if data is None else data, config.modalities, set_name=set_name)
    modalities, split = dataset.modalities, dataset.splits["train"]
    config = dataclasses.replace(config, modalities=modalities)
    kinds = kinds_for(modalities, config.preprocess)
    if config.batch_size > len(split):
        raise InputError(
            f"batch_size {config.batch_size} is larger than the training split ({len(split)} instances); "
            "choose a smaller one"
        )
    spec = _spec(config, dataset, recorded)
    noisy, noise = _training_labels(config, dataset, spec, recorded)
    stats = fit_preprocess(kinds, split.features, split.masks)
    labels = np.asarray(noisy.labels)
    partners = np.asarray(noisy.partners)
    moved = not (partners == np.arange(len(split))).all()
    mask = _mask(split, modalities) if split.masks else None
    if moved:
        labels = np.take_along_axis(labels, partners, axis=1)
        mask = None if mask is None else np.take_along_axis(mask, partners, axis=1)
    host = HostData(
        tuple(split.features[m] for m in modalities),
        tuple(kinds[m] for m in modalities),
        tuple(stats[m] for m in modalities),
        labels,
        mask,
        partners if moved else None,
    )
    held_out: dict[str, dict[str, tuple[Any, np.ndarray]]] = {
        name: {m: dataset.splits[name].samples(m) for m in modalities} for name in ("valid", "test")
    }
    if config.noisy_validation:
        given, noise["validation"] = _validation_labels(config, dataset, spec)
        held_out["valid"] = {m: (x, given[m]) for m, (x, _) in held_out["valid"].items()}

    train: TrainData | BatchStream
    if _streamed(config, dataset):
        train = BatchStream(host, _stream_key(config, _BATCHES), config.batch_size, config.epochs)
    else:
        train = _resident(host)
        held_out = {
            name: {m: (jnp.asarray(apply_preprocess(kinds[m], stats[m], x)), y) for m, (x, y) in samples.items()}
            for name, samples in held_out.items()
        }
    described = {**describe(dataset), "in_memory": data is not None}
    return Task(config, dataset, described, noise, stats, train, held_out)


def _source(config: Config) -> str:
    if config.data_path is not None:
        if config.preset == "emoji":
            raise InputError("preset emoji brings its own data; leave out --data-path, or use the preset custom")
        return config.data_path
    if config.preset == "custom":
        raise InputError("preset custom needs data: --data-path FILE (or data=… in Python)")
    return config.preset


def _stream_key(config: Config, purpose: int) -> Array:
    return jax.random.fold_in(jax.random.key(config.seed), purpose)


# ---------------------------------------------------------------------------------------------------------------------
# Labels


def _training_labels(
    config: Config, dataset: Dataset, spec: NoiseSpec, recorded: Path | None
) -> tuple[NoisyLabels, dict[str, Any]]:
    """What the training may see, and the content of `noise.json`."""
    split, modalities = dataset.splits["train"], dataset.modalities
    clean = np.stack([split.labels[m] for m in modalities])
    mask = _mask(split, modalities) if split.masks else None
    if config.noise_file is not None:
        source = recorded or config.noise_file
        noisy, origin = read_noise_file(source, clean, modalities, dataset.num_classes, mask=mask)
        record = noise_record(spec, noisy, config.seed, modalities, dataset.class_names, mask)
        drawn = ("rate", "kind", "scope", "seed")  # by another program, or another run
        return noisy, {"kind": "file", "file": origin, **{k: v for k, v in record.items() if k not in drawn}}
    key, features = _stream_key(config, _NOISE), [split.features[m] for m in modalities]
    noisy = inject_noise(clean, spec, key, dataset.num_classes, features=features, mask=mask)
    return noisy, noise_record(spec, noisy, config.seed, modalities, dataset.class_names, mask, key)


def _spec(config: Config, dataset: Dataset, recorded: Path | None) -> NoiseSpec:
    matrix = None
    if config.noise_matrix is not None and recorded is not None:
        matrix = json.loads(recorded.read_text("utf-8")).get("matrix")
    elif config.noise_matrix is not None:
        matrix = read_transition_matrix(config.noise_matrix, dataset.num_classes)
    return NoiseSpec(config.noise_rate, config.noise_kind, config.noise_scope, matrix)


def _validation_labels(
    config: Config, dataset: Dataset, spec: NoiseSpec
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Noisy labels of the samples that are there, and their record; where a modality is shorter, the rest is masked."""
    split, modalities = dataset.splits["valid"], dataset.modalities
    n = len(split)

    def padded(x: np.ndarray) -> np.ndarray:
        return np.pad(x, [(0, n - len(x))] + [(0, 0)] * (x.ndim - 1))

    clean = np.stack([padded(split.labels[m]) for m in modalities])
    mask = np.stack([padded(split.present(m)) for m in modalities])
    features = [padded(split.features[m]) for m in modalities]
    train = dataset.splits["train"]
    like = NoiseSource(
        _stream_key(config, _NOISE),
        np.stack([train.labels[m] for m in modalities]),
        [train.features[m] for m in modalities],
        _mask(train, modalities),
    )
    key = jax.random.fold_in(like.key, _VALIDATION)
    noisy = inject_noise(clean, spec, key, dataset.num_classes, features=features, mask=mask, like=like)
    record = noise_record(spec, noisy, config.seed, modalities, dataset.class_names, mask, key)
    given = np.asarray(noisy.labels)
    return {m: given[i, mask[i]] for i, m in enumerate(modalities)}, record


def _mask(split: Split, modalities: Sequence[str]) -> np.ndarray:
    return np.stack([split.present(m) for m in modalities])


# ---------------------------------------------------------------------------------------------------------------------
# Where the features are


def _streamed(config: Config, dataset: Dataset) -> bool:
    if config.stream != "auto":
        return config.stream == "on"
    size = sum(x.nbytes for split in dataset.splits.values() for x in split.features.values())
    return size > _DEVICE_SHARE * _device_memory()


def _device_memory() -> float:
    """Bytes of the device; of the machine where the device is its processor."""
    stats = jax.devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return float(stats["bytes_limit"])
    import psutil

    return float(psutil.virtual_memory().total)


def _resident(host: HostData) -> TrainData:
    features = []
    for i, x in enumerate(host.features):
        x = apply_preprocess(host.kinds[i], host.stats[i], x)
        features.append(jnp.asarray(x if host.partners is None else x[host.partners[i]]))
    return TrainData(tuple(features), jnp.asarray(host.labels), None if host.mask is None else jnp.asarray(host.mask))


# ---------------------------------------------------------------------------------------------------------------------
# Compiled programs

_init = jax.jit(init_state, static_argnums=(2, 3))


@jax.jit
def _finite(state: TrainState) -> Array:
    leaves = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.stack([jnp.isfinite(x).all() for x in leaves]).all()


@partial(jax.jit, donate_argnums=0)
def _epoch(
    state: TrainState, data: TrainData, key: Array, epoch: int, recipe: Recipe
) -> tuple[TrainState, StepMetrics, Array]:
    state, steps = train_epoch(state, data, key, epoch, recipe)
    return state, steps, _finite(state)


_step = jax.jit(train_step, donate_argnums=0)
