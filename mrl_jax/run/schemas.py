"""Schemas of the JSON files of a run and of a sweep, for `json_files`. They hold for the files of every version."""

from mrl_jax.json_files import ANY, Number

__all__ = ["CHECKPOINT", "CONFIG", "DATA", "FAILED", "LENGTHS", "LINE", "NOISE", "RESULT", "SWEEP", "TRACKERS"]

_SHARE = (None, Number(0, 1))
_COUNT = Number(0, whole=True)
_EPOCH = Number(1, 1 << 62, whole=True)
_SCORES = {"map": {str: float}, "average": float, "accuracy?": (None, {str: _SHARE})}
_AT = {"epoch": _EPOCH, **_SCORES}

CONFIG = {str: ANY}
"""`config.json`; `Config` checks the fields."""

DATA = {
    "name": str,
    "modalities": [str],
    "dims": {str: Number(1, 1 << 62, whole=True)},
    "class_names": [str],
    "instances": {"train": _COUNT, "valid": _COUNT, "test": _COUNT},
    "samples": {str: {str: _COUNT}},
    "sha256": str,
    "metadata?": {"columns?": {str: [ANY]}},
    "in_memory?": bool,
    "shown?": [str],
    "init_from_sha256?": str,
}
"""`data.json`."""

NOISE = {
    "kind": str,
    "rate?": _SHARE,
    "scope?": str,
    "matrix?": [[Number(0, 1)]],
    "file?": {"source": str},
    "wrong_share": {str: _SHARE},
    "wrong_share_overall?": _SHARE,
    "wrong_share_by_class?": {str: {str: _SHARE}},
    "mismatched_share?": {str: _SHARE},
    "clean_sha256?": str,
    "labels_sha256?": str,
    "labels?": {str: [int]},
    "partners?": {str: [int]},
}
"""`noise.json`."""

LINE = {"epoch": _EPOCH, "train?": {str: float}, "valid": _SCORES}
"""A line of `metrics.jsonl`."""

LENGTHS = {"epochs": [_EPOCH]}
"""`lengths.json`."""

RESULT = {
    "test": {"best": _AT, "last": _AT},
    "valid": {"best": _AT, "last": _AT},
    "chance": {str: float},
    "chance_of?": str,
    "wrong_share": {str: _SHARE},
    "seconds": Number(0),
    "trained_together?": Number(1, whole=True),
    "stream_waiting_share?": float,
    "kept?": frozenset({"best", "last"}),
    "lengths?": [_EPOCH],
    "stopped?": {"epoch": _EPOCH, "of": _EPOCH, "by": str},
    "device?": str,
    "versions?": {str: str},
}
"""`result.json`."""

CHECKPOINT = {
    "epoch": _COUNT,
    "average": float,
    "seconds": Number(0),
    "log?": str,
    "stopped?": {"of": _EPOCH, "by": str},
    "checksum?": str,
}
"""The numbers that are saved with a checkpoint."""

SWEEP = {"format?": ANY, "common": {str: ANY}, "runs": {str: {str: ANY}}}
"""`sweep.json`."""

FAILED = {"error": str}
"""`failed.json` of a run of a sweep."""

TRACKERS = {str: str}
"""`trackers.json`."""
