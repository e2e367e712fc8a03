"""What terminals and notebooks show of an object: a line, and small tables of HTML, in which every text is escaped."""

from collections.abc import Mapping, Sequence
from html import escape

from mrl_jax.names import printable

__all__ = ["facts_html", "facts_text", "plural", "table_html"]


def facts_html(title: str, facts: Mapping[str, object], more: str = "") -> str:
    """A title, and a line for each fact.

    Args:
        title: a few words.
        facts: name -> value; none gives the title alone.
        more: HTML to follow.

    Example:
        >>> facts_html("Dataset", {"name": "a<b"})
        '<div><b>Dataset</b><table><tr><th>name</th><td>a&lt;b</td></tr></table></div>'
    """
    rows = "".join(f"<tr><th>{_text(name)}</th><td>{_text(value)}</td></tr>" for name, value in facts.items())
    table = f"<table>{rows}</table>" if rows else ""
    return f"<div><b>{_text(title)}</b>{table}{more}</div>"


def facts_text(title: str, facts: Mapping[str, object]) -> str:
    """The `repr` of an object: its type, and a few facts, on one line.

    Example:
        >>> facts_text("Dataset", {"classes": 3, "rows": "60 train"})
        'Dataset(classes 3, rows 60 train)'
    """
    return f"{title}({', '.join(printable(f'{name} {value}') for name, value in facts.items())})"


def table_html(rows: Sequence[Sequence[object]], most: int = 30) -> str:
    """A table whose first row is the header; of more rows than `most` the first are shown, and their number."""
    head, *body = rows
    lines = ["<tr>" + "".join(f"<th>{_text(x)}</th>" for x in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{_text(x)}</td>" for x in row) + "</tr>" for row in body[:most]]
    rest = f"<p>… {len(body):,} rows in all</p>" if len(body) > most else ""
    return f"<table>{''.join(lines)}</table>{rest}"


def plural(count: int, noun: str) -> str:
    """A number and its noun.

    Example:
        >>> plural(1, "class"), plural(1200, "class"), plural(2, "run")
        ('1 class', '1,200 classes', '2 runs')
    """
    ending = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{ending}"


def _text(value: object) -> str:
    return escape(printable(value))
