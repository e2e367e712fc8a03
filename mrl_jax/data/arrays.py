"""Check a mapping of arrays in the project's own layout and turn it into a `Dataset`."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mrl_jax.data.dataset import SPLITS, Dataset, Split, check_modality_names
from mrl_jax.data.formats import header_of, read_float32
from mrl_jax.data.key_names import keys_hint
from mrl_jax.data.label_forms import RawLabels, normalize_labels
from mrl_jax.data.own_layout import ENDS, LARGE, LAYOUT, SPLIT_WORDS, Renamed, own_modalities, transposed
from mrl_jax.data.values import plain_array
from mrl_jax.errors import DatasetWarning, InputError, listed

__all__ = ["dataset_from_arrays", "finite_float32", "warn_of_classes"]

_BLOCK = 1 << 24  # numbers checked at once


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
            missing, `{split}_{modality}_shown` and `{split}_ids` text [N], and `class_names` [K] (without it, K is the
            largest label + 1).
            Each array is read once, so the mapping may read from a file on access.
        name: name of the data set.
        modalities: which to use, in this order; empty for all, in the order of `arrays`.
        source: where the arrays come from, for messages.
        keep: takes `{split}_{modality}` and its checked features, and returns the array to use instead.
        num_classes: K where it is known without `class_names`; used only to number labels.

    Raises:
        InputError: a key is missing, rows or columns do not match, features are not finite numbers, labels contradict
            each other, a split is empty, a class has no training sample, or labels, a mask or ids belong to no
            modality.

    Warns:
        DatasetWarning: an array looks like a part of the data but is not used, or validation and test split have other
            classes.
    """
    unused = _check_owners(arrays, source)
    chosen = modalities
    modalities = _modalities(arrays, modalities, source)
    _check_large(arrays, modalities, source)
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
    if not chosen:
        unused += _matching(arrays, unused, splits)
    if unused:
        names = [arrays.origin(key) for key in unused] if isinstance(arrays, Renamed) else unused
        warnings.warn(
            f"{source}: not used: {listed(names)}; the layout is {LAYOUT}, and a modality needs all three splits; to "
            "use arrays of other names, name them with keys (--keys)",
            DatasetWarning,
            stacklevel=2,
        )
    class_names = _class_names(splits, class_names, source)
    data = Dataset(name, modalities, class_names, splits, {"source": source})
    warn_of_classes(data, source, _other_cut(arrays, modalities))
    return data


def _other_cut(arrays: Mapping[str, Any], modalities: Sequence[str]) -> str:
    """What gives another validation split, for messages."""
    valid, test, train = (
        arrays.origin(f"{s}_{modalities[0]}") if isinstance(arrays, Renamed) else s for s in ("valid", "test", "train")
    )
    if valid == train == test:
        return "cut with another --split-seed, or give validation and test larger percentages"
    if valid == train:
        return "give another --split-seed, or a larger --valid-share"
    if valid == test:
        return "take validation from the training split with --valid-share 0.1"
    return "leave the valid arrays out and give --valid-share 0.1, which cuts the training split by class"


def warn_of_classes(data: Dataset, source: str, remedy: str) -> None:
    """Warn if a class of the test split has no validation sample, or a class of the validation split no test sample.

    Classes that no modality has there come first; otherwise each modality counts by itself.

    Args:
        data: the data set.
        source: where it comes from, for the message.
        remedy: what to do about it, for the message.
    """
    there = {
        s: {m: np.bincount(data.splits[s].samples(m)[1], minlength=data.num_classes) > 0 for m in data.modalities}
        for s in ("valid", "test")
    }
    parts = _only_in_one(data, *(np.any([*there[s].values()], axis=0) for s in ("valid", "test")))
    if not parts:
        for m in data.modalities:
            parts += [f"{m}: {part}" for part in _only_in_one(data, there["valid"][m], there["test"][m])]
    if parts:
        warnings.warn(
            f"{source}: {', and '.join(parts)}; validation then chooses the model by other classes than those of the "
            f"test; {remedy}",
            DatasetWarning,
            stacklevel=3,
        )


