"""What is compared: cosine similarity, product or Hamming distance, and integer embeddings without rounding.

Rows of integers (codes of bits or signs, counts, quantised embeddings) are ranked by exact arithmetic, so that equal
similarities tie whatever the method, the block, the other queries and the device. Let d be the product of a query and a
gallery row, q and n their squared lengths: integers, with d^2 <= q n.

- If the rank depends on d alone (Hamming distance, products, cosines with gallery rows of one length) and q n <= 2^48,
  float32 is exact: the absolute summands of d add up to at most sqrt(q n) <= 2^24, so that every partial sum in any
  order is an integer that float32 holds. Such rows are compared on any device as they are, without scaling.
- Otherwise, up to q n <= 2^53, the key is sign(d) d^2 / n, the squared cosine without the query's constant length,
  computed on the host. d, d^2 and n are exact in float64, and the quotient is rounded correctly, hence monotonically: a
  greater cosine never gets a smaller key, and equal cosines get equal keys. Cosines that differ but get the same key
  are one unit in the last place apart at most, so |d1^2 n2 - d2^2 n1| <= 2 max(n) <= 2^54. This difference is exact in
  int64, even where its two products wrap around: it finds such items, and fractions put them in order.

For the cosine, scaled codes count as integers too: rows whose non-zero values all have one magnitude, such as -0.5 and
0.5. A positive factor of a row changes no cosine, so that their signs stand for them. For the product this holds too if
all rows of the gallery have the same magnitude: it changes no order, and neither does the factor of a query.

Beyond that range, and if a side holds other numbers, rows count as real numbers.

Shape letters: Q queries, B queries of a block, G gallery items, L dimensions.
"""

from collections.abc import Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from mrl_jax.errors import InputError

__all__ = [
    "METRICS",
    "NO_CODES_OF_RUN",
    "NoCodesError",
    "Operands",
    "as_signs",
    "check_metric",
    "check_products",
    "code_kinds",
    "common_magnitude",
    "exact_scores",
    "find_form",
    "key_order",
    "key_rank",
    "keys",
    "longest",
    "operands",
    "product_dtype",
    "scaled_lengths",
    "scaled_signs",
    "squared_lengths",
]

METRICS = ("cosine", "dot", "hamming")
"""Similarities that rows are ranked by: cosine, inner product, and Hamming distance of codes."""

NO_CODES_OF_RUN = (
    "metric hamming compares codes, and the embeddings of this run are real numbers of unit length; choose cosine, or "
    "binarise what load_run(DIR).embed gives (x > 0), save it, and use eval --embeddings FILE"
)
"""Message for `NoCodesError` where the user gave a run instead of embeddings."""

_EXACT_FLOAT32 = 2**48  # bound on q n
_EXACT_FLOAT64 = 2**53
_ROWS = 4096  # rows that are checked at once


class NoCodesError(InputError):
    """Rows are no codes, which the metric "hamming" needs."""


class Operands(NamedTuple):
    """Rows to compare.

    Attributes:
        queries: float32 [Q, L].
        gallery: float32 [G, L].
        form: "unit": real rows, compared after scaling to unit length. "real": real rows, compared by their products.
            "exact": integers, or for the cosine signs of scaled codes, compared by their products, which float32 holds
            exactly. "ratio": the same, compared by `keys` on the host. Products are those of the signs, without the
            magnitudes of scaled codes.
        squares: for "ratio", the divisors of the keys, int64 [G]; otherwise None.
    """

    queries: Any
    gallery: Any
    form: str
    squares: np.ndarray | None = None

    @property
    def integers(self) -> bool:
        """Whether similarities are exact."""
        return self.form in ("exact", "ratio")


def check_metric(metric: str) -> str:
    """Refuse an unknown metric.

    Raises:
        InputError: it is not one of `METRICS`.
    """
    if metric not in METRICS:
        raise InputError(f"metric {metric!r}: choose from {', '.join(METRICS)}")
    return metric


def operands(queries: Any, gallery: Any, metric: str = "cosine") -> Operands:
    """Decide how rows are compared.

    Args:
        queries: finite float32 [Q, L], of NumPy or JAX.
        gallery: finite float32 [G, L].
        metric: "cosine"; "dot", the product; or "hamming", the number of positions that differ, for codes.

    Raises:
        InputError: an unknown metric, rows that are no codes for "hamming", or products beyond float32 for "dot".
    """
    if check_metric(metric) == "hamming":
        queries, gallery = as_signs(queries, gallery)
    items = squared_lengths(gallery)
    asked = None if items is None else squared_lengths(queries)
    form, squares = find_form(asked, items, metric)
    if form == "real":
        check_products(longest(queries), longest(gallery))
    if form in ("unit", "real"):
        asked = asked if items is not None else squared_lengths(queries)
        second = _whole(gallery, items) if metric == "cosine" or items is not None else _of_one_magnitude(gallery)
        first = None if second is None else _whole(queries, asked)
        if first is not None and second is not None:
            found, squares = find_form(squared_lengths(first), squared_lengths(second), metric)
            if found in ("exact", "ratio"):
                queries, gallery, form = first, second, found
    return Operands(queries, gallery, form, squares)


