"""What commands leave in a folder, as a text that is the same for the same bits; times are left out."""

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from toy import shapes_of

from mrl_jax.data.published import prepared
from mrl_jax.run.checkpoint import Checkpoints, template
from mrl_jax.run.folder import RunFolder
from mrl_jax.search.index import Index

_TIMES = ("seconds", "stream_waiting_share", "trained_together")


def outcome(task: str, folder: str) -> str:
    """The outcome of a task, by its name; an error as its text."""
    try:
        return hashlib.sha256(json.dumps(_OF[task](Path(folder)), sort_keys=True).encode()).hexdigest()
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:500]


def _arrays(tree: Any) -> list[str]:
    return [hashlib.sha256(np.asarray(x).tobytes()).hexdigest() for x in jax.tree.leaves(tree)]


def _run(path: Path, checkpoint: bool = True) -> Any:
    folder = RunFolder.open(path)
    config, data, result = folder.config(), folder.data(), folder.result()
    if result is None:
        raise ValueError(f"{path} is not complete")
    found = [data, folder.noise(), folder.metrics(), _arrays(folder.samples()), _arrays(folder.model(config, data))]
    found.append({name: value for name, value in result.items() if name not in _TIMES})
    if checkpoint:
        expected = template(config, shapes_of(data), data["modalities"])
        with Checkpoints(folder.checkpoints, read_only=True) as checkpoints:
            last = checkpoints.epochs()[-1]
            found.append([last, _arrays(checkpoints.restore(last, expected).nested())])
    return found


def _sweep(path: Path) -> Any:
    runs = {run.name: _run(run, checkpoint=False) for run in sorted((path / "runs").iterdir())}
    return [runs, _rows(path / "sweep.csv"), (path / "sweep.png").exists()]


def _rows(path: Path) -> Any:
    with path.open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in _TIMES} for row in csv.DictReader(file)]


def _leaderboard(path: Path) -> Any:
    methods = {m.parent.name: _sweep(m.parent)[0] for m in sorted(path.glob("*/sweep.json"))}
    return [methods, _rows(path / "leaderboard.csv"), (path / "leaderboard.png").exists()]


def _prepared(path: Path) -> Any:
    prepared._sound.clear()
    data = prepared.load("inria-websearch", (), path)
    return [_arrays(data.arrays()), sorted(data.arrays()), data.class_names, data.modalities]


def _searched(path: Path) -> Any:
    found = {}
    for file in sorted((path / "run").glob("search/*.npz")):
        nearest = Index.load(file).search(np.eye(8)[:3], 5)
        found[file.name] = _arrays((nearest.scores, nearest.rows))
    return [json.loads((path / "found.json").read_text()), found, _run(path / "run")]


def _evaluated(path: Path) -> Any:
    return [json.loads((path / "scores.json").read_text()), (path / "scores.csv").read_text(), _run(path / "run")]


_OF = {
    "train": lambda path: _run(path / "run"),
    "sweep": lambda path: _sweep(path / "sweep"),
    "leaderboard": lambda path: _leaderboard(path / "board"),
    "prepare": _prepared,
    "search": _searched,
    "eval": _evaluated,
}
