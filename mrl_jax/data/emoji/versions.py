"""Versions of the embedded data set, and the names of them that `load_dataset` takes. Light: imports no library.

All versions have the same rows and features, and differ in which rows are in which split:

- 1.0.0: near-duplicates are compared as they are and mirrored.
- 2.0.0: they are compared turned by quarters, too, so that an upright and a lying traffic light are in one split.

A run keeps the version with which it began.
"""

import re
from collections.abc import Mapping
from typing import Any, TypeGuard

from mrl_jax.errors import InputError

__all__ = ["VERSIONS", "is_emoji_source", "recorded_source", "version_of"]

VERSIONS = ("1.0.0", "2.0.0")
"""All that can be loaded, the newest last."""


def is_emoji_source(source: Any) -> TypeGuard[str]:
    """Whether a source of `load_dataset` is the embedded set, "emoji" or "emoji:VERSION"."""
    return isinstance(source, str) and source.partition(":")[0] == "emoji"


def version_of(source: str) -> str:
    """The version that such a source names; "emoji" is the newest.

    Raises:
        InputError: there is no such version.

    Example:
        >>> version_of("emoji:1.0.0"), version_of("emoji")
        ('1.0.0', '2.0.0')
    """
    _, colon, version = source.partition(":")
    if not colon:
        return VERSIONS[-1]
    if version not in VERSIONS:
        raise InputError(f"{source}: emoji has the versions {', '.join(VERSIONS)}; give emoji:VERSION, or emoji alone")
    return version


def recorded_source(metadata: Mapping[str, Any]) -> str | None:
    """The source that gives the data with these metadata (`Dataset.metadata`) again; None if they are of another set.

    Example:
        >>> recorded_source({"source": "emoji/1.0.0, made from packages"})
        'emoji:1.0.0'
    """
    found = re.match(r"emoji/(\d+\.\d+\.\d+), made from packages", str(metadata.get("source")))
    return None if found is None else f"emoji:{found[1]}"
