"""Scale rows to unit length: on the device for training and for rankings, on the host in float64 and in float32.

The four functions compute the same formula, but not the same bits, and results depend on these bits:

- `unit_rows` has a gradient at zero rows. Compiled, XLA turns its x / sqrt(s) into x * rsqrt(s).
- `unit_rows_for_ranking` is compiled alone and divides by the norm.
- `unit_rows_float64` computes on the host in float64 and rounds once.
- `unit_rows_float32` computes on the host in float32 and takes no extra memory for float64 copies.

Shape letters: N rows, L dimensions.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

__all__ = ["unit_rows", "unit_rows_float32", "unit_rows_float64", "unit_rows_for_ranking"]

_ROWS = 1024  # rows that are float64 at a time
# Upper bound on divisors: XLA multiplies by the reciprocal, and that of a greater number is subnormal, flushed to zero.
_LARGEST = np.float32(2.0**126)


def unit_rows(x: Array) -> Array:
    """Scale rows [..., L] to unit length. A zero row stays zero, and its gradient is zero instead of NaN.

    Where the hardware flushes subnormal numbers, rows whose largest entry is below 2e-38 count as zero.
    """
    # The result does not depend on the scale of a row, so dividing by its largest entry first changes neither value
    # nor gradient. It keeps the squares from overflowing and underflowing.
    largest = jax.lax.stop_gradient(jnp.minimum(jnp.abs(x).max(axis=-1, keepdims=True), _LARGEST))
    is_zero = largest == 0
    x = x / jnp.where(is_zero, 1.0, largest)
    squared = jnp.square(x).sum(axis=-1, keepdims=True)
    return jnp.where(is_zero, 0.0, x / jnp.sqrt(jnp.where(is_zero, 1.0, squared)))


@jax.jit
def unit_rows_for_ranking(x: Array) -> Array:
    """Scale rows [N, L] to unit length; zero rows stay zero."""
    largest = jnp.minimum(jnp.abs(x).max(axis=-1, keepdims=True), _LARGEST)
    x = x / jnp.where(largest > 0, largest, 1.0)  # squares then stay in range
    norm = jnp.linalg.norm(x, axis=-1, keepdims=True)
    return x / jnp.where(norm > 0, norm, 1.0)


def unit_rows_float64(x: np.ndarray, precision: str = "float32") -> np.ndarray:
    """Scale rows float32 [N, L] to unit length in float64; zero rows stay zero.

    Args:
        x: the rows.
        precision: "float32" or "bfloat16": the type that the result is rounded to.

    Returns:
        float32 [N, L], which holds values of bfloat16 and their products exactly.
    """
    unit = np.empty_like(x, order="C")
    for start in range(0, len(x), _ROWS):
        rows = x[start : start + _ROWS].astype(np.float64)
        norm = np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]
        rows /= np.where(norm > 0, norm, 1.0)
        unit[start : start + _ROWS] = rows if precision == "float32" else rows.astype(precision)
    return unit


def unit_rows_float32(x: np.ndarray) -> np.ndarray:
    """Scale rows float32 [N, L] to unit length in float32; zero rows stay zero."""
    largest = np.abs(x).max(axis=1, keepdims=True)
    rows = x / np.where(largest > 0, largest, 1)  # squares then stay in range
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norm > 0, norm, 1)
