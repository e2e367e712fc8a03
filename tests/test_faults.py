"""A share of the faults that `python tests/faults/run.py` tries."""

import sys

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="stops processes as Linux does"),
]


def test_faults_lose_nothing():
    from faults import run

    rows, failed = run.run(
        2, seed=5, kinds=("killed", "interrupted", "full-disk", "odd-name"), tasks=("train",), shown=False
    )
    assert not failed
    assert [row.tries for row in rows] == [2] * 4


def test_a_fault_that_loses_something_is_counted():
    from faults import run

    row = run.Row("x").add("", 1.0).add("SILENT: other numbers", 1.0).add("exit code 1: error", 2.0)
    assert run.table([row]).splitlines()[-1] == "| all | 3 | 1 | 1 | 1 | 4 |"
