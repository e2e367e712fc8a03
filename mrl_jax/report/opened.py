"""The runs of a report: their folders, what training recorded, and one of them loaded with its data."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mrl_jax.data.dataset import Dataset
from mrl_jax.errors import InputError
from mrl_jax.eval.embedded import Embedded
from mrl_jax.eval.evaluate import embed_dataset
from mrl_jax.eval.scores import Options, PerQuery, full_report
from mrl_jax.methods.base import MethodEntry
from mrl_jax.methods.registry import entry_of
from mrl_jax.run.folder import RunFolder
from mrl_jax.run.load import load_run, run_data
from mrl_jax.run.model import TrainedModel
from mrl_jax.sweep.folder import SweepFolder
from mrl_jax.sweep.results import Outcome, Sweep

__all__ = ["Found", "OpenedRun", "Recorded", "find_runs", "open_run", "read_run", "short_names"]


@dataclass(frozen=True)
class Recorded:
    """What training recorded of a run; no array of it was read.

    Attributes:
        name: how the page calls it; no two runs of a page have the same name.
        folder: its folder.
        data: content of `data.json`.
        noise: content of `noise.json`.
        metrics: content of `metrics.jsonl`.
        result: content of `result.json`, or None for a run that is not complete.
    """

    name: str
    folder: RunFolder
    data: Mapping[str, Any]
    noise: Mapping[str, Any]
    metrics: Sequence[Mapping[str, Any]]
    result: Mapping[str, Any] | None

    @property
    def entry(self) -> MethodEntry:
        """What the registry knows of its method."""
        return entry_of(self.folder.config().method)

    @property
    def kept(self) -> str:
        """Which model it keeps, "best" or "last"."""
        return self.entry.keeps if self.result is None else self.result.get("kept", "best")

    @property
    def valid_map(self) -> float:
        """The validation mAP of the model that it keeps; -1 before the first epoch."""
        averages = [line["valid"]["average"] for line in self.metrics]
        if self.result is not None:
            return float(self.result["valid"][self.kept]["average"])
        return max(averages, default=-1.0) if self.kept == "best" else (averages or [-1.0])[-1]


@dataclass(frozen=True)
class OpenedRun:
    """A run with its model, its data, and the scores of a split.

    Attributes:
        recorded: what training recorded.
        run: the model that it keeps.
        dataset: its data.
        own_data: whether these are the data that it was trained on.
        embedded: the rows of the split that it retrieves by.
        scores: content of the report of `mrl_jax.eval`.
        per_query: direction -> the values of every query.
        data: what was given as data, or None.
    """

    recorded: Recorded
    run: TrainedModel
    dataset: Dataset
    own_data: bool
    embedded: Embedded
    scores: Mapping[str, Any]
    per_query: Mapping[str, PerQuery]
    data: Any = None

    @property
    def split(self) -> str:
        """The split that is scored."""
        assert self.embedded.split is not None
        return self.embedded.split

    @property
    def metric(self) -> str:
        """The similarity that rows are ranked by."""
        return str(self.scores["options"]["metric"])


@dataclass(frozen=True)
class Found:
    """The runs that some folders hold.

    Attributes:
        runs: all of them, those of sweeps included.
        sweeps: name of a folder -> its sweep.
        skipped: remarks on runs that are left out.
    """

    runs: tuple[Recorded, ...]
    sweeps: Mapping[str, Sweep] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()


def find_runs(workdirs: Sequence[str | os.PathLike[str]]) -> Found:
    """The runs of folders of runs and of sweeps, each with a name of its own.

    Raises:
        InputError: no folder, one that holds neither a run nor a sweep, the same folder twice, or a sweep in which no
            run is complete.
    """
    if not workdirs:
        raise InputError("a report needs the folder of a run: --workdir DIR")
    paths = [Path(w) for w in workdirs]
    places = [os.path.realpath(p) for p in paths]
    if twice := [str(p) for p, place in zip(paths, places, strict=True) if places.count(place) > 1]:
        raise InputError(f"workdir {twice[0]!r} is given twice; give each folder once")
    runs: list[Recorded] = []
    sweeps: dict[str, Sweep] = {}
    skipped: list[str] = []
    for path, name in zip(paths, _names(paths), strict=True):
        if not (path / "sweep.json").is_file():
            if path.is_dir() and not (path / "config.json").is_file():
                raise InputError(f"workdir {str(path)!r} holds neither a run nor a sweep; name the folder of one")
            runs.append(read_run(path, name))
            continue
        sweep = _read_sweep(path)
        complete = sweep.finished
        if left := [run for run in sweep.runs if run not in complete]:
            skipped.append(f"{name}: {len(left)} of {len(sweep.runs)} runs are not complete, and left out")
        if not complete:
            raise InputError(f"workdir {str(path)!r}: no run of this sweep is complete; let it finish (--resume)")
        sweeps[name] = sweep
        prefix = f"{name}/" if len(paths) > 1 else ""
        short = short_names(list(complete))
        runs += [read_run(path / "runs" / run, prefix + short[run]) for run in complete]
    return Found(tuple(runs), sweeps, tuple(skipped))


def _names(paths: Sequence[Path]) -> list[str]:
    """Names of folders: the last part of each path, or as many parts as it takes to tell them apart."""
    parts = [p.absolute().parts for p in paths]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(x[-count:]) for x in parts]
        if len(set(names)) == len(names):
            return names
    return [str(p) for p in paths]


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Names of the runs of a sweep without the parts that all have.

    Example:
        >>> short_names(["rc-noise0.2-beta0.9-seed0", "rc-noise0.6-beta0.9-seed0"])
        {'rc-noise0.2-beta0.9-seed0': 'noise0.2', 'rc-noise0.6-beta0.9-seed0': 'noise0.6'}
    """
    parts = {name: name.split("-") for name in names}
    common = set.intersection(*map(set, parts.values()))
    short = {name: "-".join(p for p in own if p not in common) or name for name, own in parts.items()}
    return short if len(set(short.values())) == len(short) else {name: name for name in names}


