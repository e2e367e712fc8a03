"""Results of a sweep: a row per run and direction, mean ± std over seeds, the best configuration, a plot."""

import os
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mrl_jax.config import Config, shown
from mrl_jax.display.drawing import legend, picture, readable, style
from mrl_jax.display.tables import csv_table, markdown_table, markdown_text
from mrl_jax.display.text import MEMORISED
from mrl_jax.errors import InputError
from mrl_jax.interface import option
from mrl_jax.names import printable
from mrl_jax.notebook import facts_html, plural, table_html
from mrl_jax.options import CUT_FIELDS, NOISE_FIELDS, OPTIONS
from mrl_jax.sweep.names import axes_of, setting, varied

__all__ = ["Outcome", "Sweep"]

_CONDITION = ("data_path", *CUT_FIELDS, *NOISE_FIELDS, "noise_file", "noisy_validation")
"""Fields that describe the training data, not the method: the best configuration is chosen for each of their values."""

_EPOCH = {
    "best": "the epoch with the best validation mAP",
    "last": "the last epoch, which the method keeps",
}
_LINES = 8  # at most in the plot: those with the best validation mAP
_BARS = 30  # at most in the plot, likewise
_COLUMNS, _LONG = 44, 32  # characters in a line of a label, and of a value in it
_SCORE = "test mAP, average over directions"
_DIRECTIONS = 4  # at most in the table; of more only the average is shown


@dataclass(frozen=True)
class Outcome:
    """One run of a sweep.

    Attributes:
        config: its configuration.
        scores: content of its `result.json`; None while it is not complete.
        metrics: content of its `metrics.jsonl`.
        error: why it ended early, or None.
        workdir: its folder, or None.
    """

    config: Config
    scores: Mapping[str, Any] | None
    metrics: Sequence[Mapping[str, Any]]
    error: str | None
    workdir: Path | None


