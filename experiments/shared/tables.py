"""Tables in Markdown and the numbers in them; imports no plotting library."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["average_map", "markdown", "mean_and_std"]


def mean_and_std(values: Sequence[float]) -> str:
    """Mean ± standard deviation, with three decimals."""
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table; the first row is its head."""
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)


def average_map(runs: Iterable[Mapping[str, Any]], rates: Sequence[float]) -> list[list[float]]:
    """Test mAP at the best validation epoch, the mean of all directions: noise rate -> seed."""
    runs = list(runs)
    return [[r["test"]["best"]["average"] for r in runs if r["noise_rate"] == rate] for rate in rates]
