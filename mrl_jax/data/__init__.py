"""Data sets: `load_dataset(name, path or arrays)` gives a `Dataset` of NumPy arrays, checked."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from mrl_jax.data.arrays import dataset_from_arrays, read_npz
from mrl_jax.data.dataset import SPLITS, Dataset, Split
from mrl_jax.errors import InputError

__all__ = ["SPLITS", "Dataset", "Split", "load_dataset"]

BUILT_IN = ("emoji",)


def load_dataset(source: str | PathLike[str] | Mapping[str, Any] | Dataset, modalities: Sequence[str] = ()) -> Dataset:
    """Load and check a data set.

    Args:
        source: "emoji", the embedded data set; the path of an `.npz`; a mapping with the same keys as such a file
            (`{train,valid,test}_MODALITY` with rows = instances, `{train,valid,test}_labels`, or
            `{train,valid,test}_MODALITY_labels` where modalities have labels of their own, and optionally
            `class_names`); or a `Dataset`, which is checked just so.
        modalities: which to use, in this order; empty for the data set's own choice (a file's: all, in its order).

    Returns:
        The data set, float32 features and int32 labels 0..K-1.

    Raises:
        InputError: anything that is wrong with the source, in one line: what was given, the rule, the remedy.
    """
    if isinstance(source, Dataset):
        checked = dataset_from_arrays(_arrays_of(source), source.name, modalities or source.modalities, source.name)
        return replace(checked, metadata=source.metadata)
    if isinstance(source, Mapping):
        return dataset_from_arrays(source, "arrays", modalities)
    if source == "emoji":
        from mrl_jax.data import emoji  # deferred: brings the data packages

        return emoji.load(tuple(modalities) or ("image", "text"))
    path = Path(source)
    if path.suffix != ".npz" and not path.exists():
        raise InputError(f"data {str(source)!r}: neither a file nor a built-in set ({', '.join(BUILT_IN)})")
    return dataset_from_arrays(read_npz(path), path.stem, modalities, str(path))


def _arrays_of(data: Dataset) -> dict[str, Any]:
    """The data set in the layout of an `.npz`, so that the same checks serve both."""
    arrays: dict[str, Any] = {"class_names": data.class_names}
    for name, split in data.splits.items():
        for m in data.modalities:
            arrays[f"{name}_{m}"], arrays[f"{name}_{m}_labels"] = split.features[m], split.labels[m]
    return arrays
