"""Noisy labels and transition matrices from files.

Files of noisy labels are:

- `noise.json` of a run: the content that `noise_record` returned; both digests are checked.
- `.json`: M lists of N integers (official implementation of MRL: image, text), one list of N integers for all
  modalities, or {modality: [N]}.
- `.mat` (MATLAB 5 or 7.3), `.h5`, `.hdf5`, `.npz`: one array `noisy_label`, `noisy_labels`, `noise_label` or
  `noise_labels` of shape [N], [N, 1], [1, N], [M, N], [N, M] or one-hot [N, K]; or one array per modality, with the
  modality's name.
- `.npy`: one such array.
- `.csv`, `.tsv`, `.txt`: a row per instance; columns for one or all modalities, or one-hot; a header names the columns,
  as arrays are named above, or one of them `label`. A first column of row numbers 0..N-1 is left out.

Labels may be names of classes instead of numbers.

Shape letters: M modalities, N training instances, K classes.
"""

import csv
import hashlib
import os
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mrl_jax.data.formats import open_arrays
from mrl_jax.data.formats.foreign import HEAD, refuse_foreign
from mrl_jax.data.formats.npz import map_npy
from mrl_jax.errors import DatasetWarning, InputError, listed
from mrl_jax.files import refuse_address
from mrl_jax.json_files import parse_json
from mrl_jax.noise.record import damaged, integer_labels, label_table, named_labels, noise_record, recorded_labels
from mrl_jax.noise.spec import NoiseSpec, NoisyLabels

__all__ = ["noise_record", "read_noise_file", "read_transition_matrix"]

_KEYS = ("noisy_label", "noisy_labels", "noise_label", "noise_labels")
_TABLES = (".csv", ".tsv", ".txt")
_FORMATS = {".json": "JSON", ".mat": "MATLAB", ".h5": "HDF5", ".hdf5": "HDF5", ".npy": "NumPy", ".npz": "NumPy"}
_FORMATS |= dict.fromkeys(_TABLES, "CSV")
_LIMIT = 1 << 28  # upper bound on the bytes of a file
_BYTES_PER_LABEL = 256  # upper bound in JSON, with everything else in noise.json, validation labels included
_OTHER_LABELS = 1 << 18  # upper bound on the labels of a noise.json that is read for its matrix
_SLACK = 0.05  # the rate in a file's name may be rounded, or not count a few samples


