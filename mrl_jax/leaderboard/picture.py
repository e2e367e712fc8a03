"""A ranking as a critical-difference diagram (Demšar, JMLR 2006, section 3.2.2)."""

import math
from pathlib import Path

from mrl_jax.display.drawing import picture, readable
from mrl_jax.leaderboard.ranking import Ranking

__all__ = ["draw_ranking"]

_STEP = 0.26  # inches between two names


def draw_ranking(path: Path, ranking: Ranking) -> None:
    """Draw the average ranks of methods on an axis, the best at the left; bars join those that are level.

    Args:
        path: the file to write, PNG.
        ranking: the ranking.

    Raises:
        InputError: the file cannot be written.
    """
    names, half = ranking.names, math.ceil(len(ranking.names) / 2)
    bars = len(ranking.level)
    depth = 0.35 * bars + 0.6  # of the first name below the axis, in steps
    height = _STEP * (depth + half + 3.2)
    title = "Average rank over noises and seeds"
    note = "bars join methods that are level" if bars else ""
    with picture(path, (8.0, height), title=title, note=note) as (axes,):
        low, high = 1, max(len(names), 2)
        margin = 0.45 * (high - low)
        axes.set(xlim=(low - margin, high + margin), ylim=(depth + half, -1.8))
        axes.axis("off")
        axes.plot([low, high], [0, 0], color="black", lw=1)
        for tick in _ticks(low, high):
            axes.plot([tick, tick], [0, -0.3], color="black", lw=1)
            axes.text(tick, -0.5, f"{tick:g}", ha="center", va="bottom", fontsize=9)
        for i, name in enumerate(names):
            left, rank = i < half, ranking.average_rank[name]
            y = depth + (i if left else len(names) - 1 - i)
            end = low - 0.05 * margin if left else high + 0.05 * margin
            axes.plot([rank, rank, end], [0, y, y], color="0.45", lw=0.8)
            text = f"{readable(name)}  {rank:.1f}" if left else f"{rank:.1f}  {readable(name)}"
            axes.text(
                end, y, f"{text} " if left else f" {text}", ha="right" if left else "left", va="center", fontsize=9
            )
        for i, group in enumerate(ranking.level):
            ranks = [ranking.average_rank[name] for name in names[group]]
            y = 0.35 * (i + 1)
            axes.plot([min(ranks) - 0.06, max(ranks) + 0.06], [y, y], color="black", lw=3.5, solid_capstyle="butt")


def _ticks(low: int, high: int) -> list[int]:
    step = max(1, math.ceil((high - low) / 10))
    return [*range(low, high + 1, step)]
