"""Train every method on the same data, noise and seeds, and rank them.

```
leaderboard.json   what was asked for: methods, noise rates, seeds, settings; format number
METHOD/            a sweep per method, as of `mrl_jax.sweep`
leaderboard.md     the ranking
leaderboard.csv    a row per run: method, noise rate, seed, mAP, wrong share, seconds
leaderboard.png    the ranking as a critical-difference diagram
```
"""

import os
import statistics
import sys
import warnings
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mrl_jax.backend import names_backend
from mrl_jax.checksums import CheckedFolder, write_first
from mrl_jax.config import Config, fields_used, preset, with_settings
from mrl_jax.display.tables import csv_table, markdown_table, markdown_text
from mrl_jax.errors import DatasetWarning, InputError, NonFiniteLossError, first_line
from mrl_jax.eval.evaluate import embed_split
from mrl_jax.eval.scores import directions, rank_queries
from mrl_jax.eval.significance import unit_means
from mrl_jax.files import pretty_json, refuse_workdir, write_atomically
from mrl_jax.interface import option
from mrl_jax.interrupt import Interrupted
from mrl_jax.json_files import Number, parse_json
from mrl_jax.leaderboard.picture import draw_ranking
from mrl_jax.leaderboard.ranking import Ranking, rank_methods
from mrl_jax.methods.registry import METHODS, entry_of
from mrl_jax.names import printable
from mrl_jax.options import MOST_RUNS
from mrl_jax.run.representation import metric_of
from mrl_jax.sweep.folder import SweepFolder
from mrl_jax.sweep.sweep import Outcome, grid, sweep
from mrl_jax.training.run_spec import RunData, prepare_data, prepare_run

__all__ = ["NOISE_RATES", "Leaderboard", "Row", "leaderboard"]

NOISE_RATES = (0.2, 0.4, 0.6, 0.8)
"""Noise rates of a leaderboard, where no others are asked for: those of the paper's Tables 1 and 2."""
_SEEDS, _FORMAT, _FILE = 5, 1, "leaderboard.json"
_SCHEMA = {
    "format": int,
    "methods": [str],
    "noise_rates": [Number(0, 1)],
    "seeds": Number(1, whole=True),
    "settings": {"preset?": str, "recipe?": str, "method?": str},
    "sha256": str,
}
_NOT_A_SETTING = {
    "method": "a leaderboard compares several; give methods",
    "noise_rate": "a leaderboard has several; give noise_rates",
    "noise_file": "a leaderboard draws its noise, anew for every seed; leave it out, or use mrl_jax.train",
    "seed": "a leaderboard has the seeds from 0; give seeds, their number",
}
"""Fields of `Config` that settings may not hold -> why."""


@dataclass(frozen=True)
class Row:
    """The runs of a method.

    Attributes:
        precision: float [R, S, U], see `rank_methods`.
        seconds: of every run, [R, S]; of runs that were trained together, their shares.
        wrong_share: of the training labels of every run, [R, S].
    """

    precision: np.ndarray
    seconds: np.ndarray
    wrong_share: np.ndarray

    @property
    def maps(self) -> np.ndarray:
        """Test mAP of the model that a run keeps, the mean of all directions: [R, S]."""
        return np.asarray(self.precision.mean(axis=2))


