"""A CSV table of instances and a folder with their pictures: read, checked and digested before any model is loaded."""

import contextlib
import csv
import hashlib
import io
import json
import math
import posixpath
import re
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mrl_jax.data.dataset import SPLITS
from mrl_jax.errors import InputError

__all__ = ["Row", "Table", "check_table", "digest_inputs", "find_pictures", "first_line", "read_rgb", "read_table"]

_COLUMNS = ("id", "text", "label")
_SPLIT_NAMES = {**{name: name for name in SPLITS}, "validation": "valid", "val": "valid"}
# What Pillow itself decodes; its other formats are stubs or start programs (EPS: Ghostscript).
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "AVIF", "PPM", "TGA", "ICO", "JPEG2000")
_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".avif"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".ico", ".jp2"),
)


@dataclass
class Row:
    """One instance: a line of the table, and its picture."""

    id: str
    text: str  # "": missing
    label: str
    split: str
    image: str  # as the table names it; "": the file whose stem is the id
    picture: Path | None = None

    def has(self, modality: str) -> bool:
        """Whether its picture ("image") or text is there."""
        return self.picture is not None if modality == "image" else bool(self.text)


@dataclass(frozen=True)
class Table:
    """All instances, ordered by split and then as in the file; a row's label is one of the class names."""

    rows: list[Row]
    class_names: list[str]
    split_by: str  # where the splits come from


def read_table(path: Path, seed: int) -> Table:
    """Read a CSV with the columns `id`, `text` and `label`, optionally `split` (else drawn by seed) and `image`.

    Raises:
        InputError: the file or one of its lines is not as it must be.
    """
    header, lines = _read_csv(path)
    rows: dict[str, Row] = {}
    for number, line in lines:
        where = f"texts {path}, line {number}"
        if len(line) != len(header):
            raise InputError(
                f"{where}: {len(line)} fields, but the header has {len(header)}; quote fields that hold commas"
            )
        row = _row(dict(zip(header, line, strict=True)), where, seed)
        if row.id in rows:
            raise InputError(f"{where}: the id {row.id!r} occurs twice; ids must be unique: rename or drop one row")
        rows[row.id] = row
    if not rows:
        raise InputError(f"texts {path} holds no rows; give one line per instance below the header")
    class_names = _normalize_labels(rows.values())
    ordered = sorted(rows.values(), key=lambda row: SPLITS.index(row.split))
    split_by = "column" if "split" in header else f"80/10/10 by SHA-256 of id, seed {seed}"
    return Table(ordered, class_names, split_by)


