"""FAISS as the engine for galleries beyond one device's memory: approximate, with its recall measured.

Needs `pip install 'mrl_jax[faiss]'`.

Shape letters: Q queries, G gallery items, L embedding dimensions, k results.
"""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from mrl_jax.errors import InputError
from mrl_jax.files import written_whole
from mrl_jax.search.index import Index, as_embeddings, recall, top_k, unit_blocks

__all__ = ["KINDS", "FaissIndex"]

KINDS = ("hnsw", "ivfpq", "flat")
_BLOCK = 65536  # rows added at a time
_TRAINING = 65536  # rows that clusters and codes are fitted on, at most


class FaissIndex:
    """Unit rows in a FAISS index on the host, ranked by cosine similarity; equal scores come in any order.

    Attributes:
        engine: the `faiss.Index`, for all that FAISS offers.
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
        """Build from embeddings.

        Args:
            embeddings: an `Index`, or an array [G, L], which may be a memory map and need not have unit length.
            kind: "hnsw" (a graph over whole rows), "ivfpq" (clusters and codes of few bytes: smallest and least
                exact), or "flat" (exact).
            links: hnsw: neighbours of an item.
            construction: hnsw: candidates looked at for an item that is added.
            effort: hnsw: candidates looked at in a search. ivfpq: clusters looked at.
            lists: ivfpq: clusters; None for 4 sqrt(G), as far as there are 39 rows to fit each.
            code_bytes: ivfpq: bytes of an item's code, a divisor of L; None for the largest divisor up to L / 8. More
                find more; from L / 4 on, fitting them takes a minute or more.
            seed: ivfpq: of the rows that clusters and codes are fitted on.

        Raises:
            InputError: FAISS is not installed, an unknown kind, values that do not fit, NaN or inf, or too few rows.
        """
        faiss = _faiss()
        if kind not in KINDS:
            raise InputError(f"kind {kind!r} is unknown; choose from: {', '.join(KINDS)}")
        for name, value, least in (("links", links, 2), ("construction", construction, 1), ("effort", effort, 1)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InputError(f"{name} {value!r}: it must be an integer of {least} or more")
        if not isinstance(embeddings, Index):
            embeddings = as_embeddings("embeddings", embeddings)
        count, width = len(embeddings), embeddings.width if isinstance(embeddings, Index) else embeddings.shape[1]
        if not count:
            raise InputError("the gallery is empty; it needs 1 item or more")
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
        """Scores float32 [Q, k] and row numbers int64 [Q, k], best first; `Index.found` adds ids and labels.

        Where FAISS finds fewer than k, the score is -inf and the row -1. Scores of "ivfpq" are those of its codes.

        Raises:
            InputError: another number of dimensions, NaN or inf, no query, or a k outside of 1..G.
        """
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= len(self):
            raise InputError(f"k is {k!r}; it must be an integer of 1 to {len(self)}, the size of the gallery")
        queries = as_embeddings("queries", queries, self.engine.d)
        if not len(queries):
            raise InputError("there is no query; give 1 or more")
        rows = np.concatenate(list(unit_blocks("queries", queries, _BLOCK)))
        scores, found = self.engine.search(rows, int(k))
        return np.where(found < 0, -np.inf, scores), found

    def recall(self, queries: Any, gallery: Any, k: int = 10) -> float:
        """Share of the exact results that this index finds.

        Args:
            queries: embeddings [Q, L]; some hundred tell enough.
            gallery: what the index was built from: an `Index`, or an array [G, L].
            k: how many results.
        """
        if len(gallery) != len(self):
            raise InputError(
                f"the gallery has {len(gallery)} rows, this index {len(self)}; give what it was built from"
            )
        exact = gallery.search(queries, k).rows if isinstance(gallery, Index) else top_k(queries, gallery, k)[1]
        return recall(self.search(queries, k)[1], exact)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write FAISS's own file, whole or not at all; ids, labels and payloads stay with `Index.save` or Parquet.

        Raises:
            InputError: it cannot be written.
        """
        with written_whole(Path(path)) as part:
            try:
                _faiss().write_index(self.engine, str(part))
            except RuntimeError as error:
                raise InputError(
                    f"{str(path)!r} cannot be written ({_first_line(error)}); name another file"
                ) from error

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "FaissIndex":
        """Read what `save` wrote. FAISS reads its files as they are: load only those you trust.

        Raises:
            InputError: no such file, or a damaged one.
        """
        if not Path(path).is_file():
            raise InputError(f"index {path} does not exist; name a file that FaissIndex.save wrote")
        try:
            engine = _faiss().read_index(str(path))
            if engine.metric_type != _faiss().METRIC_INNER_PRODUCT:
                raise RuntimeError("it does not rank by inner products")
            return cls(engine)
        except RuntimeError as error:
            raise InputError(f"index {path} cannot be read ({_first_line(error)}); build it anew") from error


def _clustered(
    faiss: Any, embeddings: Any, count: int, width: int, lists: int | None, size: int | None, seed: int
) -> Any:
    if count < 256:
        raise InputError(f"ivfpq needs 256 rows or more to fit its codes, the gallery has {count}; choose hnsw")
    lists = lists or max(1, min(int(4 * count**0.5), min(count, _TRAINING) // 39))
    size = size or max(d for d in range(1, max(1, width // 8) + 1) if width % d == 0)
    if width % size or not 1 <= lists <= count:
        raise InputError(f"ivfpq: {size} bytes must divide the {width} dimensions, {lists} lists be 1 to {count}")
    engine = faiss.IndexIVFPQ(faiss.IndexFlatIP(width), width, lists, size, 8, faiss.METRIC_INNER_PRODUCT)
    engine.cp.min_points_per_centroid = engine.pq.cp.min_points_per_centroid = 1  # no warnings on standard error
    engine.pq.cp.max_points_per_centroid = 64  # of FAISS's 256: a quarter of the time
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
        raise InputError(f"FAISS is not installed ({error}); run: pip install 'mrl_jax[faiss]'") from error
    return faiss


def _first_line(error: Exception) -> str:
    told = (str(error).strip().splitlines() or [type(error).__name__])[0]
    # FAISS begins with "Error in FUNCTION at FILE:LINE: Error: 'CONDITION' failed: ".
    return re.sub(r"^Error in .*? at \S+:\d+: (Error: .* failed: )?", "", told)[:200]
