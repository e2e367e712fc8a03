"""Several runs beside each other: their scores, tests of their differences, curves, and the cells of sweeps."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from mrl_jax.errors import InputError
from mrl_jax.eval.comparison import compare_embedded
from mrl_jax.eval.differences import LEAST_SEEDS, Difference, compared, holm_levels, with_holm
from mrl_jax.eval.scores import Options
from mrl_jax.report.blocks import NOTHING, Block, Cell, Chart, Note, Section, Table, number_cell, share_cell
from mrl_jax.report.charts import forest, intervals, lines
from mrl_jax.report.memory import memory_at, predictions
from mrl_jax.report.opened import OpenedRun, Recorded
from mrl_jax.sweep.names import setting, varied
from mrl_jax.sweep.results import Sweep

__all__ = ["TESTED", "comparison", "sweep_section"]

TESTED = 8
"""Runs up to which each is loaded and tested; of more only what training recorded is compared."""
_CURVES, _DIRECTIONS = 10, 4


def comparison(runs: Sequence[Recorded], opened: Sequence[OpenedRun], reference: Recorded) -> Section:
    """A table of runs, their differences from one of them, and their curves.

    Args:
        runs: all runs.
        opened: the same runs, loaded; empty if they are too many.
        reference: the run that the others are tested against.
    """
    configs = [r.folder.config() for r in runs]
    settings = [name for name in varied(configs) if name not in ("data_path", "noise_file")][:6]
    blocks: list[Block] = []
    if opened:
        rows = [(o.recorded.name, o.scores["average"], *o.scores["average_ci"]) for o in opened]
        caption = "The dot is the mean mAP of all directions, the line its 95 % interval over queries."
        blocks.append(Chart("mAP of every run", caption, intervals(sorted(rows, key=lambda r: -r[1]), "mAP", {})))
        blocks.append(_scored_table(opened, settings))
        blocks += _tests(opened, reference)
    else:
        blocks.append(_recorded_table(runs, settings))
        blocks.append(Note(f"More than {TESTED} runs: the scores are those that training recorded, without tests of "
                           "single runs."))  # fmt: skip
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
    caption = f"mAP on the split {opened[0].split} with 95 % intervals, and how each model treats wrong labels."
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
    return [_value_cell(setting(config, name)) for name in settings]


def _value_cell(value: Any) -> Cell:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Cell(f"{value:g}", float(value))
    text = " ".join(map(str, value)) if isinstance(value, tuple) else NOTHING.text if value is None else str(value)
    return Cell(text if len(text) <= 40 else "…" + text[-39:])


def _tests(opened: Sequence[OpenedRun], reference: Recorded) -> list[Block]:
    """Differences of mean mAP from the reference: paired over instances, corrected by Holm."""
    (base,) = (o for o in opened if o.recorded is reference)
    found: list[tuple[str, Mapping[str, Any]]] = []
    notes: list[Block] = []
    for o in opened:
        if o is base:
            continue
        names = {"a": o.recorded.name, "b": base.recorded.name}
        one, other = (dataclasses.replace(x.embedded, source=x.recorded.name) for x in (o, base))
        try:
            found.append((names["a"], compare_embedded(one, other, Options())["average"]))
        except InputError as error:
            notes.append(Note(f"Not tested: {error}"))
    if not found:
        return notes
    allowed = [1 - level for level in holm_levels([line["p"] for _, line in found])]
    rows = []
    for (name, line), limit in zip(found, allowed, strict=True):
        sure = line["p"] <= limit
        word = ("ahead" if line["difference"] > 0 else "behind") if sure else "level"
        tone = {"ahead": "good", "behind": "bad"}.get(word, "")
        p = Cell(f"{line['p']:.4f}", line["p"])
        rows.append((Cell(name), number_cell(line["difference"], ends=line["ci"]), p, Cell(word, None, tone)))
    title = f"Differences from {reference.name}"
    points = [(name, line["difference"], *line["ci"]) for name, line in found]
    caption = "An interval right of the dashed line: this run is better. Intervals are not corrected for their number."
    chart = Chart(title, caption, forest(points, "difference of mean mAP"))
    table = Table(
        "Paired randomisation test over the instances of the split; all verdicts together err in at most 5 % of the "
        "cases (Holm). They hold for these runs; another seed gives other ones.",
        ("run", "difference of mean mAP", "p", "verdict"),
        rows,
    )
    return [chart, table, *notes]


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


def sweep_section(name: str, sweep: Sweep, number: int) -> Section:
    """The cells of a sweep: mean ± standard deviation over seeds, against what varies, with tests over seeds.

    Args:
        name: what the page calls the sweep.
        sweep: the sweep.
        number: which sweep of the page it is, for its address.
    """
    summary = sweep.summary()
    cells = sorted(summary["cells"], key=lambda c: -c["valid"]["mean"])
    fields = list(summary["varied"])
    directions = list(dict.fromkeys(d for c in cells for d in c["test"]["kept"] if d != "average"))
    columns = [*(directions if len(directions) <= _DIRECTIONS else ()), "average"]
    rows = []
    for c in cells:
        kept = c["test"]["kept"]
        rows.append(
            (
                Cell(_label(c, fields)),
                *(_value_cell(c["settings"][f]) for f in fields),
                share_cell(c["wrong_share"]),
                Cell(str(len(c["seeds"])), len(c["seeds"])),
                _spread_cell(c["valid"], "good" if c["best"] else ""),
                *(_spread_cell(kept[d]) for d in columns),
                _spread_cell(c["test"]["last"]["average"]),
            )
        )
    head = ["cell", *fields, "wrong", "seeds", "valid mAP"]
    head += [*(f"test {d.replace('->', ' → ')}" for d in columns), "average, last epoch"]
    caption = "mAP, mean ± standard deviation over seeds; in green the best cell of its noise by validation mAP."
    blocks: list[Block] = [*_against(cells, fields), Table(caption, head, rows), *_seed_tests(cells, fields, sweep)]
    lead = f"{len(sweep.finished)} runs in {len(cells)} cells; a cell holds the seeds of one setting."
    return Section(f"sweep-{number}", f"Sweep {name}", lead, blocks)


def _label(cell: Mapping[str, Any], fields: Sequence[str]) -> str:
    return ", ".join(f"{f} {_value_cell(cell['settings'][f]).text}" for f in fields) or "all seeds"


def _spread_cell(spread: Mapping[str, Any], tone: str = "") -> Cell:
    text = f"{spread['mean']:.3f}" + ("" if spread["std"] is None else f" ± {spread['std']:.3f}")
    return Cell(text, float(spread["mean"]), tone)


def _against(cells: Sequence[Mapping[str, Any]], fields: Sequence[str]) -> list[Block]:
    """Test mAP against the first field with numbers, or a row per cell."""
    numeric = [f for f in fields if all(_value_cell(c["settings"][f]).sort is not None for c in cells)]
    x = "noise_rate" if "noise_rate" in numeric else next(iter(numeric), None)
    if x is None:
        spreads = [c["test"]["kept"]["average"] for c in cells]
        rows = [
            (_label(c, fields), s["mean"], s["mean"] - (s["std"] or 0), s["mean"] + (s["std"] or 0))
            for c, s in zip(cells, spreads, strict=True)
        ][:30]
        caption = "The dot is the mean of the seeds, the line one standard deviation to both sides."
        return [Chart("Test mAP of every cell", caption, intervals(rows, "test mAP", {}))]
    series: dict[str, list[tuple[float, float]]] = {}
    for c in sorted(cells, key=lambda c: c["settings"][x]):
        rest = _label(c, [f for f in fields if f != x])
        series.setdefault(rest, []).append((float(c["settings"][x]), c["test"]["kept"]["average"]["mean"]))
    shown = dict(list(sorted(series.items(), key=lambda s: -max(y for _, y in s[1])))[:_CURVES])
    caption = f"Mean over the seeds against {x.replace('_', ' ')}; the table has the standard deviations."
    return [Chart("Test mAP against what varies", caption, lines(shown, x.replace("_", " "), "test mAP"))]


def _seed_tests(cells: Sequence[Mapping[str, Any]], fields: Sequence[str], sweep: Sweep) -> list[Block]:
    """Differences from the best cell by validation, paired over the seeds that both have."""
    if len(cells) < 2:
        return []
    base, names, found = cells[0], [], []
    for c in cells[1:]:
        ours, theirs = (_by_seed(x, sweep) for x in (c, base))
        if len(seeds := sorted(set(ours) & set(theirs))) >= 2:
            names.append(_label(c, fields))
            found.append(compared([ours[s] for s in seeds], [theirs[s] for s in seeds]))
    if not found:
        return [Note("No two cells have two seeds in common: their differences cannot be tested.")]
    rows = [(Cell(name), *_difference_cells(d)) for name, d in zip(names, with_holm(found), strict=True)]
    few = f" Verdicts need {LEAST_SEEDS} seeds." if any(d.seeds < LEAST_SEEDS for d in found) else ""
    caption = (
        f"Differences from the best cell in validation ({_label(base, fields)}), paired over seeds (Student's t, "
        f"corrected by Holm for their number).{few}"
    )
    return [Table(caption, ("cell", "difference of mean test mAP", "p", "verdict"), rows)]


def _difference_cells(d: Difference) -> tuple[Cell, Cell, Cell]:
    tone = {"ahead": "good", "behind": "bad"}.get(d.verdict, "")
    return number_cell(d.mean, ends=d.over_seeds), Cell(f"{d.p:.4f}", d.p), Cell(d.verdict or NOTHING.text, None, tone)


def _by_seed(cell: Mapping[str, Any], sweep: Sweep) -> dict[int, float]:
    out = {}
    for name in cell["runs"]:
        run = sweep.runs[name]
        assert run.scores is not None
        out[run.config.seed] = float(run.scores["test"][run.scores.get("kept", "best")]["average"])
    return out
