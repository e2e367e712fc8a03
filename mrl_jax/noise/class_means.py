"""Noise that depends on features: the class that a label flips to, by distances to the class means.

Shape letters: M modalities, N training instances, K classes, D features of a modality.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mrl_jax.errors import InputError
from mrl_jax.noise.spec import NoiseSource, NoiseSpec
from mrl_jax.tensors import from_tensor

__all__ = ["FEATURE_KINDS", "checked_labels", "checked_mask", "feature_targets"]

FEATURE_KINDS = ("nearest-class", "instance-dependent")
"""Kinds of noise that need the features of the samples."""


def feature_targets(
    spec: NoiseSpec, labels: Any, num_classes: int, features: Any, present: np.ndarray, like: NoiseSource | None = None
) -> tuple[Array, np.ndarray | None]:
    """The classes that labels flip to, for the kinds in `FEATURE_KINDS`.

    Args:
        spec: which noise.
        labels: clean labels, integers [M, N].
        num_classes: K.
        features: M arrays [N, D].
        present: True where a sample is present, bool [M, N].
        like: as in `inject_noise`.

    Returns:
        Target classes int32, per class [M, K] for kind "nearest-class" and per sample [M, N] for kind
        "instance-dependent"; and, for the latter, log-weights float32 [M, N] for the selection of samples.

    Raises:
        InputError: labels or features that are missing, traced, or do not fit.
    """
    per_class = spec.kind == "nearest-class"
    source: list[Any] = [None] * len(present)
    if like is not None:
        mask = checked_mask(like.mask, *checked_labels(like.labels).shape)
        if len(mask) != len(present):
            raise InputError(f"noise: like has {len(mask)} modalities, but the labels have {len(present)}")
        y, x = _concrete(spec, like.labels, like.features, mask, num_classes)
        source = [(x[i][mask[i]], y[i][mask[i]]) for i in range(len(mask))]
    if like is None or not per_class:
        y, x = _concrete(spec, labels, features, present, num_classes)
    else:  # the target of a class does not depend on the samples to be flipped
        present = mask
    m, n = present.shape
    own = np.broadcast_to(np.arange(num_classes), (m, num_classes)) if per_class else y
    distances, margins = np.empty((*own.shape, num_classes)), np.zeros((m, n))
    for i in range(m):  # one modality at a time: float64 copies of features are large
        distances[i], margins[i] = _geometry(x[i], y[i], present[i], num_classes, per_class, source[i])
    if spec.scope == "instance":  # average over the modalities that have a distance
        known = ~np.isnan(distances)
        total = np.where(known, distances, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        distances = np.broadcast_to(np.where(known.any(axis=0), total, np.nan), distances.shape)
        margins = np.broadcast_to(margins.sum(axis=0) / np.maximum(present.sum(axis=0), 1), margins.shape)
    targets = np.stack([_nearest_other(d, o) for d, o in zip(distances, own, strict=True)])
    return jnp.asarray(targets, jnp.int32), None if per_class else -np.abs(margins).astype(np.float32)


def _geometry(
    x: np.ndarray, y: np.ndarray, present: np.ndarray, num_classes: int, per_class: bool, source: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Distances to the class means, and margins, of one modality.

    Args:
        x: features [N, D].
        y: labels [N].
        present: bool [N].
        num_classes: K.
        per_class: compute the distances of the class means instead of the samples.
        source: features and labels of the samples that give the class means and the standardisation of the columns;
            None for the present samples of x and y.

    Returns:
        Distances float64, NaN for classes and samples that do not occur: those of the means [K, K], divided by their
        average off the diagonal; or those of the samples [N, K], divided by the standard deviation of the margins.
        Margins float64 [N], divided likewise; zero with `per_class`.
    """
    z, own = np.array(x[present], np.float64), y[present]
    base, classes = (z, own) if source is None else (np.array(source[0], np.float64), source[1])
    center = base.sum(axis=0) / max(len(base), 1)
    for part in (z,) if base is z else (z, base):
        part -= center
    scale = np.sqrt(np.einsum("nd,nd->d", base, base) / max(len(base), 1))
    scale = np.where(scale > 1e-9 * np.abs(center), scale, 1.0)  # for constant columns: no division by 0
    for part in (z,) if base is z else (z, base):
        part /= scale
    one_hot = classes[:, None] == np.arange(num_classes)
    counts = one_hot.sum(axis=0)
    means = one_hot.T.astype(np.float64) @ base / np.maximum(counts, 1)[:, None]
    rows = np.flatnonzero(counts > 0 if per_class else present)
    points, own = (means[rows], rows) if per_class else (z, own)
    out, margins = np.full((num_classes if per_class else len(present), num_classes), np.nan), np.zeros(len(present))
    if (counts > 0).sum() < 2:
        return out, margins  # one class has no boundary
    distances = np.where(counts > 0, _distances(points, means), np.nan)
    others = np.where(own[:, None] == np.arange(num_classes), np.nan, distances)
    gaps = np.nanmin(others, axis=1) - distances[np.arange(len(rows)), own]
    scale = (np.nanmean(others) if per_class else gaps.std()) or 1.0
    out[rows] = distances / scale
    if not per_class:
        margins[rows] = gaps / scale
    return out, margins


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Euclidean distances [A, B] of the rows of a [A, D] to those of b [B, D]."""
    norms = [np.einsum("rd,rd->r", x, x) for x in (a, b)]
    return np.sqrt(np.maximum(norms[0][:, None] - 2.0 * (a @ b.T) + norms[1], 0.0))


def _nearest_other(distances: np.ndarray, own: np.ndarray) -> np.ndarray:
    """The nearest other class of each row of distances [R, K]; its own class [R] if there is no other."""
    others = np.where(np.isnan(distances) | (own[:, None] == np.arange(distances.shape[1])), np.inf, distances)
    return np.where(np.isfinite(others).any(axis=1), others.argmin(axis=1), own)


def checked_labels(labels: Any) -> Array:
    """Labels as int32 [M, N].

    Raises:
        ValueError: they are not integers [M, N].
    """
    labels = from_tensor(labels)
    if not isinstance(labels, jax.Array) and (kind := np.asarray(labels).dtype.kind) not in "biuf":
        given = "text" if kind in "US" else f"a {type(labels).__name__}"
        raise InputError(f"inject_noise: labels are {given}; they must be integers [modalities, instances]")
    labels = jnp.asarray(labels)
    if labels.ndim != 2 or not labels.shape[0] or not jnp.issubdtype(labels.dtype, jnp.integer):
        given = f"labels are {labels.dtype} {labels.shape}"
        raise ValueError(f"inject_noise: {given}; they must be integers [modalities, instances]")
    return labels.astype(jnp.int32)


def checked_mask(mask: Any, m: int, n: int) -> np.ndarray:
    """The mask as bool [M, N]; True everywhere if it is None.

    Raises:
        InputError: it is traced or not bool [M, N].
    """
    if isinstance(mask, jax.core.Tracer):
        raise InputError("noise: the mask is traced, but the number of samples depends on it; close over a NumPy array")
    mask = np.ones((m, n), bool) if mask is None else np.asarray(from_tensor(mask))
    if mask.dtype != bool or mask.shape != (m, n):
        raise InputError(f"noise: the mask is {mask.dtype} {mask.shape}; it must be bool {(m, n)} like the labels")
    return mask


def _concrete(
    spec: NoiseSpec, labels: Any, features: Any, present: np.ndarray, num_classes: int
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Labels [M, N] and M features [N, D], checked."""
    m, n = present.shape
    if features is None:
        raise InputError(f"noise kind {spec.kind!r} needs the features: features=[one array [N, D] per modality]")
    if len(features) != m:
        raise InputError(f"noise kind {spec.kind!r}: features of {len(features)} modalities, but labels of {m}")
    if any(isinstance(a, jax.core.Tracer) for a in (labels, *features)):
        raise InputError(f"noise kind {spec.kind!r}: labels or features are traced; close over NumPy arrays instead")
    y, arrays = np.asarray(from_tensor(labels)), [np.asarray(from_tensor(x)) for x in features]
    if ((y < 0) | (y >= num_classes))[present].any():
        raise InputError(f"noise kind {spec.kind!r}: labels lie outside 0..{num_classes - 1}; give the K of the labels")
    for i, x in enumerate(arrays):
        if x.ndim != 2 or len(x) != n or x.dtype.kind not in "biuf" or not np.isfinite(x[present[i]]).all():
            raise InputError(f"noise: features {i} are {x.dtype} {x.shape}; they must be finite numbers ({n}, D)")
    return y, arrays