def _only_in_one(data: Dataset, valid: np.ndarray, test: np.ndarray) -> list[str]:
    """Texts on the classes that only one of two splits has; `valid` and `test` are bool [K]."""
    return [
        f"{here.sum()} of {data.num_classes} classes have {one} samples but no {other} sample "
        f"({listed([data.class_names[k] for k in np.flatnonzero(here)], 5)})"
        for here, one, other in ((test & ~valid, "test", "validation"), (valid & ~test, "validation", "test"))
        if here.any()
    ]


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
            f"(docs/data.md); keys found: {listed(_file_keys(arrays))}; {keys_hint(_file_keys(arrays))}"
        )
    check_modality_names(names, source)
    return tuple(names)


def _file_keys(arrays: Mapping[str, Any]) -> list[str]:
    """The keys as the user knows them."""
    return list(arrays.file if isinstance(arrays, Renamed) else arrays)


def _get(arrays: Mapping[str, Any], key: str, source: str) -> np.ndarray:
    if key not in arrays:
        found = _file_keys(arrays)
        raise InputError(
            f"{source}: key {key!r} is missing; the layout is {LAYOUT}; keys found: {listed(found)}; {keys_hint(found)}"
        )
    return plain_array(arrays[key], f"{source}: {key}")


def _mask(arrays: Mapping[str, Any], key: str, source: str) -> np.ndarray | None:
    """bool [N]: which samples are present; None without a mask."""
    key = f"{key}_mask"
    if key not in arrays:
        return None
    mask = plain_array(arrays[key], f"{source}: {key}")
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


def _check_owners(arrays: Mapping[str, Any], source: str) -> list[str]:
    """Refuse labels, masks and ids of no modality in a split, as with a misspelt name.

    Returns:
        Other keys that are not used and have a word for a split, or are labels, masks or ids without one.
    """
    known, unused = own_modalities(arrays), list[str]()
    for key in arrays:
        split, _, rest = key.partition("_")
        if split not in SPLITS:
            words = [word for words in SPLIT_WORDS.values() for word in words]
            starts, ends = tuple(f"{w}_" for w in words), tuple(f"_{w}" for w in words)
            is_part = key.lower().startswith(starts) or key.lower().endswith(ends)
            unused += [key] if is_part or key.rpartition("_")[2] in ENDS else []
            continue
        owner, _, end = rest.rpartition("_")
        if rest in known or rest in ("labels", "ids") or (owner in known and end in ("labels", "mask", "shown")):
            continue
        if end in ENDS and owner not in known:
            raise InputError(
                f"{source}: {key} belongs to no modality; modalities found: {', '.join(known) or 'none'}; rename it: "
                f"if it is a modality itself, its last word must not be {' or '.join(ENDS)}"
            )
        unused.append(key)
    return unused


def _matching(arrays: Mapping[str, Any], named: Sequence[str], splits: Mapping[str, Split]) -> list[str]:
    """Keys of other unused arrays whose rows may be instances.

    These are matrices of numbers with as many rows as a split; or with as many columns as a modality and more rows than
    columns. Fewer rows are those of statistics, such as a mean [1, D] or a projection [D, D]. Arrays of large files are
    not read for this.
    """
    if not getattr(arrays.file if isinstance(arrays, Renamed) else arrays, "is_small", True):
        return []
    rows = {len(split) for split in splits.values()} | {len(splits["train"]) + len(splits["valid"])}
    columns = {x.shape[1] for x in splits["train"].features.values()}
    matching = []
    for key in arrays:
        if key in named or key == "class_names" or key.partition("_")[0] in SPLITS:
            continue
        try:
            x = plain_array(arrays[key], key)
        except InputError:  # not used, so it may be of any kind
            continue
        if x.ndim != 2 or not x.shape[1] or x.dtype.kind not in "fiub":
            continue
        if len(x) in rows or (x.shape[1] in columns and len(x) > x.shape[1]):
            matching.append(key)
    return matching


