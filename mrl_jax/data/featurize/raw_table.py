"""Read, check and digest a CSV table of instances and a folder with their pictures, before any model is loaded."""

import csv
import hashlib
import io
import json
import math
import os
import posixpath
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from mrl_jax.data.dataset import SPLITS, is_picture
from mrl_jax.data.formats.foreign import HEAD, refuse_foreign
from mrl_jax.data.pictures import SUFFIXES, opened, picture_errors
from mrl_jax.errors import InputError, first_line

__all__ = [
    "Row",
    "Table",
    "check_table",
    "digest_inputs",
    "find_pictures",
    "read_rgb",
    "read_table",
    "read_texts",
    "reason_of",
    "shown_of",
]

_COLUMNS = ("id", "text", "label")
_SPLIT_NAMES = {**{name: name for name in SPLITS}, "validation": "valid", "val": "valid", "dev": "valid"}
_SHOWN_TEXT = 500  # letters of a text; NumPy gives every text of an array the room of the longest
_REMEDY = "replace it, or remove it to mark it as missing"


@dataclass
class Row:
    """One instance: a line of the table, and its picture."""

    id: str
    text: str  # "": missing
    label: str
    split: str
    image: str  # file name in the table; "": the file whose stem is the id
    picture: Path | None = None

    def has(self, modality: str) -> bool:
        """Whether its picture ("image") or text ("text") is present."""
        return self.picture is not None if modality == "image" else bool(self.text)


@dataclass(frozen=True)
class Table:
    """All instances, ordered by split and then as in the file; the label of a row is one of the class names."""

    rows: list[Row]
    class_names: list[str]
    split_by: str  # how rows were assigned to splits


def read_table(path: Path, seed: int) -> Table:
    """Read a CSV with the columns `id`, `text` and `label`, and optionally `split` and `image`.

    Args:
        path: the file.
        seed: seed of the split, if there is no column `split`.

    Raises:
        InputError: the file or one of its lines breaks a rule.
    """
    header, lines = _read_csv(path, _COLUMNS)
    rows: dict[str, Row] = {}
    for where, fields in lines:
        row = _row(fields, where, seed)
        if row.id in rows:
            raise _twice(where, row.id)
        rows[row.id] = row
    if not rows:
        raise InputError(f"texts {path} has no rows; give one line per instance below the header")
    class_names = _normalize_labels(rows.values())
    ordered = sorted(rows.values(), key=lambda row: SPLITS.index(row.split))
    split_by = "column" if "split" in header else f"80/10/10 by SHA-256 of id, seed {seed}"
    return Table(ordered, class_names, split_by)


def read_texts(path: Path) -> dict[str, str]:
    """Texts to show by the ids of their instances; columns other than `id` and `text` are left alone.

    Raises:
        InputError: the file or one of its lines breaks a rule.
    """
    texts: dict[str, str] = {}
    for where, fields in _read_csv(path, ("id", "text"))[1]:
        if (identity := fields["id"].strip()) in texts:
            raise _twice(where, identity)
        texts[identity] = fields["text"].strip()
    return texts


def _twice(where: str, identity: str) -> InputError:
    return InputError(f"{where}: the id {identity!r} occurs twice; ids must be unique: rename or drop one row")


