"""What all pictures share: names that the fonts can draw, lines that differ, legends that fit, and no warnings."""

import functools
import io
import logging
import math
import statistics
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from mrl_jax.display.tables import display_width
from mrl_jax.files import atomic_path
from mrl_jax.names import printable

__all__ = ["Curve", "ModalityLabels", "curves_of", "drawable", "font_file", "legend", "picture", "readable", "style"]

DIRECTIONS = 6  # up to which each direction has its own line
_INSIDE, _INSIDE_WIDTH = 5, 32  # entries of a legend inside the axes, and characters of its longest entry
_NAME, _TITLE_LINES, _LEGEND_ROWS = 28, 3, 30
_COLOURS = ("blue", "orange", "green", "red", "purple", "brown", "pink", "olive", "cyan")
_DASHES, _MARKERS = ("-", "--", "-.", ":"), ("o", "s", "^", "D")
# Families that have the characters of East Asia, by preference; any other installed font comes after them.
_FAMILIES = (
    "Noto Sans CJK", "Source Han Sans", "Noto Sans", "PingFang", "Hiragino", "Microsoft YaHei", "Yu Gothic", "Meiryo",
    "Malgun Gothic", "WenQuanYi", "IPA", "SimHei", "MS Gothic", "Arial Unicode",
)  # fmt: skip
_OTHERS = 300  # other fonts that are searched for a character


def readable(text: str) -> str:
    """A text for matplotlib: one line; a character that no font has becomes "?"."""
    text = printable(" ".join(text.split()) if not text.isprintable() else text)
    text = "".join(c if c.isprintable() and drawable(c) else "?" for c in text)
    return f" {text}" if text.startswith("_") else text  # matplotlib leaves such labels out of a legend


def drawable(text: str) -> bool:
    """Whether the installed fonts have all characters of a text."""
    return text.isascii() or all(_family_of(c) is not None for c in text)


def font_file(text: str) -> str | None:
    """The file of the first installed font that has all characters of a text, or None."""
    codes = set(map(ord, text))
    return next((path for _, path in _fonts() if codes <= _characters(path)), None)


def style(i: int, marked: bool = False) -> dict[str, Any]:
    """Colour, dashes and, if wanted, marker of line i; lines with close numbers differ in colour, others in dashes."""
    group = i // len(_COLOURS)
    lines = {"color": f"tab:{_COLOURS[i % len(_COLOURS)]}", "linestyle": _DASHES[group % len(_DASHES)]}
    return lines | ({"marker": _MARKERS[group % len(_MARKERS)], "markersize": 3} if marked else {})


class ModalityLabels(NamedTuple):
    """Short names of modalities in a picture.

    Attributes:
        labels: modality -> label; "modality 3" where no font can draw the name.
        note: what "modality 3" means, or "".
    """

    labels: Mapping[str, str]
    note: str

    @classmethod
    def of(cls, modalities: Iterable[str]) -> "ModalityLabels":
        """Labels of modalities, in the order of the data."""
        names = list(dict.fromkeys(modalities))
        replaced = [m for m in names if not drawable(m)]
        short = [f"modality {i}" if m in replaced else _shortened(m) for i, m in enumerate(names, 1)]
        # Names that are equal after shortening get their numbers.
        labels = {
            m: s if short.count(s) == 1 else f"{s} ({i})" for i, (m, s) in enumerate(zip(names, short, strict=True), 1)
        }
        note = "modality 1, 2, …: in the order of the data; no installed font can draw their names" if replaced else ""
        return cls({m: readable(label) for m, label in labels.items()}, note)

    def direction(self, name: str) -> str:
        """The label of a direction "a->b"."""
        query, _, gallery = name.partition("->")
        return f"{self.labels.get(query, readable(query))} → {self.labels.get(gallery, readable(gallery))}"


class Curve(NamedTuple):
    """A line of a picture: its label, its values, and how it is drawn."""

    label: str
    values: Sequence[float]
    style: Mapping[str, Any]


def curves_of(values: Mapping[str, Sequence[float]], marked: bool = False) -> tuple[list[Curve], str, str]:
    """Lines of values per direction: each direction up to 6 of them, otherwise the mean of each query modality.

    Args:
        values: direction "a->b" -> values, all of the same length.
        marked: whether every point has a marker.

    Returns:
        The lines, with the mean over all directions last if there are more than 6; the title of the legend; and a note
        for below the picture. Title and note may be "".
    """
    labels = ModalityLabels.of(m for d in values for m in _ends(d))
    if len(values) <= DIRECTIONS:
        lines = [Curve(labels.direction(d), v, style(i, marked)) for i, (d, v) in enumerate(values.items())]
        return lines, "", labels.note
    by_query: dict[str, list[Sequence[float]]] = {}
    for d, v in values.items():
        by_query.setdefault(d.partition("->")[0], []).append(v)
    lines = [Curve(labels.labels[m], _mean(v), style(i, marked)) for i, (m, v) in enumerate(by_query.items())]
    bold = {"color": "black", "linewidth": 2.5, "zorder": 3} | ({"marker": "o", "markersize": 4} if marked else {})
    mean = Curve(f"mean of {len(values)} directions", _mean(list(values.values())), bold)
    return [*lines, mean], "mean over galleries, queries:", labels.note


def _ends(direction: str) -> list[str]:
    query, arrow, gallery = direction.partition("->")
    return [query, gallery] if arrow else [query]


def _mean(lines: Sequence[Sequence[float]]) -> list[float]:
    return [statistics.fmean(point) for point in zip(*lines, strict=True)]


