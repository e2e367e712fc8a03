"""Give data their three splits: those of the file, those that the user asks for, or those of a set's protocol."""

import contextlib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mrl_jax.cut_options import CutOptions, parse_split
from mrl_jax.data.dataset import SPLITS
from mrl_jax.data.formats import header_of
from mrl_jax.data.formats.errors import RefusedError
from mrl_jax.data.key_names import keys_hint, refuse_other_ends
from mrl_jax.data.own_layout import ENDS, LARGE, LAYOUT, SPLIT_WORDS, Renamed, Rows, own_modalities
from mrl_jax.data.published.catalog import CATALOG
from mrl_jax.data.published.key_layouts import LAYOUTS, Keys, named_keys, recognise
from mrl_jax.data.splits import cut_rows, first_per_class, strata
from mrl_jax.data.tables import align_tables
from mrl_jax.data.values import plain_array
from mrl_jax.errors import DatasetWarning, InputError, NotTrainableError, listed

__all__ = ["canonical"]

_PREFIXES = tuple(f"{s}_" for s in SPLITS)


def canonical(
    arrays: Mapping[str, Any],
    source: str,
    modalities: Sequence[str] = (),
    set_name: str | None = None,
    keys: Sequence[str] = (),
    options: CutOptions | None = None,
    is_own: bool = False,
) -> tuple[Mapping[str, Any], dict[str, Any] | None, dict[str, list[Any]]]:
    """Present arrays of any known layout under the keys of the own layout, with all three splits.

    Data without splits are cut as `options.split` says. Where there is no validation split, it is the fraction
    `options.valid_share` of the training split, otherwise the test rows that the protocol of the set gives.

    Args:
        arrays: name -> array, read on access.
        source: where the arrays come from, for messages.
        modalities: the modalities that are used; empty for all.
        set_name: which set it is (a key of `CATALOG`), or None to infer it from the number of training rows.
        keys: names for the arrays, as `cut_options.parse_keys` takes them; empty to recognise the layout.
        options: what to cut.
        is_own: whether the keys are those of the own layout, with or without splits; others are not recognised.

    Returns:
        The arrays; a description of what was cut, as values that JSON can hold, or None; and modality -> names of its
        columns, for those that have some.

    Raises:
        InputError: splits are missing and nothing says how to cut them, or the options do not fit the data.
    """
    options = options or CutOptions()
    if is_own:
        layout = "own" if any(key.startswith(_PREFIXES) for key in arrays) else "whole"
        names = {key: key for key in arrays}
    elif keys and not (options.as_needed and _without(arrays, keys)):
        layout, names = "named by the user", named_keys(keys, arrays, source)
    else:
        try:
            layout, names = recognise(arrays)
        except InputError as error:
            raise InputError(f"{source}: {error}") from None
        if layout not in ("own", "whole"):
            more = [key for key in ("class_names", *(f"{s}_ids" for s in SPLITS), "ids") if key in arrays]
            names |= {key: key for key in more if key not in names}
            names |= {key: key for key in _check_unused(arrays, names, layout, source)}
    arrays, names, columns = align_tables(arrays, names, source)
    return *_in_splits(arrays, names, layout, modalities, set_name, options, source), columns


def _in_splits(
    arrays: Mapping[str, Any],
    names: Keys,
    layout: str,
    modalities: Sequence[str],
    set_name: str | None,
    options: CutOptions,
    source: str,
) -> tuple[Mapping[str, Any], dict[str, Any] | None]:
    """The arrays under the keys of the own layout, cut into splits if they have none, and what was cut."""
    splits = [s for s in SPLITS if any(key.startswith(f"{s}_") for key in names)]
    whole = [key for key in names if not key.startswith(_PREFIXES) and key != "class_names"]
    if whole and layout in ("named by the user", "whole", "views"):
        if splits:
            raise InputError(
                f"{source}: keys give one array for {whole[0]} and one per split for others; give each the same number"
            )
        return _cut_whole(arrays, names, layout, modalities, options, source)
    features = [key for key in arrays if key != "class_names" and key.rpartition("_")[2] not in ENDS]
    if not splits and len(features) == 1 and "labels" in names:
        raise NotTrainableError(
            f"{source}: only one modality is found, {features[0]}; two or more are needed: give the features of "
            "another under a name of its own"
        )
    if not splits:
        raise InputError(
            f"{source}: no arrays of known names; the layout is {LAYOUT}, or one of the published layouts "
            f"(docs/data.md); keys found: {listed(arrays)}; {keys_hint(arrays)}"
        )
    if layout == "own":
        refuse_other_ends(arrays, names, modalities, source)
    if options.split is not None and not options.as_needed:
        hint = "" if "valid" in splits else ", and take validation from train with valid_share, such as 0.1"
        raise InputError(
            f"{source} has the splits {', '.join(splits) or 'none'}; split {options.split} cuts data without splits: "
            f"leave it out{hint}"
        )
    same = all(own == key for own, key in names.items())
    if "valid" in splits:
        if options.valid_share is not None and not options.as_needed:
            raise InputError(
                f"{source} has a validation split; valid_share {options.valid_share:g} would make another: leave it out"
            )
        _check_valid(names, layout, arrays, source)
        return (arrays if same else Renamed(arrays, names, {}, source)), None
    if not {"train", "test"} <= set(splits) or not own_modalities(names):
        # `dataset_from_arrays` says what is missing.
        return (arrays if layout == "own" and same else Renamed(arrays, names, {}, source)), None
    if options.valid_share is not None:
        return _cut_train(arrays, names, options, source)
    return _cut_test(arrays, names, layout, set_name, source)


