"""The notebooks: text and file are one pair, the outputs that are kept are of this text, and each runs without a word.

`make notebooks` runs these tests; two at a time take a minute or two.
"""

import runpy
import signal
import threading
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.notebooks, pytest.mark.filterwarnings("ignore::ResourceWarning")]  # Jupyter's sockets
ROOT = Path(__file__).parents[1]
NAMES = sorted(path.stem for path in ROOT.glob("notebooks/*.py"))


@pytest.fixture(scope="module")
def program():
    """The program that writes the notebooks."""
    return runpy.run_path(str(ROOT / ".ci" / "notebooks.py"))


@pytest.fixture
def notebook(program):
    """Makes a notebook of the sources of its cells."""
    import nbformat

    return lambda *sources: nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(x) for x in sources])


def sources(notebook):
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def lines(text):
    """Without empty ones, in which ruff and jupytext differ."""
    return [line for line in text.split("\n") if line]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_kept_belongs_to_the_text(program, name):
    import jupytext

    text, kept = program["read_text"](name), program["written"](name)
    remedy = f"write it anew: python .ci/notebooks.py {name}"
    assert sources(kept) == sources(text), remedy
    assert kept.metadata == text.metadata, remedy
    by_an_editor = jupytext.writes(kept, fmt="py:percent")
    assert lines(by_an_editor) == lines((ROOT / "notebooks" / f"{name}.py").read_text("utf-8"))
    cells = program["code_cells"](kept)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), remedy
    assert program["pictures"](kept), "a notebook shows a picture"
    assert (ROOT / "notebooks" / f"{name}.ipynb").stat().st_size <= program["MOST_BYTES"]
    assert not any(output.get("name") == "stderr" for cell in cells for output in cell.outputs)
    for text in program["texts"](kept):
        assert str(Path.home()) not in text
        assert "/tmp" not in text
        assert str(ROOT) not in text


@pytest.mark.filterwarnings("default:this notebook took")  # shown; twice the limit is an error
@pytest.mark.parametrize("name", NAMES)
def test_it_runs_without_error_or_warning(program, name):
    text = program["read_text"](name)
    program["run"](text)
    kept = [[o.output_type for o in cell.outputs] for cell in program["code_cells"](program["written"](name))]
    assert [[o.output_type for o in cell.outputs] for cell in program["code_cells"](text)] == kept


def test_errors_warnings_and_paths_are_found(program, notebook):
    from nbclient.exceptions import CellExecutionError

    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        program["run"](notebook("1 / 0"))
    with pytest.raises(RuntimeError, match="UserWarning: odd"):
        program["run"](notebook("import warnings; warnings.warn('odd')"))
    with pytest.raises(RuntimeError, match="holds the path of this run"):
        program["run"](notebook("import os; print(os.getcwd())"))


def test_a_notebook_that_takes_too_long_is_told_and_twice_as_long_is_ended(program, notebook):
    with pytest.warns(UserWarning, match=r"this notebook took \d+ s; a notebook may take 2 s .*: train less"):
        program["run"](notebook("import time; time.sleep(2.1)"), 2)
    with pytest.raises(RuntimeError, match="ended after 2 s; a notebook may take 1 s on two CPU cores: train less"):
        program["run"](notebook("1", "import time; time.sleep(600)"), 1)


def test_a_cell_that_is_interrupted_leaves_a_run_that_the_same_cell_ends(program, notebook, tmp_path):
    """The real kernel of a notebook, stopped as its button stops it."""
    from jupyter_client import KernelManager

    where = str(tmp_path / "run")
    cell = f"""
from toy import toy_arrays, toy_config
from mrl_jax import train
result = train(toy_config(epochs=200, method='mrl'), {where!r}, data=toy_arrays(), resume='auto')
print(len(result.metrics), 'epochs')
"""
    manager = KernelManager(kernel_name="python3", transport="ipc", ip=str(tmp_path / "kernel"))
    manager.start_kernel(cwd=str(ROOT / "tests"))
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=600)
        stopping = threading.Thread(
            target=interrupt_after_two_epochs, args=(manager, tmp_path / "run" / "metrics.jsonl")
        )
        stopping.start()
        stopped, told = executed(client, cell)
        stopping.join()
        assert stopped["ename"] == "Interrupted"
        assert "resume=True) continues it" in stopped["evalue"]
        again, told = executed(client, cell)
        assert (again["status"], told) == ("ok", "200 epochs\n")
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def interrupt_after_two_epochs(manager, metrics):
    while not metrics.exists() or metrics.read_bytes().count(b"\n") < 2:
        time.sleep(0.05)
    manager.signal_kernel(signal.SIGINT)


def executed(client, cell):
    """The reply to a cell, and what it prints."""
    told = []

    def hear(message):
        if message["msg_type"] == "stream" and message["content"]["name"] == "stdout":
            told.append(message["content"]["text"])

    reply = client.execute_interactive(cell, output_hook=hear, timeout=600)
    return reply["content"], "".join(told)
