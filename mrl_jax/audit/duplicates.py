"""Pairs of instances with almost equal features, within the training split and across splits.

Shape letters: N instances of all splits, D features, R projections.
"""

from collections import defaultdict
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from mrl_jax.data.dataset import SPLITS, Dataset
from mrl_jax.search.exact import top_k

__all__ = ["duplicates"]

LEAST = 0.98  # cosine of centred features from which two samples are near-duplicates
_PROJECTIONS = 64  # random projections (Johnson-Lindenstrauss), in which candidates are sought
_SLACK = 0.05  # by which the cosine of projections may fall short
_CANDIDATES = 4  # per sample
_MOST = 50_000  # training samples up to which pairs within the training split are sought
_BLOCK = 8192


def duplicates(data: Dataset, least: float = LEAST) -> list[dict[str, Any]]:
    """Find pairs that are near-duplicates in a modality, most similar first.

    Pairs are sought between the splits, and within the training split if it has 50,000 instances at most: among the
    four nearest samples of each by random projections, so that of many equal samples some pairs are left out.

    Args:
        data: the data set.
        least: cosine of centred features from which two samples are near-duplicates.

    Returns:
        Mappings with "a" and "b", each {"split", "row", "id", "label" (of the first modality that is near)},
        "modalities" (those in which they are near), "similarity" (the lowest cosine of these), "exact" (whether all
        features of these are equal) and "same_label".
    """
    found: dict[tuple[tuple[str, int], tuple[str, int]], dict[str, float]] = defaultdict(dict)
    exact: dict[tuple[tuple[str, int], tuple[str, int]], bool] = {}
    for m in data.modalities:
        for pair, (similarity, equal) in _of_modality(data, m, least).items():
            found[pair][m] = similarity
            exact[pair] = exact.get(pair, True) and equal
    lines = []
    for (a, b), near in found.items():
        first = next(iter(near))
        ends = [_named(data, split, row, first) for split, row in (a, b)]
        lines.append(
            {
                "a": ends[0],
                "b": ends[1],
                "modalities": list(near),
                "similarity": min(near.values()),
                "exact": exact[a, b],
                "same_label": ends[0]["label"] == ends[1]["label"],
            }
        )
    return sorted(lines, key=lambda line: (-len(line["modalities"]), -line["similarity"]))


def _named(data: Dataset, name: str, row: int, modality: str) -> dict[str, Any]:
    split = data.splits[name]
    return {
        "split": name,
        "row": row,
        "id": None if split.ids is None else str(split.ids[row]),
        "label": data.class_names[split.labels[modality][row]],
    }


def _of_modality(data: Dataset, m: str, least: float) -> Mapping[Any, tuple[float, bool]]:
    """Pairs of (split, row) -> cosine, and whether the features are equal."""
    rows = {name: np.flatnonzero(data.splits[name].present(m)) for name in SPLITS}
    features = {name: data.splits[name].features[m] for name in SPLITS}
    width = features["train"].shape[1]
    mean = _mean(features["train"], rows["train"])
    projection = np.random.default_rng(0).standard_normal((width, min(_PROJECTIONS, width))).astype(np.float32)
    low = {name: _projected(features[name], rows[name], mean, projection) for name in SPLITS}
    found: dict[Any, tuple[float, bool]] = {}
    for i, a in enumerate(SPLITS):
        for b in SPLITS[: i + 1]:
            if not len(low[a]) or not len(low[b]) or (a == b and (a != "train" or len(low[a]) > _MOST)):
                continue
            count = min(_CANDIDATES + (a == b), len(low[b]))
            scores, best = top_k(low[a], low[b], count)
            for q, place in zip(*np.nonzero(scores >= least - _SLACK), strict=True):
                g = int(best[q, place])
                if a == b and g <= q:  # each pair once
                    continue
                ends = (b, int(rows[b][g])), (a, int(rows[a][q]))
                x, y = (np.asarray(features[name][row], np.float32) for name, row in ends)
                cosine = _cosine(x - mean, y - mean)
                if cosine >= least:
                    found[ends] = cosine, bool((x == y).all())
    return found


def _cosine(x: np.ndarray, y: np.ndarray) -> float:
    lengths = float(np.linalg.norm(x) * np.linalg.norm(y))
    return min(float(x @ y) / lengths, 1.0) if lengths else 0.0


def _mean(x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    total = np.zeros(x.shape[1])
    for block in _blocks(rows):
        total += np.asarray(x[block], np.float64).sum(axis=0)
    return (total / max(len(rows), 1)).astype(np.float32)


def _projected(x: np.ndarray, rows: np.ndarray, mean: np.ndarray, projection: np.ndarray) -> np.ndarray:
    parts = [(np.asarray(x[block], np.float32) - mean) @ projection for block in _blocks(rows)]
    return np.concatenate(parts) if parts else np.zeros((0, projection.shape[1]), np.float32)


def _blocks(rows: np.ndarray) -> list[np.ndarray]:
    """The rows in blocks, so that memory maps are read piece by piece."""
    starts = [*range(0, len(rows), _BLOCK), len(rows)]
    return [rows[a:b] for a, b in pairwise(starts)]