@dataclass(frozen=True)
class Leaderboard:
    """Methods ranked on one data set.

    Attributes:
        rows: method -> its runs, the best method first.
        ranking: the order, and which methods are level.
        noise_rates: R rates.
        seeds: S seeds.
        left_out: method -> why it cannot be trained on these data.
        failed: method -> the error that ended one of its runs.
    """

    rows: Mapping[str, Row]
    ranking: Ranking
    noise_rates: tuple[float, ...]
    seeds: tuple[int, ...]
    left_out: Mapping[str, str]
    failed: Mapping[str, str]

    def markdown(self) -> str:
        """The ranking as a table, with what was left out."""
        rates, tested = [f"noise {rate:g}" for rate in self.noise_rates], self._tested
        level = ["level with"] if tested else []
        table = [["", "method", *rates, "mean", "average rank", *level, "seconds a run"]]
        for i, name in enumerate(self.ranking.names, 1):
            row, rank = self.rows[name], f"{self.ranking.average_rank[name]:.2f}"
            same = [", ".join(self.ranking.level_with(name)) or "none"] if tested else []
            cells = [*map(_spread, row.maps), f"{row.maps.mean():.3f}", rank, *same, f"{np.median(row.seconds):.1f}"]
            table.append([str(i), name, *cells])
        lines = [markdown_table(table), "", self._caption()]
        lines += [f"- {name} was left out: {markdown_text(why)}" for name, why in self.left_out.items()]
        lines += [f"- {name} failed: {markdown_text(why)}" for name, why in self.failed.items()]
        return "\n".join(lines)

    @property
    def _tested(self) -> bool:
        return any(d.verdict for d in self.ranking.differences.values())

    def _caption(self) -> str:
        test = (
            "Two methods are level where neither a paired t-interval over seeds nor a bootstrap interval over test "
            "instances of their mean difference leaves out 0, all pairs together at 95 % (Holm)."
            if self._tested
            else "With fewer than 5 seeds there is no test."
        )
        return (
            "Test mAP of the model that a run keeps, mean ± standard deviation over seeds; every method has its "
            f"default settings, or those that were given. {test}"
        )

    def csv(self) -> str:
        """A row per run, as comma-separated values."""
        rows: list[list[Any]] = [["method", "noise_rate", "seed", "map", "wrong_share", "seconds"]]
        for name, row in self.rows.items():
            for i, rate in enumerate(self.noise_rates):
                for j, seed in enumerate(self.seeds):
                    values = (row.maps[i, j], row.wrong_share[i, j], row.seconds[i, j])
                    rows.append([name, rate, seed, *(round(float(value), 5) for value in values)])
        return csv_table(rows)

    def plot(self, path: Path) -> None:
        """Draw the ranking as PNG."""
        draw_ranking(path, self.ranking)


def _spread(values: np.ndarray) -> str:
    mean = statistics.mean(values.tolist())
    return f"{mean:.3f} ± {statistics.stdev(values.tolist()):.3f}" if len(values) > 1 else f"{mean:.3f}"


@names_backend
def leaderboard(
    workdir: str | os.PathLike[str],
    methods: Sequence[str] | None = None,
    *,
    data: Any = None,
    noise_rates: Sequence[float] | None = None,
    seeds: int | None = None,
    resume: bool = False,
    progress: bool = False,
    **settings: Any,
) -> Leaderboard:
    """Train methods on the same data, noise and seeds, and rank them by test mAP.

    A method whose needs the data do not meet, or that refuses the settings, is left out, and one that fails does not
    end the others; the result has the reasons. Nothing is chosen by test labels: every method has its default settings,
    or those that are given.

    Args:
        workdir: folder of the leaderboard, new or empty, unless `resume`. It holds a sweep per method, with models.
        methods: their names; None for all.
        data: anything `load_dataset` takes; None for what the settings name.
        noise_rates: of the training labels; None for `NOISE_RATES`.
        seeds: number of seeds, from 0; None for 5. With fewer than 5 nothing is tested.
        resume: go on in `workdir`: runs that are complete stay. What is not given is as it was, and what is given
            replaces it, such as more seeds or other methods.
        progress: show progress on standard error.
        settings: `preset`, `recipe`, and fields of `Config`; a method leaves out those that it does not use, but one
            of the methods must use it.

    Raises:
        InputError: unknown methods or settings, bad values, or a folder that cannot be used.
        NonFiniteLossError: every method failed; tables that the folder holds stay.
        Interrupted: as in `sweep`.
    """
    asked = _asked(workdir, methods, noise_rates, seeds, settings, resume)
    folder, (configs, _) = Path(workdir), _configs(asked)
    loaded = prepare_data(next(iter(configs.values()))[0], data)
    digest, instances = loaded.dataset.digest(), len(loaded.dataset.splits["train"])
    if asked.setdefault("sha256", digest) != digest:
        raise InputError(
            f"workdir {str(workdir)!r} holds runs on other data than these; name its data, or a new folder"
        )
    configs, refused = _configs(asked, instances)
    left_out = refused | _left_out(configs, loaded)
    if len(left_out) == len(asked["methods"]):
        name, why = next(iter(left_out.items()))
        raise InputError(f"no method can be trained; the first, {name}: {why}")
    folder.mkdir(parents=True, exist_ok=True)
    write_first(folder, _FILE, pretty_json({"format": _FORMAT, **asked}) + "\n")
    rows, failed = _trained(configs, left_out, folder, data, progress)
    if not rows:
        name, why = next(iter(failed.items()))
        raise NonFiniteLossError(f"every method failed; the first, {name}: {why}")
    ranking = rank_methods({name: row.precision for name, row in rows.items()})
    ordered = {name: rows[name] for name in ranking.names}
    result = Leaderboard(ordered, ranking, tuple(asked["noise_rates"]), tuple(range(asked["seeds"])), left_out, failed)
    write_atomically(folder / "leaderboard.md", result.markdown() + "\n")
    write_atomically(folder / "leaderboard.csv", result.csv())
    result.plot(folder / "leaderboard.png")
    return result


