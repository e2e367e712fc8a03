"""How results are told, drawn and written: the same in all programs of tables and figures."""

import csv
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

__all__ = ["against", "average_map", "markdown", "save", "told"]

Run = Mapping[str, Any]


def told(values: Sequence[float]) -> str:
    """Mean ± standard deviation."""
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table; the first row is its head."""
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)


def average_map(runs: Iterable[Run], rates: Sequence[float]) -> list[list[float]]:
    """Test mAP at the best validation epoch, the mean of all directions: noise rate -> seed."""
    runs = list(runs)
    return [[r["test"]["best"]["average"] for r in runs if r["noise_rate"] == rate] for rate in rates]


def against(axes: Any, x: Sequence[float], values: Sequence[Sequence[float]], label: str) -> None:
    """A curve of means with standard deviations as bars; values: point -> seed."""
    spread = [statistics.stdev(v) if len(v) > 1 else 0.0 for v in values]
    axes.errorbar(x, [statistics.mean(v) for v in values], spread, label=label, capsize=2, marker="o")


def save(stem: Path, text: str, head: Sequence[str], lines: Sequence[Sequence[Any]], figure: Any) -> None:
    """Write the text, the lines and the figure beside each other, of the same numbers the same files; print the text.

    Args:
        stem: of the files: .md, .csv, .png and .svg.
        text: Markdown.
        head: names of the columns.
        lines: of the CSV file.
        figure: of Matplotlib.
    """
    stem.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
    with stem.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([head, *lines])
    with matplotlib.rc_context({"svg.hashsalt": "mrl_jax"}):
        figure.savefig(stem.with_suffix(".png"), dpi=120)
        figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None})
    print(text)
