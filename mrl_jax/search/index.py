"""`Index`: a gallery with ids, labels and payloads that is searched exactly, grows, and is saved.

Shape letters: Q queries, G gallery items, L embedding dimensions, k results.

Items rank as in `exact`.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import Array

from mrl_jax.backend import names_backend
from mrl_jax.errors import InputError
from mrl_jax.json_files import ANY, check_json
from mrl_jax.retrieval.similarity import check_metric
from mrl_jax.search.exact import (
    BLOCK,
    SMALLEST_BLOCK,
    Facts,
    as_embeddings,
    block_size,
    check_k,
    device_blocks,
    facts_of,
    padded,
    recall,
    recall_with_ties,
    search_blocks,
    top_k,
    unit_blocks,
)
from mrl_jax.search.index_file import VERSION_GIVEN, read_index, write_index, write_parquet
from mrl_jax.tensors import from_tensor

__all__ = ["Found", "Index", "recall", "top_k"]


@dataclass(frozen=True)
class Found:
    """Results of a search, best first.

    Attributes:
        scores: cosine similarities, products or Hamming distances, as the metric of the index says, float32 [Q, k].
        rows: row numbers of the gallery items, int32 [Q, k].
        ids: their ids [Q, k]; the row numbers if the index has no ids.
        labels: their labels [Q, k], or None if the index has no labels.
    """

    scores: np.ndarray
    rows: np.ndarray
    ids: np.ndarray
    labels: np.ndarray | None = None

    def hits(self, query_labels: Any) -> np.ndarray:
        """Which results have the label of their query. The mean is the precision at k.

        Args:
            query_labels: text or integers [Q], of the same type as the labels of the index.

        Returns:
            bool [Q, k].

        Raises:
            InputError: the index has no labels, the number of labels is not Q, or only one side is text.
        """
        if self.labels is None:
            raise InputError("this index holds no labels; build it with labels to count hits")
        wanted = _column("query labels", query_labels, len(self.rows))
        if (wanted.dtype.kind == "i") != (self.labels.dtype.kind == "i"):
            raise InputError(
                f"query labels are {wanted.dtype}, those of this index {self.labels.dtype}; give the same type"
            )
        return (self.labels == wanted[:, None]) & (self.rows >= 0)


class Index:
    """A gallery that can be searched: rows on the device, with ids, labels and payloads.

    `Index.build` creates an index, and `Index.load` reads one. Rows are scaled to unit length, unless the metric is not
    the cosine, or all are integers or scaled codes, which are compared exactly and held as they are.

    Attributes:
        width: L.
        metric: "cosine", "dot" or "hamming", see `top_k`.
        ids: [G] text or integers, which need not be unique; None if row numbers are the ids.
        labels: [G] text or integers, or None.
        payloads: G values that JSON can represent, or None.
        metadata: further data that is saved with the index, a mapping that JSON can represent.
        representation: what the rows of a run are; a query is then a row of `run.represent(…, index.representation)`.
    """

    def __init__(
        self,
        width: int,
        block: int = BLOCK,
        metadata: Mapping[str, Any] | None = None,
        metric: str = "cosine",
        representation: str = "embedding",
    ) -> None:
        if isinstance(width, bool) or not isinstance(width, int) or width < 1:
            raise InputError(f"width {width!r}: it must be an integer of 1 or more")
        self.width, self.metadata, self.metric = width, dict(metadata or {}), check_metric(metric)
        self.representation = representation
        self.ids: np.ndarray | None = None
        self.labels: np.ndarray | None = None
        self.payloads: list[Any] | None = None
        self._block, self._rows = block_size(block), 0
        self._blocks: list[Array] = []  # [block, L] each, padded with zero rows; a single block may be smaller
        self._unit = False  # whether they are scaled to unit length
        self._scaled: list[Array] = []  # blocks of integers, scaled for queries that are none
        self._facts = Facts(np.zeros(0, np.int64), 0.0, ("bits", "signs"))

    def __len__(self) -> int:
        return self._rows

    def __repr__(self) -> str:
        return f"Index({self._rows} rows of {self.width} dimensions)"

    @property
    def real(self) -> bool:
        """Whether rows are compared as real numbers, by cosines or products in float32."""
        return self.metric != "hamming" and (self._unit or self._facts.squares is None)

    @classmethod
    @names_backend
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
        checkpoint: str | int = "kept",
        block: int = BLOCK,
        metric: str | None = None,
        representation: str | None = None,
    ) -> "Index":
        """Create an index of embeddings, or of one modality of a run's data.

        Args:
            source: embeddings [G, L], which need not have unit length and may be a memory map; or a `Run`, or the
                folder of a run.
            ids: for embeddings: text or integers [G].
            labels: for embeddings: text or integers [G]. The labels of a run's index are class names.
            payloads: for embeddings: G values that JSON can represent.
            modality: for a run: the modality to index; its first modality by default.
            splits: for a run: the splits to index.
            data: for a run: anything that `load_dataset` takes; None for the data that it was trained on.
            checkpoint: for the folder of a run: "kept", "best", "last" or a number of epochs.
            block: gallery rows that are compared at once.
            metric: "cosine", "dot" or "hamming", see `top_k`; None for "cosine", and for class posteriors "dot".
            representation: for a run: "embedding", "posterior" or "both"; None for that of the run.

        Raises:
            InputError: an argument is wrong or does not fit the others.
        """
        if not isinstance(source, str | os.PathLike) and not hasattr(source, "embed"):
            if representation is not None:
                raise InputError(f"representation {representation}: rows are indexed as they are; give it with a run")
            x = as_embeddings("embeddings", source)
            index = cls(x.shape[1], block, metric="cosine" if metric is None else metric)
            index.add(x, ids=ids, labels=labels, payloads=payloads)
            return index
        if any(given is not None for given in (ids, labels, payloads)):
            raise InputError("ids, labels and payloads of a run come from its data; give them only with embeddings")
        # Deferred: embeddings need no packages of a run.
        from mrl_jax.run.representation import metric_of
        from mrl_jax.search.gallery import open_run, read_gallery

        run, folder = open_run(source, checkpoint)
        kind = run.representation_for(representation)
        gallery = read_gallery(run, folder, modality or run.modalities[0], splits, data, representation=kind)
        index = cls(run.width(kind), block, metric=metric or metric_of(kind), representation=kind)
        gallery.fill(index)
        return index

    @names_backend
    def add(self, embeddings: Any, *, ids: Any = None, labels: Any = None, payloads: Any = None) -> None:
        """Append rows [N, L]. Give ids, labels and payloads if and only if the index has them.

        Raises:
            InputError: an argument does not fit the index, which then stays unchanged.
        """
        self._add(embeddings, {"ids": ids, "labels": labels, "payloads": payloads})

    def _add(self, embeddings: Any, given: Mapping[str, Any], unit: bool = False) -> None:
        x = as_embeddings("embeddings", embeddings, self.width)
        given = {name: given.get(name) for name in ("ids", "labels", "payloads")}
        for name, values in given.items():
            if self._rows and (values is None) != (getattr(self, name) is None):
                which = "has none" if values is not None else "has them"
                raise InputError(f"{name}: this index {which}; give {name} for all rows or for no row")
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
        facts = facts_of("embeddings", x, self.metric, self._facts.kinds)
        given = self.metric != "cosine" or (facts.squares is not None and not self._unit and not unit)
        as_is = given or unit  # neither are scaled
        blocks = self._blocks if given or self._unit else self._unit_blocks()
        filled, new = self._rows % self._block, []
        room = min(self._block - filled, len(x)) if filled else 0
        if room:  # the last block is rebuilt
            (more,) = unit_blocks("embeddings", x[:room], self._block, as_is=as_is)
            rows = np.concatenate([np.asarray(blocks[-1])[:filled], more])
            whole = len(blocks) > 1 or room < len(x)
            new.append(jax.device_put(padded(rows, self._block if whole else SMALLEST_BLOCK, self._block)))
        least = self._block if self._rows else SMALLEST_BLOCK
        new += device_blocks("embeddings", x[room:], self._block, least=least, first=room, as_is=as_is)
        self._blocks = [*blocks[: len(blocks) - bool(room)], *new]
        self._rows += len(x)
        self._unit, self._scaled = not given, []
        old = self._facts
        joined = None
        # Integers beside scaled codes count as real rows, and so do products with rows of different magnitudes.
        if self._rows == len(x) or (old.scaled, old.magnitude) == (facts.scaled, facts.magnitude):
            known = None if old.squares is None or facts.squares is None or self._unit else (old.squares, facts.squares)
            joined = None if known is None else np.concatenate(known)
        scaled = joined is not None and facts.scaled
        magnitude = facts.magnitude if scaled else 1.0
        self._facts = Facts(joined, max(old.length, facts.length), facts.kinds, scaled, magnitude)

    def _unit_blocks(self) -> list[Array]:
        """The blocks, scaled to unit length."""
        if self._unit or not self._blocks:
            return self._blocks
        if not self._scaled:
            scaled = (next(unit_blocks("embeddings", np.asarray(rows), len(rows))) for rows in self._blocks)
            self._scaled = [jax.device_put(rows) for rows in scaled]
        return self._scaled

    @names_backend
    def search(self, queries: Any, k: int = 10, *, approximate: bool = False) -> Found:
        """Find the k nearest items of every query.

        Args:
            queries: embeddings [Q, L]; need not have unit length.
            k: number of results, 1 to the size of the gallery.
            approximate: use `lax.approx_max_k`, which is faster on TPUs; `Index.recall` measures what it misses.

        Raises:
            InputError: an empty index, no query, another number of dimensions, NaN or inf, or a k outside 1..G.
        """
        queries = as_embeddings("queries", queries, self.width)
        if not self._rows:
            raise InputError("this index is empty; add embeddings before the search")
        check_k(k, self._rows)

        def blocks(as_is: bool) -> Iterator[tuple[Array, int]]:
            for i, rows in enumerate(self._blocks if as_is else self._unit_blocks()):
                yield rows, min(self._block, self._rows - i * self._block)

        return self.found(*search_blocks(queries, blocks, self._facts, k, approximate, self.metric))

    def found(self, scores: np.ndarray, rows: np.ndarray) -> Found:
        """Add ids and labels to scores and row numbers [Q, k], such as those of another engine.

        Row -1, by which another engine marks a missing result, gets the id and label -1, or the empty text.

        Raises:
            InputError: the index does not have one of the rows.
        """
        rows = np.asarray(rows)
        self._check_rows(rows, -1)

        def take(column: np.ndarray) -> np.ndarray:
            missing = -1 if column.dtype.kind == "i" else ""
            return np.where(rows < 0, column.dtype.type(missing), column[rows])

        ids = rows if self.ids is None else take(self.ids)
        labels = None if self.labels is None else take(self.labels)
        return Found(np.asarray(scores), rows, ids, labels)

    def recall(self, queries: Any, k: int = 10) -> float:
        """Recall of the approximate search for queries [Q, L]: the fraction of the exact results that it finds.

        By the cosine, a result that is as similar as the last exact one counts too.
        """
        found, exact = self.search(queries, k, approximate=True).rows, self.search(queries, k).rows
        if self.metric != "cosine":
            return recall(found, exact)
        return recall_with_ties(as_embeddings("queries", queries, self.width), self.vectors, found, exact)

    def vectors(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """The rows with the given row numbers, float32 [N, L]: of unit length, or as given (see the class).

        Raises:
            InputError: the index does not have one of the rows.
        """
        numbers = np.asarray(rows)
        self._check_rows(numbers, 0)
        out = np.empty((len(numbers), self.width), np.float32)
        for i in np.unique(numbers // self._block).tolist():  # each block leaves the device once
            here = numbers // self._block == i
            out[here] = np.asarray(self._blocks[i])[numbers[here] % self._block]
        return out

    def _check_rows(self, rows: np.ndarray, least: int) -> None:
        if rows.dtype.kind not in "iu" or not rows.size or rows.min() < least or rows.max() >= self._rows:
            raise InputError(f"rows must be integers from {least} to {self._rows - 1}, the rows of this index")

    def embeddings(self) -> Iterator[np.ndarray]:
        """The rows, in blocks of at most `block` rows [B, L]; of unit length if the metric is the cosine."""
        yield from self._without_padding(self._unit_blocks() if self.metric == "cosine" else self._blocks)

    def _without_padding(self, blocks: Iterable[Array]) -> Iterator[np.ndarray]:
        for i, rows in enumerate(blocks):
            yield np.asarray(rows)[: self._rows - i * self._block]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the index to one `.npz` file, atomically.

        Raises:
            InputError: the file cannot be written.
        """
        header = {"rows": self._rows, "width": self.width, "metadata": self.metadata}
        if not self._unit and (self._rows or self.metric != "cosine"):
            header |= {"version": VERSION_GIVEN, "metric": self.metric}
        if self.representation != "embedding":
            header["representation"] = self.representation
        columns = {"ids": self.ids, "labels": self.labels, "payloads": self.payloads}
        write_index(Path(path), header, columns, self._without_padding(self._blocks))

    @classmethod
    @names_backend
    def load(cls, path: str | os.PathLike[str], block: int = BLOCK) -> "Index":
        """Read a file that `save` wrote, without pickle: no code in the file runs.

        Raises:
            InputError: the file does not exist, is damaged, is no index, or has another version of the format.
        """
        header, columns = read_index(Path(path))
        metric, representation = header.get("metric", "cosine"), header["representation"]
        index = cls(header["width"], block, header["metadata"], metric, representation)
        if header["rows"]:
            try:
                # Scaling again would change last bits.
                index._add(columns["embeddings"], columns, unit=header["version"] != VERSION_GIVEN)
            except InputError as error:
                raise InputError(f"index {path} is damaged ({error}); build it again") from error
        return index

    def export_parquet(self, path: str | os.PathLike[str]) -> None:
        """Write the columns `id`, `label`, `payload` (JSON) and `embedding` (L float32) for a vector database.

        The file has no column for labels or payloads that the index lacks. Without ids, `id` is the row number.

        Raises:
            InputError: the index is empty, or the file cannot be written.
        """
        if not self._rows:
            raise InputError("this index is empty; add embeddings before the export")
        ids = np.arange(self._rows) if self.ids is None else self.ids
        write_parquet(Path(path), self.embeddings(), ids, self.labels, self.payloads)