def _trained(
    configs: Mapping[str, Sequence[Config]], left_out: Mapping[str, str], folder: Path, data: Any, progress: bool
) -> tuple[dict[str, Row], dict[str, str]]:
    """The runs of every method that is not left out, and the errors of those that failed."""
    rows: dict[str, Row] = {}
    failed: dict[str, str] = {}
    every = dict.fromkeys([*configs, *left_out])
    for i, name in enumerate(every, 1):
        if progress:
            what = f", left out: {left_out[name]}" if name in left_out else ""
            print(f"{name} ({i} of {len(every)}){printable(what)}", file=sys.stderr, flush=True)
        if name in left_out:
            continue
        own = configs[name]
        begun = (folder / name / "sweep.json").is_file()
        try:
            found = sweep(own, folder / name, data=data, resume=begun, progress=progress)
            names = {config: run for run, config in SweepFolder.open(folder / name).configs().items()}
            runs = [found.runs[names[config]] for config in own]
            if errors := [run.error for run in runs if run.error is not None]:
                failed[name] = errors[0]
            else:
                rows[name] = _row(runs, data, len({config.noise_rate for config in own}))
        except Interrupted as stopped:  # its hint names the sweep
            raise Interrupted(str(stopped).replace(str(folder / name), str(folder)), stopped.code - 128) from None
        except InputError as error:
            failed[name] = str(error)
        except Exception as error:  # a fault of one method must not end the others
            failed[name] = f"{type(error).__name__}: {first_line(error)}"
        if progress and name in failed:
            print(f"{name} failed: {printable(failed[name])}", file=sys.stderr, flush=True)
    return rows, failed


def _asked(
    workdir: str | os.PathLike[str],
    methods: Sequence[str] | None,
    noise_rates: Sequence[float] | None,
    seeds: int | None,
    settings: Mapping[str, Any],
    resume: bool,
) -> dict[str, Any]:
    """What is asked for, with what the folder holds of an earlier call."""
    refuse_workdir(workdir)
    if methods is not None and (isinstance(methods, str) or not isinstance(methods, Sequence | Set)):
        shown = repr(methods) if isinstance(methods, str) else f"of type {type(methods).__name__}"
        raise InputError(f"methods {shown}: give a list of names, such as ['mrl', 'cca']; data go as data=…")
    folder = Path(workdir)
    known: dict[str, Any] = {}
    if resume:
        known = _read(folder)
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        begun = (folder / _FILE).is_file()
        remedy = f"{option('resume')} continues it; or name a new folder" if begun else "name a new or empty folder"
        raise InputError(f"workdir {str(workdir)!r} is not empty; {remedy}")
    given = {
        "methods": None if methods is None else list(dict.fromkeys(methods)),
        "noise_rates": None if noise_rates is None else [float(rate) for rate in noise_rates],
        "seeds": seeds,
    }
    asked: dict[str, Any] = {"methods": list(METHODS), "noise_rates": list(NOISE_RATES), "seeds": _SEEDS} | known
    asked |= {name: value for name, value in given.items() if value is not None}
    asked["settings"] = {**known.get("settings", {}), **settings}
    for name in asked["methods"]:
        entry_of(name)
    if not asked["methods"]:
        raise InputError("methods: give at least one")
    if not asked["noise_rates"]:
        raise InputError("noise_rates: give at least one")
    if not 1 <= asked["seeds"] <= MOST_RUNS:
        rule = "at least 1" if asked["seeds"] < 1 else f"at most {MOST_RUNS}"
        raise InputError(f"seeds {asked['seeds']}: must be {rule}")
    for name, rule in _NOT_A_SETTING.items():
        if name in asked["settings"]:
            raise InputError(f"{name} {asked['settings'][name]!r}: {rule}")
    return asked


