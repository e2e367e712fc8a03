"""Label noise as a pure function of (labels, spec, key): named, seeded, and counted.

Shape letters: M modalities, N training instances, K classes, C selected samples, D features of a modality.

Papers say "symmetric noise, rate r" of different draws; `NOISE_PROTOCOLS` names them. Wrong labels at r = 0.8, K = 10:

| protocol | kind, scope | code that draws so | wrong |
|---|---|---|---|
| mrl | symmetric, modality | MRL (Hu et al., CVPR 2021) as it was meant | .72 |
| per-pair | symmetric, instance | RSHNL (AAAI 2025), NIRNL (AAAI 2026) | .72 |
| wrong-only | symmetric-wrong, instance | RFCMH (ICML 2026) | .80 |

MRL's own program draws from K + 1 values, one of which is no class (.727 wrong); that defect is not reproduced.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from mrl_jax.errors import InputError
from mrl_jax.options import NOISE_KINDS, NOISE_PROTOCOLS, NOISE_SCOPES

__all__ = [
    "NOISE_KINDS", "NOISE_PROTOCOLS", "NOISE_SCOPES", "NoiseSource", "NoiseSpec", "NoisyLabels", "inject_noise",
    "transition_matrix",
]  # fmt: skip

_FEATURE_KINDS = ("nearest-class", "instance-dependent")
_MAP_STREAM = 2**31 - 1  # folded into the key for what all modalities share; above any modality's index


@dataclass(frozen=True)
class NoiseSpec:
    """Which noise to inject. Hashable, so that it may be a static argument of `jax.jit`.

    Attributes:
        rate: share of the samples that are selected, in [0, 1].
        kind: what happens to a selected sample of class y:

            - "symmetric": uniform over all K classes, the true one included: rate * (K - 1) / K are wrong (the paper).
            - "symmetric-wrong": uniform over the K - 1 wrong classes, so that every selected label is wrong.
            - "asymmetric": a random half of the classes is mapped one-to-one onto the other half, by one map for all
              modalities; y takes its image, classes of the other half stay, so about rate / 2 are wrong (MRL, NIRNL).
            - "cyclic": y + 1 mod K (RFCMH).
            - "nearest-class": the class whose mean feature is nearest to that of y.
            - "matrix": drawn from row y of `matrix`; with rate 1 the matrix is the whole transition.
            - "instance-dependent": the nearest other class of that sample; samples near the boundary of their class, on
              either side, are selected first: Gumbel top-k (Kool et al., ICML 2019) with log-weights -|margin|. In the
              spirit of polynomial-margin-diminishing noise (Zhang et al., ICLR 2021).
            - "pair-mismatch": its label stays, but in every modality except the first the selected samples change
              places, none keeping its own (noisy correspondence, Huang et al., NeurIPS 2021).
        scope: "modality" draws for each modality on its own (the paper); "instance" selects the same instances in all
            modalities and uses the same random numbers, so that equal labels stay equal.
        matrix: for kind "matrix", K rows of K probabilities; kept as a tuple of tuples.

    Raises:
        InputError: a rate outside [0, 1], an unknown kind or scope, a matrix that is missing, not wanted, or no table
            of K x K probabilities (>= 0, rows that sum to 1 within 1e-6).
    """

    rate: float = 0.0
    kind: str = "symmetric"
    scope: str = "modality"
    matrix: tuple[tuple[float, ...], ...] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.rate, int | float) or not 0.0 <= self.rate <= 1.0:  # also refuses NaN
            raise InputError(f"noise rate {self.rate!r} is no number, or outside [0, 1]; give a share such as 0.6")
        for name, value, known in (("kind", self.kind, NOISE_KINDS), ("scope", self.scope, NOISE_SCOPES)):
            if value not in known:
                raise InputError(f"unknown noise {name} {value!r}; choose from: {', '.join(known)}")
        if (self.kind == "matrix") != (self.matrix is not None):
            given = "misses its" if self.matrix is None else "was given a"
            raise InputError(f"noise kind {self.kind!r} {given} transition matrix; only kind 'matrix' has one")
        if self.matrix is not None:
            object.__setattr__(self, "matrix", _checked_matrix(self.matrix))


class NoisyLabels(NamedTuple):
    """What training may see, and what only measurement may.

    Attributes:
        labels: given labels, int32 [M, N].
        clean: labels before the noise, int32 [M, N].
        wrong_share: share of given labels that differ from the clean ones, float32 [M].
        selected: True where a sample was chosen to be redrawn, flipped or moved, bool [M, N].
        partners: the row of modality m that stands at instance j, int32 [M, N]; j itself except for pair-mismatch.
            Labels belong to samples: `features[m][partners[m, j]]` stands there with `labels[m, partners[m, j]]`.
    """

    labels: Array
    clean: Array
    wrong_share: Array
    selected: Array
    partners: Array


class NoiseSource(NamedTuple):
    """Samples whose class maps and means other noise takes over: their key, and what `inject_noise` was given."""

    key: Array
    labels: Any
    features: Any
    mask: Any = None


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

    With kind "pair-mismatch" the first modality keeps its places, and the others move.

    The same arguments give the same draw, compiled or not, on every device; only "instance-dependent" ranks samples by
    float32 scores, whose ties another device may break otherwise. K is an argument and never guessed from the labels,
    so that a class that is absent stays a class. With K = 1 no label can be wrong. Runs under `jit` (static `spec` and
    `num_classes`) and `vmap` over keys; class statistics need labels and features that are not traced.

    Args:
        labels: clean labels 0..K-1, integers [M, N].
        spec: which noise.
        key: a `jax.random.key`.
        num_classes: K.
        features: M arrays [N, D], for kinds "nearest-class" and "instance-dependent"; columns are standardised here.
        mask: True where a sample is present, bool [M, N]. Rates and shares then count present samples only, and missing
            ones keep their label; scope "instance" selects from the instances present in any modality, and changes
            those samples of them that are present. (A sample that pair-mismatch could only swap with itself stays.)
        like: samples whose noise this is to resemble: class maps and class means are theirs. Noise on validation labels
            is then the one of the training labels, and not another confusion of classes.

    Raises:
        ValueError: labels that are not integers [M, N].
        InputError: features or mask that are missing or do not fit, a matrix that is not K x K, one modality or a
            single selected sample for pair-mismatch.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> noisy = inject_noise(jnp.zeros((2, 1000), int), NoiseSpec(0.6), jax.random.key(0), num_classes=10)
        >>> [round(float(share), 2) for share in noisy.wrong_share]  # about 0.6 * 9/10
        [0.54, 0.54]
    """
    clean = _checked_labels(labels)
    m, n = clean.shape
    present = _checked_mask(mask, m, n)
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
    # A table, since compiled division by a constant rounds otherwise than eager division.
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
        key: the key given to `inject_noise`; decides the map of kind "asymmetric".
        labels: as for `inject_noise`; only kind "nearest-class" needs them, and the features.
        features: as for `inject_noise`.
        mask: as for `inject_noise`.

    Returns:
        float64 [K, K]; [M, K, K] for kind "nearest-class". Every row sums to 1.

    Raises:
        InputError: kind "instance-dependent", which has none; no key for "asymmetric"; what `inject_noise` raises.

    Example:
        >>> transition_matrix(NoiseSpec(0.6), 3).round(2).tolist()
        [[0.6, 0.2, 0.2], [0.2, 0.6, 0.2], [0.2, 0.2, 0.6]]
    """
    k, kind, eye = num_classes, spec.kind, np.eye(num_classes)
    if kind == "instance-dependent":
        raise InputError("noise kind 'instance-dependent' has no class transition: a flip depends on the sample itself")
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
        present = _checked_mask(mask, *_checked_labels(labels).shape)
        change = eye[np.asarray(_targets(spec, labels, k, features, present, None)[0])]
    else:  # pair-mismatch keeps every label, and one class has no wrong label
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
    """New labels [C] of the samples `rows` [C] of one modality with labels `clean` [N]."""
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
    """Upper edges float32 [K, K] of the interval of [0, 1) in which a uniform number means class k."""
    p = np.asarray(spec.matrix, np.float64)
    edges = np.cumsum(p / p.sum(axis=1, keepdims=True), axis=1)
    last = p.shape[1] - 1 - np.argmax(p[:, ::-1] > 0, axis=1)
    # From the last possible class on the edge lies beyond every number: rounding cannot reach a class with p = 0.
    return np.where(np.arange(p.shape[1]) >= last[:, None], 2.0, edges).astype(np.float32)


def _swapped(key: Array, rows: Array, present: np.ndarray) -> Array:
    """Partners [N]: the present ones of `rows` [C] move on by one place of a random cycle."""
    order = jax.random.permutation(key, rows)
    there = jnp.asarray(present)[order]
    order = order[jnp.argsort(~there, stable=True)]  # the present ones first, still in random order
    count, place = there.sum(), jnp.arange(len(order))
    source = order[jnp.where(place < count, (place - 1) % jnp.maximum(count, 1), place)]
    return jnp.arange(len(present), dtype=jnp.int32).at[order].set(source)


def _asymmetric_map(key: Array, num_classes: int) -> Array:
    """Class map [K]: floor(K / 2) random classes go one-to-one to as many others, the rest stay."""
    order = jax.random.permutation(jax.random.fold_in(key, _MAP_STREAM), num_classes)
    half = num_classes // 2
    return jnp.arange(num_classes, dtype=jnp.int32).at[order[:half]].set(order[half : 2 * half].astype(jnp.int32))


def _targets(
    spec: NoiseSpec, labels: Any, num_classes: int, features: Any, present: np.ndarray, key: Any, like: Any = None
) -> tuple[Array | None, np.ndarray | None]:
    """Where labels flip to, [M, K] per class or [M, N] per sample, and log-weights float32 [M, N] of the selection."""
    if spec.kind == "asymmetric" and key is not None:
        of = key if like is None else like.key
        return jnp.broadcast_to(_asymmetric_map(of, num_classes), (len(present), num_classes)), None
    if spec.kind not in _FEATURE_KINDS:
        return None, None
    per_class = spec.kind == "nearest-class"
    source: list[Any] = [None] * len(present)
    if like is not None:
        mask = _checked_mask(like.mask, *_checked_labels(like.labels).shape)
        if len(mask) != len(present):
            raise InputError(f"noise: like has {len(mask)} modalities, but the labels have {len(present)}")
        y, x = _concrete(spec, like.labels, like.features, mask, num_classes)
        source = [(x[i][mask[i]], y[i][mask[i]]) for i in range(len(mask))]
    if like is None or not per_class:
        y, x = _concrete(spec, labels, features, present, num_classes)
    else:  # where a class goes does not depend on the samples that go there
        present = mask
    m, n = present.shape
    own = np.broadcast_to(np.arange(num_classes), (m, num_classes)) if per_class else y
    distances, margins = np.empty((*own.shape, num_classes)), np.zeros((m, n))
    for i in range(m):  # one modality at a time: float64 copies of features are large
        distances[i], margins[i] = _geometry(x[i], y[i], present[i], num_classes, per_class, source[i])
    if spec.scope == "instance":  # averages over the modalities that know a distance
        known = ~np.isnan(distances)
        total = np.where(known, distances, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        distances = np.broadcast_to(np.where(known.any(axis=0), total, np.nan), distances.shape)
        margins = np.broadcast_to(margins.sum(axis=0) / np.maximum(present.sum(axis=0), 1), margins.shape)
    targets = np.stack([_nearest_other(d, o) for d, o in zip(distances, own, strict=True)])
    return jnp.asarray(targets, jnp.int32), None if per_class else -np.abs(margins).astype(np.float32)


def _geometry(
    x: np.ndarray, y: np.ndarray, present: np.ndarray, num_classes: int, per_class: bool, source: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Distances to the class means, NaN where there is no such class or sample, and margins [N].

    They are those of the means themselves [K, K], divided by their average off the diagonal, or those of the samples
    [N, K], divided like the margins by the standard deviation of the margins. Means and the standardisation of the
    columns come from the samples `source`, features and labels; without it from these.
    """
    z, own = np.array(x[present], np.float64), y[present]
    base, classes = (z, own) if source is None else (np.array(source[0], np.float64), source[1])
    center = base.sum(axis=0) / max(len(base), 1)
    for part in (z,) if base is z else (z, base):
        part -= center
    scale = np.sqrt(np.einsum("nd,nd->d", base, base) / max(len(base), 1))
    scale = np.where(scale > 1e-9 * np.abs(center), scale, 1.0)  # a constant column tells nothing: never divide by 0
    for part in (z,) if base is z else (z, base):
        part /= scale
    one_hot = classes[:, None] == np.arange(num_classes)
    counts = one_hot.sum(axis=0)
    means = one_hot.T.astype(np.float64) @ base / np.maximum(counts, 1)[:, None]
    rows = np.flatnonzero(counts > 0 if per_class else present)
    points, own = (means[rows], rows) if per_class else (z, own)
    out, margins = np.full((num_classes if per_class else len(present), num_classes), np.nan), np.zeros(len(present))
    if (counts > 0).sum() < 2:
        return out, margins  # no boundary
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
    """For each row of distances [R, K] the nearest class that is not its own [R]; its own if there is no other."""
    others = np.where(np.isnan(distances) | (own[:, None] == np.arange(distances.shape[1])), np.inf, distances)
    return np.where(np.isfinite(others).any(axis=1), others.argmin(axis=1), own)


