"""Search with a run: the nearest items of a gallery for a text, a picture or a row of the run's data."""

import contextlib
import hashlib
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from mrl_jax.backend import names_backend
from mrl_jax.data.dataset import SPLITS, Dataset, array_sha256
from mrl_jax.data.preprocess import kinds_for
from mrl_jax.errors import InputError
from mrl_jax.methods.registry import hyperparameters_of, method_of
from mrl_jax.notebook import facts_html, facts_text
from mrl_jax.retrieval.similarity import check_metric
from mrl_jax.run.described import shapes_of
from mrl_jax.run.folder import RunFolder
from mrl_jax.run.load import run_data
from mrl_jax.run.model import Run, embed_from_host
from mrl_jax.run.representation import metric_of, represent, representation_of, representation_width
from mrl_jax.run.shapes import params_shapes
from mrl_jax.search.gallery import Gallery, check_modality, check_splits, open_run, read_gallery
from mrl_jax.search.index import Index, top_k
from mrl_jax.search.named import Texts, texts_of
from mrl_jax.search.query import Inputs, query_features, query_inputs, query_modality
from mrl_jax.search.results import default_gallery, is_own, results_of

if TYPE_CHECKING:
    from PIL import Image

    from mrl_jax.search.output import Answers

__all__ = ["Query", "Searcher", "search", "warm_up"]

_FOLDER = "search"  # subfolder of the run's folder that holds embedded galleries
_WARM = 4096  # upper bound on the rows of a gallery whose programs are compiled in advance


class Query(NamedTuple):
    """A query.

    Attributes:
        kind: "text", "image" or "row".
        value: the text, the path of a picture, or MODALITY:SPLIT:INDEX.
        modality: modality that a text or a picture is embedded as; None for the first that takes it.
    """

    kind: str
    value: str
    modality: str | None = None


def search(
    run: Run | str | os.PathLike[str],
    *,
    text: str | None = None,
    image: str | os.PathLike[str] | None = None,
    row: str | None = None,
    top: int = 10,
    modality: str | None = None,
    splits: Sequence[str] = ("test",),
    data: Any = None,
    checkpoint: str | int = "kept",
    metric: str | None = None,
    representation: str | None = None,
) -> dict[str, Any]:
    """Find the nearest items of one query; `Searcher` answers several.

    Args:
        run: the folder of a run, or a `Run`.
        text: a text, for runs on the emoji set or on a file made by `mrl_jax.data.featurize.featurize`.
        image: the path of a picture, for the same runs.
        row: "MODALITY:SPLIT:INDEX", a row of the run's data. Give one of text, image and row.
        top: number of results; a smaller gallery gives fewer.
        modality: modality of the gallery; None for the first that is not the query's.
        splits: splits of the gallery.
        data: anything that `load_dataset` takes; None for the run's own data.
        checkpoint: "kept", "best", "last" or a number of epochs; only used with a folder.
        metric: as of `Searcher`.
        representation: as of `Searcher`.

    Returns:
        As `Searcher.answer`.

    Raises:
        InputError: the run, the data or the query is wrong.
    """
    queries = [Query(k, str(v)) for k, v in (("text", text), ("image", image), ("row", row)) if v is not None]
    if len(queries) != 1:
        raise InputError(f"{len(queries)} queries given; give one of text, image and row")
    return Searcher(run, modality, splits, data, checkpoint, metric, representation).answer(queries[0], top)


