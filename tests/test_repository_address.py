"""`.ci/address.py`: one call writes the address everywhere, another replaces it, and a wrong one changes nothing."""

import configparser
import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_docs import too_long

ROOT = Path(__file__).parents[1]
PROGRAM = ROOT / ".ci" / "address.py"
FIRST, SECOND = "https://github.com/first-owner/one", "https://github.com/second.owner/two_x"


@pytest.fixture
def clone(tmp_path):
    for name in ("README.md", "setup.cfg", "mkdocs.yml", "CITATION.cff"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks", ignore=shutil.ignore_patterns(".*", "runs"))
    return tmp_path


def write(address, root):
    return sorted(str(p.relative_to(root)) for p in runpy.run_path(str(PROGRAM))["write"](address, root))


def contents(root):
    return {p: p.read_text("utf-8") for p in root.rglob("*") if p.is_file()}


def percent_text(notebook):
    """The cells of a notebook as the percent format writes them."""
    cells = []
    for cell in notebook["cells"]:
        lines = "".join(cell["source"]).split("\n")
        if cell["cell_type"] == "markdown":
            cells += ["# %% [markdown]", *(f"# {line}".rstrip() for line in lines), ""]
        else:
            cells += ["# %%", *(re.sub(r"^( *)%", r"\1# %", line) for line in lines), ""]
    return [line for line in cells if line]


def test_every_place_gets_the_address_and_another_replaces_it(clone):
    changed = write(FIRST, clone)
    notebooks = sorted(f"notebooks/{p.name}" for p in (clone / "notebooks").iterdir())
    assert changed == sorted(["CITATION.cff", "README.md", "mkdocs.yml", "setup.cfg", *notebooks])
    assert write(FIRST, clone) == []
    first = contents(clone)
    assert write(SECOND, clone) == changed
    assert not any("first-owner" in text for text in contents(clone).values())
    assert write(f"{FIRST}.git", clone) == changed  # as `git remote` shows it
    assert contents(clone) == first


@pytest.mark.parametrize("path", sorted(ROOT.glob("notebooks/*.py")), ids=lambda path: path.stem)
def test_the_first_cell_tries_and_installs_what_its_notebook_imports(path):
    text = path.read_text("utf-8")
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    required = re.findall(r"^[a-z][\w-]+", settings["options"]["install_requires"], re.MULTILINE)
    there = {x.replace("-", "_") for x in required} | {"PIL", "sklearn", "mrl_jax", *sys.stdlib_module_names}
    needed = {x.split(".")[0] for x in re.findall(r"^(?:import|from) ([\w.]+)", text, re.MULTILINE)} - there
    first = re.search(r"^try:\n.*?^    raise .*?$", text, re.MULTILINE | re.DOTALL)[0]
    assert set(re.findall(r"^    import (\w+)", first, re.MULTILINE)) == needed | {"mrl_jax"}
    assert set(re.search(r"pip install -e \.([ \w]*)", first)[1].split()) == needed


def test_badges_and_fields(clone):
    write(FIRST, clone)
    readme = (clone / "README.md").read_text("utf-8")
    head, badges, rest = re.split(r"<!-- badges -->\n|<!-- end of badges -->\n", readme)
    assert head == "# mrl_jax\n\n"
    assert re.findall(r"\[!\[(\w+)\]", badges) == ["docs", "Python", "licence", "Colab"]  # no workflow, no badge of CI
    own = re.sub(
        r"\n<!-- badges -->.*?<!-- end of badges -->\n", "", (ROOT / "README.md").read_text("utf-8"), flags=re.DOTALL
    )
    assert f"# mrl_jax\n{rest}" == own
    assert too_long(readme) == []
    (clone / ".github" / "workflows").mkdir(parents=True)
    (clone / ".github" / "workflows" / "ci.yml").touch()
    write(FIRST, clone)
    assert f"[![CI]({FIRST}/actions/workflows/ci.yml/badge.svg)]" in (clone / "README.md").read_text("utf-8")
    settings = configparser.ConfigParser()
    settings.read(clone / "setup.cfg")
    assert settings["metadata"]["url"] == FIRST
    assert "Documentation = https://first-owner.github.io/one/" in settings["metadata"]["project_urls"]
    assert settings["metadata"]["license"] == "Apache-2.0"
    assert f"\nrepo_url: {FIRST}\n" in (clone / "mkdocs.yml").read_text("utf-8")
    assert f"\nrepository-code: {FIRST}\n" in (clone / "CITATION.cff").read_text("utf-8")


def test_notebooks_install_from_the_address_and_their_links_work_there(clone):
    write(FIRST, clone)
    for path in sorted((clone / "notebooks").glob("*.ipynb")):
        notebook = json.loads(path.read_text("utf-8"))
        cells = ["".join(cell["source"]) for cell in notebook["cells"]]
        more = {"your_data": " pandas", "beside_pytorch": " torch"}.get(path.stem, "")
        install = f"    %pip install --quiet git+{FIRST}{more}\n    import mrl_jax"
        assert next(x for x in cells if "import mrl_jax" in x).endswith(install), path.name
        colab = f"(https://colab.research.google.com/github/first-owner/one/blob/main/notebooks/{path.name})"
        assert cells[0].split("\n")[2].endswith(colab)
        assert "](../" not in "".join(cells)
        assert f"]({FIRST}/blob/main/docs/" in cells[-1]
        lines = path.with_suffix(".py").read_text("utf-8").split("\n")
        assert [line for line in lines if line] == percent_text(notebook), "the pair stays in sync"


@pytest.mark.parametrize(
    "address", ["first/one", "https://gitlab.com/a/b", "https://github.com/a", "https://github.com/a/b/c"]
)
def test_another_form_is_refused_in_one_line_and_changes_nothing(clone, address):
    before = contents(clone)
    with pytest.raises(ValueError, match=re.escape(f"{address!r}: give https://github.com/OWNER/NAME")):
        write(address, clone)
    assert contents(clone) == before


def test_the_command_says_how_it_is_used():
    done = subprocess.run([sys.executable, PROGRAM], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "usage: python .ci/address.py https://github.com/OWNER/NAME\n")
