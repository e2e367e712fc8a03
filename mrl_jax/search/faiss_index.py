"""FAISS for galleries that exceed the memory of one device: approximate search with measured recall.

Needs `pip install faiss-cpu`.

Shape letters: Q queries, G gallery items, L embedding dimensions, k results.
"""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from mrl_jax.errors import InputError
from mrl_jax.files import atomic_path
from mrl_jax.search.exact import as_embeddings, recall_with_ties, top_k, unit_blocks
from mrl_jax.search.index import Index

__all__ = ["KINDS", "FaissIndex"]

KINDS = ("hnsw", "ivfpq", "flat")
"""Kinds of FAISS index: a graph, inverted lists of compressed rows, and the exact one."""
_BLOCK = 65536  # rows added at a time
_TRAINING = 65536  # upper bound on the rows that clusters and codes are fitted on


class FaissIndex:
    """Unit rows in a FAISS index on the host, ranked by cosine similarity; the order of ties is arbitrary.

    Attributes:
        engine: the `faiss.Index` itself.
    """

    def __init__(self, engine: Any) -> None:
        self.engine = engine

    def __len__(self) -> int:
        return int(self.engine.ntotal)

    def __repr__(self) -> str:
        return f"FaissIndex({type(self.engine).__name__}, {len(self)} rows of {self.engine.d} dimensions)"

    @classmethod
    def build(
        cls,
        embeddings: Any,
        kind: str = "hnsw",
        *,
        links: int = 32,
        construction: int = 200,
        effort: int = 128,
        lists: int | None = None,
        code_bytes: int | None = None,
        seed: int = 0,
    ) -> "FaissIndex":
        """Build an index of embeddings.

        Args:
            embeddings: an `Index`, or an array [G, L], which may be a memory map and need not have unit length.
            kind: "hnsw" (a graph over the rows), "ivfpq" (clusters and codes of few bytes: smallest and least exact),
                or "flat" (exact).
            links: hnsw: neighbours per item.
            construction: hnsw: candidates compared when an item is added.
            effort: hnsw: candidates compared in a search. ivfpq: clusters searched.
            lists: ivfpq: number of clusters; None for 4 sqrt(G), or fewer so that each has 39 rows to be fitted on.
            code_bytes: ivfpq: bytes of an item's code, a divisor of L; None for the largest divisor up to L / 8. More
                bytes give a higher recall; from L / 4 on, fitting takes a minute or more.
            seed: ivfpq: seed for the choice of rows that clusters and codes are fitted on.

        Raises:
            InputError: FAISS is not installed, the kind is unknown, a value is out of range, the embeddings hold NaN
                or inf, or there are too few rows.
        """
        faiss = _faiss()
        if kind not in KINDS:
            raise InputError(f"kind {kind!r} is unknown; choose from {', '.join(KINDS)}")
        for name, value, lower in (("links", links, 2), ("construction", construction, 1), ("effort", effort, 1)):
            if isinstance(value, bool) or not isinstance(value, int) or value < lower:
                raise InputError(f"{name} {value!r}: it must be an integer of {lower} or more")
        if not isinstance(embeddings, Index):
            embeddings = as_embeddings("embeddings", embeddings)
        elif embeddings.metric != "cosine":
            raise InputError(
                f"the index ranks by {embeddings.metric}, FAISS here by cosine; give one built by cosine "
                "(of a run: representation='embedding')"
            )
        count, width = len(embeddings), embeddings.width if isinstance(embeddings, Index) else embeddings.shape[1]
        if not count:
            raise InputError("the gallery is empty; give 1 row or more")
        if kind == "ivfpq":
            engine = _clustered(faiss, embeddings, count, width, lists, code_bytes, seed)
            engine.nprobe = min(effort, engine.nlist)
        elif kind == "hnsw":
            engine = faiss.IndexHNSWFlat(width, links, faiss.METRIC_INNER_PRODUCT)
            engine.hnsw.efConstruction, engine.hnsw.efSearch = construction, effort
        else:
            engine = faiss.IndexFlatIP(width)
        for rows in _blocks(embeddings):
            engine.add(rows)
        return cls(engine)

    def search(self, queries: Any, k: int = 10) -> tuple[np.ndarray, np.ndarray]:
        """Find the k nearest items of every query; `Index.found` adds their ids and labels.

        Returns:
            Scores float32 [Q, k] and row numbers int64 [Q, k], best first. Where FAISS finds fewer than k items, the
            score is -inf and the row -1. Scores of "ivfpq" are those of its codes.

        Raises:
            InputError: another number of dimensions, NaN or inf, no query, or a k outside 1..G.
        """
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= len(self):
            raise InputError(f"k is {k!r}; it must be an integer from 1 to {len(self)}, the size of the gallery")
        queries = as_embeddings("queries", queries, self.engine.d)
        if not len(queries):
            raise InputError("there is no query; give 1 or more")
        rows = np.concatenate(list(unit_blocks("queries", queries, _BLOCK)))
        scores, numbers = self.engine.search(rows, int(k))
        return np.where(numbers < 0, -np.inf, scores), numbers

    def recall(self, queries: Any, gallery: Any, k: int = 10) -> float:
        """Recall of this index: the fraction of the exact results that it finds.

        A result that is as similar as the last exact one counts too: FAISS takes any of the items that tie.

        Args:
            queries: embeddings [Q, L]; some hundred are enough.
            gallery: the `Index` or the array [G, L] that this index was built from.
            k: number of results.

        Raises:
            InputError: the gallery has another number of rows; otherwise as `search`.
        """
        if len(gallery) != len(self):
            raise InputError(
                f"the gallery has {len(gallery)} rows, this index {len(self)}; give the gallery of this index"
            )
        found, queries = self.search(queries, k)[1], as_embeddings("queries", queries, self.engine.d)
        if isinstance(gallery, Index):
            return recall_with_ties(queries, gallery.vectors, found, gallery.search(queries, k).rows)
        x = as_embeddings("gallery", gallery)
        return recall_with_ties(queries, lambda rows: x[rows], found, top_k(queries, x, k)[1])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a file of FAISS's own format, atomically; it has no ids, labels or payloads.

        Raises:
            InputError: the file cannot be written.
        """
        with atomic_path(Path(path)) as part:
            try:
                _faiss().write_index(self.engine, str(part))
            except RuntimeError as error:
                raise InputError(
                    f"{str(path)!r} cannot be written ({_first_line(error)}); give another file"
                ) from error

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "FaissIndex":
        """Read a file that `save` wrote. FAISS does not check its files: load only files that you trust.

        Raises:
            InputError: the file does not exist or is damaged.
        """
        if not Path(path).is_file():
            raise InputError(f"index {path} does not exist; give a file that FaissIndex.save wrote")
        try:
            engine = _faiss().read_index(str(path))
            if engine.metric_type != _faiss().METRIC_INNER_PRODUCT:
                raise RuntimeError("it does not rank by inner product")
            return cls(engine)
        except RuntimeError as error:
            raise InputError(f"index {path} cannot be read ({_first_line(error)}); build it again") from error


def _clustered(
    faiss: Any, embeddings: Any, count: int, width: int, lists: int | None, size: int | None, seed: int
) -> Any:
    if count < 256:
        raise InputError(f"ivfpq needs 256 rows or more to fit its codes, the gallery has {count}; choose hnsw")
    lists = lists or max(1, min(int(4 * count**0.5), min(count, _TRAINING) // 39))
    size = size or max(d for d in range(1, max(1, width // 8) + 1) if width % d == 0)
    if width % size or not 1 <= lists <= count:
        raise InputError(
            f"ivfpq: code_bytes is {size}, lists is {lists}; code_bytes must divide {width}, lists be 1 to {count}"
        )
    engine = faiss.IndexIVFPQ(faiss.IndexFlatIP(width), width, lists, size, 8, faiss.METRIC_INNER_PRODUCT)
    engine.cp.min_points_per_centroid = engine.pq.cp.min_points_per_centroid = 1  # prevents warnings on standard error
    engine.pq.cp.max_points_per_centroid = 64  # FAISS takes 256: 64 take a quarter of the time
    chosen = np.sort(np.random.default_rng(seed).permutation(count)[:_TRAINING])
    start, parts = 0, []
    for rows in _blocks(embeddings):
        parts.append(rows[chosen[(chosen >= start) & (chosen < start + len(rows))] - start])
        start += len(rows)
    engine.train(np.concatenate(parts))
    return engine


def _blocks(embeddings: Any) -> Any:
    if isinstance(embeddings, Index):
        return embeddings.embeddings()
    return unit_blocks("embeddings", embeddings, _BLOCK)


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise InputError(f"FAISS is not installed ({error}); run: pip install faiss-cpu") from error
    return faiss


def _first_line(error: Exception) -> str:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    # FAISS begins with "Error in FUNCTION at FILE:LINE: Error: 'CONDITION' failed: ".
    return re.sub(r"^Error in .*? at \S+:\d+: (Error: .* failed: )?", "", line)[:200]
