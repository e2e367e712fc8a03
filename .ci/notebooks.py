"""Run the notebooks, each from its text, and write them with their outputs.

    python .ci/notebooks.py              # all; with names, such as `five_minutes`, those
    make notebooks                       # CI: they run without error or warning, and what is kept belongs to the text

A notebook is a pair in notebooks/: `NAME.py`, the text in the percent format of jupytext, which is edited, and
`NAME.ipynb`, which this program makes of it. Outputs are kept without what differs from run to run.

A notebook may take 180 s on two CPU cores, the start of its kernel not counted. One that takes longer gets a warning;
beyond twice that, which leaves room for slow and busy machines, it is refused.
"""

import base64
import io
import os
import re
import sys
import tempfile
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from jupyter_client import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))
MOST_BYTES = 500_000
MOST_SECONDS = 180
_FORMAT = "py:percent"
_METADATA = {
    "jupytext": {
        "formats": "ipynb,py:percent",
        "notebook_metadata_filter": "-all",
        "cell_metadata_filter": "-all",
    },
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
# What training tells on standard error: its folder, a bar where widgets are not installed, and on a busy machine that
# compiling takes long.
_PROGRESS = re.compile(
    r"run folder: .*|(training|sweep): +\d+%\|.*|E\d{4} .*slow_operation_alarm.*|\*+|\[Compiling module .*"
)


def read_text(name: str) -> Any:
    """The notebook that the text says, without outputs."""
    notebook = jupytext.read(FOLDER / f"{name}.py", fmt=_FORMAT)
    notebook.metadata = nbformat.from_dict(_METADATA)
    for number, cell in enumerate(notebook.cells, 1):
        cell.id, cell.metadata = f"cell-{number}", nbformat.from_dict({})
    return notebook


def written(name: str) -> Any:
    """The notebook that is kept, with outputs."""
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def run(notebook: Any, seconds: float = MOST_SECONDS) -> None:
    """Run all cells in a kernel and a folder of their own; the outputs are put into the notebook.

    Args:
        notebook: the notebook.
        seconds: how long it may take; twice that ends it.

    Raises:
        CellExecutionError: a cell raised an error.
        RuntimeError: a cell wrote to standard error, such as a warning; or the notebook takes twice what it may.

    Warns:
        UserWarning: it takes longer than it may.
    """
    begun: list[float] = []

    def left(_: Any) -> float:
        begun[:] = begun or [time.monotonic()]
        return max(begun[0] + 2 * seconds - time.monotonic(), 0.001)

    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as sockets:
        kernel = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=f"{sockets}/kernel")
        settings = {"timeout_func": left, "startup_timeout": 600, "record_timing": False, "coalesce_streams": True}
        client = NotebookClient(notebook, km=kernel, resources={"metadata": {"path": folder}}, **settings)
        rule = f"a notebook may take {seconds:g} s on two CPU cores: train less in it, or fewer runs"
        try:
            client.execute()
        except CellTimeoutError as error:
            raise RuntimeError(f"ended after {2 * seconds:g} s; {rule}") from error
        if begun and (took := time.monotonic() - begun[0]) > seconds:
            warnings.warn(f"this notebook took {took:.0f} s; {rule}", stacklevel=2)
        notebook.metadata = nbformat.from_dict(_METADATA)  # without the version of Python
        for cell in code_cells(notebook):
            cell.metadata = nbformat.from_dict({})
            if found := [line for output in cell.outputs for line in unexpected(output)]:
                raise RuntimeError(f"standard error of\n{cell.source}\n\n" + "\n".join(found))
            cell.outputs = [settled(output) for output in cell.outputs if output.get("name") != "stderr"]
        if volatile := [text for text in texts(notebook) if folder in text]:
            raise RuntimeError(f"an output holds the path of this run:\n{volatile[0]}")


def code_cells(notebook: Any) -> list[Any]:
    """The cells with code."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def unexpected(output: Any) -> list[str]:
    """The lines of an output on standard error that are not progress."""
    if output.get("name") != "stderr":
        return []
    return [x for x in re.split(r"[\r\n]+", output.text) if x.strip() and not _PROGRESS.fullmatch(x.strip())]


def settled(output: Any) -> Any:
    """An output without what differs from run to run, such as addresses of objects, and with small pictures."""
    data = output.get("data", {})
    if "text/plain" in data:
        data["text/plain"] = re.sub(r" at 0x[0-9a-f]+", "", data["text/plain"])
    if "image/png" in data:
        reduced = io.BytesIO()
        with Image.open(io.BytesIO(base64.b64decode(data["image/png"]))) as picture:
            picture.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(reduced, "png", optimize=True)
        data["image/png"] = base64.b64encode(reduced.getvalue()).decode()
    return output


def texts(notebook: Any) -> list[str]:
    """All texts in the outputs."""
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    data = [value for output in outputs for kind, value in output.get("data", {}).items() if kind.startswith("text/")]
    return [output.text for output in outputs if "text" in output] + data


def pictures(notebook: Any) -> list[bytes]:
    """All pictures in the outputs, as PNG."""
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return [base64.b64decode(o.data["image/png"]) for o in outputs if "image/png" in o.get("data", {})]


def write(name: str) -> None:
    """Run a notebook, and write it with its outputs."""
    notebook = read_text(name)
    run(notebook)
    text = nbformat.writes(notebook) + "\n"
    if len(text) > MOST_BYTES:
        raise RuntimeError(f"{name}: {len(text):,} bytes; at most {MOST_BYTES:,}: draw smaller pictures")
    (FOLDER / f"{name}.ipynb").write_text(text, "utf-8")
    print(f"notebooks/{name}.ipynb: {len(text):,} bytes, {len(pictures(notebook))} pictures", flush=True)


def main(names: list[str]) -> int:
    """Write notebooks, two at a time."""
    if unknown := sorted(set(names) - set(NAMES)):
        sys.exit(f"{unknown[0]} is no notebook; there are {', '.join(NAMES)}")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, names or NAMES))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
