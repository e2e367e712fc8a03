"""`load_dataset`: a data set by name, from a file, a folder or arrays, checked."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from numpy.lib.npyio import NpzFile

from mrl_jax.cut_options import CutOptions, key_entries, parse_keys, split_text
from mrl_jax.data.arrays import dataset_from_arrays
from mrl_jax.data.dataset import Dataset
from mrl_jax.data.emoji.versions import is_emoji_source
from mrl_jax.data.frames import dataset_from_frame, is_frame
from mrl_jax.data.published import prepared
from mrl_jax.data.published.catalog import CATALOG
from mrl_jax.data.published.load_file import dataset_from_layout, load_arrays
from mrl_jax.errors import InputError

__all__ = ["Dataset", "load_dataset"]


def load_dataset(
    source: str | PathLike[str] | Mapping[str, Any] | Dataset,
    modalities: Sequence[str] = (),
    *,
    set_name: str | None = None,
    keys: Sequence[str] | Mapping[str, Any] = (),
    split: str | Sequence[float] | None = None,
    split_seed: int = 0,
    valid_share: float | None = None,
    as_needed: bool = False,
) -> Dataset:
    """Load and check a data set.

    Args:
        source: "emoji", the embedded data set, or "emoji:1.0.0", an older version of it; the name of a set that
            `python -m mrl_jax.data prepare` has prepared ("wikipedia", "inria-websearch", "nus-wide", "xmedianet",
            "xmedia", "pascal-sentence"); the path of a file (`.npz`, MATLAB 5 and 7.3, HDF5, Parquet) or folder in the
            own layout or a published one (docs/data.md); a mapping of arrays with the same keys; or a `Dataset`, which
            is checked in the same way. The own layout is `{train,valid,test}_MODALITY` with rows = instances,
            `{train,valid,test}_labels` or `{train,valid,test}_MODALITY_labels` where modalities have labels of their
            own, and optionally `{train,valid,test}_MODALITY_mask` (false where a sample is missing),
            `{train,valid,test}_MODALITY_shown` (texts, or paths of pictures), `{train,valid,test}_ids` and
            `class_names`. Or a table, as `Dataset.from_frame` takes it.
        modalities: which to use, in this order; empty for the default of the data set (for a file: all, in its order).
        set_name: which published set the source should be. Its protocol then gives the validation split where the file
            has none, and a `DatasetWarning` reports sizes that differ from the published ones.
        keys: names for the arrays of a file or mapping: {"image": ("I_tr", "I_te")} for train and test, three keys for
            train, validation and test, one for data without splits; or entries "image=I_tr,I_te"; or the path of a JSON
            file. Names are modalities, `labels`, `ids`, `MODALITY_labels`, `MODALITY_mask`, `MODALITY_shown` and
            `class_names`. In tables (also CSV and Parquet): columns, or the beginning of their names; names are
            modalities, `labels`, `MODALITY_labels`, `MODALITY_shown`, `ids` and `split`.
        split: percentages of train, validation and test, such as "60/15/25" or (60, 15, 25), for data without splits.
            They are cut by class; instances with the same id stay together.
        split_seed: seed of `split` and `valid_share`; of "emoji" another of its splits, 0 for the default one.
        valid_share: fraction of the training split that becomes the validation split of data without one, by class.
        as_needed: ignore `keys`, `split` and `valid_share`, and the seed, if the data have other names, or splits of
            their own.

    Returns:
        The data set, float32 features and int32 labels 0..K-1. Arrays of prepared sets and of folders of `.npy` files
        are read-only memory maps.

    Raises:
        InputError: the source is wrong in any way; one line says what was given, the rule, the remedy.
    """
    from_frame = not isinstance(source, str | PathLike | Dataset) and is_frame(source)
    if not isinstance(source, str | PathLike | Mapping | Dataset) and not from_frame:
        raise InputError(
            f"data of type {type(source).__name__}: give a mapping of arrays, a table (pandas, polars, Arrow, Hugging "
            "Face), a path, the name of a set, or a Dataset"
        )
    named = keys if isinstance(keys, Mapping) else None
    keys = key_entries(keys) if keys and not (from_frame and named) else ()
    options = CutOptions(split_text(split), split_seed, valid_share, as_needed)
    _check_cut(source, keys, options)
    if isinstance(source, Dataset):
        checked = dataset_from_arrays(_arrays_of(source), source.name, modalities or source.modalities, source.name)
        return replace(checked, metadata=source.metadata)
    if from_frame:
        return dataset_from_frame(source, modalities, named=named or parse_keys(keys), options=options)
    if isinstance(source, Mapping):
        if other := [key for key in source if not isinstance(key, str)]:
            raise InputError(f"arrays: the key {other[0]!r} is no text; the names of arrays must be text: rename it")
        arrays = source if isinstance(source, NpzFile) else dict(source)  # an .npz reads an array on access
        return dataset_from_layout(arrays, "arrays", modalities, "arrays", set_name, None, keys, options)
    if is_emoji_source(source):
        from mrl_jax.data.emoji.load import load  # deferred: imports TFDS

        seed = 0 if split is not None or valid_share is not None else split_seed  # of a cut that does not apply here
        return load(tuple(modalities) or ("image", "text"), source=source, split_seed=seed)
    if source in CATALOG:
        return prepared.load(str(source), modalities)
    return load_arrays(Path(source).expanduser(), modalities, set_name=set_name, keys=keys, options=options)


def _check_cut(source: Any, keys: Sequence[str], options: CutOptions) -> None:
    """Refuse options of the cut that are wrong, or that have no effect on a source that has its splits."""
    own = is_emoji_source(source)
    options.check(seed_alone=own)
    has_splits = own or isinstance(source, Dataset) or (isinstance(source, str) and source in CATALOG)
    given = [n for n, v in (("keys", keys), ("split", options.split), ("valid_share", options.valid_share)) if v]
    if has_splits and given and not options.as_needed:
        name = source.name if isinstance(source, Dataset) else source
        instead = ", or give the file with --data-path, to the run or to prepare" if name in CATALOG else ""
        if own:
            instead = "; split_seed alone chooses another of its splits"
        raise InputError(
            f"{name} has its splits already, and {given[0]} is for files and arrays; leave it out{instead}"
        )


def _arrays_of(data: Dataset) -> dict[str, Any]:
    """The data set in the own layout, so that the checks of files apply to it."""
    arrays: dict[str, Any] = {"class_names": data.class_names}
    for name, split in data.splits.items():
        for m in data.modalities:
            arrays[f"{name}_{m}"], arrays[f"{name}_{m}_labels"] = split.features[m], split.labels[m]
            if m in split.masks:
                arrays[f"{name}_{m}_mask"] = split.masks[m]
            if m in split.shown:
                arrays[f"{name}_{m}_shown"] = split.shown[m]
        if split.ids is not None:
            arrays[f"{name}_ids"] = split.ids
    return arrays
