"""Top-k search: the nearest gallery items of each query, exact, block by block on the device.

Shape letters: Q queries, G gallery items, L embedding dimensions, k results.

Conventions as in `retrieval`: items rank by descending cosine similarity in float32, equal ones in gallery order; a
zero vector has similarity 0 to everything.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mrl_jax.errors import InputError
from mrl_jax.search.index_file import read_index, write_index, write_parquet

__all__ = ["Found", "Index", "as_embeddings", "recall", "top_k", "unit_blocks"]

_BLOCK = 8192  # gallery rows that are compared at once
_QUERIES = 1024  # queries at once: the similarities of a block take 32 MiB
_SMALLEST = 512  # rows of the smallest block; others are 4, 16, … times that, so that few programs are compiled


@dataclass(frozen=True)
class Found:
    """What a search found, best first.

    Attributes:
        scores: cosine similarities, float32 [Q, k].
        rows: numbers of the gallery items, int32 [Q, k].
        ids: their ids [Q, k]; the row numbers where the index has none.
        labels: their labels [Q, k], or None where the index has none.
    """

    scores: np.ndarray
    rows: np.ndarray
    ids: np.ndarray
    labels: np.ndarray | None = None

    def hits(self, query_labels: Any) -> np.ndarray:
        """bool [Q, k]: which results have the label of their query; its mean is the precision at k.

        Args:
            query_labels: [Q], of the kind that the index holds.

        Raises:
            InputError: the index has no labels, there is not one label per query, or one side is text.
        """
        if self.labels is None:
            raise InputError("this index holds no labels; build it with labels to tell hits from misses")
        wanted = _column("query labels", query_labels, len(self.rows))
        if (wanted.dtype.kind == "i") != (self.labels.dtype.kind == "i"):
            raise InputError(
                f"query labels are {wanted.dtype}, those of this index {self.labels.dtype}; give the same kind"
            )
        return (self.labels == wanted[:, None]) & (self.rows >= 0)


def top_k(
    queries: Any, gallery: Any, k: int, *, block: int = _BLOCK, approximate: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The k most similar gallery items of every query.

    Args:
        queries: embeddings [Q, L]; need not have unit length.
        gallery: embeddings [G, L], an array or a memory map: one block at a time goes to the device, so that it may be
            larger than the device's memory.
        k: how many, 1 to G.
        block: gallery rows at a time.
        approximate: use `lax.approx_max_k` in each block, which is faster on TPUs.

    Returns:
        Scores float32 [Q, k] and row numbers int32 [Q, k], best first.

    Raises:
        InputError: shapes that do not fit, an empty side, values NaN or inf, or a k outside of 1..G.

    Example:
        >>> import numpy as np
        >>> scores, rows = top_k([[1.0, 0.0]], [[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], k=2)
        >>> rows.tolist(), scores.round(3).tolist()
        ([[1, 2]], [[1.0, 0.7070000171661377]])
    """
    x = as_embeddings("gallery", gallery)
    _check_k(k, len(x))
    block = _block_size(block)
    blocks = ((rows, min(block, len(x) - i * block)) for i, rows in enumerate(_on_device("gallery", x, block)))
    return _search(as_embeddings("queries", queries, x.shape[1]), blocks, k, approximate)


def recall(found: Any, exact: Any) -> float:
    """Share of the exact results [Q, k] that an approximate search found [Q, k], in any order.

    Example:
        >>> recall([[3, 1], [4, 7]], [[1, 3], [4, 9]])
        0.75
    """
    a, b = np.asarray(found), np.asarray(exact)
    if a.shape != b.shape or a.ndim != 2 or not a.size:
        raise InputError(f"recall compares rows of two searches, both [Q, k]; given: {list(a.shape)}, {list(b.shape)}")
    return float((b[:, :, None] == a[:, None, :]).any(axis=2).mean())