def _column(name: str, values: Any, count: int) -> np.ndarray:
    """Check ids or labels: text or integers [`count`]."""
    try:
        values = from_tensor(values)
    except InputError as error:  # masked values
        raise InputError(f"{name} are {error}") from error
    x = np.asarray(values)
    if isinstance(values, list | tuple) and len({isinstance(v, str) for v in values}) > 1:
        raise InputError(f"{name} are text and integers; give one of the two")
    if x.dtype == object and all(isinstance(v, str) for v in x.flat):
        x = x.astype(str)
    if x.shape == (0,) == (count,):
        x = x.astype(np.int64)
    if x.shape != (count,) or x.dtype.kind not in "iuUT":
        raise InputError(f"{name} are {x.dtype} {list(x.shape)}; give {count} integers or texts, one per row")
    if x.dtype.kind == "u" and count and x.max() >= 2**63:
        raise InputError(f"{name} hold {x.max()}; give integers below 2^63")
    return x.astype(np.int64) if x.dtype.kind in "iu" else x.astype(str)


def _payloads(values: Any, count: int) -> list[Any]:
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise InputError(f"payloads are a {type(values).__name__}; give a sequence of {count}, one per row")
    values = list(values)
    if len(values) != count:
        raise InputError(f"payloads: {len(values)} for {count} rows; give one per row")
    try:
        check_json(json.loads(json.dumps(values, allow_nan=False)), ANY)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"payloads must be values that JSON can represent ({error})") from error
    return values


def _joined(name: str, old: Any, new: Any) -> Any:
    if name == "payloads":
        return old + new
    if old.dtype.kind != new.dtype.kind:
        raise InputError(f"{name} are {new.dtype}, this index has {old.dtype}; give the same type, integers or text")
    return np.concatenate([old, new])