def read_noise_file(
    path: str | os.PathLike[str],
    clean: Any,
    modalities: Sequence[str],
    num_classes: int,
    *,
    mask: Any = None,
    class_names: Sequence[str] = (),
    uncut: int | None = None,
) -> tuple[NoisyLabels, dict[str, Any]]:
    """Read noisy labels that another run or program wrote, and check them against the clean labels.

    Other programs number classes from 0 or from 1. The numbering is the one in which the labels fit the K classes; if
    both fit, the one in which more labels agree with the clean labels.

    The official implementation of MRL should draw from the K classes, but draws from K + 1 values. Its label K is drawn
    again here, uniformly over the classes, with a key from the file's digest. (The clean label in its place would lower
    the noise rate.) A `DatasetWarning` reports the number of such labels. More of them than that implementation draws
    are refused, and so are labels beyond K.

    Args:
        path: a file of one of the kinds listed in the module's docstring. Pickles are never loaded.
        clean: clean labels 0..K-1 of the training split, int32 [M, N], rows in the order of the file.
        modalities: M names, in the order of `clean`.
        num_classes: K.
        mask: True where a sample is present, bool [M, N]; labels of missing samples are ignored.
        class_names: K names; labels may be names if they are given.
        uncut: number of instances from which the training split was cut, for the message; None if it was not.

    Returns:
        The labels, as from `inject_noise`, except that `selected` is True where a label is wrong or a sample was moved
        (files do not record which redraws gave the true class); and a JSON-ready description: "source" (the file's
        name), "sha256" of the file, "format", "numbering" (0 or 1), "shared" (one label for all modalities),
        "beyond_classes" (number of labels K that were drawn again; only if there are any), "agreement" {modality:
        fraction of labels equal to the clean labels}, "nominal" (the spec that the file or its name records, or None),
        and "note" if the agreement is no better than chance.

    Raises:
        InputError: the file is missing, too large, damaged, a pickle, of an unknown kind or drawn for other data; or
            its labels do not match in number, are no integers, are no classes, or agree with the clean labels only by
            chance although more must agree at the rate in its name.
    """
    path, clean = Path(path), np.asarray(clean, np.int32)
    present = np.ones(clean.shape, bool) if mask is None else np.asarray(mask, bool)
    content = _load(path, (*_KEYS, *modalities), clean.size, num_classes)
    described: dict[str, Any] = {"source": path.name, "sha256": hashlib.sha256(_bytes(path, _LIMIT)).hexdigest()}
    partners = np.broadcast_to(np.arange(clean.shape[1], dtype=np.int32), clean.shape)
    if isinstance(content, Mapping) and "labels_sha256" in content:
        record = content.get("labels")
        first = next(iter(record.values()), None) if isinstance(record, Mapping) else None
        if isinstance(first, list) and uncut is not None and len(first) == uncut:
            raise _before_the_cut(path, uncut, clean.shape[1])
        labels, partners, nominal = recorded_labels(path, content, clean, modalities)
        described |= {"format": "noise.json", "numbering": 0, "shared": False, "nominal": nominal}
        _check_classes(path, labels, 0, num_classes, present, modalities)
    else:
        labels, from_zero, shared = _foreign(path, content, clean.shape, modalities, num_classes, class_names, uncut)
        _refuse_permutation(path, labels, num_classes)
        base = 0 if from_zero else _numbering(labels, clean, num_classes, present)
        beyond, values = (labels == num_classes + base) & present, labels[present] - base
        if beyond.any() and values.min() >= 0 and values.max() == num_classes:
            labels = _redraw_beyond(path, labels, beyond, base, num_classes, described["sha256"])
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
    _check_agreement(path, described, noisy, present, num_classes)
    return noisy, described


def read_transition_matrix(path: str | os.PathLike[str], num_classes: int) -> tuple[tuple[float, ...], ...]:
    """Read the `matrix` of a `NoiseSpec`: K x K probabilities, row y for the samples of class y.

    Args:
        path: `.npy`, `.npz` with one array, `.csv` or `.txt` (one row per line, after a header if there is one;
            commas, semicolons, tabs or blanks), or `.json` (K lists of K numbers, or a `noise.json` with a matrix).
        num_classes: K.

    Raises:
        InputError: the file cannot be read, or its content is not K x K, has entries < 0 or rows that do not sum to
            1.
    """
    path = Path(path)
    if path.suffix.lower() in (".csv", ".txt"):
        try:
            text = _text(path, _bytes(path, _json_limit(0, num_classes)))
            rows = _rows(text)
            if rows and not all(_is_number(cell) for cell in rows[0]):  # names of the classes
                rows = rows[1:]
                rows = [row[1:] for row in rows] if all(len(row) == num_classes + 1 for row in rows) else rows
            content: Any = [[float(cell) for cell in row] for row in rows]
        except InputError:
            raise
        except (ValueError, csv.Error) as error:
            raise damaged(path, error) from None
    elif path.suffix.lower() in (".npy", ".npz", ".json"):
        content = _load(path, ("matrix",), _OTHER_LABELS, num_classes)
    else:
        raise InputError(f"transition matrix {str(path)!r}: give a .npy, .npz, .csv, .txt or .json file")
    if isinstance(content, Mapping):
        if "matrix" not in content and len(content) != 1:
            raise InputError(f"transition matrix {str(path)!r} must hold one array, or an array named matrix")
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
        refuse_address(path)
        if not path.exists() or not path.is_file():  # a device or a pipe may never end
            reason = "is no file" if path.exists() else "does not exist"
            raise InputError(f"{str(path)!r} cannot be read (it {reason}); give the path of a file")
        if path.stat().st_size > limit:
            raise InputError(
                f"{str(path)!r} is larger than {limit >> 20:,} MiB; labels take far less: give a file of labels"
            )
        content = path.read_bytes()
        refuse_foreign(content[:HEAD], path, "file")
        return content
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read ({error.strerror}); give the path of a file") from None


