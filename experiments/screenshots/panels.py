"""The same queries in panels side by side, drawn with Pillow: hits green with a tick, misses red with a cross.

Lengths are pixels of the layout, 800 wide, unless said otherwise.
"""

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw

from mrl_jax.search.picture_grid import FRAME, INK, PALE, PAPER, draw_frame, draw_mark, font_for, paste_fitted, wrapped
from mrl_jax.search.picture_grid import SCALE as S

__all__ = ["Panel", "Row", "Shown", "draw_panels"]

_WIDTH, _MARGIN = 800, 16
_QUERY, _COUNT, _BETWEEN = 104, 28, 16  # widths: of the queries, of the counts at the end of a row, between panels
_GAP, _ROW_GAP = 4, 10
_PICTURES, _TEXTS = 40, 56  # heights of rows
_LEGEND, _HEAD, _FOOT = 30, 58, 14
_MARK = 11  # diameter
_LINES = 2  # lines of tiles in a row of texts


class Row(NamedTuple):
    """A query: its name, its class, and its picture, or None if it is the name that is asked for."""

    name: str
    label: str
    picture: Image.Image | None


class Shown(NamedTuple):
    """A result: its name, its picture, or None if it is a text, and whether it is a hit."""

    name: str
    picture: Image.Image | None
    hit: bool


class Panel(NamedTuple):
    """A model: a title, how it was trained, its mAP, and the results of every row."""

    title: str
    training: str
    score: float
    found: Sequence[Sequence[Shown]]

    @property
    def hits(self) -> tuple[int, int]:
        """The number of hits, and of results, in all rows."""
        found = [shown.hit for results in self.found for shown in results]
        return sum(found), len(found)


def draw_panels(rows: Sequence[Row], panels: Sequence[Panel], heading: str, foot: str) -> Image.Image:
    """Draw the queries at the left and a panel for each model beside them, on white.

    Args:
        rows: the queries.
        panels: the models, each with results for every row, equally many.
        heading: a line above all.
        foot: a line below.
    """
    heights = [_TEXTS if row.picture is not None else _PICTURES for row in rows]
    height = 2 * _MARGIN + _LEGEND + _HEAD + sum(heights) + _ROW_GAP * len(rows) + _FOOT
    sheet = Image.new("RGB", (_WIDTH * S, height * S), PAPER)
    draw = ImageDraw.Draw(sheet)
    width = (_WIDTH - 2 * _MARGIN - _QUERY - (len(panels) - 1) * _BETWEEN) / len(panels)
    lefts = [_MARGIN + _QUERY + i * (width + _BETWEEN) for i in range(len(panels))]
    _draw_legend(sheet, draw, heading)
    y = _MARGIN + _LEGEND
    _text(draw, _MARGIN, y + 36, "query", 11, PALE)
    for panel, left in zip(panels, lefts, strict=True):
        _draw_head(draw, panel, left, y, width)
    y += _HEAD
    for i, (row, tall) in enumerate(zip(rows, heights, strict=True)):
        _line(draw, y - _ROW_GAP / 2)
        _draw_query(sheet, draw, row, y, tall)
        for panel, left in zip(panels, lefts, strict=True):
            _draw_results(sheet, draw, panel.found[i], (left, y, width - _COUNT, tall))
        y += tall + _ROW_GAP
    _line(draw, y - _ROW_GAP / 2)
    _text(draw, _MARGIN, y + _FOOT / 2 + 4, foot, 9, PALE)
    return sheet


def _text(
    draw: ImageDraw.ImageDraw,
    x: float,
    y: float,
    text: str,
    size: int,
    ink: str = INK,
    bold: bool = False,
    at: str = "lm",
) -> float:
    """Write a text at a point; returns where it ends."""
    font = font_for(size, text)
    for shift in (0, 1) if bold else (0,):  # the font has no bold letters
        draw.text((x * S + shift, y * S), text, fill=ink, font=font, anchor=at)
    return x + draw.textlength(text, font=font) / S


def _line(draw: ImageDraw.ImageDraw, y: float) -> None:
    draw.line([(_MARGIN * S, y * S), ((_WIDTH - _MARGIN) * S, y * S)], fill=FRAME, width=1)


