"""Convert class labels of any form to integers 0..K-1, consistently over all splits."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from mrl_jax.data.values import plain_array
from mrl_jax.errors import DatasetWarning, InputError

__all__ = ["RawLabels", "normalize_labels"]

_RULE = "labels must be integers, one-hot rows or names, one per instance"


@dataclass(frozen=True)
class RawLabels:
    """Labels in the form of a file.

    Attributes:
        values: vector [N], column [N, 1], row [1, N], one-hot rows [N, K] or columns [K, N]; numbers or names.
        present: bool [N]; values where it is False are ignored.
        group: the array of the file that the labels are rows of. All labels of a group count from the same number.
        split: the split; labels of the same split and length belong to the same instances.
    """

    values: np.ndarray
    present: np.ndarray
    group: str = ""
    split: str = ""


def normalize_labels(
    raw: Mapping[str, RawLabels], num_classes: int | None, source: str, expected: int | None = None
) -> tuple[dict[str, np.ndarray], tuple[str, ...] | None]:
    """Convert the label arrays of all splits and modalities to the same numbering 0..K-1.

    Whether numbers count from 0 or from 1 is decided from all arrays together:

    - An array that contains 0 counts from 0. If no array contains 0, all count from 1, unless K is known and larger
      than every label.
    - If only some arrays contain 0 (such files exist), another array counts from 1 if it contains the number K, and
      either K is known, or the array contains every number 1..K and its labels, read so, agree at least as well with
      those of another modality of the same split.
    - Otherwise an array counts from 0; the checks of the data set refuse labels out of range.

    Args:
        raw: name -> labels as read.
        num_classes: K, where it is known.
        source: where the arrays come from, for messages.
        expected: K as published, used only if the labels are consistent with it.

    Returns:
        Name -> int32 [N], 0 where absent, and the class names in order if the labels are names, else None.

    Raises:
        InputError: there is not one label per instance, labels are not integers, rows have several labels, or forms
            contradict each other.
    """
    matrices: dict[str, np.ndarray] = {}
    vectors: dict[str, np.ndarray] = {}
    for key, labels in raw.items():
        y = _reshape(labels, f"{source}: {key}")
        (vectors if y.ndim == 1 else matrices)[key] = y
    hot, width = _one_hot(matrices, raw, source)
    if width is not None and num_classes is not None and width != num_classes:
        raise InputError(f"{source}: one-hot labels have {width} columns for {num_classes} classes; they must agree")
    named = [key for key, y in vectors.items() if y.dtype.kind == "U"]
    if named and len(named) < len(raw):
        other = next(key for key in raw if key not in named)
        raise InputError(f"{source}: {named[0]} holds names, {other} holds numbers; use one form in all splits")
    if named:
        for key in named:
            blank = raw[key].present & (np.char.strip(vectors[key]) == "")
            if blank.any():
                raise InputError(
                    f"{source}: {key}: the label of row {int(blank.argmax())} is empty ({int(blank.sum())} such rows); "
                    "give it the name of its class, or leave the row out of every array"
                )
        return _number_names(vectors, raw)
    numbers = {key: _check_integers(y, raw[key].present, f"{source}: {key}") for key, y in vectors.items()}
    from_zero = hot | _from_zero(
        {key: replace(raw[key], values=y) for key, y in numbers.items()}, hot, width or num_classes, expected, source
    )
    return {key: np.where(raw[key].present, from_zero[key], 0).astype(np.int32) for key in raw}, None


def _reshape(labels: RawLabels, what: str) -> np.ndarray:
    """A vector [N] of numbers or text, or a matrix with an instance per row or column that may be one-hot."""
    y, rows = plain_array(labels.values, what), len(labels.present)
    given = f"{what} is {y.dtype} {list(y.shape)} for {rows} instances"
    if y.dtype.kind == "S":
        try:
            y = np.char.decode(y, "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{given} and not UTF-8; {_RULE}") from error
    if y.dtype.kind not in "iufbU":
        raise InputError(f"{given}; {_RULE}")
    if y.ndim == 2 and 1 in y.shape and y.size == rows:
        y = y.ravel()
    if y.ndim == 1 and len(y) == rows:
        if y.dtype.kind == "b":
            raise InputError(f"{given}: true and false; {_RULE}")
        return y
    if y.ndim != 2 or y.dtype.kind == "U" or rows not in y.shape:
        raise InputError(f"{given}; {_RULE}")
    return y


def _one_hot(
    matrices: Mapping[str, np.ndarray], raw: Mapping[str, RawLabels], source: str
) -> tuple[dict[str, np.ndarray], int | None]:
    """One-hot matrices as vectors, and their number of classes. Square matrices are oriented as the others are."""
    transposed = [y.shape[0] != len(raw[key].present) for key, y in matrices.items() if y.shape[0] != y.shape[1]]
    out, widths = {}, {}
    for key, y in matrices.items():
        rows = raw[key].present
        square = y.shape[0] == y.shape[1]
        y = y.T if (bool(transposed) and all(transposed) if square else y.shape[0] != len(rows)) else y
        good = ((y == 0) | (y == 1)).all(axis=1) & ((y == 1).sum(axis=1) == 1) | ~rows
        if not good.all():
            raise InputError(
                f"{source}: {key} is {y.dtype} {list(y.shape)} for {len(rows)} instances; row {int(np.argmin(good))} "
                "is not one-hot: keep instances with exactly one label"
            )
        out[key], widths[key] = (y == 1).argmax(axis=1), y.shape[1]
    if len(set(widths.values())) > 1:
        numbers = ", ".join(f"{key} has {k}" for key, k in widths.items())
        raise InputError(f"{source}: one-hot labels differ in their number of classes: {numbers}; they must agree")
    return out, next(iter(widths.values()), None)


def _number_names(
    vectors: Mapping[str, np.ndarray], raw: Mapping[str, RawLabels]
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Names as numbers, in alphabetical order, or in numerical order if all names are integers."""
    names = {str(name) for key, y in vectors.items() for name in y[raw[key].present]}
    integers = all(name.isascii() and name.isdecimal() and len(name) < 18 for name in names)
    order = sorted(names, key=(lambda name: (int(name), name)) if integers else str)
    number = {name: k for k, name in enumerate(order)}
    return {
        key: np.array([number.get(str(n), 0) for n in y], np.int32) * raw[key].present for key, y in vectors.items()
    }, tuple(order)


