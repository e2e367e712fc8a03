"""Check a mapping of arrays in the project's own layout and turn it into a `Dataset`."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mrl_jax.data.dataset import SPLITS, Dataset, Split
from mrl_jax.data.formats import read_float32
from mrl_jax.data.label_forms import RawLabels, normalize_labels
from mrl_jax.errors import InputError, listed

__all__ = ["LAYOUT", "Renamed", "dataset_from_arrays", "finite_float32", "own_modalities"]

LAYOUT = "{train,valid,test}_MODALITY and {train,valid,test}_labels (or {train,valid,test}_MODALITY_labels)"
"""Keys of the own layout, for messages."""
_BLOCK = 1 << 24  # numbers checked at once


class Renamed(Mapping[str, Any]):
    """Arrays of a file under the keys of the own layout; an own key may stand for a range of rows.

    Args:
        arrays: the arrays of the file.
        keys: own key -> key in the file.
        rows: own key -> its rows in the array of the file; all rows for keys without an entry.
    """

    def __init__(self, arrays: Mapping[str, Any], keys: Mapping[str, str], rows: Mapping[str, slice]) -> None:
        self._arrays, self._keys, self._rows = arrays, keys, rows

    def origin(self, key: str) -> str:
        """The key in the file."""
        return self._keys[key]

    def __getitem__(self, key: str) -> Any:
        return self._part(key, self._arrays[self._keys[key]])

    def __contains__(self, key: object) -> bool:
        return key in self._keys  # `Mapping` would read the array

    def read_float32(self, key: str) -> Any:
        """As `formats.read_float32`."""
        return self._part(key, read_float32(self._arrays, self._keys[key]))

    def _part(self, key: str, value: Any) -> Any:
        if key not in self._rows:
            return value
        value = np.asarray(value)
        if key.endswith("labels") and value.ndim == 2 and value.shape[0] == 1:
            value = value.ravel()  # labels as a row
        return value[self._rows[key]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def dataset_from_arrays(
    arrays: Mapping[str, Any],
    name: str,
    modalities: Sequence[str] = (),
    source: str = "arrays",
    keep: Callable[[str, np.ndarray], np.ndarray] | None = None,
    num_classes: int | None = None,
) -> Dataset:
    """Check arrays in the own layout and join them to a `Dataset`.

    Args:
        arrays: `{split}_{modality}` [N, D]; `{split}_labels` or `{split}_{modality}_labels`, one label per row in any
            form that `normalize_labels` knows; optionally `{split}_{modality}_mask` bool [N], False where a sample is
            missing, `{split}_ids` text [N], and `class_names` [K] (without it, K is the largest label + 1).
            Each array is read once, so the mapping may read from a file on access.
        name: name of the data set.
        modalities: which to use, in this order; empty for all, in the order of `arrays`.
        source: where the arrays come from, for messages.
        keep: takes `{split}_{modality}` and its checked features, and returns the array to use instead.
        num_classes: K where it is known without `class_names`; used only to number labels.

    Raises:
        InputError: a key is missing, rows or columns do not match, features are not finite numbers, labels contradict
            each other, a split is empty, or a class has no training sample.
    """
    modalities = _modalities(arrays, modalities, source)
    _check_masks(arrays, source)
    features: dict[str, np.ndarray] = {}
    masks: dict[str, np.ndarray] = {}
    for split in SPLITS:
        for m in modalities:
            key = f"{split}_{m}"
            mask = _mask(arrays, key, source)
            features[key] = _features(arrays, key, mask, source)
            if keep is not None:
                features[key] = keep(key, features[key])
            if mask is not None and not mask.all():
                masks[key] = mask
    labels, class_names = _all_labels(arrays, modalities, features, masks, num_classes, source)
    splits = {s: _split(arrays, s, modalities, features, labels, masks, source) for s in SPLITS}
    _check_columns(splits, modalities, source)
    names = _class_names(splits, class_names, source)
    return Dataset(name, modalities, names, splits, {"source": source})


def own_modalities(keys: Iterable[str]) -> list[str]:
    """Names of the modalities in keys of the own layout, in the order of the keys."""
    ends = ("labels", "_mask", "_ids")
    return [k.removeprefix("train_") for k in keys if k.startswith("train_") and not k.endswith(ends)]


def _modalities(arrays: Mapping[str, Any], wanted: Sequence[str], source: str) -> tuple[str, ...]:
    names = own_modalities(arrays)
    if len(set(wanted)) != len(wanted):
        raise InputError(f"{source}: modalities {' '.join(wanted)} repeat one; name each once")
    if wanted:
        for m in wanted:
            if m not in names:
                raise InputError(f"{source}: no modality {m!r} (key train_{m}); found: {', '.join(names) or 'none'}")
        names = list(wanted)
    if len(names) < 2:
        raise InputError(
            f"{source}: two or more modalities are needed; the layout is {LAYOUT}, or one of the published layouts "
            f"(docs/data.md); keys found: {listed(arrays)}"
        )
    return tuple(names)


def _get(arrays: Mapping[str, Any], key: str, source: str) -> np.ndarray:
    if key not in arrays:
        raise InputError(f"{source}: key {key!r} is missing; the layout is {LAYOUT}; keys found: {listed(arrays)}")
    return np.asarray(arrays[key])


def _mask(arrays: Mapping[str, Any], key: str, source: str) -> np.ndarray | None:
    """bool [N]: which samples are present; None without a mask."""
    key = f"{key}_mask"
    if key not in arrays:
        return None
    mask = np.asarray(arrays[key])
    if mask.ndim == 2 and 1 in mask.shape:
        mask = mask.ravel()
    if mask.ndim != 1 or mask.dtype.kind not in "biuf" or not np.isin(mask, (0, 1)).all():
        raise InputError(
            f"{source}: {key} is {mask.dtype} {list(mask.shape)}; a mask has one value per row, true (or 1) where the "
            "sample is present, else false (or 0)"
        )
    if not mask.any():
        raise InputError(f"{source}: {key} is false everywhere; leave the modality out, or give it samples")
    return mask.astype(bool)


def _check_masks(arrays: Mapping[str, Any], source: str) -> None:
    """Refuse a mask of no modality: it is a misspelt key, and its missing samples would be trained on."""
    known = own_modalities(arrays)
    for key in arrays:
        split, _, rest = key.partition("_")
        if split in SPLITS and rest.endswith("_mask") and rest.removesuffix("_mask") not in known:
            raise InputError(f"{source}: {key} belongs to no modality; modalities found: {', '.join(known) or 'none'}")


def _features(arrays: Mapping[str, Any], key: str, mask: np.ndarray | None, source: str) -> np.ndarray:
    x = np.asarray(read_float32(arrays, key)) if key in arrays else _get(arrays, key, source)
    if x.ndim != 2 or x.dtype.kind not in "fiub":
        raise InputError(f"{source}: {key} is {x.dtype} {list(x.shape)}; features must be numbers [instances, columns]")
    if 0 in x.shape:
        raise InputError(
            f"{source}: {key} is empty, shape {list(x.shape)}; every split needs an instance, every modality a column"
        )
    if mask is not None and len(mask) != len(x):
        raise InputError(f"{source}: {key} has {len(x)} rows, {key}_mask has {len(mask)}; both need one per instance")
    rule = f"features must be finite: remove or impute them, or mark missing samples in {key}_mask"
    return finite_float32(x, f"{source}: {key}", rule, mask)


def finite_float32(x: np.ndarray, what: str, rule: str, mask: np.ndarray | None = None) -> np.ndarray:
    """Convert a matrix to float32 in C order and check that all values are finite.

    Args:
        x: real numbers [N, D].
        what: name of the matrix, for the message.
        rule: rule and remedy, for the message.
        mask: bool [N], False where a row is missing; such rows become zeros.

    Returns:
        float32 [N, D].

    Raises:
        InputError: a value is NaN, inf or beyond the range of float32.
    """
    with np.errstate(over="ignore"):  # float64 beyond the range of float32 becomes inf and is refused below
        x = np.ascontiguousarray(x, np.float32)
    if mask is not None:
        x = np.where(mask[:, None], x, np.float32(0))
    rows = max(1, _BLOCK // x.shape[1])
    for start in range(0, len(x), rows):
        bad = ~np.isfinite(x[start : start + rows])
        if bad.any():
            row, column = np.argwhere(bad)[0]
            raise InputError(
                f"{what} holds values NaN, inf or beyond float32, the first in row {start + row}, column {column}; "
                f"{rule}"
            )
    return x


def _label_key(arrays: Mapping[str, Any], split: str, modality: str) -> str:
    own = f"{split}_{modality}_labels"
    return own if own in arrays else f"{split}_labels"


def _all_labels(
    arrays: Mapping[str, Any],
    modalities: Sequence[str],
    features: Mapping[str, np.ndarray],
    masks: Mapping[str, np.ndarray],
    num_classes: int | None,
    source: str,
) -> tuple[dict[str, np.ndarray], tuple[str, ...] | None]:
    """Labels of every `{split}_{modality}`, numbered 0..K-1, and the names of the classes if the arrays give them."""
    raw: dict[str, RawLabels] = {}
    owner: dict[str, str] = {}  # `{split}_{modality}` -> key of its labels
    for s in SPLITS:
        _check_rows(arrays, s, modalities, features, source)
        for m in modalities:
            key = owner[f"{s}_{m}"] = _label_key(arrays, s, m)
            rows = len(features[f"{s}_{m}"])
            present = masks.get(f"{s}_{m}", np.ones(rows, bool))
            if key in raw:  # shared by modalities: a label is used where any of them has a sample
                raw[key] = replace(raw[key], present=raw[key].present | present)
                continue
            y = _get(arrays, key, source)
            if y.ndim == 1 and len(y) != rows:
                raise InputError(
                    f"{source}: numbers of rows differ: {s}_{m} has {rows}, {key} has {len(y)}; "
                    "row j of every array must be instance j"
                )
            group = arrays.origin(key) if isinstance(arrays, Renamed) else key
            raw[key] = RawLabels(y, present, group, s)
    names = _given_names(arrays, source)
    labels, named = normalize_labels(raw, None if names is None else len(names), source, num_classes)
    if named is not None and names is not None:
        if unknown := sorted(set(named) - set(names)):
            raise InputError(f"{source}: label {unknown[0]!r} is not in class_names; add it there, or correct it")
        number = np.array([names.index(n) for n in named], np.int32)
        labels = {key: np.where(raw[key].present, number[y], 0).astype(np.int32) for key, y in labels.items()}
    return {
        key: np.where(masks[key], labels[own], 0).astype(np.int32) if key in masks else labels[own]
        for key, own in owner.items()
    }, names or named


def _check_rows(
    arrays: Mapping[str, Any], split: str, modalities: Sequence[str], features: Mapping[str, np.ndarray], source: str
) -> None:
    """Check that modalities have the same number of rows: all in the training split, else those that share labels."""
    rows = {m: len(features[f"{split}_{m}"]) for m in modalities}
    shared = {n for m, n in rows.items() if _label_key(arrays, split, m) == f"{split}_labels"}
    if len(shared) > 1 or (split == "train" and len(set(rows.values())) > 1):
        numbers = ", ".join(f"{split}_{m} has {n}" for m, n in rows.items())
        raise InputError(
            f"{source}: numbers of rows differ: {numbers}; row j of every array must be instance j: mark missing "
            f"samples in {split}_MODALITY_mask"
            + ("" if split == "train" else ", or give each modality labels of its own for unpaired galleries")
        )


def _given_names(arrays: Mapping[str, Any], source: str) -> tuple[str, ...] | None:
    if "class_names" not in arrays:
        return None
    names = tuple(str(n) for n in np.asarray(arrays["class_names"]).ravel().tolist())
    if len(set(names)) < len(names):
        repeated = next(n for n in names if names.count(n) > 1)
        raise InputError(f"{source}: class_names holds {repeated!r} twice; every class needs a different name")
    return names


def _split(
    arrays: Mapping[str, Any],
    split: str,
    modalities: Sequence[str],
    features: Mapping[str, np.ndarray],
    labels: Mapping[str, np.ndarray],
    masks: Mapping[str, np.ndarray],
    source: str,
) -> Split:
    joined = Split(
        {m: features[f"{split}_{m}"] for m in modalities},
        {m: labels[f"{split}_{m}"] for m in modalities},
        {m: masks[f"{split}_{m}"] for m in modalities if f"{split}_{m}" in masks},
        _ids(arrays, split, source),
    )
    if joined.ids is not None and len(joined.ids) != len(joined):
        raise InputError(
            f"{source}: {split}_ids has {len(joined.ids)} rows for {len(joined)} instances; give one id per instance"
        )
    if split == "train" and len(joined.masks) == len(modalities):
        absent = ~np.any([joined.masks[m] for m in modalities], axis=0)
        if absent.any():
            raise InputError(
                f"{source}: training instance {int(absent.argmax())} is missing in every modality; remove its row"
            )
    return joined


def _ids(arrays: Mapping[str, Any], split: str, source: str) -> np.ndarray | None:
    if f"{split}_ids" not in arrays:
        return None
    ids = np.asarray(arrays[f"{split}_ids"])
    if ids.ndim != 1 or ids.dtype.kind not in "Uiu":
        raise InputError(
            f"{source}: {split}_ids is {ids.dtype} {list(ids.shape)}; ids are text or integers [instances]"
        )
    return ids.astype(str)


def _check_columns(splits: Mapping[str, Split], modalities: Sequence[str], source: str) -> None:
    for m in modalities:
        widths = {s: splits[s].features[m].shape[1] for s in SPLITS}
        if len(set(widths.values())) != 1:
            numbers = ", ".join(f"{s}_{m} has {d}" for s, d in widths.items())
            raise InputError(
                f"{source}: numbers of columns differ: {numbers}; a modality needs the same features in every split"
            )


def _class_names(splits: Mapping[str, Split], names: tuple[str, ...] | None, source: str) -> tuple[str, ...]:
    """K names, after a check that every label has a name and every class a training sample."""
    labels = {(s, m): split.labels[m][split.present(m)] for s, split in splits.items() for m in split.labels}
    largest = max(int(y.max()) for y in labels.values())
    if names is not None:
        for (split, _), y in labels.items():
            if y.max() >= len(names):
                raise InputError(
                    f"{source}: {split} holds the label {y.max()}, but class_names has {len(names)} names; "
                    f"labels must be 0..{len(names) - 1}"
                )
    else:
        trained = np.unique(np.concatenate([y for (s, _), y in labels.items() if s == "train"]))
        if largest >= 2 * len(trained) + 1000:  # checked before names are made up to a wrong value
            raise InputError(
                f"{source}: the label {largest} is far from 0..{len(trained) - 1}; number the classes 0..K-1"
            )
        names = tuple(str(k) for k in range(largest + 1))
    if len(names) < 2:
        raise InputError(f"{source}: all labels are the same; at least two classes are needed")
    counts = sum(np.bincount(y, minlength=len(names)) for (s, _), y in labels.items() if s == "train")
    absent = np.flatnonzero(np.asarray(counts) == 0)
    if len(absent):
        k = int(absent[0])
        name = "" if names[k] == str(k) else f" ({names[k]})"
        raise InputError(
            f"{source}: class {k}{name} has no training sample; number the classes without gaps, or add samples of it"
        )
    return names
