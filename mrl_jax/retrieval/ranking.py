"""Exact rankings of a gallery by similarity, block by block: the ranks of the relevant items of every query.

Metrics need only the ranks of the relevant items. On CPU a radix sort compiled by numba computes them (`radix.py`,
extra `fast`), or without numba one NumPy sort of integers that pack score and position; on accelerators, and under
`jit`, one stable XLA sort that carries the gains along. All methods give the same ranks for the same similarities.

Integer rows are ranked exactly (`similarity.py`). Similarities of real rows are float32: a matrix product may round
those of equal rows differently at different places, so that one row stands for all that equal it, on either side.

Shape letters: Q queries, B queries of a block, G gallery items, L embedding dimensions, K classes, N entries of a
ranking.
"""

import functools
import hashlib
import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from mrl_jax.retrieval import radix
from mrl_jax.retrieval.similarity import Operands, key_order, operands
from mrl_jax.unit_rows import unit_rows_float64, unit_rows_for_ranking

__all__ = [
    "METHODS",
    "SIMILARITIES",
    "Groups",
    "Ranking",
    "equal_rows",
    "group_equal",
    "map_rankings",
    "rank",
    "usable_cores",
]

METHODS = ("auto", "numba", "numpy", "xla")
SIMILARITIES = ("float32", "bfloat16")

_BLOCK_SCORES = 1 << 24  # similarities of a block on a device: 64 MiB, and a few times that during ranking
_MIN_ROWS = 128  # queries per product, see `_min_rows`
_CHUNK_SCORES = 1 << 20  # similarities per block of a thread on CPU, for small galleries
_MAX_SCORES = 1 << 28  # similarities of all threads together: 1.25 GiB with their gains
_CACHED_SCORES = 1 << 18  # similarities ranked in one call
_THREADS_PAY = 1 << 20  # similarities in all from which threads save time
_NUMBA_PAYS = 1 << 25  # similarities in all from which numba saves more time than loading it takes (0.5 s)


class Ranking(NamedTuple):
    """The ranks of the relevant items of a query. Leading axes are queries.

    Entries with gain 0 do not count: they are items that are not relevant, or padding.

    Attributes:
        rank: int32 [..., N], 1-based, ascending among the relevant entries.
        hits: int32 [..., N], number of relevant items up to this rank, inclusive.
        gain: unsigned integers [..., N]: 1, or with several labels per item the number of shared labels.
    """

    rank: Array
    hits: Array
    gain: Array


def rank(scores: Array, gain: Array) -> Ranking:
    """Rank by descending score, ties in gallery order.

    Args:
        scores: [..., G].
        gain: bool or unsigned integers [..., G], 0 for items that are not relevant.

    Returns:
        A ranking with one entry per gallery item, N = G.
    """
    gain = gain.astype(jnp.uint8) if gain.dtype == bool else gain
    descending = -jnp.where(scores == 0, 0, scores)  # -0.0 ties with 0.0
    _, gain = jax.lax.sort((descending, gain), num_keys=1, is_stable=True)
    ranks = jax.lax.broadcasted_iota(jnp.int32, gain.shape, gain.ndim - 1) + 1
    return Ranking(ranks, jnp.cumsum(gain > 0, axis=-1, dtype=jnp.int32), gain)


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
    blocks = _blocks_on_device(reduce, *arguments, mesh) if on_device else _blocks_on_host(reduce, *arguments, method)
    return jax.tree.map(lambda *parts: groups.in_order(np.concatenate(parts)), *blocks)


class Groups(NamedTuple):
    """Queries grouped by equal rows, so that one product serves all that are equal.

    Attributes:
        rows: the first query of each group, ascending, integers [U]; None if all Q queries differ.
        members: all queries, group by group, integers [Q].
        place: the group of each query, integers [Q].
        starts: where the groups start in `members`, integers [U + 1].
    """

    rows: np.ndarray | None
    members: np.ndarray
    place: np.ndarray
    starts: np.ndarray

    def first(self, queries: Any) -> Any:
        """The first query of each group, [U, L]."""
        return queries if self.rows is None else queries[self.rows]

    def chunks(self, start: int, stop: int, size: int) -> list[np.ndarray]:
        """The queries of the groups from `start` to `stop`, at most `size` at a time."""
        members = self.members[self.starts[start] : self.starts[stop]]
        return [members[i : i + size] for i in range(0, len(members), size)]

    def in_order(self, values: np.ndarray) -> np.ndarray:
        """Values [Q, ...] in the order of `members` -> in the order of the queries."""
        if self.rows is None:
            return values
        out = np.empty_like(values)
        out[self.members] = values
        return out


