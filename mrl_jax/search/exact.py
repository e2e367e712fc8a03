"""Exact top-k: the nearest gallery items of each query, block by block on the device.

Shape letters: Q queries, G gallery items, L embedding dimensions, k results.

Conventions as in `retrieval`: items rank by descending similarity (Hamming: ascending distance), ties in gallery order;
rows of integers are compared exactly, others in float32; a zero vector has cosine 0 to everything.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mrl_jax.backend import names_backend
from mrl_jax.errors import InputError
from mrl_jax.retrieval.similarity import (
    check_metric,
    check_products,
    code_kinds,
    common_magnitude,
    exact_scores,
    find_form,
    key_order,
    keys,
    longest,
    product_dtype,
    scaled_lengths,
    scaled_signs,
    squared_lengths,
)
from mrl_jax.tensors import from_tensor
from mrl_jax.unit_rows import unit_rows_float32

__all__ = [
    "BLOCK",
    "SMALLEST_BLOCK",
    "Facts",
    "as_embeddings",
    "block_size",
    "check_k",
    "device_blocks",
    "facts_of",
    "padded",
    "recall",
    "recall_with_ties",
    "search_blocks",
    "top_k",
    "unit_blocks",
]

BLOCK = 8192
"""Gallery rows that are compared at once."""
SMALLEST_BLOCK = 512
"""Gallery rows of the smallest block; other sizes are 4, 16, … times that, so that few programs are compiled."""
_EXACT = ("exact", "ratio")  # forms without rounding
_QUERIES = 1024  # queries at once: the similarities of a block take 32 MiB


@names_backend
def top_k(
    queries: Any,
    gallery: Any,
    k: int,
    *,
    block: int = BLOCK,
    approximate: bool = False,
    metric: str = "cosine",
) -> tuple[np.ndarray, np.ndarray]:
    """The k most similar gallery items of every query.

    Args:
        queries: embeddings [Q, L]; need not have unit length.
        gallery: embeddings [G, L], an array or a memory map: one block at a time goes to the device, so that it may be
            larger than the device's memory.
        k: number of results, 1 to G.
        block: gallery rows that are compared at once.
        approximate: use `lax.approx_max_k` in each block, which is faster on TPUs.
        metric: "cosine"; "dot", the product; or "hamming", for codes of bits (0 and 1) or of signs (-1 and 1).

    Returns:
        Scores float32 [Q, k] and row numbers int32 [Q, k], best first. The scores of "hamming" are distances, the
        number of positions that differ.

    Raises:
        InputError: shapes that do not fit, no query, an empty gallery, NaN or inf, a k outside 1..G, or embeddings that
            do not fit `metric`.

    Example:
        >>> import numpy as np
        >>> scores, rows = top_k([[1.0, 0.0]], [[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], k=2)
        >>> rows.tolist(), scores.round(3).tolist()
        ([[1, 2]], [[1.0, 0.7070000171661377]])
    """
    x = as_embeddings("gallery", gallery)
    check_k(k, len(x))
    size = block_size(block)

    def blocks(as_is: bool) -> Iterator[tuple[Array, int]]:
        for i, rows in enumerate(device_blocks("gallery", x, size, as_is=as_is)):
            yield rows, min(size, len(x) - i * size)

    asked = as_embeddings("queries", queries, x.shape[1])
    return search_blocks(asked, blocks, facts_of("gallery", x, metric), k, approximate, metric)


def recall(approximate: Any, exact: Any) -> float:
    """Recall of an approximate search: the fraction of the exact results that it found, in any order.

    Args:
        approximate: row numbers of the approximate results [Q, k].
        exact: row numbers of the exact results [Q, k].

    Raises:
        InputError: the shapes differ or are not [Q, k].

    Example:
        >>> recall([[3, 1], [4, 7]], [[1, 3], [4, 9]])
        0.75
    """
    a, b = np.asarray(from_tensor(approximate)), np.asarray(from_tensor(exact))
    if a.shape != b.shape or a.ndim != 2 or not a.size:
        raise InputError(f"rows found have shape {list(a.shape)}, exact rows {list(b.shape)}; give both as [Q, k]")
    return float((b[:, :, None] == a[:, None, :]).any(axis=2).mean())


def recall_with_ties(
    queries: np.ndarray, rows_of: Callable[[np.ndarray], np.ndarray], found: np.ndarray, exact: np.ndarray
) -> float:
    """Recall by cosine in which a result also counts if it is as similar as the last exact one: ties may be exchanged.

    Args:
        queries: embeddings [Q, L].
        rows_of: gives the gallery rows [N, L] of row numbers [N].
        found: row numbers of the approximate results [Q, k], -1 for none.
        exact: row numbers of the exact results [Q, k], best first.
    """
    right = (found[:, :, None] == exact[:, None, :]).any(axis=2)
    others = ~right & (found >= 0)
    numbers, place = np.unique(np.concatenate([found[others], exact[:, -1]]), return_inverse=True)
    rows = np.asarray(rows_of(numbers), np.float64)
    places = np.zeros(found.shape, np.int64)
    places[others] = place[: others.sum()]
    for i, last in enumerate(place[others.sum() :]):
        compared = rows[np.append(places[i, others[i]], last)]
        # NumPy adds up every row in the same order: equal rows have equal sums, and sums of integers are exact.
        squares = np.maximum((compared * compared).sum(axis=1), 1e-300)
        key = keys((compared * np.asarray(queries[i], np.float64)).sum(axis=1), squares)
        right[i, others[i]] = key[:-1] >= key[-1]
    return float(right.mean())


class Facts(NamedTuple):
    """What must be known of a whole gallery before it is compared.

    Attributes:
        squares: squared lengths of the rows, int64 [G]; None unless all are integers, or all are scaled codes.
        length: length of the longest row, for "dot".
        kinds: the codes that the rows may be, for "hamming".
        scaled: the rows are scaled codes, compared by their signs; `squares` are those of the signs.
        magnitude: of the values of scaled codes that are not 0, for "dot".
    """

    squares: np.ndarray | None
    length: float
    kinds: tuple[str, ...]
    scaled: bool = False
    magnitude: float = 1.0


def facts_of(name: str, x: np.ndarray, metric: str, kinds: tuple[str, ...] = ("bits", "signs")) -> Facts:
    """Read the rows of a gallery, or of a part of one; rows of real numbers are read only for "dot".

    Args:
        name: name of the rows in messages.
        x: embeddings [N, L].
        metric: how they will be compared.
        kinds: the codes that other rows of the gallery may be.

    Raises:
        InputError: an unknown metric, or no codes for "hamming".
    """
    if check_metric(metric) == "hamming":
        kinds = code_kinds(name, x, kinds)
        return Facts(np.full(len(x), x.shape[1]), 0.0, kinds)
    squares = squared_lengths(x)
    if squares is None and metric == "cosine" and (squares := scaled_lengths(x)) is not None:
        return Facts(squares, 0.0, kinds, scaled=True)
    if squares is None and metric == "dot" and (magnitude := common_magnitude(x)) is not None:
        squares = scaled_lengths(x)
        return Facts(squares, longest(x), kinds, squares is not None, magnitude)
    return Facts(squares, longest(x) if metric == "dot" else 0.0, kinds)


def search_blocks(
    queries: np.ndarray,
    blocks: Callable[[bool], Iterable[tuple[Array, int]]],
    facts: Facts,
    k: int,
    approximate: bool = False,
    metric: str = "cosine",
) -> tuple[np.ndarray, np.ndarray]:
    """The k best rows of a gallery that is given as blocks on the device.

    Args:
        queries: embeddings [Q, L].
        blocks: called with True if rows may stay as they are, or False if they must be scaled to unit length; gives
            pairs of rows [B, L] and the number of them that belong to the gallery; the rest is padding.
        facts: of the gallery.
        k: number of results.
        approximate: use `lax.approx_max_k`.
        metric: see `top_k`.

    Returns:
        Scores float32 [Q, k] and row numbers int32 [Q, k], best first.

    Raises:
        InputError: there is no query, or the queries do not fit the metric.
    """
    if not len(queries):
        raise InputError("there is no query; give 1 or more")
    bits = metric == "hamming" and "signs" not in code_kinds("queries", queries, facts.kinds)
    if bits:
        queries = 2 * np.asarray(queries, np.float32) - 1
    asked = None if facts.squares is None else squared_lengths(queries)
    given_queries, factors = queries, np.full(len(queries), facts.magnitude)  # of exact products
    if asked is None and facts.squares is not None and metric in ("cosine", "dot"):
        signs = scaled_signs(queries)
        if signs is not None:
            factors *= np.abs(queries).max(axis=1)
            queries, asked = signs, squared_lengths(signs)
    form, squares = find_form(asked, facts.squares, metric)
    if form in ("unit", "real"):
        queries = given_queries
    if metric == "dot":
        check_products(longest(given_queries), facts.length)
    as_is = form != "unit"
    given = blocks(as_is)
    given = ((2 * rows - 1, count) for rows, count in given) if bits else given
    given = ((jnp.sign(rows), count) for rows, count in given) if facts.scaled and form in _EXACT else given
    if squares is not None:
        assert asked is not None
        assert facts.squares is not None
        return _search_by_keys(queries, given, squares, asked, facts.squares, factors, k, metric)
    chunks = list(device_blocks("queries", queries, _QUERIES, least=1, as_is=as_is))
    # NumPy makes these arrays: JAX would compile a program for each, which delays the first answer.
    best: list[Any] = [(np.full((len(c), k), -np.inf, np.float32), np.full((len(c), k), -1, np.int32)) for c in chunks]
    start = 0
    for block, count in given:
        best = [_merge(b, c, block, start, count, k, approximate) for b, c in zip(best, chunks, strict=True)]
        start += count
        jax.block_until_ready(best)  # otherwise the blocks of a memory map would accumulate on the device
    scores, rows = (np.concatenate([np.asarray(b[i]) for b in best])[: len(queries)] for i in (0, 1))
    if form == "exact":
        assert asked is not None
        assert facts.squares is not None
        scores = exact_scores(scores, asked[:, None], facts.squares[rows], metric, factors[:, None])
    return scores, rows


def _search_by_keys(
    queries: np.ndarray,
    blocks: Iterable[tuple[Array, int]],
    divisors: np.ndarray,
    asked: np.ndarray,
    items: np.ndarray,
    factors: np.ndarray,
    k: int,
    metric: str,
) -> tuple[np.ndarray, np.ndarray]:
    """As `search_blocks`, for integers that are compared by their keys, on the host."""
    kind: Any = product_dtype(asked, items)
    wide, start = np.asarray(queries, kind), 0
    chunks = [slice(first, first + _QUERIES) for first in range(0, len(queries), _QUERIES)]
    # Products and row numbers, best first.
    best = [(np.zeros((len(wide[c]), 0), kind), np.zeros((len(wide[c]), 0), np.int32)) for c in chunks]
    for block, count in blocks:
        rows = np.asarray(block).astype(kind)
        part = np.ones(len(rows), kind)
        part[:count] = divisors[start : start + count]
        for i, chunk in enumerate(chunks):
            d = wide[chunk] @ rows.T
            least = np.full(len(d), -np.inf)  # keys of the last of the best
            if best[i][0].shape[1] == k:
                least = keys(best[i][0][:, -1], divisors[best[i][1][:, -1]])
            query, column = _candidates(d, part, count, k, least)
            known, numbers, absent = _appended(*best[i], query, d[query, column], (start + column).astype(np.int32))
            order = key_order(known, divisors[numbers], absent=absent)[:, : min(k, start + count)]
            best[i] = np.take_along_axis(known, order, axis=1), np.take_along_axis(numbers, order, axis=1)
        start += count
    products, numbers = (np.concatenate([b[j] for b in best]) for j in (0, 1))
    return exact_scores(products, asked[:, None], items[numbers], metric, factors[:, None]), numbers


def _candidates(d: np.ndarray, n: np.ndarray, count: int, k: int, least: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the items of a block that may be among the k best of a query. A few others may be among them.

    Args:
        d: exact products [B, W].
        n: divisors of the keys [W], in the type of the products. They may be rounded.
        count: number of columns before the padding.
        k: number of results.
        least: float64 [B]; no result has a smaller key.

    Returns:
        The queries and the columns of these items, in ascending order.
    """
    key = np.abs(d)
    key *= d
    key /= n
    key[:, count:] = -np.inf
    # The k-th of the maxima of groups is a lower bound on the k-th key, and takes less time to find.
    width = key.shape[1]
    group = next(
        size for size in (64, 32, 16, 8, 4, 2, 1) if width % size == 0 and (width >= 4 * k * size or size == 1)
    )
    grouped = key.reshape(len(key), -1, group)
    maxima = grouped.max(axis=2)
    if k < maxima.shape[1]:
        bound = np.partition(maxima, maxima.shape[1] - k, axis=1)[:, maxima.shape[1] - k]
        least = np.maximum(least, bound)
    # Rounded keys are off by a few units in the last place.
    least = np.maximum(least - np.abs(least) * 1e-6, np.finfo(key.dtype).min).astype(key.dtype)
    query, place = np.nonzero(maxima >= least[:, None])
    chosen, column = np.nonzero(grouped[query, place] >= least[query, None])
    return query[chosen], place[chosen] * group + column


def _appended(
    products: np.ndarray, numbers: np.ndarray, query: np.ndarray, d: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Products and row numbers [B, k], to which those of candidates are appended; and which entries are empty.

    Args:
        products: [B, k].
        numbers: [B, k].
        query: the query of each candidate, in ascending order.
        d: the product of each.
        rows: the row number of each.
    """
    counts = np.bincount(query, minlength=len(products))
    column = products.shape[1] + np.arange(len(query)) - np.repeat(np.cumsum(counts) - counts, counts)
    shape = (len(products), products.shape[1] + int(counts.max(initial=0)))
    absent, more, more_numbers = np.ones(shape, bool), np.zeros(shape, products.dtype), np.zeros(shape, np.int32)
    for whole, known, new in ((more, products, d), (more_numbers, numbers, rows), (absent, False, False)):
        whole[:, : products.shape[1]] = known
        whole[query, column] = new
    return more, more_numbers, absent


@partial(jax.jit, static_argnames=("k", "approximate"))
def _merge(
    best: tuple[Array, Array], queries: Array, block: Array, start: int, count: int, k: int, approximate: bool
) -> tuple[Array, Array]:
    scores = jnp.matmul(queries, block.T, precision="highest")
    scores = jnp.where(scores == 0, 0.0, scores)  # `lax.top_k` ranks -0.0 below 0.0
    scores = jnp.where((jnp.arange(len(block)) < count)[None], scores, -jnp.inf)
    top = jax.lax.approx_max_k if approximate else jax.lax.top_k
    block_scores, columns = top(scores, min(k, len(block)))
    # Earlier rows come first, and `lax.top_k` takes the first of equal values: ties are in gallery order.
    scores = jnp.concatenate([best[0], block_scores], axis=1)
    rows = jnp.concatenate([best[1], start + columns], axis=1)
    scores, columns = jax.lax.top_k(scores, k)
    return scores, jnp.take_along_axis(rows, columns, axis=1)


def block_size(block: int) -> int:
    """Round a number of rows up to a multiple of 128.

    In other sizes, the scores of equal rows at different places may differ in the last bit.

    Raises:
        InputError: it is no integer of 1 or more.
    """
    if isinstance(block, bool) or not isinstance(block, int) or block < 1:
        raise InputError(f"block {block!r}: it must be an integer of 1 or more")
    return -(-block // 128) * 128


def unit_blocks(name: str, x: Any, size: int, first: int = 0, as_is: bool = False) -> Iterator[np.ndarray]:
    """Scale rows of x [N, L] to unit length, float32, `size` rows at a time; zero rows stay zero.

    Args:
        name: name of x in error messages.
        x: numbers [N, L]; may be a memory map.
        size: rows at a time.
        first: number of the first row in error messages.
        as_is: do not scale the rows; for example because they have unit length, or are compared by products.

    Raises:
        InputError: x is no such array, or not finite in float32.
    """
    x = as_embeddings(name, x)
    for i in range(0, len(x), size):
        with np.errstate(over="ignore"):
            rows: Any = np.asarray(x[i : i + size]).astype(np.float32, copy=False)
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if len(bad):
            raise InputError(
                f"{name} hold NaN, inf or values beyond float32, the first in row {first + i + bad[0]}; "
                "embeddings must be finite"
            )
        if as_is:
            yield rows
            continue
        yield unit_rows_float32(rows)


def device_blocks(
    name: str, x: np.ndarray, size: int, least: int = SMALLEST_BLOCK, first: int = 0, as_is: bool = False
) -> Iterator[Array]:
    """Unit rows of x on the device, or with `as_is` the rows as given; in blocks of `size` rows, padded with zero rows.

    All blocks have the same size, so that equal rows get equal scores in every block. A single block may be smaller:
    `least` rows or more. The other arguments are those of `unit_blocks`.
    """
    for rows in unit_blocks(name, x, size, first, as_is):
        yield jax.device_put(padded(rows, size if len(x) > size else least, size))


def padded(rows: np.ndarray, least: int, most: int) -> np.ndarray:
    """Append zero rows to rows [n, L], up to `least` times a power of 4, but at most `most` rows."""
    while least < len(rows):
        least *= 4
    return np.pad(rows, [(0, min(least, most) - len(rows)), (0, 0)])


def as_embeddings(name: str, values: Any, width: int | None = None) -> np.ndarray:
    """Check that values are embeddings [N, L], with L = `width` if given; the values are neither copied nor read.

    Raises:
        InputError: they are no numbers [N, L], or have another number of dimensions.
    """
    try:
        x = np.asanyarray(from_tensor(values))
    except InputError as error:  # masked values
        raise InputError(f"{name} are {error}") from error
    except ValueError as error:
        raise InputError(f"{name} are no array [N, L] ({error}); give rows of equal length") from error
    if x.dtype.name == "bfloat16":  # NumPy does not know this type of JAX as a number
        x = x.astype(np.float32)
    if x.ndim != 2 or x.dtype.kind not in "fiub" or not x.shape[1]:
        raise InputError(f"{name} are {x.dtype} {list(x.shape)}; give numbers [N, L], [1, L] for a single embedding")
    if width is not None and x.shape[1] != width:
        raise InputError(f"{name} have {x.shape[1]} dimensions, the gallery has {width}; embed both with the same run")
    return x


def check_k(k: Any, size: int) -> None:
    """Refuse an empty gallery of `size` rows, and a number of results k that it does not have.

    Raises:
        InputError: the gallery is empty, or k is no integer from 1 to `size`.
    """
    if not size:
        raise InputError("the gallery is empty; give 1 row or more")
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= size:
        raise InputError(f"k is {k!r}; it must be an integer from 1 to {size}, the size of the gallery")
