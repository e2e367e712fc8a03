"""The data structure that all parts of the package use: named modalities, aligned rows, labels per modality.

Shape letters: N instances of a split, D features of a modality, K classes.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import Any

import numpy as np

from mrl_jax.cut_options import is_split
from mrl_jax.errors import InputError
from mrl_jax.notebook import facts_html, facts_text

__all__ = ["SPLITS", "Dataset", "Split", "array_head", "array_sha256", "check_modality_names", "is_picture"]

SPLITS = ("train", "valid", "test")
"""Names of the splits in their order: training, validation, test."""
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")


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
        shown: modality -> text [N], what is shown of each sample: the text itself, or the path of a picture; "" where
            there is nothing. Not a part of the digest.
    """

    features: Mapping[str, np.ndarray]
    labels: Mapping[str, np.ndarray]
    masks: Mapping[str, np.ndarray] = field(default_factory=dict)
    ids: np.ndarray | None = None
    shown: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __repr__(self) -> str:
        return facts_text("Split", self._facts())

    def _repr_html_(self) -> str:
        return facts_html("Split", self._facts())

    def _facts(self) -> dict[str, str]:
        sizes = {m: f"{len(y):,}" for m, y in self.labels.items()}
        each = dict.fromkeys(sizes.values())
        rows = " + ".join(each if len(each) == 1 else (f"{m} {size}" for m, size in sizes.items()))
        features = " + ".join(f"{m} [{x.shape[1]}]" for m, x in self.features.items())
        classes = {k for m in self.labels for k in np.unique(self.samples(m)[1]).tolist()}
        missing = {m: f"{int((~mask).sum()):,}" for m, mask in self.masks.items()}
        gaps = {"missing": " + ".join(f"{m} {count}" for m, count in missing.items())} if missing else {}
        return {"rows": rows, "features": features, "classes": str(len(classes))} | gaps

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

    def __post_init__(self) -> None:
        check_modality_names(self.modalities, self.name)

    def __repr__(self) -> str:
        return facts_text("Dataset", self._facts())

    def _repr_html_(self) -> str:
        names = ", ".join(self.class_names[:20]) + (", …" if self.num_classes > 20 else "")
        return facts_html("Dataset", self._facts() | {"class names": names})

    def _facts(self) -> dict[str, str]:
        sizes = [f"{len(split):,} {name}" for name, split in self.splits.items()]
        features = " + ".join(f"{m} [{d}]" for m, d in self.dims.items())
        return {"name": self.name, "features": features, "classes": str(self.num_classes), "rows": " / ".join(sizes)}

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        features: Mapping[str, Any] | None = None,
        label: Any = None,
        split: Any = None,
        ids: Any = None,
        shown: Mapping[str, Any] | None = None,
        *,
        split_seed: int = 0,
        valid_share: float | None = None,
        name: str | None = None,
    ) -> "Dataset":
        """Make a data set from a table with a row per instance.

        Args:
            frame: a DataFrame of pandas or polars, a table of Arrow or of anything that Arrow reads, a `Dataset` or
                `DatasetDict` of Hugging Face, a Bunch of scikit-learn; or split -> such a table. Or the path of a CSV
                or Parquet file, or of a folder with such files.
            features: modality -> its columns of numbers, its column of lists of numbers, or the beginning of the names
                of its columns ("image" for `image_0`, `image_1`, …). None: every column of lists is a modality, and so
                are columns that are numbered from 0 or 1. A row without a value in any of them is a missing sample.
            label: the column with the classes, as names or numbers; modality -> its column, where they differ; or the
                columns of one-hot labels, which name the classes. None: `label`, `labels` or `MODALITY_label`.
            split: the column that says train, valid or test; or percentages of the three, such as "60/15/25". None:
                the column `split`, or the keys of `frame`.
            ids: the column that names the rows; rows of the same id stay together when they are cut. None: `id` or
                `ids`, or the index of pandas if it does not only count rows.
            shown: modality -> the column that search and reports show of its samples: texts, or paths of picture files
                (in the working directory, if they are relative). None: the columns `MODALITY_shown`.
            split_seed: as in `load_dataset`.
            valid_share: as in `load_dataset`, for data with train and test.
            name: name of the data set; None for the name of the file without its ending, or "frame".

        Raises:
            InputError: the table does not fit; one line names the column and the first such row, counted from 0.

        Warns:
            DatasetWarning: columns of numbers are not used.

        Example:
            >>> import pandas as pd
            >>> frame = pd.DataFrame({"label": ["a", "b"] * 6, "x_0": range(12), "x_1": 1.0, "y_0": 0, "y_1": 2})
            >>> Dataset.from_frame(frame, split="50/25/25").dims
            {'x': 2, 'y': 2}
        """
        from mrl_jax import load_dataset  # by the face of the package: what loads data sets makes them of this class

        keys = dict(features or {})
        keys |= {f"{m}_labels": columns for m, columns in label.items()} if isinstance(label, Mapping) else {}
        keys |= {} if label is None or isinstance(label, Mapping) else {"labels": label}
        keys |= {} if ids is None else {"ids": ids}
        keys |= {f"{m}_shown": column for m, column in (shown or {}).items()}
        shares = split if split is None or is_split(split) else None
        keys |= {} if split is shares else {"split": split}
        is_path = isinstance(frame, str | PathLike)
        if is_path:  # whose keys are texts
            keys = {
                k: v if isinstance(v, str) or not isinstance(v, Iterable) else list(map(str, v))
                for k, v in keys.items()
            }
        data = load_dataset(frame, keys=keys, split=shares, split_seed=split_seed, valid_share=valid_share)
        return replace(data, name=name or (data.name if is_path else "frame"))

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


def is_picture(shown: str) -> bool:
    """Whether what is shown of a sample is the path of a picture file, by its ending; otherwise it is a text."""
    return shown.lower().endswith(_PICTURES)


def check_modality_names(names: Iterable[str], source: str) -> None:
    """Refuse names of modalities from which the name of a direction, `a->b`, could not be read back.

    Args:
        names: the names.
        source: where they come from, for the message.

    Raises:
        InputError: one is empty, or holds "->".
    """
    for name in names:
        if not name or "->" in name:
            raise InputError(
                f"{source}: modality {name!r}: a name must not be empty or hold '->', which stands between query and "
                "gallery in results; rename the array, or name it with keys (--keys NAME=KEY)"
            )


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
