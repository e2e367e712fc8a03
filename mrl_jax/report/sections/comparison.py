"""Several runs beside each other: their scores, tests of their differences, curves, and the cells of sweeps."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mrl_jax.errors import InputError, listed
from mrl_jax.eval.comparison import compare_embedded
from mrl_jax.eval.differences import holm_levels
from mrl_jax.eval.scores import Options
from mrl_jax.report.blocks import NOTHING, Block, Cell, Chart, Note, Section, Table, number_cell, share_cell
from mrl_jax.report.charts import forest, intervals, lines
from mrl_jax.report.memory import memory_at, predictions
from mrl_jax.report.opened import OpenedRun, Recorded
from mrl_jax.sweep.names import setting, varied

__all__ = ["TESTED", "Tested", "compared_verdict", "comparison", "tested", "value_cell"]

TESTED = 8
"""Runs up to which each is loaded and tested; of more only what training recorded is compared."""
_CURVES, _DIRECTIONS = 10, 4


class Tested(NamedTuple):
    """The difference of a run from another in mean mAP: its interval, p, and "ahead", "behind" or "level" (Holm)."""

    name: str
    difference: float
    ends: Sequence[float]
    p: float
    verdict: str


def comparison(
    runs: Sequence[Recorded],
    opened: Sequence[OpenedRun],
    reference: Recorded,
    tests: Sequence[Tested] = (),
    notes: Sequence[str] = (),
) -> Section:
    """A table of runs, their differences from one of them, and their curves.

    Args:
        runs: all runs.
        opened: the same runs, loaded; empty if they are too many, or of a sweep.
        reference: the run that the others are tested against.
        tests: the first result of `tested`.
        notes: the second.
    """
    configs = [r.folder.config() for r in runs]
    settings = [name for name in varied(configs) if name not in ("data_path", "noise_file")][:6]
    blocks: list[Block] = []
    if opened:
        rows = [(o.recorded.name, o.scores["average"], *o.scores["average_ci"]) for o in opened]
        caption = "The dot is the mean mAP of all directions, the line its 95% interval over queries."
        blocks.append(Chart("mAP of every run", caption, intervals(sorted(rows, key=lambda r: -r[1]), "mAP", {})))
        blocks.append(_scored_table(opened, settings))
        blocks += [*_test_blocks(tests, reference), *map(Note, notes)]
    else:
        blocks.append(_recorded_table(runs, settings))
        what = f"Runs of a sweep, and more than {TESTED} runs"
        blocks.append(Note(f"{what}, are compared by what training recorded, without tests of single runs."))
    blocks += _curves(runs)
    lead = f"{len(runs)} runs. The sections below this one show one of them, {reference.name}, the best in validation."
    return Section("comparison", "Comparison", lead, blocks)


def _scored_table(opened: Sequence[OpenedRun], settings: Sequence[str]) -> Table:
    directions = list(dict.fromkeys(d for o in opened for d in o.scores["map"]))
    directions = directions if len(directions) <= _DIRECTIONS else []
    best = max(o.scores["average"] for o in opened)
    rows = []
    for o in opened:
        metrics, average = o.scores["metrics"], o.scores["average"]
        tone = "good" if average == best else ""
        rows.append(
            (
                Cell(o.recorded.name),
                *_setting_cells(o.recorded, settings),
                Cell(str(o.run.epoch), o.run.epoch),
                *(
                    number_cell(metrics[d]["map"], ends=metrics[d]["ci"]["map"]) if d in metrics else NOTHING
                    for d in directions
                ),
                number_cell(average, ends=o.scores["average_ci"], tone=tone),
                *_memory_cells(o),
            )
        )
    head = ["run", *settings, "epoch", *(d.replace("->", " → ") for d in directions), "mean mAP"]
    head += ["wrong labels repeated", "seen through"]
    caption = f"mAP on the split {opened[0].split} with 95% intervals, and how each model treats wrong labels."
    return Table(caption, head, rows)


def _memory_cells(o: OpenedRun) -> tuple[Cell, Cell]:
    try:
        _, repeated, recovered = memory_at(predictions(o))
    except InputError:  # a method without classes, other data, or labels that were not recorded
        return NOTHING, NOTHING
    return share_cell(repeated), share_cell(recovered)


def _recorded_table(runs: Sequence[Recorded], settings: Sequence[str]) -> Table:
    results = [(r, r.result["test"][r.kept]) for r in runs if r.result is not None]
    directions = list(dict.fromkeys(d for _, scores in results for d in scores["map"]))
    directions = directions if len(directions) <= _DIRECTIONS else []
    rows = [
        (
            Cell(r.name),
            *_setting_cells(r, settings),
            Cell(str(scores["epoch"]), scores["epoch"]),
            *(number_cell(scores["map"].get(d)) for d in directions),
            number_cell(scores["average"]),
        )
        for r, scores in results
    ]
    head = ("run", *settings, "epoch", *(d.replace("->", " → ") for d in directions), "mean mAP")
    return Table("mAP on the split test of the model that each run keeps.", head, rows)


def _setting_cells(r: Recorded, settings: Sequence[str]) -> list[Cell]:
    config = r.folder.config()
    return [value_cell(setting(config, name)) for name in settings]


def value_cell(value: Any) -> Cell:
    """The value of a setting."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Cell(f"{value:g}", float(value))
    text = " ".join(map(str, value)) if isinstance(value, tuple) else NOTHING.text if value is None else str(value)
    return Cell(text if len(text) <= 40 else "…" + text[-39:])


