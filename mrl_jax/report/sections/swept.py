"""The cells of a sweep beside each other: mean ± standard deviation over seeds, with tests over seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

from mrl_jax.eval.differences import LEAST_SEEDS, Difference, compared, with_holm
from mrl_jax.report.blocks import NOTHING, Block, Cell, Chart, Note, Section, Table, number_cell, share_cell
from mrl_jax.report.charts import intervals, lines
from mrl_jax.report.sections.comparison import value_cell
from mrl_jax.sweep.results import Sweep

__all__ = ["sweep_section"]

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
                Cell(_label(c, fields)),
                *(value_cell(c["settings"][f]) for f in fields),
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
    return ", ".join(f"{f} {value_cell(cell['settings'][f]).text}" for f in fields) or "all seeds"


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
    for c in sorted(cells, key=lambda c: c["settings"][x]):
        rest = _label(c, [f for f in fields if f != x])
        series.setdefault(rest, []).append((float(c["settings"][x]), c["test"]["kept"]["average"]["mean"]))
    shown = dict(list(sorted(series.items(), key=lambda s: -max(y for _, y in s[1])))[:_LINES])
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
