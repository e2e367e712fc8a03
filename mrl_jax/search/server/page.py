"""The pages: one file each, without anything from elsewhere, under a policy that allows just their script and style."""

import base64
import hashlib
import html
import re
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Any, NamedTuple

__all__ = ["Page", "reference_page", "search_page"]


class Page(NamedTuple):
    """A page, and its Content-Security-Policy."""

    html: str
    policy: str


def search_page() -> Page:
    """The search page; it gets all data from the API."""
    parts = {f"/* {name} */": _file(name) for name in ("page.css", "page.js")}
    return _page(re.sub("|".join(map(re.escape, parts)), lambda found: parts[found[0]], _file("page.html")))


def reference_page(described: Mapping[str, Any]) -> Page:
    """The description of the API as a page without scripts.

    Args:
        described: the OpenAPI document.
    """
    info, parts = described["info"], []
    for path, operations in described["paths"].items():
        parts += [_operation(method.upper(), path, x) for method, x in operations.items()]
    parts.append("<h2>Answers</h2>")
    parts += [_schema(name, x) for name, x in described["components"]["schemas"].items() if x["properties"]]
    body = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_text(info["title"])}: API</title><link rel="icon" href="data:,"><style>{_file("page.css")}</style></head>
<body class="reference"><header><h1>{_text(info["title"])}: API</h1><p>{_text(info["description"])}
<a href="/">Search page</a> · <a href="/openapi.json">openapi.json</a></p></header><main>{"".join(parts)}</main></body>
</html>"""
    return _page(body)


def _operation(method: str, path: str, x: Mapping[str, Any]) -> str:
    rows = [
        (p["name"], _kind(p["schema"]), p["description"] + (f" ({p['example']})" if "example" in p else ""))
        for p in x.get("parameters", ())
    ]
    if "requestBody" in x:
        kinds = ", ".join(x["requestBody"]["content"])
        rows.append(("body", "bytes", f"{x['requestBody']['description']}; content type {kinds}"))
    answers = [(code, "", r["description"]) for code, r in x["responses"].items()]
    return (
        f"<section class=card><h2><code>{method} {_text(path)}</code></h2><p>{_text(x['summary'])}</p>"
        f"{_table(('parameter', 'type', 'meaning'), rows)}{_table(('status', '', 'meaning'), answers)}</section>"
    )


def _schema(name: str, schema: Mapping[str, Any]) -> str:
    return (
        f"<section class=card><h3>{_text(name)}</h3>{_table(('field', 'type', 'meaning'), _fields(schema))}</section>"
    )


def _fields(schema: Mapping[str, Any], before: str = "") -> Iterable[tuple[str, str, str]]:
    for name, x in schema.get("properties", {}).items():
        inner = x.get("items", x)
        yield f"{before}{name}", _kind(x), x.get("description", "")
        yield from _fields(inner, f"{before}{name}{'[]' if inner is not x else ''}.")


def _kind(schema: Mapping[str, Any]) -> str:
    if "enum" in schema or "const" in schema:
        return " | ".join(schema.get("enum", [schema.get("const")]))
    known = f", {schema['minimum']} or more" if "minimum" in schema and "maximum" not in schema else ""
    known = f", {schema['minimum']} to {schema['maximum']}" if "maximum" in schema else known
    default = f", default {schema['default']}" if "default" in schema else ""
    kind = schema.get("type", "")
    return f"{kind if isinstance(kind, str) else ' or '.join(kind)}{known}{default}"


def _table(head: Iterable[str], rows: Iterable[tuple[str, ...]]) -> str:
    rows = list(rows)
    if not rows:
        return ""
    lines = [f"<tr>{''.join(f'<th>{_text(cell)}</th>' for cell in head)}</tr>"]
    lines += [
        f"<tr><td><code>{_text(first)}</code></td>{''.join(f'<td>{_text(cell)}</td>' for cell in rest)}</tr>"
        for first, *rest in rows
    ]
    return f"<div class=scrolls><table>{''.join(lines)}</table></div>"


def _text(value: object) -> str:
    return html.escape(str(value))


def _file(name: str) -> str:
    return (files(__package__) / name).read_text("utf-8")


def _page(text: str) -> Page:
    scripts, styles = (
        " ".join(f"'sha256-{_digest(x)}'" for x in re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)) or "'none'"
        for tag in ("script", "style")
    )
    return Page(
        text,
        f"default-src 'none'; script-src {scripts}; style-src {styles}; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    )


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
