"""Dropout of input features (Srivastava et al., Dropout, JMLR 2014), the same on one device and on several."""

import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["drop_features"]

_KEY = 0x6D726C  # of all runs: batches, which differ between seeds, decide where a draw falls
_LEVELS = 256  # draws of 8 bits: four in one word of the generator


def drop_features(features: tuple[Array, ...], rate: float, rows: Array, step: Array) -> tuple[Array, ...]:
    """Set features to 0 with a probability, and scale the others so that means stay.

    The draw depends on the step and on the number of the instance alone, not on its place in the batch. So parts of a
    batch on several devices get the draws of the whole.

    Args:
        features: one [B, D] per modality.
        rate: probability in [0, 1), rounded to a multiple of 1/256.
        rows: number of every instance, int32 [B].
        step: number of the step.
    """
    dropped = round(rate * _LEVELS)
    if not dropped:
        return features
    scale = _LEVELS / (_LEVELS - dropped)
    keys = jax.vmap(lambda row: jax.random.fold_in(jax.random.fold_in(jax.random.key(_KEY), step), row))(rows)

    def kept(modality: int, x: Array) -> Array:
        bits = jax.vmap(
            lambda key: jax.random.bits(jax.random.fold_in(key, modality), x.shape[1:], jnp.uint8)  # [D]
        )(keys)
        return jnp.where(bits >= dropped, x * jnp.asarray(scale, x.dtype), 0)

    return tuple(kept(i, x) for i, x in enumerate(features))
