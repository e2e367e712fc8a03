"""Sum over the negatives of the contrastive loss, tile by tile: memory grows with S, not with S x S.

For a sample a with row v_a, the sum over all samples b of other instances,

    r_a = log sum_b exp(v_a . v_b),

is computed tile by tile with a running maximum. The gradient visits the tiles again. With g the cotangent of r, and s
the similarities, which are symmetric,

    dv_a = sum_b [g_a exp(s_ab - r_a) + g_b exp(s_ab - r_b)] v_b.

r is returned in two parts, the largest exponent and the rest, because their sum loses precision if exponents are large.

Each pair of tiles is visited once for both of its sides. On several devices the rows of each device pass around a ring,
together with what their gradient needs. The formula above then gives each device the complete gradient of its rows.

Shape letters: S samples (of one device), L embedding dimensions, n tiles of T rows each.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

__all__ = ["log_negatives"]

TILE = 1024  # rows: a tile of 4 MiB of similarities, which fits in the cache of a core


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def log_negatives(v: Array, instance: Array, axis_name: str | None = None, tile: int = TILE) -> tuple[Array, Array]:
    """Logarithm of the sum of exponential similarities with all samples of other instances.

    Differentiable in v, once, in reverse mode.

    Args:
        v: rows [S, L]; their inner products are the exponents.
        instance: integers [S], different for different instances, on all devices; -1 for rows that do not count.
        axis_name: axis of the devices that hold the other samples, under `shard_map` or `pmap`; each has S rows.
        tile: upper bound on the rows of a tile.

    Returns:
        The largest exponent [S], a constant in derivatives, and the logarithm of the sum relative to it [S], which has
        the complete gradient. 0 and -inf where there is no other instance.
    """
    return _forward(v, instance, axis_name, tile)[0]


def _forward(
    v: Array, instance: Array, axis_name: str | None, tile: int
) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
    rows, ids = _alike(_tiled(v, tile, 0), _tiled(instance, tile, -1))
    _, largest, total = _alike(rows, jnp.full(ids.shape, -jnp.inf, v.dtype), jnp.zeros(ids.shape, v.dtype))

    def within(stats: tuple[Array, Array], ij: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
        i, j = ij
        s = _similarities(rows[i], rows[j], ids[i], ids[j])
        stats = _counted(stats, i, s)
        if len(rows) > 1:
            stats = _counted(stats, j, jnp.where(i == j, -jnp.inf, s.T))
        return stats, None

    stats, _ = jax.lax.scan(within, (largest, total), _pairs(len(rows)))

    def past(carry: tuple, _: None) -> tuple[tuple, None]:
        stats, others = carry
        others = _next(others, axis_name)

        def across(stats: tuple[Array, Array], ij: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
            i, j = ij
            return _counted(stats, i, _similarities(rows[i], others[0][j], ids[i], others[1][j])), None

        return (jax.lax.scan(across, stats, _all_pairs(len(rows)))[0], others), None

    if axis_name is not None:
        (stats, _), _ = jax.lax.scan(past, (stats, (rows, ids)), length=jax.lax.axis_size(axis_name) - 1)
    largest, total = (x.reshape(-1)[: len(v)] for x in stats)
    largest = jnp.where(total > 0, largest, 0)
    return (largest, jnp.log(total)), (v, instance, largest, total)


def _backward(
    axis_name: str | None, tile: int, residuals: tuple[Array, ...], cotangents: tuple[Array, Array]
) -> tuple[Array, None]:
    v, instance, largest, total = residuals
    share = jnp.where(total > 0, cotangents[1] / jnp.where(total > 0, total, 1), 0)
    tiled = [_tiled(x, tile, fill) for x, fill in ((v, 0), (instance, -1), (largest, 0), (share, 0))]
    rows, ids, largest, share, start = _alike(*tiled, jnp.zeros_like(tiled[0]))

    def weights(i: Array, j: Array, others: tuple) -> Array:
        v_j, id_j, largest_j, share_j = (x[j] for x in others)
        s = _similarities(rows[i], v_j, ids[i], id_j)
        return share[i][:, None] * jnp.exp(s - largest[i][:, None]) + share_j[None] * jnp.exp(s - largest_j[None])

    def within(gradient: Array, ij: tuple[Array, Array]) -> tuple[Array, None]:
        i, j = ij
        w = weights(i, j, (rows, ids, largest, share))
        gradient = gradient.at[i].add(_product(w, rows[j]))
        if len(rows) > 1:
            gradient = gradient.at[j].add(jnp.where(i == j, 0, _product(w.T, rows[i])))
        return gradient, None

    gradient, _ = jax.lax.scan(within, start, _pairs(len(rows)))

    def past(carry: tuple, _: None) -> tuple[tuple, None]:
        gradient, others = carry
        others = _next(others, axis_name)

        def across(gradient: Array, ij: tuple[Array, Array]) -> tuple[Array, None]:
            i, j = ij
            return gradient.at[i].add(_product(weights(i, j, others), others[0][j])), None

        return (jax.lax.scan(across, gradient, _all_pairs(len(rows)))[0], others), None

    if axis_name is not None:
        ring = (rows, ids, largest, share)
        (gradient, _), _ = jax.lax.scan(past, (gradient, ring), length=jax.lax.axis_size(axis_name) - 1)
    return gradient.reshape(-1, v.shape[1])[: len(v)], None


log_negatives.defvjp(_forward, _backward)


def _tiled(x: Array, tile: int, fill: float) -> Array:
    """Rows as tiles of equal size [n, T, ...], with padding at the end."""
    n = -(-len(x) // tile)
    rows = -(-len(x) // n)
    behind = [(0, n * rows - len(x))] + [(0, 0)] * (x.ndim - 1)
    return jnp.pad(x, behind, constant_values=fill).reshape(n, rows, *x.shape[1:])


def _alike(*arrays: Array) -> tuple[Array, ...]:
    """The same arrays; under `shard_map` all are marked device-varying if one of them is.

    Loops under `shard_map` need carries of the same kind. Here every array passes through a `where` with two equal
    branches whose condition depends on all arrays; XLA removes it.
    """
    either = jnp.stack([x.reshape(-1)[0] > 0 for x in arrays]).any()
    return tuple(jnp.where(either, x, x) for x in arrays)


def _pairs(n: int) -> tuple[Any, Any]:
    """Indices of each pair of tiles once, and of each tile with itself."""
    return np.triu_indices(n)


def _all_pairs(n: int) -> tuple[Any, Any]:
    """Indices of each tile of this device with each tile of another."""
    return np.divmod(np.arange(n * n), n)


def _similarities(a: Array, b: Array, id_a: Array, id_b: Array) -> Array:
    """Inner products of two tiles [T, T]; -inf except for pairs of two different instances that count."""
    counts = (id_a[:, None] != id_b[None]) & (id_a >= 0)[:, None] & (id_b >= 0)[None]
    return jnp.where(counts, _product(a, b.T), -jnp.inf)


def _product(a: Array, b: Array) -> Array:
    """Product in float32 on every device, because the error of a similarity grows with 1 / tau."""
    return jnp.dot(a, b, precision="highest")


def _counted(stats: tuple[Array, Array], i: Array, s: Array) -> tuple[Array, Array]:
    """Largest similarity and sum of exponentials relative to it [n, T], updated for tile i with s [T, T]."""
    largest, total = stats
    highest = jnp.maximum(largest[i], s.max(axis=1))
    shift = jnp.where(highest == -jnp.inf, 0, highest)
    sums = total[i] * jnp.exp(largest[i] - shift) + jnp.exp(s - shift[:, None]).sum(axis=1)
    return largest.at[i].set(highest), total.at[i].set(sums)


def _next(arrays: tuple[Array, ...], axis_name: str | None) -> tuple[Array, ...]:
    """The arrays of the neighbour in the ring."""
    n = jax.lax.axis_size(axis_name)
    return jax.lax.ppermute(arrays, axis_name, [(i, (i + 1) % n) for i in range(n)])
