"""The examples of docs/export.md run as they stand; tests/export/test_pytorch.py has those that need PyTorch."""

import re
import shlex
from pathlib import Path

import numpy as np
from untrained import features

from mrl_jax import export, load_run
from mrl_jax.export import FORMATS
from mrl_jax.export.__main__ import _parser

PAGE = (Path(__file__).parents[2] / "docs" / "export.md").read_text("utf-8")
CODE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_its_programs_in_jax_give_the_rows_of_the_run(toy_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mine").symlink_to(toy_run)
    export(toy_run, "programs", "stablehlo")
    x = features()["sound"]
    expected = load_run(toy_run).represent({"sound": x})["sound"]
    first, second = (code for code in CODE if "torch" not in code)
    names = {"x": x}
    exec(first, names)
    np.testing.assert_allclose(names["output"].rows, expected, atol=1e-5)
    exec(second, names)
    np.testing.assert_allclose(names["rows"], expected, atol=1e-5)


def test_its_commands_parse():
    commands = re.findall(r"^python -m mrl_jax\.export (.*?)(?:\s+#.*)?$", PAGE, re.MULTILINE)
    formats = [_parser().parse_args(shlex.split(command)).format for command in commands]
    assert [f for f in formats if f] == list(FORMATS)
    assert formats.count(None) == 1


def test_its_table_lists_the_formats():
    table = PAGE.partition("| format | what is written | needs |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)`", table, re.MULTILINE) == list(FORMATS)
