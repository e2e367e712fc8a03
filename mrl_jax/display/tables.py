"""Tables of text: columns aligned by spaces, and Markdown.

A table is a sequence of rows of cells, the first row being the header; all rows have the same number of cells.
"""

import unicodedata
from collections.abc import Sequence

__all__ = ["aligned_lines", "display_width", "markdown_table", "text_table"]

Rows = Sequence[Sequence[str]]


def aligned_lines(rows: Rows, left: Sequence[int] = (0,)) -> list[str]:
    """Pad the cells so that columns align, two spaces apart.

    Args:
        rows: the table.
        left: numbers of the columns that are aligned to the left; the others are aligned to the right.

    Returns:
        One line per row, without spaces at the end.
    """
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
    """Lay out a table in Markdown, columns aligned to the left."""
    widths = _widths(rows)
    padded = [[_padded(v, w, True) for v, w in zip(row, widths, strict=True)] for row in rows]
    padded.insert(1, ["-" * w for w in widths])
    return "\n".join("| " + " | ".join(row) + " |" for row in padded)


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
