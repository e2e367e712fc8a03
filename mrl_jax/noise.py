"""Label noise as a pure function of (labels, spec, key): named, seeded, and counted.

Shape letters: M modalities, N training instances, K classes.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from mrl_jax.errors import InputError

__all__ = ["NOISE_KINDS", "NOISE_SCOPES", "NoiseSpec", "NoisyLabels", "inject_noise"]

NOISE_KINDS = ("symmetric",)
NOISE_SCOPES = ("modality", "instance")


@dataclass(frozen=True)
class NoiseSpec:
    """Which noise to inject.

    Attributes:
        rate: share of the samples that get a new label, in [0, 1].
        kind: "symmetric": the new label is uniform over all K classes, the true one included, so that the expected
            share of wrong labels is rate * (K - 1) / K. This is the noise of the paper as it was meant.
        scope: "modality" draws for each modality on its own (the paper); "instance" once for all modalities of an
            instance.

    Raises:
        InputError: a rate outside [0, 1], or an unknown kind or scope.
    """

    rate: float = 0.0
    kind: str = "symmetric"
    scope: str = "modality"

    def __post_init__(self) -> None:
        if not isinstance(self.rate, int | float) or not 0.0 <= self.rate <= 1.0:  # also refuses NaN
            raise InputError(f"noise rate {self.rate!r} is no number, or outside [0, 1]; give a share such as 0.6")
        if self.kind not in NOISE_KINDS:
            raise InputError(f"unknown noise kind {self.kind!r}; choose from: {', '.join(NOISE_KINDS)}")
        if self.scope not in NOISE_SCOPES:
            raise InputError(f"unknown noise scope {self.scope!r}; choose from: {', '.join(NOISE_SCOPES)}")


class NoisyLabels(NamedTuple):
    """What training may see, and what only measurement may.

    Attributes:
        labels: given labels, int32 [M, N].
        clean: labels before the noise, int32 [M, N].
        wrong_share: share of given labels that differ from the clean ones, float32 [M].
    """

    labels: Array
    clean: Array
    wrong_share: Array


def inject_noise(labels: ArrayLike, spec: NoiseSpec, key: Array, num_classes: int) -> NoisyLabels:
    """Replace the labels of round(rate * N) samples of each modality.

    The same arguments give the same draw, compiled or not, on every device. K is an argument and never guessed from the
    labels, so that a class that is absent stays a class.

    Args:
        labels: clean labels 0..K-1, integers [M, N].
        spec: which noise.
        key: a `jax.random.key`.
        num_classes: K.

    Raises:
        ValueError: labels that are not integers [M, N].

    Example:
        >>> import jax, jax.numpy as jnp
        >>> noisy = inject_noise(jnp.zeros((2, 1000), int), NoiseSpec(0.6), jax.random.key(0), num_classes=10)
        >>> [round(float(share), 2) for share in noisy.wrong_share]  # about 0.6 * 9/10
        [0.54, 0.54]
    """
    labels = jnp.asarray(labels)
    if labels.ndim != 2 or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(
            f"inject_noise: labels are {labels.dtype} {labels.shape}; they must be integers [modalities, instances]"
        )
    clean = labels.astype(jnp.int32)
    m, n = clean.shape
    chosen = round(spec.rate * n)

    def draw(key: Array) -> tuple[Array, Array]:
        key_rows, key_labels = jax.random.split(key)
        rows = jax.random.permutation(key_rows, n)[:chosen]
        return rows, jax.random.randint(key_labels, (chosen,), 0, num_classes, jnp.int32)

    keys = jnp.broadcast_to(key, (m,)) if spec.scope == "instance" else jax.random.split(key, m)
    rows, drawn = jax.vmap(draw)(keys)
    given = jax.vmap(lambda labels, r, d: labels.at[r].set(d))(clean, rows, drawn)
    return NoisyLabels(given, clean, (given != clean).sum(axis=1) / max(n, 1))
