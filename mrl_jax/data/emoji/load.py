"""Load the embedded emoji data set; the first call prepares it in the cache folder, without TensorFlow."""

import contextlib
import hashlib
import os
import sys
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from mrl_jax.data.cache import cache_folder
from mrl_jax.data.dataset import SPLITS, Dataset, Split
from mrl_jax.data.emoji.builder import ATTRIBUTION, CLASS_NAMES, HOMEPAGE, MODALITIES, ROWS, Emoji
from mrl_jax.data.emoji.features import weigh_counts
from mrl_jax.data.emoji.groups import SPLIT_TENTHS, assign_splits
from mrl_jax.data.emoji.versions import version_of
from mrl_jax.data.tfds_writing import write_dataset
from mrl_jax.errors import InputError, first_line

__all__ = ["load", "load_records"]


def load(
    modalities: Sequence[str] = ("image", "text"),
    data_dir: str | os.PathLike[str] | None = None,
    source: str = "emoji",
    split_seed: int = 0,
) -> Dataset:
    """Load the emoji data set. The first call prepares it (some seconds), later calls read it from the cache folder.

    Args:
        modalities: which ones, in this order: "image" (D = 784), "text" (Unicode name and short names, D = 512), and
            "text_ar", "text_de", … "text_zh" (the name in 14 languages, D = 512). See `MODALITIES`.
        data_dir: cache folder. None: the environment variable MRL_JAX_DATA_DIR, else the user's cache folder.
        source: "emoji", or "emoji:VERSION" for one of `VERSIONS`.
        split_seed: which split; 0 is that of the prepared copy. Every split keeps groups together (see `groups`).

    Returns:
        1,898 rows in 9 classes; float32 features, the same bits in every call; labels are the same in every modality.

    Raises:
        InputError: a modality, or the version, is unknown or repeated, the folder cannot be written, a source package
            is missing or has another version, or the copy is damaged.
    """
    modalities = _checked_modalities(modalities)
    builder = _prepared(data_dir, version_of(source))
    kinds = builder.info.features
    splits = {}
    names = ["label", *("image" if m == "image" else f"{m}/counts" for m in modalities)]
    for name, columns in _read_splits(builder, SPLITS, names, split_seed).items():
        labels = np.array(columns["label"], np.int32)
        features = {}
        with _damage_reported(Path(builder.data_dir)):
            for m in modalities:
                if m == "image":
                    features[m] = _stacked(columns[m], kinds[m])
                else:
                    counts = [zlib.decompress(x) for x in columns[f"{m}/counts"]]  # `Emoji` encodes them with zlib
                    features[m] = weigh_counts(_stacked(counts, kinds[m]["counts"]))
        splits[name] = Split(features=features, labels=dict.fromkeys(modalities, labels))
    with _damage_reported(Path(builder.data_dir)):
        versions = dict(builder.info.metadata["versions"])
    metadata = {
        "source": f"{builder.info.full_name}, made from packages",
        "homepage": HOMEPAGE,
        "attribution": ATTRIBUTION,
        "versions": versions,
    }
    if split_seed:
        metadata["cut"] = {
            "split": "/".join(str(10 * tenths) for tenths in SPLIT_TENTHS.values()),
            "seed": split_seed,
            "by": "class, near-duplicates together",
            "instances": {name: len(split) for name, split in splits.items()},
        }
    return Dataset("emoji", modalities, CLASS_NAMES, splits, metadata)


def load_records(
    split: str,
    data_dir: str | os.PathLike[str] | None = None,
    texts: Iterable[str] = ("text",),
    source: str = "emoji",
    split_seed: int = 0,
) -> list[dict[str, Any]]:
    """List the pictures and texts of each row for display, in the row order of `load`.

    Args:
        split: "train", "valid" or "test".
        data_dir: as in `load`.
        texts: text modalities whose strings to return.
        source: as in `load`.
        split_seed: as in `load`.

    Returns:
        For each row `id` (code points), `character`, `subgroup` (of Unicode, finer than the class), `group` (equal for
        near-duplicates), `png` (bytes of a PNG file), and the string of each modality in `texts`.

    Raises:
        InputError: the split or a text modality is unknown; otherwise as in `load`.
    """
    if split not in SPLITS:
        raise InputError(f"split {split!r} does not exist: choose one of {', '.join(SPLITS)}")
    texts = tuple(texts)
    if not set(texts) <= set(MODALITIES[1:]):
        raise InputError(f"texts {' '.join(texts)}: choose among {' '.join(MODALITIES[1:])}")
    strings = {name: name for name in ("id", "character", "subgroup", "group")} | {m: f"{m}/string" for m in texts}
    builder = _prepared(data_dir, version_of(source))
    columns = _read_splits(builder, (split,), [*strings.values(), "png"], split_seed)[split]
    return [
        {**{key: columns[name][i].decode() for key, name in strings.items()}, "png": png}
        for i, png in enumerate(columns["png"])
    ]


