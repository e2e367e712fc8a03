"""Class labels in any form that files hold, brought to integers 0..K-1, once over all splits."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from mrl_jax.errors import DatasetWarning, InputError

__all__ = ["RawLabels", "normalize_labels"]

_RULE = "labels must be integers, one-hot rows or names, one per instance"


@dataclass(frozen=True)
class RawLabels:
    """Labels as a file has them.

    Attributes:
        values: vector [N], column [N, 1], row [1, N], one-hot rows [N, K] or columns [K, N]; numbers or names.
        present: bool [N]; what stands where it is False does not matter.
        group: what they were cut from. All labels of a group count from the same number.
        split: the split they belong to; labels of one split and length belong to the same instances.
    """

    values: np.ndarray
    present: np.ndarray
    group: str = ""
    split: str = ""


def normalize_labels(
    raw: Mapping[str, RawLabels], num_classes: int | None, source: str, expected: int | None = None
) -> tuple[dict[str, np.ndarray], tuple[str, ...] | None]:
    """Bring the label arrays of all splits and modalities to the same numbering 0..K-1.

    Whether numbers count from 0 or from 1 is decided over all arrays together. Where 0 occurs, they count from 0. Where
    0 occurs nowhere, all count from 1. Where only some arrays hold 0 (files that mix both bases exist), another one
    counts from 1 if it holds the number K, and either K is known, or the array holds every number 1..K; between
    modalities of one split the agreement of their labels decides. All else counts from 0, and what does not fit then
    is refused by the checks of the data set.

    Args:
        raw: name -> labels as read.
        num_classes: K, where it is known.
        source: where the arrays come from, for messages.
        expected: K as published, which counts where the labels fit it.

    Returns:
        Name -> int32 [N], 0 where absent, and the class names in order if the labels are names, else None.

    Raises:
        InputError: not one label per instance, not integers, rows with several labels, or forms that contradict.
    """
    matrices: dict[str, np.ndarray] = {}
    vectors: dict[str, np.ndarray] = {}
    for key, labels in raw.items():
        form = _shaped(labels, f"{source}: {key}")
        (vectors if form.ndim == 1 else matrices)[key] = form
    hot, width = _one_hot(matrices, raw, source)
    if width is not None and num_classes is not None and width != num_classes:
        raise InputError(f"{source}: one-hot labels have {width} columns for {num_classes} classes; they must agree")
    named = [key for key, y in vectors.items() if y.dtype.kind == "U"]
    if named and len(named) < len(raw):
        odd = next(key for key in raw if key not in named)
        raise InputError(f"{source}: {named[0]} holds names, {odd} holds numbers; use one form in all splits")
    if named:
        return _numbered(vectors, raw)
    numbers = {key: _whole(y, raw[key].present, f"{source}: {key}") for key, y in vectors.items()}
    found = hot | _from_zero(
        {key: replace(raw[key], values=y) for key, y in numbers.items()}, hot, width or num_classes, expected, source
    )
    return {key: np.where(raw[key].present, found[key], 0).astype(np.int32) for key in raw}, None


def _shaped(labels: RawLabels, what: str) -> np.ndarray:
    """A vector [N] of numbers or text, or a matrix that may be one-hot, rows or columns being instances."""
    y, rows = np.asarray(labels.values), len(labels.present)
    told = f"{what} is {y.dtype} {list(y.shape)} for {rows} instances"
    if y.dtype.kind == "S":
        try:
            y = np.char.decode(y, "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{told} and no UTF-8; {_RULE}") from error
    if y.dtype.kind not in "iufbU":
        raise InputError(f"{told}; {_RULE}")
    if y.ndim == 2 and 1 in y.shape and y.size == rows:
        y = y.ravel()
    if y.ndim == 1 and len(y) == rows:
        if y.dtype.kind == "b":
            raise InputError(f"{told}: true and false; {_RULE}")
        return y
    if y.ndim != 2 or y.dtype.kind == "U" or rows not in y.shape:
        raise InputError(f"{told}; {_RULE}")
    return y


def _one_hot(
    matrices: Mapping[str, np.ndarray], raw: Mapping[str, RawLabels], source: str
) -> tuple[dict[str, np.ndarray], int | None]:
    """One-hot matrices as vectors, and their number of classes. Square ones are oriented as the others are."""
    lying = [y.shape[0] != len(raw[key].present) for key, y in matrices.items() if y.shape[0] != y.shape[1]]
    out, widths = {}, {}
    for key, y in matrices.items():
        rows = raw[key].present
        lies = all(lying) and bool(lying) if y.shape[0] == y.shape[1] else y.shape[0] != len(rows)
        y = y.T if lies else y
        good = ((y == 0) | (y == 1)).all(axis=1) & ((y == 1).sum(axis=1) == 1) | ~rows
        if not good.all():
            raise InputError(
                f"{source}: {key} is {y.dtype} {list(y.shape)} for {len(rows)} instances; row {int(np.argmin(good))} "
                "is not one-hot: keep instances with exactly one label"
            )
        out[key], widths[key] = (y == 1).argmax(axis=1), y.shape[1]
    if len(set(widths.values())) > 1:
        told = ", ".join(f"{key} has {k}" for key, k in widths.items())
        raise InputError(f"{source}: one-hot labels differ in their number of classes: {told}; they must agree")
    return out, next(iter(widths.values()), None)


def _numbered(
    vectors: Mapping[str, np.ndarray], raw: Mapping[str, RawLabels]
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Names as numbers, in alphabetical order; names that are numbers in the order of these."""
    names = {str(name) for key, y in vectors.items() for name in y[raw[key].present]}
    plain = all(name.isascii() and name.isdecimal() and len(name) < 18 for name in names)
    order = sorted(names, key=(lambda name: (int(name), name)) if plain else str)
    number = {name: k for k, name in enumerate(order)}
    return {
        key: np.array([number.get(str(n), 0) for n in y], np.int32) * raw[key].present for key, y in vectors.items()
    }, tuple(order)


