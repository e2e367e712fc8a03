"""The examples of `docs/your_data.md` run, one after the other, as a reader would run them."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "your_data.md"
OPTIONAL = ("torch", "datasets")  # of examples that are left out where these are not installed


@pytest.mark.slow
def test_the_page_of_your_own_data_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names, ran = {}, 0
    page = PAGE.read_text("utf-8")
    for match in re.finditer(r"^```python\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE):
        block, line = match[1], page[: match.start(1)].count("\n")
        needed = [name for name in OPTIONAL if f"import {name}\n" in block]
        if any(find_spec(name) is None for name in needed):
            continue
        exec(compile("\n" * line + block, str(PAGE), "exec"), names)  # lines of a traceback are those of the page
        ran += 1
        if "data" in names:
            sizes = [len(split) for split in names["data"].splits.values()]
            assert min(sizes) > 0, block
    assert ran >= page.count("```python") - len(OPTIONAL)
    assert "best (epoch" in capsys.readouterr().out


@pytest.mark.parametrize("flags", re.findall(r"^python -m mrl_jax\.data (info .*)$", PAGE.read_text("utf-8"), re.M))
def test_its_commands_take_the_file_of_its_example(flags, tmp_path, monkeypatch, capsys):
    from mrl_jax.data.__main__ import main

    text = PAGE.read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    exec("\n".join([blocks[0], next(block for block in blocks if "mine.csv" in block)]), {})
    assert main(flags.split()) == 0
    assert "image" in capsys.readouterr().out