def _check_integers(y: np.ndarray, present: np.ndarray, what: str) -> np.ndarray:
    """Numbers as int64; absent ones are replaced by the first present one."""
    y = np.where(present, y, y[present.argmax()])
    if y.dtype.kind == "f" and not (np.isfinite(y).all() and (y == np.round(y)).all()):
        raise InputError(f"{what} is {y.dtype} and holds values that are not whole numbers; {_RULE}")
    if y.min() < 0 or y.max() > np.iinfo(np.int32).max - 1:
        bad = y.min() if y.min() < 0 else y.max()
        raise InputError(f"{what} holds the label {int(bad)}; labels must be 0..K-1 or 1..K")
    return y.astype(np.int64)


def _from_zero(
    raw: Mapping[str, RawLabels], hot: Mapping[str, np.ndarray], known: int | None, expected: int | None, source: str
) -> dict[str, np.ndarray]:
    """Numbers that count from 0 or from 1, converted group by group to numbers from 0."""
    groups: dict[str, np.ndarray] = {}  # sorted values of each group
    for key, labels in raw.items():
        name = labels.group or key
        groups[name] = np.unique(np.concatenate([groups.get(name, labels.values[:0]), labels.values]))
    base = dict.fromkeys(groups, 0)
    zero = {name for name, values in groups.items() if values[0] == 0}
    largest = max((int(values[-1]) for values in groups.values()), default=0)
    if not zero and not hot and groups:
        lowest = min(int(values[0]) for values in groups.values())
        if lowest > 1:
            raise InputError(f"{source}: labels run from {lowest} to {largest}; number the classes from 0 or from 1")
        if known is None or largest >= known:
            base = dict.fromkeys(groups, 1)
    elif groups:
        if known is None and expected is not None and expected - 1 <= largest <= expected:
            known = expected
        k = known or 1 + max(int(groups[name][-1]) for name in zero)
        for name, values in groups.items():
            if name not in zero and values[-1] == k and (known is not None or len(values) == k):
                base[name] = int(known is not None or _agrees_shifted(name, raw, zero))
        if shifted := sorted(name for name, one in base.items() if one):
            _warn(f"{source}: {', '.join(shifted)} count classes from 1, the others from 0; they are read that way")
        _warn_of_doubt(raw, groups, base, zero, k, source)
    return {key: labels.values - base[labels.group or key] for key, labels in raw.items()}


def _agrees_shifted(name: str, raw: Mapping[str, RawLabels], zero: set[str]) -> bool:
    """Whether labels of a group agree better with another modality's of the same instances if they count from 1."""
    same = shifted = 0
    for key, mine in raw.items():
        if (mine.group or key) != name:
            continue
        for other_key, other in raw.items():
            comparable = other.split == mine.split != "" and len(other.values) == len(mine.values)
            if comparable and (other.group or other_key) in zero:
                same += int((other.values == mine.values).sum())
                shifted += int((other.values == mine.values - 1).sum())
    return shifted >= same  # true also if there is nothing to compare with


def _warn_of_doubt(
    raw: Mapping[str, RawLabels],
    groups: Mapping[str, np.ndarray],
    base: Mapping[str, int],
    zero: set[str],
    k: int,
    source: str,
) -> None:
    """Warn where a large array lacks only class 0: it could also count from 1 and lack the last class."""
    for name, values in groups.items():
        rows = sum(len(labels.values) for key, labels in raw.items() if (labels.group or key) == name)
        if name not in zero and base[name] == 0 and len(values) == k - 1 and values[0] == 1 and rows >= 20 * k:
            _warn(
                f"{source}: {name} holds every label 1..{k - 1} and no 0; read as counted from 0 like the others; "
                "if it counts from 1, subtract 1 from it"
            )


def _warn(message: str) -> None:
    warnings.warn(message, DatasetWarning, stacklevel=2)
