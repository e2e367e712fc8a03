r"""Votes of all other instances on the class of an instance: kernel ridge regression, leave-one-out in closed form.

The kernel is the mean over modalities of Gaussian kernels of their features. It reads no labels, so that votes cannot
memorise them, and the own label of an instance has no part in its votes. For many instances the kernel is approximated
by landmarks (Nyström), so that no N x N matrix is formed.

Shape letters: M modalities, N instances, D features, R landmarks, K classes.

References: Saunders et al., Ridge Regression Learning Algorithm in Dual Variables, ICML 1998; Williams and Seeger,
Using the Nyström Method to Speed Up Kernel Machines, NIPS 2000; Allen, The Relationship between Variable Selection and
Data Augmentation and a Method for Prediction, Technometrics 1974 (leave-one-out).
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mrl_jax.errors import InputError
from mrl_jax.tensors import from_tensor

__all__ = ["VoteKernel", "loo_scores", "vote_kernel"]

LANDMARKS = 2048  # upper bound of R; up to so many instances the kernel is exact
_BLOCK = 4096  # rows read at once
_JITTER = 1e-6  # least addition to the diagonal of the kernel of the landmarks, whose values are 1 at most
_WIDTH = 0.5  # of a kernel, of the median squared distance; many classes need narrow kernels
_LEAST_WIDTH = 1e-5  # of a kernel; squared distances of equal unit vectors in float32 lie below
_CHOOSE_ROWS = 4096  # rows on which the penalty is chosen
_NOT_FINITE = (
    "features are not finite, or their squares are not in float32; remove or impute NaN and inf, scale large values, "
    "or mask these samples"
)
_PENALTIES = np.geomspace(1e-3, 1e3, 19)  # relative to the mean eigenvalue
_LEAST_EIGENVALUE = 1e-6  # of a kernel whose values are 1 at most; below, features tell nothing of the instances


class VoteKernel(NamedTuple):
    """The kernel of N instances in its principal axes.

    Attributes:
        basis: centred features of the kernel, float32 [N, R]; their products are the centred kernel.
        spectrum: squared lengths of the columns of `basis`, float32 [R].
    """

    basis: Array
    spectrum: Array


def vote_kernel(
    features: Sequence[Any], mask: np.ndarray | None = None, *, landmarks: int = LANDMARKS, block: int = _BLOCK
) -> VoteKernel:
    r"""Compute the kernel of the instances, $\tfrac{1}{M} \sum_i \exp(-\lVert u_j^i - u_l^i \rVert^2 / s_i)$.

    u are centred features of unit length, and s_i is half the median squared distance of two landmarks, or 1
    if most of them are equal. A modality in which one of two instances is missing adds 0.

    Args:
        features: one [N, D] per modality: arrays, tensors, DataFrames, memory maps, or objects with `len` and
            `[rows]`, which are read in blocks.
        mask: bool [M, N], False where a sample is missing; None where none is.
        landmarks: upper bound of R. They are drawn with a fixed seed, so that equal features give equal votes.
        block: rows read at once.

    Raises:
        InputError: no modality, numbers of rows that differ, a mask of another shape, features that are no real
            numbers [N, D] or not finite, or no landmark.
    """
    if landmarks < 1 or block < 1:
        raise InputError(f"landmarks={landmarks}, block={block}; both must be 1 or more")
    features = [_readable(x) for x in features]
    sizes = [len(x) for x in features]
    if not sizes or len(set(sizes)) > 1 or not sizes[0]:
        raise InputError(f"features have {sizes} rows; give one modality or more, each with the same rows [N, D]")
    if mask is not None and np.shape(mask) != (len(sizes), sizes[0]):
        raise InputError(f"mask has the shape {list(np.shape(mask))}; it must be [{len(sizes)}, {sizes[0]}]")
    count = sizes[0]
    drawn = np.random.default_rng(0).choice(count, landmarks, replace=False) if count > landmarks else np.arange(count)
    rows = np.sort(drawn)
    present = np.ones((len(features), count), bool) if mask is None else np.asarray(mask, bool)
    marks = [_landmarks(x[rows], there[rows]) for x, there in zip(features, present, strict=True)]
    own = np.zeros((len(rows), len(rows)))
    for mark in marks:
        own += np.asarray(_gaussian(mark.u, mark, mark.present), np.float64) / len(marks)
    if not np.isfinite(own).all():
        raise InputError(_NOT_FINITE)
    lower = np.linalg.inv(_factor(own)).T.astype(np.float32)  # kernel @ lower: features of the kernel
    parts = []
    for start in range(0, count, block):
        at = slice(start, min(start + block, count))
        kernel = sum(
            _kernel_rows(_float32(x[at]), mark, jnp.asarray(there[at]))
            for x, mark, there in zip(features, marks, present, strict=True)
        ) / len(marks)
        parts.append(jnp.dot(kernel, lower, precision="highest"))
    phi = jnp.concatenate(parts)
    del parts
    if not bool(jnp.isfinite(phi).all()):
        raise InputError(_NOT_FINITE)
    return _principal(phi)


def _readable(x: Any) -> Any:
    """Features that are read as `x[rows]`: tensors, sparse matrices, lists and DataFrames become arrays."""
    x = from_tensor(x)
    return np.asarray(x) if isinstance(x, list | tuple) or hasattr(x, "to_numpy") else x


def _float32(x: Any) -> Array:
    with np.errstate(over="ignore"):  # inf is named later
        return jnp.asarray(x, jnp.float32)


class _Landmarks(NamedTuple):
    """The landmarks of a modality: their unit features u [R, D], presence [R], their mean [1, D], and the width s."""

    u: Array
    present: Array
    mean: Array
    width: Array


def _landmarks(x: Any, present: np.ndarray) -> _Landmarks:
    if np.ndim(x) != 2 or not any(jnp.issubdtype(x.dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_)):
        raise InputError(f"features are {x.dtype} {list(np.shape(x))}; each modality must be real numbers [N, D]")
    x = _float32(x)
    there = jnp.asarray(present)
    mean = jnp.where(there[:, None], x, 0.0).sum(axis=0, keepdims=True) / jnp.maximum(there.sum(), 1)
    u = _unit(x - mean)
    distances = np.asarray(_squared_distances(u, u))[np.ix_(present, present)]
    above = distances[np.triu_indices_from(distances, 1)]
    width = _WIDTH * float(np.median(above)) if len(above) else 1.0
    return _Landmarks(u, there, mean, jnp.float32(width if width > _LEAST_WIDTH else 1.0))


def _factor(kernel: np.ndarray) -> np.ndarray:
    """The lower Cholesky factor of the kernel of the landmarks, with as little added to its diagonal as it takes.

    Features of few dimensions give a kernel of low rank, whose rounding in float32 can exceed the least addition.
    """
    jitter = _JITTER
    while True:
        try:
            return np.linalg.cholesky(kernel + jitter * np.eye(len(kernel)))
        except np.linalg.LinAlgError:
            jitter *= 10.0


def _unit(x: Array) -> Array:
    """Rows of unit length; zero rows stay, and those whose squares overflow are NaN."""
    length = jnp.linalg.norm(x, axis=-1, keepdims=True)
    return x / jnp.where(jnp.isinf(length), jnp.nan, jnp.maximum(length, 1e-12))


def _squared_distances(u: Array, v: Array) -> Array:
    squares = (u * u).sum(axis=-1)[:, None] + (v * v).sum(axis=-1)[None]
    return jnp.maximum(squares - 2.0 * jnp.dot(u, v.T, precision="highest"), 0.0)


@jax.jit
def _gaussian(u: Array, marks: _Landmarks, present: Array) -> Array:
    kernel = jnp.exp(-_squared_distances(u, marks.u) / marks.width)
    return jnp.where(present[:, None] & marks.present[None], kernel, 0.0)


@jax.jit
def _kernel_rows(x: Array, marks: _Landmarks, present: Array) -> Array:
    return _gaussian(_unit(x - marks.mean), marks, present)


@jax.jit
def _principal(phi: Array) -> VoteKernel:
    centred = phi - phi.mean(axis=0, keepdims=True)
    spectrum, axes = jnp.linalg.eigh(jnp.dot(centred.T, centred, precision="highest"))
    return VoteKernel(jnp.dot(centred, axes, precision="highest"), jnp.maximum(spectrum, 0.0))


@partial(jax.jit, static_argnames="rows")
def loo_scores(kernel: VoteKernel, targets: Array, rows: int = _CHOOSE_ROWS) -> Array:
    r"""Predict the target of every instance from all others by ridge regression with an intercept.

    With the hat matrix H, the prediction without instance j is $y_j - (y_j - \hat{y}_j) / (1 - H_{jj})$. The penalty is
    the one with the smallest leave-one-out squared error.

    Args:
        kernel: from `vote_kernel`.
        targets: [N, K], such as one-hot labels or class posteriors.
        rows: upper bound of the instances on which the penalty is chosen, evenly spread over all.

    Returns:
        Scores [N, K]; their rows sum to the sums of the targets, and single scores may lie outside of [0, 1].
    """
    count = len(targets)
    mean = targets.mean(axis=0, keepdims=True)
    centred = targets - mean
    weights = jnp.dot(kernel.basis.T, centred, precision="highest")
    scale = jnp.maximum(kernel.spectrum.sum() / count, _LEAST_EIGENVALUE)

    def scores(basis: Array, y: Array, penalty: Array) -> Array:
        shrunk = 1.0 / (kernel.spectrum + penalty)
        predicted = jnp.dot(basis, shrunk[:, None] * weights, precision="highest")
        hat = jnp.dot(basis * basis, shrunk, precision="highest") + 1.0 / count
        return y - (y - predicted) / jnp.maximum(1.0 - hat, 1e-6)[:, None]

    at = jnp.linspace(0, count - 1, min(rows, count)).round().astype(jnp.int32)
    chosen, y = kernel.basis[at], centred[at]
    penalties = jnp.asarray(_PENALTIES, jnp.float32) * scale
    errors = jax.lax.map(lambda penalty: ((scores(chosen, y, penalty) - y) ** 2).mean(), penalties)
    return scores(kernel.basis, centred, penalties[errors.argmin()]) + mean
