"""The training split as linear methods read it: centred views, their principal components, scatters, class means.

Everything is float64 on the host. Features are read in blocks, so that they may lie on disk; what is kept has the size
of the features' number squared.

Shape letters: M modalities, N training instances, D features, R principal components, K classes.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse

from mrl_jax.errors import InputError
from mrl_jax.methods.state import Shapes, TrainData

__all__ = ["Views", "principal_views"]

_BLOCK = 4096  # rows read at once


class _Scatters(NamedTuple):
    """Sums over the training split, before principal components are chosen.

    Attributes:
        offsets: mean of each view, [D].
        scatters: scatters[i][j] is the sum of x_i x_j^T of the centred views, [D_i, D_j], for i <= j.
    """

    offsets: list[np.ndarray]
    scatters: list[list[np.ndarray]]


class Views:
    """Views in their principal components.

    Args:
        data: the training split; rows stand at their instances.
        shapes: its sizes.
        rows: bool [M, N], the samples that count.
        sums: their sums.
        energy: share of the variance that the principal components keep; None for the features themselves, R = D.

    Attributes:
        rows: bool [M, N], the samples that count.
        count: number of samples of each view.
        offsets: mean of each view, [D].
        bases: principal directions of each view, orthonormal columns [D, R].
    """

    def __init__(
        self, data: TrainData, shapes: Shapes, rows: np.ndarray, sums: _Scatters, energy: float | None
    ) -> None:
        self._data, self._shapes, self._sums = data, shapes, sums
        self.rows, self.count = rows, rows.sum(axis=1)
        self.offsets = sums.offsets
        self.bases = [
            scipy.sparse.eye_array(len(of[0])) if energy is None else _principal(of[0], energy) for of in sums.scatters
        ]

    def scatter(self, i: int, j: int) -> np.ndarray:
        """Sum of x_i x_j^T over the samples, in principal components: [R_i, R_j]; i and j differ only if paired."""
        if i > j:
            return self.scatter(j, i).T
        return self.bases[i].T @ self._sums.scatters[i][j - i] @ self.bases[j]

    def class_sums(self) -> tuple[np.ndarray, list[np.ndarray]]:
        """Number of samples of every given class [M, K], and their sums in principal components, [K, R] per view."""
        labels, classes = np.asarray(self._data.labels), self._shapes.classes
        counts = np.stack([np.bincount(y[on], minlength=classes) for y, on in zip(labels, self.rows, strict=True)])
        sums = [np.zeros((classes, base.shape[1])) for base in self.bases]
        for block, views in self.blocks():
            for i, x in enumerate(views):
                on = self.rows[i, block]
                np.add.at(sums[i], labels[i, block][on], x[on])
        return counts, sums

    def blocks(self) -> Iterator[tuple[slice, list[np.ndarray]]]:
        """Rows of all views in principal components, [B, R] each, block by block; those that do not count are 0."""
        for block in _blocks(self.rows.shape[1]):
            yield (
                block,
                [
                    _centred(x, block, offset, on) @ base
                    for x, offset, on, base in zip(
                        self._data.features, self.offsets, self.rows, self.bases, strict=True
                    )
                ],
            )

    def split(self, directions: np.ndarray) -> list[np.ndarray]:
        """Rows of all views, stacked, as kernels of the features: one [D, L] per view."""
        ends = np.cumsum([base.shape[1] for base in self.bases])[:-1]
        return [base @ part for base, part in zip(self.bases, np.split(directions, ends), strict=True)]


def principal_views(
    data: TrainData, shapes: Shapes, shared: dict[str, Any], *, energy: float | None, paired: bool, cross: bool = True
) -> Views:
    """The views of a training split.

    Args:
        data: the split, of `Method.fit`.
        shapes: its sizes.
        shared: where what the features alone decide is kept for other runs, of `Method.fit`.
        energy: share of the variance of each view that its principal components keep, in (0, 1]; None for the features.
        paired: whether only instances count of which no sample is missing.
        cross: whether scatters between views are needed, which `paired` allows.

    Raises:
        InputError: the samples of a view that count are all the same, or there are none.
    """
    count = data.labels.shape[1]
    present = np.ones((len(shapes.dims), count), bool) if data.mask is None else np.asarray(data.mask, bool)
    rows = np.broadcast_to(present.all(axis=0), present.shape) if paired else present
    key = f"linear scatters {paired or data.mask is None} {cross}"
    sums = None if data.partners is not None else shared.get(key)
    if sums is None:
        sums = _sums(data, rows, cross)
        if data.partners is None:
            shared[key] = sums
    for i, of in enumerate(sums.scatters):
        if not np.trace(of[0]) > 0:
            what = "instances without a missing sample" if paired else "its samples"
            raise InputError(
                f"modality {i + 1} of {len(rows)}: features do not vary over {what}, which are {rows[i].sum()}; "
                "a linear method has no direction to find: leave the modality out, or choose another method"
            )
    return Views(data, shapes, rows, sums, energy)


def _sums(data: TrainData, rows: np.ndarray, cross: bool) -> _Scatters:
    views, blocks = len(data.features), list(_blocks(rows.shape[1]))
    offsets = []
    for x, on in zip(data.features, rows, strict=True):
        total = sum(np.asarray(x[block], np.float64)[on[block]].sum(axis=0) for block in blocks)
        offsets.append(np.asarray(total) / max(on.sum(), 1))
    ends = [views if cross else i + 1 for i in range(views)]
    dims = [len(offset) for offset in offsets]
    scatters = [[np.zeros((dims[i], dims[j])) for j in range(i, ends[i])] for i in range(views)]
    for block in blocks:
        centred = [_centred(x, block, o, on) for x, o, on in zip(data.features, offsets, rows, strict=True)]
        for i in range(views):
            for j in range(i, ends[i]):
                scatters[i][j - i] += centred[i].T @ centred[j]
    return _Scatters(offsets, scatters)


def _centred(x: Any, block: slice, offset: np.ndarray, on: np.ndarray) -> np.ndarray:
    """Centred rows of a block; 0 where a sample does not count, whatever stands there."""
    return np.where(on[block, None], np.asarray(x[block], np.float64) - offset, 0.0)


def _blocks(count: int) -> Iterator[slice]:
    return (slice(start, min(start + _BLOCK, count)) for start in range(0, count, _BLOCK))


def _principal(scatter: np.ndarray, energy: float) -> np.ndarray:
    """Principal directions [D, R] that keep a share of the variance; those without variance are left out."""
    values, vectors = scipy.linalg.eigh(scatter)
    values, vectors = values[::-1], vectors[:, ::-1]
    there = int((values > len(values) * np.finfo(np.float64).eps * max(values[0], 0.0)).sum())
    shares = np.cumsum(values[:there]) / values[:there].sum() if there else np.zeros(0)
    kept = min(int((shares < energy * (1 - 1e-12)).sum()) + 1, there)
    return vectors[:, : max(kept, 1)]
