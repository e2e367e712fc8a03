"""Our defaults beside cross-entropy and the paper's recipe at several beta, at four noise rates.

    python experiments/defaults.py [--sets emoji] [--views wikipedia_4views.npz]
    python experiments/defaults.py --from-results

Defaults: beta 0.9, both temperatures from the number of classes. The paper's recipe (`--recipe paper`): temperatures of
1, and the schedule of its program; it gives beta for two sets alone, so several are run, and ours is held against the
best of them at each noise rate. Cross-entropy stands alone, with the temperature that validation mAP chose for the
paper's tables. Same network, splits, noise and seeds. Test mAP at the best validation epoch, the mean
of both directions, mean ± standard deviation over seeds. 100 runs a set beside cross-entropy's: emoji 20 minutes, the
views 36, on one core (AMD EPYC, 2026-11-28).
"""

import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from matplotlib.figure import Figure
from outputs import against, average_map, markdown, save, told
from paper import CE
from program import main_of, parser
from store import Store, stores

from mrl_jax import grid, preset
from mrl_jax.config import auto_temperature

OURS, PLAIN = "defaults", "cross-entropy"
BETAS = (0.5, 0.7, 0.9, 0.95)


def runs_of(store: Store) -> dict[str, list[dict[str, Any]]]:
    """Runs of every row, a seed and noise rate each."""
    cells: dict[str, Any] = {"noise_rate": store.rates, "seed": list(range(store.seeds))}
    base, tau = store.dataset.config, auto_temperature(store.classes)
    paper = preset(base.preset, recipe="paper")
    recipe = {name: getattr(paper, name) for name in ("tau1", "tau2", "schedule")}
    rows = {OURS: store.fixed(OURS, grid(replace(base, tau1=tau, tau2=tau), **cells)), PLAIN: store.runs(CE)}
    for beta in BETAS:
        configs = grid(replace(base, beta=beta, **recipe), **cells)
        rows[f"paper's recipe, β {beta:g}"] = store.fixed("paper's recipe", configs)
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Train what is missing, print the table and draw it."""
    args = parser(__doc__).parse_args(argv)
    found = stores(args)
    figure = Figure(figsize=(4.2 * len(found), 3.4), layout="constrained")
    parts, lines = [], []
    for store, axes in zip(found, figure.subplots(1, len(found), squeeze=False)[0], strict=True):
        rows = [["", *(f"noise {rate:g}" for rate in store.rates), "mean"]]
        means = {}
        for name, runs in runs_of(store).items():
            at = average_map(runs, store.rates)
            means[name] = [statistics.mean(values) for values in at]
            rows.append([name, *map(told, at), f"{statistics.mean(means[name]):.3f}"])
            against(axes, store.rates, at, name)
            lines += [
                [store.dataset.name, name, rate, seed, round(value, 5)]
                for rate, values in zip(store.rates, at, strict=True)
                for seed, value in enumerate(values)
            ]
        ours = means.pop(OURS)
        most = [max(column) for column in zip(*(m for name, m in means.items() if name != PLAIN), strict=True)]
        ahead = [f"{a - b:+.3f}" for a, b in zip(ours, most, strict=True)]
        rows.append(["defaults less the best β of the paper's recipe at this rate", *ahead, ""])
        parts.append(f"### {store.dataset.title}, {store.layers}, {store.seeds} seeds\n\n{markdown(rows)}")
        axes.set(title=store.dataset.title, xlabel="noise rate", ylabel="test mAP, mean of both directions")
        axes.set_xticks(store.rates)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    save(args.out / "defaults", "\n\n".join(parts), ["set", "row", "noise_rate", "seed", "map"], lines, figure)


if __name__ == "__main__":
    main_of(main)
