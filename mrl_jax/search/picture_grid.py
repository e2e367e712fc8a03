"""A grid of pictures, drawn with Pillow: one line per query, its results side by side."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

from PIL import Image, ImageDraw, ImageFont

from mrl_jax.data.pictures import opened, picture_errors
from mrl_jax.display.drawing import font_file

__all__ = [
    "FRAME",
    "INK",
    "PALE",
    "PAPER",
    "SCALE",
    "Line",
    "Tile",
    "draw_frame",
    "draw_grid",
    "draw_mark",
    "font_for",
    "open_picture",
    "paste_fitted",
    "wrapped",
]

SCALE = 2
"""Pixels of the file per pixel of the layout, for screens of high resolution."""
INK = "#1f2328"
"""Colour of text."""
PALE = "#6e7781"
"""Colour of text that matters less."""
FRAME = "#d8dee4"
"""Colour of frames."""
PAPER = "#ffffff"
"""Colour of the background."""
_HIT, _MISS = "#1a7f37", "#cf222e"
_TILE, _PICTURE, _LEFT, _GAP, _MARGIN = 84, 60, 104, 6, 14
_WORDS, _LINES = 11, 2  # font size of captions, and upper bound on their lines
_MARK = 14  # diameter of a mark
_SMOOTH = 4  # a mark is drawn so many times as large, and reduced


class Tile(NamedTuple):
    """One result: caption, score, picture or None, and whether it is a hit, or None if that is unknown."""

    caption: str
    score: str
    picture: Image.Image | None
    hit: bool | None


class Line(NamedTuple):
    """One query, as text or as a picture with text; its results; and notes on them, such as the class of the query."""

    title: str
    picture: Image.Image | None
    tiles: Sequence[Tile]
    notes: Sequence[str] = ()


def open_picture(source: Any) -> Image.Image | None:
    """Read a picture from a path or file, in one of `data.pictures.FORMATS`, as RGBA; None stays None.

    Raises:
        InputError: the picture cannot be read, or is in another format.
    """
    if source is None:
        return None
    with picture_errors(source, "replace it"), opened(source) as picture:
        return picture.convert("RGBA")


def draw_grid(lines: Sequence[Line]) -> Image.Image:
    """Draw the lines one below the other, on white; hits get green frames and ticks, misses red frames and crosses."""
    s = SCALE
    columns = max(len(line.tiles) for line in lines)
    height = _PICTURE + 12 + (_LINES + 1) * (_WORDS + 3) + 8
    size = (2 * _MARGIN + _LEFT + columns * (_TILE + _GAP), 2 * _MARGIN + len(lines) * (height + _GAP) - _GAP)
    grid = Image.new("RGB", (size[0] * s, size[1] * s), PAPER)
    draw = ImageDraw.Draw(grid)
    for i, line in enumerate(lines):
        top = (_MARGIN + i * (height + _GAP)) * s
        _draw_query(grid, draw, line, top)
        for j, tile in enumerate(line.tiles):
            left = (_MARGIN + _LEFT + j * (_TILE + _GAP)) * s
            _draw_tile(grid, draw, tile, left, top, height * s)
        if i:
            y = top - _GAP * s // 2
            draw.line([(_MARGIN * s, y), ((size[0] - _MARGIN) * s, y)], fill=FRAME, width=1)
    return grid


def _draw_query(grid: Image.Image, draw: ImageDraw.ImageDraw, line: Line, top: int) -> None:
    s, font = SCALE, font_for(16 if line.picture is None else _WORDS, line.title)
    y = top + (_PICTURE // 2 - 4) * s
    if line.picture is not None:
        paste_fitted(grid, line.picture, _MARGIN * s, top + 6 * s, _PICTURE * s)
        y = top + (_PICTURE + 10) * s
    words = [(part, font, INK) for part in wrapped(draw, line.title, font, (_LEFT - 10) * s, 3)]
    for note in line.notes:
        font = font_for(_WORDS - 1, note)
        words += [(part, font, PALE) for part in wrapped(draw, note, font, (_LEFT - 10) * s, 1)]
    for part, font, ink in words:
        draw.text((_MARGIN * s, y), part, fill=ink, font=font)
        y += int(font.size * 1.25)


def _draw_tile(grid: Image.Image, draw: ImageDraw.ImageDraw, tile: Tile, left: int, top: int, height: int) -> None:
    s = SCALE
    draw_frame(draw, (left, top, left + _TILE * s, top + height - 4 * s), tile.hit)
    middle, y = left + _TILE * s // 2, top + (_PICTURE + 10) * s
    font = font_for(_WORDS, tile.caption)
    words = wrapped(draw, tile.caption, font, (_TILE - 8) * s, _LINES)
    if tile.picture is not None:
        paste_fitted(grid, tile.picture, middle - _PICTURE * s // 2, top + 6 * s, _PICTURE * s)
    else:  # the caption takes the place of the picture
        words = wrapped(draw, tile.caption, font, (_TILE - 8) * s, 5)
        y = top + (height - 18 * s) // 2 - len(words) * (_WORDS + 3) * s // 2
    for text in words:
        draw.text((middle, y), text, fill=INK, font=font, anchor="ma")
        y += (_WORDS + 3) * s
    draw.text((middle, top + height - 7 * s), tile.score, fill=PALE, font=font_for(_WORDS - 1), anchor="ms")
    if tile.hit is not None:
        draw_mark(grid, left + (_TILE - _MARK // 2 - 2) * s, top + (_MARK // 2 + 2) * s, tile.hit)


def draw_frame(draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], hit: bool | None) -> None:
    """Draw a frame of round corners: green for a hit, red for a miss, grey where that is unknown."""
    colour = FRAME if hit is None else _HIT if hit else _MISS
    draw.rounded_rectangle(box, radius=6 * SCALE, outline=colour, width=SCALE if hit is None else SCALE * 3 // 2)


def draw_mark(grid: Image.Image, x: int, y: int, hit: bool, side: int = _MARK) -> None:
    """Draw a tick on green or a cross on red around a point, to be told apart without colours.

    Args:
        grid: the picture to draw in.
        x: of the point, in pixels of the file.
        y: likewise.
        hit: whether it is a tick.
        side: diameter in pixels of the layout.
    """
    mark = _mark(hit, side * SCALE)
    grid.paste(mark, (x - mark.width // 2, y - mark.height // 2), mark)


@functools.cache
def _mark(hit: bool, pixels: int) -> Image.Image:
    n = pixels * _SMOOTH
    mark = Image.new("RGBA", (n, n), "#ffffff00")
    draw = ImageDraw.Draw(mark)
    draw.ellipse((0, 0, n - 1, n - 1), fill=_HIT if hit else _MISS)
    tick, cross = [[(0.28, 0.53), (0.44, 0.69), (0.73, 0.34)]], [[(0.33, a), (0.67, 1 - a)] for a in (0.33, 0.67)]
    for line in tick if hit else cross:
        draw.line([(u * n, v * n) for u, v in line], fill=PAPER, width=n // 8, joint="curve")
    return mark.resize((pixels, pixels), Image.Resampling.LANCZOS)


def paste_fitted(grid: Image.Image, picture: Image.Image, left: int, top: int, side: int) -> None:
    """Paste a picture into a square, as large as it fits and in its middle; all in pixels of the file."""
    ratio = side / max(picture.size)
    fitted = picture.resize(
        (max(1, round(picture.width * ratio)), max(1, round(picture.height * ratio))), Image.Resampling.LANCZOS
    )
    at = (left + (side - fitted.width) // 2, top + (side - fitted.height) // 2)
    grid.paste(fitted, at, fitted)


def font_for(size: int, text: str = "") -> Any:
    """A font for a text: Pillow's own for Latin letters, otherwise an installed one that has the characters."""
    if all(ord(c) < 0x250 or 0x2000 <= ord(c) < 0x2070 for c in text):  # Latin letters and punctuation
        return _load_font(None, size)
    return _load_font(font_file(" ".join(text.split()) + "…"), size)


@functools.cache
def _load_font(path: str | None, size: int) -> Any:
    return ImageFont.load_default(size * SCALE) if path is None else ImageFont.truetype(path, size * SCALE)


def wrapped(draw: ImageDraw.ImageDraw, text: str, font: Any, width: int, most: int) -> list[str]:
    """Break a text into at most `most` lines of at most `width` pixels; a longer text ends in an ellipsis."""
    lines: list[str] = []
    rest = " ".join(text.split())
    while rest and len(lines) < most:
        end = len(rest)
        while end > 1 and draw.textlength(rest[:end], font=font) > width:
            blank = rest.rfind(" ", 0, end)
            end = blank if blank > 0 else end - 1
        if len(lines) == most - 1 and end < len(rest):
            end = next(n for n in range(len(rest), -1, -1) if draw.textlength(rest[:n] + "…", font=font) <= width)
            return [*lines, rest[:end].rstrip() + "…"]
        lines.append(rest[:end])
        rest = rest[end:].lstrip()
    return lines
