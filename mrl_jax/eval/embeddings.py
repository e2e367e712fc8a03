"""Embeddings from a file, for evaluation without a run; docs/evaluation.md describes the layout."""

import contextlib
import os
from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mrl_jax.data.dataset import SPLITS, check_modality_names
from mrl_jax.data.formats import open_arrays
from mrl_jax.data.shards import join_shards, numbered_notes
from mrl_jax.errors import InputError, listed
from mrl_jax.eval.embedded import Embedded, check_embedded

__all__ = ["LAYOUT", "read_embeddings"]

LAYOUT = "MODALITY [N, L], labels or MODALITY_labels, optionally ids or MODALITY_ids, and class_names"
"""Keys of a file of embeddings and the shapes of their arrays, in words, for messages and help."""


def read_embeddings(path: str | os.PathLike[str], modalities: Sequence[str] = ()) -> Embedded:
    """Read and check a file of embeddings.

    Args:
        path: an `.npz`, a folder of `.npy` (or of a folder of them for each modality; numbered files of one name are
            joined), an HDF5 or a MATLAB file.
        modalities: names of the modalities to use, in this order; empty for all arrays that have no other meaning.

    Raises:
        InputError: the file does not exist, is damaged, or breaks the layout.
    """
    path = Path(path).expanduser()
    if (path / "config.json").is_file():
        raise InputError(f"{str(path)!r} is the folder of a run, not of embeddings; score it with --workdir")
    source = str(path)
    with _open(path, source) as found:
        arrays: Mapping[str, np.ndarray] = found
        notes: tuple[str, ...] = ()
        if path.is_dir():
            folders = {file.parent.name for file in path.glob("*/*.npy")}
            arrays, notes = join_shards(found, source, modalities, any_place=True, folders=folders)
        names = _modalities(arrays, modalities, source)
        check_modality_names(names, source)
        notes = notes if modalities else (*notes, *numbered_notes(names))
        z = {m: arrays[m] for m in names}
        labels, ids = (_belonging(arrays, names, what, source) for what in ("labels", "ids"))
        try:
            return check_embedded(z, labels, ids, arrays.get("class_names", ()), source, notes)
        except InputError as error:
            raise InputError("; ".join([str(error), *notes])) from error


@contextlib.contextmanager
def _open(path: Path, source: str) -> Iterator[Mapping[str, np.ndarray]]:
    """Open a file or folder; a folder without arrays may have them in folders, one for each modality."""
    folders = sorted({file.parent for file in path.glob("*/*.npy")}) if path.is_dir() else []
    if not folders or any(path.glob("*.npy")):
        with open_arrays(path) as arrays:
            yield arrays
        return
    with contextlib.ExitStack() as stack:
        parts = [stack.enter_context(open_arrays(folder)) for folder in folders]
        keys = [key for part in parts for key in part]
        if twice := next((key for key in keys if keys.count(key) > 1), None):
            raise InputError(f"{source}: two of its folders hold {twice}.npy; give names that differ, or one folder")
        yield ChainMap(*parts[::-1])  # type: ignore[arg-type]  # its keys are in the order of the last first


def _modalities(arrays: Mapping[str, np.ndarray], wanted: Sequence[str], source: str) -> list[str]:
    keys = list(arrays)
    if len(set(wanted)) != len(wanted):
        raise InputError(f"{source}: modalities {' '.join(wanted)} repeat a name; give each once")
    if any(k.startswith(tuple(f"{s}_" for s in SPLITS)) for k in keys) and not wanted:
        raise InputError(
            f"{source} holds data in splits, not embeddings; train on it with python -m mrl_jax.train --data-path. "
            f"Embeddings need {LAYOUT}"
        )
    present = [k for k in keys if k not in ("labels", "ids", "class_names") and not k.endswith(("_labels", "_ids"))]
    if missing := [m for m in wanted if m not in present]:
        raise InputError(f"{source}: it has no modality {missing[0]!r}; choose from {listed(present)}")
    if not present:
        raise InputError(f"{source}: it has no modality, only the keys {listed(keys)}; give {LAYOUT}")
    if wanted:
        return list(wanted)
    for key in keys:
        owner = key.removesuffix("_labels").removesuffix("_ids")
        if owner != key and owner not in present:
            raise InputError(f"{source}: {key} belongs to no modality; rename it (modalities: {listed(present)})")
    return present


def _belonging(arrays: Mapping[str, np.ndarray], modalities: Sequence[str], what: str, source: str) -> Any:
    """Labels or ids: the shared array, or one per modality, in which the shared array fills gaps; None without any."""
    own = [m for m in modalities if f"{m}_{what}" in arrays]
    if not own:
        return arrays.get(what)
    if len(own) < len(modalities) and what not in arrays:
        missing = next(m for m in modalities if m not in own)
        raise InputError(f"{source}: {missing}_{what} is missing; give {what} to every modality, or to none")
    return {m: arrays[f"{m}_{what}" if m in own else what] for m in modalities}
