"""Load a file or folder in the own layout or a public one, and compare it with what was published of the set."""

import shlex
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mrl_jax.cut_options import CutOptions, parse_keys
from mrl_jax.data.arrays import dataset_from_arrays
from mrl_jax.data.dataset import Dataset
from mrl_jax.data.key_names import VIEW_WORDS
from mrl_jax.data.own_layout import SPLIT_WORDS
from mrl_jax.data.published.assign_splits import canonical
from mrl_jax.data.published.catalog import CATALOG, deviations
from mrl_jax.data.published.source_folder import open_source
from mrl_jax.data.shards import join_shards, numbered_notes, split_and_modality
from mrl_jax.errors import DatasetWarning, InputError, listed
from mrl_jax.files import refuse_address

__all__ = ["dataset_from_layout", "load_arrays"]

Keep = Callable[[str, np.ndarray], np.ndarray]


def load_arrays(
    path: Path,
    modalities: Sequence[str] = (),
    *,
    set_name: str | None = None,
    keep: Keep | None = None,
    keys: Sequence[str] = (),
    options: CutOptions | None = None,
) -> Dataset:
    """Load a file or folder, one array at a time.

    Args:
        path: the file or folder.
        modalities: as in `load_dataset`.
        set_name: as in `load_dataset`.
        keep: takes `SPLIT_MODALITY` and its checked features, float32 [N, D], and returns the array to use instead, for
            example a memory map; it is called before the next array is read.
        keys: names for the arrays of the file, as `cut_options.parse_keys` takes them.
        options: what to cut.

    Raises:
        InputError: as in `load_dataset`.
    """
    refuse_address(path, "data")
    if not path.exists():
        problem = "does not exist" if path.suffix or len(path.parts) > 1 else "is neither a file nor a data set"
        raise InputError(
            f"data {str(path)!r} {problem}; give the path of a file or folder, or one of: emoji, {', '.join(CATALOG)}"
        )
    named = parse_keys(keys)
    with ExitStack() as stack:
        try:
            arrays = stack.enter_context(open_source(path, set_name, named))
        except InputError:
            if not (named and options is not None and options.as_needed):
                raise
            arrays = stack.enter_context(open_source(path, set_name))
        if lacks := getattr(arrays, "lacks", ""):
            raise InputError(f"{path}: {lacks}")
        if path.is_dir() and any(path.glob("*.npy")):
            return _from_folder(arrays, path, modalities, set_name, keep, keys, options)
        is_own = getattr(arrays, "is_own", False)  # then the keys are used up
        keys = () if is_own else keys
        return dataset_from_layout(arrays, path.stem, modalities, str(path), set_name, keep, keys, options, is_own)


def _from_folder(
    arrays: Mapping[str, Any],
    path: Path,
    modalities: Sequence[str],
    set_name: str | None,
    keep: Keep | None,
    keys: Sequence[str],
    options: CutOptions | None,
) -> Dataset:
    """As `dataset_from_layout`, for a folder of `.npy` files; numbered files of one name are one array."""
    named = [key for of_one in parse_keys(keys).values() for key in of_one]
    words = {word for words in SPLIT_WORDS.values() for word in words}
    joined, _ = join_shards(arrays, str(path), (*modalities, *named), splits=words, apart=VIEW_WORDS)
    several = {name: parts for name, parts in joined.shards.items() if len(parts) > 1}
    note = ""
    if several:
        files = listed((f"{name} ({len(parts)})" for name, parts in several.items()), 6)
        note = f"numbered files of one name are joined: {files}"
        firsts = [[split_and_modality(key, words)[1] for key in parts[:2]] for parts in several.values()]
        there = {split_and_modality(key, words) for key in arrays}
        splits = {split for split, _ in there if split} or {""}
        apart = [  # a modality needs a file in every split
            first
            for first in firsts
            if "labels" not in first[0] and all((split, m) in there for split in splits for m in first)
        ]
        if apart:
            note += f"; --modalities {shlex.join(apart[0])} takes each as a modality of its own"
    try:
        data = dataset_from_layout(joined, path.stem, modalities, str(path), set_name, keep, keys, options)
    except InputError as error:
        raise InputError(f"{error}; {note}" if note else str(error)) from error
    notes = [*([note] if note else []), *(() if modalities or keys else numbered_notes(data.modalities, ("view",)))]
    if notes:
        warnings.warn(f"{path}: {'; '.join(notes)}", DatasetWarning, stacklevel=3)
    return data


def dataset_from_layout(
    arrays: Mapping[str, Any],
    name: str,
    modalities: Sequence[str],
    source: str,
    set_name: str | None,
    keep: Keep | None = None,
    keys: Sequence[str] = (),
    options: CutOptions | None = None,
    is_own: bool = False,
) -> Dataset:
    """Check arrays of any known layout, join them to a `Dataset` and compare it with the published set.

    Args:
        arrays: name -> array, read on access.
        name: name of the data set where `set_name` is None.
        modalities: as in `load_dataset`.
        source: where the arrays come from, for messages.
        set_name: as in `load_dataset`.
        keep: as in `load_arrays`.
        keys: as in `load_arrays`.
        options: as in `load_arrays`.
        is_own: whether the arrays have the keys of the own layout, with or without splits; others are not recognised.

    Raises:
        InputError: as in `load_dataset`.

    Warns:
        DatasetWarning: the data differ from what was published of the set.
    """
    facts = CATALOG.get(set_name or "")
    arrays, cut, columns = canonical(arrays, source, modalities, set_name, keys, options, is_own)
    data = dataset_from_arrays(arrays, name, modalities, source, keep, None if facts is None else facts.classes)
    columns = {m: columns[m] for m in data.modalities if m in columns}
    facts_of_file = {"cut": cut, "columns": columns}
    data = replace(data, metadata={**data.metadata, **{k: v for k, v in facts_of_file.items() if v}})
    if facts is None:
        return data
    unnamed = data.class_names == tuple(map(str, range(data.num_classes)))
    if unnamed and len(facts.class_names) == data.num_classes:
        data = replace(data, class_names=facts.class_names)
    differences = deviations(facts, data)
    if differences:
        warnings.warn(f"{source}: {'; '.join(differences)}", DatasetWarning, stacklevel=4)
    metadata = {**data.metadata, **({"deviations": differences} if differences else {})}
    return replace(data, name=str(set_name), metadata=metadata)
