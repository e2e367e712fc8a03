"""Write the address of the repository into every file that names it; a later call replaces it.

    python .ci/address.py https://github.com/OWNER/NAME

README gets badges after its heading, the notebooks a Colab badge, a first cell that installs and links that work there;
setup.cfg, mkdocs.yml and CITATION.cff get their fields. Until then nothing shows a badge that cannot work.
"""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_BEGIN, _END = "<!-- badges -->", "<!-- end of badges -->"
_COLAB = "https://colab.research.google.com"
_SHIELDS = "https://img.shields.io/badge"
# The cell that imports the package and what it needs beside it, from `except` to its end, as it is written here: what
# follows `pip install -e .`, or the address of an earlier call, is kept. And a link into the docs.
_INSTALL = re.compile(
    r"(try:\n(?:    import \w+\n|\n)+except ImportError)"
    r".*?install (?:-e \.|--quiet git\+\S+)([ \w.-]*).*?(?=\n\n|\s*\Z)",
    re.DOTALL,
)
_DOCS_LINK = re.compile(r"\]\((?:\.\./|https://github\.com/[^/)]+/[^/)]+/blob/main/)docs/")
_COLAB_BADGE = re.compile(r"(?:\n#?)?\n(?:# )?\[!\[Open in Colab\][^\n]*")


def write(address: str, root: Path = ROOT) -> list[Path]:
    """Write the address; returns the files that changed.

    Args:
        address: https://github.com/OWNER/NAME.
        root: the repository.

    Raises:
        ValueError: another form, before anything is written.
    """
    if not (known := re.fullmatch(r"https://github\.com/([\w.-]+)/([\w.-]+?)(?:\.git|/)?", address)):
        raise ValueError(f"{address!r}: give https://github.com/OWNER/NAME, where Colab and the badges find it")
    owner, name = known.groups()
    address = f"https://github.com/{owner}/{name}"
    project = (
        f"url = {address}\nproject_urls =\n    Documentation = {_site(owner, name)}\n"
        f"    Changelog = {address}/blob/main/CHANGELOG.md\n    Issues = {address}/issues\n"
    )
    site, cited = f"site_url: {_site(owner, name)}\nrepo_url: {address}\n", f"repository-code: {address}\n"
    changes: dict[str, Callable[[str], str]] = {
        "README.md": lambda text: _readme(text, owner, name, root),
        "setup.cfg": lambda text: _field(text, r"url = .*\nproject_urls =\n(?:    .*\n)*", "license = ", project),
        "mkdocs.yml": lambda text: _field(text, r"site_url: .*\nrepo_url: .*\n", "docs_dir: ", site),
        "CITATION.cff": lambda text: _field(text, r"repository-code: .*\n", "license: ", cited),
    }
    for path in sorted((root / "notebooks").glob("*.py")):
        changes[f"notebooks/{path.name}"] = lambda text, stem=path.stem: _text(text, owner, name, stem)
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        changes[f"notebooks/{path.name}"] = lambda text, stem=path.stem: _notebook(text, owner, name, stem)
    contents = {root / file: (root / file).read_text("utf-8") for file in changes}
    changed = {p: change(contents[p]) for p, change in zip(contents, changes.values(), strict=True)}
    written = [path for path, text in changed.items() if text != contents[path]]
    for path in written:
        path.write_text(changed[path], "utf-8")
    return written


def _site(owner: str, name: str) -> str:
    return f"https://{owner.lower()}.github.io/{name}/"


def _field(text: str, pattern: str, before: str, lines: str) -> str:
    """Lines in place of those of an earlier call, or before the line that begins so."""
    text = re.sub(rf"^{pattern}", "", text, flags=re.MULTILINE)
    head, found, rest = text.partition(f"\n{before}")
    if not found:
        raise ValueError(f"no line begins with {before!r}")
    return f"{head}\n{lines}{before}{rest}"


def _readme(text: str, owner: str, name: str, root: Path) -> str:
    """Badges after the first heading, a line each."""
    at = f"{owner}/{name}"
    pythons = re.findall(r"Programming Language :: Python :: (3\.\d+)", (root / "setup.cfg").read_text("utf-8"))
    badges = {
        "docs": (f"{_SHIELDS}/docs-read-blue", _site(owner, name)),
        "Python": (f"{_SHIELDS}/python-{'%20%7C%20'.join(pythons)}-blue", "setup.cfg"),
        "licence": (f"{_SHIELDS}/licence-Apache_2.0-blue", "LICENSE"),
        "Colab": (f"{_COLAB}/assets/colab-badge.svg", f"{_COLAB}/github/{at}/blob/main/notebooks/five_minutes.ipynb"),
    }
    workflow = root / ".github" / "workflows" / "ci.yml"
    if workflow.exists():
        runs = f"https://github.com/{at}/actions/workflows/{workflow.name}"
        badges = {"CI": (f"{runs}/badge.svg", runs), **badges}
    block = [_BEGIN, *(f"[![{label}]({picture})]({target})" for label, (picture, target) in badges.items()), _END]
    text = re.sub(rf"\n{_BEGIN}.*?{_END}\n", "", text, flags=re.DOTALL)
    heading, _, rest = text.partition("\n")
    return "\n".join([heading, "", *block, rest])


def _text(text: str, owner: str, name: str, stem: str) -> str:
    """A notebook in the percent format, where lines of text are comments, and so are magics."""
    text = _INSTALL.sub(lambda cell: _installing(cell[1], cell[2], owner, name, "# "), text, count=1)
    text = _COLAB_BADGE.sub("", text)
    text = re.sub(r"^# # .*$", lambda x: f"{x[0]}\n#\n# {_badge(owner, name, stem)}", text, count=1, flags=re.MULTILINE)
    return _linked(text, owner, name)


def _notebook(text: str, owner: str, name: str, stem: str) -> str:
    """The same of a file of Jupyter."""
    notebook: dict[str, Any] = json.loads(text)
    installed = False
    for number, cell in enumerate(notebook["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            if number == 0:
                heading, _, rest = _COLAB_BADGE.sub("", source).partition("\n")
                source = f"{heading}\n\n{_badge(owner, name, stem)}\n{rest}"
            source = _linked(source, owner, name)
        elif not installed:
            source = _INSTALL.sub(lambda found: _installing(found[1], found[2], owner, name, ""), source, count=1)
            installed = True
        cell["source"] = source.splitlines(keepends=True)
    return json.dumps(notebook, ensure_ascii=False, indent=1, sort_keys=True, separators=(",", ": ")) + "\n"


def _installing(head: str, more: str, owner: str, name: str, comment: str) -> str:
    install = f"%pip install --quiet git+https://github.com/{owner}/{name}{more}"
    return f"{head}:  # as on Colab\n    {comment}{install}\n    import mrl_jax"


def _badge(owner: str, name: str, stem: str) -> str:
    target = f"{_COLAB}/github/{owner}/{name}/blob/main/notebooks/{stem}.ipynb"
    return f"[![Open in Colab]({_COLAB}/assets/colab-badge.svg)]({target})"


def _linked(text: str, owner: str, name: str) -> str:
    return _DOCS_LINK.sub(f"](https://github.com/{owner}/{name}/blob/main/docs/", text)


def main(arguments: list[str]) -> int:
    """Write the address that is given, and name the files."""
    if len(arguments) != 1:
        print("usage: python .ci/address.py https://github.com/OWNER/NAME", file=sys.stderr)
        return 2
    try:
        written = write(arguments[0])
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(str(path.relative_to(ROOT)) for path in written) or "nothing changed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