def _without(arrays: Mapping[str, Any], keys: Sequence[str]) -> bool:
    """Whether the arrays are named otherwise than these keys."""
    try:
        named_keys(keys, arrays, "")
    except InputError:
        return True
    return False


def _check_unused(arrays: Iterable[str], keys: Keys, layout: str, source: str) -> list[str]:
    """Warn of arrays that look like a part of the data set but belong to no modality of the layout.

    Returns:
        The other keys that are not used, which `dataset_from_arrays` may compare with what is used.
    """
    if layout == "xmedia":  # its other modalities have no pairs (docs/data.md)
        return []
    words = [word for words in SPLIT_WORDS.values() for word in words]
    starts, ends = tuple(f"{w}_" for w in words), tuple(f"_{w}" for w in words)
    others = [key for key in arrays if key not in keys.values()]
    unused = [key for key in others if key.lower().startswith(starts) or key.lower().endswith(ends)]
    rename = "rename the arrays to {train,valid,test}_MODALITY and {train,valid,test}_labels, or name them with keys"
    if masks := [key for key in unused if "mask" in key.split("_")]:
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
    if layout == "views":  # `_cut_whole` looks at the others
        return []
    return [key for key in others if key not in unused and key not in keys]


def _check_valid(names: Keys, layout: str, arrays: Iterable[str], source: str) -> None:
    """Check that the validation split of a public layout has what the others have."""
    if layout not in LAYOUTS:
        return
    needed = [f"valid_{key.removeprefix('train_')}" for key in names if key.startswith("train_")]
    features = [key for key in needed if not key.endswith(("_ids", "_text_labels"))]
    if missing := [key for key in features if key not in names]:
        raise InputError(
            f"{source}: the layout {LAYOUTS[layout][1]} lacks a key for {', '.join(missing)}; "
            f"keys found: {listed(arrays)}"
        )


def _cut_whole(
    arrays: Mapping[str, Any],
    names: Keys,
    layout: str,
    modalities: Sequence[str],
    options: CutOptions,
    source: str,
) -> tuple[Renamed, dict[str, Any]]:
    """Cut data without splits into all three."""
    if options.split is None:
        wrong = (
            "" if options.valid_share is None else f", and valid_share {options.valid_share:g} needs a training split"
        )
        raise NotTrainableError(
            f"{source} has no splits (found: {listed(names)}){wrong}; cut it by class with split 60/15/25 (--split), "
            "with another split_seed for another cut, or name the arrays {train,valid,test}_MODALITY"
        )
    if wanted := [m for m in modalities if m not in names]:
        raise InputError(f"{source}: no modality {wanted[0]!r}; found: {listed(own_modalities(_as_train(names)))}")
    classes = _classes(arrays, names, "", source)
    if layout == "whole":
        names = _without_others(arrays, names, modalities, len(classes), source)
    elif layout == "views" and getattr(arrays, "is_small", True):
        _warn_of_matrices(arrays, names, len(classes), source)
    parts, record = _cut(arrays, names, "", classes, parse_split(options.split), options, source)
    own = {key: file_key for key, file_key in names.items() if key == "class_names"}
    rows = dict[str, Rows]()
    for s in SPLITS:
        for key in (key for key in names if key != "class_names"):
            own[f"{s}_{key}"], rows[f"{s}_{key}"] = names[key], Rows(parts[s], len(classes))
    return Renamed(arrays, own, rows, source), {"split": options.split, **record}


