"""`noise.json`: the record of a run's label noise, written and read.

Shape letters: M modalities, N training instances, K classes.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import Array

from mrl_jax.errors import InputError, listed
from mrl_jax.noise.spec import NoiseSpec, NoisyLabels

__all__ = ["damaged", "integer_labels", "label_table", "named_labels", "noise_record", "recorded_labels"]


def noise_record(
    spec: NoiseSpec,
    noisy: NoisyLabels,
    seed: int,
    modalities: Sequence[str],
    class_names: Sequence[str],
    mask: Any = None,
    key: Array | None = None,
) -> dict[str, Any]:
    """The content of `noise.json`: spec, key, fractions of wrong labels, digests, and the given labels.

    Args:
        spec: spec of the draw.
        noisy: result of `inject_noise`.
        seed: seed of the draw.
        modalities: M names.
        class_names: K names.
        mask: mask of the draw.
        key: key of the draw.

    Returns:
        JSON-ready values. Digests are SHA-256 over little-endian int32 in C order: `clean_sha256` over the clean labels
        [M, N], `labels_sha256` over the given labels, followed by the partners for pair-mismatch. Shares are fractions
        of the present samples; the share of a class without samples is None.
    """
    given, clean, partners = (np.asarray(x, "<i4") for x in (noisy.labels, noisy.clean, noisy.partners))
    present = np.ones(clean.shape, bool) if mask is None else np.asarray(mask, bool)
    wrong = (given != clean) & present
    fraction = lambda x: float(x.mean()) if x.size else None  # noqa: E731
    moved = partners != np.arange(clean.shape[1])
    mismatch = spec.kind == "pair-mismatch" or bool(moved.any())
    record: dict[str, Any] = {
        "rate": spec.rate,
        "kind": spec.kind,
        "scope": spec.scope,
        **({} if spec.matrix is None else {"matrix": [list(row) for row in spec.matrix]}),
        "seed": seed,
        **(
            {} if key is None else {"key": jax.random.key_data(key).tolist(), "key_impl": str(jax.random.key_impl(key))}
        ),
        "selected": dict(zip(modalities, np.asarray(noisy.selected).sum(axis=1).tolist(), strict=True)),
        "wrong_share": {m: fraction(w[p]) for m, w, p in zip(modalities, wrong, present, strict=True)},
        "wrong_share_overall": fraction(wrong[present]),
        "wrong_share_by_class": {
            m: {name: fraction(w[p & (y == c)]) for c, name in enumerate(class_names)}
            for m, w, p, y in zip(modalities, wrong, present, clean, strict=True)
        },
        "clean_sha256": hashlib.sha256(clean.tobytes()).hexdigest(),
        "labels_sha256": hashlib.sha256(given.tobytes() + (partners.tobytes() if mismatch else b"")).hexdigest(),
        "labels": dict(zip(modalities, given.tolist(), strict=True)),
    }
    if mismatch:
        record["mismatched_share"] = {m: fraction(x[p]) for m, x, p in zip(modalities, moved, present, strict=True)}
        record["partners"] = dict(zip(modalities, partners.tolist(), strict=True))
    return record


def recorded_labels(
    path: Path, record: Mapping[str, Any], clean: np.ndarray, modalities: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Read labels from the content of a `noise.json`, and check its digests.

    Args:
        path: its path, for error messages.
        record: its content.
        clean: clean labels of the training split [M, N].
        modalities: M names, in the order of `clean`.

    Returns:
        Labels and partners [M, N] in the order of `modalities`, and its spec.

    Raises:
        InputError: the record is damaged, without labels, or of other data.
    """
    if "labels" not in record or "clean_sha256" not in record:
        raise InputError(
            f"{str(path)!r} records the noise of a run but not its labels (older version); train that run again"
        )
    names = list(record["labels"]) if isinstance(record["labels"], dict) else []
    if sorted(names) != sorted(modalities):
        raise InputError(
            f"{str(path)!r} was drawn for other data: for modalities {listed(names)}, not {', '.join(modalities)}"
        )
    mismatch = "partners" in record
    try:
        keys = ("labels", "partners")[: 1 + mismatch]
        tables = [np.stack([integer_labels(path, label_table(path, record[key][m])) for m in names]) for key in keys]
        nominal = {k: record[k] for k in ("rate", "kind", "scope", "matrix", "seed") if k in record}
        json.dumps(nominal, allow_nan=False)
    except InputError:
        raise
    except (ValueError, TypeError, KeyError) as error:
        raise damaged(path, error) from None
    digest = hashlib.sha256(b"".join(t.astype("<i4").tobytes() for t in tables)).hexdigest()
    if digest != record["labels_sha256"]:
        raise InputError(f"{str(path)!r} is damaged (labels_sha256 does not match its labels); restore the file")
    order = [list(modalities).index(m) for m in names]
    if hashlib.sha256(np.ascontiguousarray(clean[order], "<i4").tobytes()).hexdigest() != record["clean_sha256"]:
        raise InputError(f"{str(path)!r} was drawn for other data (the clean labels differ); give the data of that run")
    back = [names.index(m) for m in modalities]
    rows = np.broadcast_to(np.arange(clean.shape[1]), clean.shape)
    labels, partners = tables[0][back], tables[1][back] if mismatch else rows
    if labels.shape != clean.shape or partners.shape != clean.shape or (np.sort(partners, axis=1) != rows).any():
        raise InputError(f"{str(path)!r} is damaged (partners are no permutation of the instances); restore the file")
    return labels, partners.astype(np.int32), nominal


