"""What a run works on: configuration and data, checked, preprocessed, on the device or on the host; noisy labels."""

import dataclasses
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mrl_jax.config import Config, auto_temperature
from mrl_jax.data.dataset import Split
from mrl_jax.data.load import Dataset, load_dataset
from mrl_jax.data.preprocess import apply_preprocess, fit_preprocess, kinds_for
from mrl_jax.data.published.catalog import CATALOG
from mrl_jax.errors import DatasetWarning, InputError
from mrl_jax.methods.recipe import KnownNoise, Recipe
from mrl_jax.methods.recipe_loss import WARMUP
from mrl_jax.noise.files import noise_record, read_noise_file, read_transition_matrix
from mrl_jax.noise.inject import NoiseSource, NoiseSpec, NoisyLabels, inject_noise, transition_matrix
from mrl_jax.options import NOISE_AWARE_LOSSES
from mrl_jax.run.checkpoint import Snapshot, template
from mrl_jax.run.run import describe, recipe_of

__all__ = ["Task", "TaskData", "device_memory", "prepare_data", "prepare_task"]

_NOISE, _INIT, _BATCHES = range(3)  # independent streams of randomness, folded into the key of the run's seed
_VALIDATION = 1  # folded into the key of the noise for the validation labels
_DEVICE_SHARE = 0.5  # of a device's memory that resident features may take; the rest is for the model


@dataclass(frozen=True)
class TaskData:
    """Data as training uses them, which runs that differ in nothing but noise, seed and `Recipe` can share.

    Attributes:
        dataset: the data set, clean labels.
        described: content of `data.json`.
        kinds: modality -> its preprocessing.
        stats: modality -> fitted statistics.
        features: of the training split, preprocessed, on the device, one [N, D] per modality; None if the run streams.
        held_out: valid and test: modality -> features, on the device and preprocessed, unless the run streams.
    """

    dataset: Dataset
    described: Mapping[str, Any]
    kinds: Mapping[str, str]
    stats: Mapping[str, Mapping[str, Any]]
    features: tuple[Array, ...] | None
    held_out: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Task:
    """One run's configuration, data and labels.

    Attributes:
        config: its configuration, modalities and temperatures filled in.
        data: its data.
        noise: content of `noise.json`.
        labels: training labels as given, int32 [M, N].
        mask: bool [M, N], False where a training sample is missing; None where none is.
        partners: int32 [M, N], which row of a modality stands at an instance; None for its own.
        held_out: valid and test: modality -> labels to score with.
        known: what the loss is told of the noise; None where it asks for nothing.
    """

    config: Config
    data: TaskData
    noise: Mapping[str, Any]
    labels: np.ndarray
    mask: np.ndarray | None
    partners: np.ndarray | None
    held_out: Mapping[str, Mapping[str, np.ndarray]]
    known: KnownNoise | None = None

    @property
    def recipe(self) -> Recipe:
        """What `train_step` needs of the configuration, and of the noise."""
        return dataclasses.replace(recipe_of(self.config), noise=self.known)

    @property
    def dims(self) -> tuple[int, ...]:
        """Number of features of each modality."""
        return tuple(self.data.dataset.dims.values())

    @property
    def sizes(self) -> tuple[tuple[int, ...], int, int]:
        """What `init_state` needs: features of each modality, classes, training instances."""
        return self.dims, self.data.dataset.num_classes, self.labels.shape[1]

    @property
    def template(self) -> Snapshot:
        """Shapes and dtypes of the run's checkpoints."""
        dataset = self.data.dataset
        return template(self.config, self.dims, dataset.num_classes, dataset.modalities, len(dataset.splits["train"]))

    @property
    def streams(self) -> bool:
        """Whether batches are read from the host."""
        return self.data.features is None

    @property
    def init_key(self) -> Array:
        """Key of the initial parameters."""
        return _stream_key(self.config, _INIT)

    @property
    def batch_key(self) -> Array:
        """Key of the batches."""
        return _stream_key(self.config, _BATCHES)


def prepare_data(config: Config, data: Any = None) -> TaskData:
    """Load the data, fit the preprocessing, put the features where they belong.

    Args:
        config: the configuration.
        data: anything `load_dataset` takes, or None for what the configuration names.

    Raises:
        InputError: anything wrong with configuration or data.
    """
    set_name = config.preset if config.preset in CATALOG else None
    dataset = load_dataset(_source(config) if data is None else data, config.modalities, set_name=set_name)
    kinds = kinds_for(dataset.modalities, config.preprocess)
    split = dataset.splits["train"]
    stats = fit_preprocess(kinds, split.features, split.masks)
    held_out: dict[str, dict[str, Any]] = {}
    for name in ("valid", "test"):
        held_out[name] = {m: dataset.splits[name].samples(m)[0] for m in dataset.modalities}
    features = None
    if not _streamed(config, dataset):
        features = tuple(jnp.asarray(apply_preprocess(kinds[m], stats[m], split.features[m])) for m in kinds)
        held_out = {
            name: {m: jnp.asarray(apply_preprocess(kinds[m], stats[m], x)) for m, x in of_split.items()}
            for name, of_split in held_out.items()
        }
    described = {**describe(dataset), "in_memory": data is not None}
    return TaskData(dataset, described, kinds, stats, features, held_out)