def _text(path: Path, content: bytes) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{str(path)!r} cannot be read (it is text in UTF-16); save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        reason = f"it is not text in UTF-8, see byte {error.start}"
        raise InputError(f"{str(path)!r} cannot be read ({reason}); save it as UTF-8") from None


def _json_limit(labels: int, num_classes: int) -> int:
    """Upper bound on the bytes of JSON for some labels, a matrix, and the fractions per class name."""
    return _BYTES_PER_LABEL * (labels + num_classes**2) + (num_classes << 10) + (1 << 20)


def _load(path: Path, names: Sequence[str], labels: int, num_classes: int) -> Any:
    """The content of JSON or `.npy`; of other files the arrays called `names`, otherwise the only array."""
    suffix = path.suffix.lower()
    if suffix not in _FORMATS:
        hint = "; pickles are not read, since loading one runs code" if suffix in (".pkl", ".pickle", ".pt") else ""
        raise InputError(f"noise file {str(path)!r}: give one of {', '.join(_FORMATS)}{hint}")
    is_text = suffix == ".json" or suffix in _TABLES
    content = _bytes(path, _json_limit(labels, num_classes) if is_text else _LIMIT)
    try:
        if suffix in _TABLES:
            return _read_table(path, _text(path, content), names, num_classes)
        if suffix == ".json":
            return parse_json(_text(path, content))
        if suffix == ".npy":
            return np.asarray(map_npy(path))
    except InputError:
        raise
    except Exception as error:  # a damaged file can raise almost any exception
        raise damaged(path, error) from None
    with open_arrays(path) as arrays:
        wanted = [key for key in arrays if key in names] or (list(arrays) if len(arrays) == 1 else [])
        return {key: arrays[key] for key in wanted}


def _read_table(path: Path, text: str, names: Sequence[str], num_classes: int) -> Any:
    """The content of a table in text: the named columns if it has a header, otherwise all of it as lists.

    A first column that counts the rows from 0 is left out. Without a header, it does so if there are more rows than
    classes, so that it cannot be labels.
    """
    rows = _rows(text)
    if len({len(row) for row in rows}) > 1:
        short = next(i for i, row in enumerate(rows) if len(row) != len(rows[0]))
        raise InputError(f"{str(path)!r}: row {short} has {len(rows[short])} columns, row 0 has {len(rows[0])}")
    numbered = len(rows) > 1 and len(rows[0]) > 1 and not rows[0][0] and _counts(row[0] for row in rows[1:])
    if numbered:  # as pandas writes a header and row numbers
        rows = [row[1:] for row in rows]
        if all(map(_is_number, rows[0])):  # columns without names
            numbered, rows = False, rows[1:]
    elif len(rows) > num_classes and len(rows[0]) > 1 and _counts(row[0] for row in rows):
        rows = [row[1:] for row in rows]
    known = {*names, "label", "labels"}
    header = numbered or (bool(rows) and any(cell in known for cell in rows[0]))
    if rows and not header and not any(map(_is_number, rows[0])):
        header = any(_is_number(cell) for row in rows[1:] for cell in row)
    columns = [_numbers([row[i] for row in rows[header:]]) for i in range(len(rows[0]) if rows else 0)]
    if not header:
        return columns[0] if len(columns) == 1 else [list(row) for row in zip(*columns, strict=True)]
    wanted = {name: column for name, column in zip(rows[0], columns, strict=True) if name in known}
    if len(columns) > 1 and not wanted:
        raise InputError(
            f"{str(path)!r}: none of its columns {listed(rows[0])} holds labels; name one noisy_label, or one for each "
            f"of {listed(n for n in names if n not in _KEYS)}"
        )
    if len(wanted) == 1 and ("label" in wanted or "labels" in wanted):
        return next(iter(wanted.values()))
    return {name: column for name, column in wanted.items() if name in names} if wanted else columns[0]