def _read_csv(path: Path, columns: Sequence[str]) -> tuple[list[str], list[tuple[str, dict[str, str]]]]:
    """The column names, some of which must be there, and the fields of every line with its place."""
    try:
        with path.open("rb") as raw:
            refuse_foreign(raw.read(HEAD), path, "texts")
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            lines = [(reader.line_num, line) for line in reader if line]
    except OSError as error:
        raise InputError(f"texts {path} cannot be read ({error.strerror or error}); give the path of a CSV") from error
    except UnicodeDecodeError as error:
        raise InputError(f"texts {path} is not UTF-8 (byte {error.start}); save the table as UTF-8") from error
    except csv.Error as error:
        raise InputError(f"texts {path} is not valid CSV ({error}); quote fields with commas or quotes") from error
    header = [name.strip() for name in lines[0][1]] if lines else []
    missing = [name for name in columns if name not in header]
    if missing or len(set(header)) < len(header):
        problem = f"has no column {', '.join(missing)}" if missing else "names a column twice"
        raise InputError(
            f"texts {path} {problem} (found: {', '.join(header) or 'an empty file'}); the first line must name "
            + (
                "id, text and label, optionally split and image, each once"
                if columns == _COLUMNS
                else "id and text once"
            )
        )
    found = []
    for number, line in lines[1:]:
        where = f"texts {path}, line {number}"
        if len(line) != len(header):
            raise InputError(f"{where}: {len(line)} fields, but the header has {len(header)}; quote fields with commas")
        found.append((where, dict(zip(header, line, strict=True))))
    return header, found


def _row(fields: Mapping[str, str], where: str, seed: int) -> Row:
    stripped = {name: value.strip() for name, value in fields.items()}
    for name in ("id", "label"):
        if not stripped[name]:
            raise InputError(f"{where}: the {name} is empty; give every row a value, or drop the row")
    if "split" not in stripped:
        split = _drawn_split(stripped["id"], seed)
    elif stripped["split"].lower() in _SPLIT_NAMES:
        split = _SPLIT_NAMES[stripped["split"].lower()]
    else:
        raise InputError(f"{where}: unknown split {stripped['split']!r}; choose train, valid or test")
    text = fields["text"] if stripped["text"] else ""
    return Row(stripped["id"], text, stripped["label"], split, stripped.get("image", ""))


def _drawn_split(identity: str, seed: int) -> str:
    """Split of a row, 80/10/10 by the hash of seed and id, so that it does not depend on other rows."""
    fraction = int.from_bytes(hashlib.sha256(f"{seed}/{identity}".encode()).digest()[:8], "big") / 2**64
    return "train" if fraction < 0.8 else "valid" if fraction < 0.9 else "test"


def _normalize_labels(rows: Collection[Row]) -> list[str]:
    """The distinct labels, in numerical order if all are numbers; if all are integers, `01` becomes `1`."""
    if all(re.fullmatch(r"[+-]?[0-9]{1,300}", row.label) for row in rows):
        for row in rows:
            row.label = str(int(row.label))
    labels = {row.label for row in rows}
    try:
        values = {label: float(label) for label in labels}
        numeric = all(math.isfinite(value) for value in values.values())
    except ValueError:
        numeric = False
    return sorted(labels, key=lambda label: (values[label], label)) if numeric else sorted(labels)


def find_pictures(rows: Sequence[Row], folder: Path) -> None:
    """Set `picture` of every row whose picture is in the folder.

    Args:
        rows: the rows.
        folder: the folder.

    Raises:
        InputError: a name points outside of the folder, or several pictures have the stem of one id.
    """
    by_stem: dict[str, list[Path]] = {}
    if not all(row.image for row in rows):
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in SUFFIXES and path.is_file():
                by_stem.setdefault(path.stem, []).append(path)
    for row in rows:
        if row.image:
            inside = posixpath.normpath(row.image)
            if posixpath.isabs(inside) or inside == ".." or inside.startswith("../"):
                raise InputError(
                    f"image {row.image!r} of id {row.id!r} is outside of the folder {folder}; give names relative to it"
                )
            paths = [folder / inside] if (folder / inside).is_file() else []
        else:
            paths = by_stem.get(row.id, [])
        if len(paths) > 1:
            raise InputError(
                f"id {row.id!r} has several pictures in {folder} ({', '.join(path.name for path in paths)}); "
                "keep one, or name it in a column image"
            )
        row.picture = paths[0] if paths else None


