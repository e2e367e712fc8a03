"""The specification of a run: checked settings, preprocessed data on the device or the host, and noisy labels."""

import hashlib
import math
import shlex
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mrl_jax.config import Config, auto_epochs, auto_temperature, with_settings
from mrl_jax.data.dataset import Dataset
from mrl_jax.data.emoji.versions import recorded_source
from mrl_jax.data.load import load_dataset
from mrl_jax.data.preprocess import apply_preprocess, fit_preprocess, kinds_for
from mrl_jax.data.published.catalog import CATALOG
from mrl_jax.errors import DatasetWarning, InputError
from mrl_jax.methods.base import NEEDS, Method
from mrl_jax.methods.registry import entry_of, hyperparameters_of, method_of
from mrl_jax.methods.state import OracleNoise, Shapes
from mrl_jax.options import MOST_STEPS
from mrl_jax.run.checkpoint import Snapshot, template
from mrl_jax.run.described import describe
from mrl_jax.run.folder import RunFolder
from mrl_jax.run.load import load_run
from mrl_jax.run.model import Model
from mrl_jax.run.representation import check_representation, representation_of
from mrl_jax.run.shapes import params_shapes, path_names
from mrl_jax.training import keys
from mrl_jax.training.labels import noise_spec, oracle_noise, present_mask, training_labels, validation_labels
from mrl_jax.training.memory import check_memory, device_memory

__all__ = ["RunData", "RunSpec", "prepare_data", "prepare_run"]

_MEMORY_FRACTION = 0.5  # of a device's memory that resident features may take; the rest is for the model


@dataclass(frozen=True)
class RunData:
    """Data as training uses them. Runs that differ only in noise, seed and hyperparameters share an object.

    Attributes:
        dataset: the data set, with its own labels.
        described: content of `data.json`.
        kinds: modality -> its preprocessing.
        stats: modality -> fitted statistics.
        features: preprocessed training features on the device, one [N, D] per modality; None if the run streams.
        held_out: "valid" and "test" -> modality -> features, preprocessed and on the device, unless the run streams.
        start: the model of another run that the runs start with, or None.
        shared: what a method has prepared from the features alone, for all runs; None for a single run, which frees it.
    """

    dataset: Dataset
    described: Mapping[str, Any]
    kinds: Mapping[str, str]
    stats: Mapping[str, Mapping[str, Any]]
    features: tuple[Array, ...] | None
    held_out: Mapping[str, Mapping[str, Any]]
    start: Model | None = None
    shared: dict[str, Any] | None = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class RunSpec:
    """Settings, data and labels of a run.

    Attributes:
        config: its settings; modalities, temperatures and representation are filled in.
        data: its data.
        noise: content of `noise.json`.
        labels: given training labels, int32 [M, N].
        mask: bool [M, N], False where a training sample is missing; None if no sample is missing.
        partners: int32 [M, N], the row of each modality that belongs to an instance; None for row j at instance j.
        held_out: "valid" and "test" -> modality -> labels for the scores.
        oracle: the noise that the method may know; None for a method that does not need it.
    """

    config: Config
    data: RunData
    noise: Mapping[str, Any]
    labels: np.ndarray
    mask: np.ndarray | None
    partners: np.ndarray | None
    held_out: Mapping[str, Mapping[str, np.ndarray]]
    oracle: OracleNoise | None = None

    @property
    def method(self) -> Method:
        """The method that trains it."""
        return method_of(self.config)

    @property
    def hyperparameters(self) -> Any:
        """The hyperparameters of the method, a pytree."""
        steps = self.epochs * math.ceil(self.labels.shape[1] / self.config.batch_size)
        return entry_of(self.config.method).for_steps(hyperparameters_of(self.config, self.oracle), steps)

    @property
    def epochs(self) -> int:
        """Number of epochs; 1 for a closed form."""
        if self.method.fit is not None:
            return 1
        return self.config.epochs or auto_epochs(self.config, self.labels.shape[1])

    @property
    def shapes(self) -> Shapes:
        """The sizes that determine the shapes of its state."""
        return Shapes(tuple(self.data.dataset.dims.values()), self.data.dataset.num_classes, self.labels.shape[1])

    @property
    def template(self) -> Snapshot:
        """Shapes and dtypes of the run's checkpoints."""
        return template(self.config, self.shapes, self.data.dataset.modalities)

    @property
    def streams(self) -> bool:
        """Whether batches are read from the host."""
        return self.data.features is None

    @property
    def init_key(self) -> Array:
        """Key of the initial parameters."""
        return keys.init_key(self.config.seed)

    @property
    def batch_key(self) -> Array:
        """Key of the batches."""
        return keys.batch_key(self.config.seed)


