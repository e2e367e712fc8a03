"""The table of the labels that an audit suspects, with their samples."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mrl_jax.report.blocks import Cell, Hit, Table, number_cell, share_cell
from mrl_jax.report.samples import Sample, Samples

__all__ = ["Line", "suspect_table"]

Line = Mapping[str, Any]
"""A line of `Audit.lines`."""


def suspect_table(
    suspects: Sequence[Line],
    samples: Samples,
    caption: str,
    neighbours: Callable[[Line], Sequence[Hit]] | None = None,
    truth: bool = False,
) -> Table | None:
    """Samples whose given label is doubtful, with what speaks against it; None if there are none.

    Args:
        suspects: lines of an audit, the most doubtful first.
        samples: where the samples of the training split are looked up.
        caption: how to read the table.
        neighbours: the neighbours of a line; None leaves them out.
        truth: whether the labels of the data are known to be true, and shown.
    """
    if not suspects:
        return None
    found = [samples.of(line["modality"], "train", line["row"]) for line in suspects]
    margins = any(line["margin"] is not None for line in suspects)
    columns: dict[str, list[Cell]] = {
        "sample": [Cell(s.caption, sample=s, more=_place(line, s)) for line, s in zip(suspects, found, strict=True)],
        "modality": [Cell(line["modality"]) for line in suspects],
        "given label": [Cell(line["given"]) for line in suspects],
        "suggested label": [Cell(line["suggested"]) for line in suspects],
    }
    filters = [list(columns).index(name) for name in ("modality", "given label", "suggested label")]
    if truth:
        columns["true label"] = [
            Cell(s.label, tone=_tone(line, s.label)) for line, s in zip(suspects, found, strict=True)
        ]
    columns["p(wrong)"] = [share_cell(line["p_wrong"]) for line in suspects]
    columns["agreement"] = [share_cell(line["agreement"]) for line in suspects]
    if margins:
        columns["margin"] = [number_cell(line["margin"], 2) for line in suspects]
    if neighbours is not None:
        shown = [neighbours(line) for line in suspects]
        columns["neighbours"] = [Cell(f"{sum(h.hit for h in own)}", float(sum(h.hit for h in own)), hits=own)
                                 for own in shown]  # fmt: skip
    return Table(caption, tuple(columns), list(zip(*columns.values(), strict=True)), filters=filters)


def _place(line: Line, sample: Sample) -> str:
    """The row of a suspect, and its id where the data have ids that the caption does not show."""
    return f"row {line['row']}" + (f" · {line['id']}" if line["id"] not in (None, sample.caption) else "")


def _tone(line: Line, label: str) -> str:
    """Whether the suggestion is right, or a right label was suspected."""
    return "good" if label == line["suggested"] else "bad" if label == line["given"] else ""
