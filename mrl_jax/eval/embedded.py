"""Embeddings of one split, with all that they are scored by, wherever they come from.

Shape letters: N rows of a modality, L embedding dimensions, K classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mrl_jax.data.arrays import finite_float32
from mrl_jax.errors import InputError

__all__ = ["Embedded", "check_embedded"]


@dataclass(frozen=True)
class Embedded:
    """Embeddings of one split.

    Attributes:
        source: where they come from, for messages and tables.
        embeddings: modality -> float32 [N, L].
        labels: modality -> integers [N], or multi-hot bool [N, K] in every modality; None where there are none.
        instances: modality -> integers [N]; rows of two modalities with the same number are a pair.
        rows: modality -> integers [N], the row of the data or file that each one is.
        class_names: K names, or () where classes are only numbers.
        split: of the run that embedded.
        epoch: of the run's checkpoint.
        digest: of the data set that a run embedded.
        ids: modality -> text or integers [N] that a file gives the instances, or None.
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

    def class_name(self, k: int) -> str:
        """The name of class k, its number where there is none."""
        return self.class_names[k] if k < len(self.class_names) else str(k)

    def rows_of(self, modality: str) -> np.ndarray:
        """The row of the data that each row of a modality is."""
        return self.rows.get(modality, np.arange(len(self.instances[modality])))


def check_embedded(
    embeddings: Mapping[str, Any],
    labels: Any = None,
    ids: Any = None,
    class_names: Any = (),
    source: str = "embeddings",
) -> Embedded:
    """Check embeddings from elsewhere and number their pairs.

    Args:
        embeddings: modality -> numbers [N, L].
        labels: for all modalities alike or modality -> labels: integers or names [N], or multi-hot [N, K]; None
            without labels.
        ids: for all modalities alike or modality -> text or integers [N]; rows of two modalities with the same id are
            pairs. None: rows pair between modalities of the same length.
        class_names: K names; () for none.
        source: for messages.

    Raises:
        InputError: no modality, shapes or lengths that do not fit, values that are not finite in float32, labels that
            are neither integers, names nor multi-hot, or labels or ids for only some modalities.
    """
    if not isinstance(embeddings, Mapping):
        raise InputError(f"{source}: a {type(embeddings).__name__}; give a mapping of modalities to embeddings [N, L]")
    if not embeddings:
        raise InputError(f"{source}: no embeddings; give a modality or more, each [N, L]")
    z = {str(m): _finite(m, x, source) for m, x in embeddings.items()}
    names = tuple(str(n) for n in np.asarray(class_names).ravel().tolist())
    if len(set(names)) < len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise InputError(f"{source}: class_names holds {twice!r} twice; every class needs a name of its own")
    found = None
    if labels is not None:
        found, names = _labels(_spread(labels, z, "labels", source), names, source)
    given = None if ids is None else _checked_ids(_spread(ids, z, "ids", source), source)
    return Embedded(source, z, found, _instances(z, given), {}, names, ids=given)


def _array(x: Any, what: str, source: str) -> np.ndarray:
    """NumPy's form of an array of any library."""
    try:
        return np.asarray(x)
    except (RuntimeError, TypeError, ValueError) as error:  # tensors with gradients or on a GPU, ragged lists
        raise InputError(f"{source}: {what} is no array ({error}); give what numpy.asarray takes") from error


def _finite(m: str, x: Any, source: str) -> np.ndarray:
    """Embeddings as float32 [N, L]."""
    x = _array(x, m, source)
    if x.dtype.name == "bfloat16":  # of JAX; to NumPy it is no number
        x = x.astype(np.float32)
    if x.ndim != 2 or x.dtype.kind not in "fiu":
        raise InputError(
            f"{source}: {m} is {x.dtype} {list(x.shape)}; embeddings must be real numbers [N, L]; "
            "take it out, or name those to use (--modalities A B)"
        )
    if 0 in x.shape:
        raise InputError(f"{source}: {m} is empty, shape {list(x.shape)}; every modality needs a row and a column")
    rule = "embeddings must be finite: leave such rows out, and give ids where rows then no longer pair"
    return finite_float32(x, f"{source}: {m}", rule)


def _spread(given: Any, z: Mapping[str, np.ndarray], what: str, source: str) -> dict[str, np.ndarray]:
    """One array for all modalities, or one for each, as one for each of the right length."""
    own = isinstance(given, Mapping)
    found = {}
    for m, x in z.items():
        key = f"{m}_{what}" if own else what
        if own and m not in given:
            raise InputError(f"{source}: {key} is missing, other modalities have {what}; give all of them, or none")
        y = _array(given[m] if own else given, key, source)
        if y.ndim == 2 and 1 in y.shape and y.size == len(x):
            y = y.ravel()  # a column; a row in files of MATLAB
        if y.dtype.kind == "S":
            y = np.char.decode(y, "utf-8", "backslashreplace")
        if y.ndim == 0 or len(y) != len(x):
            remedy = "" if own else f", or {m}_{what} of its own"
            raise InputError(f"{source}: {m} has {len(x)} rows, {key} has shape {list(y.shape)}; give one each{remedy}")
        found[m] = y
    return found


