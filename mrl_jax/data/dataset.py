"""The one form in which data travel: named modalities, aligned rows, labels per modality.

Shape letters: N instances of a split, D features of a modality, K classes.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["SPLITS", "Dataset", "Split"]

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Split:
    """One split: row j of every modality belongs to instance j.

    Attributes:
        features: modality -> float32 [N, D of that modality].
        labels: modality -> int32 [N], values 0..K-1. Modalities may disagree on an instance (noise).
    """

    features: Mapping[str, np.ndarray]
    labels: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(next(iter(self.labels.values())))


@dataclass(frozen=True)
class Dataset:
    """Paired features of m modalities in three splits.

    Attributes:
        name: what the data set is called in tables and file names.
        modalities: their names, in the order in which models and tables use them.
        class_names: K names; label k stands for `class_names[k]`.
        splits: `train`, `valid` and `test`.
        metadata: JSON-ready facts worth keeping with a run (source, attribution, versions).
    """

    name: str
    modalities: tuple[str, ...]
    class_names: tuple[str, ...]
    splits: Mapping[str, Split]
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def num_classes(self) -> int:
        """K, the number of classes."""
        return len(self.class_names)

    @property
    def dims(self) -> dict[str, int]:
        """Modality -> number of features D."""
        return {m: self.splits["train"].features[m].shape[1] for m in self.modalities}

    def digest(self) -> str:
        """SHA-256 over names, shapes, features and labels of all splits: the same data give the same digest."""
        sha = hashlib.sha256()
        for name in SPLITS:
            split = self.splits[name]
            for modality in self.modalities:
                for array in (split.features[modality], split.labels[modality]):
                    sha.update(f"{name}/{modality}/{array.dtype.str}/{array.shape};".encode())
                    sha.update(np.ascontiguousarray(array).data.cast("B"))
        return sha.hexdigest()