def _read(folder: Path) -> dict[str, Any]:
    try:
        known = parse_json(CheckedFolder(folder).read(_FILE), _SCHEMA)
        if known.pop("format") != _FORMAT:
            raise InputError(f"{folder / _FILE} was written by a newer version; update mrl_jax")
        return {name: known[name] for name in ("methods", "noise_rates", "seeds", "settings", "sha256")}
    except FileNotFoundError:
        raise InputError(
            f"workdir {str(folder)!r} holds no leaderboard ({_FILE} is missing); name its folder"
        ) from None
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / _FILE} is damaged ({error}); restore it, or begin anew") from error


def _configs(asked: Mapping[str, Any], instances: int | None = None) -> tuple[dict[str, list[Config]], dict[str, str]]:
    """Method -> a configuration for every rate and seed, rates first; and method -> why it refuses the settings.

    Default batches have at most all instances.

    Raises:
        InputError: no method uses a setting, or every method refuses the settings.
    """
    methods: list[str] = asked["methods"]
    settings = {"preset": "custom" if "data_path" in asked["settings"] else "emoji"} | asked["settings"]
    name = settings.pop("preset")
    used = {method: fields_used(method) | {"recipe"} for method in methods}
    if idle := [field for field in settings if not any(field in fields for fields in used.values())]:
        preset(name, method=methods[0], **{idle[0]: settings[idle[0]]})  # refuses it
    configs: dict[str, list[Config]] = {}
    refused: dict[str, str] = {}
    for method, fields in used.items():
        own = {field: value for field, value in settings.items() if field in fields}
        try:
            base = preset(name, method=method, noise_rate=asked["noise_rates"][0], **own)
            if instances is not None and "batch_size" not in own and base.batch_size > instances:
                base = with_settings(base, batch_size=instances) if base.has_effect("batch_size") else base
            configs[method] = grid(base, noise_rate=asked["noise_rates"], seed=range(asked["seeds"]))
        except InputError as error:
            if len(methods) == len(refused) + 1:
                raise
            refused[method] = str(error)
    return configs, refused


def _left_out(configs: Mapping[str, Sequence[Config]], loaded: RunData) -> dict[str, str]:
    """Method -> why these data or settings do not fit it."""
    left_out = {}
    for name, own in configs.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DatasetWarning)  # training says it
                prepare_run(own[0], loaded)
        except InputError as error:
            left_out[name] = str(error)
    return left_out


def _row(runs: Sequence[Outcome], data: Any, rates: int) -> Row:
    """The scores of the runs of a method, rates first."""

    def by_rate(values: list[Any]) -> np.ndarray:
        array = np.asarray(values)
        return array.reshape(rates, -1, *array.shape[1:])

    scores = [run.scores or {} for run in runs]
    return Row(
        by_rate([_precision(run, data) for run in runs]),
        by_rate([s["seconds"] / s.get("trained_together", 1) for s in scores]),
        by_rate([statistics.mean(s["wrong_share"].values()) for s in scores]),
    )


def _precision(run: Outcome, data: Any) -> np.ndarray:
    """What every test instance adds to the mAP of a run, times their number: float [U]."""
    assert run.workdir is not None
    embedded = embed_split(run.workdir, data, "test", "kept")
    metric, groups = metric_of(embedded.representation), []
    for direction in directions(embedded, ("cross",)).values():
        ap = rank_queries(embedded, direction, (), ("ap",), metric)["ap"]
        groups.append((ap[:, None], embedded.instances[direction.query]))
    contributions = unit_means(groups)[:, 0]
    return contributions * len(contributions)
