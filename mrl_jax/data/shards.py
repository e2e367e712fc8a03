"""Numbered files of one name in a folder of arrays: one array, whose rows are in several files.

Programs that embed large sets write `img_emb_0.npy`, `img_emb_1.npy`, … (clip-retrieval, in a folder `img_emb`), or
`img_emb-00000-of-00002.npy`.
"""

import re
import shlex
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from mrl_jax.data.formats import header_of
from mrl_jax.data.formats.limits import Header
from mrl_jax.data.own_layout import ENDS
from mrl_jax.errors import InputError, listed

__all__ = ["Joined", "join_shards", "numbered_notes", "split_and_modality"]

_ENDS = re.compile(rf"_({'|'.join(ENDS)})$")
_NUMBER = re.compile(r"(?P<number>\d+)(?:[-_.]?of[-_.]?(?P<count>\d+))?", re.ASCII | re.IGNORECASE)
_WORD = re.compile(r"(?:^|(?<=[-_.]))(?:part|shard|chunk|block|batch|rank|worker)s?$", re.IGNORECASE)
_BETWEEN = "-_."  # stands between the words of a name


class _Reading(NamedTuple):
    """A way to read a key as one part of an array."""

    name: str  # of the array, empty if the key is only a number
    before: str  # the words before the number
    number: int
    total: int | None  # number of files, if the key has it
    is_plain: bool  # a separator, or a word such as "part", and a number are the end of the key


class _Shard(NamedTuple):
    key: str
    modality: str  # the key without the word for a split, and without "labels" and the like
    number: int
    total: int | None  # number of files, if the name has it


class Joined(Mapping[str, Any]):
    """Arrays in which the numbered ones of a name are one array.

    Args:
        arrays: the arrays; each access reads one.
        shards: new key -> keys of its parts, in order.
        source: their origin, for messages.

    Attributes:
        shards: likewise.
    """

    def __init__(self, arrays: Mapping[str, Any], shards: Mapping[str, Sequence[str]], source: str) -> None:
        self._arrays, self._source = arrays, source
        owner = {part: key for key, parts in shards.items() for part in parts}
        self._parts = {owner.get(key, key): shards.get(owner.get(key, key), (key,)) for key in arrays}
        self.shards = dict(shards)

    @property
    def is_small(self) -> bool:
        """Whether an array may be read only to look at it."""
        return getattr(self._arrays, "is_small", True)

    def header(self, key: str) -> Header | None:
        """As `formats.header_of`; None for an array of several parts."""
        return None if key in self.shards else header_of(self._arrays, key)

    def __getitem__(self, key: str) -> Any:
        parts = self._parts[key]
        if key not in self.shards:
            return self._arrays[key]
        read = [np.asarray(self._arrays[part]) for part in parts]
        forms = [(x.shape[1:], x.dtype.kind in "US") for x in read]
        if any(x.ndim == 0 for x in read) or len(set(forms)) > 1:
            other = next((i for i, form in enumerate(forms) if form != forms[0]), 0)
            given = ", ".join(f"{parts[i]} is {read[i].dtype} {list(read[i].shape)}" for i in sorted({0, other}))
            raise InputError(
                f"{self._source}: the files of {key} do not fit together: {given}; write rows of one width to all, or "
                "rename files of different modalities"
            )
        return np.concatenate(read)

    def __contains__(self, key: object) -> bool:
        return key in self._parts  # `Mapping` would read the array

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)


