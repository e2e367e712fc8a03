"""One self-contained file of HTML from the parts of a page: the template, its style and script, and the library.

The library that draws the charts (Vega-Lite) comes from the package vl-convert-python, the template needs Jinja2; both
are in the extra `report`.
"""

import contextlib
import functools
import json
import threading
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from mrl_jax.errors import InputError
from mrl_jax.report.blocks import Chart, Section, Tile
from mrl_jax.version import __version__

__all__ = ["Page", "check_packages", "library", "packing", "render", "script_json"]

_TEMPLATES = Path(__file__).parent / "templates"
_PACKAGES = {"jinja2": "Jinja2", "vl_convert": "vl-convert-python"}


class Page(NamedTuple):
    """What a page says.

    Attributes:
        title: its heading.
        about: what it is on, in one sentence, or "".
        verdict: one line on the whole.
        tone: "good", "bad" or "".
        remark: more on the whole, or "".
        tiles: key numbers.
        sections: its parts.
        items: samples that tooltips show.
        pictures: their pictures.
    """

    title: str
    about: str
    verdict: str
    tone: str
    remark: str
    tiles: Sequence[Tile]
    sections: Sequence[Section]
    items: Sequence[Any] = ()
    pictures: Sequence[str] = ()


def check_packages() -> None:
    """Refuse to go on without the packages that a page needs.

    Raises:
        InputError: one is missing; the message says how to install it.
    """
    if missing := [package for module, package in _PACKAGES.items() if find_spec(module) is None]:
        raise InputError(f"a report needs {' and '.join(missing)}; run: pip install jinja2 vl-convert-python")


@functools.cache
def library() -> str:
    """The program that draws charts, without anything that ends a script; it takes some seconds to put together."""
    import vl_convert

    text: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return text.replace("</script", "<\\/script").replace("<!--", "<\\!--")


@contextlib.contextmanager
def packing() -> Iterator[None]:
    """Put the library together in a thread, while the block makes the page."""
    thread = threading.Thread(target=library)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def script_json(value: Any) -> str:
    r"""JSON that nothing in it can end: without `<`, `>` and `&`, and without the separators that end a line.

    Example:
        >>> script_json({"name": "</script>"})
        '{"name":"\\u003c/script\\u003e"}'
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for c in "<>&\u2028\u2029":
        text = text.replace(c, f"\\u{ord(c):04x}")
    return text


def render(page: Page) -> str:
    """The file of a page. All text is escaped but that of the package's own style, script and library."""
    import jinja2
    from markupsafe import Markup

    charts = [block.spec for section in page.sections for block in section.blocks if isinstance(block, Chart)]
    numbers = iter(range(len(charts)))  # the template comes to the charts in the same order
    loader = jinja2.FileSystemLoader(_TEMPLATES)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    content = {"charts": charts, "items": list(page.items), "pictures": list(page.pictures)}
    text = {name: Markup((_TEMPLATES / name).read_text("utf-8")) for name in ("style.css", "script.js")}
    return environment.get_template("page.html").render(
        **page._asdict(),
        version=__version__,
        style=text["style.css"],
        script=text["script.js"],
        library=Markup(library()),
        page_data=Markup(script_json(content)),
        number_of=lambda chart: next(numbers),
    )