def prepare_data(
    config: Config, data: Any = None, begun: RunFolder | None = None, source: str | None = None
) -> RunData:
    """Load the data and fit the preprocessing; put the features on the device unless the run streams.

    Args:
        config: the settings.
        data: anything `load_dataset` takes, or None for what the settings name.
        begun: folder of the run that resumes. If it has a checkpoint, the run `init_from` is not read again.
        source: version of the embedded set, as `RunFolder.source` gives it; None for that of `begun`, otherwise the
            newest.

    Raises:
        InputError: anything wrong with settings or data.
    """
    set_name = config.preset if config.preset in CATALOG else None
    if source is None and begun is not None:
        source = begun.source()
    named = _source(config, source) if data is None else data
    dataset = load_dataset(named, config.modalities, set_name=set_name, **config.cut)
    kinds = kinds_for(dataset.modalities, config.preprocess)
    split = dataset.splits["train"]
    start = digest = None
    if config.init_from is not None and begun is not None and begun.has_checkpoints:
        stats = load_run(begun.path, "last").model.preprocess
        digest = begun.data().get("init_from_sha256")
    elif config.init_from is not None:
        start = _start_model(config, dataset, kinds)
        stats, digest = start.preprocess, _digest(start.params)
    else:
        stats = fit_preprocess(kinds, split.features, split.masks)
    held_out: dict[str, dict[str, Any]] = {}
    for name in ("valid", "test"):
        held_out[name] = {m: dataset.splits[name].samples(m)[0] for m in dataset.modalities}
    features = None
    if not _streamed(config, dataset):
        features = tuple(jnp.asarray(apply_preprocess(kinds[m], stats[m], split.features[m])) for m in kinds)
        held_out = {
            name: {m: jnp.asarray(apply_preprocess(kinds[m], stats[m], x)) for m, x in samples.items()}
            for name, samples in held_out.items()
        }
    described = {**describe(dataset), "in_memory": data is not None}
    if digest is not None:
        described["init_from_sha256"] = digest
    return RunData(dataset, described, kinds, stats, features, held_out, start)


def _start_model(config: Config, dataset: Dataset, kinds: Mapping[str, str]) -> Model:
    """The model that a run starts with; refuses one of another method or of other data, warns of another split."""
    assert config.init_from is not None
    try:
        run = load_run(config.init_from)
    except InputError as error:
        raise InputError(
            f"init_from {config.init_from!r} cannot be loaded ({error}); name the folder of a run"
        ) from None
    own = {m: len(x["mean"]) for m, x in run.model.preprocess.items()}
    facts = {
        "the method": (run.config.method, config.method),
        "the modalities": (list(run.modalities), list(dataset.modalities)),
        "the numbers of features": (own, dataset.dims),
        "the preprocessing": (dict(kinds_for(run.modalities, run.config.preprocess)), dict(kinds)),
        "the columns": _columns_of_both(run.columns, dataset.metadata.get("columns", {})),
        "the classes": (list(run.class_names), list(dataset.class_names)),
    }
    for what, (there, here) in facts.items():
        if there != here:
            raise InputError(
                f"init_from {config.init_from!r}: {what} of that run must be those of this one, and are {there}, not "
                f"{here}; name a run of the same kind"
            )
    source, seeds = recorded_source(dataset.metadata), (run.config.split_seed, config.split_seed)
    if run.source and source and (run.source, seeds[0]) != (source, seeds[1]):
        warnings.warn(
            f"init_from {config.init_from!r}: that run has another split ({run.source}, split_seed {seeds[0]}) than "
            f"this one ({source}, split_seed {seeds[1]}), and was trained on some of the validation and test rows of "
            "this one: their scores are too high",
            DatasetWarning,
            stacklevel=2,
        )
    return run.model


