"""Noise in files: what `noise.json` says; noisy labels out of it and out of other programs' files; transition matrices.

- `noise.json` of a run: what `noise_record` gave; both digests are checked.
- `.json`: M lists of N integers (MRL's program: image, text), one list of N for all modalities, or {modality: [N]}.
- `.mat` (MATLAB 5 or 7.3), `.h5`, `.hdf5`, `.npz`: one array `noisy_label`, `noisy_labels`, `noise_label` or
  `noise_labels` of shape [N], [N, 1], [1, N], [M, N], [N, M] or one-hot [N, K]; or one per modality, named so.
- `.npy`: one such array.

Shape letters: M modalities, N training instances, K classes.
"""

import hashlib
import json
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mrl_jax.data.formats import open_arrays
from mrl_jax.errors import DatasetWarning, InputError, listed
from mrl_jax.noise.inject import NoiseSpec, NoisyLabels

__all__ = ["noise_record", "read_noise_file", "read_transition_matrix"]

_KEYS = ("noisy_label", "noisy_labels", "noise_label", "noise_labels")
_FORMATS = {".json": "JSON", ".mat": "MATLAB", ".h5": "HDF5", ".hdf5": "HDF5", ".npy": "NumPy", ".npz": "NumPy"}
_LIMIT = 1 << 28  # bytes of a file
_BYTES_PER_LABEL = 256  # in JSON, with all that noise.json holds besides, validation labels too
_OTHER_LABELS = 1 << 18  # of a noise.json that is read for its matrix
_SLACK = 0.05  # a rate in a file's name may be rounded, or leave out a few samples


def noise_record(
    spec: NoiseSpec,
    noisy: NoisyLabels,
    seed: int,
    modalities: Sequence[str],
    class_names: Sequence[str],
    mask: Any = None,
    key: Array | None = None,
) -> dict[str, Any]:
    """The content of `noise.json`: spec, key, what became wrong, digests, and the given labels themselves.

    Takes the spec, seed, key and mask of the draw, what `inject_noise` returned, and M and K names.

    Returns:
        JSON-ready values. Digests are SHA-256 over little-endian int32 in C order: `clean_sha256` over the clean labels
        [M, N], `labels_sha256` over the given ones, followed by the partners for pair-mismatch. Shares count present
        samples; the share of a class without samples is None.
    """
    given, clean, partners = (np.asarray(x, "<i4") for x in (noisy.labels, noisy.clean, noisy.partners))
    present = np.ones(clean.shape, bool) if mask is None else np.asarray(mask, bool)
    wrong = (given != clean) & present
    share = lambda x: float(x.mean()) if x.size else None  # noqa: E731
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
        "wrong_share": {m: share(w[p]) for m, w, p in zip(modalities, wrong, present, strict=True)},
        "wrong_share_overall": share(wrong[present]),
        "wrong_share_by_class": {
            m: {name: share(w[p & (y == c)]) for c, name in enumerate(class_names)}
            for m, w, p, y in zip(modalities, wrong, present, clean, strict=True)
        },
        "clean_sha256": hashlib.sha256(clean.tobytes()).hexdigest(),
        "labels_sha256": hashlib.sha256(given.tobytes() + (partners.tobytes() if mismatch else b"")).hexdigest(),
        "labels": dict(zip(modalities, given.tolist(), strict=True)),
    }
    if mismatch:
        record["mismatched_share"] = {m: share(x[p]) for m, x, p in zip(modalities, moved, present, strict=True)}
        record["partners"] = dict(zip(modalities, partners.tolist(), strict=True))
    return record


