"""Public file layouts: recognised by their keys and mapped to the keys of the project's own layout.

The own layout is `{train,valid,test}_MODALITY`, `{train,valid,test}_labels` or `…_MODALITY_labels`, and optionally
`…_MODALITY_mask`, `{train,valid,test}_ids` and `class_names`.
"""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mrl_jax.data.arrays import Renamed, own_modalities
from mrl_jax.data.dataset import SPLITS
from mrl_jax.data.published.catalog import CATALOG
from mrl_jax.errors import DatasetWarning, InputError, listed

__all__ = ["LAYOUTS", "canonical", "recognise"]

Keys = dict[str, str]  # key of the own layout -> key in the file

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


LAYOUTS = {
    "deep": (_deep, "{train,valid,test}_imgs_deep, …_texts, …_text or …_texts_doc, …_imgs_labels"),
    "short": (_short, "{tr,val,te}_{img,txt,img_lab,txt_lab}"),
    "named": (_named, "{img,text,label}_{train,valid,test}"),
    "cells": (_cells, "cell arrays {train,valid,test} and {train,valid,test}_labels"),
    "xmedia": (_xmedia, "I_{tr,te}_CNN, T_{tr,te}_BOW, {tr,te}ImgCat"),
    "wikipedia-2010": (_wikipedia_2010, "{I,T}_{tr,te} beside {train,test}set_txt_img_cat.list"),
}
"""Name of a public layout -> the function that recognises its keys, and a pattern of these keys for messages."""


def recognise(keys: Iterable[str]) -> tuple[str, Keys]:
    """Find the layout that the keys belong to.

    Args:
        keys: names of the arrays.

    Returns:
        The name of the layout ("own" if it is none of the public ones), and own key -> key in the file (empty for
        "own").
    """
    keys = list(keys)
    have = set(keys)
    if _is_own(keys):
        return "own", {}
    for name, (match, _) in LAYOUTS.items():
        if (file_keys := match(have)) is not None:
            return name, file_keys
    return "own", {}


def _is_own(keys: Sequence[str]) -> bool:
    """Whether the keys form the own layout completely, with two or more modalities."""
    have = set(keys)
    complete = [
        m
        for m in own_modalities(keys)
        if all(f"{s}_{m}" in have and {f"{s}_{m}_labels", f"{s}_labels"} & have for s in SPLITS)
    ]
    return len(complete) > 1


def canonical(arrays: Mapping[str, Any], set_name: str | None, source: str) -> tuple[Mapping[str, Any], str]:
    """Present arrays of any known layout under the keys of the own layout.

    Where a layout has no validation rows, the first test rows become the validation split, as many as the protocol of
    the set gives. Arrays under own keys beside a public layout (`class_names`, `SPLIT_ids`) are kept.

    Args:
        arrays: name -> array, read on access.
        set_name: which set it is (a key of `CATALOG`), or None to infer it from the number of training rows.
        source: where the arrays come from, for messages.

    Returns:
        The arrays, and the name of the layout.

    Raises:
        InputError: there are no validation rows and no protocol that gives them, the validation split is incomplete, or
            there are masks, which public layouts do not support.
    """
    name, keys = recognise(arrays)
    if name == "own":
        return arrays, name
    keys |= {key: key for key in ("class_names", *(f"{s}_ids" for s in SPLITS)) if key in arrays and key not in keys}
    _check_unused(arrays, keys, name, source)
    if any(key.startswith("valid_") for key in keys):
        if missing := [own for own in _pair("valid") if own not in keys]:
            raise InputError(
                f"{source}: the layout {LAYOUTS[name][1]} lacks a key for {', '.join(missing)}; "
                f"keys found: {listed(arrays)}"
            )
        return Renamed(arrays, keys, {}), name
    test_rows = _label_rows(arrays[keys["test_image_labels"]])
    set_name = set_name or _infer_set(arrays, keys, name)
    count = _valid_rows(set_name, test_rows)
    if count is None or count >= test_rows:
        known = ", ".join(CATALOG)
        raise InputError(
            f"{source}: no validation rows, and {test_rows} test rows; name the set by its preset ({known}), whose "
            "protocol gives the test rows that are used for validation, or save your own split with numpy.savez"
        )
    rows = {}
    for key in [k for k in keys if k.startswith("test_")]:
        keys["valid_" + key.removeprefix("test_")] = keys[key]
        rows["valid_" + key.removeprefix("test_")], rows[key] = slice(0, count), slice(count, None)
    return Renamed(arrays, keys, rows), name


def _check_unused(arrays: Iterable[str], keys: Keys, layout: str, source: str) -> None:
    """Warn of arrays that look like a part of the data set but belong to no modality of the layout."""
    starts, ends = tuple(f"{s}_" for s in SPLITS), tuple(f"_{s}" for s in SPLITS)
    unused = [k for k in arrays if k not in keys.values() and (k.startswith(starts) or k.endswith(ends))]
    rename = "rename the arrays to {train,valid,test}_MODALITY and {train,valid,test}_labels"
    if masks := [key for key in unused if key.endswith("_mask")]:
        raise InputError(
            f"{source}: {masks[0]} marks missing samples, which the layout {LAYOUTS[layout][1]} does not support; "
            f"{rename}"
        )
    if unused:
        warnings.warn(
            f"{source}: read in the layout {LAYOUTS[layout][1]}; not used: {listed(unused)}; to use them, {rename}",
            DatasetWarning,
            stacklevel=2,
        )


def _valid_rows(set_name: str | None, test_rows: int) -> int | None:
    """Number of the first test rows that form the validation split; None without a protocol."""
    if set_name not in CATALOG:
        return None
    published = CATALOG[set_name].sizes["valid"]
    return min(published, test_rows // 2) if set_name == "pascal-sentence" else published


def _infer_set(arrays: Mapping[str, Any], keys: Keys, layout: str) -> str | None:
    """The set, from its layout or its number of training rows; None if these do not determine it."""
    if layout in ("xmedia", "wikipedia-2010"):
        return "xmedia" if layout == "xmedia" else "wikipedia"
    rows = _label_rows(arrays[keys["train_image_labels"]])
    matches = [name for name, facts in CATALOG.items() if facts.sizes["train"] == rows]
    return matches[0] if len(matches) == 1 else None


def _label_rows(labels: Any) -> int:
    """Number of instances that an array labels: a vector, a row, a column or one-hot rows."""
    labels = np.asarray(labels)
    return labels.shape[0] if labels.ndim == 2 and 1 not in labels.shape else labels.size
