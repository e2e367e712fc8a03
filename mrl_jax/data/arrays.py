"""Data of one's own: a mapping of arrays, or an `.npz` with the same keys, checked and turned into a `Dataset`."""

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mrl_jax.data.dataset import SPLITS, Dataset, Split
from mrl_jax.errors import InputError

__all__ = ["dataset_from_arrays", "read_npz"]

LAYOUT = "{train,valid,test}_MODALITY and {train,valid,test}_labels (or {train,valid,test}_MODALITY_labels)"


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an `.npz`. Pickled objects are refused, since loading one runs code.

    Raises:
        InputError: no such file, not an `.npz`, damaged, or with pickled objects.
    """
    if not path.is_file():
        raise InputError(f"data file {str(path)!r} does not exist or is no file; give the path of an .npz")
    if path.suffix != ".npz":
        raise InputError(f"data file {str(path)!r}: only .npz is read; save your arrays with numpy.savez")
    if not zipfile.is_zipfile(path):
        raise InputError(f"data file {str(path)!r} cannot be read (it is no .npz archive); write it with numpy.savez")
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, TypeError) as error:
        reason = "it holds pickled objects" if "allow_pickle" in str(error) else str(error).splitlines()[0]
        raise InputError(
            f"data file {str(path)!r} cannot be read ({reason}); write it anew with numpy.savez from numeric arrays"
        ) from error


def dataset_from_arrays(
    arrays: Mapping[str, Any], name: str, modalities: Sequence[str] = (), source: str = "arrays"
) -> Dataset:
    """Check arrays named as in the `.npz` layout and join them to a `Dataset`.

    Args:
        arrays: `{split}_{modality}` [N, D], `{split}_labels` or `{split}_{modality}_labels` [N], optionally
            `class_names` [K] (without it, K is the largest label + 1).
        name: name of the data set.
        modalities: which to use, in this order; empty for all, in the order of `arrays`.
        source: where the arrays come from, for messages.

    Raises:
        InputError: a missing key, rows or columns that do not match, features that are not finite numbers, labels that
            are not integers 0..K-1, an empty split, or a class without a training sample.
    """
    modalities = _modalities(arrays, modalities, source)
    splits = {}
    for split in SPLITS:
        features = {m: _features(arrays, f"{split}_{m}", source) for m in modalities}
        labels = {m: _labels(arrays, split, m, source) for m in modalities}
        rows = {f"{split}_{m}": len(x) for m, x in features.items()}
        rows |= {_label_key(arrays, split, m): len(y) for m, y in labels.items()}
        if len(set(rows.values())) != 1:
            told = ", ".join(f"{k} has {n}" for k, n in rows.items())
            raise InputError(f"{source}: numbers of rows differ: {told}; row j of every array must be instance j")
        splits[split] = Split(features, labels)
    for m in modalities:
        widths = {s: splits[s].features[m].shape[1] for s in SPLITS}
        if len(set(widths.values())) != 1:
            told = ", ".join(f"{s}_{m} has {d}" for s, d in widths.items())
            raise InputError(
                f"{source}: numbers of columns differ: {told}; a modality needs the same features everywhere"
            )
    return Dataset(name, modalities, _class_names(arrays, splits, source), splits, {"source": source})


def _modalities(arrays: Mapping[str, Any], wanted: Sequence[str], source: str) -> tuple[str, ...]:
    found = [k.removeprefix("train_") for k in arrays if k.startswith("train_") and not k.endswith("labels")]
    if len(set(wanted)) != len(wanted):
        raise InputError(f"{source}: modalities {' '.join(wanted)} repeat one; name each once")
    if wanted:
        for m in wanted:
            if m not in found:
                raise InputError(f"{source}: no modality {m!r} (key train_{m}); found: {', '.join(found) or 'none'}")
        found = list(wanted)
    if len(found) < 2:
        keys = ", ".join(arrays) or "none"
        raise InputError(f"{source}: two or more modalities are needed; the layout is {LAYOUT}; keys found: {keys}")
    return tuple(found)


def _get(arrays: Mapping[str, Any], key: str, source: str) -> np.ndarray:
    if key not in arrays:
        raise InputError(f"{source}: key {key!r} is missing; the layout is {LAYOUT}; keys found: {', '.join(arrays)}")
    return np.asarray(arrays[key])


def _features(arrays: Mapping[str, Any], key: str, source: str) -> np.ndarray:
    x = _get(arrays, key, source)
    if x.ndim != 2 or x.dtype.kind not in "fiub":
        raise InputError(f"{source}: {key} is {x.dtype} {list(x.shape)}; features must be numbers [instances, columns]")
    if 0 in x.shape:
        raise InputError(
            f"{source}: {key} is empty, shape {list(x.shape)}; every split needs an instance, every modality a column"
        )
    with np.errstate(over="ignore"):  # float64 beyond float32's range becomes inf and is refused below
        x = np.ascontiguousarray(x, np.float32)
    bad = ~np.isfinite(x)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise InputError(
            f"{source}: {key} holds {int(bad.sum())} values NaN, inf or beyond float32, the first in row {row}, "
            f"column {column}; features must be finite: remove or impute them"
        )
    return x


def _label_key(arrays: Mapping[str, Any], split: str, modality: str) -> str:
    own = f"{split}_{modality}_labels"
    return own if own in arrays else f"{split}_labels"


def _labels(arrays: Mapping[str, Any], split: str, modality: str, source: str) -> np.ndarray:
    key = _label_key(arrays, split, modality)
    y = _get(arrays, key, source)
    if y.ndim != 1 or y.dtype.kind not in "iu":
        raise InputError(
            f"{source}: {key} is {y.dtype} {list(y.shape)}; labels must be integers 0..K-1, shape [instances]"
        )
    if len(y) and (y.min() < 0 or y.max() > np.iinfo(np.int32).max - 1):
        raise InputError(
            f"{source}: {key} holds the label {y.min() if y.min() < 0 else y.max()}; labels must be 0..K-1"
        )
    return np.ascontiguousarray(y, np.int32)


def _class_names(arrays: Mapping[str, Any], splits: Mapping[str, Split], source: str) -> tuple[str, ...]:
    labels = {(s, m): y for s in SPLITS for m, y in splits[s].labels.items()}
    largest = max(int(y.max()) for y in labels.values())
    if "class_names" in arrays:
        names = tuple(str(n) for n in np.asarray(arrays["class_names"]).ravel().tolist())
        for (split, _), y in labels.items():
            if y.max() >= len(names):
                raise InputError(
                    f"{source}: {split} holds the label {y.max()}, but class_names has {len(names)} names; "
                    f"labels must be 0..{len(names) - 1}"
                )
    else:
        trained = np.unique(np.concatenate([y for (s, _), y in labels.items() if s == "train"]))
        if largest >= 2 * len(trained) + 1000:  # before K names are made for a stray value
            raise InputError(
                f"{source}: the label {largest} is far from 0..{len(trained) - 1}; number the classes 0..K-1"
            )
        names = tuple(str(k) for k in range(largest + 1))
    if len(names) < 2:
        raise InputError(f"{source}: all labels are 0; at least two classes are needed to cluster by")
    counts = sum(np.bincount(y, minlength=len(names)) for (s, _), y in labels.items() if s == "train")
    absent = np.flatnonzero(np.asarray(counts) == 0)
    if len(absent):
        k = int(absent[0])
        hint = "labels must start at 0" if k == 0 else "number the classes 0..K-1 without gaps"
        raise InputError(f"{source}: class {k} ({names[k]}) has no training sample; {hint}, or add samples of it")
    return names
