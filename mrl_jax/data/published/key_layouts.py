"""The public file layouts of the field, recognised by their keys and read as if they were the project's own layout.

Own layout: `{train,valid,test}_MODALITY`, `{train,valid,test}_labels` or `…_MODALITY_labels`, and optionally
`…_MODALITY_mask`, `{train,valid,test}_ids` and `class_names`.
"""

import contextlib
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mrl_jax.data.arrays import Renamed, own_modalities
from mrl_jax.data.dataset import SPLITS
from mrl_jax.data.formats.readers import open_arrays
from mrl_jax.data.published.catalog import CATALOG
from mrl_jax.errors import DatasetWarning, InputError, listed

__all__ = ["LAYOUTS", "canonical", "open_source", "recognise"]

Keys = dict[str, str]  # key of the own layout -> key in the file

_VIEWS = ("image", "text", "audio", "3d", "video")  # order of the cells in XMediaNet's files


def _first(have: set[str], *names: str) -> str | None:
    return next((name for name in names if name in have), None)


def _collect(have: set[str], wanted: Mapping[str, tuple[str, ...]], needed: Iterable[str]) -> Keys | None:
    """The keys that are there; None unless all needed ones are."""
    found = {own: key for own, names in wanted.items() if (key := _first(have, *names)) is not None}
    return found if set(needed) <= set(found) else None


def _pair(split: str) -> list[str]:
    return [f"{split}_image", f"{split}_text", f"{split}_image_labels"]


_ENDS = [*_pair("train"), *_pair("test")]  # a layout may lack the validation split


def _deep(have: set[str]) -> Keys | None:
    wanted: dict[str, tuple[str, ...]] = {}
    for s in SPLITS:
        wanted[f"{s}_image"] = (f"{s}_imgs_deep",)
        wanted[f"{s}_text"] = (f"{s}_texts_doc", f"{s}_texts", f"{s}_text")
        wanted[f"{s}_image_labels"] = (f"{s}_imgs_labels",)
        wanted[f"{s}_text_labels"] = (f"{s}_texts_labels", f"{s}_imgs_labels")
    return _collect(have, wanted, _ENDS)


def _short(have: set[str]) -> Keys | None:
    wanted: dict[str, tuple[str, ...]] = {}
    for s, names in (("train", ("tr", "train")), ("valid", ("val", "valid")), ("test", ("te", "test"))):
        wanted[f"{s}_image"] = tuple(f"{n}_img" for n in names)
        wanted[f"{s}_text"] = tuple(f"{n}_txt" for n in names)
        wanted[f"{s}_image_labels"] = tuple(f"{n}_img_lab" for n in names)
        wanted[f"{s}_text_labels"] = tuple(f"{n}_{v}_lab" for v in ("txt", "img") for n in names)
    return _collect(have, wanted, _ENDS)


def _named(have: set[str]) -> Keys | None:
    wanted: dict[str, tuple[str, ...]] = {}
    for s in SPLITS:
        wanted[f"{s}_image"], wanted[f"{s}_text"] = (f"img_{s}",), (f"text_{s}", f"txt_{s}")
        wanted[f"{s}_image_labels"] = wanted[f"{s}_text_labels"] = (f"label_{s}",)
    return _collect(have, wanted, _ENDS)


def _cells(have: set[str]) -> Keys | None:
    wanted: dict[str, tuple[str, ...]] = {}
    for s in SPLITS:
        for v, m in enumerate(_VIEWS):
            wanted[f"{s}_{m}"] = (f"{s}[{v}]",)
            wanted[f"{s}_{m}_labels"] = (f"{s}_labels[{v}]",)
    return _collect(have, wanted, _ENDS)


def _xmedia(have: set[str]) -> Keys | None:
    wanted: dict[str, tuple[str, ...]] = {}
    for s, n in (("train", "tr"), ("test", "te")):
        wanted[f"{s}_image"], wanted[f"{s}_text"] = (f"I_{n}_CNN",), (f"T_{n}_BOW",)
        wanted[f"{s}_image_labels"] = (f"{n}ImgCat",)
        wanted[f"{s}_text_labels"] = (f"{n}TxtCat", f"{n}ImgCat")
    return _collect(have, wanted, _ENDS)