def group_equal(queries: Any, same: np.ndarray | None) -> Groups:
    """Group queries by the result of `equal_rows`."""
    if same is None:
        each = np.arange(len(queries) + 1)
        return Groups(None, each[:-1], each[:-1], each)
    rows, place = np.unique(same, return_inverse=True)
    starts = np.concatenate([[0], np.cumsum(np.bincount(place))])
    return Groups(rows, np.argsort(place, kind="stable"), place, starts)


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
    block = min(len(query_labels), max(_min_rows(queries.shape[1]), _BLOCK_SCORES // items))
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


# On CPU: each thread computes product, ranks and metrics of some queries. BLAS uses one thread in each: more threads of
# its own would wait for the next product on cores that ranking needs. Buffers are reused, since new memory is slow.


class _Buffers(NamedTuple):
    scores: np.ndarray  # float32 [B, G], or float64 for `key_order`
    gain: np.ndarray  # uint8 [B, G]
    ranks: np.ndarray  # int32 [B, N]
    gains: np.ndarray  # uint8 [B, N], of the relevant items


def _blocks_on_host(
    reduce: Callable[[Ranking], Any],
    operands: Operands,
    groups: Groups,
    query_labels: np.ndarray,
    gallery_labels: np.ndarray,
    exclude_self: bool,
    similarity: str,
    method: str,
) -> list[Any]:
    items = len(operands.gallery)
    same = None if operands.integers else equal_rows(operands.gallery)
    again = None if same is None else np.flatnonzero(same != np.arange(items))
    workers, block = _threads_and_block(len(query_labels), items, operands.gallery.shape[1])
    width = _max_relevant(query_labels, gallery_labels)
    reduce_block = _compiled(reduce, block, width)
    queries = _prepared_on_host(groups.first(operands.queries), operands.form, similarity)
    rows = _prepared_on_host(operands.gallery, operands.form, similarity)
    if query_labels.ndim == 2:
        query_labels, gallery_labels = query_labels.astype(np.float32), gallery_labels.astype(np.float32)
    free: SimpleQueue[_Buffers] = SimpleQueue()
    for _ in range(workers):
        wide, narrow = (block, items), (block, width)
        scores_and_ranks = np.empty(wide, rows.dtype), np.empty(wide, np.uint8), np.zeros(narrow, np.int32)
        free.put(_Buffers(*scores_and_ranks, np.zeros(narrow, np.uint8)))

    def work(start: int) -> list[Any]:
        buffers, stop = free.get(), min(start + block, len(queries))
        try:
            products = None if groups.rows is None else np.matmul(queries[start:stop], rows.T)
            return [chunk(buffers, own, start, stop, products) for own in groups.chunks(start, stop, block)]
        finally:
            free.put(buffers)

    def chunk(buffers: _Buffers, own: np.ndarray, start: int, stop: int, products: np.ndarray | None) -> Any:
        scores, gain, ranks, gains = (x[: len(own)] for x in buffers)
        if query_labels.ndim == 1:
            np.equal(query_labels[own, None], gallery_labels, out=gain.view(bool))
        else:
            gain[:] = np.matmul(query_labels[own], gallery_labels.T, out=scores)
        if products is None:
            np.matmul(queries[start:stop], rows.T, out=scores)
        else:
            np.take(products, groups.place[own] - start, axis=0, out=scores, mode="clip")
        if same is not None:
            scores[:, again] = scores[:, same[again]]
        if exclude_self:
            gain[np.arange(len(own)), own] = 0
        if operands.squares is not None:
            _rank_by_keys(scores, operands.squares, own if exclude_self else None, gain, ranks, gains)
        else:
            if exclude_self:
                scores[np.arange(len(own)), own] = -np.inf
            _rank_on_host(scores, gain, ranks, gains, method)
        # Rows after the last query are stale. Copying the result waits for it, so that the buffers are free again.
        return jax.tree.map(lambda x: np.array(x)[: len(own)], reduce_block(buffers.ranks, buffers.gains))

    starts = range(0, len(queries), block)
    if workers == 1:
        return [values for start in starts for values in work(start)]
    with _ONE_BLAS_THREAD, ThreadPoolExecutor(workers) as pool:
        return [values for several in pool.map(work, starts) for values in several]


def _prepared_on_host(x: Any, form: str, similarity: str) -> np.ndarray:
    rows = np.asarray(x, np.float32)
    if form == "unit":
        return unit_rows_float64(rows, similarity)
    if form == "ratio":
        return rows.astype(np.float64)
    return rows if form == "exact" or similarity == "float32" else rows.astype(similarity).astype(np.float32)


def _threads_and_block(queries: int, items: int, dims: int) -> tuple[int, int]:
    """Number of threads, and queries per block of a thread: enough for the product, within the memory bound."""
    if queries * items < _THREADS_PAY:
        return 1, queries
    block = max(_min_rows(dims), _CHUNK_SCORES // items)
    workers = max(1, min(usable_cores(), _MAX_SCORES // (block * items)))
    rounds = -(-queries // (workers * block))
    return workers, -(-queries // (workers * rounds))


def _min_rows(dims: int) -> int:
    """Queries per product: fewer read the gallery too often, more take over 5/16 of the memory of the gallery."""
    return max(1, min(_MIN_ROWS, dims // 4))


class _OneBlasThread:
    """Limits BLAS to one thread per caller while any caller is inside; the last to leave restores the limits."""

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._limits: Any = None

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                from threadpoolctl import threadpool_limits  # deferred: rankings on accelerators do not need it

                self._limits = threadpool_limits(1, "blas")

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._limits.restore_original_limits()


_ONE_BLAS_THREAD = _OneBlasThread()


@functools.lru_cache(maxsize=256)
def _compiled(reduce: Callable[[Ranking], Any], block: int, width: int) -> Callable[[Any, Any], Any]:
    """The metrics of a block, compiled ahead of time: `jit` would compile them in each thread."""

    def run(ranks: Array, gain: Array) -> Any:
        return reduce(Ranking(ranks, jax.lax.broadcasted_iota(jnp.int32, gain.shape, 1) + 1, gain))

    shapes = (jax.ShapeDtypeStruct((block, width), dtype) for dtype in (np.int32, np.uint8))
    return jax.jit(run).lower(*shapes).compile()


def _max_relevant(query_labels: np.ndarray, gallery_labels: np.ndarray) -> int:
    """An upper bound on the relevant items of a query."""
    if query_labels.ndim == 2:
        per_class = gallery_labels.sum(axis=0, dtype=np.int64)
        bound = int((query_labels.astype(np.float64) @ per_class).max())
    else:
        values, counts = np.unique(gallery_labels, return_counts=True)
        bound = int(counts[np.isin(values, query_labels)].max(initial=0))
    return max(1, min(bound, len(gallery_labels)))


def _rank_on_host(scores: np.ndarray, gain: np.ndarray, ranks: np.ndarray, gains: np.ndarray, method: str) -> None:
    """Write ranks int32 and gains uint8 of the relevant items, both [B, N], followed by zeros."""
    rank_rows, bits = radix.kernel() if method == "numba" else _rank_rows, scores.view(np.int32)
    rows = max(1, _CACHED_SCORES // scores.shape[1])
    for start in range(0, len(scores), rows):
        chunk = slice(start, start + rows)
        rank_rows(bits[chunk], gain[chunk], ranks[chunk], gains[chunk])


def _rank_by_keys(
    products: np.ndarray,
    squares: np.ndarray,
    own: np.ndarray | None,
    gain: np.ndarray,
    ranks: np.ndarray,
    gains: np.ndarray,
) -> None:
    """As `_rank_on_host`, by the keys of exact products float64 [B, G]; `own` are items that rank last, [B]."""
    rows = max(1, _CACHED_SCORES // products.shape[1])
    for start in range(0, len(products), rows):
        part = slice(start, start + rows)
        order = key_order(products[part], squares, None if own is None else own[part])
        _write_ranks(np.take_along_axis(gain[part], order, axis=1), ranks[part], gains[part])


def _rank_rows(bits: np.ndarray, gain: np.ndarray, ranks: np.ndarray, gains: np.ndarray) -> None:
    """One sort of 64-bit integers: the score in the upper half, the item's number, which breaks ties, in the lower."""
    key = (bits.view(np.float32) + np.float32(0)).view(np.int32)  # -0.0 becomes 0.0
    key ^= (key >> 31) & np.int32(0x7FFFFFFF)  # floats become integers of the same order
    packed = (~key).astype(np.int64) << 32
    packed |= np.arange(bits.shape[1])
    packed.sort(axis=1)
    low_half = 0 if sys.byteorder == "little" else 1
    _write_ranks(np.take_along_axis(gain, packed.view(np.uint32)[:, low_half::2], axis=1), ranks, gains)


def _write_ranks(sorted_gain: np.ndarray, ranks: np.ndarray, gains: np.ndarray) -> None:
    """Write ranks and gains of the relevant items from the gains in ranked order [B, G]."""
    row, position = np.nonzero(sorted_gain)
    column = np.arange(len(row)) - np.searchsorted(row, np.arange(len(sorted_gain)))[row]
    ranks[:], gains[:] = 0, 0
    ranks[row, column], gains[row, column] = position + 1, sorted_gain[row, position]


def usable_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def equal_rows(x: Any) -> np.ndarray | None:
    """For every row the number of the first row that equals it, int32 [N]; None if all rows differ.

    Args:
        x: [N, L].
    """
    x = np.asarray(x, np.float32)
    # Almost all rows differ in these two columns; only rows that agree in them are compared in full.
    key = np.ascontiguousarray(x[:, [0, -1]] + np.float32(0)).view(np.uint64)[:, 0]  # -0.0 becomes 0.0
    _, inverse, counts = np.unique(key, return_inverse=True, return_counts=True)
    same = np.arange(len(x), dtype=np.int32)
    first: dict[bytes, int] = {}
    for i in np.flatnonzero(counts[inverse] > 1).tolist():
        same[i] = first.setdefault(hashlib.blake2b((x[i] + np.float32(0)).tobytes(), digest_size=16).digest(), i)
    return None if (same == np.arange(len(x))).all() else same
