"""The labels that a run uses for training and validation, noise included, and the oracle noise.

Shape letters: M modalities, N instances of a split, K classes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mrl_jax.config import Config
from mrl_jax.data.dataset import Dataset, Split
from mrl_jax.methods.state import OracleNoise
from mrl_jax.noise.files import noise_record, read_noise_file, read_transition_matrix
from mrl_jax.noise.inject import NoiseSource, NoiseSpec, NoisyLabels, inject_noise, transition_matrix
from mrl_jax.run.folder import RunFolder
from mrl_jax.training.keys import noise_key, validation_noise_key

__all__ = ["noise_spec", "oracle_noise", "present_mask", "training_labels", "validation_labels"]


def noise_spec(config: Config, dataset: Dataset, recorded: Path | None) -> NoiseSpec:
    """The noise that a configuration asks for.

    Args:
        config: the configuration.
        dataset: its data.
        recorded: `noise.json` of a run that is resumed, which replaces the file of the matrix.

    Raises:
        InputError: the noise does not fit the data, or the matrix cannot be read.
    """
    matrix = None
    if config.noise_matrix is not None and recorded is not None:
        matrix = RunFolder(recorded.parent).noise().get("matrix")
    elif config.noise_matrix is not None:
        matrix = read_transition_matrix(config.noise_matrix, dataset.num_classes)
    return NoiseSpec(config.noise_rate, config.noise_kind, config.noise_scope, matrix)


def training_labels(
    config: Config, dataset: Dataset, spec: NoiseSpec, recorded: Path | None
) -> tuple[NoisyLabels, dict[str, Any]]:
    """The training labels as given, and the content of `noise.json`.

    Args:
        config: the configuration.
        dataset: its data.
        spec: the noise to inject.
        recorded: `noise.json` of a run that is resumed, which replaces the file of labels.

    Raises:
        InputError: the noise does not fit the data, or the file cannot be read.
    """
    split, modalities = dataset.splits["train"], dataset.modalities
    clean = np.stack([split.labels[m] for m in modalities])
    mask = present_mask(split, modalities) if split.masks else None
    if config.noise_file is not None:
        source = recorded or config.noise_file
        noisy, origin = read_noise_file(
            source,
            clean,
            modalities,
            dataset.num_classes,
            mask=mask,
            class_names=dataset.class_names,
            uncut=_instances_before_the_cut(dataset),
        )
        record = noise_record(spec, noisy, config.seed, modalities, dataset.class_names, mask)
        unknown = ("rate", "kind", "scope", "seed")  # how the labels of the file were made
        return noisy, {"kind": "file", "file": origin, **{k: v for k, v in record.items() if k not in unknown}}
    key, features = noise_key(config.seed), [split.features[m] for m in modalities]
    noisy = inject_noise(clean, spec, key, dataset.num_classes, features=features, mask=mask)
    return noisy, noise_record(spec, noisy, config.seed, modalities, dataset.class_names, mask, key)


def _instances_before_the_cut(dataset: Dataset) -> int | None:
    """Number of the instances from which the training split was cut; None if it was not."""
    parts = dataset.metadata.get("cut", {}).get("instances", {})
    return sum(parts.values()) if "train" in parts else None


def oracle_noise(config: Config, dataset: Dataset, spec: NoiseSpec, noisy: NoisyLabels) -> OracleNoise:
    """The noise that a method may know: `assumed_noise`, else the true noise, as in the papers of such losses."""
    split, modalities, k = dataset.splits["train"], dataset.modalities, dataset.num_classes
    m, rate = len(modalities), config.assumed_noise
    if rate is not None:
        others = (1.0 - np.eye(k)) / max(k - 1, 1)
        transition, wrong = (1.0 - rate) * np.eye(k) + rate * others, np.full(m, rate)
    else:
        mask, clean, given = present_mask(split, modalities), np.asarray(noisy.clean), np.asarray(noisy.labels)
        wrong = np.asarray(noisy.wrong_share)
        if config.noise_file is not None or spec.kind == "instance-dependent":  # without a matrix: count
            counts = np.zeros((m, k, k))
            for i in range(m):
                np.add.at(counts[i], (clean[i, mask[i]], given[i, mask[i]]), 1.0)
            size = counts.sum(axis=-1, keepdims=True)
            transition = np.where(size > 0, counts / np.maximum(size, 1.0), np.eye(k))
        else:
            features = [split.features[name] for name in modalities]
            transition = transition_matrix(spec, k, noise_key(config.seed), labels=clean, features=features, mask=mask)
    return OracleNoise(np.array(np.broadcast_to(transition, (m, k, k)), np.float32), np.array(wrong, np.float32))


def validation_labels(
    config: Config, dataset: Dataset, spec: NoiseSpec
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Noisy validation labels of the samples that are present, modality -> [N], and their record.

    A modality with fewer rows than others is padded and masked.
    """
    split, modalities = dataset.splits["valid"], dataset.modalities
    n = len(split)

    def padded(x: np.ndarray) -> np.ndarray:
        return np.pad(x, [(0, n - len(x))] + [(0, 0)] * (x.ndim - 1))

    clean = np.stack([padded(split.labels[m]) for m in modalities])
    mask = np.stack([padded(split.present(m)) for m in modalities])
    features = [padded(split.features[m]) for m in modalities]
    train = dataset.splits["train"]
    like = NoiseSource(
        noise_key(config.seed),
        np.stack([train.labels[m] for m in modalities]),
        [train.features[m] for m in modalities],
        present_mask(train, modalities),
    )
    key = validation_noise_key(config.seed)
    noisy = inject_noise(clean, spec, key, dataset.num_classes, features=features, mask=mask, like=like)
    record = noise_record(spec, noisy, config.seed, modalities, dataset.class_names, mask, key)
    given = np.asarray(noisy.labels)
    return {m: given[i, mask[i]] for i, m in enumerate(modalities)}, record


def present_mask(split: Split, modalities: Sequence[str]) -> np.ndarray:
    """Which samples of a split are present, bool [M, N]."""
    return np.stack([split.present(m) for m in modalities])