def read_noise_file(
    path: str | os.PathLike[str], clean: Any, modalities: Sequence[str], num_classes: int, *, mask: Any = None
) -> tuple[NoisyLabels, dict[str, Any]]:
    """Read the noisy labels of another run or program, checked against the clean ones.

    Files of other programs count classes from 0 or from 1: the numbering is the one in which the labels fit into the
    K classes, and, where that leaves a choice, agree with more of the clean ones. MRL's program means to draw from the
    K classes, but draws from K + 1 values. Its label K is drawn here as it was meant: uniformly over the classes, by a
    key from the file's digest, so always the same. (The clean label there would make the noise less than it was.) A
    `DatasetWarning` counts such labels; more of them than that program draws are refused, as are all beyond K.

    Args:
        path: a file of one of the kinds in the module's table. Pickles are never loaded.
        clean: clean labels 0..K-1 of the training split, int32 [M, N], rows in the order of the file.
        modalities: M names, in the order of `clean`.
        num_classes: K.
        mask: True where a sample is present, bool [M, N]; labels of missing samples are ignored.

    Returns:
        The labels, like those of `inject_noise`, except that `selected` is True where a label is wrong or a sample was
        moved (files do not tell which redraws hit the true class); and a JSON-ready description: "source" (the file's
        name), "sha256" of the file, "format", "numbering" (0 or 1), "shared" (one label for all modalities),
        "beyond_classes" (how many labels were K and drawn anew; only if there are such), "agreement" {modality: share
        of labels equal to the clean ones}, "nominal" (the spec that the file or its name records, or None), and "note"
        if the agreement is no better than chance.

    Raises:
        InputError: a file that is missing, too large, damaged, a pickle, of an unknown kind, drawn for other data, or
            whose labels do not match in number, are no integers, are no classes, or agree with the clean ones by
            chance only although its name promises a rate at which more must agree.
    """
    path, clean = Path(path), np.asarray(clean, np.int32)
    present = np.ones(clean.shape, bool) if mask is None else np.asarray(mask, bool)
    content = _load(path, (*_KEYS, *modalities), clean.size, num_classes)
    described: dict[str, Any] = {"source": path.name, "sha256": hashlib.sha256(_bytes(path, _LIMIT)).hexdigest()}
    partners = np.broadcast_to(np.arange(clean.shape[1], dtype=np.int32), clean.shape)
    if isinstance(content, Mapping) and "labels_sha256" in content:
        labels, partners, nominal = _own_record(path, content, clean, modalities)
        described |= {"format": "noise.json", "numbering": 0, "shared": False, "nominal": nominal}
        _check_classes(path, labels, 0, num_classes, present, modalities)
    else:
        labels, is_one_hot, shared = _foreign(path, content, clean.shape, modalities, num_classes)
        base = 0 if is_one_hot else _numbering(labels, clean, num_classes, present)
        beyond, values = (labels == num_classes + base) & present, labels[present] - base
        if beyond.any() and values.min() >= 0 and values.max() == num_classes:
            labels = _as_meant(path, labels, beyond, base, num_classes, described["sha256"])
            described["beyond_classes"] = int(beyond.sum())
        _check_classes(path, labels, base, num_classes, present, modalities)
        labels = labels - base
        described |= {"format": _FORMATS[path.suffix.lower()], "numbering": base, "shared": shared}
        described["nominal"] = _rate_in_name(path.name)

    labels = np.where(present, labels, clean).astype(np.int32)
    wrong, counts = (labels != clean) & present, np.maximum(present.sum(axis=1), 1)
    shares = wrong.sum(axis=1) / counts
    described["agreement"] = dict(zip(modalities, (1.0 - shares).tolist(), strict=True))
    moved = (partners != np.arange(clean.shape[1])) & present
    arrays = (labels, clean, shares.astype(np.float32), wrong | moved, partners)
    noisy = NoisyLabels(*map(jnp.asarray, arrays))
    _judge_agreement(path, described, noisy, present, num_classes)
    return noisy, described


def read_transition_matrix(path: str | os.PathLike[str], num_classes: int) -> tuple[tuple[float, ...], ...]:
    """Read the `matrix` of a `NoiseSpec`: K x K probabilities, row y for the samples of class y.

    Args:
        path: `.npy`, `.npz` with one array, `.csv` or `.txt` (a row per line; commas, semicolons or blanks), `.json`
            (K lists of K numbers, or a `noise.json` with a matrix).
        num_classes: K.

    Raises:
        InputError: a file that cannot be read, or whose content is no K x K table with rows >= 0 that sum to 1.
    """
    path = Path(path)
    if path.suffix.lower() in (".csv", ".txt"):
        try:
            lines = _bytes(path, _json_limit(0, num_classes)).decode("utf-8-sig").splitlines()
            rows = [re.sub("[,;]", " ", line).split() for line in lines if line.strip() and line.lstrip()[0] != "#"]
            content: Any = [[float(cell) for cell in row] for row in rows]
        except ValueError as error:
            raise _damaged(path, error) from None
    elif path.suffix.lower() in (".npy", ".npz", ".json"):
        content = _load(path, ("matrix",), _OTHER_LABELS, num_classes)
    else:
        raise InputError(f"transition matrix {str(path)!r}: give a .npy, .npz, .csv, .txt or .json file")
    if isinstance(content, Mapping):
        if "matrix" not in content and len(content) != 1:
            raise InputError(f"transition matrix {str(path)!r} must hold one array, or one that is named matrix")
        content = content["matrix"] if "matrix" in content else next(iter(content.values()))
    shape = [len(content)] * 2 if isinstance(content, list) else list(np.shape(content))
    if shape != [num_classes, num_classes]:
        raise InputError(
            f"transition matrix {str(path)!r} is {' x '.join(map(str, shape)) or 'no table'}, but the data have "
            f"K = {num_classes} classes; give one row and one column per class"
        )
    try:
        matrix = NoiseSpec(1.0, "matrix", matrix=content).matrix
    except InputError as error:
        raise InputError(f"{str(path)!r}: {error}") from None
    assert matrix is not None
    return matrix