def named_labels(path: Path, content: Any, class_names: Sequence[str]) -> np.ndarray | None:
    """Numbers of classes from 0, in the shape of the content, if it holds names; None if it holds anything else.

    Args:
        path: the file, for messages.
        content: an array, a list, or a list of lists.
        class_names: K names; empty if they are not known.

    Raises:
        InputError: a name is no class, names are not known, or lists differ in length.
    """
    if isinstance(content, np.ndarray):
        content = content.tolist() if content.dtype.kind == "U" else None
    rows = content if isinstance(content, list) and content and all(isinstance(r, list) for r in content) else [content]
    names = [name for row in rows for name in row] if all(isinstance(r, list) for r in rows) else []
    if not names or not all(isinstance(name, str) for name in names):
        return None
    number = {name: k for k, name in enumerate(class_names)}
    if (unknown := next((name for name in names if name not in number), None)) is not None:
        known = f"the classes are {listed(class_names, 10)}" if class_names else "the data do not name their classes"
        raise InputError(f"{str(path)!r}: label {unknown[:80]!r} is no class; {known}: give these names, or numbers")
    if len({len(row) for row in rows}) > 1:
        raise InputError(f"{str(path)!r}: the lists of labels differ in length; give N labels in each")
    numbers = np.array([number[name] for name in names], np.int64)
    return numbers if rows[0] is content else numbers.reshape(len(rows), -1)


def label_table(path: Path, content: Any) -> np.ndarray:
    """An array of numbers, from an array, a list, or a list of lists.

    Raises:
        InputError: it holds something else, or lists of different lengths.
    """
    if isinstance(content, list):  # one long text among many numbers would make an array of long texts
        for value in (x for row in content for x in (row if isinstance(row, list) else (row,))):
            if not isinstance(value, int | float):
                names = ", or all of them names of classes" if isinstance(value, str) else ""
                raise InputError(f"{str(path)!r}: labels hold a {type(value).__name__}; they must be integers" + names)
    try:
        a = np.asarray(content)
    except ValueError:
        raise InputError(f"{str(path)!r}: the lists of labels differ in length; give N labels in each") from None
    if a.dtype.kind not in "biuf":
        raise InputError(f"{str(path)!r}: labels are of type {a.dtype}; they must be integers")
    return a


def integer_labels(path: Path, a: np.ndarray) -> np.ndarray:
    """Labels as int64.

    Raises:
        InputError: a label is no integer.
    """
    if a.dtype.kind == "f":
        with np.errstate(all="ignore"):
            bad = ~np.isfinite(a) | (a != np.rint(a)) | (np.abs(a) > 2**53)
        if bad.any():
            where = [int(i) for i in np.argwhere(bad)[0]]
            raise InputError(
                f"{str(path)!r}: label {a[tuple(where)]} at {where} is no integer; every label must be one"
            )
    return a.astype(np.int64)


def damaged(path: Path, error: Exception) -> InputError:
    """The error for a file that cannot be read."""
    pickled = "pickle" in str(error) or "Python objects" in str(error)
    reason = "it holds pickled objects" if pickled else (str(error) or repr(error)).splitlines()[0]
    return InputError(f"{str(path)!r} cannot be read ({reason}); it is damaged or of another kind: write it again")
