"""Hooks of MkDocs: what the site shows from outside docs/, and links that lead there.

The README is the first page. Pages keep the links that work in the repository; here they are turned into the site's.
"""

import re
from pathlib import Path

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
_LINK = re.compile(r"(?<=\]\()(?!https?:|#)([^)\s#]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add README, changelog, licence, citation, and the plots of results."""
    plots = [str(path.relative_to(_ROOT)) for path in _ROOT.glob("experiments/results/*.png")]
    for source, target in {**_OUTSIDE, **dict(zip(plots, plots, strict=True))}.items():
        files.append(File.generated(config, target, abs_src_path=str(_ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn each link into one from this page to a page or file of the site."""
    if page.file.src_uri.startswith("reference/"):
        return markdown
    folder = _ROOT if page.file.src_uri in _OUTSIDE.values() else _ROOT / "docs"
    return _LINK.sub(lambda link: _on_site((folder / link[1]).resolve()), markdown)


def _on_site(target: Path) -> str:
    """Address on the site of a file of the repository: all pages by hand lie in one folder."""
    if target.is_relative_to(_ROOT / "docs"):
        return target.relative_to(_ROOT / "docs").as_posix()
    inside = target.relative_to(_ROOT)
    if inside.suffix == ".py":
        return f"reference/{inside.with_suffix('.md').as_posix()}"
    return _OUTSIDE.get(inside.as_posix(), inside.as_posix())
