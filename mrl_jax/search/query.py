"""Features of a typed text or a picture file, computed as those of the run's training data."""

import functools
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mrl_jax.data.formats.npz import read_npz_array
from mrl_jax.errors import InputError
from mrl_jax.files import refuse_address
from mrl_jax.json_files import parse_json
from mrl_jax.run.folder import RunFolder
from mrl_jax.run.model import Run
from mrl_jax.search.gallery import check_modality, is_emoji

__all__ = ["Inputs", "query_features", "query_inputs", "query_modality"]

_WHAT = {"text": "a typed text", "image": "a picture file"}


class Inputs(Protocol):
    """The kinds of query that a run takes, and their features."""

    @property
    def modalities(self) -> Mapping[str, tuple[str, ...]]:
        """Kind of query, "text" or "image" -> modalities of the run that such a query can belong to."""

    def features(self, kind: str, value: str) -> np.ndarray:
        """Features [1, D] of a text, or of the picture in a file."""


def query_inputs(run: Run, folder: RunFolder | None, data: Any = None) -> Inputs | None:
    """Find out how the features of texts and pictures are computed for a run.

    Runs on the emoji set take both. So do runs on an `.npz` file made by `mrl_jax.data.featurize`, with the models
    that the file records.

    Args:
        run: the run.
        folder: its folder, or None.
        data: as for `run_data`.

    Returns:
        The inputs, or None if only rows of the run's data can be queries.
    """
    if is_emoji(run, folder, data):
        return _EmojiInputs(run.modalities)
    path = run.config.data_path if data is None else data
    if isinstance(path, str | Path) and Path(path).suffix == ".npz":
        source = _featurized(Path(path).expanduser())
        if source is not None and {"image", "text"} & set(run.modalities):
            return _ModelInputs(run.modalities, source)
    return None


def query_modality(run: Run, inputs: Inputs | None, kind: str, wanted: str | None = None) -> str:
    """The modality that a text or a picture is embedded as: the wanted one, otherwise the first that takes it.

    Raises:
        InputError: no modality takes it, or not the wanted one.
    """
    taking = inputs.modalities[kind] if inputs is not None else ()
    if not taking:
        raise InputError(
            f"features of {_WHAT[kind]} cannot be computed for these data, only for the emoji set and for files made "
            "by python -m mrl_jax.data featurize; search with --row MODALITY:SPLIT:INDEX"
        )
    if wanted is None:
        return taking[0]
    if check_modality(run, wanted) not in taking:
        raise InputError(f"modality {wanted!r} does not take {_WHAT[kind]}; choose from {', '.join(taking)}")
    return wanted


def query_features(inputs: Inputs, kind: str, value: str) -> np.ndarray:
    """Features [1, D] of a text or a picture file.

    Raises:
        InputError: the text is empty or has no letter or sign, the file is no picture, or its path is an address.
    """
    if kind == "image":
        if not value.strip():
            raise InputError("the picture's path is empty; give the path of a picture file")
        refuse_address(value, "picture")
        return inputs.features(kind, str(Path(value).expanduser()))
    if not value.isprintable() and any(unicodedata.category(c) == "Cs" for c in value):
        raise InputError("the text is not valid Unicode; check the encoding of the terminal")
    if not value.strip():
        raise InputError("the text is empty; type a word or more")
    x = inputs.features(kind, value)
    if not x.any():
        raise InputError(f"the text {value!r} holds no letters or signs; type a word or more")
    return x


@dataclass(frozen=True)
class _EmojiInputs:
    """The fixed features of the emoji set."""

    names: tuple[str, ...]

    @property
    def modalities(self) -> Mapping[str, tuple[str, ...]]:
        return {
            "text": tuple(m for m in self.names if m != "image"),
            "image": tuple(m for m in self.names if m == "image"),
        }

    def features(self, kind: str, value: str) -> np.ndarray:
        from mrl_jax.data.emoji.features import image_features, weigh_counts

        if kind == "image":
            return image_features([value])
        from mrl_jax.data.emoji.ngrams import hashed_counts

        return weigh_counts(hashed_counts([value]))


@dataclass(frozen=True)
class _ModelInputs:
    """The Hugging Face models that computed the features of the run's data."""

    names: tuple[str, ...]
    source: Mapping[str, Any]

    @property
    def modalities(self) -> Mapping[str, tuple[str, ...]]:
        return {kind: (kind,) if kind in self.names else () for kind in ("text", "image")}

    def features(self, kind: str, value: str) -> np.ndarray:
        from mrl_jax.data.featurize.pretrained import torch_device
        from mrl_jax.data.featurize.raw_table import Row

        picture = Path(value) if kind == "image" else None
        if picture is not None and not picture.is_file():
            raise InputError(f"picture {value} does not exist; give the path of a picture file")
        row = Row("query", "" if kind == "image" else value, "", "", "", picture)
        with torch_device("auto") as device:
            made = self.source[kind]
            key = {k: made[k] for k in ("sha256", "name", "revision") if k in made}
            return _encoder(kind, made["model"], tuple(key.items()), device)([row])[0]


@functools.lru_cache(maxsize=2)
def _encoder(kind: str, name: str, key: tuple[tuple[str, str], ...], device: str) -> Any:
    from mrl_jax.data.featurize.pretrained import check_model, load_encoder, model_key

    check_model(kind, name)
    recorded = dict(key)
    if "sha256" in recorded and model_key(name) != recorded:
        raise InputError(
            f"{kind} model {name} is not the one that computed the run's features (its files have changed); restore it"
        )
    return load_encoder(kind, name, recorded, device)


def _featurized(path: Path) -> dict[str, Any] | None:
    """The record of `featurize` in a file that it made, or None for other files."""
    try:
        source = parse_json(str(read_npz_array(path, "source")))
        is_ours = source["made_by"] == "mrl_jax.data.featurize" and all("model" in source[m] for m in ("image", "text"))
    except Exception:  # any other file
        return None
    return source if is_ours else None
