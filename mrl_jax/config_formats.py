"""Formats of `config.json` and `sweep.json`: what files of older versions mean. Imports nothing but the errors.

A new field, a new default or a new meaning of a value makes a new format: raise `FORMAT`, and add its defaults as
`DEFAULTS[FORMAT] = DEFAULTS[FORMAT - 1] | {what changed}`. Older tables stay; a test has their digests. `_TO_NEXT`
needs a conversion only if a value changed its meaning, or if the default of a new field is not what the older version
did.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mrl_jax.errors import InputError

__all__ = ["ADDED_OPTIONS", "DEFAULTS", "FORMAT", "current_values", "format_of"]

FORMAT = 4
"""The format that this version writes."""

DEFAULTS: dict[int, dict[str, Any]] = {
    1: {
        "preset": "custom",
        "data_path": None,
        "modalities": [],
        "preprocess": ["standardize"],
        "noise_rate": 0.0,
        "noise_kind": "symmetric",
        "noise_scope": "modality",
        "noise_protocol": None,
        "noise_matrix": None,
        "noise_file": None,
        "noisy_validation": False,
        "method": "mrl",
        "method_options": [],
        "loss": "rc",
        "loss_options": [],
        "assumed_noise": None,
        "beta": 0.9,
        "tau1": None,
        "tau2": None,
        "self_similarity": False,
        "contrastive_scale": "equation",
        "epochs": 30,
        "batch_size": 100,
        "learning_rate": 1e-4,
        "schedule": "cosine",
        "weight_decay": 0.0,
        "clip_norm": None,
        "hidden_dims": [1024, 1024],
        "embed_dim": 512,
        "initializer": "uniform",
        "stream": "auto",
        "precision": "float32",
        "seed": 0,
    },
}
"""Format -> default of every field that the format has, as JSON. Frozen once released.

Format 1 has no format number. Its `method` and `method_options` are what it did before these fields existed.
"""
# One value has another meaning, too: `_from_1`.
DEFAULTS[2] = DEFAULTS[1] | {
    "keys": [],
    "split": None,
    "split_seed": 0,
    "valid_share": None,
    "init_from": None,
    "representation": None,
}
DEFAULTS[3] = DEFAULTS[2] | {"epochs": None}
DEFAULTS[4] = DEFAULTS[3]  # new numbers of the method consensus: `_from_3`


def format_of(values: Mapping[str, Any], source: str | Path) -> int:
    """The format of a file's content; 1 where it has no number.

    Raises:
        InputError: a later format than `FORMAT`, or no format at all.
    """
    number = values.get("format", 1)
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise InputError(f"{source}: format {number!r} must be a whole number from 1 to {FORMAT}; restore the file")
    if number > FORMAT:
        raise InputError(
            f"{source} was written by a newer version (format {number}; this version reads up to {FORMAT}); "
            "update mrl_jax"
        )
    return number


def current_values(values: Mapping[str, Any], source: str | Path) -> dict[str, Any]:
    """Fields of `Config` as this version means them, from those of any format.

    Args:
        values: the content of the file, with its format number if it has one. Missing fields take the default of that
            format.
        source: the file, for messages.

    Raises:
        InputError: a later format, or a field that this version does not know.
    """
    number = format_of(values, source)
    given = {name: value for name, value in values.items() if name != "format"}
    if unknown := sorted(set(given) - set(DEFAULTS[number])):
        raise InputError(
            f"{source}: field {unknown[0]!r} is unknown to this version; restore the file, or update mrl_jax if a "
            "newer version wrote it"
        )
    fields = DEFAULTS[number] | given
    for older in range(number, FORMAT):
        added = {name: value for name, value in DEFAULTS[older + 1].items() if name not in DEFAULTS[older]}
        fields = added | _TO_NEXT.get(older, dict)(fields)
    return fields


def _from_1(fields: dict[str, Any]) -> dict[str, Any]:
    """In format 1 "cosine-hold" reached the rate 0; since format 2 it is that of the official implementation."""
    return fields | {"schedule": "cosine-hold-v1"} if fields["schedule"] == "cosine-hold" else fields


ADDED_OPTIONS = {"consensus": ("hidden_dropout=0", "mixup=0")}
"""Numbers of methods that format 4 added: what versions before it did."""


def _from_3(fields: dict[str, Any]) -> dict[str, Any]:
    """Up to format 3 there was neither dropout of units nor mixup."""
    method, options = fields["method"], fields["method_options"]
    if not (isinstance(method, str) and isinstance(options, list)):  # refused later
        return fields
    return fields | {"method_options": [*options, *ADDED_OPTIONS.get(method, ())]}


_TO_NEXT: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_1, 3: _from_3}
"""Format -> conversion of all fields to the next format; a format that needs none is absent."""
