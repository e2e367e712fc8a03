"""Embeddings of one split, of any origin, with the labels and pairs to score them by.

Shape letters: N rows of a modality, L embedding dimensions, K classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mrl_jax.data.arrays import finite_float32
from mrl_jax.data.tables import align_labels, columns_of
from mrl_jax.data.values import plain_array
from mrl_jax.errors import InputError
from mrl_jax.tensors import from_tensor

__all__ = ["Embedded", "check_embedded"]


@dataclass(frozen=True)
class Embedded:
    """Embeddings of one split.

    Attributes:
        source: their origin, for messages and tables.
        embeddings: modality -> float32 [N, L], or other rows to retrieve by.
        labels: modality -> integers [N], or multi-hot bool [N, K] in every modality; None without labels.
        instances: modality -> integers [N]; rows of two modalities with the same number are a pair.
        rows: modality -> integers [N], the row number of each sample in the data or file.
        class_names: K names, or () if classes are only numbers.
        split: split of the data that a run embedded, or None.
        epoch: epoch of the run's checkpoint, or None.
        digest: digest of the data set that a run embedded, or None.
        ids: modality -> text or integers [N], the ids in a file, or None.
        notes: remarks on how they were read, for readers of the scores.
        representation: what the rows are, one of `options.REPRESENTATIONS`.
    """

    source: str
    embeddings: Mapping[str, Any]
    labels: Mapping[str, np.ndarray] | None
    instances: Mapping[str, np.ndarray]
    rows: Mapping[str, np.ndarray] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    split: str | None = None
    epoch: int | None = None
    digest: str | None = None
    ids: Mapping[str, np.ndarray] | None = None
    notes: tuple[str, ...] = ()
    representation: str = "embedding"

    def class_name(self, k: int) -> str:
        """The name of class k, or its number if it has no name."""
        return self.class_names[k] if k < len(self.class_names) else str(k)

    def rows_of(self, modality: str) -> np.ndarray:
        """The row number in the data of each row of a modality."""
        return self.rows.get(modality, np.arange(len(self.instances[modality])))


def check_embedded(
    embeddings: Mapping[str, Any],
    labels: Any = None,
    ids: Any = None,
    class_names: Any = (),
    source: str = "embeddings",
    notes: tuple[str, ...] = (),
) -> Embedded:
    """Check embeddings of any origin, and number their pairs.

    Args:
        embeddings: modality -> numbers [N, L].
        labels: shared by all modalities, or modality -> labels: integers or names [N], or multi-hot [N, K]; None
            without labels.
        ids: shared by all modalities, or modality -> text or integers [N]; rows of two modalities with the same id are
            pairs. None: row i of one modality is paired with row i of any other of the same length.
        class_names: K names; () for none.
        source: their origin, for messages.
        notes: remarks on how they were read.

    Raises:
        InputError: no modality, shapes or lengths that do not fit, values that are not finite in float32, labels that
            are neither integers, names nor multi-hot, or labels or ids for only some modalities.
    """
    if not isinstance(embeddings, Mapping):
        raise InputError(f"{source}: a {type(embeddings).__name__}; give a mapping of modalities to embeddings [N, L]")
    if not embeddings:
        raise InputError(f"{source}: there are no embeddings; give one modality or more, each [N, L]")
    z = {str(m): _finite(m, x, source) for m, x in embeddings.items()}
    names = tuple(str(n) for n in np.asarray(class_names).ravel().tolist())
    if not all(name.strip() for name in names):
        number = next(k for k, name in enumerate(names) if not name.strip())
        raise InputError(f"{source}: class_names: the name of class {number} is empty; give every class a name")
    if len(set(names)) < len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise InputError(f"{source}: class_names holds {twice!r} twice; give every class a different name")
    checked = None
    if labels is not None:
        labels, names = _by_column(labels, names, source)
        checked, names = _labels(_spread(labels, z, "labels", source), names, source)
    given = None if ids is None else _checked_ids(_spread(ids, z, "ids", source), source)
    return Embedded(source, z, checked, _instances(z, given), {}, names, ids=given, notes=notes)


def _by_column(labels: Any, class_names: tuple[str, ...], source: str) -> tuple[Any, tuple[str, ...]]:
    """Labels in which the columns of DataFrames are the same classes in all modalities, and the class names."""
    given = dict(labels) if isinstance(labels, Mapping) else {"labels": labels}
    tables = {key: table for key, table in given.items() if columns_of(table) is not None}
    aligned, names = align_labels(tables, list(class_names), source) if tables else ({}, [])
    given |= aligned
    return given if isinstance(labels, Mapping) else given["labels"], class_names or tuple(names)


def _array(x: Any, what: str, source: str) -> np.ndarray:
    """Convert an array of any library to NumPy."""
    try:
        return np.asarray(from_tensor(x))
    except InputError as error:  # masked values
        raise InputError(f"{source}: {what} is {error}") from error
    except (RuntimeError, TypeError, ValueError) as error:  # tensors with gradients or on a GPU, ragged lists
        raise InputError(f"{source}: {what} is no array ({error}); give an array that numpy.asarray takes") from error


def _finite(m: str, x: Any, source: str) -> np.ndarray:
    """Embeddings as float32 [N, L]."""
    x = _array(x, m, source)
    if x.dtype.name == "bfloat16":  # NumPy does not know this type of JAX as a number
        x = x.astype(np.float32)
    if x.ndim != 2 or x.dtype.kind not in "fiub":
        raise InputError(
            f"{source}: {m} is {x.dtype} {list(x.shape)}; embeddings must be real numbers [N, L]; "
            "remove it, or name the modalities to use (--modalities A B)"
        )
    if 0 in x.shape:
        raise InputError(f"{source}: {m} is empty, shape {list(x.shape)}; give one row and column or more")
    rule = "embeddings must be finite: leave such rows out, and give ids if rows then no longer pair"
    return finite_float32(x, f"{source}: {m}", rule)


def _spread(given: Any, z: Mapping[str, np.ndarray], what: str, source: str) -> dict[str, np.ndarray]:
    """Give every modality its own array of the right length, from a shared array or from one per modality."""
    own = isinstance(given, Mapping)
    arrays = {}
    for m, x in z.items():
        key = f"{m}_{what}" if own else what
        if own and m not in given:
            raise InputError(f"{source}: {key} is missing, other modalities have {what}; give {what} to all or to none")
        y = _array(given[m] if own else given, key, source)
        if y.dtype.kind in "OT" and y.ndim:  # names in an array of objects, a Series or a Categorical
            y = plain_array(y, f"{source}: {key}")
        if y.ndim == 2 and 1 in y.shape and y.size == len(x):
            y = y.ravel()  # a column, or a row in files of MATLAB
        if y.dtype.kind == "S":
            y = np.char.decode(y, "utf-8", "backslashreplace")
        if y.ndim == 0 or len(y) != len(x):
            remedy = "" if own else f", or {m}_{what} for {m} alone"
            raise InputError(
                f"{source}: {m} has {len(x)} rows, {key} has shape {list(y.shape)}; give one per row{remedy}"
            )
        arrays[m] = y
    return arrays


def _labels(
    given: Mapping[str, np.ndarray], class_names: tuple[str, ...], source: str
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Labels as int64 [N] or bool [N, K], in the same form in all modalities, and the class names."""
    if len({(y.ndim, y.dtype.kind == "U") for y in given.values()}) > 1:
        forms = ", ".join(f"{m} {y.dtype} {list(y.shape)}" for m, y in given.items())
        raise InputError(f"{source}: labels differ in form: {forms}; give integers, names or multi-hot rows to all")
    if next(iter(given.values())).dtype.kind == "U":
        return _numbered(given, class_names, source)
    checked = {}
    for m, y in given.items():
        label_text = f"{source}: the labels of {m} are {y.dtype} {list(y.shape)}"
        rule = "or multi-hot rows of 0 and 1 [N, K]"
        if y.ndim == 2 and y.dtype.kind in "biuf":
            if not ((y == 0) | (y == 1)).all():
                raise InputError(f"{label_text} with values other than 0 and 1; give integers or names [N], {rule}")
            if (count := int(y.sum(axis=1).max())) > 255:
                raise InputError(f"{label_text} with up to {count} classes in a row; give at most 255 per row")
            checked[m] = y.astype(bool)
        elif y.ndim == 1 and y.dtype.kind in "iuf":
            if y.dtype.kind == "f" and not (np.isfinite(y).all() and (y == np.round(y)).all()):
                raise InputError(f"{label_text} with values that are no integers; give integers or names [N], {rule}")
            if y.min() < 0 or y.max() >= 2**63:
                value = int(y.min() if y.min() < 0 else y.max())
                raise InputError(
                    f"{label_text} with the value {value}; classes are numbered from 0: "
                    "leave rows without a class out, or give multi-hot rows with only 0 for them"
                )
            checked[m] = y.astype(np.int64)
        else:
            raise InputError(f"{label_text}; give integers or names [N], {rule}")
    widths = {m: y.shape[1] if y.ndim == 2 else int(y.max()) + 1 for m, y in checked.items()}
    multi_hot = next(iter(checked.values())).ndim == 2
    if multi_hot and len(set(widths.values())) > 1:
        numbers = ", ".join(f"{m} has {k}" for m, k in widths.items())
        raise InputError(f"{source}: multi-hot labels differ in their number of classes: {numbers}; give the same K")
    classes = max(widths.values())
    if class_names and (classes > len(class_names) or (multi_hot and classes != len(class_names))):
        raise InputError(
            f"{source}: class_names has {len(class_names)} names for {classes} classes; give one per class"
        )
    return checked, class_names