class Searcher:
    """A run that answers queries: its model and its galleries stay in memory.

    Embedded galleries are saved in the subfolder `search/` of the run's folder, and reused as long as checkpoint and
    data are the same. This subfolder may be deleted at any time.

    Args:
        run: the folder of a run, or a `Run`, whose galleries are not saved.
        modality: modality of the gallery; None for the first that is not the query's.
        splits: splits of the gallery.
        data: anything that `load_dataset` takes; None for the run's own data.
        checkpoint: "kept", "best", "last" or a number of epochs; only used with a folder.
        metric: "cosine", "dot" or "hamming", see `top_k`; None for "cosine", and for class posteriors "dot".
        representation: "embedding", "posterior" or "both"; None for that of the run.
        texts: texts by id, or a CSV of them, to be shown as the `text` of rows; None for those of the data.
    """

    @names_backend
    def __init__(
        self,
        run: Run | str | os.PathLike[str],
        modality: str | None = None,
        splits: Sequence[str] = ("test",),
        data: Any = None,
        checkpoint: str | int = "kept",
        metric: str | None = None,
        representation: str | None = None,
        texts: Texts = None,
    ) -> None:
        if metric is not None:
            check_metric(metric)
        self.splits = check_splits(splits)
        self.run, self.folder = open_run(run, checkpoint)
        self.representation = self.run.representation_for(representation)
        self.metric = metric or metric_of(self.representation)
        self.modality = None if modality is None else check_modality(self.run, modality)
        self.data, self.texts = data, texts_of(texts)
        self._inputs = query_inputs(self.run, self.folder, data)
        self._galleries: dict[tuple[str, tuple[str, ...]], Index] = {}
        self._origins: dict[tuple[str, str], Gallery] = {}

    @cached_property
    def dataset(self) -> Dataset:
        """The data given, otherwise the run's own data."""
        return run_data(self.run, self.folder, self.data)

    def prepare(self) -> None:
        """Read the data now if the first answer needs them: if no gallery is saved yet."""
        if self.folder is None or not (self.folder.path / _FOLDER).exists():
            _ = self.dataset

    @names_backend
    def answer(self, query: Query | str, top: int = 10) -> dict[str, Any]:
        """Find the nearest items of a query.

        Args:
            query: the query; a string is a text.
            top: number of results; a smaller gallery gives fewer.

        Returns:
            `{"query": {"kind", "value", "modality", …}, "gallery": {"modality", "splits", "size", "epoch",
            "representation", "metric", "ties"}, "results": [{"rank", "score", "label", "hit", "id", "split", "row", …},
            …]}`. `score` is a distance if the metric is "hamming", and for class posteriors the probability of the same
            class. `hit` says whether the result has the label of the query; only queries that are rows have it. A row
            is never among its own results.

        Raises:
            InputError: the query is wrong.
        """
        if isinstance(top, bool) or not isinstance(top, int | np.integer) or top < 1:
            raise InputError(f"top {top!r}: it must be an integer of 1 or more")
        if isinstance(query, str):
            query = Query("text", query)
        if not isinstance(query, Query):
            raise InputError(f"query {query!r}: give a text, or a Query of kind text, image or row")
        described, z = self._row(query.value) if query.kind == "row" else self._typed(query)
        modality = self.modality or default_gallery(self.run.modalities, described["modality"])
        index, own = self.gallery(modality), is_own(described, modality, self.splits)
        nearest = index.search(z, min(top + own, len(index)))
        results = results_of(described, index, nearest.scores[0], nearest.rows[0], int(top), own)
        shown = [self.named(entry) for entry in results]
        return {"query": self.named(described), "gallery": self.about(modality), "results": shown}

    def named(self, entry: dict[str, Any]) -> dict[str, Any]:
        """A query or a result, with the text that was given for its id in place of its name."""
        text = self.texts.get(str(entry.get("id")))
        if not text:
            return entry
        return {k: v for k, v in entry.items() if k not in ("character", "name")} | {"text": text}

    def show(
        self, *queries: Query | str, top: int = 10, pictures: str | os.PathLike[str] | None = None
    ) -> "Image.Image | Answers":
        """Show the nearest items of queries: as a picture, one line per query, or without pictures as a table.

        Args:
            queries: queries, as of `answer`.
            top: number of results of each.
            pictures: folder of pictures named by id; None for those that the data name, or of the emoji set.

        Returns:
            A picture of Pillow, as `search --png` draws it. If the data have no pictures: the answers, which print as a
            table of text, and which notebooks show as one of HTML.

        Raises:
            InputError: no query or a wrong one.
        """
        from mrl_jax.search.output import Answers, grid, has_pictures, pictures_of  # deferred: Pillow

        if not queries:
            raise InputError('no query given; give one or several: show("cat", "dog")')
        if pictures is None and not has_pictures(self):
            return Answers([self.answer(query, top) for query in queries])
        found = pictures_of(self, None if pictures is None else str(pictures))
        return grid([self.answer(query, top) for query in queries], found)

    def __repr__(self) -> str:
        return facts_text("Searcher", self._facts())

    def _repr_html_(self) -> str:
        return facts_html("Searcher", self._facts())

    def _facts(self) -> dict[str, str]:
        where = {} if self.folder is None else {"run": str(self.folder.path)}
        gallery = f"{self.modality or 'the other modality'} of {' '.join(self.splits)}"
        how = {"representation": self.representation, "metric": self.metric}
        return where | {"epoch": str(self.run.epoch), "gallery": gallery} | how

    def about(self, modality: str) -> dict[str, Any]:
        """What the answers of a gallery say of it: "gallery" of `answer`."""
        size = {"modality": modality, "splits": list(self.splits), "size": len(self.gallery(modality))}
        how = {"representation": self.representation, "metric": self.metric, "ties": "gallery order"}
        return size | {"epoch": self.run.epoch} | how

    @property
    def inputs(self) -> Inputs | None:
        """How features of texts and pictures are computed; None if only rows of the data can be queries."""
        return self._inputs

    def _typed(self, query: Query) -> tuple[dict[str, Any], np.ndarray]:
        if query.kind not in ("text", "image"):
            raise InputError(f"query {query.kind!r} is unknown; choose text, image or row")
        modality = query_modality(self.run, self._inputs, query.kind, query.modality)
        assert self._inputs is not None
        z = self._represented(modality, query_features(self._inputs, query.kind, query.value))
        return {"kind": query.kind, "value": query.value, "modality": modality}, z

    def _represented(self, modality: str, features: Any) -> np.ndarray:
        return self.run.represent({modality: features}, self.representation)[modality]

    def _row(self, value: str) -> tuple[dict[str, Any], np.ndarray]:
        described = self._placed(value)
        modality, split, row = described["modality"], described["split"], described["row"]
        if self.folder is not None and 0 < self.folder.data()["samples"][split][modality] <= _WARM:
            index = self.gallery(modality, (split,))  # saved, so that the next start reads no data
            payloads: Sequence[Any] = index.payloads or ()
            at = next((i for i, payload in enumerate(payloads) if payload["row"] == row), None)
            if at is not None:
                described |= {"label": str(index.labels[at]), "id": str(index.ids[at])}  # type: ignore[index]
                return described | payloads[at], index.vectors([at])
        described, features = self.row_of_data(value)
        return described, self._represented(modality, features)

    def _placed(self, value: str) -> dict[str, Any]:
        """The place that MODALITY:SPLIT:INDEX names; there may be no row."""
        modality, split, number = (["", "", *value.rsplit(":", 2)])[-3:]
        if not modality or split not in SPLITS or not (number.isascii() and number.isdigit()):
            raise InputError(
                f"row {value!r}: give MODALITY:SPLIT:INDEX, such as {self.run.modalities[0]}:test:0 "
                f"(splits: {', '.join(SPLITS)}; rows are counted from 0)"
            )
        check_modality(self.run, modality)
        return {"kind": "row", "value": value, "modality": modality, "split": split, "row": int(number)}

    def row_of_data(self, value: str) -> tuple[dict[str, Any], np.ndarray]:
        """A query that is a row, as `answer` describes it, and its features [1, D].

        Args:
            value: MODALITY:SPLIT:INDEX.

        Raises:
            InputError: there is no such row.
        """
        described = self._placed(value)
        modality, split, row = described["modality"], described["split"], described["row"]
        rows = self.dataset.splits[split]
        present = rows.present(modality)
        if row >= len(present):
            raise InputError(f"row {value!r}: {split} has {len(present)} rows of {modality}, 0 to {len(present) - 1}")
        if not present[row]:
            raise InputError(f"row {value!r}: this instance has no {modality}; choose another row")
        if (modality, split) not in self._origins:
            self._origins[modality, split] = read_gallery(
                self.run, self.folder, modality, (split,), self.data, self.dataset
            )
        described["label"] = self.dataset.class_names[rows.labels[modality][row]]
        return described | self._origins[modality, split].about(split, row), rows.features[modality][row : row + 1]

    def gallery(self, modality: str, splits: tuple[str, ...] | None = None) -> Index:
        """The index of a modality's samples, from memory, from the run's folder, or embedded now.

        Args:
            modality: the modality.
            splits: splits of the samples; None for those of the gallery.

        Raises:
            InputError: the data cannot be loaded, or there is no sample.
        """
        splits = splits or self.splits
        if (modality, splits) not in self._galleries:
            index = self._saved(modality, splits)
            if not len(index):
                raise InputError(f"the gallery is empty: no {modality} in {' '.join(splits)}; choose other splits")
            self._galleries[modality, splits] = index
        return self._galleries[modality, splits]

    def _saved(self, modality: str, splits: tuple[str, ...]) -> Index:
        if self.folder is None:
            return self._embedded(modality, splits)
        how = (self.representation, self.metric)
        path, key = _kept_at(self.folder, self.run.modalities, modality, splits, *how), self._key(modality, splits)
        with contextlib.suppress(InputError):  # the file does not exist or is damaged
            index = Index.load(path)
            if index.metadata.get("key") == key and (index.representation, index.metric) == how:
                return index
        index = self._embedded(modality, splits)
        index.metadata = {"key": key, "modality": modality, "splits": list(splits), "epoch": self.run.epoch}
        with contextlib.suppress(InputError, OSError):  # without write permission the gallery is not saved
            path.parent.mkdir(exist_ok=True)
            index.save(path)
        return index

    def _embedded(self, modality: str, splits: tuple[str, ...]) -> Index:
        kind = self.representation
        gallery = read_gallery(self.run, self.folder, modality, splits, self.data, self.dataset, kind)
        index = Index(self.run.width(kind), metric=self.metric, representation=kind)
        gallery.fill(index)
        return index

    def _key(self, modality: str, splits: tuple[str, ...]) -> str:
        """A digest of everything that an embedded gallery depends on: the data and the embedding of them."""
        assert self.folder is not None
        recorded = self.folder.data()
        data = recorded["sha256"] if self.data is None else self.dataset.digest()
        if self.data is not None or recorded.get("shown"):  # texts are saved with the gallery, and may change
            shown = [self.dataset.splits[split].shown.get(modality) for split in splits]
            data += "".join(f" {array_sha256(texts)}" for texts in shown if texts is not None)
        kind = kinds_for(self.run.modalities, self.run.config.preprocess)[modality]
        return hashlib.sha256(f"{data} {modality} {splits} {kind} {self._embedding}".encode()).hexdigest()

    @cached_property
    def _embedding(self) -> str:
        """A digest of what `embed` and `assign` may use: all parameters and hyperparameters, and the preprocessing.

        Earlier versions hashed the encoder of the modality only; their galleries are embedded anew once.
        """
        method, h = method_of(self.run.config), hyperparameters_of(self.run.config)
        arrays, structure = jax.tree.flatten((h, self.run.model.params, dict(self.run.model.preprocess)))
        sha = hashlib.sha256(f"{method.name} {structure}".encode())
        for x in arrays:
            array = np.asarray(x)
            sha.update(f"{array.dtype.str}{array.shape}".encode() + array.tobytes())
        return sha.hexdigest()


