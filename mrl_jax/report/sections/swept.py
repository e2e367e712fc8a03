"""The cells of a sweep beside each other: mean ± standard deviation over seeds, with tests over seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

from mrl_jax.eval.differences import LEAST_SEEDS, Difference, compared, with_holm
from mrl_jax.report.blocks import NOTHING, Block, Cell, Chart, Note, Section, Table, number_cell, share_cell
from mrl_jax.report.charts import intervals, lines
from mrl_jax.report.sections.comparison import value_cell
from mrl_jax.sweep.results import Sweep

__all__ = ["sweep_section", "sweep_verdict"]

_LINES, _DIRECTIONS, _ROWS = 10, 4, 30


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
                *([value_cell(c["settings"][f]) for f in fields] or [Cell("all seeds")]),
                share_cell(c["wrong_share"]),
                Cell(str(len(c["seeds"])), len(c["seeds"])),
                _spread_cell(c["valid"], "good" if c["best"] else ""),
                *(_spread_cell(kept[d]) for d in columns),
                _spread_cell(c["test"]["last"]["average"]),
            )
        )
    head = [*([f.replace("_", " ") for f in fields] or ["setting"]), "wrong", "seeds", "valid mAP"]
    head += [*(f"test {d.replace('->', ' → ')}" for d in columns), "average, last epoch"]
    caption = "mAP, mean ± standard deviation over seeds; in green the best cell of its noise by validation mAP."
    blocks: list[Block] = [
        *_against(cells, fields),
        Table(caption, head, rows),
        *_seed_tests(summary, cells, fields, sweep),
    ]
    lead = f"{len(sweep.finished)} runs in {len(cells)} cells; a cell holds the seeds of one setting."
    return Section(f"sweep-{number}", f"Sweep {name}", lead, blocks)


def sweep_verdict(name: str, sweep: Sweep) -> str:
    """One line on a sweep: its best setting in validation, of every noise."""
    summary = sweep.summary()
    text = f"{name}: {len(sweep.finished)} runs in {len(summary['cells'])} cells."
    parts = []
    for best in summary["best"]:
        if best["noise"] is not None:
            where = _label({"settings": best["noise"]}, list(best["noise"]))
            setting = _label(best, list(best["settings"]))
            parts.append(f"{where}: {setting}" if best["noise"] else setting)
    return f"{text} Best in validation: {'; '.join(parts)}." if parts else text


def _label(cell: Mapping[str, Any], fields: Sequence[str]) -> str:
    return ", ".join(f"{f.replace('_', ' ')} {value_cell(cell['settings'][f]).text}" for f in fields) or "all seeds"


def _spread_cell(spread: Mapping[str, Any], tone: str = "") -> Cell:
    text = f"{spread['mean']:.3f}" + ("" if spread["std"] is None else f" ± {spread['std']:.3f}")
    return Cell(text, float(spread["mean"]), tone)


def _against(cells: Sequence[Mapping[str, Any]], fields: Sequence[str]) -> list[Block]:
    """Test mAP against the first field with numbers, or a row per cell."""
    numeric = [f for f in fields if all(value_cell(c["settings"][f]).sort is not None for c in cells)]
    x = "noise_rate" if "noise_rate" in numeric else next(iter(numeric), None)
    if x is None:
        spreads = [c["test"]["kept"]["average"] for c in cells]
        rows = [
            (_label(c, fields), s["mean"], s["mean"] - (s["std"] or 0), s["mean"] + (s["std"] or 0))
            for c, s in zip(cells, spreads, strict=True)
        ][:_ROWS]
        caption = "The dot is the mean of the seeds, the line one standard deviation to both sides."
        return [Chart("Test mAP of every cell", caption, intervals(rows, "test mAP", {}))]
    series: dict[str, list[tuple[float, float]]] = {}
    errors: dict[str, list[float]] = {}
    for c in sorted(cells, key=lambda c: c["settings"][x]):
        rest, score = _label(c, [f for f in fields if f != x]), c["test"]["kept"]["average"]
        series.setdefault(rest, []).append((float(c["settings"][x]), score["mean"]))
        errors.setdefault(rest, []).append(score["std"] or 0.0)
    shown = dict(sorted(series.items(), key=lambda s: -max(y for _, y in s[1]))[:_LINES])
    title = x.replace("_", " ")
    chart = lines(shown, title, "test mAP", errors={name: errors[name] for name in shown})
    caption = f"Mean over the seeds against the {title}; the bars reach one standard deviation to both sides."
    return [Chart("Test mAP against what varies", caption, chart)]


def _seed_tests(
    summary: Mapping[str, Any], cells: Sequence[Mapping[str, Any]], fields: Sequence[str], sweep: Sweep
) -> list[Block]:
    """Differences from the best cell in validation of the same noise, paired over the seeds that both have."""
    noises = list(next((b["noise"] for b in summary["best"] if b["noise"] is not None), {}))
    best = {tuple(c["settings"][n] for n in noises): c for c in cells if c["best"]}
    names, found = [], []
    for c in cells:
        base = best.get(tuple(c["settings"][n] for n in noises))
        if base is None or c is base:
            continue
        ours, theirs = (_by_seed(x, sweep) for x in (c, base))
        if len(seeds := sorted(set(ours) & set(theirs))) >= 2:
            names.append((_label(c, fields), _label(base, fields)))
            found.append(compared([ours[s] for s in seeds], [theirs[s] for s in seeds]))
    if not found:
        return [Note("No two cells of the same noise have two seeds in common: no differences are tested.")]
    rows = [(Cell(a), Cell(b), *_difference_cells(d)) for (a, b), d in zip(names, with_holm(found), strict=True)]
    few = f" Verdicts need {LEAST_SEEDS} seeds." if any(d.seeds < LEAST_SEEDS for d in found) else ""
    caption = (
        "Differences from the best cell of the same noise in validation, paired over seeds (Student's t, corrected by "
        f"Holm for their number).{few}"
    )
    return [Table(caption, ("cell", "against", "difference of mean test mAP", "p", "verdict"), rows)]


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