def _read_sweep(path: Path) -> Sweep:
    folder = SweepFolder.open(path)
    runs = {}
    for name, config in folder.configs().items():
        place = RunFolder(path / "runs" / name)
        runs[name] = Outcome(config, place.result(), place.metrics(), None, place.path)
    return Sweep(runs, path)


def read_run(path: str | os.PathLike[str], name: str) -> Recorded:
    """What training recorded in the folder of a run.

    Raises:
        InputError: the folder holds no run, or a file of it is damaged.
    """
    folder = RunFolder.open(path)
    return Recorded(name, folder, folder.data(), folder.noise(), folder.metrics(), folder.result())


def open_run(
    recorded: Recorded,
    split: str,
    data: Any = None,
    options: Options = Options(),  # noqa: B008 - frozen
    shared: dict[Any, Dataset] | None = None,
) -> OpenedRun:
    """Load the model that a run keeps, and score it on a split.

    Args:
        recorded: the run.
        split: "test" or "valid".
        data: as for `mrl_jax.evaluate`.
        options: of the scores.
        shared: data that other runs have loaded, to which those of this run are added.

    Raises:
        InputError: as `mrl_jax.evaluate`.
    """
    run, shared = load_run(recorded.folder.path), {} if shared is None else shared
    key = (recorded.data["sha256"], run.config.preset, *run.config.cut.values())  # the same key, the same data
    if key not in shared:
        shared[key] = run_data(run, recorded.folder, data)
    dataset = shared[key]
    embedded = embed_dataset(run, recorded.folder if data is None else None, dataset, split, None, recorded.name)
    scores, per_query = full_report(embedded, options)
    own = data is None or dataset.digest() == recorded.data["sha256"]
    return OpenedRun(recorded, run, dataset, own, embedded, scores, per_query, data)
