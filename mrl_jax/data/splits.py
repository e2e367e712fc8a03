"""Cut rows into splits: by class, whole groups only, determined by a seed. Pure functions of NumPy arrays."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["cut_rows", "first_per_class", "strata"]


def cut_rows(
    classes: np.ndarray, fractions: Mapping[str, float], seed: int, groups: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Cut rows into parts that have the same mixture of classes.

    Of every class each part gets its fraction of the rows, up to less than one row, which the next class makes up for.
    A class with at least as many groups as there are parts has one in every part; of a smaller class the parts named
    first get one. Which row goes where depends on the seed, on the order of the rows, and on which of them are of the
    same class and the same group; it does not depend on how the classes are numbered or named.

    Args:
        classes: class of every row, integers [N], as from `strata`.
        fractions: part -> fraction of the rows; positive, with the sum 1.
        seed: which of the possible cuts.
        groups: integers or text [N]; rows of a group stay together, and count as of the class of the first of them.
            None if every row is a group.

    Returns:
        Part -> its rows, in ascending order.
    """
    parts = list(fractions)
    # The raw numbers of a bit generator are the same in every version of NumPy; those of its distributions may change.
    order = np.argsort(np.random.Philox(key=seed).random_raw(len(classes)), kind="stable")
    members = _members(len(classes), groups)
    first_rows = np.array([rows[0] for rows in members])
    place = np.empty(len(classes), np.int64)
    place[order] = np.arange(len(classes))
    owed, part_of = np.zeros(len(parts)), np.empty(len(members), np.int64)
    for one_class in dict.fromkeys(classes[first_rows].tolist()):  # in the order of their first rows
        units = np.flatnonzero(classes[first_rows] == one_class)
        units = units[np.argsort(place[first_rows[units]])]
        sizes = np.array([len(members[unit]) for unit in units])
        owed += sizes.sum() * np.array(list(fractions.values()))
        chosen = _distribute(sizes, owed)
        part_of[units] = chosen
    return {part: np.sort(_rows(members, part_of == number)) for number, part in enumerate(parts)}


def _distribute(sizes: np.ndarray, owed: np.ndarray) -> np.ndarray:
    """The part of each group of a class. Takes the rows given to a part from what it is `owed`, in place."""
    chosen = np.empty(len(sizes), np.int64)
    for unit, size in enumerate(sizes):
        chosen[unit] = np.argmax(owed)
        owed[chosen[unit]] -= size
    counts = np.bincount(chosen, minlength=len(owed))
    for part in range(len(owed)):
        if counts[part] == 0 and counts.max() > 1:
            giver = int(np.argmax(counts))
            unit = np.flatnonzero(chosen == giver)[-1]
            chosen[unit] = part
            owed[giver] += sizes[unit]
            owed[part] -= sizes[unit]
            counts[giver] -= 1
            counts[part] += 1
    if len(sizes) < len(owed):  # too few for all parts: the first parts get them
        for unit in range(len(sizes)):
            owed[chosen[unit]] += sizes[unit]
            owed[unit] -= sizes[unit]
            chosen[unit] = unit
    return chosen


def _members(count: int, groups: np.ndarray | None) -> list[np.ndarray]:
    """The rows of each group, the groups in the order of their first rows."""
    if groups is None:
        return list(np.arange(count)[:, None])
    _, first, number = np.unique(groups, return_index=True, return_inverse=True)
    by_group = np.split(np.argsort(number, kind="stable"), np.cumsum(np.bincount(number))[:-1])
    return [by_group[i] for i in np.argsort(first)]


def _rows(members: Sequence[np.ndarray], chosen: np.ndarray) -> np.ndarray:
    picked = [members[i] for i in np.flatnonzero(chosen).tolist()]
    return np.concatenate(picked) if picked else np.zeros(0, np.int64)


def first_per_class(classes: np.ndarray, count: int) -> np.ndarray:
    """bool [N]: True for the first rows of each class, `count` rows in all and of each class the same fraction.

    Args:
        classes: class of every row, integers [N].
        count: number of rows to choose.
    """
    chosen, owed = np.zeros(len(classes), bool), 0.0
    for one_class in dict.fromkeys(classes.tolist()):
        rows = np.flatnonzero(classes == one_class)
        owed += len(rows) * count / len(classes)
        taken = min(len(rows), int(owed + 1e-9))
        chosen[rows[:taken]] = True
        owed -= taken
    return chosen


def strata(labels: Any) -> np.ndarray:
    """Class of every row, for cutting: equal integers for equal labels [N].

    Args:
        labels: a vector, a column or a row of numbers or names, or one-hot rows [N, K] or columns [K, N].
    """
    y = np.asarray(labels)
    if y.ndim == 2 and 1 not in y.shape:
        hot = y.astype(bool)
        if not (hot.sum(axis=1) == 1).all() and (hot.sum(axis=0) == 1).all():
            hot = hot.T
        return np.unique(hot, axis=0, return_inverse=True)[1].ravel()
    return np.unique(y.ravel(), return_inverse=True)[1].ravel()
