"""Which noise to inject, and the noisy labels.

Shape letters: M modalities, N training instances, K classes.

In papers, "symmetric noise of rate r" means different draws; `NOISE_PROTOCOLS` names them. The fraction of wrong labels
at r = 0.8 and K = 10:

| protocol | kind, scope | used by | wrong |
|---|---|---|---|
| mrl | symmetric, modality | MRL (Hu et al., CVPR 2021), as intended | .72 |
| per-pair | symmetric, instance | RSHNL (AAAI 2025), NIRNL (AAAI 2026) | .72 |
| wrong-only | symmetric-wrong, instance | RFCMH (ICML 2026) | .80 |

The official implementation of MRL draws from K + 1 values, one of which is no class (.727 wrong). This defect is not
reproduced.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jax import Array

from mrl_jax.errors import InputError
from mrl_jax.options import NOISE_KINDS, NOISE_PROTOCOLS, NOISE_SCOPES

__all__ = ["NOISE_KINDS", "NOISE_PROTOCOLS", "NOISE_SCOPES", "NoiseSource", "NoiseSpec", "NoisyLabels"]


@dataclass(frozen=True)
class NoiseSpec:
    """Which noise to inject. Hashable, so that it can be a static argument of `jax.jit`.

    Attributes:
        rate: fraction of the samples that are selected, in [0, 1].
        kind: what happens to a selected sample of class y:

            - "symmetric": uniform over all K classes, the true one included: rate * (K - 1) / K are wrong (the paper).
            - "symmetric-wrong": uniform over the K - 1 wrong classes, so that every selected label is wrong.
            - "asymmetric": a random half of the classes is mapped one-to-one onto the other half, by one map for all
              modalities; classes of the other half stay, so that about rate / 2 are wrong (MRL, NIRNL).
            - "cyclic": y + 1 mod K (RFCMH).
            - "nearest-class": the class whose mean feature is nearest to that of y.
            - "matrix": drawn from row y of `matrix`; with rate 1 the matrix is the transition matrix.
            - "instance-dependent": the nearest other class of the sample. Samples near the boundary of their class, on
              either side, are more likely to be selected: Gumbel top-k (Kool et al., ICML 2019) with log-weights
              -|margin|. Similar to polynomial-margin-diminishing noise (Zhang et al., ICLR 2021).
            - "pair-mismatch": the label stays, but in every modality except the first the selected samples swap
              places, and none stays in place (noisy correspondence, Huang et al., NeurIPS 2021).
        scope: "modality" draws for each modality separately (the paper); "instance" selects the same instances in all
            modalities and uses the same random numbers, so that equal labels stay equal.
        matrix: for kind "matrix": K rows of K probabilities, stored as a tuple of tuples.

    Raises:
        InputError: a rate outside [0, 1], an unknown kind or scope, or a matrix that is missing, not used, or not K x K
            probabilities (>= 0, rows that sum to 1 within 1e-6).
    """

    rate: float = 0.0
    kind: str = "symmetric"
    scope: str = "modality"
    matrix: tuple[tuple[float, ...], ...] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.rate, int | float) or not 0.0 <= self.rate <= 1.0:  # also refuses NaN
            raise InputError(f"noise rate {self.rate!r} is no number, or outside [0, 1]; give a fraction such as 0.6")
        for name, value, known in (("kind", self.kind, NOISE_KINDS), ("scope", self.scope, NOISE_SCOPES)):
            if value not in known:
                raise InputError(f"unknown noise {name} {value!r}; choose from {', '.join(known)}")
        if (self.kind == "matrix") != (self.matrix is not None):
            given = "needs a transition matrix; give one" if self.matrix is None else "takes no matrix; leave it out"
            raise InputError(f"noise kind {self.kind!r} {given}")
        if self.matrix is not None:
            object.__setattr__(self, "matrix", _checked_matrix(self.matrix))


class NoisyLabels(NamedTuple):
    """Labels for training, and the truth, which only measurements may use.

    Attributes:
        labels: given labels, int32 [M, N].
        clean: labels before the noise, int32 [M, N].
        wrong_share: fraction of given labels that differ from the clean labels, float32 [M].
        selected: True where a sample was selected to be redrawn, flipped or moved, bool [M, N].
        partners: the row of modality m that is paired as instance j, int32 [M, N]; j itself except for pair-mismatch.
            Labels move with samples: instance j has `features[m][partners[m, j]]` and `labels[m, partners[m, j]]`.
    """

    labels: Array
    clean: Array
    wrong_share: Array
    selected: Array
    partners: Array


class NoiseSource(NamedTuple):
    """Samples whose class maps and class means other noise uses: the arguments that `inject_noise` got for them."""

    key: Array
    labels: Any
    features: Any
    mask: Any = None


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
        given = f"row {row} of the transition matrix has sum {sums[row]:.8g} and smallest entry {p[row].min():.6g}"
        raise InputError(f"noise: {given}; entries must be >= 0 and every row must sum to 1 within 1e-6")
    return tuple(tuple(row) for row in p.tolist())