def _draw_legend(sheet: Image.Image, draw: ImageDraw.ImageDraw, heading: str) -> None:
    y = _MARGIN + 8
    _text(draw, _MARGIN, y, heading, 13)
    x: float = _WIDTH - _MARGIN
    for hit, words in ((False, "miss"), (True, "hit: an item of the class of the query")):
        x -= draw.textlength(words, font=font_for(11, words)) / S
        _text(draw, x, y, words, 11, PALE)
        draw_mark(sheet, round((x - 11) * S), round(y * S), hit, 14)
        x -= 34


def _draw_head(draw: ImageDraw.ImageDraw, panel: Panel, left: float, top: float, width: float) -> None:
    _text(draw, left, top + 16, panel.title, 16, bold=True)
    _text(draw, left, top + 36, panel.training, 11, PALE)
    x = _text(draw, left + width, top + 15, f"{panel.score:.2f}", 18, bold=True, at="rm")
    x = left + width - (x - left - width) - 6
    _text(draw, x, top + 16, "test mAP", 11, PALE, at="rm")
    hits, results = panel.hits
    _text(draw, left + width, top + 36, f"{hits} of {results} hit", 11, PALE, at="rm")


def _draw_query(sheet: Image.Image, draw: ImageDraw.ImageDraw, row: Row, top: float, tall: int) -> None:
    left, room = _MARGIN, _QUERY - 10
    if row.picture is not None:
        side = 38
        paste_fitted(sheet, row.picture, left * S, round((top + (tall - side) / 2) * S), side * S)
        left, room = left + side + 7, room - side - 7
    lines = [(part, 9, PALE) for part in wrapped(draw, row.label, font_for(9, row.label), room * S, 3)]
    if row.picture is None:
        size, most = (12, 2) if len(wrapped(draw, row.name, font_for(12, row.name), room * S, 3)) <= 2 else (10, 3)
        names = wrapped(draw, row.name, font_for(size, row.name), room * S, most)
        lines = [(part, size, INK) for part in names] + lines
    y = top + (tall - sum(size * 1.2 for _, size, _ in lines)) / 2
    for part, size, ink in lines:
        _text(draw, left, y + size * 0.6, part, size, ink, bold=ink == INK)
        y += size * 1.2


def _draw_results(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, results: Sequence[Shown], box: tuple[float, float, float, float]
) -> None:
    """Draw the tiles of a row in a box (left, top, width, height), and the number of hits at their right."""
    left, top, width, tall = box
    lines = 1 if results[0].picture is not None else _LINES
    columns = -(-len(results) // lines)
    wide, high = (width - (columns - 1) * _GAP) / columns, (tall - (lines - 1) * _GAP) / lines
    for i, shown in enumerate(results):
        line, column = divmod(i, columns)
        x, y = left + column * (wide + _GAP), top + line * (high + _GAP)
        _draw_tile(sheet, draw, shown, (x, y, wide, high))
    hits = sum(shown.hit for shown in results)
    _text(draw, left + width + _COUNT, top + tall / 2, f"{hits}/{len(results)}", 11, at="rm")


def _draw_tile(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, shown: Shown, box: tuple[float, float, float, float]
) -> None:
    left, top, wide, high = box
    edges = [round(edge * S) for edge in (left, top, left + wide, top + high)]
    draw_frame(draw, (edges[0], edges[1], edges[2], edges[3]), shown.hit)
    if shown.picture is not None:
        side = min(wide, high) - 8
        at = (round((left + (wide - side) / 2) * S), round((top + (high - side) / 2) * S))
        paste_fitted(sheet, shown.picture, *at, round(side * S))
    else:
        font, step = font_for(9, shown.name), 10.5
        words = wrapped(draw, shown.name, font, round((wide - 9) * S), 2)
        y = top + high / 2 - (len(words) - 1) * step / 2
        for part in words:
            draw.text(((left + 5) * S, y * S), part, fill=INK, font=font, anchor="lm")
            y += step
    draw_mark(sheet, round((left + wide - 1) * S), round((top + 1) * S), shown.hit, _MARK)