def _checked_labels(labels: Any) -> Array:
    labels = jnp.asarray(labels)
    if labels.ndim != 2 or not labels.shape[0] or not jnp.issubdtype(labels.dtype, jnp.integer):
        told = f"labels are {labels.dtype} {labels.shape}"
        raise ValueError(f"inject_noise: {told}; they must be integers [modalities, instances]")
    return labels.astype(jnp.int32)


def _checked_mask(mask: Any, m: int, n: int) -> np.ndarray:
    if isinstance(mask, jax.core.Tracer):
        raise InputError("noise: the mask is traced, but decides how many samples change; close over a NumPy array")
    mask = np.ones((m, n), bool) if mask is None else np.asarray(mask)
    if mask.dtype != bool or mask.shape != (m, n):
        raise InputError(f"noise: the mask is {mask.dtype} {mask.shape}; it must be bool {(m, n)} like the labels")
    return mask


def _check_plan(spec: NoiseSpec, num_classes: int, pool: np.ndarray) -> None:
    if spec.matrix is not None and len(spec.matrix) != num_classes:
        raise InputError(f"noise: the transition matrix is for {len(spec.matrix)} classes, but K = {num_classes}")
    if spec.kind == "pair-mismatch" and len(pool) < 2:
        raise InputError("noise kind 'pair-mismatch' needs two or more modalities; with one there are no pairs")
    for n in pool[1:].sum(axis=1):
        if spec.kind == "pair-mismatch" and round(spec.rate * int(n)) == 1:
            told = f"rate {spec.rate} of N = {n} selects one sample, which cannot be swapped"
            raise InputError(f"noise kind 'pair-mismatch': {told}; choose a rate that selects none, or two or more")


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
    y, arrays = np.asarray(labels), [np.asarray(x) for x in features]
    if ((y < 0) | (y >= num_classes))[present].any():
        raise InputError(f"noise kind {spec.kind!r}: labels outside 0..{num_classes - 1}; give the K that fits them")
    for i, x in enumerate(arrays):
        if x.ndim != 2 or len(x) != n or x.dtype.kind not in "biuf" or not np.isfinite(x[present[i]]).all():
            raise InputError(f"noise: features {i} are {x.dtype} {x.shape}; they must be finite numbers ({n}, D)")
    return y, arrays


def _checked_matrix(matrix: Any) -> tuple[tuple[float, ...], ...]:
    try:
        if isinstance(matrix, np.ndarray) and matrix.dtype.kind not in "biuf":
            raise TypeError
        with np.errstate(all="ignore"):
            p = np.asarray(matrix, np.float64)
            sums = p.sum(axis=-1)
    except (TypeError, ValueError, OverflowError):
        raise InputError("noise: the transition matrix is no table of numbers; give K rows of K numbers") from None
    if p.ndim != 2 or p.shape[0] != p.shape[1] or not p.size:
        raise InputError(f"noise: the transition matrix has shape {p.shape}; give K rows of K probabilities")
    bad = ~np.isfinite(p).all(axis=1) | (p < 0).any(axis=1) | ~(np.abs(sums - 1.0) <= 1e-6)
    if bad.any():
        row = int(np.argmax(bad))
        told = f"row {row} of the transition matrix has sum {sums[row]:.8g} and smallest entry {p[row].min():.6g}"
        raise InputError(f"noise: {told}; entries must be >= 0 and every row must sum to 1 within 1e-6")
    return tuple(tuple(row) for row in p.tolist())