def _checked_modalities(modalities: Sequence[str]) -> tuple[str, ...]:
    modalities = (modalities,) if isinstance(modalities, str) else tuple(modalities)
    unknown = [modality for modality in modalities if modality not in MODALITIES]
    if unknown or not modalities or len(set(modalities)) < len(modalities):
        given = " ".join(map(str, modalities)) or "none"
        raise InputError(f"modalities {given}: choose from those of emoji, each once: {' '.join(MODALITIES)}")
    return modalities


def _prepared(data_dir: str | os.PathLike[str] | None, version: str) -> Emoji:
    """The builder of a complete copy in the cache folder; the copy is written now if there is none."""
    root = cache_folder(data_dir)
    folder = root / "emoji" / version
    if not folder.exists():
        _prepare(root, folder)
    with _damage_reported(folder):
        builder = Emoji(data_dir=os.fspath(root), version=version, file_format="array_record")
        if sum(builder.info.splits[name].num_examples for name in SPLITS) != ROWS:
            raise ValueError("rows are missing")
        return builder


def _prepare(root: Path, folder: Path) -> None:
    """Write the data set. TFDS renames a temporary folder at the end, so that `folder` is complete or absent."""
    start = time.perf_counter()
    print(f"emoji: preparing {ROWS:,} pictures and names in {folder} (once)", file=sys.stderr)
    try:
        root.mkdir(parents=True, exist_ok=True)
        stream = sys.stderr

        def make_builder() -> Emoji:
            builder = Emoji(data_dir=os.fspath(root), version=folder.name, file_format="array_record")
            builder.progress_stream = stream
            return builder

        write_dataset(make_builder)
    except OSError as error:
        if folder.exists():  # another process renamed its copy first
            return
        raise InputError(
            f"data folder {root} cannot be written ({error.strerror or error}): the emoji data set needs about "
            "10 MB there; choose another with data_dir or the environment variable MRL_JAX_DATA_DIR"
        ) from error
    print(f"emoji: prepared in {time.perf_counter() - start:.1f} s", file=sys.stderr)


def _read_splits(
    builder: Emoji, wanted: Sequence[str], names: Sequence[str], split_seed: int
) -> dict[str, dict[str, list[Any]]]:
    """Columns of some splits; for a seed other than 0 the rows of all splits of the copy are divided anew."""
    if not split_seed:
        return {split: _read(builder, split, names) for split in wanted}
    columns: dict[str, list[Any]] = {name: [] for name in dict.fromkeys((*names, "id", "group", "label"))}
    for split in SPLITS:
        for name, values in _read(builder, split, list(columns)).items():
            columns[name] += values
    keys, labels = [key.decode() for key in columns["group"]], columns["label"]
    split_of = assign_splits(keys, labels, split_seed)
    order = sorted(range(len(keys)), key=lambda i: hashlib.sha256(columns["id"][i]).hexdigest())  # as in the copy
    rows = {split: [i for i in order if split_of[i] == split] for split in wanted}
    return {split: {name: [columns[name][i] for i in of_split] for name in names} for split, of_split in rows.items()}


def _read(builder: Emoji, split: str, names: Sequence[str]) -> dict[str, list[Any]]:
    """Read columns of a split: integers, or bytes of a text, a picture or a `Tensor`.

    TFDS would decode every feature of every record, which takes ten times as long.
    """
    with _damage_reported(Path(builder.data_dir)):
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
def _damage_reported(folder: Path) -> Iterator[None]:
    """Turn every error raised inside into an `InputError` that names the damaged folder."""
    try:
        yield
    except Exception as error:
        raise InputError(
            f"the prepared emoji data in {folder} are damaged ({first_line(error)}); delete that folder and run again, "
            "which prepares the data again"
        ) from error
