"""Label noise as a pure function of labels, spec and key.

Shape letters: M modalities, N training instances, K classes, C selected samples, D features of a modality.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from mrl_jax.backend import names_backend
from mrl_jax.errors import InputError
from mrl_jax.noise.class_means import FEATURE_KINDS, checked_labels, checked_mask, feature_targets
from mrl_jax.noise.spec import NOISE_KINDS, NOISE_PROTOCOLS, NOISE_SCOPES, NoiseSource, NoiseSpec, NoisyLabels

__all__ = [
    "NOISE_KINDS", "NOISE_PROTOCOLS", "NOISE_SCOPES", "NoiseSource", "NoiseSpec", "NoisyLabels", "inject_noise",
    "transition_matrix",
]  # fmt: skip

_MAP_STREAM = 2**31 - 1  # folded into the key for the class map of all modalities; above the index of any modality


@names_backend
def inject_noise(
    labels: ArrayLike,
    spec: NoiseSpec,
    key: Array,
    num_classes: int,
    *,
    features: Any = None,
    mask: Any = None,
    like: NoiseSource | None = None,
) -> NoisyLabels:
    """Corrupt the labels (or the pairing) of exactly round(rate * N) samples of each modality.

    With kind "pair-mismatch" the samples of the first modality stay in place, and those of the others move.

    The same arguments give the same draw, compiled or not, on every device. The exception is "instance-dependent",
    which ranks samples by float32 scores that may differ between devices. K is an argument, so that classes without
    samples count. With K = 1 no label can be wrong. Runs under `jit` (static `spec` and `num_classes`) and `vmap` over
    keys; class means need labels and features that are not traced.

    Args:
        labels: clean labels 0..K-1, integers [M, N].
        spec: which noise.
        key: a `jax.random.key`.
        num_classes: K.
        features: M arrays [N, D], for kinds "nearest-class" and "instance-dependent"; columns are standardised here.
        mask: True where a sample is present, bool [M, N]. Rates and shares then count present samples only, and missing
            samples keep their label. Scope "instance" selects from the instances present in any modality, and changes
            their present samples. (A sample that pair-mismatch could only swap with itself stays.)
        like: samples whose class maps and class means are used. Noise on validation labels then confuses the same
            classes as the noise on the training labels.

    Raises:
        ValueError: labels that are not integers [M, N].
        InputError: features or a mask that are missing or do not fit, a matrix that is not K x K, or, for
            pair-mismatch, one modality or a single selected sample.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> noisy = inject_noise(jnp.zeros((2, 1000), int), NoiseSpec(0.6), jax.random.key(0), num_classes=10)
        >>> [round(float(share), 2) for share in noisy.wrong_share]  # about 0.6 * 9/10
        [0.54, 0.54]
    """
    clean = checked_labels(labels)
    m, n = clean.shape
    present = checked_mask(mask, m, n)
    shared = spec.scope == "instance"
    pool = np.broadcast_to(present.any(axis=0), present.shape) if shared else present
    _check_plan(spec, num_classes, pool)
    targets, log_weights = _targets(spec, labels, num_classes, features, present, key, like)

    keys = [key] * m if shared else list(jax.random.split(key, m))
    given, selected, partners = list(clean), [], [jnp.arange(n, dtype=jnp.int32)] * m
    for i in range(m):
        key_rows, key_new = jax.random.split(keys[i])
        rows = _select(key_rows, np.flatnonzero(pool[i]), spec.rate, None if log_weights is None else log_weights[i])
        if spec.kind == "pair-mismatch":
            if i > 0:
                partners[i] = _swapped(jax.random.fold_in(key_new, i), rows, present[i])
            selected.append(partners[i] != jnp.arange(n))
            continue
        selected.append(jnp.zeros(n, bool).at[rows].set(True) & present[i])
        new = clean[i].at[rows].set(_redrawn(spec, key_new, clean[i], rows, num_classes, targets, i))
        given[i] = jnp.where(present[i], new, clean[i])
    out = jnp.stack(given)
    wrong = ((out != clean) & present).sum(axis=1)
    # A table of quotients, since compiled division by a constant rounds differently from eager division.
    shares = (np.arange(n + 1) / np.maximum(present.sum(axis=1, keepdims=True), 1)).astype(np.float32)
    wrong_share = jnp.take_along_axis(jnp.asarray(shares), wrong[:, None], axis=1)[:, 0]
    return NoisyLabels(out, clean, wrong_share, jnp.stack(selected), jnp.stack(partners))


def transition_matrix(
    spec: NoiseSpec, num_classes: int, key: Any = None, *, labels: Any = None, features: Any = None, mask: Any = None
) -> np.ndarray:
    """Expected class transition Q of a spec: Q[y, k] is the probability that a sample of class y is labelled k.

    Args:
        spec: which noise; any kind but "instance-dependent".
        num_classes: K.
        key: the key given to `inject_noise`; kind "asymmetric" draws its class map from it.
        labels: as for `inject_noise`; only kind "nearest-class" needs labels and features.
        features: as for `inject_noise`.
        mask: as for `inject_noise`.

    Returns:
        float64 [K, K]; [M, K, K] for kind "nearest-class". Every row sums to 1.

    Raises:
        InputError: kind "instance-dependent", which has no such matrix; no key for "asymmetric"; otherwise as
            `inject_noise`.

    Example:
        >>> transition_matrix(NoiseSpec(0.6), 3).round(2).tolist()
        [[0.6, 0.2, 0.2], [0.2, 0.6, 0.2], [0.2, 0.2, 0.6]]
    """
    k, kind, eye = num_classes, spec.kind, np.eye(num_classes)
    if kind == "instance-dependent":
        raise InputError(
            "noise kind 'instance-dependent' has no transition matrix: a flip depends on the sample; choose another"
        )
    if {"asymmetric": key, "nearest-class": labels}.get(kind, ()) is None:
        wanted = "key" if kind == "asymmetric" else "labels and features"
        raise InputError(f"noise kind {kind!r}: transition_matrix needs the {wanted} given to inject_noise")
    if kind == "matrix":
        _check_plan(spec, k, np.zeros((0, 0), bool))
        change = np.asarray(spec.matrix)
    elif kind == "symmetric":
        change = np.full((k, k), 1.0 / k)
    elif kind == "symmetric-wrong" and k > 1:
        change = (1.0 - eye) / (k - 1)
    elif kind == "cyclic":
        change = np.roll(eye, 1, axis=1)
    elif kind == "asymmetric":
        change = eye[np.asarray(_asymmetric_map(key, k))]
    elif kind == "nearest-class":
        present = checked_mask(mask, *checked_labels(labels).shape)
        change = eye[np.asarray(feature_targets(spec, labels, k, features, present)[0])]
    else:  # pair-mismatch changes no label, and with one class no label is wrong
        change = eye
    return (1.0 - spec.rate) * eye + spec.rate * change


def _select(key: Array, candidates: np.ndarray, rate: float, log_weights: np.ndarray | None) -> Array:
    """Rows [C] of round(rate * candidates) candidates, without replacement, in random order."""
    if log_weights is None:
        order = jax.random.permutation(key, len(candidates))
    else:  # Gumbel top-k: the largest perturbed log-weights are a weighted draw without replacement
        scores = log_weights[candidates] + jax.random.gumbel(key, (len(candidates),), jnp.float32)
        order = jnp.argsort(-scores, stable=True)
    return jnp.asarray(candidates, jnp.int32)[order[: round(rate * len(candidates))]]


def _redrawn(
    spec: NoiseSpec, key: Array, clean: Array, rows: Array, num_classes: int, targets: Array | None, modality: int
) -> Array:
    """Draw new labels [C] for the samples `rows` [C] of one modality with labels `clean` [N]."""
    old = clean[rows]
    if spec.kind == "symmetric":
        return jax.random.randint(key, old.shape, 0, num_classes, jnp.int32)
    if spec.kind == "symmetric-wrong":  # for K = 1 randint returns its lower bound, and the label stays
        return (old + jax.random.randint(key, old.shape, 1, num_classes, jnp.int32)) % num_classes
    if spec.kind == "cyclic":
        return (old + 1) % num_classes
    if spec.kind == "matrix":
        u = jax.random.uniform(key, old.shape, jnp.float32)
        return (jnp.asarray(_inverse_cdf_edges(spec))[old] <= u[:, None]).sum(axis=1, dtype=jnp.int32)
    assert targets is not None
    return targets[modality][rows if spec.kind == "instance-dependent" else old]


def _inverse_cdf_edges(spec: NoiseSpec) -> np.ndarray:
    """Upper edges float32 [K, K] of the intervals of [0, 1) that map a uniform number to class k."""
    p = np.asarray(spec.matrix, np.float64)
    edges = np.cumsum(p / p.sum(axis=1, keepdims=True), axis=1)
    last = p.shape[1] - 1 - np.argmax(p[:, ::-1] > 0, axis=1)
    # The edge of the last possible class lies beyond every number, so that rounding cannot reach a class with p = 0.
    return np.where(np.arange(p.shape[1]) >= last[:, None], 2.0, edges).astype(np.float32)


def _swapped(key: Array, rows: Array, present: np.ndarray) -> Array:
    """Partners [N]: the present samples of `rows` [C] each move to the next place of a random cycle."""
    order = jax.random.permutation(key, rows)
    there = jnp.asarray(present)[order]
    order = order[jnp.argsort(~there, stable=True)]  # present samples first, still in random order
    count, place = there.sum(), jnp.arange(len(order))
    source = order[jnp.where(place < count, (place - 1) % jnp.maximum(count, 1), place)]
    return jnp.arange(len(present), dtype=jnp.int32).at[order].set(source)


def _asymmetric_map(key: Array, num_classes: int) -> Array:
    """Class map [K]: floor(K / 2) random classes map one-to-one to as many other classes; the rest stay."""
    order = jax.random.permutation(jax.random.fold_in(key, _MAP_STREAM), num_classes)
    half = num_classes // 2
    return jnp.arange(num_classes, dtype=jnp.int32).at[order[:half]].set(order[half : 2 * half].astype(jnp.int32))


def _targets(
    spec: NoiseSpec, labels: Any, num_classes: int, features: Any, present: np.ndarray, key: Array, like: Any
) -> tuple[Array | None, np.ndarray | None]:
    """The classes that labels flip to, and log-weights of the selection, as in `feature_targets`; None if unused."""
    if spec.kind == "asymmetric":
        source = key if like is None else like.key
        return jnp.broadcast_to(_asymmetric_map(source, num_classes), (len(present), num_classes)), None
    if spec.kind in FEATURE_KINDS:
        return feature_targets(spec, labels, num_classes, features, present, like)
    return None, None


def _check_plan(spec: NoiseSpec, num_classes: int, pool: np.ndarray) -> None:
    """Refuse a matrix for another K, and pairs that cannot be swapped; pool bool [M, N] are the samples to select."""
    if spec.matrix is not None and len(spec.matrix) != num_classes:
        raise InputError(
            f"noise: the transition matrix is for {len(spec.matrix)} classes, but K = {num_classes}; "
            "give one row and one column per class"
        )
    if spec.kind == "pair-mismatch" and len(pool) < 2:
        raise InputError("noise kind 'pair-mismatch' needs two or more modalities to form pairs; choose another kind")
    for n in pool[1:].sum(axis=1):
        if spec.kind == "pair-mismatch" and round(spec.rate * int(n)) == 1:
            given = f"rate {spec.rate} of N = {n} selects one sample, which cannot be swapped"
            raise InputError(f"noise kind 'pair-mismatch': {given}; choose a rate that selects none, or two or more")
