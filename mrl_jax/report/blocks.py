"""The parts of a page, as values: what the template knows, and nothing else."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from mrl_jax.report.charts import Spec
from mrl_jax.report.samples import Sample

__all__ = [
    "NOTHING",
    "Block",
    "Cell",
    "Chart",
    "Code",
    "Facts",
    "Hit",
    "Note",
    "Queries",
    "Query",
    "Section",
    "Table",
    "Tile",
    "number_cell",
    "share_cell",
]


class Tile(NamedTuple):
    """A key number: its name, the number as text, a remark, and "", "good" or "bad"."""

    name: str
    value: str
    remark: str = ""
    tone: str = ""


class Hit(NamedTuple):
    """A result of a query, or a neighbour that votes.

    Attributes:
        sample: the sample.
        remark: its score as text, or the labels that it votes for.
        hit: whether it has the class of the query, or votes for the suggested one.
    """

    sample: Sample
    remark: str
    hit: bool


class Cell(NamedTuple):
    """A cell of a table.

    Attributes:
        text: its text.
        sort: the number that it is sorted by; None: by its text.
        tone: "", "good" or "bad".
        more: a second line in small letters, or "".
        sample: a sample, shown in place of the text.
        hits: samples, shown in a row in place of the text.
    """

    text: str
    sort: float | None = None
    tone: str = ""
    more: str = ""
    sample: Sample | None = None
    hits: Sequence[Hit] = ()


NOTHING = Cell("\N{EN DASH}")
"""A cell without a value."""


class Table(NamedTuple):
    """A table that the reader can sort by each column; the first column holds names.

    Attributes:
        caption: one sentence that says how to read it.
        head: titles of the columns.
        rows: cells.
        folded: whether the reader has to open it.
        filters: columns of which the reader can choose a text, to see the rows that have it.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    folded: bool = False
    filters: Sequence[int] = ()
    kind: str = "table"


class Chart(NamedTuple):
    """A chart.

    Attributes:
        title: a few words.
        caption: one sentence that says how to read it.
        spec: the specification.
        least: pixels of its least width; a narrower window scrolls it sideways.
        half: whether two such charts stand side by side where there is room.
    """

    title: str
    caption: str
    spec: Spec
    least: int = 0
    half: bool = False
    kind: str = "chart"


class Facts(NamedTuple):
    """Names and values, as a list."""

    rows: Sequence[tuple[str, str]]
    kind: str = "facts"


class Note(NamedTuple):
    """A paragraph."""

    text: str
    kind: str = "note"


class Code(NamedTuple):
    """Text in a fixed width, under a title; `folded` as of a table."""

    title: str
    text: str
    folded: bool = False
    kind: str = "code"


class Query(NamedTuple):
    """A query, a remark on it, and its results, best first."""

    sample: Sample
    remark: str
    hits: Sequence[Hit]


class Queries(NamedTuple):
    """Queries of one direction."""

    title: str
    rows: Sequence[Query]
    kind: str = "queries"


Block = Table | Chart | Facts | Note | Code | Queries
"""What a section of a page consists of."""


class Section(NamedTuple):
    """A part of the page with a place in its table of contents.

    Attributes:
        anchor: its address within the page.
        title: its heading.
        lead: one or two sentences on what it shows, or "".
        blocks: its content.
    """

    anchor: str
    title: str
    lead: str
    blocks: Sequence[Block]


def number_cell(value: float | None, digits: int = 3, ends: Sequence[float] | None = None, tone: str = "") -> Cell:
    """A number, with its interval if there is one; an empty cell for None and NaN."""
    if value is None or not math.isfinite(value):
        return NOTHING
    more = "" if ends is None else f"[{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]"
    return Cell(f"{value:.{digits}f}", float(value), tone, more)


def share_cell(value: float | None, tone: str = "") -> Cell:
    """A share in percent; an empty cell for None and NaN."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return Cell(f"{value:.1%}", float(value), tone)