def find_form(asked: np.ndarray | None, items: np.ndarray | None, metric: str) -> tuple[str, np.ndarray | None]:
    """`Operands.form` and `.squares` of rows with the given squared lengths, which are None for rows of real numbers.

    Args:
        asked: squared lengths of the queries, int64 [Q].
        items: squared lengths of the gallery rows, int64 [G].
        metric: one of `METRICS`.
    """
    if asked is not None and items is not None:
        bound = int(asked.max(initial=0)) * int(items.max(initial=0))
        longer = items[items > 0]  # a zero row has d = 0
        one_length = metric != "cosine" or not len(longer) or longer.min() == longer.max()
        if one_length and bound <= _EXACT_FLOAT32:
            return "exact", None
        if bound <= _EXACT_FLOAT64:
            return "ratio", np.ones_like(items) if one_length else np.maximum(items, 1)
    return ("unit" if metric == "cosine" else "real"), None


def squared_lengths(x: Any) -> np.ndarray | None:
    """The squared length of every row, int64 [N]; None if a row holds other numbers than integers, or is too long.

    Reads blocks of rows, and stops at the first one that holds other numbers.

    Args:
        x: [N, L], finite in float32, of NumPy or JAX; may be a memory map.
    """
    out = np.zeros(len(x), np.int64)
    for rows, part in _blocks(x):
        if not (rows == np.rint(rows)).all():
            return None
        wide = rows.astype(np.float64)
        squared = np.einsum("ij,ij->i", wide, wide)
        if squared.max(initial=0) > _EXACT_FLOAT64:
            return None
        out[part] = squared
    return out


def scaled_lengths(x: Any) -> np.ndarray | None:
    """How many values of every row are not 0, int64 [N]; None unless those of a row all have one magnitude.

    These are the squared lengths of `scaled_signs`. Reads blocks of rows, and stops at the first one that holds others.

    Args:
        x: [N, L], of NumPy or JAX; may be a memory map.
    """
    out = np.zeros(len(x), np.int64)
    for rows, part in _blocks(x):
        size = np.abs(rows)
        largest = size.max(axis=1, keepdims=True)
        normal = (largest == 0) | ((largest >= np.finfo(np.float32).tiny) & np.isfinite(largest))
        if not (normal & ((size == largest) | (size == 0))).all():
            return None
        out[part] = np.count_nonzero(size, axis=1)
    return out


def scaled_signs(x: Any) -> np.ndarray | None:
    """The signs of scaled codes (see above), float32 [N, L]; None for other rows."""
    return None if scaled_lengths(x) is None else np.sign(np.asarray(x, np.float32))


def _whole(x: Any, squares: np.ndarray | None) -> Any:
    """Integers whose cosines are those of the rows: integers as they are, or the signs of scaled codes; or None."""
    return x if squares is not None else scaled_signs(x)


def common_magnitude(x: Any) -> float | None:
    """The magnitude of all values of x [N, L] that are not 0; None if there are several, 1 if there are no such values.

    Reads blocks of rows, and stops at the first one that holds others.
    """
    largest = 0.0
    for rows, _ in _blocks(x):
        size = np.abs(rows)
        largest = largest or float(size.max(initial=0))
        if not ((size == largest) | (size == 0)).all():
            return None
    return largest or 1.0


def _of_one_magnitude(x: Any) -> Any:
    return None if common_magnitude(x) is None else scaled_signs(x)


def as_signs(queries: Any, gallery: Any) -> tuple[np.ndarray, np.ndarray]:
    """Codes as rows of -1 and 1, float32, whose products rank as their Hamming distances do.

    Raises:
        InputError: the rows are neither bits (0 and 1) on both sides nor signs (-1 and 1) on both sides.
    """
    kinds = code_kinds("gallery", gallery, code_kinds("queries", queries))
    first, second = (np.asarray(x, np.float32) for x in (queries, gallery))
    return (first, second) if "signs" in kinds else (2 * first - 1, 2 * second - 1)


def code_kinds(name: str, x: Any, among: tuple[str, ...] = ("bits", "signs")) -> tuple[str, ...]:
    """Which codes the rows may be: "bits", "signs", or both where every value is 1.

    Args:
        name: name of the rows in messages.
        x: [N, L].
        among: the kinds that other rows leave.

    Raises:
        NoCodesError: none of them.
    """
    for rows, _ in _blocks(x):
        among = tuple(kind for kind in among if ((rows == 1) | (rows == (0 if kind == "bits" else -1))).all())
        if not among:
            values = ", ".join(f"{v:g}" for v in np.unique(rows)[:3])
            raise NoCodesError(
                f"{name}: metric hamming compares codes, only 0 and 1 or only -1 and 1 in all rows, and values are "
                f"{values}; give codes (x > 0 of real numbers, np.unpackbits of packed bits), or choose cosine"
            )
    return among


def longest(x: Any) -> float:
    """The length of the longest row of x [N, L]."""
    return max((float(np.linalg.norm(rows.astype(np.float64), axis=1).max()) for rows, _ in _blocks(x)), default=0.0)


