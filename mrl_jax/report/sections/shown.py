"""Samples to look at: a map of all of them, and queries with their results."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mrl_jax.report.blocks import Block, Chart, Hit, Note, Queries, Query, Section
from mrl_jax.report.charts import COLOURS, points
from mrl_jax.report.memory import Predictions
from mrl_jax.report.opened import OpenedRun
from mrl_jax.report.plane import even_sample, in_plane
from mrl_jax.report.retrieved import Retrieved, example_queries
from mrl_jax.report.samples import Sample, Samples

__all__ = ["PageItems", "example_section", "map_section"]

_TEST, _TRAIN = 1200, 800  # points of the two maps, of all modalities together
_QUERIES, _HITS, _DIRECTIONS = 5, 8, 6  # of each direction, results of each, and directions


class PageItems:
    """The samples that tooltips of the page show, each once: `{"id", "m", "k", "n", "t", "g", "p"}`.

    They are id, modality, class, caption, text, given label ("" where there is none), and number of the picture or -1.
    """

    def __init__(self) -> None:
        self.values: list[dict[str, Any]] = []

    def add(self, sample: Sample, given: str = "") -> int:
        """The number of a sample."""
        about = {"id": sample.id, "m": sample.modality, "k": sample.label, "n": sample.caption, "t": sample.text}
        self.values.append({**about, "g": given, "p": -1 if sample.picture is None else sample.picture})
        return len(self.values) - 1


def map_section(
    opened: OpenedRun, samples: Samples, items: PageItems, found: Mapping[str, Predictions] | None
) -> Section:
    """The samples of the split in a plane, and training samples with their labels.

    Args:
        opened: the run.
        samples: their texts and pictures.
        items: where the tooltips are collected.
        found: what the kept model says of training samples; None leaves these out.
    """
    classes, modalities = list(opened.run.class_names), list(opened.run.modalities)
    labels = opened.embedded.labels
    assert labels is not None
    chosen = {m: even_sample(labels[m], _TEST // len(modalities)) for m in modalities}
    rows = {m: np.asarray(opened.embedded.embeddings[m])[at] for m, at in chosen.items()}
    xy, how = in_plane(rows)
    values = []
    for m, at in chosen.items():
        for place, (x, y) in zip(at.tolist(), xy[m].tolist(), strict=True):
            row = int(opened.embedded.rows_of(m)[place])
            sample = samples.of(m, opened.split, row)
            values.append({"x": _short(x), "y": _short(y), "k": sample.label, "m": m, "i": items.add(sample)})
    caption = (
        f"{len(values):,} samples by {how} of what the run retrieves by: classes should form islands in which all "
        "symbols mix. Point at a sample to see it; a click on a class hides the others."
        + " Colours repeat, as there are many classes."
        * (len(classes) > COLOURS)
    )
    blocks: list[Block] = [Chart(f"Samples of the split {opened.split}", caption, points(values, classes, modalities))]
    if found is not None and any(p.wrong.any() for p in found.values()):
        blocks.append(_training_map(opened, samples, items, found))
    return Section("map", "Map", "Neighbours in the map are neighbours in retrieval; distances between islands tell "
                   "little.", blocks)  # fmt: skip


def _training_map(opened: OpenedRun, samples: Samples, items: PageItems, found: Mapping[str, Predictions]) -> Chart:
    classes, split = list(opened.run.class_names), opened.dataset.splits["train"]
    chosen = {m: even_sample(p.true, _TRAIN // len(found)) for m, p in found.items()}
    features = {m: split.features[m][p.rows[chosen[m]]] for m, p in found.items()}
    xy, how = in_plane(opened.run.represent(features))
    values = []
    for m, at in chosen.items():
        for place, (x, y) in zip(at.tolist(), xy[m].tolist(), strict=True):
            sample = samples.of(m, "train", int(found[m].rows[place]))
            given = classes[int(found[m].given[place])]
            w = "wrong" if found[m].wrong[place] else "right"
            number = items.add(sample, given)
            values.append({"x": _short(x), "y": _short(y), "k": sample.label, "m": m, "i": number, "w": w})
    caption = (
        f"{len(values):,} training samples by {how}, coloured by true class: those with a wrong label have a rim. "
        "If they lie on the islands of their colour, the model saw through the noise."
    )
    return Chart("Training samples", caption, points(values, classes, list(found), wrong=True))


def example_section(opened: OpenedRun, retrieved: Mapping[str, Retrieved], samples: Samples) -> Section:
    """Queries of every direction from bad to good, with their first results."""
    blocks: list[Block] = []
    for name, r in list(retrieved.items())[:_DIRECTIONS]:
        ap = opened.per_query[name]["ap"]
        queries = []
        for q in example_queries(ap, r.query_labels, min(_QUERIES, len(ap))):
            own = samples.of(r.query, opened.split, int(opened.embedded.rows_of(r.query)[q]))
            at = opened.embedded.rows_of(r.gallery)
            hits = [
                Hit(samples.of(r.gallery, opened.split, int(at[row])), f"{score:.2f}", bool(label == r.query_labels[q]))
                for row, score, label in list(zip(r.rows[q], r.scores[q], r.labels[q], strict=True))[:_HITS]
            ]
            queries.append(Query(own, f"AP {ap[q]:.2f}", hits))
        blocks.append(Queries(name.replace("->", " → "), queries))
    if len(retrieved) > _DIRECTIONS:
        blocks.append(Note(f"The first {_DIRECTIONS} of {len(retrieved)} directions are shown."))
    lead = (
        "Queries at even steps of their average precision, from bad to good: not the best ones. Results with the class "
        "of the query are framed green, others red and dashed."
    )
    return Section("examples", "Example queries", lead, blocks)


def _short(value: float) -> float:
    return float(f"{value:.4g}")
