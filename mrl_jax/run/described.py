"""A data set as `data.json` of a run describes it."""

from collections.abc import Mapping
from typing import Any

from mrl_jax.data.dataset import Dataset
from mrl_jax.methods.state import Shapes

__all__ = ["check_described", "describe", "shapes_of"]


def describe(data: Dataset) -> dict[str, Any]:
    """The content of `data.json` for a data set."""
    return {
        "name": data.name,
        "modalities": list(data.modalities),
        "dims": data.dims,
        "class_names": list(data.class_names),
        "instances": {name: len(split) for name, split in data.splits.items()},
        "samples": {
            name: {m: int(split.present(m).sum()) for m in data.modalities} for name, split in data.splits.items()
        },
        "sha256": data.digest(),
        "metadata": dict(data.metadata),
        **({"shown": shown} if (shown := [m for m in data.modalities if m in data.splits["test"].shown]) else {}),
    }


def check_described(data: Mapping[str, Any]) -> None:
    """Check that the entries of a `data.json` go together.

    Raises:
        ValueError: they do not; the message names entries.
    """
    names, split_names = data["modalities"], list(data["samples"])
    if sorted(data["dims"]) != sorted(set(names)) or len(set(names)) < len(names) or not data["class_names"]:
        raise ValueError("modalities, dims or class_names")
    if any(sorted(data["samples"][s]) != sorted(names) or s not in data["instances"] for s in split_names):
        raise ValueError("samples or instances")


def shapes_of(data: Mapping[str, Any]) -> Shapes:
    """The sizes that determine the shapes of a run's state, from its `data.json`."""
    dims = tuple(data["dims"][m] for m in data["modalities"])
    return Shapes(dims, len(data["class_names"]), data["instances"]["train"])