def join_shards(
    arrays: Mapping[str, Any],
    source: str,
    wanted: Sequence[str] = (),
    splits: Collection[str] = (),
    apart: Collection[str] = (),
    any_place: bool = False,
    folders: Collection[str] = (),
) -> tuple[Joined, tuple[str, ...]]:
    """Join numbered arrays of one name, in numeric order.

    A name is joined if it has several numbers, from 0 or 1 on, or if its keys say of how many they are one.

    Args:
        arrays: arrays by the names of their files.
        source: the folder, for messages.
        wanted: modalities (or keys) to use, or none for all; those that are one of the files stay as they are, each a
            modality of its own.
        splits: words for splits, the first or the last word of a key; the rest of the key is then the modality.
        apart: names whose numbers are never those of shards.
        any_place: numbers may be anywhere in a key, such as in `image0` and `rank0_image`; otherwise only at its end,
            after a separator or a word such as `part`.
        folders: names of the folders that the files lie in; `img_emb/img_emb_0` is a part of `img_emb`, even alone.

    Returns:
        The joined arrays, and a note for each modality that was joined.

    Raises:
        InputError: a number is missing or there twice, the name is also that of another file, modalities have
            different numbers, or keys differ only in numbers that do not say which parts they are.
    """

    def own(key: str) -> tuple[str, str]:
        return split_and_modality(key, splits)

    def is_modality(name: str) -> bool:
        return own(name)[1].rpartition("_")[2] not in ENDS

    groups: dict[str, list[_Shard]] = {}
    for key, reading in _readings(arrays, any_place).items():
        modality = own(_ENDS.sub("", key))[1]
        if reading.name not in apart and modality not in wanted and key not in wanted:
            groups.setdefault(reading.name, []).append(_Shard(key, modality, reading.number, reading.total))
    shards: dict[str, list[_Shard]] = {}
    for name, parts in groups.items():
        parts.sort(key=lambda part: part.number)
        stated = any(part.total is not None for part in parts)
        if stated or (len(parts) > 1 and parts[0].number <= 1):  # years and the like are no numbers of shards
            shards[name] = parts
            _check(name, parts, arrays, source)
    several = any(map(is_modality, shards))
    for name, (part, *others) in groups.items():  # a modality of one file, in its folder or beside others of several
        alone = name not in shards and not others and part.number <= 1
        if alone and (several or _ENDS.sub("", name) in folders):
            shards[name] = [part]
            _check(name, [part], arrays, source)
    used = [name for name in shards if is_modality(name) and (not wanted or {name, own(name)[1]} & {*wanted})]
    for split in dict.fromkeys(own(name)[0] for name in used):
        numbers = {name: [part.number for part in shards[name]] for name in used if own(name)[0] == split}
        if len({tuple(n) for n in numbers.values()}) > 1:
            given = ", ".join(f"{name} {n[0]}" + (f" to {n[-1]}" if len(n) > 1 else "") for name, n in numbers.items())
            raise InputError(
                f"{source}: the numbers of files differ between modalities: {given}; add the missing files, or name "
                "the modalities to use (--modalities A B)"
            )
    joined = Joined(arrays, {name: [part.key for part in parts] for name, parts in shards.items()}, source)
    if any_place and not wanted:
        _refuse_numbers([key for key in joined if is_modality(key)], source)
    return joined, tuple(_note(name, shards[name]) for name in used if len(shards[name]) > 1)


def numbered_notes(modalities: Sequence[str], apart: Collection[str] = ()) -> tuple[str, ...]:
    """Notes on modalities that differ only in numbers and were not joined; `apart` as in `join_shards`."""
    groups: dict[str, list[str]] = {}
    for m in modalities:
        groups.setdefault(re.sub(r"[-_. ()]*[0-9]+[-_. ()]*", "", m), []).append(m)
    return tuple(
        f"{', '.join(names)} differ only in their numbers, and each is a modality of its own; join their rows if they "
        "are parts of one"
        for name, names in groups.items()
        if len(names) > 1 and name not in apart
    )


def split_and_modality(key: str, splits: Collection[str]) -> tuple[str, str]:
    """The word for a split that begins or ends a key, empty if there is none, and the rest of the key.

    Args:
        key: it, with or without a number at the end.
        splits: words for splits, in lower case.
    """
    first, _, rest = key.partition("_")
    if rest and first.lower() in splits:
        return first.lower(), rest
    match = re.fullmatch(r"(?P<stem>.+)_(?P<word>[a-zA-Z]+)(?P<number>(?:[-_.]\d+(?:-of-\d+)?)?)", key, re.ASCII)
    if match and match["word"].lower() in splits:
        return match["word"].lower(), match["stem"] + match["number"]
    return "", key


