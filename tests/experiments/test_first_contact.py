"""The measurement of a new user's first minutes takes the commands of the README, and sees when a table is there."""

from pathlib import Path

import pytest

from experiments.benchmarks.first_contact import lines_of_readme, timed

README = Path(__file__).parents[2] / "README.md"


def test_the_commands_are_those_of_the_readme():
    lines = lines_of_readme(README.read_text("utf-8"))
    assert lines["make"] == ["make train"]
    first, *others = lines["pip"]
    assert first.startswith("python3 -m venv .venv")
    assert others == ["pip install -e '.[test]'", "python -m mrl_jax", "python -m mrl_jax.train"]


def test_a_line_is_timed_until_its_table_and_its_end(tmp_path):
    env, log = {"PATH": "/usr/bin:/bin"}, tmp_path / "log"
    seconds, table = timed("echo head; echo 'average   0.5'; sleep 0.2; echo 'average 2' >&2", tmp_path, env, log)
    assert table is not None
    assert 0 < table < seconds
    assert timed("echo on average; pwd", tmp_path, env, log)[1] is None
    assert log.read_text() == f"head\naverage   0.5\naverage 2\non average\n{tmp_path}\n"
    with pytest.raises(SystemExit, match="'exit 3' failed; its output is in"):
        timed("exit 3", tmp_path, env, log)