def _read_csv(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The column names, checked, and every line with its number."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            lines = [(reader.line_num, line) for line in reader if line]
    except OSError as error:
        raise InputError(f"texts {path} cannot be read ({error.strerror or error}); give the path of a CSV") from error
    except UnicodeDecodeError as error:
        raise InputError(f"texts {path} is not UTF-8 (byte {error.start}); save the table as UTF-8") from error
    except csv.Error as error:
        raise InputError(f"texts {path} is no valid CSV ({error}); quote fields that hold commas or quotes") from error
    header = [name.strip() for name in lines[0][1]] if lines else []
    missing = [name for name in _COLUMNS if name not in header]
    if missing or len(set(header)) < len(header):
        wrong = f"has no column {', '.join(missing)}" if missing else "names a column twice"
        raise InputError(
            f"texts {path} {wrong} (found: {', '.join(header) or 'an empty file'}); the first line must name "
            "id, text and label, optionally split and image, each once"
        )
    return header, lines[1:]


def _row(fields: Mapping[str, str], where: str, seed: int) -> Row:
    stripped = {name: value.strip() for name, value in fields.items()}
    for name in ("id", "label"):
        if not stripped[name]:
            raise InputError(f"{where}: the {name} is empty; give every row one, or drop the row")
    if "split" not in stripped:
        split = _drawn_split(stripped["id"], seed)
    elif stripped["split"].lower() in _SPLIT_NAMES:
        split = _SPLIT_NAMES[stripped["split"].lower()]
    else:
        raise InputError(f"{where}: unknown split {stripped['split']!r}; choose train, valid or test")
    text = fields["text"] if stripped["text"] else ""
    return Row(stripped["id"], text, stripped["label"], split, stripped.get("image", ""))


def _drawn_split(identity: str, seed: int) -> str:
    """Draw 80/10/10 from seed and id alone, so that other rows do not matter."""
    share = int.from_bytes(hashlib.sha256(f"{seed}/{identity}".encode()).digest()[:8], "big") / 2**64
    return "train" if share < 0.8 else "valid" if share < 0.9 else "test"


def _normalize_labels(rows: Collection[Row]) -> list[str]:
    """Return the distinct labels, numbers as numbers; where all are integers, `01` and `1` are one label."""
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

    Raises:
        InputError: a name leaves the folder, or several pictures have the stem of one id.
    """
    by_stem: dict[str, list[Path]] = {}
    if not all(row.image for row in rows):
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in _SUFFIXES and path.is_file():
                by_stem.setdefault(path.stem, []).append(path)
    for row in rows:
        if row.image:
            inside = posixpath.normpath(row.image)
            if posixpath.isabs(inside) or inside == ".." or inside.startswith("../"):
                raise InputError(
                    f"image {row.image!r} of id {row.id!r} leaves the folder {folder}; give names relative to it"
                )
            found = [folder / inside] if (folder / inside).is_file() else []
        else:
            found = by_stem.get(row.id, [])
        if len(found) > 1:
            raise InputError(
                f"id {row.id!r} has several pictures in {folder} ({', '.join(path.name for path in found)}); "
                "keep one, or name it in a column image"
            )
        row.picture = found[0] if found else None


def check_table(table: Table) -> list[str]:
    """Check that the rows, with their pictures, make a data set; returns lines on what is missing.

    Raises:
        InputError: a row without text and picture, fewer than two classes, an empty split, an untrained class.
    """
    rows, class_names = table.rows, table.class_names
    for row in rows:
        if not row.has("image") and not row.has("text"):
            raise InputError(f"id {row.id!r} has neither text nor picture; give it one of them, or drop the row")
    if len(class_names) < 2:
        raise InputError(f"all labels are {class_names[0]!r}; at least two classes are needed to cluster by")
    for split in SPLITS:
        inside = [row for row in rows if row.split == split]
        if not inside:
            raise InputError(
                f"split {split} has no rows; every split needs some: add rows, or a column split that names it"
            )
        for modality, what in (("image", "picture"), ("text", "text")):
            if not any(row.has(modality) for row in inside):
                raise InputError(f"split {split} has no {what} at all; every split needs some of both modalities")
    untrained = set(class_names) - {row.label for row in rows if row.split == "train"}
    if untrained:
        raise InputError(f"class {min(untrained)!r} has no row in split train; add some, or drop the class")
    missing = []
    for modality, what in (("image", "picture"), ("text", "text")):
        lacking = [row.id for row in rows if not row.has(modality)]
        if lacking:
            line = f"{len(lacking)} of {len(rows)} rows have no {what} (the first: {lacking[0]}): marked as missing"
            missing.append(line)
    return missing


def digest_inputs(rows: Sequence[Row]) -> str:
    """SHA-256 of all that the features depend on.

    Raises:
        InputError: a file is no picture at all.
    """
    total = hashlib.sha256()
    for row in rows:
        content = ""
        if row.picture is not None:
            with _picture_told(row.picture):
                data = row.picture.read_bytes()
                with _opened(data):
                    content = hashlib.sha256(data).hexdigest()
        total.update(json.dumps([row.id, row.text, row.label, row.split, content]).encode())
    return total.hexdigest()


@contextlib.contextmanager
def _picture_told(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # broken files raise nearly anything
        told = "it is no picture" if isinstance(error, UnidentifiedImageError) else first_line(error)
        raise InputError(
            f"picture {path} cannot be read ({told}); replace it, or remove it to mark it missing"
        ) from error


@contextlib.contextmanager
def _opened(data: bytes) -> Iterator[Image.Image]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd metadata
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(io.BytesIO(data), formats=_FORMATS) as picture:
            yield picture


def read_rgb(path: Path) -> Image.Image:
    """Read a picture: its first frame, upright, 8-bit RGB; transparency is dropped, as transformers does.

    Raises:
        InputError: it is damaged, too large, or has grey values of neither 8 nor 16 bits.
    """
    with _picture_told(path), _opened(path.read_bytes()) as picture:
        upright = ImageOps.exif_transpose(picture)
        if upright.mode.startswith(("I", "F")):  # Pillow would clip these at 255
            values = np.asarray(upright, np.float64)
            if upright.mode == "F" or values.min() < 0 or values.max() > 65535:
                raise ValueError("its grey values are neither 8 nor 16 bits wide")
            upright = Image.fromarray((values / 257.0).round().astype(np.uint8))
        return upright.convert("RGB")


def first_line(error: BaseException) -> str:
    """What an error says, in one line, to be put in brackets."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:; ")