class Index:
    """A gallery that can be searched: unit rows on the device, with ids, labels and payloads.

    `Index.build` makes one and `Index.load` reads one.

    Attributes:
        width: L.
        ids: [G] text or integers, or None: row numbers stand for them. They need not be unique.
        labels: [G] text or integers, or None.
        payloads: G values that JSON can hold, or None.
        metadata: what else is kept with it, a mapping that JSON can hold.
    """

    def __init__(self, width: int, block: int = _BLOCK, metadata: Mapping[str, Any] | None = None) -> None:
        if isinstance(width, bool) or not isinstance(width, int) or width < 1:
            raise InputError(f"width {width!r}: it must be an integer of 1 or more")
        self.width, self.metadata = width, dict(metadata or {})
        self.ids: np.ndarray | None = None
        self.labels: np.ndarray | None = None
        self.payloads: list[Any] | None = None
        self._block, self._rows = _block_size(block), 0
        self._blocks: list[Array] = []  # [block, L] each, zero rows at the end; a single one may be smaller

    def __len__(self) -> int:
        return self._rows

    def __repr__(self) -> str:
        return f"Index({self._rows} rows of {self.width} dimensions)"

    @classmethod
    def build(
        cls,
        source: Any,
        *,
        ids: Any = None,
        labels: Any = None,
        payloads: Sequence[Any] | None = None,
        modality: str | None = None,
        splits: Sequence[str] = ("test",),
        data: Any = None,
        checkpoint: str | int = "best",
        block: int = _BLOCK,
    ) -> "Index":
        """An index of embeddings, or of a modality of a run's data.

        Args:
            source: embeddings [G, L], which need not have unit length and may be a memory map; or a `Run`, or the
                folder of one.
            ids: [G] text or integers, for embeddings.
            labels: [G] text or integers, for embeddings. A run's index has the names of the classes.
            payloads: G values that JSON can hold, for embeddings.
            modality: for a run: what to put in; its first modality by default.
            splits: for a run: whose samples to put in.
            data: for a run: anything `load_dataset` takes; None for the data that it was trained on.
            checkpoint: for the folder of a run: "best", "last" or a number of epochs.
            block: rows that are compared at once.

        Raises:
            InputError: anything that does not fit, in one line.
        """
        if not isinstance(source, str | os.PathLike) and not hasattr(source, "embed"):
            x = as_embeddings("embeddings", source)
            index = cls(x.shape[1], block)
            index.add(x, ids=ids, labels=labels, payloads=payloads)
            return index
        if any(given is not None for given in (ids, labels, payloads)):
            raise InputError("ids, labels and payloads of a run come from its data; give them with embeddings only")
        from mrl_jax.search.gallery import open_run, read_gallery  # deferred: embeddings need no run

        run, folder = open_run(source, checkpoint)
        gallery = read_gallery(run, folder, modality or run.modalities[0], splits, data)
        index = cls(run.config.embed_dim, block)
        for part in gallery.parts():
            index.add(part.embeddings, ids=part.ids, labels=part.labels, payloads=part.payloads)
        return index

    def add(self, embeddings: Any, *, ids: Any = None, labels: Any = None, payloads: Any = None) -> None:
        """Append rows [N, L]; they need ids, labels and payloads if, and only if, the index has them.

        Raises:
            InputError: anything that does not fit; the index then stays as it was.
        """
        self._add(embeddings, {"ids": ids, "labels": labels, "payloads": payloads})

    def _add(self, embeddings: Any, given: Mapping[str, Any], unit: bool = False) -> None:
        x = as_embeddings("embeddings", embeddings, self.width)
        given = {name: given.get(name) for name in ("ids", "labels", "payloads")}
        for name, values in given.items():
            if self._rows and (values is None) != (getattr(self, name) is None):
                which = "has none" if values is not None else "has them"
                raise InputError(f"{name}: this index {which}; give {name} for all rows or for none")
        columns: dict[str, Any] = {}
        for name, values in given.items():
            if values is None:
                continue
            new = _payloads(values, len(x)) if name == "payloads" else _column(name, values, len(x))
            columns[name] = new if not self._rows else _joined(name, getattr(self, name), new)
        self._append(x, unit)
        for name, column in columns.items():
            setattr(self, name, column)

    def _append(self, x: np.ndarray, unit: bool) -> None:
        filled, new = self._rows % self._block, []
        room = min(self._block - filled, len(x)) if filled else 0
        if room:  # the last block is written anew
            (more,) = unit_blocks("embeddings", x[:room], self._block)
            rows = np.concatenate([np.asarray(self._blocks[-1])[:filled], more])
            whole = len(self._blocks) > 1 or room < len(x)
            new.append(jax.device_put(_padded(rows, self._block if whole else _SMALLEST, self._block)))
        least = self._block if self._rows else _SMALLEST
        new += _on_device("embeddings", x[room:], self._block, least=least, first=room, unit=unit)
        self._blocks[len(self._blocks) - bool(room) :] = new
        self._rows += len(x)

    def search(self, queries: Any, k: int = 10, *, approximate: bool = False) -> Found:
        """The k nearest items of every query.

        Args:
            queries: embeddings [Q, L]; need not have unit length.
            k: how many, 1 to the size of the gallery.
            approximate: use `lax.approx_max_k`, which is faster on TPUs; `Index.recall` tells what it misses.

        Raises:
            InputError: an empty index or no query, another number of dimensions, NaN or inf, a k outside of 1..G.
        """
        queries = as_embeddings("queries", queries, self.width)
        if not self._rows:
            raise InputError("this index is empty; add embeddings before searching")
        _check_k(k, self._rows)
        counts = (min(self._block, self._rows - i) for i in range(0, self._rows, self._block))
        scores, rows = _search(queries, zip(self._blocks, counts, strict=True), k, approximate)
        return self.found(scores, rows)

    def found(self, scores: np.ndarray, rows: np.ndarray) -> Found:
        """Scores and row numbers [Q, k] of this index with the ids and labels that belong to them.

        Row -1, where another engine found fewer than k, has id and label -1, or the empty text.

        Raises:
            InputError: a row that the index does not have.
        """
        rows = np.asarray(rows)
        self._check_rows(rows, -1)

        def of(column: np.ndarray) -> np.ndarray:
            nothing = -1 if column.dtype.kind == "i" else ""
            return np.where(rows < 0, column.dtype.type(nothing), column[rows])

        ids, labels = rows if self.ids is None else of(self.ids), None if self.labels is None else of(self.labels)
        return Found(np.asarray(scores), rows, ids, labels)

    def recall(self, queries: Any, k: int = 10) -> float:
        """Share of the exact results that the approximate search finds for these queries [Q, L]."""
        return recall(self.search(queries, k, approximate=True).rows, self.search(queries, k).rows)

    def vectors(self, rows: Sequence[int]) -> np.ndarray:
        """The unit rows of some numbers: float32 [N, L].

        Raises:
            InputError: a row that the index does not have.
        """
        self._check_rows(np.asarray(rows), 0)
        return np.stack([np.asarray(self._blocks[i // self._block])[i % self._block] for i in rows])

    def _check_rows(self, rows: np.ndarray, least: int) -> None:
        if rows.dtype.kind not in "iu" or not rows.size or rows.min() < least or rows.max() >= self._rows:
            raise InputError(f"rows must be integers of {least} to {self._rows - 1}, the rows of this index")

    def embeddings(self) -> Iterator[np.ndarray]:
        """The unit rows, in blocks [at most `block`, L]."""
        for i, rows in enumerate(self._blocks):
            yield np.asarray(rows)[: self._rows - i * self._block]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one `.npz` file, whole or not at all.

        Raises:
            InputError: it cannot be written.
        """
        header = {"rows": self._rows, "width": self.width, "metadata": self.metadata}
        columns = {"ids": self.ids, "labels": self.labels, "payloads": self.payloads}
        write_index(Path(path), header, columns, self.embeddings())

    @classmethod
    def load(cls, path: str | os.PathLike[str], block: int = _BLOCK) -> "Index":
        """Read what `save` wrote; nothing in the file is run (no pickle).

        Raises:
            InputError: no such file, another file, another version of the format, or a damaged file.
        """
        header, columns = read_index(Path(path))
        index = cls(header["width"], block, header["metadata"])
        if header["rows"]:
            try:
                index._add(columns["embeddings"], columns, unit=True)  # scaled again, they would differ in the last bit
            except InputError as error:
                raise InputError(f"index {path} is damaged ({error}); build it anew") from error
        return index

    def export_parquet(self, path: str | os.PathLike[str]) -> None:
        """Write `id`, `label`, `payload` (JSON) and `embedding` (float32 list of L) for a vector database.

        Columns that the index lacks are left out, but for `id`: row numbers stand for it.

        Raises:
            InputError: it cannot be written.
        """
        if not self._rows:
            raise InputError("this index is empty; add embeddings before exporting")
        ids = np.arange(self._rows) if self.ids is None else self.ids
        write_parquet(Path(path), self.embeddings(), ids, self.labels, self.payloads)


# ---------------------------------------------------------------------------------------------------------------------
# Searching


def _search(
    queries: np.ndarray, blocks: Iterable[tuple[Array, int]], k: int, approximate: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Run all queries against each block [B, L], of which so many rows count, and keep the best k so far."""
    if not len(queries):
        raise InputError("there is no query; give 1 or more")
    chunks = list(_on_device("queries", queries, _QUERIES, least=1))
    # Made by NumPy: every operation of JAX alone is a program to compile, which a first answer waits for.
    best: list[Any] = [(np.full((len(c), k), -np.inf, np.float32), np.full((len(c), k), -1, np.int32)) for c in chunks]
    start = 0
    for block, count in blocks:
        best = [_merge(b, c, block, start, count, k, approximate) for b, c in zip(best, chunks, strict=True)]
        start += count
        jax.block_until_ready(best)  # else the blocks of a memory map would pile up on the device
    scores, rows = (np.concatenate([np.asarray(b[i]) for b in best])[: len(queries)] for i in (0, 1))
    return scores, rows


@partial(jax.jit, static_argnames=("k", "approximate"))
def _merge(
    best: tuple[Array, Array], queries: Array, block: Array, start: int, count: int, k: int, approximate: bool
) -> tuple[Array, Array]:
    scores = jnp.matmul(queries, block.T, precision="highest")
    scores = jnp.where(scores == 0, 0.0, scores)  # `top_k` would put -0.0 behind 0.0
    scores = jnp.where((jnp.arange(len(block)) < count)[None], scores, -jnp.inf)
    top = jax.lax.approx_max_k if approximate else jax.lax.top_k
    found, at = top(scores, min(k, len(block)))
    # Earlier rows stand first, and of equal values `top_k` takes the first: gallery order.
    scores = jnp.concatenate([best[0], found], axis=1)
    rows = jnp.concatenate([best[1], start + at], axis=1)
    scores, at = jax.lax.top_k(scores, k)
    return scores, jnp.take_along_axis(rows, at, axis=1)


def _block_size(block: int) -> int:
    """The next multiple of 128: in odd sizes, equal rows at different places may get scores that differ by a bit."""
    if isinstance(block, bool) or not isinstance(block, int) or block < 1:
        raise InputError(f"block {block!r}: it must be an integer of 1 or more")
    return -(-block // 128) * 128


def unit_blocks(name: str, x: Any, size: int, first: int = 0, unit: bool = False) -> Iterator[np.ndarray]:
    """Rows of x [N, L] at unit length, float32, so many at a time; zero rows stay zero.

    Args:
        name: of x, for messages.
        x: numbers [N, L]; may be a memory map.
        size: rows at a time.
        first: number of the first row, for messages.
        unit: the rows have unit length already and stay as they are.

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
        if unit:
            yield rows
            continue
        largest = np.abs(rows).max(axis=1, keepdims=True)  # divided by it, squares stay in range
        rows = rows / np.where(largest > 0, largest, 1)
        norm = np.linalg.norm(rows, axis=1, keepdims=True)
        yield rows / np.where(norm > 0, norm, 1)


def _on_device(
    name: str, x: np.ndarray, size: int, least: int = _SMALLEST, first: int = 0, unit: bool = False
) -> Iterator[Array]:
    """Unit rows of x on the device, in blocks of so many, padded with zero rows.

    All blocks have the same size, so that equal rows get equal scores wherever they are; a single one may be smaller.
    """
    for rows in unit_blocks(name, x, size, first, unit):
        yield jax.device_put(_padded(rows, size if len(x) > size else least, size))


def _padded(rows: np.ndarray, least: int, most: int) -> np.ndarray:
    """Rows [n, L] with zero rows behind: a power of 4 times `least` in all, but no more than `most`."""
    while least < len(rows):
        least *= 4
    return np.pad(rows, [(0, min(least, most) - len(rows)), (0, 0)])


# ---------------------------------------------------------------------------------------------------------------------
# Checks


def as_embeddings(name: str, values: Any, width: int | None = None) -> np.ndarray:
    """Check that values are embeddings [N, L], of so many dimensions if given; they are not copied, nor read.

    Raises:
        InputError: they are not.
    """
    try:
        x = np.asanyarray(values)
    except ValueError as error:
        raise InputError(f"{name} are no array [N, L] ({error})") from error
    if x.dtype.name == "bfloat16":  # of JAX; to NumPy it is no number
        x = x.astype(np.float32)
    if x.ndim != 2 or x.dtype.kind not in "fiub" or not x.shape[1]:
        raise InputError(f"{name} are {x.dtype} {list(x.shape)}; they must be numbers [N, L], a single one [1, L]")
    if width is not None and x.shape[1] != width:
        raise InputError(f"{name} have {x.shape[1]} dimensions, the gallery has {width}; embed both by the same run")
    return x


def _check_k(k: Any, size: int) -> None:
    if not size:
        raise InputError("the gallery is empty; it needs 1 item or more")
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= size:
        raise InputError(f"k is {k!r}; it must be an integer of 1 to {size}, the size of the gallery")


def _column(name: str, values: Any, count: int) -> np.ndarray:
    """Ids or labels [N], text or integers."""
    x = np.asarray(values)
    if isinstance(values, list | tuple) and len({isinstance(v, str) for v in values}) > 1:
        raise InputError(f"{name} are text and integers; keep to one of them")
    if x.dtype == object and all(isinstance(v, str) for v in x.flat):
        x = x.astype(str)
    if not len(x) and not count:
        x = x.astype(np.int64)
    if x.shape != (count,) or x.dtype.kind not in "iuUT":
        raise InputError(f"{name} are {x.dtype} {list(x.shape)}; they must be {count} integers or texts, one per row")
    return x.astype(np.int64) if x.dtype.kind in "iu" else x.astype(str)


def _payloads(values: Any, count: int) -> list[Any]:
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise InputError(f"payloads are a {type(values).__name__}; they must be a sequence of {count}, one per row")
    values = list(values)
    if len(values) != count:
        raise InputError(f"payloads: {len(values)} for {count} rows; give one per row")
    try:
        json.dumps(values, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"payloads must be values that JSON can hold ({error})") from error
    return values


def _joined(name: str, old: Any, new: Any) -> Any:
    if name == "payloads":
        return old + new
    if old.dtype.kind != new.dtype.kind:
        raise InputError(f"{name} are {new.dtype}, this index has {old.dtype}; keep to integers or to text")
    return np.concatenate([old, new])
