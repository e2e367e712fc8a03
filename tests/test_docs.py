"""Pages written by hand, and the reference: width of lines, tables that the code must agree with, public names."""

import ast
import configparser
import re
from pathlib import Path

import pytest
from test_rooms import ROOMS

from mrl_jax.methods.registry import METHODS
from mrl_jax.options import LOSSES

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("experiments/**/*.md")])
WIDTH = 120


def too_long(text):
    """Numbers of the lines of prose that are too long; tables, code and what has no space to break at are not prose."""
    numbers, code = [], False
    for number, line in enumerate(text.splitlines(), 1):
        code ^= line.lstrip().startswith("```")
        words = line.strip().removeprefix("- ").split(" ")
        if len(line) > WIDTH and not code and not line.startswith("|") and len(words) > 1:
            numbers.append(number)
    return numbers


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_lines_of_prose_fit(path):
    assert too_long(path.read_text("utf-8")) == []


def test_what_counts_as_prose():
    long = "word " * 30
    assert too_long(long) == [1]
    assert too_long(f"```\n{long}\n```\n| {long} |\n- [x](https://{'x' * 130})\n\n{long}") == [7]


def test_paragraphs_are_not_indented():
    """Four spaces make a code block after an empty line; after a line of prose they are a mistake."""
    for path in PAGES:
        code, before = False, ""
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            code ^= line.lstrip().startswith("```")
            assert code or not before.strip() or not line.startswith("    "), f"{path.name}:{number}"
            before = line


def first_column(page, head):
    """Names in backticks in the first column of the table with this head."""
    rows = page.partition(f"\n{head}\n")[2].splitlines()[1:]
    cells = [row.split(" | ")[0] for row in rows[: next(i for i, row in enumerate(rows) if not row.startswith("|"))]]
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def test_the_table_of_rooms_is_that_of_the_imports():
    names = first_column((ROOT / "docs" / "architecture.md").read_text("utf-8"), "| room | what it holds |")
    assert [name.removesuffix(".py").rstrip("/").replace("/", ".") for name in names] == list(ROOMS)


def test_the_readme_counts_the_methods():
    assert f"{len(METHODS)} methods" in (ROOT / "README.md").read_text("utf-8")


def test_the_equations_of_all_losses_are_listed():
    page = (ROOT / "docs" / "method.md").read_text("utf-8")
    head = "| `--loss` | per-sample loss | numbers | source |"
    assert first_column(page, head) == list(LOSSES)
    for name, loss in LOSSES.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
        assert re.findall(r"`([^`]+)`", row)[1:] == list(loss.numbers), name


def test_commands_that_install_work_in_a_clone():
    """The package is on no index: extras are those of the clone, and packages those of setup.cfg."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", "utf-8")
    extras = settings["options.extras_require"]
    lines = [line for text in (*extras.values(), settings["options"]["install_requires"]) for line in text.split("\n")]
    known = {re.split(r"[ \[<>=#]", line.strip())[0] for line in lines}
    texts = {
        p: p.read_text("utf-8") for p in [*PAGES, *ROOT.glob("mrl_jax/**/*.py"), *ROOT.glob("experiments/**/*.py")]
    }
    commands = [(p, c) for p, text in texts.items() for c in re.findall(r"pip install (?!from)([^`\")(;\n]+)", text)]
    assert len(commands) > 10
    for path, command in commands:
        assert "mrl_jax" not in command, path
        for word in command.replace("'", "").replace("-e ", "").replace("#", " # ").replace(", ", " # ").split():
            if word == "#" or "{" in word or word in (".", "-"):
                break
            extra = re.fullmatch(r"\.\[(.+)\]", word)
            names = extra[1].split(",") if extra else []
            assert set(names) <= set(extras), (path, word)
            assert extra or re.split(r"[<>=,]", word)[0] in known, (path, word)
            if not extra and re.search(r"[<>]", word):
                assert f"'{word}'" in texts[path], f"{path}: a shell needs quotes"


def test_the_pages_on_installing_and_on_notebooks_name_all_there_are():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", "utf-8")
    table = re.search(r"\| extra \| for \|\n.*?\n\n", (ROOT / "docs" / "install.md").read_text("utf-8"), re.DOTALL)[0]
    first = [row.split("|")[1] for row in table.strip().splitlines()[2:]]
    assert sorted(re.findall(r"`([^`]+)`", " ".join(first))) == sorted(settings["options.extras_require"])
    page = (ROOT / "docs" / "notebooks.md").read_text("utf-8")
    listed = re.findall(r"^\| \[.*?\]\(\.\./notebooks/(\w+)\.ipynb\)", page, re.MULTILINE)
    assert sorted(listed) == sorted(path.stem for path in ROOT.glob("notebooks/*.ipynb"))


def assigned(statement):
    """Names that a statement at the top of a module assigns."""
    targets = {ast.Assign: lambda s: s.targets, ast.AnnAssign: lambda s: [s.target]}.get(type(statement), lambda s: [])
    return {node.id for target in targets(statement) for node in ast.walk(target) if isinstance(node, ast.Name)}


def without_entry(source):
    """Names of `__all__` that the reference leaves out: it has those with a docstring, and those of other modules."""
    body = ast.parse(source).body
    found, public = set(), []
    for statement, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and ast.get_docstring(
            statement
        ):
            found.add(statement.name)
        if isinstance(statement, ast.If):  # TYPE_CHECKING
            found |= {a.asname or a.name for s in statement.body if isinstance(s, ast.ImportFrom) for a in s.names}
        if isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith("mrl_jax"):
            found |= {a.asname or a.name for a in statement.names}
        names = assigned(statement)
        if "__all__" in names:
            public = ast.literal_eval(statement.value)
        elif len(names) == 1 and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            found |= names if isinstance(after.value.value, str) else set()
    return [name for name in public if name not in found]


def test_the_reference_has_every_public_name():
    modules = {path: path.read_text("utf-8") for path in ROOT.glob("mrl_jax/**/*.py")}
    assert sum("__all__ = [" in text for text in modules.values()) > 200
    assert {str(p.relative_to(ROOT)): names for p, text in modules.items() if (names := without_entry(text))} == {}


def test_which_names_the_reference_leaves_out():
    source = """
from mrl_jax.data import Split
from os import path
__all__ = ["A", "B", "C", "D", "E", "Split", "f", "g", "path"]
A = 1
'''Has one.'''
B = 2  # has none
C, D = 3, 4
'''Of two, neither has one.'''
E: int = 5
'''Has one.'''
def f(): '''Has one.'''
def g(): pass
"""
    assert without_entry(source) == ["B", "C", "D", "g", "path"]