def check_table(table: Table) -> list[str]:
    """Check that the rows with their pictures form a data set.

    Args:
        table: the table, after `find_pictures`.

    Returns:
        One line for each modality with missing samples.

    Raises:
        InputError: a row has neither text nor picture, there are fewer than two classes, a split is empty, or a class
            has no training row.
    """
    rows, class_names = table.rows, table.class_names
    for row in rows:
        if not row.has("image") and not row.has("text"):
            raise InputError(f"id {row.id!r} has neither text nor picture; give it one of them, or drop the row")
    if len(class_names) < 2:
        raise InputError(f"all labels are {class_names[0]!r}; at least two classes are needed")
    for split in SPLITS:
        inside = [row for row in rows if row.split == split]
        if not inside:
            raise InputError(
                f"split {split} has no rows; every split needs rows: add some, or add a column split that names it"
            )
        for modality, what in (("image", "picture"), ("text", "text")):
            if not any(row.has(modality) for row in inside):
                raise InputError(f"split {split} has no {what} at all; every split needs samples of both modalities")
    untrained = set(class_names) - {row.label for row in rows if row.split == "train"}
    if untrained:
        raise InputError(f"class {min(untrained)!r} has no row in split train; add some, or drop the class")
    missing = []
    for modality, what in (("image", "picture"), ("text", "text")):
        ids = [row.id for row in rows if not row.has(modality)]
        if ids:
            missing.append(f"{len(ids)} of {len(rows)} rows have no {what} (the first: {ids[0]}): marked as missing")
    return missing


def shown_of(rows: Sequence[Row], folder: Path) -> dict[str, np.ndarray]:
    """Modality -> what search and reports show of the rows, text [N]; "" where a sample is missing.

    Args:
        rows: the rows, after `find_pictures`.
        folder: folder of the output, to which the paths of the pictures are relative.
    """
    start = folder.resolve()
    pictures = ["" if row.picture is None else _relative(row.picture, start) for row in rows]
    return {"image": np.array(pictures, str), "text": np.array([_shown_text(row.text) for row in rows], str)}


def _relative(picture: Path, start: Path) -> str:
    """Path from a folder; links among the folders are followed, but not the picture: its own name has the ending."""
    return os.path.relpath(picture.parent.resolve() / picture.name, start)


def _shown_text(text: str) -> str:
    text = text.strip()
    text = text if len(text) <= _SHOWN_TEXT else text[: _SHOWN_TEXT - 1].rstrip() + "…"
    return text + " " if is_picture(text) else text  # else "my cat.png" would be read as the path of a picture


def digest_inputs(rows: Sequence[Row]) -> str:
    """SHA-256 of the content of all rows and pictures.

    Args:
        rows: the rows, after `find_pictures`.

    Raises:
        InputError: a file is not a picture.
    """
    total = hashlib.sha256()
    for row in rows:
        content = ""
        if row.picture is not None:
            with picture_errors(row.picture, _REMEDY):
                data = row.picture.read_bytes()
                refuse_foreign(data[:HEAD], row.picture, "picture")
                with opened(io.BytesIO(data)):
                    content = hashlib.sha256(data).hexdigest()
        total.update(json.dumps([row.id, row.text, row.label, row.split, content]).encode())
    return total.hexdigest()


def read_rgb(path: Path) -> Image.Image:
    """Read the first frame of a picture, upright, as 8-bit RGB; transparency is dropped, as in transformers.

    Args:
        path: the file.

    Raises:
        InputError: it is damaged, too large, or has grey values of neither 8 nor 16 bits.
    """
    with picture_errors(path, _REMEDY), opened(io.BytesIO(path.read_bytes())) as picture:
        upright = ImageOps.exif_transpose(picture)
        if upright.mode.startswith(("I", "F")):  # Pillow would clip such values at 255
            values = np.asarray(upright, np.float64)
            if upright.mode == "F" or values.min() < 0 or values.max() > 65535:
                raise ValueError("its grey values are neither 8 nor 16 bits wide")
            upright = Image.fromarray((values / 257.0).round().astype(np.uint8))
        return upright.convert("RGB")


def reason_of(error: Exception) -> str:
    """The first line of an error message without final punctuation, for use in brackets."""
    return first_line(error).rstrip(".:; ")
