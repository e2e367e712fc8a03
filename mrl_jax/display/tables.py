"""Tables of text: columns aligned by spaces, Markdown, and comma-separated values.

A table is a sequence of rows of cells, the first row being the header; all rows have the same number of cells. Cells
may hold any text: names that come with data are made harmless here, for the terminal as for a spreadsheet.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from mrl_jax.names import printable

__all__ = ["aligned_lines", "csv_table", "display_width", "markdown_table", "markdown_text", "text_table"]

Rows = Sequence[Sequence[str]]

# What begins a formula in a spreadsheet, the full-width forms included, or makes it skip to the next character.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_QUOTED = frozenset('",;\t\r\n')
_MARKED = re.compile(r"([\\`*<>\[\]|$~&]|(?<!\w)_|_(?!\w))")  # what Markdown reads as markup, wherever it stands


def aligned_lines(rows: Rows, left: Sequence[int] = (0,)) -> list[str]:
    """Pad the cells so that columns align, two spaces apart.

    Args:
        rows: the table.
        left: numbers of the columns that are aligned to the left; the others are aligned to the right.

    Returns:
        One line per row, without spaces at the end.
    """
    rows = _shown(rows)
    widths = _widths(rows)
    lines = []
    for row in rows:
        cells = [_padded(v, w, i in left) for i, (v, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return lines


def text_table(rows: Rows, separate_last: bool = False) -> str:
    """Lay out a table, the first column aligned to the left, with a rule below the header.

    Columns without content below the header are left out.

    Args:
        rows: the table.
        separate_last: draw a rule above the last row, too.
    """
    filled = [i for i in range(len(rows[0])) if any(row[i] for row in rows[1:])]
    lines = aligned_lines([[row[i] for i in filled] for row in rows])
    rule = "-" * max(map(display_width, lines))
    body = [*lines[1:-1], rule, lines[-1]] if separate_last else lines[1:]
    return "\n".join([lines[0], rule, *body])


def markdown_table(rows: Rows) -> str:
    """Lay out a table in Markdown, columns aligned to the left; texts in cells are Markdown: see `markdown_text`."""
    rows = _shown(rows)
    widths = _widths(rows)
    padded = [[_padded(v, w, True) for v, w in zip(row, widths, strict=True)] for row in rows]
    padded.insert(1, ["-" * w for w in widths])
    return "\n".join("| " + " | ".join(row) + " |" for row in padded)


def markdown_text(text: object) -> str:
    r"""A text that comes with data for use in Markdown: one line, and nothing in it is markup or ends a cell.

    Example:
        >>> print(markdown_text("<b>|x_y`"))
        \<b\>\|x_y\`
    """
    return _MARKED.sub(r"\\\1", printable(text))


def csv_table(rows: Iterable[Iterable[Any]]) -> str:
    """Lay out comma-separated values; floats have all digits.

    A text that a spreadsheet would take for a formula gets an apostrophe in front (OWASP, CSV injection). Numbers stay
    as they are.

    Args:
        rows: the table; cells are texts, numbers or None.

    Example:
        >>> csv_table([("name", "value"), ("=1+1", -2.5)])
        "name,value\\n'=1+1,-2.5\\n"
    """
    return "".join(f"{','.join(map(_csv_cell, row))}\n" for row in rows)


def _csv_cell(value: Any) -> str:
    text = "" if value is None else str(value)
    if isinstance(value, str) and _is_formula(text):
        text = f"'{text}"
    # Not by the module csv: it leaves \r, and the semicolon at which some spreadsheets part cells, without quotes.
    return '"' + text.replace('"', '""') + '"' if _QUOTED & set(text) else text


def _is_formula(text: str) -> bool:
    if not text.startswith(_FORMULA):
        return False
    try:
        float(text)  # a number as text, such as -0.5
    except ValueError:
        return True
    return text[0] in "\t\r\n"


def _shown(rows: Rows) -> Rows:
    return [[printable(cell) for cell in row] for row in rows]


def _widths(rows: Rows) -> list[int]:
    return [max(display_width(row[i]) for row in rows) for i in range(len(rows[0]))]


def display_width(text: str) -> int:
    """Columns of a text on a terminal: most characters of East Asia take two, combining marks none."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def _padded(text: str, width: int, left: bool) -> str:
    blanks = " " * (width - display_width(text))
    return text + blanks if left else blanks + text