def _as_train(names: Iterable[str]) -> list[str]:
    return [f"train_{name}" for name in names if name != "class_names"]


def _without_others(arrays: Mapping[str, Any], names: Keys, modalities: Sequence[str], rows: int, source: str) -> Keys:
    """The names without arrays that cannot be features, as files contain many things; a warning names them.

    Raises:
        InputError: an array has the shape of features, but is masked, or its values are damaged or no numbers.
    """
    unused = []
    for m in own_modalities(_as_train(names)):
        if modalities:
            unused += [] if m in modalities else [m]
            continue
        header = header_of(arrays, names[m])
        if header is not None and header.nbytes > LARGE and rows not in header.shape:  # known before it is read
            unused.append(m)
            continue
        value: Any = None
        try:
            value = arrays[names[m]]
            x = plain_array(value, f"{source}: {names[m]}")
        except InputError as error:
            shape = getattr(value, "shape", ())
            is_damaged = value is None and not isinstance(error.__cause__, RefusedError)
            if is_damaged or (len(shape) == 2 and rows in shape):
                raise InputError(f"{error}; to load the others alone, name the modalities to use") from error
            unused.append(m)
            continue
        if x.ndim != 2 or x.dtype.kind not in "fiub" or (rows not in x.shape):
            unused.append(m)
    if unused and not modalities:
        warnings.warn(
            f"{source}: not used, since they are no matrices with a row for each of the {rows} labels: "
            f"{listed(unused)}",
            DatasetWarning,
            stacklevel=2,
        )
    dropped = {*unused, *(f"{m}_{end}" for m in unused for end in ("labels", "mask", "shown"))}
    return {name: key for name, key in names.items() if name not in dropped}


def _warn_of_matrices(arrays: Mapping[str, Any], names: Keys, rows: int, source: str) -> None:
    """Warn of arrays beside the views that are matrices of numbers with a row for each label."""
    unused = []
    for key in (key for key in arrays if key not in names.values() and not key.lower().endswith(ENDS)):
        with contextlib.suppress(InputError):  # not used, so it may be of any kind
            x = plain_array(arrays[key], key)
            unused += [key] if x.ndim == 2 and 1 not in x.shape and x.dtype.kind in "fiub" and len(x) == rows else []
    if unused:
        warnings.warn(
            f"{source}: read in the layout {LAYOUTS['views'][1]}; not used: {listed(unused)}; to use them, name the "
            "arrays with keys",
            DatasetWarning,
            stacklevel=2,
        )


def _cut_train(
    arrays: Mapping[str, Any], names: Keys, options: CutOptions, source: str
) -> tuple[Renamed, dict[str, Any]]:
    """Take the validation split from the training split."""
    assert options.valid_share is not None
    classes = _classes(arrays, names, "train_", source)
    fractions = {"train": 1.0 - options.valid_share, "valid": options.valid_share}
    parts, record = _cut(arrays, names, "train_", classes, fractions, options, source)
    own, rows = dict(names), dict[str, Rows]()
    for key in [k for k in names if k.startswith("train_")]:
        name = key.removeprefix("train_")
        own[f"valid_{name}"] = names[key]
        rows |= {f"{s}_{name}": Rows(parts[s], len(classes)) for s in ("train", "valid")}
    return Renamed(arrays, own, rows, source), {"valid_share": options.valid_share, "from": "train", **record}


