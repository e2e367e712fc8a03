"""Columns of DataFrames: classes and features are found by their names, not by their places."""

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np

from mrl_jax.data.dataset import SPLITS
from mrl_jax.data.own_layout import ENDS
from mrl_jax.data.values import plain_array
from mrl_jax.errors import InputError

__all__ = ["align_labels", "align_tables", "columns_of", "order_of"]

_PREFIXES = tuple(f"{s}_" for s in SPLITS)


def columns_of(table: Any) -> list[Any] | None:
    """The names of the columns of a DataFrame with two columns or more of numbers; None for anything else."""
    columns, dtypes = getattr(table, "columns", None), getattr(table, "dtypes", None)
    if columns is None or dtypes is None or len(columns) < 2:
        return None
    if not all(_is_numeric(dtype) for dtype in dtypes):
        return None
    return [int(name) if isinstance(name, Integral) else str(name) for name in list(columns)]


def _is_numeric(dtype: Any) -> bool:
    kind = getattr(dtype, "kind", None)
    return kind in tuple("iufb") if kind is not None else str(dtype).startswith(("Int", "UInt", "Float", "Bool"))


def align_tables(
    arrays: Mapping[str, Any], names: Mapping[str, str], source: str
) -> tuple[Mapping[str, Any], dict[str, str], dict[str, list[Any]]]:
    """Give the DataFrames among arrays the same columns, in the same order, wherever they stand for the same.

    Columns of labels are classes: those of all labels together, 0 where a DataFrame lacks one, and their names become
    `class_names` if there are none. Columns of a modality are the same features in every split.

    Args:
        arrays: the arrays; unchanged if none is a DataFrame. Only a dict can hold one: other mappings read files.
        names: key of the own layout, with or without a split -> key in `arrays`.
        source: where they come from, for messages.

    Returns:
        The arrays, with NumPy arrays instead of DataFrames; the names, perhaps with `class_names`; and modality ->
        names of its columns, for those that have some.

    Raises:
        InputError: a column is there twice, a column of labels is not in `class_names`, or splits of a modality have
            different columns.
    """
    if not any(columns_of(value) for value in (arrays.values() if isinstance(arrays, dict) else ())):
        return arrays, dict(names), {}
    roles: dict[str, dict[str, Any]] = {}
    for own, key in names.items():
        role = next((own.removeprefix(p) for p in _PREFIXES if own.startswith(p)), own)
        if own == "class_names" or columns_of(arrays[key]) is None:
            continue
        end = role.rpartition("_")[2]
        if end == "labels" or end not in ENDS:
            roles.setdefault("labels" if end == "labels" else role, {})[key] = arrays[key]
    changed, names, columns = dict(arrays), dict(names), dict[str, list[Any]]()
    for role, tables in roles.items():
        if role == "labels":
            given = names.get("class_names")
            fixed = () if given is None else plain_array(arrays[given], f"{source}: {given}").ravel().tolist()
            aligned, classes = align_labels(tables, [str(name) for name in fixed], source)
            changed |= aligned
            if classes and given is None:
                changed["class_names"], names["class_names"] = np.array(classes), "class_names"
        else:
            aligned, order = _align_features(tables, source)
            changed |= aligned
            columns |= {role: order} if order else {}
    return changed, names, columns


def order_of(given: Sequence[Any], wanted: Sequence[Any], what: str) -> list[int] | None:
    """The places of the wanted columns among the given ones; None if they are the same, or cannot be compared.

    Args:
        given: names of columns; empty if they have none.
        wanted: likewise. Other checks refuse another number of columns.
        what: what has the given columns, for the message.

    Raises:
        InputError: a wanted column is not there.
    """
    if not given or len(given) != len(wanted) or list(given) == list(wanted):
        return None
    if lacking := [name for name in wanted if name not in given]:
        raise InputError(
            f"{what} has no column {str(lacking[0])!r}, which the run was trained on; rename the columns, or give "
            "x.to_numpy() to go by their places"
        )
    return [list(given).index(name) for name in wanted]


def align_labels(
    tables: Mapping[str, Any], class_names: list[str], source: str
) -> tuple[dict[str, np.ndarray], list[str]]:
    """One-hot or multi-hot labels in DataFrames, with a column for each class of any of them.

    Args:
        tables: name -> DataFrame.
        class_names: the classes in their order; empty for those of the columns, in the order of the first DataFrame.
        source: where they come from, for messages.

    Returns:
        Name -> numbers [N, K]; and the names of the classes, none if the columns are numbered 0..K-1.

    Raises:
        InputError: a column is there twice, or is not in `class_names`.
    """
    values = {key: plain_array(table, f"{source}: {key}") for key, table in tables.items()}
    columns = {key: _named(key, table, source) for key, table in tables.items() if not _lies_across(values[key])}
    unnamed = {key for key, names in columns.items() if names == [*range(len(names))]}  # as pandas numbers columns
    if any(isinstance(name, str) for names in columns.values() for name in names) or len(unnamed) == len(columns):
        columns = {key: names for key, names in columns.items() if key not in unnamed}
    classes: list[Any] = list(dict.fromkeys(name for names in columns.values() for name in names))
    are_numbers = all(isinstance(name, int) for name in classes)
    if not class_names:
        classes = sorted(classes) if are_numbers else classes
    elif are_numbers and not {*map(str, classes)} <= {*class_names} and {*classes} <= {*range(len(class_names))}:
        classes = [*range(len(class_names))]
    else:
        for key, names in columns.items():
            if unknown := [name for name in names if str(name) not in class_names]:
                raise InputError(
                    f"{source}: {key} has the column {str(unknown[0])!r}, which is not in class_names; add it there, "
                    "or drop the column"
                )
        known = {str(name): name for name in classes}
        classes = [known.get(name, name) for name in class_names]
    aligned = {}
    for key, names in columns.items():
        aligned[key] = np.zeros((len(values[key]), len(classes)), values[key].dtype)
        aligned[key][:, [classes.index(name) for name in names]] = values[key]
    return aligned, [] if classes == [*range(len(classes))] else [str(name) for name in classes]


def _lies_across(labels: np.ndarray) -> bool:
    """Whether labels have an instance per column, so that the names of columns are not those of classes."""
    hot = labels.astype(bool)
    return bool((hot.sum(axis=0) == 1).all() and not (hot.sum(axis=1) == 1).all() and len(hot) < hot.shape[1])


def _align_features(tables: Mapping[str, Any], source: str) -> tuple[dict[str, np.ndarray], list[Any]]:
    """Features with the same columns in every split, and the names of these."""
    columns = {key: _named(key, table, source) for key, table in tables.items()}
    columns = {key: names for key, names in columns.items() if names != [*range(len(names))]}  # not named
    aligned, first = {}, next(iter(columns), "")
    for key, names in columns.items():
        if len(names) == len(columns[first]) and (lacking := [name for name in columns[first] if name not in names]):
            raise InputError(
                f"{source}: {key} has no column {str(lacking[0])!r}, which {first} has; a modality needs the same "
                "features in every split: rename the columns, or give x.to_numpy() of both to go by their places"
            )
        values = plain_array(tables[key], f"{source}: {key}")
        if len(names) == len(columns[first]):
            values = values[:, [names.index(name) for name in columns[first]]]
        aligned[key] = values
    return aligned, columns.get(first, [])


def _named(key: str, table: Any, source: str) -> list[Any]:
    names = columns_of(table) or []
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{source}: {key} has two columns {str(twice)!r}; give every column a name of its own")
    return names
