"""Embeddings out of a file, for evaluation apart from any run; docs/evaluation.md describes the layout."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mrl_jax.data.dataset import SPLITS
from mrl_jax.data.formats import open_arrays
from mrl_jax.errors import InputError, listed
from mrl_jax.eval.embedded import Embedded, check_embedded

__all__ = ["LAYOUT", "read_embeddings"]

LAYOUT = "MODALITY [N, L], labels or MODALITY_labels, optionally ids or MODALITY_ids, and class_names"


def read_embeddings(path: str | os.PathLike[str], modalities: Sequence[str] = ()) -> Embedded:
    """Read and check a file of embeddings.

    Args:
        path: an `.npz`, a folder of `.npy`, an HDF5 or a MATLAB file.
        modalities: which to use, in this order; empty for all two-dimensional arrays that are nothing else.

    Raises:
        InputError: no such file, a damaged one, or one that breaks the layout; file, key, rule and remedy are named.
    """
    path = Path(path).expanduser()
    if (path / "config.json").is_file():
        raise InputError(f"{str(path)!r} is the folder of a run, not embeddings; score it with --workdir")
    with open_arrays(path) as arrays:
        source = str(path)
        found = _modalities(arrays, modalities, source)
        z = {m: arrays[m] for m in found}
        labels, ids = (_belonging(arrays, found, what, source) for what in ("labels", "ids"))
        names = arrays.get("class_names", ())
        return check_embedded(z, labels, ids, names, source)


def _modalities(arrays: Mapping[str, np.ndarray], wanted: Sequence[str], source: str) -> list[str]:
    keys = list(arrays)
    if len(set(wanted)) != len(wanted):
        raise InputError(f"{source}: modalities {' '.join(wanted)} repeat one; name each once")
    if any(k.startswith(tuple(f"{s}_" for s in SPLITS)) for k in keys) and not wanted:
        raise InputError(
            f"{source} holds data in splits, not embeddings; python -m mrl_jax.train --data-path learns from it. The "
            f"layout of embeddings is {LAYOUT}"
        )
    found = [k for k in keys if k not in ("labels", "ids", "class_names") and not k.endswith(("_labels", "_ids"))]
    if missing := [m for m in wanted if m not in found]:
        raise InputError(f"{source}: no modality {missing[0]!r}; found: {listed(found)}")
    if not found:
        raise InputError(f"{source}: no modality; the layout is {LAYOUT}; keys found: {listed(keys)}")
    if wanted:
        return list(wanted)
    for key in keys:
        owner = key.removesuffix("_labels").removesuffix("_ids")
        if owner != key and owner not in found:
            raise InputError(f"{source}: {key} belongs to no modality; modalities found: {listed(found)}")
    return found


def _belonging(arrays: Mapping[str, np.ndarray], modalities: Sequence[str], what: str, source: str) -> Any:
    """Labels or ids: shared, or modality -> its own, else the shared ones; None where there are none."""
    own = [m for m in modalities if f"{m}_{what}" in arrays]
    if not own:
        return arrays.get(what)
    if len(own) < len(modalities) and what not in arrays:
        missing = next(m for m in modalities if m not in own)
        raise InputError(f"{source}: {missing}_{what} is missing; give {what} to every modality, or to none")
    return {m: arrays[f"{m}_{what}" if m in own else what] for m in modalities}
