"""The random keys of a run, all derived from its seed, so that a resumed run needs no saved random state."""

import jax
from jax import Array

__all__ = ["batch_key", "init_key", "noise_key", "validation_noise_key"]

_NOISE, _INIT, _BATCHES = range(3)  # folded into the key of the seed
_VALIDATION = 1  # folded into the key of the noise


def noise_key(seed: int) -> Array:
    """Key of the label noise."""
    return jax.random.fold_in(jax.random.key(seed), _NOISE)


def validation_noise_key(seed: int) -> Array:
    """Key of the noise of validation labels."""
    return jax.random.fold_in(noise_key(seed), _VALIDATION)


def init_key(seed: int) -> Array:
    """Key of the initial parameters."""
    return jax.random.fold_in(jax.random.key(seed), _INIT)


def batch_key(seed: int) -> Array:
    """Key of the batches; each epoch folds its number into it."""
    return jax.random.fold_in(jax.random.key(seed), _BATCHES)