def tested(opened: Sequence[OpenedRun], reference: Recorded) -> tuple[list[Tested], list[str]]:
    """How far each run lies above or below one of them in mean mAP, and why some are not tested.

    Args:
        opened: the runs.
        reference: one of them.
    """
    (base,) = (o for o in opened if o.recorded is reference)
    found: list[tuple[str, Mapping[str, Any]]] = []
    notes: list[str] = []
    for o in opened:
        if o is base:
            continue
        try:
            found.append((o.recorded.name, compare_embedded(o.embedded, base.embedded, Options())["average"]))
        except InputError as error:
            notes.append(f"Not tested: {error}")
    allowed = [1 - level for level in holm_levels([line["p"] for _, line in found])]
    tests = []
    for (name, line), limit in zip(found, allowed, strict=True):
        word = "level" if line["p"] > limit else "ahead" if line["difference"] > 0 else "behind"
        tests.append(Tested(name, line["difference"], line["ci"], line["p"], word))
    return tests, notes


def compared_verdict(runs: Sequence[Recorded], tests: Sequence[Tested], reference: Recorded) -> str:
    """One line on several runs: which is the best in validation, and how the others lie to it in the tests."""
    words = {
        "behind": "significantly worse than it",
        "level": "not significantly apart from it",
        "ahead": "significantly better than it on the split that is scored",
    }
    by_word = {word: [t.name for t in tests if t.verdict == word] for word in words}
    parts = [f"{listed(names, 4)}: {words[word]}" for word, names in by_word.items() if names]
    return "; ".join([f"Best of {len(runs)} runs in validation is {reference.name}", *parts]) + "."


def _test_blocks(tests: Sequence[Tested], reference: Recorded) -> list[Block]:
    if not tests:
        return []
    tones = {"ahead": "good", "behind": "bad"}
    rows = [
        (
            Cell(t.name),
            number_cell(t.difference, ends=t.ends),
            Cell(f"{t.p:.4f}", t.p),
            Cell(t.verdict, None, tones.get(t.verdict, "")),
        )
        for t in tests
    ]
    points = [(t.name, t.difference, t.ends[0], t.ends[1]) for t in tests]
    caption = "An interval right of the dashed line: this run is better. Intervals are not corrected for their number."
    chart = Chart(f"Differences from {reference.name}", caption, forest(points, "difference of mean mAP"))
    table = Table(
        "Paired randomisation test over the instances of the split; all verdicts together err in at most 5% of the "
        "cases (Holm). They hold for these runs; another seed gives other ones.",
        ("run", "difference of mean mAP", "p", "verdict"),
        rows,
    )
    return [chart, table]


def _curves(runs: Sequence[Recorded]) -> list[Block]:
    series = {
        r.name: [(line["epoch"], line["valid"]["average"]) for line in r.metrics] for r in runs if len(r.metrics) > 1
    }
    if not series:
        return []
    best = sorted(series, key=lambda name: -max(y for _, y in series[name]))[:_CURVES]
    shown = {name: points for name, points in series.items() if name in best}
    caption = "Mean of all directions: a curve that falls again has memorised wrong labels."
    if len(shown) < len(series):
        caption += f" The {len(shown)} of {len(series)} runs with the highest curves are shown."
    chart = lines(shown, "epoch", "validation mAP", whole=True)
    return [Chart("Validation mAP during training", caption, chart)]
