"""Validation scores against the epoch for cross-entropy and MRL at noise 0.6: common part of figure2 and figure5."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from experiments.shared.command_line import parser
from experiments.shared.outputs import save
from experiments.shared.protocol import CE, MRL
from experiments.shared.store import stores
from experiments.shared.tables import markdown

__all__ = ["make"]

RATE = 0.6
TITLES = {"map": "validation mAP", "accuracy": "validation accuracy"}


def make(doc: str | None, stem: str, kind: str, argv: Sequence[str] | None) -> None:
    """Train what is missing, draw, print the first, best and last epoch, and write all numbers.

    Args:
        doc: docstring of the program.
        stem: name of the files, without suffix.
        kind: "map" or "accuracy".
        argv: flags.
    """
    args = parser(doc).parse_args(argv)
    sets = stores(args)
    figure = Figure(figsize=(4.2 * 2, 3.2 * len(sets)), layout="constrained")
    panels = figure.subplots(len(sets), 2, sharey="row", squeeze=False)
    rows, lines = [["set", "method", "of", "first epoch", "best", "last"]], []
    for store, pair in zip(sets, panels, strict=True):
        for axes, method in zip(pair, (CE, MRL), strict=True):
            runs = [r for r in store.runs(method) if r["noise_rate"] == RATE]
            for name in runs[0]["valid_curves"][kind]:
                curves = np.array([r["valid_curves"][kind][name] for r in runs])
                mean, epochs = curves.mean(axis=0), np.arange(1, curves.shape[1] + 1)
                axes.plot(epochs, mean, label=name.replace("->", " → "))
                axes.fill_between(epochs, curves.min(axis=0), curves.max(axis=0), alpha=0.2)
                shown = [f"{x:.3f}" for x in (mean[0], mean.max(), mean[-1])]
                rows.append([store.dataset.title, method.name, name.replace("->", " → "), *shown])
                lines += [
                    [store.dataset.name, method.name, name, r["seed"], epoch, r["valid_curves"][kind][name][epoch - 1]]
                    for r in runs
                    for epoch in epochs.tolist()
                ]
            axes.set(title=f"{store.dataset.title}: {method.name}", xlabel="epoch")
            axes.grid(alpha=0.3)
            axes.legend(fontsize=8)
            axes.xaxis.get_major_locator().set_params(integer=True)
        pair[0].set_ylabel(TITLES[kind])
        pair[0].set_ylim(bottom=0)  # after both panels of this axis are drawn
    save(args.out / stem, markdown(rows), ["set", "method", "of", "seed", "epoch", kind], lines, figure)