def legend(axes: Any, title: str = "") -> None:
    """Add a legend: inside the axes if it is small, otherwise to their right."""
    handles, labels = axes.get_legend_handles_labels()
    if not handles:
        return
    options: dict[str, Any] = {"fontsize": 8, "title": title or None, "title_fontsize": 8, "alignment": "left"}
    if len(labels) > _INSIDE or max(map(display_width, labels)) > _INSIDE_WIDTH:
        columns = math.ceil(len(labels) / _LEGEND_ROWS)
        options |= {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0), "borderaxespad": 0.0, "ncols": columns}
    axes.legend(handles, labels, **options)


@contextmanager
def picture(
    path: Path | None, size: tuple[float, float], panels: int = 1, title: str = "", note: str = ""
) -> Iterator[tuple[Any, ...]]:
    """Give axes to draw in; at the end the picture grows by its legends and labels, and is written as PNG.

    The figure of the axes (`axes[0].figure`) may be kept; notebooks show it, also without `matplotlib.pyplot`.

    Args:
        path: the file to write, or None.
        size: width and height without legends outside of the axes, in inches.
        panels: number of axes side by side.
        title: heading of the picture, as it is: wrapped and made readable here.
        note: a line below the picture, likewise.

    Raises:
        InputError: the file cannot be written.
    """
    with _quiet():
        import matplotlib  # deferred: slow to import; Figure needs no display and no global state
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.text import Text

        # Texts may come with data: none is mathematics.
        settings: Any = {"text.usetex": False, "text.parse_math": False, "font.family": ["DejaVu Sans"]}
        with matplotlib.rc_context(settings):
            figure = _figure_type()(figsize=size, dpi=120, layout="constrained")
            axes = tuple(figure.subplots(1, panels, squeeze=False)[0])
            yield axes
            for text in figure.findobj(Text):
                text.set_fontfamily(_families(text.get_text()))
            _grow(figure, axes, size, FigureCanvasAgg(figure).get_renderer())
            columns = figure.get_figwidth() * 10.5
            if title:
                heading = figure.suptitle(_wrapped(title, columns), fontsize=11)
                heading.set_fontfamily(_families(title))
            if note:
                figure.supxlabel(_wrapped(note, columns * 1.3), fontsize=8, color="0.35")
            if path is not None:
                with atomic_path(path) as part:
                    figure.savefig(part, format="png", dpi="figure")


@functools.cache
def _figure_type() -> Any:
    """A figure that notebooks show, which they do with those of `pyplot` only."""
    from matplotlib.figure import Figure

    class Picture(Figure):
        def _repr_png_(self) -> bytes:
            content = io.BytesIO()
            with _quiet():
                self.savefig(content, format="png", dpi="figure")
            return content.getvalue()

    return Picture


def _grow(figure: Any, axes: Sequence[Any], size: tuple[float, float], renderer: Any) -> None:
    """Enlarge a figure by what lies outside of the axes: legends, and labels of ticks at their left."""
    width, height = size
    for panel in axes:
        box = panel.get_legend()
        if box is not None and box.get_bbox_to_anchor().width == 0:  # a point: outside
            extent = box.get_window_extent(renderer)
            width += extent.width / figure.dpi
            height = max(height, extent.height / figure.dpi + 1.3)
        labels = [t.get_window_extent(renderer).width for t in panel.get_yticklabels() if t.get_text()]
        width += max(0.0, max(labels, default=0.0) / figure.dpi - 0.5)
    figure.set_size_inches(width, height)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without messages of matplotlib: about fonts, its cache folder, or a layout."""
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _shortened(name: str) -> str:
    return name if len(name) <= _NAME else f"{name[: _NAME - 11]}…{name[-10:]}"


def _wrapped(text: str, columns: float) -> str:
    """Lines of at most so many columns, readable; what exceeds three lines is cut."""
    count = max(10, int(columns * len(text) / max(display_width(text), 1)))
    lines = textwrap.wrap(text, count, max_lines=_TITLE_LINES, placeholder=" …")
    return "\n".join(map(readable, lines))


def _families(text: str) -> list[str]:
    """The fonts that a text needs, the usual one first."""
    return list(dict.fromkeys(["DejaVu Sans", *(_family_of(c) or "DejaVu Sans" for c in text if not c.isascii())]))


@functools.cache
def _family_of(character: str) -> str | None:
    """The family of a font that has a character, or None."""
    if character.isascii():
        return "DejaVu Sans"
    code = ord(character)
    return next((family for family, path in _fonts() if code in _characters(path)), None)


@functools.cache
def _fonts() -> list[tuple[str, str]]:
    """Families and files of the installed fonts, in the order in which they are tried."""
    with _quiet():
        from matplotlib.font_manager import fontManager

    def place(family: str) -> int:
        return next((i for i, known in enumerate(("DejaVu Sans", *_FAMILIES)) if family.startswith(known)), 99)

    files: dict[str, str] = {}
    for entry in fontManager.ttflist:
        if "lastresort" not in entry.name.lower().replace(" ", ""):  # that one draws boxes
            files.setdefault(entry.name, entry.fname)
    ordered = sorted(files.items(), key=lambda font: (font[0] != "DejaVu Sans", place(font[0]), font[0]))
    return [font for i, font in enumerate(ordered) if place(font[0]) < 99 or i < _OTHERS]


@functools.cache
def _characters(path: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):  # pictures of emoji, for example, which matplotlib cannot draw
        return frozenset()
