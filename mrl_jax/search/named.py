"""Texts and pictures that users give for the instances of their data: what is named by an id, and what is not."""

import os
from collections.abc import Mapping, Set
from pathlib import Path

from mrl_jax.data.dataset import Dataset
from mrl_jax.errors import InputError

__all__ = ["Texts", "check_ids", "texts_of"]

Texts = Mapping[str, str] | str | os.PathLike[str] | None
"""Id -> text, or a CSV with the columns `id` and `text`, such as `featurize` takes."""


def texts_of(given: Texts) -> Mapping[str, str]:
    """Id -> text; empty where nothing is given.

    Raises:
        InputError: the file or one of its lines breaks a rule.
    """
    if given is None or isinstance(given, Mapping):
        return given or {}
    from mrl_jax.data.featurize.raw_table import read_texts  # deferred: Pillow

    return read_texts(Path(given).expanduser())


def check_ids(data: Dataset, names: Set[str], what: str) -> None:
    """Refuse texts or pictures of which none belongs to the data.

    Args:
        data: the data; instances without an id of their own are called by split and row, such as `test:7`.
        names: ids that have a text, or names of pictures without their suffix.
        what: for the message, such as "pictures FOLDER".

    Raises:
        InputError: no instance is among the names.
    """
    known = [
        f"{name}:{row}" if split.ids is None else str(split.ids[row])
        for name, split in data.splits.items()
        for row in range(len(split))
    ]
    if names.isdisjoint(known):
        raise InputError(f"{what}: none belongs to the data, whose ids are such as {known[0]!r}; name them by these")
