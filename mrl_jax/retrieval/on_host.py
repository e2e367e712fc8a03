"""Rankings of a gallery on CPU, block by block in threads.

Each thread computes product, ranks and metrics of some queries. BLAS uses one thread in each: more threads of its own
would wait for the next product on cores that ranking needs. Buffers are reused, since new memory is slow.

Shape letters as in `ranking`.
"""

import functools
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mrl_jax.retrieval import radix
from mrl_jax.retrieval.groups import Groups, equal_rows
from mrl_jax.retrieval.metrics import Ranking
from mrl_jax.retrieval.similarity import Operands, key_order
from mrl_jax.unit_rows import unit_rows_float64

__all__ = ["blocks_on_host", "min_rows", "usable_cores"]

_MIN_ROWS = 128  # queries per product, see `min_rows`
_CHUNK_SCORES = 1 << 20  # similarities per block of a thread on CPU, for small galleries
_MAX_SCORES = 1 << 28  # similarities of all threads together: 1.25 GiB with their gains
_CACHED_SCORES = 1 << 18  # similarities ranked in one call
_THREADS_PAY = 1 << 20  # similarities in all from which threads save time


class _Buffers(NamedTuple):
    scores: np.ndarray  # float32 [B, G], or float64 for `key_order`
    gain: np.ndarray  # uint8 [B, G]
    ranks: np.ndarray  # int32 [B, N]
    gains: np.ndarray  # uint8 [B, N], of the relevant items


def blocks_on_host(
    reduce: Callable[[Ranking], Any],
    operands: Operands,
    groups: Groups,
    query_labels: np.ndarray,
    gallery_labels: np.ndarray,
    exclude_self: bool,
    similarity: str,
    method: str,
) -> list[Any]:
    """The results of `reduce` for blocks of queries, in the order of `groups.members`; arguments of `map_rankings`.

    Args:
        reduce: as there.
        operands: what is compared.
        groups: the queries, grouped by equal rows.
        query_labels: as there.
        gallery_labels: as there.
        exclude_self: as there.
        similarity: as there.
        method: "numba" or "numpy".
    """
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
    block = max(min_rows(dims), _CHUNK_SCORES // items)
    workers = max(1, min(usable_cores(), _MAX_SCORES // (block * items)))
    rounds = -(-queries // (workers * block))
    return workers, -(-queries // (workers * rounds))


def min_rows(dims: int) -> int:
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
