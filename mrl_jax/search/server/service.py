"""Answers of the server: a run with its galleries in memory, asked for several queries at once.

Shape letters: Q queries, D features, L what rows are compared by, k results.

All shapes that reach JAX are one of a few, which `warm_up` compiles before the port opens.
"""

import functools
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from mrl_jax.data.dataset import SPLITS
from mrl_jax.errors import InputError
from mrl_jax.names import printable
from mrl_jax.search.index import Index
from mrl_jax.search.query import query_features, query_modality
from mrl_jax.search.results import default_gallery, is_own, results_of
from mrl_jax.search.searcher import Searcher
from mrl_jax.search.server.kinds import Guarded, taking, why_closed
from mrl_jax.search.server.limits import Limits, RefusedError
from mrl_jax.search.server.nearest import TOGETHER, Nearest, filled

__all__ = ["Ask", "Service"]


class Ask(NamedTuple):
    """A query of a client.

    Attributes:
        kind: "text", "image" or "row".
        value: the text, MODALITY:SPLIT:INDEX, or a name of the picture to show.
        top: number of results.
        gallery: modality of the gallery; None for the first that is not the query's.
        modality: modality that a text or picture is embedded as; None for the first that takes it.
        features: of a picture [1, D].
    """

    kind: str
    value: str
    top: int
    gallery: str | None = None
    modality: str | None = None
    features: np.ndarray | None = None


@dataclass
class _Query:
    """An `Ask` that is understood: z [1, L] is what it is compared by, or None as long as there are only features."""

    described: dict[str, Any]
    gallery: str
    top: int
    features: np.ndarray | None
    z: np.ndarray | None