def _columns_of_both(there: Mapping[str, Any], here: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The names of columns of the modalities that have them in both."""
    both = [m for m in there if m in here]
    return {m: list(there[m]) for m in both}, {m: list(here[m]) for m in both}


def _digest(tree: Any) -> str:
    """SHA-256 of the arrays of a tree."""
    digest = hashlib.sha256()
    for x in jax.tree.leaves(jax.device_get(tree)):
        digest.update(np.ascontiguousarray(x).tobytes())
    return digest.hexdigest()


def prepare_run(config: Config, data: RunData, recorded: Path | None = None, parts: int = 1) -> RunSpec:
    """Fill in the settings, draw the labels, and check what the method needs.

    Args:
        config: the settings.
        data: from `prepare_data`, for these settings or others with the same data and preprocessing.
        recorded: `noise.json` of the run that is resumed, which replaces files of labels or a matrix.
        parts: number of devices over which the parameters are divided.

    Raises:
        InputError: anything wrong with the noise, a batch larger than the training split, data that the method cannot
            use, or a model that does not fit the device.
    """
    dataset = data.dataset
    modalities, split = dataset.modalities, dataset.splits["train"]
    open_taus = [name for name in ("tau1", "tau2") if config.has_effect(name) and getattr(config, name) is None]
    filled: dict[str, Any] = dict.fromkeys(open_taus, auto_temperature(dataset.num_classes))
    if config.has_effect("representation") and config.representation is None:
        filled["representation"] = entry_of(config.method).representation
    if config.has_effect("epochs") and config.epochs is None:
        filled["epochs"] = auto_epochs(config, len(split))
    config = with_settings(config, modalities=modalities, **filled)
    method = method_of(config)
    check_representation(method, representation_of(config))
    if method.step is not None and config.batch_size > len(split):
        raise InputError(
            f"batch_size {config.batch_size} is larger than the training split ({len(split)} instances); "
            f"give {len(split)} or less"
        )
    _check_needs(method, data)
    steps = (config.epochs or 1) * math.ceil(len(split) / config.batch_size)
    if method.step is not None and steps > MOST_STEPS:
        raise InputError(
            f"epochs {config.epochs}: these are {steps:,} steps; a run has at most {MOST_STEPS:,}; give fewer"
        )
    check_memory(config, Shapes(tuple(dataset.dims.values()), dataset.num_classes, len(split)), parts)
    if data.start is not None:
        _check_layers(config, data)
    spec = noise_spec(config, dataset, recorded)
    noisy, noise = training_labels(config, dataset, spec, recorded)
    labels = np.asarray(noisy.labels)
    partners = np.asarray(noisy.partners)
    mask = present_mask(split, modalities) if split.masks else None
    moved = not (partners == np.arange(len(split))).all()
    if moved:
        labels = np.take_along_axis(labels, partners, axis=1)
        mask = None if mask is None else np.take_along_axis(mask, partners, axis=1)
    held_out = {name: {m: dataset.splits[name].samples(m)[1] for m in modalities} for name in ("valid", "test")}
    if config.noisy_validation:
        held_out["valid"], noise["validation"] = validation_labels(config, dataset, spec)
    oracle = oracle_noise(config, dataset, spec, noisy) if "noise" in method.needs else None
    for advice in entry_of(config.method).warnings(config, oracle):
        warnings.warn(advice, DatasetWarning, stacklevel=2)
    return RunSpec(config, data, noise, labels, mask, partners if moved else None, held_out, oracle)


def _check_layers(config: Config, data: RunData) -> None:
    """Refuse weights whose shapes are not those of the run."""
    assert data.start is not None
    shapes = Shapes(tuple(data.dataset.dims.values()), data.dataset.num_classes)
    there = {tuple(path_names(p)): x.shape for p, x in jax.tree_util.tree_leaves_with_path(data.start.params)}
    here = {
        tuple(path_names(p)): x.shape for p, x in jax.tree_util.tree_leaves_with_path(params_shapes(config, shapes))
    }
    for path in [*here, *there]:
        if here.get(path) != there.get(path):
            raise InputError(
                f"init_from {config.init_from!r}: {'/'.join(path)} has the shape {there.get(path)} there, and "
                f"{here.get(path)} here; give the layers of that run (hidden_dims, embed_dim)"
            )


def _check_needs(method: Method, data: RunData) -> None:
    modalities = data.dataset.modalities
    if (method.fit is None) == (method.step is None):
        raise InputError(f"{method.name} must have either fit or step")
    if unknown := method.needs - set(NEEDS):
        raise InputError(f"{method.name} needs {sorted(unknown)[0]!r}, which is unknown; known: {', '.join(NEEDS)}")
    if "two modalities" in method.needs and len(modalities) != 2:
        raise InputError(
            f"{method.name} takes two modalities; the data have {len(modalities)}: {', '.join(modalities)}; choose "
            f"two, such as --modalities {shlex.join(modalities[:2])}"
        )
    resident = "resident" in method.needs or method.refresh is not None or method.complete is not None
    if resident and data.features is None:
        raise InputError(
            f"{method.name} reads all training samples at once, which streaming does not allow; --stream off keeps "
            "them on the device"
        )


def _source(config: Config, version: str | None) -> str:
    """What `load_dataset` takes for the data that a configuration names, of the embedded set the given version."""
    if config.data_path is not None:
        if config.preset == "emoji":
            raise InputError("preset emoji brings its own data; leave out --data-path, or use the preset custom")
        return config.data_path
    if config.preset == "custom":
        raise InputError("preset custom needs data: --data-path FILE (or data=… in Python)")
    return version if version is not None and config.preset == "emoji" else config.preset


def _streamed(config: Config, dataset: Dataset) -> bool:
    if config.stream != "auto":
        return config.stream == "on"
    size = sum(x.nbytes for split in dataset.splits.values() for x in split.features.values())
    return size > _MEMORY_FRACTION * device_memory()
