"""Learning curves of a run, drawn as PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mrl_jax.display.drawing import curves_of, legend, picture, readable, style

__all__ = ["plot_curves"]

_MARKED = 30  # epochs up to which every point has a marker


def plot_curves(
    path: Path | None,
    metrics: Sequence[Mapping[str, Any]],
    result: Mapping[str, Any],
    title: str,
    chance: float,
) -> Any:
    """Draw training losses and validation mAP against the epoch, as PNG; returns the figure.

    Without training losses only the validation mAP is drawn. Of more than 6 directions the mean over galleries is drawn
    for each query modality, and the mean over all directions.

    Args:
        path: the file to write, or None.
        metrics: the lines of `metrics.jsonl`, at least one; every entry of "train" is drawn.
        result: content of `result.json`.
        title: heading of the picture.
        chance: the expected validation mAP of a random ranking, the mean of all directions.

    Raises:
        InputError: the file cannot be written.
    """
    epochs = [line["epoch"] for line in metrics]
    marked = len(epochs) <= _MARKED
    losses = list(dict.fromkeys(name for line in metrics for name in line["train"]))
    directions = {d: [line["valid"]["map"][d] for line in metrics] for d in metrics[0]["valid"]["map"]}
    curves, heading, note = curves_of(directions, marked)
    with picture(path, (10 if losses else 5.5, 4), 2 if losses else 1, title, note) as panels:
        from matplotlib.ticker import MaxNLocator

        for i, name in enumerate(losses):
            values = [line["train"].get(name, float("nan")) for line in metrics]
            panels[0].plot(epochs, values, label="total" if name == "loss" else readable(name), **style(i, marked))
        if losses:
            panels[0].set(xlabel="epoch", ylabel="training loss, mean over instances")
            legend(panels[0])

        right, best = panels[-1], result["valid"]["best"]["epoch"]
        for curve in curves:
            right.plot(epochs, curve.values, label=curve.label, **curve.style)
        right.axvline(best, color="0.6", linestyle="--", linewidth=1, label=f"best average, epoch {best}")
        right.axhline(chance, color="0.6", linestyle=":", linewidth=1, label="chance")
        right.set(xlabel="epoch", ylabel="validation mAP", ylim=(0, None))
        legend(right, heading)
        for axes in panels:
            axes.grid(alpha=0.3)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            if len(epochs) == 1:
                axes.set_xticks(epochs)
    return panels[0].figure