class Service:
    """A run that answers several queries at once, for one thread.

    Attributes:
        searcher: the run, its data and its splits.
        galleries: modality -> index, for modalities with a sample in the splits.
        limits: bounds.
        closed: kind of query, "text" or "image" -> why the run does not take it.

    Raises:
        InputError: there is no sample in any modality, or the data cannot be read.
    """

    def __init__(self, searcher: Searcher, limits: Limits) -> None:
        self.searcher, self.limits = searcher, limits
        dataset, splits = searcher.dataset, searcher.splits
        here = [m for m in searcher.run.modalities if any(dataset.splits[s].present(m).any() for s in splits)]
        self.galleries = {m: searcher.gallery(m) for m in here or searcher.run.modalities}
        self._nearest = {m: Nearest(m, self.galleries) for m in self.galleries}
        self._places = {m: _places(index) for m, index in self.galleries.items()}
        self.closed = {k: why_closed(k) for k in ("text", "image") if not taking(searcher.inputs, k)}

    def taking(self, kind: str) -> tuple[str, ...]:
        """Modalities that a text or a picture can be embedded as."""
        return () if kind in self.closed else taking(self.searcher.inputs, kind)

    def answer(self, asks: Sequence[Ask]) -> list[dict[str, Any] | InputError | RefusedError]:
        """Answers in the form of `Searcher.answer`, or for wrong queries the error."""
        answers: list[Any] = [None] * len(asks)
        queries: dict[int, _Query] = {}
        for i, ask in enumerate(asks):
            try:
                queries[i] = self._understood(ask)
            except (InputError, RefusedError) as error:
                answers[i] = error
        self._embed([q for q in queries.values() if q.z is None])
        by_gallery = defaultdict(list)
        for i, query in queries.items():
            by_gallery[query.gallery].append((i, query))
        for gallery, asked in by_gallery.items():
            index = self.galleries[gallery]
            scores, rows = self._nearest[gallery]([q.z for _, q in asked], max(q.top for _, q in asked) + 1)
            about = self.searcher.about(gallery)
            for (i, q), s, r in zip(asked, scores, rows, strict=True):
                own = is_own(q.described, gallery, self.searcher.splits)
                found = results_of(q.described, index, s[: q.top + own], r[: q.top + own], q.top, own)
                named = [self.searcher.named(entry) for entry in found]
                answers[i] = {"query": self.searcher.named(q.described), "gallery": about, "results": named}
        return answers

    def _understood(self, ask: Ask) -> _Query:
        gallery = ask.gallery
        if gallery is not None and gallery not in self.galleries:
            raise InputError(f"gallery {gallery!r} is not there; choose from {', '.join(self.galleries)}")
        if ask.kind == "row":
            described, features, z = self._row(ask.value)
        else:
            described, features, z = *self._typed(ask), None
        names = list(self.galleries)
        return _Query(described, gallery or default_gallery(names, described["modality"]), ask.top, features, z)

    def _row(self, value: str) -> tuple[dict[str, Any], np.ndarray | None, np.ndarray | None]:
        modality, split, number = (["", "", *value.rsplit(":", 2)])[-3:]
        known = number.isascii() and number.isdigit() and len(number) < 10
        at = self._places.get(modality, {}).get((split, int(number))) if known else None
        if at is None:  # of another split, or wrong
            described, features = self.searcher.row_of_data(value)
            return {"id": f"{described['split']}:{described['row']}"} | described, features, None
        index = self.galleries[modality]
        described = {"kind": "row", "value": value, "modality": modality} | index.payloads[at]  # type: ignore[index]
        described |= {"label": str(index.labels[at]), "id": str(index.ids[at])}  # type: ignore[index]
        return described, None, index.vectors([at])

    def _typed(self, ask: Ask) -> tuple[dict[str, Any], np.ndarray]:
        if ask.kind in self.closed:
            raise InputError(self.closed[ask.kind])
        modality = query_modality(self.searcher.run, self.searcher.inputs, ask.kind, ask.modality)
        features = ask.features
        if features is None:
            assert self.searcher.inputs is not None
            features = query_features(Guarded(self.searcher.inputs), ask.kind, ask.value)
        return {"kind": ask.kind, "value": ask.value, "modality": modality}, features

    def row(self, modality: str, split: str, row: int) -> dict[str, Any] | None:
        """What is shown of a row, of the galleries or of another split; None if there is no such row."""
        at = self._places.get(modality, {}).get((split, row))
        if at is not None:
            return self.entry(modality, at)
        try:
            return self._row(f"{modality}:{split}:{row}")[0]
        except InputError:
            return None

    def entry(self, modality: str, number: int) -> dict[str, Any]:
        """What is shown of an item of a gallery: id, label, split, row, and its name if it has one."""
        index = self.galleries[modality]
        assert index.ids is not None
        assert index.labels is not None
        assert index.payloads is not None
        entry = {"id": str(index.ids[number]), "label": str(index.labels[number])} | index.payloads[number]
        return self.searcher.named(entry)

    @functools.cache  # noqa: B019 - a service lives as long as its process
    def words(self, modality: str) -> list[str]:
        """What each item of a gallery can be found by: all that is shown of it, in small letters."""
        return [
            " ".join(str(v) for k, v in self.entry(modality, i).items() if k not in ("split", "row")).casefold()
            for i in range(len(self.galleries[modality]))
        ]

    def picture_features(self, path: str) -> np.ndarray:
        """Features [1, D] of a picture file that can be read.

        Raises:
            RefusedError: they cannot be computed.
        """
        assert self.searcher.inputs is not None
        return Guarded(self.searcher.inputs).features("image", path)

    def _embed(self, queries: Iterable[_Query]) -> None:
        by_modality = defaultdict(list)
        for query in queries:
            by_modality[query.described["modality"]].append(query)
        for modality, asked in by_modality.items():
            z = self._represented(modality, [q.features for q in asked])
            for query, row in zip(asked, z, strict=True):
                query.z = row[None]

    def _represented(self, modality: str, features: Sequence[Any]) -> np.ndarray:
        x = filled(features)
        return self.searcher.run.represent({modality: x}, self.searcher.representation)[modality][: len(features)]

    def warm_up(self) -> None:
        """Compile every shape and load what features need, so that no request waits for it.

        A kind of query whose features cannot be computed here is closed, with a word on standard error.
        """
        for kind, sample in (("text", "a"), ("image", None)):
            if self.taking(kind):
                try:
                    self._warm_up(kind, sample)
                except InputError as error:
                    print(f"warning: no query is a {kind}: {printable(error)}", file=sys.stderr)
                    self.closed[kind] = f"the features of a {kind} cannot be computed on this server; give a row"
        dims = self.searcher.dataset.dims
        for modality, nearest in self._nearest.items():
            nearest.warm_up()
            for count in TOGETHER:
                self._represented(modality, [np.zeros((1, dims[modality]), np.float32)] * count)
            self.words(modality)
        for split in (s for s in SPLITS if s not in self.searcher.splits):  # their rows may be queries, too
            for modality in self.searcher.run.modalities:
                present = np.flatnonzero(self.searcher.dataset.splits[split].present(modality))
                if len(present):
                    self.searcher.row_of_data(f"{modality}:{split}:{present[0]}")

    def _warm_up(self, kind: str, sample: str | None) -> None:
        import tempfile

        from PIL import Image

        assert self.searcher.inputs is not None
        if sample is not None:
            self.searcher.inputs.features(kind, sample)
            return
        with tempfile.NamedTemporaryFile(suffix=".png") as file:
            Image.new("RGB", (72, 72), "red").save(file.name)
            self.searcher.inputs.features(kind, file.name)


def _places(index: Index) -> dict[tuple[str, int], int]:
    """Split and row of each item -> its row number in the index."""
    return {(p["split"], p["row"]): i for i, p in enumerate(index.payloads or ())}
