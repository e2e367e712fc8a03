"""Hooks of MkDocs: what the site shows from outside docs/, and links that lead there.

The README is the first page; the notebooks are pages, too, with the outputs that are kept. Pages keep the links that
work in the repository; here they are turned into the site's.
"""

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_ROOT = Path(__file__).parents[1]
_OUTSIDE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "LICENSE": "LICENSE",
    "CITATION.cff": "CITATION.cff",
}
# Links of notebooks: into the docs, here or at the address of the repository, and to other notebooks.
_DOCS_LINK = re.compile(r"\]\((?:\.\.|https://[^)\s]+/blob/main)/docs/")
_OF_PANDAS = re.compile(r'<style.*?</style>| border="1" class="dataframe"')  # the site has a style for tables
_NOTEBOOK_LINK = re.compile(r"\]\((\w+)\.ipynb")
_LINK = re.compile(r"(?<=\]\()(?!https?:|#)([^)\s#]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add README, changelog, licence, citation, and the plots of results."""
    plots = [str(path.relative_to(_ROOT)) for path in _ROOT.glob("experiments/results/*.png")]
    for source, target in {**_OUTSIDE, **dict(zip(plots, plots, strict=True))}.items():
        files.append(File.generated(config, target, abs_src_path=str(_ROOT / source)))
    for notebook in sorted(_ROOT.glob("notebooks/*.ipynb")):
        pictures: list[bytes] = []
        text = "\n\n".join(_blocks(json.loads(notebook.read_text("utf-8")), notebook.stem, pictures))
        files.append(File.generated(config, f"tutorials/{notebook.stem}.md", content=text))
        for number, content in enumerate(pictures, 1):
            files.append(File.generated(config, f"tutorials/{notebook.stem}-{number}.png", content=content))
    return files


def _blocks(notebook: dict[str, Any], stem: str, pictures: list[bytes]) -> Iterator[str]:
    """The Markdown of a notebook; its pictures are added to the list."""
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            yield _NOTEBOOK_LINK.sub(r"](\1.md", _DOCS_LINK.sub("](../", source))
            continue
        yield f"```python\n{source}\n```"
        for output in cell["outputs"]:
            data = {kind: x if isinstance(x, str) else "".join(x) for kind, x in output.get("data", {}).items()}
            if "image/png" in data:
                pictures.append(base64.b64decode(data["image/png"]))
                yield f"![What the cell above draws]({stem}-{len(pictures)}.png)"
            elif "text/html" in data:
                yield _OF_PANDAS.sub("", re.sub(r"\n\s*", "", data["text/html"]))
            elif shown := data.get("text/plain") or "".join(output.get("text", "")):
                yield f"```text\n{shown.rstrip()}\n```"


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn each link into one from this page to a page or file of the site, and rank guides first in the search."""
    if page.file.src_uri.startswith(("reference/", "changelog")):
        page.meta["search"] = {"boost": 0.2}  # nine of ten sections are of the reference, and would hide the answers
    if page.file.src_uri.startswith(("reference/", "tutorials/")):
        return markdown
    folder = _ROOT if page.file.src_uri in _OUTSIDE.values() else _ROOT / "docs"
    return _LINK.sub(lambda link: _on_site((folder / link[1]).resolve()), markdown)


def _on_site(target: Path) -> str:
    """Address on the site of a file of the repository: all pages by hand lie in one folder."""
    if target.is_relative_to(_ROOT / "docs"):
        return target.relative_to(_ROOT / "docs").as_posix()
    inside = target.relative_to(_ROOT)
    if inside.suffix == ".ipynb":
        return f"tutorials/{inside.stem}.md"
    if inside.suffix == ".py":
        return f"reference/{inside.with_suffix('.md').as_posix()}"
    return _OUTSIDE.get(inside.as_posix(), inside.as_posix())
