"""What a run retrieves: scores with intervals, precision against recall, classes, and what is taken for what."""

from collections.abc import Mapping, Sequence

import numpy as np

from mrl_jax.report.blocks import Block, Cell, Chart, Note, Section, Table, number_cell, share_cell
from mrl_jax.report.charts import heat_map, intervals, lines
from mrl_jax.report.opened import OpenedRun
from mrl_jax.report.retrieved import TOP, Retrieved, class_map, confused_pairs, confusion, curves, hardest

__all__ = ["by_class", "precision_recall", "results"]

DIRECTIONS = 6
"""Directions up to which each has its own line or chart."""
_CLASSES = 30  # classes of a heat map
_SMALL = 10  # classes up to which two tables stand side by side, and each direction has its own
_PAIRS = 12  # rows of the table of confused classes


def results(opened: OpenedRun) -> Section:
    """The scores of every direction, with their intervals."""
    scores = opened.scores
    names = [name for name in _METRICS if name in next(iter(scores["metrics"].values()))]
    rows = []
    for direction, values in scores["metrics"].items():
        ends = values.get("ci", {})
        found = [number_cell(values[name], ends=ends.get(name)) for name in names]
        rows.append((Cell(_arrow(direction)), *found, number_cell(scores["chance"][direction])))
    mean = number_cell(scores["average"], ends=scores.get("average_ci"))
    chance = float(np.mean(list(scores["chance"].values())))
    if len(rows) > 1:
        rows.append((Cell("mean of directions"), mean, *[Cell("")] * (len(names) - 1), number_cell(chance)))
    level = f"{scores['options']['level']:.0%}"
    blocks: list[Block] = [
        Chart(
            "mAP of every direction",
            f"The dot is the mAP, the line its {level} interval over queries; dashed: chance.",
            intervals(_ends(opened), "mAP", {"chance": chance}),
        ),
        Table(
            f"Scores with their {level} intervals in brackets (bootstrap over the instances of the split "
            f"{opened.split}); higher is better in every column.",
            ("direction", *(_METRICS[name] for name in names), "chance mAP"),
            rows,
        ),
    ]
    if pairs := scores["instances"]:
        cells: list[Sequence[Cell]] = [
            (
                Cell(_arrow(d)),
                *(number_cell(v[name], ends=v.get("ci", {}).get(name)) for name in _RECALLS),
                number_cell(v["median_rank"], 1),
            )
            for d, v in pairs.items()
        ]
        head = ("direction", "R@1", "R@5", "R@10", "median rank")
        blocks.append(Table("How often the query's own partner is among the first 1, 5, 10 results.", head, cells))
    blocks += [Note(note) for note in scores["notes"]]
    lead = f"On the split {opened.split}, of the model that the run keeps."
    return Section("results", "Results", lead, blocks)


_METRICS = {
    "map": "mAP",
    "map@50": "mAP@50",
    "precision@10": "P@10",
    "recall@10": "R@10",
    "ndcg@10": "NDCG@10",
    "mrr": "MRR",
}
_RECALLS = ("recall@1", "recall@5", "recall@10")


def precision_recall(opened: OpenedRun) -> Section:
    """Precision against recall of every direction."""
    found = curves(opened.embedded, opened.metric)
    points = {name: list(zip(np.linspace(0, 1, len(c)).tolist(), c.tolist(), strict=True)) for name, c in found.items()}
    chart = Chart(
        "Precision against recall",
        "To find a given share of the relevant items, this share of what is returned is relevant: higher is better.",
        lines(directed(points), "recall", "precision", share=True, low=0.0),
    )
    return Section("precision-recall", "Precision and recall", "", [chart])


