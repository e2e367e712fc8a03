"""Figure 4 of the paper: mAP against beta at noise 0.6.

    python -m experiments.paper.figure4 [--sets wikipedia inria-websearch] [--views wikipedia_4views.npz]
    python -m experiments.paper.figure4 --from-results

The temperatures are those of MRL in the tables. beta = 0 is the contrastive loss alone, beta = 1 the robust clustering
loss alone. Test mAP at the best validation epoch, mean and standard deviation over seeds. 50 runs per set in addition
to those of MRL in table1.py: emoji 10 minutes, the views 18, on one core (AMD EPYC, 2026-11-28).
"""

from collections.abc import Sequence
from dataclasses import replace

from matplotlib.figure import Figure

from experiments.shared.command_line import parser, run_main
from experiments.shared.outputs import plot_means, save
from experiments.shared.protocol import MRL
from experiments.shared.store import stores
from experiments.shared.tables import markdown, mean_and_std

RATE = 0.6
BETAS = (0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)


def main(argv: Sequence[str] | None = None) -> None:
    """Train what is missing and draw the figure."""
    args = parser(__doc__).parse_args(argv)
    betas = BETAS[::5] if args.smoke else BETAS
    sets = stores(args)
    figure = Figure(figsize=(4.2 * len(sets), 3.2), layout="constrained")
    rows, lines = [], []
    for store, axes in zip(sets, figure.subplots(1, len(sets), squeeze=False)[0], strict=True):
        store.runs(MRL)
        chosen = replace(store.dataset.config, noise_rate=RATE, **store.chosen(MRL))
        configs = [replace(chosen, beta=b, seed=s) for b in betas for s in range(store.seeds)]
        runs = store.fixed("MRL against beta", configs)
        directions = list(runs[0]["test"]["best"]["map"])
        rows += [] if rows else [["set", "direction", *(f"β {b:g}" for b in betas)]]
        for direction in directions[:2]:
            at = [
                [r["test"]["best"]["map"][direction] for r in runs if r["settings"]["beta"] == beta] for beta in betas
            ]
            name = direction.replace("->", " → ")
            plot_means(axes, betas, at, name)
            rows.append([store.dataset.title, name, *map(mean_and_std, at)])
            lines += [
                [store.dataset.name, direction, r["settings"]["beta"], r["seed"], r["test"]["best"]["map"][direction]]
                for r in runs
            ]
        axes.set(title=f"{store.dataset.title}, noise {RATE:g}", xlabel="β", ylabel="test mAP")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    save(args.out / "figure4", markdown(rows), ["set", "direction", "beta", "seed", "map"], lines, figure)


if __name__ == "__main__":
    run_main(main)
