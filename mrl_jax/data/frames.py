"""Tables, and tables by split, as data sets: which columns are used, and what is wrong with them."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mrl_jax.cut_options import CutOptions
from mrl_jax.data.dataset import SPLITS, Dataset
from mrl_jax.data.formats.arrow_table import TableArrays, arrays_of_table
from mrl_jax.data.formats.columns import SPLIT_NUMBERS, check_modalities, is_labels, is_modality, lacking
from mrl_jax.data.formats.errors import RefusedError
from mrl_jax.data.published.load_file import dataset_from_layout
from mrl_jax.data.table_objects import column_name, is_bunch, is_table, table_of
from mrl_jax.errors import DatasetWarning, InputError, NotTrainableError, listed

__all__ = ["dataset_from_frame", "is_frame"]


def is_frame(x: Any) -> bool:
    """Whether this is a table, or a dict of tables by split, that `dataset_from_frame` takes."""
    if isinstance(x, dict):
        return is_bunch(x) or (_by_split(x) and all(map(is_table, x.values())))
    return is_table(x)


def _by_split(x: Mapping[Any, Any]) -> bool:
    return any(str(name).lower() in SPLIT_NUMBERS for name in x)


def dataset_from_frame(
    frame: Any,
    modalities: Sequence[str] = (),
    *,
    name: str = "frame",
    named: Mapping[str, Any] | None = None,
    options: CutOptions | None = None,
) -> Dataset:
    """A data set from a table.

    Args:
        frame: a table, or split -> table.
        modalities: as in `load_dataset`.
        name: name of the data set, also for messages.
        named: modality, `labels`, `MODALITY_labels`, `MODALITY_shown`, `ids` or `split` -> its column or columns, or
            the beginning of their names; None to go by their names.
        options: what to cut.

    Raises:
        InputError: the columns do not fit; names the column and the first row.

    Warns:
        DatasetWarning: columns of numbers are not used.
    """
    options = options or CutOptions()
    named = {role: _as_names(columns) for role, columns in (named or {}).items()}
    try:
        read = _read(frame, named, modalities, name)
    except InputError:
        if not (named and options.as_needed):
            raise
        read = _read(frame, None, modalities, name)
    if not named and (note := read.roles.unused_note()):
        warnings.warn(f"{name}: {note}", DatasetWarning, stacklevel=3)
    data = dataset_from_layout(read.arrays, name, modalities, name, None, options=options, is_own=True)
    columns = {m: list(names) for m in data.modalities if len(names := read.roles.features[m]) > 1}
    return replace(data, metadata={**data.metadata, **({"columns": columns} if columns else {})})


def _as_names(columns: Any) -> tuple[str, ...]:
    """Names of columns, from one or several."""
    if isinstance(columns, Iterable) and not isinstance(columns, str | bytes):
        return tuple(column_name(name) for name in columns)
    return (column_name(columns),)


def _read(frame: Any, named: Mapping[str, Sequence[str]] | None, modalities: Sequence[str], source: str) -> TableArrays:
    if isinstance(frame, Mapping) and not is_bunch(frame):
        return _read_splits(frame, named, modalities, source)
    return _arrays(frame, named, modalities, source)


def _arrays(
    frame: Any, named: Mapping[str, Sequence[str]] | None, modalities: Sequence[str], source: str
) -> TableArrays:
    table = table_of(frame, source)
    if isinstance(frame, Mapping) and not modalities and not any(is_modality(role) for role in named or {}):
        found = listed((name for name in table.columns if name != "label"), 4)
        raise InputError(
            f"{source} is a Bunch with one table of features ({found}); say which belong to which modality: "
            "features={'image': [COLUMN, …], 'text': 'PREFIX'} (keys of load_dataset)"
        )
    views = [role for role in table.named if role != "labels"]
    names = modalities if len(modalities) == len(views) and not {*modalities} & {*views} else views
    by_place = {dict(zip(views, names, strict=True)).get(role, role): c for role, c in table.named.items()}
    if any(is_modality(role) for role in named or {}):
        by_place = {role: columns for role, columns in by_place.items() if role == "labels"}
    if any(is_labels(role) for role in named or {}):
        by_place.pop("labels", None)
    named = by_place | dict(named or {})
    try:
        read = arrays_of_table(table, named)
    except RefusedError as error:
        raise InputError(f"{source}: {error}") from None
    try:
        check_modalities(read.roles)
    except RefusedError as error:
        raise NotTrainableError(f"{source}: {error}") from None
    if message := lacking(read.roles):
        raise InputError(f"{source}: {message}")
    return read


def _read_splits(
    frames: Mapping[Any, Any], named: Mapping[str, Sequence[str]] | None, modalities: Sequence[str], source: str
) -> TableArrays:
    """Tables by split, such as a DatasetDict."""
    known = {key: SPLIT_NUMBERS[str(key).lower()] for key in frames if str(key).lower() in SPLIT_NUMBERS}
    if len(set(known.values())) < len(known):
        raise InputError(f"{source}: {', '.join(map(str, known))} name a split twice; keep one of each")
    if others := [str(key) for key in frames if key not in known]:
        warnings.warn(f"{source}: not used: {listed(others)}; splits are train, valid and test", DatasetWarning, 4)
    arrays, reads = dict[str, np.ndarray](), list[TableArrays]()
    for key, number in known.items():
        read = _arrays(frames[key], named, modalities, f"{source}[{key!r}]")
        if read.roles.split is not None:
            raise InputError(
                f"{source}[{key!r}] is a split and has a column {read.roles.split!r}; drop it, or give one table"
            )
        if reads and {*read.roles.features} != {*reads[0].roles.features}:
            raise InputError(
                f"{source}[{key!r}] has the modalities {', '.join(read.roles.features)}, but others have "
                f"{', '.join(reads[0].roles.features)}; give all splits the same columns"
            )
        names = read.arrays.pop("class_names", None)
        if names is not None:
            arrays["class_names"] = names
        arrays |= {f"{SPLITS[number]}_{own}": x for own, x in read.arrays.items()}
        reads.append(read)
    return TableArrays(arrays, reads[0].roles)
