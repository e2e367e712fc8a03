"""The data structure that all parts of the package use: named modalities, aligned rows, labels per modality.

Shape letters: N instances of a split, D features of a modality, K classes.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["SPLITS", "Dataset", "Split", "array_head", "array_sha256"]

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Split:
    """One split: row j of every modality belongs to instance j.

    In the validation and test splits a modality may have more rows than others (unpaired gallery items), so that N may
    differ between modalities. In the training split all modalities have N rows, and masks mark missing samples.

    Attributes:
        features: modality -> float32 [N, D of that modality]; rows of missing samples hold zeros.
        labels: modality -> int32 [N], values 0..K-1; 0 for missing samples. Modalities may disagree on an instance.
        masks: modality -> bool [N], False where the sample of that modality is missing; only modalities with a missing
            sample have one.
        ids: text [N], names of the instances, or None.
    """

    features: Mapping[str, np.ndarray]
    labels: Mapping[str, np.ndarray]
    masks: Mapping[str, np.ndarray] = field(default_factory=dict)
    ids: np.ndarray | None = None

    def __len__(self) -> int:
        return max(len(y) for y in self.labels.values())

    def present(self, modality: str) -> np.ndarray:
        """bool [N]: which samples of a modality are present."""
        mask = self.masks.get(modality)
        return np.ones(len(self.labels[modality]), bool) if mask is None else mask

    def samples(self, modality: str) -> tuple[np.ndarray, np.ndarray]:
        """Features and labels of the samples of a modality that are present."""
        x, y = self.features[modality], self.labels[modality]
        return (x, y) if modality not in self.masks else (x[self.masks[modality]], y[self.masks[modality]])


@dataclass(frozen=True)
class Dataset:
    """Paired features of m modalities in three splits.

    Attributes:
        name: name of the data set in tables and file names.
        modalities: their names, in the order that models and tables use.
        class_names: K names; label k stands for `class_names[k]`.
        splits: `train`, `valid` and `test`.
        metadata: facts to store with a run (source, attribution, versions), as values that JSON can hold.
        sha256: digests of arrays that are already known, `SPLIT/MODALITY/features` (or labels, mask) -> digest.
    """

    name: str
    modalities: tuple[str, ...]
    class_names: tuple[str, ...]
    splits: Mapping[str, Split]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    sha256: Mapping[str, str] = field(default_factory=dict)

    @property
    def num_classes(self) -> int:
        """K, the number of classes."""
        return len(self.class_names)

    @property
    def dims(self) -> dict[str, int]:
        """Modality -> number of features D."""
        return {m: self.splits["train"].features[m].shape[1] for m in self.modalities}

    def arrays(self) -> dict[str, np.ndarray]:
        """Every array by the name that `sha256` uses, in a fixed order."""
        arrays = {}
        for name in SPLITS:
            split = self.splits[name]
            for m in self.modalities:
                arrays[f"{name}/{m}/features"], arrays[f"{name}/{m}/labels"] = split.features[m], split.labels[m]
                if m in split.masks:
                    arrays[f"{name}/{m}/mask"] = split.masks[m]
        return arrays

    def digest(self) -> str:
        """SHA-256 over names, shapes, features, labels and masks of all splits; equal data give equal digests."""
        sha = hashlib.sha256()
        for name, array in self.arrays().items():
            sha.update(f"{name} {self.sha256.get(name) or array_sha256(array)}\n".encode())
        return sha.hexdigest()


def array_head(array: np.ndarray) -> bytes:
    """What the digest of an array begins with: its type and shape."""
    return f"{array.dtype.str}{array.shape};".encode()


def array_sha256(array: np.ndarray) -> str:
    """SHA-256 of the dtype, shape and content (C order) of an array, read in blocks."""
    sha = hashlib.sha256(array_head(array))
    rows = max(1, (1 << 24) // max(1, array.dtype.itemsize * int(np.prod(array.shape[1:]))))
    for start in range(0, len(array), rows):
        sha.update(np.ascontiguousarray(array[start : start + rows]).data.cast("B"))
    return sha.hexdigest()