def prepare_task(config: Config, data: TaskData, recorded: Path | None = None) -> Task:
    """Draw the labels of a run.

    Args:
        config: the configuration.
        data: what `prepare_data` made of it, or of another configuration with the same data and preprocessing.
        recorded: `noise.json` of the run that goes on; it stands in for files of labels or a matrix.

    Raises:
        InputError: anything wrong with the noise, or a batch larger than the training split.
    """
    dataset = data.dataset
    modalities, split = dataset.modalities, dataset.splits["train"]
    tau = auto_temperature(dataset.num_classes)
    config = dataclasses.replace(
        config,
        modalities=modalities,
        tau1=tau if config.tau1 is None else config.tau1,
        tau2=tau if config.tau2 is None else config.tau2,
    )
    if config.batch_size > len(split):
        raise InputError(
            f"batch_size {config.batch_size} is larger than the training split ({len(split)} instances); "
            "choose a smaller one"
        )
    if config.loss == "gmm" and data.features is None:
        raise InputError(
            "loss gmm goes through all training samples before every epoch, which are not streamed; --stream off keeps "
            "them on the device"
        )
    spec = _spec(config, dataset, recorded)
    noisy, noise = _training_labels(config, dataset, spec, recorded)
    labels = np.asarray(noisy.labels)
    partners = np.asarray(noisy.partners)
    mask = _mask(split, modalities) if split.masks else None
    moved = not (partners == np.arange(len(split))).all()
    if moved:
        labels = np.take_along_axis(labels, partners, axis=1)
        mask = None if mask is None else np.take_along_axis(mask, partners, axis=1)
    held_out = {name: {m: dataset.splits[name].samples(m)[1] for m in modalities} for name in ("valid", "test")}
    if config.noisy_validation:
        held_out["valid"], noise["validation"] = _validation_labels(config, dataset, spec)
    known = _known_noise(config, dataset, spec, noisy) if config.loss in NOISE_AWARE_LOSSES else None
    if known is not None and config.assumed_noise is None and not known.wrong_share.any():
        warnings.warn(
            f"loss {config.loss} is plain cross-entropy here: no noise is injected and none is assumed; for labels "
            "that are noisy of their own give their share of wrong ones, --assumed-noise R",
            DatasetWarning,
            stacklevel=2,
        )
    if config.loss == "gmm" and (warmup := config.loss_numbers.get("warmup", WARMUP)) >= config.epochs:
        warnings.warn(
            f"loss gmm is plain cross-entropy here: its warmup of {warmup:g} epochs takes all {config.epochs}; give "
            "fewer, --loss-options warmup=N, or more --epochs",
            DatasetWarning,
            stacklevel=2,
        )
    return Task(config, data, noise, labels, mask, partners if moved else None, held_out, known)


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


def _known_noise(config: Config, dataset: Dataset, spec: NoiseSpec, noisy: NoisyLabels) -> KnownNoise:
    """What a loss is told: what was assumed, or the truth, as in the experiments of those who proposed such losses."""
    split, modalities, k = dataset.splits["train"], dataset.modalities, dataset.num_classes
    m, r = len(modalities), config.assumed_noise
    if r is not None:
        others = (1.0 - np.eye(k)) / max(k - 1, 1)
        transition, share = (1.0 - r) * np.eye(k) + r * others, np.full(m, r)
    else:
        mask, clean, given = _mask(split, modalities), np.asarray(noisy.clean), np.asarray(noisy.labels)
        share = np.asarray(noisy.wrong_share)
        if config.noise_file is not None or spec.kind == "instance-dependent":  # counted, as no draw tells
            counts = np.zeros((m, k, k))
            for i in range(m):
                np.add.at(counts[i], (clean[i, mask[i]], given[i, mask[i]]), 1.0)
            size = counts.sum(axis=-1, keepdims=True)
            transition = np.where(size > 0, counts / np.maximum(size, 1.0), np.eye(k))
        else:
            features = [split.features[name] for name in modalities]
            key = _stream_key(config, _NOISE)
            transition = transition_matrix(spec, k, key, labels=clean, features=features, mask=mask)
    return KnownNoise(np.array(np.broadcast_to(transition, (m, k, k)), np.float32), np.array(share, np.float32))


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
    return size > _DEVICE_SHARE * device_memory()


def device_memory(device: Any = None) -> float:
    """Bytes of a device, by default the first; of the machine where the device is its processor."""
    device = device or jax.local_devices()[0]
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return float(stats["bytes_limit"])
    import psutil

    return float(psutil.virtual_memory().total)
