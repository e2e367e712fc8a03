"""Scores and comparisons as tables, CSV and precision-recall curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mrl_jax.display.drawing import curves_of, legend, picture
from mrl_jax.display.tables import csv_table, text_table
from mrl_jax.names import printable
from mrl_jax.run.representation import ranked_by

__all__ = [
    "comparison_csv",
    "comparison_table",
    "per_query_csv",
    "plot_precision_recall",
    "score_csv",
    "score_table",
]


def score_table(report: Mapping[str, Any]) -> str:
    """The main scores of a report, one row per direction; under 100 columns wide unless names are long."""
    parts, percent = [], f"{report['options']['level']:.0%} CI"
    if "metrics" in report:
        ks = report["options"]["k"]
        k = 10 if 10 in ks else max(ks)  # most published tables have these
        names = [f"map@{max(ks)}", f"precision@{k}", f"recall@{k}", f"ndcg@{k}", "mrr"]
        titles = [f"mAP@{max(ks)}", f"P@{k}", f"R@{k}", f"NDCG@{k}", "MRR"]
        rows = [["label level", "queries", "mAP", percent, *titles, "chance mAP"]]
        for d, m in report["metrics"].items():
            ends = _ends(m.get("ci", {}).get("map"))
            numbers = [f"{m[n]:.3f}" for n in names]
            rows.append([d, f"{m['queries']:,}", f"{m['map']:.3f}", ends, *numbers, f"{report['chance'][d]:.3f}"])
        title, chance = f"average ({report['options']['protocol'][0]})", ""
        if len(report["options"]["protocol"]) == 1:
            title, chance = "average", f"{sum(report['chance'].values()) / len(report['chance']):.3f}"
        rows.append([title, "", f"{report['average']:.3f}", _ends(report.get("average_ci")), *[""] * 5, chance])
        parts.append(text_table(rows, separate_last=True))
    if report["instances"]:
        rows = [["instance level", "pairs", "R@1", percent, "R@5", "R@10", "median rank"]]
        for d, s in report["instances"].items():
            recalls = [f"{s[f'recall@{k}']:.3f}" for k in (1, 5, 10)]
            ends = _ends(s.get("ci", {}).get("recall@1"))
            rows.append([d, f"{s['queries']:,}", recalls[0], ends, *recalls[1:], f"{s['median_rank']:g}"])
        parts.append(text_table(rows))
    by = ranked_by(report["options"]["representation"], report["options"]["metric"])
    parts += [_order(f"ranked by {by}", report["options"]), *(printable(f"note: {note}") for note in report["notes"])]
    return "\n\n".join(parts)


def comparison_table(result: Mapping[str, Any]) -> str:
    """The two systems of a comparison side by side, with one row per direction and one for the average."""
    percent = f"{result['options']['level']:.0%} CI"
    rows = [["mAP", "queries", "A", "B", "A - B", percent, "p"]]
    protocols = result["options"]["protocol"]
    average = "average" if len(protocols) == 1 else f"average ({protocols[0]})"
    for d, line in [*result["map"].items(), (average, result["average"])]:
        queries = f"{line['queries']:,}" if "queries" in line else ""
        numbers = [f"{line['a']:.3f}", f"{line['b']:.3f}", f"{line['difference']:+.3f}"]
        rows.append([d, queries, *numbers, _ends(line.get("ci"), "+.3f"), f"{line['p']:.4f}"])
    footnote = f"p: paired randomisation test, two-sided, {result['options']['permutations']:,} permutations"
    names = []
    for system in ("a", "b"):
        of_run = result["epoch"][system] is not None
        where = f" ({result['split']}, epoch {result['epoch'][system]})" if of_run else ""
        names.append(printable(f"{system.upper()}: {result[system]}{where}"))
    by = [ranked_by(result["representation"][system], result["metric"][system]) for system in ("a", "b")]
    order = f"ranked by {by[0]}" if by[0] == by[1] else f"A ranked by {by[0]}, B by {by[1]}"
    footnotes = [
        footnote,
        _order(order, result["options"]),
        *(printable(f"note: {note}") for note in result["notes"]),
    ]
    return "\n\n".join(["\n".join(names), text_table(rows, separate_last=True), *footnotes])


def _order(by: str, options: Mapping[str, Any]) -> str:
    how = "exact similarities" if options["similarities"] == "exact" else f"similarities in {options['similarities']}"
    return f"{by}, ties in {options['ties']}; {how}"


def _ends(interval: Sequence[float] | None, form: str = ".3f") -> str:
    return "" if interval is None else f"[{interval[0]:{form}}, {interval[1]:{form}}]"


def score_csv(report: Mapping[str, Any]) -> str:
    """A report in long form: `direction,class,metric,value,low,high`.

    `class` is empty for scores over all classes; `low` and `high` are empty for scores without an interval. Points of
    the 11-point curve are called `precision@recall=0.1`, instance-level scores `instance_recall@1`.
    """
    rows: list[list[Any]] = [["direction", "class", "metric", "value", "low", "high"]]

    def add(direction: str, of_class: str, scores: Mapping[str, Any], prefix: str = "") -> None:
        for name, value in scores.items():
            if name == "curve":
                points = {f"precision@recall={i / 10:g}": v for i, v in enumerate(value)}
                rows.extend([direction, of_class, point, v, "", ""] for point, v in points.items())
            elif name != "ci":
                rows.append([direction, of_class, prefix + name, value, *scores.get("ci", {}).get(name, ("", ""))])

    for d, scores in report.get("metrics", {}).items():
        add(d, "", {**scores, "chance": report["chance"][d]})
        for of_class, means in report["classes"][d].items():
            add(d, of_class, means)
    if "average" in report:
        rows.append(["average", "", "map", report["average"], *report.get("average_ci", ("", ""))])
    for d, scores in report["instances"].items():
        add(d, "", scores, "instance_")
    return csv_table(rows)


def comparison_csv(result: Mapping[str, Any]) -> str:
    """A comparison as `direction,queries,a,b,difference,low,high,p`; the last row is the average."""
    rows: list[list[Any]] = [["direction", "queries", "a", "b", "difference", "low", "high", "p"]]
    for d, line in [*result["map"].items(), ("average", result["average"])]:
        ends = line.get("ci", ("", ""))
        rows.append([d, line.get("queries", ""), line["a"], line["b"], line["difference"], *ends, line["p"]])
    return csv_table(rows)


def per_query_csv(per_query: Mapping[str, Mapping[str, np.ndarray]], rows_of: Mapping[str, np.ndarray]) -> str:
    """Every metric of every query: `direction,row,…`; `row` is the row number in the data.

    Args:
        per_query: direction -> metric -> [Q]; curves are left out.
        rows_of: direction -> row numbers, integers [Q].
    """
    names = list(dict.fromkeys(n for values in per_query.values() for n, v in values.items() if v.ndim == 1))
    rows: list[list[Any]] = [["direction", "row", *names]]
    for d, values in per_query.items():
        columns = [rows_of[d].tolist(), *(values[n].tolist() if n in values else [""] * len(rows_of[d]) for n in names)]
        rows += [[d, *row] for row in zip(*columns, strict=True)]
    return csv_table(rows)


def plot_precision_recall(path: Path, curves: Mapping[str, Sequence[float]], title: str) -> None:
    """Draw mean interpolated precision against recall, as PNG.

    Of more than 6 directions the mean over galleries is drawn for each query modality, and the mean over all of them.

    Args:
        path: the file to write.
        curves: direction -> precision at evenly spaced recall from 0 to 1.
        title: heading of the picture.

    Raises:
        InputError: the file cannot be written.
    """
    lines, heading, note = curves_of(curves)
    with picture(path, (6, 4.5), title=title, note=note) as (axes,):
        for line in lines:
            axes.plot(np.linspace(0, 1, len(line.values)), line.values, label=line.label, **line.style)
        axes.set(xlabel="recall", ylabel="precision, mean over queries", xlim=(0, 1), ylim=(0, 1))
        axes.grid(alpha=0.3)
        legend(axes, heading)