def directed(series: Mapping[str, list[tuple[float, float]]]) -> dict[str, list[tuple[float, float]]]:
    """Lines of directions; of more than 6, their means over the galleries of each query modality."""
    if len(series) <= DIRECTIONS:
        return {_arrow(name): points for name, points in series.items()}
    groups: dict[str, list[np.ndarray]] = {}
    for name, points in series.items():
        groups.setdefault(name.partition("->")[0], []).append(np.asarray(points, np.float64))
    means = {f"{m}, mean of galleries": np.mean(of, axis=0) for m, of in groups.items()}
    return {name: [(a, b) for a, b in points.tolist()] for name, points in means.items()}


def by_class(opened: OpenedRun, retrieved: Mapping[str, Retrieved]) -> Section:
    """mAP by class and direction, and the classes of what is retrieved."""
    classes = list(opened.run.class_names)
    maps = {
        name: class_map(opened.per_query[name]["ap"], r.query_labels, len(classes)) for name, r in retrieved.items()
    }
    table = np.stack(list(maps.values()))  # [directions, K]
    shown = hardest(table, _CLASSES)
    names = [classes[k] for k in shown]
    left = f" The {len(shown)} with the lowest mAP of {len(classes)} classes are shown." * (len(shown) < len(classes))
    blocks: list[Block] = [
        Chart(
            "mAP by class and direction",
            f"Each cell is the mAP of the queries of a class: dark cells are classes that are hard to find.{left}",
            heat_map(
                table[:, shown].T,
                names,
                [_arrow(n) for n in maps],
                "class of the query",
                "direction",
                "mAP",
                _top(table[:, shown]),
            ),
            least=max(320, 90 * len(maps)),
        )
    ]
    shares = {n: confusion(r.query_labels, r.labels, len(classes)) for n, r in retrieved.items()}
    charts = {_arrow(n): s for n, s in shares.items()}
    if len(shares) > (DIRECTIONS if len(shown) <= _SMALL else 2):
        charts = {"mean of all directions": _mean(list(shares.values()))}
    for title, s in charts.items():
        part = s[np.ix_(shown, shown)]
        caption = "Each row adds up to 1" + " over all classes" * (len(shown) < len(classes))
        chart = heat_map(part, names, names, "class of the query", "retrieved class", "share", _top(part))
        blocks.append(
            Chart(
                f"Classes among the first {TOP} results, {title}",
                f"{caption}: a bright cell beside the diagonal is a class that is taken for another.",
                chart,
                least=max(340, 26 * len(shown) + 200),
                half=len(shown) <= _SMALL,
            )
        )
    rows = [
        (Cell(_arrow(n)), Cell(classes[a]), Cell(classes[b]), share_cell(share))
        for n, s in shares.items()
        for a, b, share in confused_pairs(s, _PAIRS)
    ]
    rows = sorted(rows, key=lambda row: -(row[3].sort or 0.0))[:_PAIRS]
    if rows:
        caption = f"The most frequent mistakes: the share of the first {TOP} results that have the wrong class."
        blocks.append(Table(caption, ("direction", "class of the query", "retrieved instead", "share"), rows))
    lead = "Where retrieval is good and where it is not, by the class of the query."
    return Section("classes", "Classes", lead, blocks)


def _top(table: np.ndarray) -> float:
    """The end of a scale of colours from 0: the largest number, rounded up to tenths."""
    return float(np.clip(np.ceil(np.nanmax(table) * 10 - 1e-9) / 10, 0.1, 1.0))


def _mean(tables: Sequence[np.ndarray]) -> np.ndarray:
    """The mean of tables, of each cell over those that are not NaN; NaN where all are."""
    stacked = np.stack(tables)
    known = (~np.isnan(stacked)).sum(axis=0)
    total = np.nansum(stacked, axis=0)
    return np.divide(total, known, out=np.full_like(total, np.nan), where=known > 0)


def _ends(opened: OpenedRun) -> list[tuple[str, float, float, float]]:
    scores = opened.scores
    rows = []
    for name, values in scores["metrics"].items():
        low, high = values.get("ci", {}).get("map", (values["map"], values["map"]))
        rows.append((_arrow(name), values["map"], low, high))
    return rows


def _arrow(direction: str) -> str:
    return direction.replace("->", " → ")
