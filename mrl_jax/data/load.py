"""Data sets: `load_dataset(name, path or arrays)` gives a `Dataset` of NumPy arrays, checked."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from mrl_jax.data.arrays import dataset_from_arrays
from mrl_jax.data.dataset import SPLITS, Dataset, Split
from mrl_jax.data.published.catalog import CATALOG, deviations
from mrl_jax.errors import DatasetWarning, InputError

__all__ = ["SPLITS", "Dataset", "Split", "load_arrays", "load_dataset"]


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
            mapping of arrays with the same keys; or a `Dataset`, which is checked just so. The own layout is
            `{train,valid,test}_MODALITY` with rows = instances, `{train,valid,test}_labels` or
            `{train,valid,test}_MODALITY_labels` where modalities have labels of their own, and optionally
            `{train,valid,test}_MODALITY_mask` (false where a sample is missing), `{train,valid,test}_ids` and
            `class_names`.
        modalities: which to use, in this order; empty for the data set's own choice (a file's: all, in its order).
        set_name: which published set the source should be: its protocol then makes the validation split where the file
            has none, and a `DatasetWarning` tells where sizes differ from the published ones.

    Returns:
        The data set, float32 features and int32 labels 0..K-1. Arrays of prepared sets and of folders of `.npy` files
        are memory maps, to be read only.

    Raises:
        InputError: anything that is wrong with the source, in one line: what was given, the rule, the remedy.
    """
    if isinstance(source, Dataset):
        checked = dataset_from_arrays(_arrays_of(source), source.name, modalities or source.modalities, source.name)
        return replace(checked, metadata=source.metadata)
    if isinstance(source, Mapping):
        return _checked(source, "arrays", modalities, "arrays", set_name)
    if source == "emoji":
        from mrl_jax.data.emoji import emoji  # deferred: brings the data packages

        return emoji.load(tuple(modalities) or ("image", "text"))
    if source in CATALOG:
        from mrl_jax.data.published import prepared

        return prepared.load(str(source), modalities)
    return load_arrays(Path(source).expanduser(), modalities, set_name=set_name)


def load_arrays(
    path: Path,
    modalities: Sequence[str] = (),
    *,
    set_name: str | None = None,
    keep: Callable[[str, np.ndarray], np.ndarray] | None = None,
) -> Dataset:
    """Load a file or folder; `keep(key, features)` may put checked features elsewhere before the next are read.

    Args:
        path: the file or folder.
        modalities: as in `load_dataset`.
        set_name: as in `load_dataset`.
        keep: takes `SPLIT_MODALITY` and float32 [N, D], and returns what stands for them, such as a memory map.

    Raises:
        InputError: as `load_dataset`.
    """
    from mrl_jax.data.published.key_layouts import open_source

    if not path.exists():
        what = "does not exist" if path.suffix or len(path.parts) > 1 else "is neither a file nor a data set"
        raise InputError(
            f"data {str(path)!r} {what}; give the path of a file or folder, or one of: emoji, {', '.join(CATALOG)}"
        )
    with open_source(path, set_name) as arrays:
        return _checked(arrays, path.stem, modalities, str(path), set_name, keep)


def _checked(
    arrays: Mapping[str, Any],
    name: str,
    modalities: Sequence[str],
    source: str,
    set_name: str | None,
    keep: Callable[[str, np.ndarray], np.ndarray] | None = None,
) -> Dataset:
    """Arrays of any known layout as a data set, compared with what was published of the set."""
    from mrl_jax.data.published.key_layouts import canonical

    facts = CATALOG.get(set_name or "")
    arrays, _ = canonical(arrays, set_name, source)
    data = dataset_from_arrays(arrays, name, modalities, source, keep, None if facts is None else facts.classes)
    if facts is None:
        return data
    unnamed = data.class_names == tuple(map(str, range(data.num_classes)))
    if unnamed and len(facts.class_names) == data.num_classes:
        data = replace(data, class_names=facts.class_names)
    found = deviations(facts, data)
    if found:
        warnings.warn(f"{source}: {'; '.join(found)}", DatasetWarning, stacklevel=4)
    metadata = {**data.metadata, **({"deviations": found} if found else {})}
    return replace(data, name=str(set_name), metadata=metadata)


def _arrays_of(data: Dataset) -> dict[str, Any]:
    """The data set in the layout of a file, so that the same checks serve both."""
    arrays: dict[str, Any] = {"class_names": data.class_names}
    for name, split in data.splits.items():
        for m in data.modalities:
            arrays[f"{name}_{m}"], arrays[f"{name}_{m}_labels"] = split.features[m], split.labels[m]
            if m in split.masks:
                arrays[f"{name}_{m}_mask"] = split.masks[m]
        if split.ids is not None:
            arrays[f"{name}_ids"] = split.ids
    return arrays