def _whole(y: np.ndarray, present: np.ndarray, what: str) -> np.ndarray:
    """Numbers as int64, the absent ones standing in as one of the present."""
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
    """Numbers that may count from 0 or from 1, per group, as numbers from 0."""
    groups: dict[str, np.ndarray] = {}
    for key, labels in raw.items():
        name = labels.group or key
        groups[name] = np.unique(np.concatenate([groups.get(name, labels.values[:0]), labels.values]))
    base = dict.fromkeys(groups, 0)
    zero = {name for name, seen in groups.items() if seen[0] == 0}
    largest = max((int(seen[-1]) for seen in groups.values()), default=0)
    if not zero and not hot and groups:
        if min(int(seen[0]) for seen in groups.values()) > 1:
            lowest = min(int(seen[0]) for seen in groups.values())
            raise InputError(f"{source}: labels run from {lowest} to {largest}; number the classes from 0 or from 1")
        if known is None or largest >= known:
            base = dict.fromkeys(groups, 1)
    elif groups:
        if known is None and expected is not None and expected - 1 <= largest <= expected:
            known = expected
        k = known or 1 + max(int(groups[name][-1]) for name in zero)
        for name, seen in groups.items():
            if name not in zero and seen[-1] == k and (known is not None or len(seen) == k):
                base[name] = int(known is not None or _agrees_shifted(name, raw, zero))
        if shifted := sorted(name for name, one in base.items() if one):
            _warn(f"{source}: {', '.join(shifted)} count classes from 1, the others from 0; read so")
        _warn_of_doubt(raw, groups, base, zero, k, source)
    return {key: labels.values - base[labels.group or key] for key, labels in raw.items()}


def _agrees_shifted(name: str, raw: Mapping[str, RawLabels], zero: set[str]) -> bool:
    """Whether the labels of a group, read as from 1, agree better with another modality's of the same instances."""
    same = shifted = 0
    for key, mine in raw.items():
        if (mine.group or key) != name:
            continue
        for other_key, other in raw.items():
            of_same = other.split == mine.split != "" and len(other.values) == len(mine.values)
            if of_same and (other.group or other_key) in zero:
                same += int((other.values == mine.values).sum())
                shifted += int((other.values == mine.values - 1).sum())
    return shifted >= same  # also where there is nothing to compare with


def _warn_of_doubt(
    raw: Mapping[str, RawLabels],
    groups: Mapping[str, np.ndarray],
    base: Mapping[str, int],
    zero: set[str],
    k: int,
    source: str,
) -> None:
    """Tell where a large array lacks just class 0, as one that counts from 1 and lacks the last class would."""
    for name, seen in groups.items():
        rows = sum(len(labels.values) for key, labels in raw.items() if (labels.group or key) == name)
        if name not in zero and base[name] == 0 and len(seen) == k - 1 and seen[0] == 1 and rows >= 20 * k:
            _warn(
                f"{source}: {name} holds every label 1..{k - 1} and no 0; read as counted from 0 like the others; "
                "if it counts from 1, subtract 1 from it"
            )


def _warn(message: str) -> None:
    warnings.warn(message, DatasetWarning, stacklevel=2)
