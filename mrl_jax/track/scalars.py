"""The numbers of a run under the names that all trackers use."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from mrl_jax.training.callbacks import RunStart

__all__ = ["as_text", "facts", "final_scalars", "scalars"]


def scalars(line: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a line of `metrics.jsonl`, without its epoch.

    Names of modalities may hold any character, and MLflow takes letters, digits and "_-./: " only: others become "_".

    Example:
        >>> scalars({"epoch": 3, "train": {"loss": 0.5}, "valid": {"map": {"image->text": 0.25}, "average": 0.25}})
        {'train/loss': 0.5, 'valid/map/image-to-text': 0.25, 'valid/average': 0.25}
    """
    return dict(_flat("", {name: value for name, value in line.items() if name != "epoch"}))


def final_scalars(result: Mapping[str, Any]) -> dict[str, float]:
    """The scores of `result.json` at the best and the last epoch, with those epochs."""
    return dict(_flat("", {split: result[split] for split in ("test", "valid")}))


def facts(run: RunStart) -> dict[str, Any]:
    """Settings and facts of a run: every field of `config.json`, and facts of the data and the noise."""
    data = {name: run.data[name] for name in ("name", "modalities", "instances", "sha256")}
    data["classes"] = len(run.data["class_names"])
    return run.config.to_json() | {"data": data, "wrong_share": dict(run.noise["wrong_share"])}


def as_text(value: Any, most: int = 500) -> str:
    """A setting as text, at most as long as trackers take."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _flat(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        path = prefix + re.sub(r"[^\w\-. ]", "_", name.replace("->", "-to-"))
        if isinstance(value, Mapping):
            yield from _flat(f"{path}/", value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield path, float(value)
