"""Dropout (Srivastava et al., Dropout, JMLR 2014), the same on one device and on several.

Draws depend on the step and on the number of the instance alone, not on its place in the batch. So parts of a batch on
several devices get the draws of the whole.

Shape letters: B batch, D features or units.
"""

import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["drop", "instance_keys"]

_KEY = 0x6D726C  # of all runs: batches, which differ between seeds, decide where a draw falls
_LEVELS = 256  # draws of 8 bits: four in one word of the generator


def instance_keys(rows: Array, step: Array) -> Array:
    """Random keys of instances in a step.

    Args:
        rows: number of every instance, int32 [B].
        step: number of the step.

    Returns:
        Keys [B].
    """
    key = jax.random.fold_in(jax.random.key(_KEY), step)
    return jax.vmap(lambda row: jax.random.fold_in(key, row))(rows)


def drop(x: Array, rate: float, keys: Array, place: int) -> Array:
    """Set values to 0 with a probability, and scale the others so that means stay.

    Args:
        x: features or units [B, D].
        rate: probability in [0, 1), rounded to a multiple of 1/256.
        keys: from `instance_keys`, [B].
        place: number of the place in the network; each has draws of its own.
    """
    dropped = round(rate * _LEVELS)
    if not dropped:
        return x
    scale = _LEVELS / (_LEVELS - dropped)
    bits = jax.vmap(
        lambda key: jax.random.bits(jax.random.fold_in(key, place), x.shape[1:], jnp.uint8)  # [D]
    )(keys)
    return jnp.where(bits >= dropped, x * jnp.asarray(scale, x.dtype), 0)
