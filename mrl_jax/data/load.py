"""`load_dataset`: a data set by name, from a file, a folder or arrays, checked."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from mrl_jax.data.arrays import dataset_from_arrays
from mrl_jax.data.dataset import Dataset
from mrl_jax.data.published import prepared
from mrl_jax.data.published.catalog import CATALOG
from mrl_jax.data.published.load_file import dataset_from_layout, load_arrays

__all__ = ["Dataset", "load_dataset"]


def load_dataset(
    source: str | PathLike[str] | Mapping[str, Any] | Dataset,
    modalities: Sequence[str] = (),
    *,
    set_name: str | None = None,
) -> Dataset:
    """Load and check a data set.

    Args:
        source: "emoji", the embedded data set; the name of a set that `python -m mrl_jax.data prepare` has prepared
            ("wikipedia", "inria-websearch", "nus-wide", "xmedianet", "xmedia", "pascal-sentence"); the path of a file
            (`.npz`, MATLAB 5 and 7.3, HDF5, Parquet) or folder in the own layout or a published one (docs/data.md); a
            mapping of arrays with the same keys; or a `Dataset`, which is checked in the same way. The own layout is
            `{train,valid,test}_MODALITY` with rows = instances, `{train,valid,test}_labels` or
            `{train,valid,test}_MODALITY_labels` where modalities have labels of their own, and optionally
            `{train,valid,test}_MODALITY_mask` (false where a sample is missing), `{train,valid,test}_ids` and
            `class_names`.
        modalities: which to use, in this order; empty for the default of the data set (for a file: all, in its order).
        set_name: which published set the source should be. Its protocol then gives the validation split where the file
            has none, and a `DatasetWarning` reports sizes that differ from the published ones.

    Returns:
        The data set, float32 features and int32 labels 0..K-1. Arrays of prepared sets and of folders of `.npy` files
        are read-only memory maps.

    Raises:
        InputError: the source is wrong in any way; one line says what was given, the rule, the remedy.
    """
    if isinstance(source, Dataset):
        checked = dataset_from_arrays(_arrays_of(source), source.name, modalities or source.modalities, source.name)
        return replace(checked, metadata=source.metadata)
    if isinstance(source, Mapping):
        return dataset_from_layout(source, "arrays", modalities, "arrays", set_name)
    if source == "emoji":
        from mrl_jax.data.emoji.load import load  # deferred: imports TFDS

        return load(tuple(modalities) or ("image", "text"))
    if source in CATALOG:
        return prepared.load(str(source), modalities)
    return load_arrays(Path(source).expanduser(), modalities, set_name=set_name)


def _arrays_of(data: Dataset) -> dict[str, Any]:
    """The data set in the own layout, so that the checks of files apply to it."""
    arrays: dict[str, Any] = {"class_names": data.class_names}
    for name, split in data.splits.items():
        for m in data.modalities:
            arrays[f"{name}_{m}"], arrays[f"{name}_{m}_labels"] = split.features[m], split.labels[m]
            if m in split.masks:
                arrays[f"{name}_{m}_mask"] = split.masks[m]
        if split.ids is not None:
            arrays[f"{name}_ids"] = split.ids
    return arrays