def _numbered(
    given: Mapping[str, np.ndarray], class_names: tuple[str, ...], source: str
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Replace names by their position in `class_names`, or in alphabetical order without `class_names`."""
    if any(y.ndim != 1 for y in given.values()):
        raise InputError(f"{source}: names as labels must be [N]; give multi-hot rows if rows have several classes")
    for m, y in given.items():
        if (blank := np.char.strip(y) == "").any():
            raise InputError(
                f"{source}: the label of row {int(blank.argmax())} of {m} is empty ({int(blank.sum())} such rows); "
                "give it the name of its class, or leave the row out"
            )
    names = class_names or tuple(sorted({str(n) for y in given.values() for n in y}))
    number = {name: k for k, name in enumerate(names)}
    for y in given.values():
        if unknown := sorted({str(n) for n in y} - set(number)):
            raise InputError(f"{source}: label {unknown[0]!r} is not in class_names; add it, or correct the label")
    return {m: np.array([number[str(n)] for n in y], np.int64) for m, y in given.items()}, names


def _checked_ids(ids: dict[str, np.ndarray], source: str) -> dict[str, np.ndarray]:
    checked = {}
    for m, y in ids.items():
        id_text = f"{source}: the ids of {m} are {y.dtype} {list(y.shape)}"
        if y.ndim != 1 or y.dtype.kind not in "Uiuf":
            raise InputError(f"{id_text}; give text or integers [N]")
        # MATLAB stores integers as floats, and NumPy would concatenate integers of different types as floats.
        if y.dtype.kind != "U":
            whole = (y == np.floor(y)) & (abs(y) < 2**53) if y.dtype.kind == "f" else y < 2**63
            if not whole.all():
                raise InputError(f"{id_text} and hold {y[~whole][0]}; give text or integers of 64 bits")
            y = y.astype(np.int64)
        checked[m] = y
    if len({y.dtype.kind for y in checked.values()}) > 1:
        raise InputError(f"{source}: some ids are text, others numbers; give the same type to all modalities")
    return checked


def _instances(z: Mapping[str, np.ndarray], ids: Mapping[str, np.ndarray] | None) -> dict[str, np.ndarray]:
    """Number the instances: by id, or without ids by row, separately for each length of modalities."""
    if ids is None:
        lengths = sorted({len(x) for x in z.values()})
        first = dict(zip(lengths, np.cumsum([0, *lengths[:-1]]), strict=True))
        return {m: first[len(x)] + np.arange(len(x)) for m, x in z.items()}
    numbers = np.unique(np.concatenate(list(ids.values())), return_inverse=True)[1]
    ends = np.cumsum([len(y) for y in ids.values()])
    return dict(zip(ids, np.split(numbers, ends[:-1]), strict=True))