def check_products(asked: float, items: float) -> None:
    """Refuse a longest query and a longest gallery row whose product may exceed float32.

    Raises:
        InputError: they are too long.
    """
    if asked * items > 1e38:
        raise InputError(
            f"metric dot: the longest rows have lengths {asked:.3g} and {items:.3g}, and products must stay below "
            "1e38; scale the embeddings down, or choose cosine"
        )


def keys(products: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """sign(d) d^2 / n, float64 [B, G], of exact products d [B, G] and divisors n [G]."""
    d = products.astype(np.float64)
    return d * np.abs(d) / squares


def product_dtype(asked: np.ndarray, items: np.ndarray) -> type[np.float32] | type[np.float64]:
    """The smallest type of floats whose products of integer rows with these squared lengths are exact."""
    bound = int(asked.max(initial=0)) * int(items.max(initial=0))
    return np.float32 if bound <= _EXACT_FLOAT32 else np.float64


def key_order(
    products: np.ndarray, squares: np.ndarray, own: np.ndarray | None = None, absent: np.ndarray | None = None
) -> np.ndarray:
    """Rank a block: gallery items by descending sign(d) d^2 / n, exactly, ties in gallery order.

    Args:
        products: d [B, G], exact.
        squares: n, int64 [G], or [B, G] if queries have different items.
        own: integers [B], an item of each query that ranks last; None for none.
        absent: bool [B, G], items that rank last; None for none.

    Returns:
        Item numbers, integers [B, G], best first.
    """
    key = keys(products, squares)
    if absent is not None:
        key[absent] = -np.inf
    if own is not None:
        key[np.arange(len(key)), own] = -np.inf
    order = np.argsort(-key, axis=1, kind="stable")
    key = np.take_along_axis(key, order, axis=1)
    d = np.take_along_axis(products, order, axis=1).astype(np.int64)
    squares = np.broadcast_to(squares, key.shape)
    n = np.take_along_axis(squares, order, axis=1)
    d *= d
    equal = key[:, 1:] == key[:, :-1]
    doubtful = equal & (d[:, 1:] * n[:, :-1] != d[:, :-1] * n[:, 1:])
    for i in np.flatnonzero(doubtful.any(axis=1)).tolist():  # hardly ever: two cosines that differ, with the same key
        starts = np.flatnonzero(np.concatenate([[True], ~equal[i]])).tolist()
        runs = zip(starts, [*starts[1:], len(order[i])], strict=True)
        for start, stop in ((a, b) for a, b in runs if doubtful[i, a : b - 1].any()):
            fractions = {j: _fraction(products[i, j], squares[i, j]) for j in order[i, start:stop].tolist()}
            order[i, start:stop] = sorted(fractions, key=lambda j: (-fractions[j], j))
    return order


def key_rank(products: np.ndarray, squares: np.ndarray, item: int) -> int:
    """The 1-based rank of an item of the gallery in the ranking of `key_order`, for one query: products d [G]."""
    key = keys(products, squares)
    earlier = np.arange(len(key)) < item
    d = products.astype(np.int64)
    same = np.flatnonzero(key == key[item])
    ahead = d[same] * np.abs(d[same]) * squares[item] - d[item] * np.abs(d[item]) * squares[same]  # exact, see above
    return 1 + int((key > key[item]).sum() + ((ahead > 0) | ((ahead == 0) & earlier[same])).sum())


def exact_scores(products: Any, asked: Any, items: Any, metric: str, factors: Any = 1.0) -> np.ndarray:
    """Similarities in float32 from exact products. Equal similarities get equal bits.

    Args:
        products: exact products d, of any shape.
        asked: squared lengths of the queries, in a shape that broadcasts to that of the products.
        items: squared lengths of the gallery rows, likewise.
        metric: one of `METRICS`. The Hamming distance of signs is (L - d) / 2, where L is their squared length.
        factors: for the metric dot of scaled codes: the product of the rows is this factor times the product of their
            signs.
    """
    d, q, n = (np.asarray(x, np.float64) for x in (products, asked, items))
    if metric == "dot":
        return (d * factors).astype(np.float32)
    if metric == "hamming":
        return ((q - d) / 2).astype(np.float32)
    key = d * np.abs(d) / np.maximum(n, 1)  # equal cosines have equal keys
    return (np.sign(d) * np.sqrt(np.abs(key) / np.maximum(q, 1))).astype(np.float32)


def _fraction(product: Any, square: Any) -> Fraction:
    d = int(product)
    return Fraction(d * abs(d), int(square))


def _blocks(x: Any) -> Iterator[tuple[np.ndarray, slice]]:
    """Rows as float32 in blocks; the first has one row, which is enough for almost all rows of real numbers."""
    start, stop = 0, 1
    while start < len(x):
        part = slice(start, min(stop, len(x)))
        with np.errstate(over="ignore"):  # a value beyond float32 becomes inf, which is no integer of the range
            yield np.asarray(x[part]).astype(np.float32, copy=False), part
        start, stop = part.stop, part.stop + _ROWS
