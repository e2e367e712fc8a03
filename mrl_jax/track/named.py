"""Trackers by the names that the command line has for them."""

import argparse
import importlib
from collections.abc import Mapping
from typing import Any

from mrl_jax.errors import InputError

__all__ = ["TRACKERS", "add_track_flag", "tracker"]

TRACKERS: Mapping[str, tuple[str, str]] = {
    "tensorboard": ("mrl_jax.track.tensorboard", "TensorBoard"),
    "wandb": ("mrl_jax.track.wandb", "WandB"),
    "mlflow": ("mrl_jax.track.mlflow", "MLflow"),
}
"""Name -> module and class."""


def tracker(name: str) -> Any:
    """A tracker with its default settings.

    Args:
        name: a key of `TRACKERS`.

    Raises:
        InputError: an unknown name, or its library is not installed.
    """
    if name not in TRACKERS:
        raise InputError(f"--track {name}: choose from {', '.join(TRACKERS)}")
    module, kind = TRACKERS[name]
    return getattr(importlib.import_module(module), kind)()


def add_track_flag(parser: argparse.ArgumentParser) -> None:
    """Add `--track`, a list of names."""
    parser.add_argument(
        "--track",
        nargs="+",
        default=[],
        metavar="{" + ",".join(TRACKERS) + "}",
        help="send what is logged to trackers as well; their own settings and environment variables hold; a run that "
        "resumes needs the flag again",
    )
