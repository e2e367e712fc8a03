"""Layouts of files: recognised by their keys and mapped to the keys of the project's own layout.

The own layout is `{train,valid,test}_MODALITY`, `{train,valid,test}_labels` or `…_MODALITY_labels`, and optionally
`…_MODALITY_mask`, `{train,valid,test}_ids` and `class_names`. Data without splits have the same keys without
`{train,valid,test}_`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from mrl_jax.cut_options import KEY_RULE, parse_keys
from mrl_jax.data.dataset import SPLITS
from mrl_jax.data.key_names import LABEL_WORDS, SPLIT_OF, VIEW_WORDS, name_of
from mrl_jax.data.own_layout import SPLIT_WORDS, own_modalities
from mrl_jax.errors import InputError, listed

__all__ = ["LAYOUTS", "Keys", "named_keys", "recognise"]

Keys = dict[str, str]
"""Key of the own layout -> key in the file."""

_PREFIXES = tuple(f"{s}_" for s in SPLITS)
_VIEWS = ("image", "text", "audio", "3d", "video")  # order of the cells in the files of XMediaNet


def _first(have: set[str], *names: str) -> str | None:
    return next((name for name in names if name in have), None)


def _collect(have: set[str], wanted: Mapping[str, tuple[str, ...]], needed: Iterable[str]) -> Keys | None:
    """Own key -> the first of its wanted keys that the file has; None unless all needed own keys have one."""
    keys = {own: key for own, names in wanted.items() if (key := _first(have, *names)) is not None}
    return keys if set(needed) <= set(keys) else None


def _pair(split: str) -> list[str]:
    return [f"{split}_image", f"{split}_text", f"{split}_image_labels"]


_NEEDED = [*_pair("train"), *_pair("test")]  # the validation split may be absent


def _deep(have: set[str]) -> Keys | None:
    wanted: dict[str, tuple[str, ...]] = {}
    for s in SPLITS:
        wanted[f"{s}_image"] = (f"{s}_imgs_deep",)
        wanted[f"{s}_text"] = (f"{s}_texts_doc", f"{s}_texts", f"{s}_text")
        wanted[f"{s}_image_labels"] = (f"{s}_imgs_labels",)
        wanted[f"{s}_text_labels"] = (f"{s}_texts_labels", f"{s}_imgs_labels")
    return _collect(have, wanted, _NEEDED)


def _short(have: set[str]) -> Keys | None:
    wanted: dict[str, tuple[str, ...]] = {}
    for s, names in (("train", ("tr", "train")), ("valid", ("val", "valid")), ("test", ("te", "test"))):
        wanted[f"{s}_image"] = tuple(f"{n}_img" for n in names)
        wanted[f"{s}_text"] = tuple(f"{n}_txt" for n in names)
        wanted[f"{s}_image_labels"] = tuple(f"{n}_img_lab" for n in names)
        wanted[f"{s}_text_labels"] = tuple(f"{n}_{v}_lab" for v in ("txt", "img") for n in names)
    return _collect(have, wanted, _NEEDED)


def _named(have: set[str]) -> Keys | None:
    wanted: dict[str, tuple[str, ...]] = {}
    for s in SPLITS:
        wanted[f"{s}_image"], wanted[f"{s}_text"] = (f"img_{s}",), (f"text_{s}", f"txt_{s}")
        wanted[f"{s}_image_labels"] = wanted[f"{s}_text_labels"] = (f"label_{s}",)
    return _collect(have, wanted, _NEEDED)


def _cells(have: set[str]) -> Keys | None:
    wanted: dict[str, tuple[str, ...]] = {}
    for s in SPLITS:
        for v, m in enumerate(_VIEWS):
            wanted[f"{s}_{m}"] = (f"{s}[{v}]",)
            wanted[f"{s}_{m}_labels"] = (f"{s}_labels[{v}]",)
    return _collect(have, wanted, _NEEDED)


def _xmedia(have: set[str]) -> Keys | None:
    wanted: dict[str, tuple[str, ...]] = {}
    for s, n in (("train", "tr"), ("test", "te")):
        wanted[f"{s}_image"], wanted[f"{s}_text"] = (f"I_{n}_CNN",), (f"T_{n}_BOW",)
        wanted[f"{s}_image_labels"] = (f"{n}ImgCat",)
        wanted[f"{s}_text_labels"] = (f"{n}TxtCat", f"{n}ImgCat")
    return _collect(have, wanted, _NEEDED)


def _wikipedia_2010(have: set[str]) -> Keys | None:
    wanted: dict[str, tuple[str, ...]] = {"class_names": ("categories.list",)}
    for s, n in (("train", "tr"), ("test", "te")):
        wanted[f"{s}_image"], wanted[f"{s}_text"] = (f"I_{n}",), (f"T_{n}",)
        wanted[f"{s}_image_labels"] = wanted[f"{s}_text_labels"] = (f"{s}set_txt_img_cat.list",)
        wanted[f"{s}_ids"] = (f"{s}set_txt_img_cat.list:ids",)
    return _collect(have, wanted, _NEEDED)


def _suffixed(have: set[str]) -> Keys | None:
    """Keys with the split at the end."""
    keys: Keys = {}
    for key in sorted(have):
        stem, _, word = key.rpartition("_")
        split = SPLIT_OF.get(word.lower())
        if not stem or split is None:
            continue
        owner, _, end = stem.rpartition("_")
        name = f"{name_of(owner)}_labels" if owner and name_of(end) == "labels" else name_of(stem)
        if f"{split}_{name}" in keys:
            return None
        keys[f"{split}_{name}"] = key
    complete = _complete(keys, ("train", "test"))
    order = {"image": 0, "text": 1}
    return dict(sorted(keys.items(), key=lambda item: order.get(item[0].partition("_")[2], 2))) if complete else None


def _views(have: set[str]) -> Keys | None:
    """Cells of one cell array, or numbered arrays, as modalities; labels are one array or one per modality."""
    for pattern in (r"({})\[(\d+)\]", r"({})_?(\d+)"):
        found: dict[str, dict[int, str]] = {}
        for key in have:
            if match := re.fullmatch(pattern.format("|".join(VIEW_WORDS)), key):
                found.setdefault(match[1], {})[int(match[2])] = key
        stacks = [views for views in found.values() if len(views) > 1]
        if len(stacks) != 1:
            continue
        views = [stacks[0][number] for number in sorted(stacks[0])]
        keys = {f"view{v}": key for v, key in enumerate(views, start=1)}
        keys |= {f"view{v}_mask": mask for v, key in enumerate(views, start=1) if (mask := f"{key}_mask") in have}
        if (label := _first(have, *LABEL_WORDS)) is not None:
            return keys | {"labels": label}
        for cells in (_cells_of(have, word) for word in LABEL_WORDS):
            if len(cells) == 1:
                return keys | {"labels": cells[0]}
            if len(cells) == len(views):
                return keys | {f"view{v}_labels": key for v, key in enumerate(cells, start=1)}
    return None


def _cells_of(have: set[str], word: str) -> list[str]:
    cells = list[str]()
    while f"{word}[{len(cells)}]" in have:
        cells.append(f"{word}[{len(cells)}]")
    return cells


def _whole(keys: Sequence[str]) -> Keys | None:
    """Arrays without splits: labels, and every other array as a modality."""
    if any(key.startswith(_PREFIXES) for key in keys):
        return None
    label = _first(set(keys), *LABEL_WORDS)
    names = {key: "labels" if key == label else key for key in keys}
    whole = {name: key for key, name in names.items()}
    return whole if _complete({f"train_{name}": key for name, key in whole.items()}, ("train",)) else None


def _complete(keys: Iterable[str], splits: Sequence[str]) -> bool:
    """Whether keys of the own layout have two or more modalities with labels in these splits."""
    have = set(keys)
    modalities = [
        m
        for m in own_modalities(keys)
        if all(f"{s}_{m}" in have and {f"{s}_{m}_labels", f"{s}_labels"} & have for s in splits)
    ]
    return len(modalities) > 1


LAYOUTS = {
    "deep": (_deep, "{train,valid,test}_imgs_deep, …_texts, …_text or …_texts_doc, …_imgs_labels"),
    "short": (_short, "{tr,val,te}_{img,txt,img_lab,txt_lab}"),
    "named": (_named, "{img,text,label}_{train,valid,test}"),
    "cells": (_cells, "cell arrays {train,valid,test} and {train,valid,test}_labels"),
    "xmedia": (_xmedia, "I_{tr,te}_CNN, T_{tr,te}_BOW, {tr,te}ImgCat"),
    "wikipedia-2010": (_wikipedia_2010, "{I,T}_{tr,te} beside {train,test}set_txt_img_cat.list"),
    "suffixed": (_suffixed, "{I,T,L}_{tr,te}, or MODALITY_{train,test} and labels_{train,test}"),
    "views": (_views, "a cell array X of modalities, or X1, X2, …, and labels Y, without splits"),
}
"""Name of a layout -> the function that recognises its keys, and a pattern of these keys for messages."""


def recognise(keys: Iterable[str]) -> tuple[str, Keys]:
    """Find the layout that the keys belong to.

    Args:
        keys: names of the arrays. The words `val`, `validation` and `dev` for a split mean `valid`, and upper case
            means the same as lower case in the word for a split.

    Returns:
        The name of the layout ("own", also if it is none of the known ones; "whole" for the own layout without splits),
        and own key -> key in the file.

    Raises:
        InputError: two keys mean the same.
    """
    meaning = _with_words(list(keys))  # key with `train`, `valid`, `test` -> key
    if _complete(meaning, SPLITS):
        return "own", meaning
    has_splits = _complete(meaning, ("train", "test"))
    for name, (match, _) in LAYOUTS.items():
        if has_splits and name == "views":
            continue
        if (file_keys := match(set(meaning))) is not None:
            return name, {own: meaning[key] for own, key in file_keys.items()}
    if not has_splits and (whole := _whole(list(meaning))) is not None:
        return "whole", {own: meaning[key] for own, key in whole.items()}
    return "own", meaning


def _with_words(keys: Sequence[str]) -> Keys:
    """Keys in which the words for splits are lower case, that for the validation split `valid` -> keys of the file."""
    meaning: Keys = {}
    at_start = any(key.lower().startswith("train_") for key in keys)
    at_end = any(key.lower().endswith("_train") for key in keys)
    for key in keys:
        first, _, rest = key.partition("_")
        stem, _, last = key.rpartition("_")
        standard = key
        if rest and at_start and (split := _own_word(first)):
            standard = f"{split}_{rest}"
        elif stem and at_end and (split := _own_word(last)):
            standard = f"{stem}_{split}"
        if standard in meaning:
            raise InputError(f"the keys {meaning[standard]} and {key} both mean {standard}; keep one of them")
        meaning[standard] = key
    return meaning


def _own_word(word: str) -> str | None:
    """The split whose word in the own layout this is, but for upper case; also other words for validation."""
    word = word.lower()
    return "valid" if word in SPLIT_WORDS["valid"] else word if word in SPLITS else None


def named_keys(entries: Sequence[str], keys: Iterable[str], source: str) -> Keys:
    """Own key -> key in the file, from names that the user gives.

    Args:
        entries: as `cut_options.parse_keys` takes them.
        keys: names of the arrays in the file.
        source: where the arrays come from, for messages.

    Raises:
        InputError: there is no such array, or a name has more than three.
    """
    have, named = list(keys), dict[str, str]()
    for name, parts in parse_keys(entries).items():
        if len(parts) > 3:
            raise InputError(f"{source}: keys {name}={','.join(parts)[:80]}: {KEY_RULE}")
        if missing := [key for key in parts if key not in have]:
            raise InputError(f"{source}: keys {name}={','.join(parts)}: no array {missing[0]!r}; found: {listed(have)}")
        splits = {1: ("",), 2: ("train_", "test_"), 3: _PREFIXES}[len(parts)]
        named |= {f"{split}{name}": key for split, key in zip(splits, parts, strict=True)}
    if "class_names" in have:
        named.setdefault("class_names", "class_names")
    return named