def _readings(keys: Iterable[str], any_place: bool) -> dict[str, _Reading]:
    """Which number of a key is that of a part: the last one in which another key differs, or else the last one.

    Returns:
        Key -> its reading; keys that cannot be parts of an array are left out.
    """
    read = {key: [r for r in _all_readings(key) if any_place or r.is_plain] for key in keys}
    counts = Counter((r.name, r.before) for readings in read.values() for r in readings)
    return {
        key: next((r for r in readings if counts[r.name, r.before] > 1), readings[0])
        for key, readings in read.items()
        if readings
    }


def _all_readings(key: str) -> list[_Reading]:
    """The ways to read a key, by its last number first."""
    stem = _ENDS.sub("", key)
    readings = []
    for match in reversed([*_NUMBER.finditer(stem)]):
        before, after = stem[: match.start()], stem[match.end() :]
        short = _WORD.sub("", before.rstrip(_BETWEEN))
        is_plain = bool(before) and not after and (before[-1] in _BETWEEN or short != before)
        parts = [part.strip(_BETWEEN) for part in (short, after)]
        if not any(parts) and stem == key:  # "part" alone is a name
            parts = [before.rstrip(_BETWEEN)]
        name = "_".join([*filter(None, parts), *([key[len(stem) + 1 :]] if stem != key else [])])
        total = None if match["count"] is None else int(match["count"])
        readings.append(_Reading(name, parts[0], int(match["number"]), total, is_plain))
    return readings


def _refuse_numbers(keys: Iterable[str], source: str) -> None:
    """Refuse keys that differ only in numbers from 0 or 1 on: ranges of rows, or shards with two numbers."""
    groups: dict[str, list[str]] = {}
    for key in keys:
        groups.setdefault(re.sub("[0-9]+", "0", key), []).append(key)
    for alike in groups.values():
        if len(alike) > 1 and min(int(n) for key in alike for n in re.findall("[0-9]+", key)) <= 1:
            name = re.split("[-_.]*[0-9]", alike[0])[0] or "image"
            raise InputError(
                f"{source}: {listed(alike, 4)} differ only in their numbers; if they are parts of one modality, rename "
                f"them to {name}_0, {name}_1, …; {_take(alike)}"
            )


def _check(name: str, parts: Sequence[_Shard], arrays: Mapping[str, Any], source: str) -> None:
    numbers = [part.number for part in parts]
    keep = _take([part.modality for part in parts])
    if not name:
        raise InputError(
            f"{source}: {listed([part.key for part in parts], 4)} have only numbers for names; if they are parts of "
            f"one modality, rename them to image_0, image_1, …; {keep}"
        )
    if name in arrays:
        raise InputError(f"{source}: {name} and {parts[0].key} are both there; keep one of them, or rename it ({keep})")
    for first, second in pairwise(parts):
        if first.number == second.number:
            raise InputError(f"{source}: {first.key} and {second.key} have the same number; keep one of them")
    counts = {part.total for part in parts}
    if len(counts) > 1:
        raise InputError(f"{source}: the files of {name} do not all give the same total; keep the files of one export")
    (count,) = counts
    start = min(numbers[0], 1) if count is None or numbers[-1] == count else 0
    wanted = range(start, numbers[-1] + 1 if count is None else start + count)
    if missing := [n for n in wanted if n not in numbers]:
        raise InputError(
            f"{source}: of the numbered files of {name}, number {missing[0]} is missing; add it, or {keep}"
        )
    if numbers[-1] > wanted[-1]:
        raise InputError(f"{source}: {parts[-1].key} is beyond the number of files in its name; rename it")


def _note(name: str, parts: Sequence[_Shard]) -> str:
    return (
        f"{name}: {len(parts)} numbered files, {parts[0].key} to {parts[-1].key}, are joined in numeric order; "
        f"{_take([part.modality for part in parts])}"
    )


def _take(modalities: Sequence[str]) -> str:
    return f"--modalities {shlex.join(modalities[:2])} takes each as a modality of its own"
