"""Programs of `experiments/`, run in this process by their names, and the files that they write."""

import csv
import importlib
import json
from pathlib import Path

from mrl_jax import Config

HERE = Path(__file__).parents[1] / "experiments"
NOTE = "were measured with the earlier form of `cosine-hold`"


def place_of(name):
    """experiments.ROOM.NAME of a program."""
    (path,) = HERE.glob(f"*/{name}.py")
    return f"experiments.{path.parent.name}.{name}"


def module_of(name):
    return importlib.import_module(place_of(name))


def run(name, *flags):
    module_of(name).main([str(flag) for flag in flags])


def lines_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def kept(results):
    return json.loads((results / "runs_wikipedia-views.json").read_text())


def stored_config(of_set):
    """The configuration in a file of results; "format" is no field."""
    return Config(**{k: v for k, v in of_set["config"].items() if k not in ("data_path", "format")})


def rebuilt(name, out, *flags):
    """The files of a program are the same from its results."""
    before = {p.name: p.read_bytes() for p in out.glob(f"{name}.*")}
    assert {".md", ".csv", ".png", ".svg"} <= {Path(p).suffix for p in before}
    run(name, "--from-results", "--out", out, *flags)
    assert {p.name: p.read_bytes() for p in out.glob(f"{name}.*")} == before
