"""How tables and figures are written, and how means are drawn."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

from mrl_jax.display.tables import csv_table

__all__ = ["against_noise", "plot_means", "save"]


def plot_means(
    axes: Any, x: Sequence[float], values: Sequence[Sequence[float]], label: str, color: str | None = None
) -> None:
    """A curve of means with standard deviations as bars; values: point -> seed."""
    spread = [statistics.stdev(v) if len(v) > 1 else 0.0 for v in values]
    axes.errorbar(x, [statistics.mean(v) for v in values], spread, label=label, color=color, capsize=2, marker="o")


def against_noise(axes: Any, title: str) -> None:
    """Title and grid of a panel whose curves run over the noise rate."""
    axes.set(title=title, xlabel="noise rate")
    axes.grid(alpha=0.3)


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
    stem.with_suffix(".csv").write_text(csv_table([head, *lines]), encoding="utf-8")
    with matplotlib.rc_context({"svg.hashsalt": "mrl_jax"}):
        figure.savefig(stem.with_suffix(".png"), dpi=120)
        figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None})
    print(text)
