"""Sections of an audit on instances: near-duplicates side by side, outliers, and classes that look like one."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mrl_jax.audit.found import Audit
from mrl_jax.report.blocks import Block, Cell, Note, Section, Table, number_cell
from mrl_jax.report.samples import Sample, Samples

__all__ = ["duplicate_section", "given_labels", "merged_section", "outlier_section", "pictured"]

_PAIRS = 60
_OUTLIERS = 40
_MODALITIES = 4  # of an outlier
_MERGED = 40


def pictured(samples: Samples, places: Sequence[tuple[str, int]], split: str = "train") -> Sample:
    """The first of some samples that has a picture, else the first one.

    Args:
        samples: where they are looked up.
        places: (modality, row) of each.
        split: their split.
    """
    first = None
    for modality, row in places:
        sample = samples.of(modality, split, row)
        if sample.picture is not None:
            return sample
        first = first or sample
    assert first is not None
    return first


def given_labels(audit: Audit, instance: int) -> list[str]:
    """The given labels of an instance, each once."""
    there = audit.given[audit.present[:, instance], instance]
    return [audit.class_names[k] for k in dict.fromkeys(there.tolist())]


def duplicate_section(audit: Audit, samples: Samples) -> Section:
    """Pairs of near-duplicates, those across splits first, then those with different labels."""
    pairs = sorted(audit.duplicates, key=lambda d: (d["a"]["split"] == d["b"]["split"], bool(d["same_label"])))
    across = sum(d["a"]["split"] != d["b"]["split"] for d in pairs)
    if not pairs:
        return Section("duplicates", "Near-duplicates", "", [Note("No two instances are near-duplicates.")])
    rows = []
    for d in pairs[:_PAIRS]:
        ends = d["a"], d["b"]
        shown = [pictured(samples, [(m, e["row"]) for m in d["modalities"]], e["split"]) for e in ends]
        split = " and ".join(dict.fromkeys(e["split"] for e in ends))
        rows.append(
            (
                *(_end(e, sample) for e, sample in zip(ends, shown, strict=True)),
                Cell(split),
                Cell(", ".join(d["modalities"])),
                Cell("same" if d["same_label"] else "different", tone="" if d["same_label"] else "bad"),
                number_cell(d["similarity"], 3),
            )
        )
    caption = f"{len(pairs):,} pairs, {across:,} of them across splits. "
    caption += f"The first {len(rows)} are shown; --json has all. " if len(rows) < len(pairs) else ""
    caption += "The similarity is the cosine of the centred features."
    head = ("one", "the other", "splits", "near in", "labels", "similarity")
    lead = (
        "Pairs across splits make test scores too high: keep both in one split. Pairs with different labels are worth "
        "a look: one label is wrong, or the features do not tell them apart."
    )
    return Section("duplicates", "Near-duplicates", lead, [Table(caption, head, rows, filters=(2, 3, 4))])


def _end(end: Mapping[str, Any], sample: Sample) -> Cell:
    return Cell(sample.caption, sample=sample, more=f"{end['split']} {end['row']} · {end['label']}")


def outlier_section(audit: Audit, samples: Samples) -> Section:
    """Instances that are far from every class."""
    far = audit.outliers()
    lead = "Instances far from every class: other things than the classes, broken samples, or rare ones."
    if audit.outlyingness is None or not len(far):
        return Section("outliers", "Outliers", lead, [Note("No instance is far from every class.")])
    chosen = audit.modalities[:_MODALITIES]
    rows = []
    for j in far[:_OUTLIERS].tolist():
        cells = []
        for i, m in enumerate(chosen):
            there = bool(audit.present[i, j])
            sample = samples.of(m, "train", int(audit.rows[i, j])) if there else None
            cells.append(Cell("missing" if sample is None else sample.caption, sample=sample))
        row = int(audit.rows[0, j])
        labels = Cell(", ".join(given_labels(audit, j)))
        rows.append((*cells, Cell(str(row), float(row)), labels, number_cell(float(audit.outlyingness[j]), 3)))
    caption = f"{len(far):,} instances with an outlyingness above {audit.outlier_limit:.3f}, the farthest first."
    caption += f" The first {len(rows)} are shown; --json has all." if len(rows) < len(far) else ""
    table = Table(caption, (*chosen, "row", "given labels", "outlyingness"), rows)
    return Section("outliers", "Outliers", lead, [table])


def merged_section(audit: Audit) -> Section:
    """Pairs of classes that look like one, or that come nearest to it."""
    merged = audit.merged()
    pairs = merged or audit.merged(0.0)[:5]
    rows = [
        (Cell(line["a"]), Cell(line["b"]), number_cell(line["overlap"], 3, tone="bad" if merged else ""))
        for line in pairs[:_MERGED]
    ]
    caption = (
        "The overlap is the mean vote for the other class over the mean vote for the own one: 1 for classes that "
        "cannot be told apart."
    )
    blocks: list[Block] = [] if merged else [Note("No two classes look like one. Those that come nearest:")]
    blocks.append(Table(caption, ("class", "other class", "overlap"), rows))
    if audit.overlap is None or not np.isfinite(audit.overlap).all() or not rows:
        blocks = [Note("No two classes look like one.")]
    lead = "Two classes with an overlap of 0.5 or more may be one class under two names, or need better features."
    return Section("merged", "Classes that look like one", lead, blocks)