def _cut(
    arrays: Mapping[str, Any],
    names: Keys,
    prefix: str,
    classes: np.ndarray,
    fractions: Mapping[str, float],
    options: CutOptions,
    source: str,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The rows of each part, and the record of the cut."""
    groups = None
    if f"{prefix}ids" in names:
        groups = plain_array(arrays[names[f"{prefix}ids"]], f"{source}: {prefix}ids").ravel()
        if len(groups) != len(classes):
            raise InputError(
                f"{source}: {names[f'{prefix}ids']} has {len(groups)} rows for {len(classes)} labels; give one id per "
                "instance"
            )
    parts = cut_rows(classes, fractions, options.seed, groups)
    if empty := [part for part, rows in parts.items() if not len(rows)]:
        raise InputError(
            f"{source}: {len(classes)} instances are too few for the split {empty[0]}; give a larger fraction, or "
            "more data"
        )
    by = "class" if groups is None or len(np.unique(groups)) == len(groups) else "class, equal ids together"
    record = {"seed": options.seed, "by": by, "instances": {s: len(parts[s]) for s in SPLITS if s in parts}}
    return parts, record


def _classes(arrays: Mapping[str, Any], names: Keys, prefix: str, source: str) -> np.ndarray:
    """Class of every row of data without splits, or of a split; where modalities differ, that of the first present."""

    def read(key: str) -> np.ndarray:
        return plain_array(arrays[names[key]], f"{source}: {names[key]}")

    if f"{prefix}labels" in names:
        return strata(read(f"{prefix}labels"))
    prefixed = (key.removeprefix(prefix) for key in names if key.startswith(prefix))
    owners = [m for m in own_modalities(_as_train(prefixed)) if f"{prefix}{m}_labels" in names]
    if not owners:
        raise InputError(
            f"{source}: no labels to cut by ({prefix}labels or {prefix}MODALITY_labels); name them with keys"
        )
    columns = [read(f"{prefix}{m}_labels") for m in owners]
    if len(columns) == 1 or any(c.size != columns[0].size or (c.ndim == 2 and 1 not in c.shape) for c in columns):
        return strata(columns[0])
    values = columns[0].ravel().copy()
    missing = np.zeros(len(values), bool)
    for m, column in zip(owners, columns, strict=True):
        values[missing] = column.ravel()[missing]
        mask = f"{prefix}{m}_mask"
        here = read(mask).ravel().astype(bool) if mask in names else np.ones(len(values), bool)
        missing = missing & ~here if m != owners[0] else ~here
        if len(missing) != len(values) or not missing.any():
            break
    return strata(values)


def _cut_test(
    arrays: Mapping[str, Any], names: Keys, layout: str, set_name: str | None, source: str
) -> tuple[Renamed, dict[str, Any] | None]:
    """Take the validation split from the test split, as the protocol of the set says."""
    labels = next((k for k in names if k.startswith("test_") and k.endswith("labels")), None)
    classes = strata(plain_array(arrays[names[labels]], source)) if labels else np.zeros(0, int)
    set_name = set_name or _infer_set(arrays, names, layout)
    count = _valid_rows(set_name, len(classes))
    if count is not None and count >= len(classes):
        raise InputError(
            f"{source}: no validation rows; {set_name} takes {count} of the test rows for validation, and there are "
            f"{len(classes)} in all: take them from the training split with valid_share, such as 0.1 (--valid-share "
            "0.1)"
        )
    if count is None:
        known = ", ".join(CATALOG)
        raise InputError(
            f"{source}: no validation rows, and {len(classes)} test rows; take them from the training split with "
            "valid_share, such as 0.1 (--valid-share 0.1), or name a published set by its preset "
            f"({known}), whose protocol takes some of the test rows"
        )
    valid: slice | np.ndarray = slice(0, count)
    test: slice | np.ndarray = slice(count, None)
    record, total = None, None
    if CATALOG[str(set_name)].valid_by_class:
        chosen = first_per_class(classes, count)
        valid, test, total = np.flatnonzero(chosen), np.flatnonzero(~chosen), len(classes)
        record = {"from": "test", "by": "class", "rule": "the first rows of each class", "instances": {"valid": count}}
    own, rows = dict(names), dict[str, Rows]()
    for key in [k for k in names if k.startswith("test_")]:
        name = key.removeprefix("test_")
        own[f"valid_{name}"] = names[key]
        rows[f"valid_{name}"], rows[key] = Rows(valid, total), Rows(test, total)
    return Renamed(arrays, own, rows, source), record


def _valid_rows(set_name: str | None, test_rows: int) -> int | None:
    """Number of test rows that form the validation split; None without a protocol."""
    if set_name not in CATALOG:
        return None
    published = CATALOG[set_name].sizes["valid"]
    return min(published, test_rows // 2) if set_name == "pascal-sentence" else published


def _infer_set(arrays: Mapping[str, Any], keys: Keys, layout: str) -> str | None:
    """The set, from its layout or its number of training rows; None if these do not determine it."""
    if layout in ("xmedia", "wikipedia-2010"):
        return "xmedia" if layout == "xmedia" else "wikipedia"
    if layout not in LAYOUTS or "train_image_labels" not in keys:
        return None
    rows = len(strata(plain_array(arrays[keys["train_image_labels"]], "train_image_labels")))
    matches = [name for name, facts in CATALOG.items() if facts.sizes["train"] == rows]
    return matches[0] if len(matches) == 1 else None