def _bytes(path: Path, limit: int) -> bytes:
    try:
        if not path.exists() or not path.is_file():  # a device or a pipe may give bytes for ever
            what = "is no file" if path.exists() else "does not exist"
            raise InputError(f"{str(path)!r} cannot be read (it {what}); give the path of a file")
        if path.stat().st_size > limit:
            raise InputError(f"{str(path)!r} has over {limit >> 20:,} MiB; labels take far less: is it another file?")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read ({error.strerror}); give the path of a file") from None


def _damaged(path: Path, error: Exception) -> InputError:
    pickled = "pickle" in str(error) or "Python objects" in str(error)
    reason = "it holds pickled objects" if pickled else (str(error) or repr(error)).splitlines()[0]
    return InputError(f"{str(path)!r} cannot be read ({reason}); it is damaged or of another kind: write it anew")


def _json_limit(labels: int, num_classes: int) -> int:
    """Bytes of text for so many labels, a matrix, and the shares of the classes by their names."""
    return _BYTES_PER_LABEL * (labels + num_classes**2) + (num_classes << 10) + (1 << 20)


def _load(path: Path, names: Sequence[str], labels: int, num_classes: int) -> Any:
    """The content for so many labels: that of JSON or `.npy`, otherwise its arrays `names`, or else its only array."""
    suffix = path.suffix.lower()
    if suffix not in _FORMATS:
        hint = "; pickles are not read, since loading one runs code" if suffix in (".pkl", ".pickle", ".pt") else ""
        raise InputError(f"noise file {str(path)!r}: give one of {', '.join(_FORMATS)}{hint}")
    content = _bytes(path, _json_limit(labels, num_classes) if suffix == ".json" else _LIMIT)
    try:
        if suffix == ".json":
            return json.loads(content.decode("utf-8-sig"))
        if suffix == ".npy":
            array = np.lib.format.open_memmap(path, mode="r")  # takes no more than the file has, and unpickles nothing
            if array.offset + array.nbytes != len(content):
                raise ValueError(f"its header claims the shape {array.shape}, but the file holds more")
            return np.asarray(array)
    except Exception as error:  # damaged files raise a dozen types
        raise _damaged(path, error) from None
    with open_arrays(path) as arrays:
        wanted = [key for key in arrays if key in names] or (list(arrays) if len(arrays) == 1 else [])
        return {key: arrays[key] for key in wanted}


