"""Learning curves of a run, drawn as PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mrl_jax.files import atomic_path

__all__ = ["plot_curves"]

_MARKED = 30  # epochs up to which every point has a marker


def plot_curves(path: Path, metrics: Sequence[Mapping[str, Any]], result: Mapping[str, Any], title: str) -> None:
    """Draw training losses and validation mAP against the epoch, as PNG.

    Without training losses only the validation mAP is drawn.

    Args:
        path: the file to write.
        metrics: the lines of `metrics.jsonl`, at least one; every entry of "train" is drawn.
        result: content of `result.json`.
        title: heading of the picture.

    Raises:
        InputError: the file cannot be written.
    """
    from matplotlib.figure import Figure  # deferred: slow to import; Figure needs no display and no global state
    from matplotlib.ticker import MaxNLocator

    epochs = [line["epoch"] for line in metrics]
    losses = list(dict.fromkeys(name for line in metrics for name in line["train"]))
    figure = Figure(figsize=(10 if losses else 5.5, 4), layout="constrained")
    panels = figure.subplots(1, 2 if losses else 1, squeeze=False)[0]
    figure.suptitle(title, fontsize=11)
    style: dict[str, Any] = {"marker": "o", "markersize": 3} if len(epochs) <= _MARKED else {}

    for name in losses:
        values = [line["train"].get(name, float("nan")) for line in metrics]
        panels[0].plot(epochs, values, label="total" if name == "loss" else name, **style)
    if losses:
        panels[0].set(xlabel="epoch", ylabel="training loss, mean over instances")

    right, best = panels[-1], result["valid"]["best"]["epoch"]
    for direction in metrics[0]["valid"]["map"]:
        values = [line["valid"]["map"][direction] for line in metrics]
        right.plot(epochs, values, label=direction.replace("->", " → "), **style)
    right.axvline(best, color="0.6", linestyle="--", linewidth=1, label=f"best average, epoch {best}")
    chance = sum(result["chance"].values()) / len(result["chance"])
    right.axhline(chance, color="0.6", linestyle=":", linewidth=1, label="chance")
    right.set(xlabel="epoch", ylabel="validation mAP", ylim=(0, None))
    for axes in panels:
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(fontsize=8)
    with atomic_path(path) as part:
        figure.savefig(part, dpi=120, format="png")
