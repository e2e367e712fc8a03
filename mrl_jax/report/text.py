"""Results as people read them: the table at the end of a run, and its learning curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["describe_noise", "plot_curves", "summary", "table"]


def table(columns: Mapping[str, Mapping[str, Any]]) -> str:
    """Lay out scores, a row per direction and one for their average.

    Args:
        columns: title -> `{"map": {direction: value}, "average": value}`; without an average its mean is shown.
    """
    directions = list(next(iter(columns.values()))["map"])
    rows = [["mAP", *columns]]
    for d in directions:
        rows.append([d, *(f"{c['map'][d]:.3f}" for c in columns.values())])
    averages = [c.get("average", sum(c["map"].values()) / len(c["map"])) for c in columns.values()]
    rows.append(["average", *(f"{a:.3f}" for a in averages)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(v.rjust(w) for v, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    rule = "-" * len(lines[0])
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def summary(
    config: Any, data: Mapping[str, Any], noise: Mapping[str, Any], result: Mapping[str, Any], workdir: Path | None
) -> str:
    """What a run prints at its end: data, noise, the table, time and place.

    Args:
        config: the run's `Config`.
        data: content of `data.json`.
        noise: content of `noise.json`.
        result: content of `result.json`.
        workdir: the run's folder, or None.
    """
    best, last = result["test"]["best"], result["test"]["last"]
    columns = {
        f"best (epoch {best['epoch']})": best,
        f"last (epoch {last['epoch']})": last,
        "chance (class prior)": {"map": result["chance"]},
    }
    sizes = " / ".join(f"{n:,}" for n in data["instances"].values())
    loss = " ".join((config.loss, *config.loss_options))
    labels = f"training labels: {describe_noise(noise)}"
    lines = [
        f"{data['name']}: {len(data['class_names'])} classes, {sizes} instances (train / valid / test)",
        labels,
        f"loss: {loss}, beta {config.beta:g}, tau1 {config.tau1:.3g}, tau2 {config.tau2:.3g}, seed {config.seed}",
        "",
        table({f"test, {k}" if k != "chance (class prior)" else k: v for k, v in columns.items()}),
        "",
        f"time: {result['seconds']:.1f} s on {result['device']}",
    ]
    if "stream_waiting_share" in result:
        lines.append(f"streamed: steps waited {result['stream_waiting_share']:.1%} of the time for their batches")
    if workdir is not None:
        lines += [f"run folder: {workdir}", f"learning curves: {workdir / 'curves.png'}"]
    return "\n".join(lines)


def describe_noise(noise: Mapping[str, Any]) -> str:
    """The noise of a run in words.

    Args:
        noise: content of `noise.json`.
    """
    if noise["kind"] == "file":
        told = f"from {noise['file']['source']}"
    elif noise["rate"] > 0:
        told = f"{noise['kind']} noise {noise['rate']:g} per {noise['scope']}"
    else:
        return "as given, no noise injected"
    share = ", ".join(f"{m} {s:.1%}" for m, s in noise["wrong_share"].items())
    if "mismatched_share" in noise:
        share += "; mismatched: " + ", ".join(f"{m} {s:.1%}" for m, s in noise["mismatched_share"].items())
    return f"{told}; wrong: {share}"


def plot_curves(path: Path, metrics: Sequence[Mapping[str, Any]], result: Mapping[str, Any], title: str) -> None:
    """Draw training losses and validation mAP against the epoch, as PNG.

    Args:
        path: the file to write.
        metrics: the lines of `metrics.jsonl`.
        result: content of `result.json`.
        title: heading of the picture.
    """
    from matplotlib.figure import Figure  # deferred: slow to import; Figure needs no display and no global state
    from matplotlib.ticker import MaxNLocator

    epochs = [line["epoch"] for line in metrics]
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    figure.suptitle(title, fontsize=11)

    for name in ("loss", "clustering", "contrastive"):
        left.plot(epochs, [line["train"][name] for line in metrics], label="total" if name == "loss" else name)
    left.set(xlabel="epoch", ylabel="training loss, mean over instances")

    best = result["valid"]["best"]["epoch"]
    for direction in metrics[0]["valid"]["map"]:
        right.plot(epochs, [line["valid"]["map"][direction] for line in metrics], label=direction.replace("->", " → "))
    right.axvline(best, color="0.6", linestyle="--", linewidth=1, label=f"best average, epoch {best}")
    chance = sum(result["chance"].values()) / len(result["chance"])
    right.axhline(chance, color="0.6", linestyle=":", linewidth=1, label="chance")
    right.set(xlabel="epoch", ylabel="validation mAP", ylim=(0, None))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(fontsize=8)
    part = path.with_name(f".{path.name}.part")
    figure.savefig(part, dpi=120, format="png")
    part.replace(path)