def _own_record(
    path: Path, record: Mapping[str, Any], clean: np.ndarray, modalities: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Labels and partners [M, N] of a `noise.json` in the order of `modalities`, and its spec."""
    if "labels" not in record or "clean_sha256" not in record:
        raise InputError(
            f"{str(path)!r} records the noise of a run but not its labels (older version); train that anew"
        )
    names = list(record["labels"]) if isinstance(record["labels"], dict) else []
    if sorted(names) != sorted(modalities):
        raise InputError(
            f"{str(path)!r} was drawn for other data: for modalities {listed(names)}, not {', '.join(modalities)}"
        )
    mismatch = "partners" in record
    try:
        keys = ("labels", "partners")[: 1 + mismatch]
        tables = [np.stack([_integers(path, _table(path, record[key][m])) for m in names]) for key in keys]
        nominal = {k: record[k] for k in ("rate", "kind", "scope", "matrix", "seed") if k in record}
        json.dumps(nominal, allow_nan=False)
    except InputError:
        raise
    except (ValueError, TypeError, KeyError) as error:
        raise _damaged(path, error) from None
    digest = hashlib.sha256(b"".join(t.astype("<i4").tobytes() for t in tables)).hexdigest()
    if digest != record["labels_sha256"]:
        raise InputError(f"{str(path)!r} is damaged (labels_sha256 does not match the labels in it); restore the file")
    order = [list(modalities).index(m) for m in names]
    if hashlib.sha256(np.ascontiguousarray(clean[order], "<i4").tobytes()).hexdigest() != record["clean_sha256"]:
        raise InputError(f"{str(path)!r} was drawn for other data (the clean labels differ); give the data of that run")
    back = [names.index(m) for m in modalities]
    rows = np.broadcast_to(np.arange(clean.shape[1]), clean.shape)
    labels, partners = tables[0][back], tables[1][back] if mismatch else rows
    if labels.shape != clean.shape or partners.shape != clean.shape or (np.sort(partners, axis=1) != rows).any():
        raise InputError(f"{str(path)!r} is damaged (partners are no permutation of the instances); restore the file")
    return labels, partners.astype(np.int32), nominal


def _foreign(
    path: Path, content: Any, shape: tuple[int, ...], modalities: Sequence[str], num_classes: int
) -> tuple[np.ndarray, bool, bool]:
    """Labels [M, N] as the file numbers them, whether they were one-hot, and whether the modalities share them."""
    if isinstance(content, Mapping):
        keys = [k for k in _KEYS if k in content]
        if not keys and set(modalities) <= set(content):
            each = [_reading(path, content[m], (1, shape[1]), num_classes) for m in modalities]
            return np.concatenate([labels for labels, _ in each]), any(one_hot for _, one_hot in each), False
        if not keys and len(content) == 1 and not set(content) & set(modalities):
            keys = list(content)
        if len(keys) != 1:
            rule = f"one array named {' or '.join(_KEYS)}, or one for each of {', '.join(modalities)}"
            held = " and ".join(keys or set(content) & set(modalities)) or "no labels"
            raise InputError(f"{str(path)!r} holds {held}; it must hold {rule}")
        content = content[keys[0]]
    labels, is_one_hot = _reading(path, content, shape, num_classes)
    return np.broadcast_to(labels, shape), is_one_hot, len(labels) < shape[0]


def _reading(path: Path, content: Any, shape: tuple[int, ...], num_classes: int) -> tuple[np.ndarray, bool]:
    """Integers [M, N], or [1, N] for labels that all modalities share, and whether they were one-hot."""
    (m, n), k = shape, num_classes
    a = _table(path, content)
    readings: dict[str, np.ndarray] = {}
    if a.size == n and (a.ndim == 1 or (a.ndim == 2 and 1 in a.shape)):
        readings["[N]"] = a.reshape(1, n)
    elif a.ndim == 2:
        readings |= {"[M, N]": a} if a.shape == (m, n) else {}
        readings |= {"[N, M]": a.T} if a.shape == (n, m) else {}
        for name, table in (("one-hot [N, K]", a), ("one-hot [K, N]", a.T)):
            if table.shape == (n, k) and ((table == 0) | (table == 1)).all() and (table.sum(axis=1) == 1).all():
                readings[name] = table.argmax(axis=1)[None]
    if not readings:
        raise InputError(
            f"{str(path)!r}: labels have the shape {list(a.shape)}; for M = {m} modalities, N = {n} training instances "
            f"and K = {k} classes they must be [N], [M, N], [N, M], or one-hot [N, K]: is it the same split?"
        )
    readings = {name: _integers(path, reading) for name, reading in readings.items()}
    if len({np.broadcast_to(r, shape).tobytes() for r in readings.values()}) > 1:
        ways = " or ".join(readings)
        raise InputError(f"{str(path)!r}: shape {list(a.shape)} is ambiguous ({ways}); write {{modality: [N]}} as JSON")
    name, labels = next(iter(readings.items()))
    return labels, name.startswith("one-hot")


def _table(path: Path, content: Any) -> np.ndarray:
    """An array of numbers as it is, or made of a list, or of a list of lists, of numbers."""
    if isinstance(content, list):  # one long text among many numbers would become an array of long texts
        for value in (x for row in content for x in (row if isinstance(row, list) else (row,))):
            if not isinstance(value, int | float):
                raise InputError(f"{str(path)!r}: labels hold a {type(value).__name__}; they must be whole numbers")
    try:
        a = np.asarray(content)
    except ValueError:
        raise InputError(f"{str(path)!r}: the lists of labels differ in length; give N labels each") from None
    if a.dtype.kind not in "biuf":
        raise InputError(f"{str(path)!r}: labels are of type {a.dtype}; they must be whole numbers")
    return a


def _integers(path: Path, a: np.ndarray) -> np.ndarray:
    if a.dtype.kind == "f":
        with np.errstate(all="ignore"):
            bad = ~np.isfinite(a) | (a != np.rint(a)) | (np.abs(a) > 2**53)
        if bad.any():
            where = [int(i) for i in np.argwhere(bad)[0]]
            raise InputError(
                f"{str(path)!r}: label {a[tuple(where)]} at {where} is no whole number; every label must be"
            )
    return a.astype(np.int64)


def _numbering(labels: np.ndarray, clean: np.ndarray, num_classes: int, present: np.ndarray) -> int:
    """0 or 1: the number of the first class."""
    values, true = labels[present], clean[present]
    if not values.size:
        return 0
    agree = [(values - base == true).mean() for base in (0, 1)]
    fits = [base <= values.min() and values.max() < num_classes + base for base in (0, 1)]
    if fits == [True, False]:  # 0 occurs: also when noise k -> k + 1 makes the other numbering agree more
        return 0
    by_chance = 5 * np.sqrt(2 / (num_classes * values.size))  # five sigma between two agreements at chance level
    # K occurs and 0 does not: numbered from 1, unless (MRL's defect) a small file just happens to lack a 0.
    if fits == [False, True] and (agree[1] > agree[0] - by_chance or (true == 0).sum() >= 20):
        return 1
    return int(agree[1] > agree[0])


def _as_meant(path: Path, labels: np.ndarray, beyond: np.ndarray, base: int, k: int, digest: str) -> np.ndarray:
    """Labels whose `beyond` [M, N], which are K by MRL's defect, are drawn anew; all as they are if there are too many.

    That program draws from K + 1 values, so at most about 1 label in K + 1 is K; more of them are another file's.
    """
    if beyond.sum() > 5 + 2 * labels.size / (k + 1):
        return labels
    warnings.warn(
        f"{str(path)!r}: {int(beyond.sum())} labels are {k + base}, but the classes are {base}..{k - 1 + base} (MRL's "
        "program draws from K + 1 values); each is drawn anew, uniformly, by a key from the file's SHA-256",
        DatasetWarning,
        stacklevel=3,
    )
    together = bool((labels == labels[:1]).all())  # labels that all modalities share stay so
    shape = (1 if together else len(labels), labels.shape[1])
    drawn = jax.random.randint(jax.random.key(int(digest[:8], 16)), shape, base, k + base)
    return np.where(beyond, np.asarray(drawn), labels)


def _check_classes(
    path: Path, labels: np.ndarray, base: int, k: int, present: np.ndarray, modalities: Sequence[str]
) -> None:
    bad = np.argwhere(((labels < base) | (labels >= k + base)) & present)
    if not len(bad):
        return
    i, j = bad[0]
    told = f"label {labels[i, j]} of {modalities[i]}, instance {j} (counted from 0), is no class"
    told += f": the {k} classes are {base}..{k - 1 + base}; {len(bad)} such labels"
    raise InputError(f"{str(path)!r}: {told}. Is it the file of another data set?")


def _rate_in_name(name: str) -> dict[str, Any] | None:
    """The rate and mode in names such as `noise_labels_0.6_sym.json` (MRL's program)."""
    found = re.search(r"(?<![\d.])([01](?:\.\d+)?)_(sym|asym)(?![a-z])", name)
    if found is None or not 0.0 <= float(found[1]) <= 1.0:
        return None
    return {"rate": float(found[1]), "kind": {"sym": "symmetric", "asym": "asymmetric"}[found[2]]}


def _judge_agreement(path: Path, described: dict[str, Any], noisy: NoisyLabels, present: np.ndarray, k: int) -> None:
    """Refuse labels that the rate in the file's name rules out; note an agreement that chance explains."""
    low = []
    for name, given, true, p in zip(described["agreement"], noisy.labels, noisy.clean, present, strict=True):
        shares = [np.bincount(np.asarray(y)[p], minlength=k) / max(p.sum(), 1) for y in (given, true)]
        chance = float(shares[0] @ shares[1])  # of two labellings that know nothing of each other
        if described["agreement"][name] < min(1.0, chance + min(chance / 2, 0.1)):
            low.append(name)
    if not low:
        return
    told = ", ".join(f"{m} {described['agreement'][m]:.1%}" for m in low)
    nominal = described["nominal"]
    if described["format"] != "noise.json" and nominal:
        least = 1.0 - nominal["rate"]
        if min(described["agreement"][m] for m in low) < least - _SLACK:
            raise InputError(
                f"{str(path)!r}: labels agree with the clean ones by chance only ({told}), but at the rate in its name "
                f"({nominal['rate']:g}) at least {least:.0%} must; its rows or class numbers are in another order than "
                "those of the data: bring them into that order"
            )
    described["note"] = (
        f"labels agree with the clean ones about as often as chance would have it ({told}): right for noise of a rate "
        "near 1, otherwise a sign of another row order or class numbering"
    )