def _check_large(arrays: Mapping[str, Any], modalities: Sequence[str], source: str) -> None:
    """Refuse large arrays whose shapes do not fit the others, before any of them is read.

    A small file can claim large arrays, which take long to unpack.
    """
    headers = {key: h for key in arrays if (h := header_of(arrays, key)) is not None}
    shown = {key: f"{source}: {key} is {h.dtype} {list(h.shape)}" for key, h in headers.items()}
    for m in modalities:
        of_splits = {f"{s}_{m}": headers[f"{s}_{m}"] for s in SPLITS if f"{s}_{m}" in headers}
        large = [key for key, h in of_splits.items() if h.nbytes > LARGE]
        widths = {h.shape[1] if len(h.shape) == 2 else None for h in of_splits.values()}
        heights = {h.shape[:1] for h in of_splits.values()}
        if large and (len(widths) > 1 or None in widths) and len(heights) == len(of_splits):  # else transposed
            others = "; ".join(f"{key} {list(h.shape)}" for key, h in of_splits.items() if key != large[0])
            raise InputError(
                f"{shown[large[0]]}; features are numbers [instances, columns], alike in all splits: {others}"
            )
        for key in of_splits:
            labels = _label_key(arrays, *key.split("_", 1))
            sizes = [headers[k].nbytes for k in (key, labels) if k in headers]
            apart = labels in headers and not set(of_splits[key].shape) & set(headers[labels].shape)
            if apart and max(sizes) > LARGE:
                raise InputError(
                    f"{shown[key]}, and {labels} {list(headers[labels].shape)}; both need a row per instance"
                )


def _features(arrays: Mapping[str, Any], key: str, mask: np.ndarray | None, source: str) -> np.ndarray:
    x = plain_array(read_float32(arrays, key), f"{source}: {key}") if key in arrays else _get(arrays, key, source)
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
        given = {key: _get(arrays, key, source) for key in dict.fromkeys(_label_key(arrays, s, m) for m in modalities)}
        views, count = dict[str, np.ndarray](), 0
        for m in modalities:
            x, y = features[f"{s}_{m}"], given[_label_key(arrays, s, m)]
            if len(x) not in y.shape and x.shape[1] == max(y.shape, default=0):
                key, count = f"{s}_{m}", x.shape[1]
                views[arrays.origin(key) if isinstance(arrays, Renamed) else key] = x
        if views:
            raise InputError(f"{source}: {transposed(views, count)}")
        _check_rows(arrays, s, modalities, features, source)
        for m in modalities:
            key = owner[f"{s}_{m}"] = _label_key(arrays, s, m)
            rows = len(features[f"{s}_{m}"])
            present = masks.get(f"{s}_{m}", np.ones(rows, bool))
            if key in raw:  # shared by modalities: a label is used where any of them has a sample
                raw[key] = replace(raw[key], present=raw[key].present | present)
                continue
            y = given[key]
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
    names = tuple(str(n) for n in plain_array(arrays["class_names"], f"{source}: class_names").ravel().tolist())
    if not all(name.strip() for name in names):
        number = next(k for k, name in enumerate(names) if not name.strip())
        raise InputError(f"{source}: class_names: the name of class {number} is empty; give every class a name")
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
        _shown(arrays, split, labels, modalities, source),
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
    ids = plain_array(arrays[f"{split}_ids"], f"{source}: {split}_ids")
    if ids.ndim == 2 and 1 in ids.shape:
        ids = ids.ravel()
    if ids.ndim != 1 or ids.dtype.kind not in "Uiu":
        raise InputError(
            f"{source}: {split}_ids is {ids.dtype} {list(ids.shape)}; ids are text or integers [instances]"
        )
    return ids.astype(str)


def _shown(
    arrays: Mapping[str, Any], split: str, labels: Mapping[str, np.ndarray], modalities: Sequence[str], source: str
) -> dict[str, np.ndarray]:
    """Modality -> what is shown of its samples, for those that have it."""
    found = {}
    for m in modalities:
        key = f"{split}_{m}_shown"
        if key not in arrays:
            continue
        texts = plain_array(arrays[key], f"{source}: {key}")
        texts = texts.ravel() if texts.ndim == 2 and 1 in texts.shape else texts
        if texts.dtype.kind != "U" or texts.shape != labels[f"{split}_{m}"].shape:
            raise InputError(
                f"{source}: {key} is {texts.dtype} {list(texts.shape)}; give a text, or the path of a picture, for "
                f"each of the {len(labels[f'{split}_{m}'])} samples"
            )
        found[m] = texts
    return found


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