def _wikipedia_2010(have: set[str]) -> Keys | None:
    wanted: dict[str, tuple[str, ...]] = {"class_names": ("categories.list",)}
    for s, n in (("train", "tr"), ("test", "te")):
        wanted[f"{s}_image"], wanted[f"{s}_text"] = (f"I_{n}",), (f"T_{n}",)
        wanted[f"{s}_image_labels"] = wanted[f"{s}_text_labels"] = (f"{s}set_txt_img_cat.list",)
        wanted[f"{s}_ids"] = (f"{s}set_txt_img_cat.list:ids",)
    return _collect(have, wanted, _ENDS)


LAYOUTS = {
    "deep": (_deep, "{train,valid,test}_imgs_deep, …_texts, …_text or …_texts_doc, …_imgs_labels"),
    "short": (_short, "{tr,val,te}_{img,txt,img_lab,txt_lab}"),
    "named": (_named, "{img,text,label}_{train,valid,test}"),
    "cells": (_cells, "cell arrays {train,valid,test} and {train,valid,test}_labels"),
    "xmedia": (_xmedia, "I_{tr,te}_CNN, T_{tr,te}_BOW, {tr,te}ImgCat"),
    "wikipedia-2010": (_wikipedia_2010, "{I,T}_{tr,te} beside {train,test}set_txt_img_cat.list"),
}
"""Name of a public layout -> how its keys are told from others, and what they look like."""


def recognise(keys: Iterable[str]) -> tuple[str, Keys]:
    """Which layout the keys belong to.

    Args:
        keys: names of the arrays.

    Returns:
        The layout's name ("own" for none of the public ones), and own key -> key in the file (empty for "own").
    """
    keys = list(keys)
    have = set(keys)
    if _is_own(keys):
        return "own", {}
    for name, (match, _) in LAYOUTS.items():
        if (found := match(have)) is not None:
            return name, found
    return "own", {}


def _is_own(keys: Sequence[str]) -> bool:
    """Whether all that the own layout needs is there, for two modalities or more."""
    have = set(keys)
    complete = [
        m
        for m in own_modalities(keys)
        if all(f"{s}_{m}" in have and {f"{s}_{m}_labels", f"{s}_labels"} & have for s in SPLITS)
    ]
    return len(complete) > 1


def canonical(arrays: Mapping[str, Any], set_name: str | None, source: str) -> tuple[Mapping[str, Any], str]:
    """Read arrays of any known layout as if they were of the own one.

    A layout without validation rows gets them from the beginning of its test rows, as many as the set's protocol says.
    What stands beside a public layout under a key of the own one (`class_names`, `SPLIT_ids`) is kept.

    Args:
        arrays: name -> array, read on access.
        set_name: which set it is (a key of `CATALOG`), or None to tell by the number of training rows.
        source: where the arrays come from, for messages.

    Returns:
        The arrays, and the layout's name.

    Raises:
        InputError: no validation rows, and no protocol that says which test rows they are; an incomplete validation
            split; masks, which public layouts have not.
    """
    name, keys = recognise(arrays)
    if name == "own":
        return arrays, name
    keys |= {key: key for key in ("class_names", *(f"{s}_ids" for s in SPLITS)) if key in arrays and key not in keys}
    _check_unused(arrays, keys, name, source)
    if any(key.startswith("valid_") for key in keys):
        if lost := [own for own in _pair("valid") if own not in keys]:
            raise InputError(
                f"{source}: in the layout {LAYOUTS[name][1]} nothing stands for {', '.join(lost)}; "
                f"keys found: {listed(arrays)}"
            )
        return Renamed(arrays, keys, {}), name
    test_rows = _label_rows(arrays[keys["test_image_labels"]])
    set_name = set_name or _set_of(arrays, keys, name)
    count = _valid_rows(set_name, test_rows)
    if count is None or count >= test_rows:
        known = ", ".join(CATALOG)
        raise InputError(
            f"{source}: no validation rows, and {test_rows} test rows; name the set by its preset ({known}), whose "
            "protocol tells which test rows are for validation, or save your own split with numpy.savez"
        )
    rows = {}
    for key in [k for k in keys if k.startswith("test_")]:
        keys["valid_" + key.removeprefix("test_")] = keys[key]
        rows["valid_" + key.removeprefix("test_")], rows[key] = slice(0, count), slice(count, None)
    return Renamed(arrays, keys, rows), name


