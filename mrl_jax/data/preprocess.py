"""Preprocessing of features, fitted on the training split and stored with the checkpoint."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mrl_jax.errors import InputError

__all__ = ["apply_preprocess", "fit_preprocess", "kinds_for"]


def kinds_for(modalities: Sequence[str], kinds: Sequence[str]) -> dict[str, str]:
    """Kind of preprocessing by modality: one kind for all modalities, or one for each.

    Raises:
        InputError: the number of kinds is neither 1 nor the number of modalities.
    """
    if len(kinds) not in (1, len(modalities)):
        raise InputError(
            f"preprocess has {len(kinds)} values for {len(modalities)} modalities ({', '.join(modalities)}); "
            "give one for all, or one for each"
        )
    kinds = tuple(kinds) * (len(modalities) if len(kinds) == 1 else 1)
    return dict(zip(modalities, kinds, strict=True))


def fit_preprocess(
    kinds: Mapping[str, str], features: Mapping[str, np.ndarray], masks: Mapping[str, np.ndarray] | None = None
) -> dict[str, dict[str, np.ndarray]]:
    """Statistics of the training split: `mean` [D] and one overall `scale` per modality (0 and 1 unless standardizing).

    Args:
        kinds: modality -> "none", "standardize" or "l2".
        features: modality -> training features [N, D].
        masks: modality -> bool [N], False where a sample is missing; such rows are ignored.
    """
    stats: dict[str, dict[str, np.ndarray]] = {}
    for modality, kind in kinds.items():
        x = features[modality]
        if masks and modality in masks:
            x = x[masks[modality]]
        mean, scale = np.zeros(x.shape[1], np.float64), 1.0
        if kind == "standardize":
            mean = x.mean(axis=0, dtype=np.float64)
            # Two passes are more accurate than a mean of squares; blocks keep the float64 copies small.
            blocks = (x[i : i + 4096] for i in range(0, len(x), 4096))
            scale = float(np.sqrt(sum(np.square(block - mean).sum() for block in blocks) / x.size))
        stats[modality] = {
            "mean": mean.astype(np.float32),
            "scale": np.asarray(scale if scale > 0 else 1.0, np.float32),
        }
    return stats


def apply_preprocess(kind: str, stats: Mapping[str, Any], x: np.ndarray) -> np.ndarray:
    """Preprocess features [N, D] of one modality: float32 [N, D].

    "standardize" centres each column and divides all by one overall standard deviation, so that columns keep their
    relative spread; "l2" scales each row to unit length (a zero row stays zero); "none" changes nothing.
    """
    if kind == "standardize":
        x = x - stats["mean"]
        x /= stats["scale"]
    elif kind == "l2":
        norm = np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
        x = x / np.where(norm > 0, norm, 1.0)
    return np.ascontiguousarray(x, np.float32)
