"""The measurement of a new user's first minutes takes the commands of the README, and sees when a table is there."""

from pathlib import Path

import pytest

from experiments.benchmarks.first_contact import lines_of, timed

ROOT = Path(__file__).parents[2]


def test_the_commands_are_those_of_the_pages():
    first, then = lines_of("make", ROOT)
    assert first == "make train"
    assert then.startswith("python -m mrl_jax.train --method consensus ")
    install, train = lines_of("pip", ROOT)
    assert install == "python3 -m venv .venv && . .venv/bin/activate && pip install -e '.[test]'"
    assert train == "python -m mrl_jax.train"


def test_a_line_is_timed_until_its_table_and_its_end(tmp_path):
    env, log = {"PATH": "/usr/bin:/bin"}, tmp_path / "log"
    seconds, table = timed("echo head; echo 'average   0.5'; sleep 0.2; echo 'average 2' >&2", tmp_path, env, log)
    assert table is not None
    assert 0 < table < seconds
    assert timed("echo on average; pwd", tmp_path, env, log)[1] is None
    assert log.read_text() == f"head\naverage   0.5\naverage 2\non average\n{tmp_path}\n"
    with pytest.raises(SystemExit, match="'exit 3' failed; its output is in"):
        timed("exit 3", tmp_path, env, log)