def _kept_at(
    folder: RunFolder,
    modalities: Sequence[str],
    modality: str,
    splits: Sequence[str],
    representation: str,
    metric: str | None,
) -> Path:
    how = [] if representation == "embedding" else [representation]
    how += [] if metric in (None, metric_of(representation)) else [str(metric)]
    return folder.path / _FOLDER / f"{'-'.join([str(list(modalities).index(modality)), *splits, *how])}.npz"


def warm_up(
    workdir: str | os.PathLike[str],
    query: str,
    modality: str | None,
    splits: Sequence[str],
    top: int,
    row_split: str | None = None,
    metric: str | None = None,
    representation: str | None = None,
) -> None:
    """Compile what a first answer needs, in a thread, while checkpoint and data are read; on zeros of the same shapes.

    Args:
        workdir: the folder of the run.
        query: modality of the query.
        modality: of the gallery, or None for the first that is not the query's.
        splits: of the gallery.
        top: how many results.
        row_split: for a row of the data: its split.
        metric: as of `Searcher`.
        representation: as of `Searcher`.
    """
    folder = RunFolder.open(workdir)
    config, data = folder.config(), folder.data()
    kind = representation or representation_of(config)
    names = data["modalities"]
    if query not in names:
        return
    modality = modality or next((str(m) for m in names if m != query), query)
    counts = [data["samples"][split][modality] for split in splits]
    tasks = [(query, 1)] if row_split is None else []
    if row_split is not None and not _kept_at(folder, names, query, (row_split,), kind, metric).exists():
        tasks.append((query, data["samples"][row_split][query]))
    if not _kept_at(folder, names, modality, splits, kind, metric).exists():
        tasks += [(modality, count) for count in counts]
    tasks = [(m, count) for m, count in tasks if count <= _WARM]
    method, h = method_of(config), hyperparameters_of(config)
    params = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), params_shapes(config, shapes_of(data)))
    for m, count in tasks:
        rows = np.zeros((count, data["dims"][m]), np.float32)
        represent(method, h, params, embed_from_host(method, h, params, names.index(m), "none", {}, rows), kind)
    width = representation_width(config, params, data["dims"][names[0]], kind)
    gallery = np.zeros((max(sum(counts), 1), width), np.float32)
    if len(gallery) <= _WARM:
        top_k(gallery[:1], gallery, min(top, len(gallery)), metric=metric or metric_of(kind))