def _labels(
    given: Mapping[str, np.ndarray], class_names: tuple[str, ...], source: str
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Labels as int64 [N] or bool [N, K], the same form and K in all modalities, and the class names."""
    if len({(y.ndim, y.dtype.kind == "U") for y in given.values()}) > 1:
        told = ", ".join(f"{m} {y.dtype} {list(y.shape)}" for m, y in given.items())
        raise InputError(f"{source}: labels differ in form: {told}; give integers, names or multi-hot rows to all")
    if next(iter(given.values())).dtype.kind == "U":
        return _numbered(given, class_names, source)
    found = {}
    for m, y in given.items():
        told, rule = f"{source}: the labels of {m} are {y.dtype} {list(y.shape)}", "or multi-hot rows of 0 and 1 [N, K]"
        if y.ndim == 2 and y.dtype.kind in "biuf":
            if not ((y == 0) | (y == 1)).all():
                raise InputError(f"{told} with values other than 0 and 1; give integers or names [N], {rule}")
            if (most := int(y.sum(axis=1).max())) > 255:
                raise InputError(f"{told} with up to {most} classes in a row; at most 255 can be told apart: drop some")
            found[m] = y.astype(bool)
        elif y.ndim == 1 and y.dtype.kind in "iuf":
            if y.dtype.kind == "f" and not (np.isfinite(y).all() and (y == np.round(y)).all()):
                raise InputError(f"{told} with values that are not whole; give integers or names [N], {rule}")
            if y.min() < 0 or y.max() >= 2**63:
                raise InputError(
                    f"{told} with the value {int(y.min() if y.min() < 0 else y.max())}; classes are numbered from 0: "
                    "leave rows without a class out, or give multi-hot rows, all 0 for them"
                )
            found[m] = y.astype(np.int64)
        else:
            raise InputError(f"{told}; give integers or names [N], {rule}")
    widths = {m: y.shape[1] if y.ndim == 2 else int(y.max()) + 1 for m, y in found.items()}
    one_hot = next(iter(found.values())).ndim == 2
    if one_hot and len(set(widths.values())) > 1:
        told = ", ".join(f"{m} has {k}" for m, k in widths.items())
        raise InputError(f"{source}: multi-hot labels differ in their number of classes: {told}; they must agree")
    classes = max(widths.values())
    if class_names and (classes > len(class_names) or (one_hot and classes != len(class_names))):
        raise InputError(f"{source}: class_names has {len(class_names)} names for {classes} classes; they must agree")
    return found, class_names


def _numbered(
    given: Mapping[str, np.ndarray], class_names: tuple[str, ...], source: str
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Names as numbers: of their place in `class_names`, else in alphabetical order."""
    if any(y.ndim != 1 for y in given.values()):
        raise InputError(f"{source}: names as labels must be [N]; give multi-hot rows where one has several classes")
    names = class_names or tuple(sorted({str(n) for y in given.values() for n in y}))
    number = {name: k for k, name in enumerate(names)}
    for y in given.values():
        if unknown := sorted({str(n) for n in y} - set(number)):
            raise InputError(f"{source}: label {unknown[0]!r} is not in class_names; add it there, or mend the label")
    return {m: np.array([number[str(n)] for n in y], np.int64) for m, y in given.items()}, names


def _checked_ids(ids: dict[str, np.ndarray], source: str) -> dict[str, np.ndarray]:
    found = {}
    for m, y in ids.items():
        told = f"{source}: the ids of {m} are {y.dtype} {list(y.shape)}"
        if y.ndim != 1 or y.dtype.kind not in "Uiuf":
            raise InputError(f"{told}; ids are text or integers [N]")
        # MATLAB keeps whole numbers as floats; beside integers of another kind NumPy would make all of them floats.
        if y.dtype.kind != "U":
            whole = (y == np.floor(y)) & (abs(y) < 2**53) if y.dtype.kind == "f" else y < 2**63
            if not whole.all():
                raise InputError(f"{told} and hold {y[~whole][0]}; ids are text or integers of 64 bits")
            y = y.astype(np.int64)
        found[m] = y
    if len({y.dtype.kind for y in found.values()}) > 1:
        raise InputError(f"{source}: some ids are text, others numbers; give the same kind to all, or nothing pairs")
    return found


def _instances(z: Mapping[str, np.ndarray], ids: Mapping[str, np.ndarray] | None) -> dict[str, np.ndarray]:
    """Numbers of the instances: by id, or by row between modalities of the same length."""
    if ids is None:
        lengths = sorted({len(x) for x in z.values()})
        first = dict(zip(lengths, np.cumsum([0, *lengths[:-1]]), strict=True))
        return {m: first[len(x)] + np.arange(len(x)) for m, x in z.items()}
    numbers = np.unique(np.concatenate(list(ids.values())), return_inverse=True)[1]
    ends = np.cumsum([len(y) for y in ids.values()])
    return dict(zip(ids, np.split(numbers, ends[:-1]), strict=True))