def _check_unused(arrays: Iterable[str], keys: Keys, layout: str, source: str) -> None:
    """Tell what looks like a part of the data set but belongs to no modality of the layout."""
    starts, ends = tuple(f"{s}_" for s in SPLITS), tuple(f"_{s}" for s in SPLITS)
    unused = [k for k in arrays if k not in keys.values() and (k.startswith(starts) or k.endswith(ends))]
    rename = "rename the arrays to {train,valid,test}_MODALITY and {train,valid,test}_labels"
    if masks := [key for key in unused if key.endswith("_mask")]:
        raise InputError(
            f"{source}: {masks[0]} marks missing samples, which the layout {LAYOUTS[layout][1]} does not know; {rename}"
        )
    if unused:
        warnings.warn(
            f"{source}: read as the layout {LAYOUTS[layout][1]}; not used: {listed(unused)}; to use them, {rename}",
            DatasetWarning,
            stacklevel=2,
        )


def _valid_rows(set_name: str | None, test_rows: int) -> int | None:
    """How many of the first test rows serve for validation."""
    if set_name not in CATALOG:
        return None
    published = CATALOG[set_name].sizes["valid"]
    return min(published, test_rows // 2) if set_name == "pascal-sentence" else published


def _set_of(arrays: Mapping[str, Any], keys: Keys, layout: str) -> str | None:
    if layout in ("xmedia", "wikipedia-2010"):
        return "xmedia" if layout == "xmedia" else "wikipedia"
    rows = _label_rows(arrays[keys["train_image_labels"]])
    fitting = [name for name, facts in CATALOG.items() if facts.sizes["train"] == rows]
    return fitting[0] if len(fitting) == 1 else None


def _label_rows(labels: Any) -> int:
    """How many instances an array labels: a vector, a row, a column or one-hot rows."""
    labels = np.asarray(labels)
    return labels.shape[0] if labels.ndim == 2 and 1 not in labels.shape else labels.size


# ---------------------------------------------------------------------------------------------------------------------
# Files and folders


@contextlib.contextmanager
def open_source(path: Path, set_name: str | None = None) -> Iterator[Mapping[str, Any]]:
    """The arrays of a data file, or of a folder that holds one of the public layouts.

    Args:
        path: a file; or a folder of `.npy` or Parquet files, of Pascal Sentence's `.mat` files, of Wikipedia's release
            of 2010, or with one data file somewhere below it.
        set_name: which set it should be (a key of `CATALOG`), to choose among several files.

    Raises:
        InputError: nothing that can be read, or several files that could be meant.
    """
    lists = _lists_beside(path)
    if path.is_dir() and (parts := _single_arrays(path)):
        with contextlib.ExitStack() as stack:
            yield _Parts({key: stack.enter_context(open_arrays(file)) for key, file in parts.items()})
    elif lists:
        features = path / "raw_features.mat" if path.is_dir() else path
        with open_arrays(features) as arrays:
            yield _WithLists(arrays, lists)
    elif path.is_dir() and not _is_array_folder(path):
        with open_source(_only_file(path, set_name), set_name) as arrays:
            yield arrays
    else:
        with open_arrays(path) as arrays:
            yield arrays


_SUFFIXES = (".npz", ".mat", ".h5", ".hdf5", ".h5py", ".parquet")


def _is_array_folder(path: Path) -> bool:
    return any(file.suffix in (".npy", ".parquet") for file in path.iterdir())


def _only_file(folder: Path, set_name: str | None) -> Path:
    """The data file that a folder holds, at any depth; of several the one that the set's table names first."""
    files = sorted(p for p in folder.rglob("*") if p.suffix in _SUFFIXES and p.is_file())
    if set_name in CATALOG:
        for known in CATALOG[set_name].files:
            for file in files:
                if file.name in re.split(r" or | \+ ", known.names):
                    return file
        halves = {file.parent for file in files if file.name == "train_img.mat"}
        if len(halves) == 1:
            return halves.pop()
    if len(files) != 1:
        names = ", ".join(str(p.relative_to(folder)) for p in files[:10]) or "none"
        raise InputError(
            f"data folder {str(folder)!r}: one data file ({', '.join(_SUFFIXES)}), a folder of .npy files or a known "
            f"layout is needed; data files found: {names}; give the path of the one that is meant (pictures and texts: "
            "python -m mrl_jax.data featurize)"
        )
    return files[0]


def _single_arrays(folder: Path) -> dict[str, Path]:
    """Pascal Sentence's files, one array each: key -> file; empty if this is no such folder."""
    files = {p.stem: p for p in folder.glob("*.mat") if re.fullmatch(r"(train|valid|test)_(img|txt)(_lab)?", p.stem)}
    return files if {"train_img", "test_img"} <= set(files) else {}


class _Parts(Mapping[str, Any]):
    """One array per file."""

    def __init__(self, files: Mapping[str, Mapping[str, Any]]) -> None:
        self._files = files

    def __getitem__(self, key: str) -> Any:
        arrays = self._files[key]
        if len(arrays) != 1:
            raise InputError(f"{key}.mat must hold one array; found: {listed(arrays)}")
        return arrays[next(iter(arrays))]

    def __contains__(self, key: object) -> bool:
        return key in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


_LIST = "{}set_txt_img_cat.list"


def _lists_beside(path: Path) -> dict[str, Path]:
    """The lists of Wikipedia's release of 2010 beside its feature file, by name; empty if there are none."""
    folder = path if path.is_dir() else path.parent
    if path.name != "raw_features.mat" and not (folder / "raw_features.mat").is_file():
        return {}
    if not path.is_dir() and path.name != "raw_features.mat":
        return {}
    names = [_LIST.format("train"), _LIST.format("test"), "categories.list"]
    found = {name: folder / name for name in names if (folder / name).is_file()}
    if missing := [name for name in names[:2] if name not in found]:
        raise InputError(f"{folder / missing[0]} does not exist; raw_features.mat needs it beside it for the labels")
    return found


class _WithLists(Mapping[str, Any]):
    """Arrays of a file, and what the lists beside it say: labels under the list's name, ids under `NAME:ids`."""

    def __init__(self, arrays: Mapping[str, Any], lists: Mapping[str, Path]) -> None:
        self._arrays, self._lists = arrays, lists
        self._keys = [*arrays, *lists, *(f"{name}:ids" for name in lists if "img_cat" in name)]

    def __getitem__(self, key: str) -> Any:
        if key in self._arrays:
            return self._arrays[key]
        if key not in self._keys:
            raise KeyError(key)
        if key == "categories.list":
            return np.array([line for line in _lines(self._lists[key]) if line])
        return _read_list(self._lists[key.removesuffix(":ids")], ids=key.endswith(":ids"))

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def _read_list(path: Path, ids: bool) -> np.ndarray:
    """The third column (class) or the first two (text and image id) of a list, a row per instance."""
    rows = [line.split("\t") for line in _lines(path) if line]
    for number, row in enumerate(rows, start=1):
        if len(row) != 3 or not row[2].isascii() or not row[2].isdecimal() or len(row[2]) > 9:
            raise InputError(f"{path}: line {number} is not text id, image id and class number, separated by tabs")
    return (
        np.array([f"{row[0]} {row[1]}" for row in rows]) if ids else np.array([int(row[2]) for row in rows], np.int64)
    )


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); restore it from the data set's archive") from error
