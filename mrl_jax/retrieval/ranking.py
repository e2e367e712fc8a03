"""Exact rankings of a gallery by similarity, block by block: the ranks of the relevant items of every query.

Metrics need only the ranks of the relevant items. On CPU a radix sort compiled by numba computes them (`radix.py`,
extra `fast`), or without numba one NumPy sort of integers that pack score and position; on accelerators, and under
`jit`, one stable XLA sort that carries the gains along. All methods give the same ranks for the same similarities.

Integer rows are ranked exactly (`similarity.py`). Similarities of real rows are float32: a matrix product may round
those of equal rows differently at different places, so that one row stands for all that equal it, on either side.

Shape letters: Q queries, B queries of a block, G gallery items, L embedding dimensions, K classes, N entries of a
ranking.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from mrl_jax.retrieval import radix
from mrl_jax.retrieval.groups import Groups, equal_rows, group_equal
from mrl_jax.retrieval.metrics import Ranking, rank
from mrl_jax.retrieval.on_host import blocks_on_host, min_rows
from mrl_jax.retrieval.similarity import Operands, operands
from mrl_jax.unit_rows import unit_rows_for_ranking

__all__ = ["METHODS", "SIMILARITIES", "map_rankings"]

METHODS = ("auto", "numba", "numpy", "xla")
"""Programs that rank: compiled by numba, NumPy on the host, XLA on a device; `auto` takes the fastest that fits."""
SIMILARITIES = ("float32", "bfloat16")
"""Types in which similarities of rows of real numbers are computed."""

_BLOCK_SCORES = 1 << 24  # similarities of a block on a device: 64 MiB, and a few times that during ranking
_NUMBA_PAYS = 1 << 25  # similarities in all from which numba saves more time than loading it takes (0.5 s)


def map_rankings(
    reduce: Callable[[Ranking], Any],
    queries: Any,
    gallery: Any,
    query_labels: Any,
    gallery_labels: Any,
    *,
    exclude_self: bool = False,
    metric: str = "cosine",
    similarity: str = "float32",
    devices: Sequence[Any] | None = None,
    method: str = "auto",
) -> Any:
    """Apply a function to the ranking of every query, block by block: memory grows with the gallery, not with Q x G.

    Rows of integers are compared exactly (`similarity`). Otherwise equal gallery rows tie and equal queries rank alike,
    even if the matrix product rounds them differently.

    Args:
        reduce: pure function, ranking [B, N] -> a pytree of arrays [B, ...]. It compiles once if it is the same object
            in every call.
        queries: finite embeddings [Q, L].
        gallery: finite embeddings [G, L].
        query_labels: int32 [Q], or multi-hot uint8 [Q, K] with at most 255 labels a row.
        gallery_labels: int32 [G] or [G, K], likewise.
        exclude_self: row i of both is the same item, which is not in its own ranking.
        metric: "cosine", "dot" or "hamming", see `operands`.
        similarity: precision of the product of real rows, "float32" or "bfloat16" (sums stay float32).
        devices: devices to shard the gallery over; None for JAX's default device.
        method: "auto", or one of "numba", "numpy" (both on CPU) and "xla". Integer rows of different lengths are ranked
            on CPU in any case, by the cosine.

    Returns:
        The pytree with NumPy arrays [Q, ...].

    Raises:
        InputError: as `operands`.
    """
    mesh = None if devices is None else _mesh(devices)
    method = _choose(method, len(queries) * len(gallery), mesh)
    rows = operands(queries, gallery, metric)
    groups = group_equal(rows.queries, None if rows.integers else equal_rows(rows.queries))
    arguments = (rows, groups, np.asarray(query_labels), np.asarray(gallery_labels), exclude_self, similarity)
    on_device = method == "xla" and rows.form != "ratio"
    blocks = _blocks_on_device(reduce, *arguments, mesh) if on_device else blocks_on_host(reduce, *arguments, method)
    return jax.tree.map(lambda *parts: groups.in_order(np.concatenate(parts)), *blocks)


def _choose(method: str, scores: int, mesh: Any) -> str:
    """Resolve "auto" to the fastest method, and check any other."""
    on_cpu = mesh is None and jax.default_backend() == "cpu"
    if method == "auto":
        if not on_cpu:
            return "xla"
        return "numba" if scores >= _NUMBA_PAYS and radix.available() else "numpy"
    if method not in METHODS:
        raise ValueError(f"method {method!r}: choose from {', '.join(METHODS)}")
    if method == "numba" and not radix.available():
        raise ValueError("method 'numba': numba is not installed; run pip install 'numba>=0.63', or choose auto")
    if method != "xla" and mesh is not None:
        raise ValueError(f"method {method!r} runs on the host; choose xla for a gallery sharded over devices")
    return method


# On accelerators: product, sort and metrics of a block are one compiled program.


def _blocks_on_device(
    reduce: Callable[[Ranking], Any],
    operands: Operands,
    groups: Groups,
    query_labels: np.ndarray,
    gallery_labels: np.ndarray,
    exclude_self: bool,
    similarity: str,
    mesh: Any,
) -> list[Any]:
    queries, gallery = groups.first(operands.queries), operands.gallery
    shards, items = 1 if mesh is None else mesh.size, len(gallery)
    block = min(len(query_labels), max(min_rows(queries.shape[1]), _BLOCK_SCORES // items))
    block = -(-block // shards) * shards
    same = None if operands.integers else equal_rows(gallery)
    if same is not None:
        same = np.concatenate([same, np.arange(items, -(-items // shards) * shards, dtype=np.int32)])
    prepare = partial(_prepared_on_device, form=operands.form, similarity=similarity)
    rows, labels = prepare(_sharded(gallery, mesh, jnp.float32)), _sharded(gallery_labels, mesh)
    everywhere = None if mesh is None else NamedSharding(mesh, PartitionSpec())
    queries = jnp.asarray(queries, jnp.float32) if mesh is None else jax.device_put(np.asarray(queries), everywhere)
    queries = prepare(queries)
    blocks, counts = [], []
    for start in range(0, len(queries), block):
        part = _padded(queries[start : start + block], block)
        for members in groups.chunks(start, min(start + block, len(queries)), block):
            own = np.concatenate([members, members[:1].repeat(block - len(members))])
            place = None if groups.rows is None else groups.place[own] - start
            options = {"items": items, "exclude_self": exclude_self, "mesh": mesh}
            blocks.append(_reduce_block(reduce, part, query_labels[own], rows, labels, same, own, place, **options))
            counts.append(len(members))
    return [jax.tree.map(lambda x, n=n: np.asarray(x)[:n], values) for values, n in zip(blocks, counts, strict=True)]


def _prepared_on_device(rows: Array, form: str, similarity: str) -> Array:
    if form == "exact":
        return rows
    return (unit_rows_for_ranking(rows) if form == "unit" else rows).astype(similarity)


@partial(jax.jit, static_argnames=("reduce", "items", "exclude_self", "mesh"))
def _reduce_block(
    reduce: Callable[[Ranking], Any],
    queries: Array,
    query_labels: Array,
    gallery: Array,
    gallery_labels: Array,
    same: Array | None,
    own: Array,
    place: Array | None,
    *,
    items: int,
    exclude_self: bool,
    mesh: Any,
) -> Any:
    """Reduce the rankings of the queries with the numbers `own`, [B].

    `place` is the row of each in `queries`, [B]; None if it is row i for query i.
    """
    scores = jnp.dot(queries, gallery.T, precision="highest", preferred_element_type=jnp.float32)
    scores = scores if place is None else scores[place]
    if query_labels.ndim == 1:
        gain = (query_labels[:, None] == gallery_labels[None, :]).astype(jnp.uint8)
    else:
        hot = query_labels.astype(jnp.float32), gallery_labels.astype(jnp.float32)
        gain = jnp.dot(hot[0], hot[1].T, precision="highest").astype(jnp.uint8)
    if mesh is not None:
        # Each device scores its part of the gallery for all queries of the block, then ranks all of it for its part of
        # the queries: one all-to-all, and no device holds the whole gallery.
        for spec in (PartitionSpec(None, "gallery"), PartitionSpec("gallery", None)):
            scores, gain = (jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec)) for x in (scores, gain))
    if same is not None:
        scores = scores[:, same]
    item = jax.lax.broadcasted_iota(jnp.int32, scores.shape, 1)
    out = item >= items  # padding of the last shard
    if exclude_self:
        out |= item == own[:, None]
    scores, gain = jnp.where(out, -jnp.inf, scores), jnp.where(out, jnp.uint8(0), gain)
    return reduce(rank(scores, gain))


def _padded(x: Array, rows: int) -> Array:
    """Rows repeated behind, so that every block has one shape and compiles once."""
    return x if len(x) == rows else jnp.concatenate([x, x[:1].repeat(rows - len(x), 0)])


def _mesh(devices: Sequence[Any]) -> Any:
    given = list(devices) if isinstance(devices, Sequence | np.ndarray) else []
    if not given or not all(isinstance(d, jax.Device) for d in given) or len(set(given)) < len(given):
        raise ValueError(f"devices {devices!r}: give some of jax.devices(), each once, or None for JAX's default one")
    return jax.make_mesh((len(devices),), ("gallery",), axis_types=(AxisType.Auto,), devices=devices)


def _sharded(x: Any, mesh: Any, dtype: Any = None) -> Array:
    """Put x on the default device; or pad it with zero rows and put one part on each device of the mesh."""
    if mesh is None:
        return jnp.asarray(x, dtype)
    x = np.asarray(x, dtype)
    x = np.pad(x, [(0, -len(x) % mesh.size)] + [(0, 0)] * (x.ndim - 1))
    return jax.device_put(x, NamedSharding(mesh, PartitionSpec("gallery")))
