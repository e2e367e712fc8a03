"""How tables and figures are written, and how means are drawn."""

import csv
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

__all__ = ["plot_means", "save"]


def plot_means(
    axes: Any, x: Sequence[float], values: Sequence[Sequence[float]], label: str, color: str | None = None
) -> None:
    """A curve of means with standard deviations as bars; values: point -> seed."""
    spread = [statistics.stdev(v) if len(v) > 1 else 0.0 for v in values]
    axes.errorbar(x, [statistics.mean(v) for v in values], spread, label=label, color=color, capsize=2, marker="o")


def save(stem: Path, text: str, head: Sequence[str], lines: Sequence[Sequence[Any]], figure: Any) -> None:
    """Write text, numbers and figure, and print the text. The same numbers give the same files.

    Args:
        stem: path without suffix; .md, .csv, .png and .svg are written.
        text: Markdown.
        head: names of the columns of the CSV file.
        lines: rows of the CSV file.
        figure: of Matplotlib.
    """
    stem.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
    with stem.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([head, *lines])
    with matplotlib.rc_context({"svg.hashsalt": "mrl_jax"}):
        figure.savefig(stem.with_suffix(".png"), dpi=120)
        figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None})
    print(text)