@dataclass(frozen=True)
class Sweep:
    """Results of a sweep.

    Attributes:
        runs: name -> run.
        workdir: the folder of the sweep, or None.
    """

    runs: Mapping[str, Outcome]
    workdir: Path | None

    def __repr__(self) -> str:
        return f"Sweep({', '.join(map(printable, self._facts()))})"

    def _repr_html_(self) -> str:
        rows = _table(self.summary()) if self.finished else []
        return facts_html(", ".join(["Sweep", *self._facts()]), {}, table_html(rows) if rows else "")

    def _facts(self) -> list[str]:
        counts = [plural(len(self.runs), "run"), f"{len(self.finished)} complete"]
        counts += [f"{len(self.failed)} failed"] if self.failed else []
        return counts + ([] if self.workdir is None else [str(self.workdir)])

    @property
    def finished(self) -> dict[str, Outcome]:
        """The runs that have scores."""
        return {name: run for name, run in self.runs.items() if run.scores is not None}

    @property
    def failed(self) -> dict[str, str]:
        """Name -> error of the runs that ended early."""
        return {name: run.error for name, run in self.runs.items() if run.error is not None}

    def rows(self) -> list[dict[str, Any]]:
        """A row per run and direction; of a run that ended early one, without numbers."""
        configs = [run.config for run in self.runs.values()]
        columns = dict.fromkeys((*axes_of(configs), *varied(configs)))
        rows = []
        for name, run in self.runs.items():
            if run.scores is None and run.error is None:
                continue
            settings = {name: setting(run.config, name) for name in columns}
            head = {"run": name, **{f: shown(v) if isinstance(v, tuple) else v for f, v in settings.items()}}
            if run.scores is None:
                rows.append(head | {"error": run.error})
                continue
            test, valid = run.scores["test"], run.scores["valid"]
            wrong, seconds = statistics.mean(run.scores["wrong_share"].values()), run.scores["seconds"]
            for direction in test["best"]["map"]:
                at = {
                    f"{split}_{which}": scores[which]["map"][direction]
                    for split, scores in (("test", test), ("valid", valid))
                    for which in ("best", "last")
                }
                numbers = {
                    "best_epoch": test["best"]["epoch"],
                    "kept": run.scores.get("kept", "best"),
                    **at,
                    "wrong_share": wrong,
                    "seconds": seconds,
                }
                rows.append(head | {"direction": direction, **numbers})
        return rows

    def csv(self) -> str:
        """`rows` as comma-separated values."""
        rows = self.rows()
        names = list(dict.fromkeys(name for row in rows for name in row))
        return csv_table([names, *([row.get(name, "") for name in names] for row in rows)])

    def summary(self) -> dict[str, Any]:
        """Mean and standard deviation over seeds of every cell, and the best cell of each noise by validation mAP.

        Returns:
            `{"varied": fields, "cells": [{"settings", "seeds", "wrong_share", "valid": {"mean", "std"}, "test":
            {"kept": {direction or "average": {"mean", "std"}}, "best": {…}, "last": {…}}, "runs", "failed": [name],
            "kept", "best"}],
            "best": [{"settings", "noise", "valid", "runs"}], "failed": {name: error}, "missing": [name]}`. `valid` is
            the average mAP of the model that a run keeps; "kept" of a cell lists which that is, "best" or "last". A
            standard deviation of one seed is None. With several noises, the last of "best" has the highest mean over
            them, and noise None. A cell with a failed run is never the best.
        """
        names = [name for name in varied([run.config for run in self.runs.values()]) if name != "seed"]
        groups: dict[tuple[Any, ...], list[str]] = {}

        def at(config: Config) -> tuple[Any, ...]:
            return tuple(setting(config, name) for name in names)

        for name, run in self.finished.items():
            groups.setdefault(at(run.config), []).append(name)
        cells: list[dict[str, Any]] = []
        for values, runs in groups.items():
            scores = [self.finished[name].scores or {} for name in runs]
            kept = [s.get("kept", "best") for s in scores]  # earlier versions kept the best of every method
            at_epochs = {"kept": kept, "best": ["best"] * len(runs), "last": ["last"] * len(runs)}
            test = {
                which: [_with_average(s["test"][at]) for s, at in zip(scores, epochs, strict=True)]
                for which, epochs in at_epochs.items()
            }
            cells.append(
                {
                    "settings": dict(zip(names, values, strict=True)),
                    "seeds": [self.finished[name].config.seed for name in runs],
                    "wrong_share": statistics.mean(v for s in scores for v in s["wrong_share"].values()),
                    "valid": _spread([s["valid"][at]["average"] for s, at in zip(scores, kept, strict=True)]),
                    "test": {w: {d: _spread([m[d] for m in maps]) for d in maps[0]} for w, maps in test.items()},
                    "runs": runs,
                    "failed": [name for name in self.failed if at(self.runs[name].config) == values],
                    "kept": sorted(set(kept)),
                    "best": False,
                }
            )
        missing = [name for name, run in self.runs.items() if run.scores is None and run.error is None]
        return {
            "varied": names,
            "cells": cells,
            "best": _best(cells, names),
            "failed": self.failed,
            "missing": missing,
        }

    def markdown(self) -> str:
        """The table of the cells, and the best of them."""
        summary = self.summary()
        cells = summary["cells"]
        if not cells:
            return "\n".join(["No run is complete.", *_failure_lines(summary)])
        heads, *lines = _table(summary)
        settings = len(summary["varied"])
        rows = [[markdown_text(x) for x in line[:settings]] + line[settings:] for line in lines]
        table = markdown_table([[markdown_text(x) for x in heads], *rows])
        epoch = " or ".join(_EPOCH[which] for which in sorted({which for c in cells for which in c["kept"]}))
        caption = f"Test mAP at {epoch}, mean ± standard deviation over seeds."
        notes = [*_best_lines(summary), *_memorised_lines(summary), *_failure_lines(summary)]
        return "\n".join([table, "", caption, *notes])

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draw test mAP, averaged over directions, against what was varied.

        Args:
            path: a PNG file to write, or None.

        Returns:
            The figure of matplotlib.

        Raises:
            InputError: no run is complete, or the file cannot be written.
        """
        path = None if path is None else Path(path)
        summary = self.summary()
        cells, names = summary["cells"], summary["varied"]
        if not cells:
            raise InputError("no run of the sweep is complete, so there is nothing to draw; let one end first")
        numeric = [n for n in names if all(_is_number(c["settings"][n]) for c in cells)]
        if numeric:
            return _plot_lines(path, cells, names, "noise_rate" if "noise_rate" in numeric else numeric[0])
        return _plot_bars(path, cells, names)


def _table(summary: Mapping[str, Any]) -> list[list[str]]:
    """A header, and a row for each cell: its settings, then its scores."""
    cells = summary["cells"]
    directions = list(dict.fromkeys(d for c in cells for d in c["test"]["kept"] if d != "average"))
    columns = [*(directions if len(directions) <= _DIRECTIONS else ()), "average"]
    heads = [*summary["varied"], "wrong", "seeds", "valid mAP", *columns, "average, last"]
    rows = [[_short(h) for h in heads]]
    for cell in cells:
        kept, last = cell["test"]["kept"], cell["test"]["last"]
        values = [_mean_and_std(kept[d]) if d in kept else "" for d in columns]
        settings = [_value(v) for v in cell["settings"].values()]
        valid = f"{_mean_and_std(cell['valid'])}{' *' if cell['best'] else ''}"
        wrong, seeds = f"{cell['wrong_share']:.0%}", str(len(cell["seeds"]))
        rows.append([*settings, wrong, seeds, valid, *values, _mean_and_std(last["average"])])
    return rows


def _plot_lines(path: Path | None, cells: Sequence[dict[str, Any]], names: Sequence[str], x: str) -> Any:
    """A line for each combination of the settings other than x."""
    lines: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for cell in cells:
        lines.setdefault(_described(cell["settings"], [n for n in names if n != x]), []).append(cell)
    good = sorted(lines.items(), key=lambda line: -statistics.mean(c["valid"]["mean"] for c in line[1]))
    title = f"the {_LINES} of {len(good)} with the best validation mAP" if len(good) > _LINES else ""
    with picture(path, (7, 4.2), title=title) as (axes,):
        for i, (rest, members) in enumerate(good[:_LINES]):
            members = sorted(members, key=lambda c: c["settings"][x])
            scores = [c["test"]["kept"]["average"] for c in members]
            axes.errorbar(
                [c["settings"][x] for c in members], [s["mean"] for s in scores], [s["std"] or 0 for s in scores],
                capsize=3, label=_wrapped(rest) or None, **style(i, marked=True),
            )  # fmt: skip
        if OPTIONS[x].log:
            from matplotlib.ticker import LogFormatter  # the usual one writes mathematics

            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(LogFormatter())
            axes.xaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))
        axes.set(xlabel=_short(x), ylabel=_SCORE)
        axes.grid(alpha=0.3)
        legend(axes)
    return axes.figure


def _plot_bars(path: Path | None, cells: Sequence[dict[str, Any]], names: Sequence[str]) -> Any:
    """A bar for each cell, the best at the top."""
    cells = sorted(cells, key=lambda c: c["valid"]["mean"])
    title = f"the {_BARS} of {len(cells)} with the best validation mAP" if len(cells) > _BARS else ""
    cells = cells[-_BARS:]
    labels = [_wrapped(_described(c["settings"], names)) or "all seeds" for c in cells]
    scores = [c["test"]["kept"]["average"] for c in cells]
    lines = 1 + max(label.count("\n") for label in labels)
    with picture(path, (6, max(2.5, 1.2 + (0.17 * lines + 0.08) * len(cells))), title=title) as (axes,):
        errors = [s["std"] or 0 for s in scores]
        axes.barh(range(len(cells)), [s["mean"] for s in scores], xerr=errors, capsize=3, color="0.6")
        axes.set_yticks(range(len(cells)), labels, fontsize=8)
        axes.set(xlabel=_SCORE, ylim=(-0.7, len(cells) - 0.3))
        axes.grid(alpha=0.3, axis="x")
    return axes.figure


def _described(settings: Mapping[str, Any], names: Sequence[str]) -> tuple[str, ...]:
    """Settings by name; a long value, such as a path, keeps its end."""
    values = {n: _value(settings[n]) for n in names}
    return tuple(f"{_short(n)} {v if len(v) <= _LONG else '…' + v[1 - _LONG :]}" for n, v in values.items())


def _wrapped(parts: Sequence[str]) -> str:
    """Settings in lines for a label, without a break in a short setting."""
    lines = [""]
    for part in parts:
        joined = f"{lines[-1]}, {part}" if lines[-1] else part
        lines = [*lines[:-1], joined] if len(joined) <= _COLUMNS else [*lines, *textwrap.wrap(part, _COLUMNS)]
    return "\n".join(readable(line) for line in lines if line)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _with_average(scores: Mapping[str, Any]) -> dict[str, float]:
    return {**scores["map"], "average": scores["average"]}


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    return {"mean": statistics.mean(values), "std": statistics.stdev(values) if len(values) > 1 else None}


def _best(cells: list[dict[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """The best cell of each noise, which is marked, and with several noises the best settings over all of them."""
    chosen = []
    noises = [n for n in names if n in _CONDITION]
    by_noise: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    by_rest: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for cell in cells:
        by_noise.setdefault(tuple(cell["settings"][n] for n in noises), []).append(cell)
        by_rest.setdefault(tuple(v for n, v in cell["settings"].items() if n not in noises), []).append(cell)
    if len(by_rest) < 2:  # nothing to choose from
        return []
    rest = [n for n in names if n not in noises]
    for noise, members in by_noise.items():
        complete = [c for c in members if not c["failed"]]  # the mean over the other seeds alone would be biased
        if not complete:
            continue
        best = max(complete, key=lambda c: c["valid"]["mean"])
        best["best"] = True
        settings = {n: best["settings"][n] for n in rest}
        at = dict(zip(noises, noise, strict=True))
        chosen.append({"settings": settings, "noise": at, "valid": best["valid"]["mean"], "runs": best["runs"]})
    everywhere = {k: v for k, v in by_rest.items() if len(v) == len(by_noise) and not any(c["failed"] for c in v)}
    if len(by_noise) > 1 and everywhere:
        mean = {k: statistics.mean(c["valid"]["mean"] for c in v) for k, v in everywhere.items()}
        key = max(mean, key=lambda k: mean[k])
        runs = [name for c in everywhere[key] for name in c["runs"]]
        chosen.append({"settings": dict(zip(rest, key, strict=True)), "noise": None, "valid": mean[key], "runs": runs})
    return chosen


def _best_lines(summary: Mapping[str, Any]) -> list[str]:
    lines = []
    for best in summary["best"]:
        settings = ", ".join(f"{_short(n)} {markdown_text(_value(v))}" for n, v in best["settings"].items())
        noise = best["noise"]
        own = "".join(f", {_short(n)} {markdown_text(_value(v))}" for n, v in (noise or {}).items())
        where = " over all noises" if noise is None else own
        lines.append(f"- Best by validation mAP{where}: {settings} (valid {best['valid']:.3f})")
    return ["", *lines] if lines else []


def _memorised_lines(summary: Mapping[str, Any]) -> list[str]:
    """A line on the cells whose last epoch lies far below the best."""
    cells = summary["cells"]
    lost = [c["test"]["best"]["average"]["mean"] - c["test"]["last"]["average"]["mean"] for c in cells]
    found = sum(difference >= MEMORISED for difference in lost)
    if not found:
        return []
    most = max(range(len(lost)), key=lost.__getitem__)
    where = markdown_text(", ".join(_described(cells[most]["settings"], summary["varied"])))
    worst = f"by {lost[most]:.3f} in {where}" if where else f"by {lost[most]:.3f}"
    return [
        "",
        f"The last epoch lies {MEMORISED:g} mAP or more below the best in {found} of {len(cells)} rows, at most "
        f"{worst}: the model memorises its training labels.",
    ]


def _failure_lines(summary: Mapping[str, Any]) -> list[str]:
    failed = [f"- {markdown_text(name)} failed: {markdown_text(error)}" for name, error in summary["failed"].items()]
    missing = summary["missing"]
    unfinished = [f"- {len(missing)} runs are not complete; {option('resume')} continues them"] if missing else []
    return ["", *failed, *unfinished] if failed or unfinished else []


def _mean_and_std(spread: Mapping[str, float | None]) -> str:
    return f"{spread['mean']:.3f}" + (f" ± {spread['std']:.3f}" if spread["std"] is not None else "")


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else shown(value)


def _short(name: str) -> str:
    return name.replace("_", " ").replace("->", " → ")
