"""What a run prints at its end: its data, its noise, and the table of its scores."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mrl_jax.display.tables import text_table
from mrl_jax.names import printable

__all__ = ["MEMORISED", "describe_noise", "memorised", "summary", "table"]

MEMORISED = 0.02
"""How far the last epoch lies below the best of a model that has memorised, in mAP."""

EARLIER_CHANCE = "class prior"
"""What `chance` is in a `result.json` of an earlier version, which does not say: the share of relevant items."""


def table(columns: Mapping[str, Mapping[str, Any]]) -> str:
    """Lay out scores, with one row per direction and one for their average.

    Args:
        columns: title -> `{"map": {direction: value}, "average": value}`; without "average", the mean is shown.
    """
    directions = list(next(iter(columns.values()))["map"])
    rows = [["mAP", *columns]]
    for d in directions:
        rows.append([d, *(f"{c['map'][d]:.3f}" for c in columns.values())])
    averages = [c.get("average", sum(c["map"].values()) / len(c["map"])) for c in columns.values()]
    rows.append(["average", *(f"{a:.3f}" for a in averages)])
    return text_table(rows, separate_last=True)


def summary(
    method: str,
    data: Mapping[str, Any],
    noise: Mapping[str, Any],
    result: Mapping[str, Any],
    workdir: Path | None,
    advice: str = "train fewer epochs",
) -> str:
    """What a run prints at its end: data, noise, the table of scores, time and folder.

    Args:
        method: the run's method and its settings, a line.
        data: content of `data.json`.
        noise: content of `noise.json`.
        result: content of `result.json`.
        workdir: the run's folder, or None.
        advice: what helps if the model has memorised.
    """
    best, last = result["test"]["best"], result["test"]["last"]
    columns = {
        f"test, best (epoch {best['epoch']})": best,
        f"test, last (epoch {last['epoch']})": last,
        f"chance ({result.get('chance_of', EARLIER_CHANCE)})": {"map": result["chance"]},
    }
    sizes = " / ".join(f"{n:,}" for n in data["instances"].values())
    labels = f"training labels: {describe_noise(noise)}"
    lines = [
        printable(f"{data['name']}: {len(data['class_names'])} classes, {sizes} instances (train / valid / test)"),
        printable(labels),
        printable(method),
        "",
        table(columns),
        "",
        f"time: {result['seconds']:.1f} s on {result['device']}",
    ]
    if "stream_waiting_share" in result:
        lines.append(f"streamed: steps waited {result['stream_waiting_share']:.1%} of the time for their batches")
    if "stopped" in result:
        stopped = result["stopped"]
        lines.append(f"stopped early after epoch {stopped['epoch']} of {stopped['of']} by {printable(stopped['by'])}")
    if result.get("kept") == "last":
        lines.append("the model of the last epoch is kept")
    if note := memorised(best["average"], last["average"]):
        lines.append(f"{note}; {advice}")
    if workdir is not None:
        lines += [f"run folder: {workdir}", f"learning curves: {workdir / 'curves.png'}"]
    return "\n".join(lines)


def memorised(best: float, last: float) -> str | None:
    """A remark on a model whose test mAP at the last epoch lies `MEMORISED` or more below that of the best one."""
    if best - last < MEMORISED:
        return None
    return f"the last epoch lies {best - last:.3f} mAP below the best: the model memorises its training labels"


def describe_noise(noise: Mapping[str, Any]) -> str:
    """Describe the noise of a run.

    Args:
        noise: content of `noise.json`.
    """
    if noise["kind"] == "file":
        origin = f"from {noise['file']['source']}"
    elif noise["rate"] > 0:
        origin = f"{noise['kind']} noise {noise['rate']:g} per {noise['scope']}"
    else:
        return "as given, no noise injected"
    fractions = ", ".join(f"{m} {s:.1%}" for m, s in noise["wrong_share"].items())
    if "mismatched_share" in noise:
        fractions += "; mismatched: " + ", ".join(f"{m} {s:.1%}" for m, s in noise["mismatched_share"].items())
    return f"{origin}; wrong: {fractions}"
