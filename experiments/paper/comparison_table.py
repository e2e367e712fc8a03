"""A table of methods at four noise rates beside the published cells: common part of table1, table2 and table3."""

import statistics
import textwrap
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from experiments.shared.command_line import parser
from experiments.shared.outputs import plot_means, save
from experiments.shared.protocol import Method, published
from experiments.shared.store import Store, stores
from experiments.shared.tables import average_map, markdown, mean_and_std

__all__ = ["make"]


def make(doc: str | None, number: int, methods: Sequence[Method], argv: Sequence[str] | None) -> None:
    """Train what is missing, print the table, and write it with its plot.

    Args:
        doc: docstring of the program.
        number: number of the table in the paper.
        methods: rows of the table.
        argv: flags.
    """
    args = parser(doc).parse_args(argv)
    results = [(store, {m: store.runs(m) for m in methods}) for store in stores(args)]
    parts, lines = [], []
    for store, runs in results:
        rows, cells = _table(store, runs, number)
        settings = "; ".join(f"{m.name}: {store.setting(m)}" for m in methods)
        title = f"### {store.dataset.title}, {store.layers}, {store.seeds} seeds"
        chosen = textwrap.fill(f"Settings, chosen on validation mAP: {settings}.", 120, break_on_hyphens=False)
        parts.append(f"{title}\n\n{markdown(rows)}\n\n{chosen}")
        lines += cells
    figure = Figure(figsize=(4.2 * len(results), 3.4), layout="constrained")
    for axes, (store, runs) in zip(figure.subplots(1, len(results), squeeze=False)[0], results, strict=True):
        for method, of_method in runs.items():
            plot_means(axes, store.rates, average_map(of_method, store.rates), method.name)
        axes.set(title=store.dataset.title, xlabel="noise rate", ylabel="test mAP, mean of both directions")
        axes.set_xticks(store.rates)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    save(args.out / f"table{number}", "\n\n".join(parts), list(lines[0]), [list(x.values()) for x in lines], figure)


def _table(
    store: Store, runs: dict[Method, list[dict[str, Any]]], number: int
) -> tuple[list[list[str]], list[dict[str, Any]]]:
    """Rows of the Markdown table, and a line per method, direction and rate for the CSV file."""
    directions = list(next(iter(runs.values()))[0]["test"]["best"]["map"])
    rows = [["direction", "method", *(f"noise {rate:g}" for rate in store.rates)]]
    lines = []
    for d, direction in enumerate(directions[:2]):
        for method, of_method in runs.items():
            row = [direction.replace("->", " → "), method.name]
            for rate in store.rates:
                values = [r["test"]["best"]["map"][direction] for r in of_method if r["noise_rate"] == rate]
                mean = statistics.mean(values)
                paper = published(number, store.dataset.published, method.published, d, rate)
                cell = mean_and_std(values)
                if paper is not None:
                    cell += f" (paper {paper:.3f}, {mean - paper:+.3f})"
                row.append(cell)
                lines.append(
                    {
                        "set": store.dataset.name,
                        "method": method.name,
                        "direction": direction,
                        "noise_rate": rate,
                        "seeds": len(values),
                        "map": round(mean, 5),
                        "std": round(statistics.stdev(values), 5) if len(values) > 1 else "",
                        "published": "" if paper is None else paper,
                        "difference": "" if paper is None else round(mean - paper, 5),
                    }
                )
            rows.append(row)
    return rows, lines