def _rows(text: str) -> list[list[str]]:
    """Cells of a table, separated by tabs, semicolons, commas or blanks."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    first = lines[0] if lines else ""
    mark = next((m for m in ("\t", ";", ",") if m in first), None)
    if mark is None and len(first.split()) > 1 and all(_is_number(cell) for cell in first.split()):
        return [line.split() for line in lines]
    return [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=mark or ",")]


def _counts(cells: Iterable[str]) -> bool:
    """Whether cells are 0, 1, 2 and so on."""
    return all(cell == str(i) for i, cell in enumerate(cells))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _numbers(cells: Sequence[str]) -> list[Any]:
    """Cells as numbers if all are numbers, otherwise as they are."""
    if not all(map(_is_number, cells)):
        return list(cells)
    return [int(cell) if cell.lstrip("+-").isdecimal() and len(cell) < 18 else float(cell) for cell in cells]


def _foreign(
    path: Path,
    content: Any,
    shape: tuple[int, ...],
    modalities: Sequence[str],
    num_classes: int,
    class_names: Sequence[str],
    uncut: int | None,
) -> tuple[np.ndarray, bool, bool]:
    """Labels [M, N], whether they surely count from 0 (names, one-hot), and whether all modalities share them."""

    def read(content: Any, shape: tuple[int, ...]) -> tuple[np.ndarray, bool]:
        numbers = named_labels(path, content, class_names)
        labels, is_one_hot = _reading(path, content if numbers is None else numbers, shape, num_classes, uncut)
        return labels, is_one_hot or numbers is not None

    if isinstance(content, Mapping):
        keys = [k for k in _KEYS if k in content]
        if not keys and set(modalities) <= set(content):
            each = [read(content[m], (1, shape[1])) for m in modalities]
            return np.concatenate([labels for labels, _ in each]), any(from_zero for _, from_zero in each), False
        if not keys and len(content) == 1 and not set(content) & set(modalities):
            keys = list(content)
        if len(keys) != 1:
            rule = f"one array named {' or '.join(_KEYS)}, or one for each of {', '.join(modalities)}"
            held = " and ".join(keys or set(content) & set(modalities)) or "no labels"
            raise InputError(f"{str(path)!r} holds {held}; it must hold {rule}")
        content = content[keys[0]]
    labels, from_zero = read(content, shape)
    return np.broadcast_to(labels, shape), from_zero, len(labels) < shape[0]


def _refuse_permutation(path: Path, labels: np.ndarray, k: int) -> None:
    """Refuse an order of the instances, as files of noisy correspondence hold it."""
    n = labels.shape[1]
    ordered = np.sort(labels, axis=1)
    if n > k + 1 and any((ordered[0] == np.arange(base, n + base)).all() for base in (0, 1)):
        raise InputError(
            f"{str(path)!r} holds a permutation of the {n} training instances (noisy correspondence), and a noise file "
            "holds labels; order the rows of one modality, train_MODALITY and train_MODALITY_labels, by it in the data "
            "and leave the noise file out"
        )


def _before_the_cut(path: Path, uncut: int, rows: int) -> InputError:
    return InputError(
        f"{str(path)!r} has labels of all {uncut} instances, and the training split was cut from these and has {rows}; "
        "give the labels of its instances alone, in their order (docs/data.md, Noise, says how to find them)"
    )


def _reading(
    path: Path, content: Any, shape: tuple[int, ...], num_classes: int, uncut: int | None
) -> tuple[np.ndarray, bool]:
    """Integers [M, N], or [1, N] for labels that all modalities share, and whether they were one-hot."""
    (m, n), k = shape, num_classes
    a = label_table(path, content)
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
        if uncut is not None and uncut in a.shape:
            raise _before_the_cut(path, uncut, n)
        raise InputError(
            f"{str(path)!r}: labels have the shape {list(a.shape)}; for M = {m} modalities, N = {n} training instances "
            f"and K = {k} classes they must be [N], [M, N], [N, M], or one-hot [N, K]; give those of the training split"
        )
    readings = {name: integer_labels(path, reading) for name, reading in readings.items()}
    if len({np.broadcast_to(r, shape).tobytes() for r in readings.values()}) > 1:
        shapes = " or ".join(readings)
        raise InputError(
            f"{str(path)!r}: shape {list(a.shape)} is ambiguous ({shapes}); give {{modality: [N]}} as JSON"
        )
    name, labels = next(iter(readings.items()))
    return labels, name.startswith("one-hot")


def _numbering(labels: np.ndarray, clean: np.ndarray, num_classes: int, present: np.ndarray) -> int:
    """The number of the first class: 0 or 1."""
    values, true = labels[present], clean[present]
    if not values.size:
        return 0
    agree = [(values - base == true).mean() for base in (0, 1)]
    fits = [base <= values.min() and values.max() < num_classes + base for base in (0, 1)]
    if fits == [True, False]:  # 0 occurs, even if noise k -> k + 1 makes the other numbering agree more
        return 0
    by_chance = 5 * np.sqrt(2 / (num_classes * values.size))  # five sigma of their difference at chance
    # K occurs and 0 does not: numbered from 1, unless a small file with MRL's defect has no 0 by chance.
    if fits == [False, True] and (agree[1] > agree[0] - by_chance or (true == 0).sum() >= 20):
        return 1
    return int(agree[1] > agree[0])


def _redraw_beyond(path: Path, labels: np.ndarray, beyond: np.ndarray, base: int, k: int, digest: str) -> np.ndarray:
    """Draw the labels `beyond` [M, N] again, which are K by the defect of MRL's official implementation.

    It draws from K + 1 values, so that at most about 1 label in K + 1 is K. If there are more, the file has another
    origin, and its labels are returned unchanged.
    """
    if beyond.sum() > 5 + 2 * labels.size / (k + 1):
        return labels
    warnings.warn(
        f"{str(path)!r}: {int(beyond.sum())} labels are {k + base}, but the classes are {base}..{k - 1 + base} (the "
        "official implementation of MRL draws from K + 1 values); each is drawn again, uniformly, with a key from the "
        "file's SHA-256",
        DatasetWarning,
        stacklevel=3,
    )
    together = bool((labels == labels[:1]).all())  # labels that all modalities share stay shared
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
    given = f"label {labels[i, j]} of {modalities[i]}, instance {j} (from 0), is no class ({len(bad)} such labels)"
    raise InputError(f"{str(path)!r}: {given}; the {k} classes are {base}..{k - 1 + base}: give the file of these data")


def _rate_in_name(name: str) -> dict[str, Any] | None:
    """The rate and kind in names such as `noise_labels_0.6_sym.json` (official implementation of MRL)."""
    match = re.search(r"(?<![\d.])([01](?:\.\d+)?)_(sym|asym)(?![a-z])", name)
    if match is None or not 0.0 <= float(match[1]) <= 1.0:
        return None
    return {"rate": float(match[1]), "kind": {"sym": "symmetric", "asym": "asymmetric"}[match[2]]}


def _check_agreement(path: Path, described: dict[str, Any], noisy: NoisyLabels, present: np.ndarray, k: int) -> None:
    """Refuse labels that disagree with the rate in the file's name; note an agreement at the level of chance."""
    low = []
    for name, given, true, p in zip(described["agreement"], noisy.labels, noisy.clean, present, strict=True):
        priors = [np.bincount(np.asarray(y)[p], minlength=k) / max(p.sum(), 1) for y in (given, true)]
        chance = float(priors[0] @ priors[1])  # expected agreement of independent labels
        if described["agreement"][name] < min(1.0, chance + min(chance / 2, 0.1)):
            low.append(name)
    if not low:
        return
    agreement = ", ".join(f"{m} {described['agreement'][m]:.1%}" for m in low)
    nominal = described["nominal"]
    if described["format"] != "noise.json" and nominal:
        required = 1.0 - nominal["rate"]
        if min(described["agreement"][m] for m in low) < required - _SLACK:
            raise InputError(
                f"{str(path)!r}: labels agree with the clean labels only by chance ({agreement}), but at the rate in "
                f"its name ({nominal['rate']:g}) at least {required:.0%} must agree; its rows or class numbers are in "
                "another order than those of the data: bring them into the order of the data"
            )
    described["note"] = (
        f"labels agree with the clean labels only at the level of chance ({agreement}): expected for a noise rate "
        "near 1, otherwise a sign of another row order or class numbering"
    )
