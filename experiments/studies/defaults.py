"""Our defaults beside cross-entropy and the paper's recipe at several beta, at four noise rates.

    python -m experiments.studies.defaults [--sets emoji] [--views wikipedia_4views.npz]
    python -m experiments.studies.defaults --from-results

Defaults: beta 0.9, both temperatures from the number of classes. The paper's recipe (`--recipe paper`): temperatures of
1, and the schedule of the official implementation. The paper gives beta for two sets only, so several values are run,
and the defaults are compared with the best of them at each noise rate. Cross-entropy has no contrastive loss; its
temperature is the one that validation mAP chose for the paper's tables. Network, splits, noise, seeds and the number of
epochs (20 on emoji, 30 elsewhere) are the same. Test mAP at the best validation epoch, the mean of both directions,
mean ± standard deviation over seeds. The last row is the mean of the differences seed by seed with its 95 % interval.
140 runs per set in addition to those of cross-entropy: emoji 28 minutes, the views 50, on one core (AMD EPYC,
2026-11-28).
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from matplotlib.figure import Figure

from experiments.shared.command_line import parser, run_main
from experiments.shared.outputs import plot_means, save
from experiments.shared.protocol import CE, EARLIER, hold_note
from experiments.shared.store import Store, stores
from experiments.shared.tables import average_map, markdown, mean_and_std
from mrl_jax import grid, preset
from mrl_jax.config import auto_temperature
from mrl_jax.eval.differences import compared

OURS, PLAIN, RECIPE = "defaults", "cross-entropy", "paper's recipe"
BETAS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98)


def runs_of(store: Store) -> dict[str, list[dict[str, Any]]]:
    """Runs of every row, one per seed and noise rate."""
    cells: dict[str, Any] = {"noise_rate": store.rates, "seed": list(range(store.seeds))}
    base, tau = store.dataset.config, auto_temperature(store.classes)
    paper = preset(base.preset, recipe="paper")
    recipe = {name: getattr(paper, name) for name in ("tau1", "tau2", "schedule")}
    wanted = grid(replace(base, **recipe), beta=BETAS, **cells)
    earlier = [replace(c, schedule=EARLIER[c.schedule]) for c in wanted]
    recipe["schedule"] = store.available(RECIPE, wanted, earlier)[0].schedule  # one schedule in all rows
    rows = {OURS: store.fixed(OURS, grid(replace(base, tau1=tau, tau2=tau), **cells)), PLAIN: store.runs(CE)}
    for beta in BETAS:
        configs = grid(replace(base, beta=beta, **recipe), **cells)
        rows[f"{RECIPE}, β {beta:g}"] = store.fixed(RECIPE, configs)
    return rows


def _ahead(maps: Mapping[str, Sequence[Sequence[float]]]) -> list[str]:
    """Defaults less the best beta of the recipe, at each noise rate: the mean over seeds and its 95 % interval."""
    cells = []
    for i, ours in enumerate(maps[OURS]):
        best = max((at[i] for name, at in maps.items() if name not in (OURS, PLAIN)), key=statistics.mean)
        if len(ours) < 2:
            cells.append(f"{ours[0] - best[0]:+.3f}")
            continue
        found = compared(ours, best)  # a seed fixes noise and initial parameters
        low, high = found.over_seeds
        cells.append(f"{found.mean:+.3f} [{low:+.3f}, {high:+.3f}]")
    return cells


def main(argv: Sequence[str] | None = None) -> None:
    """Train what is missing, print the table and draw it."""
    args = parser(__doc__).parse_args(argv)
    sets = stores(args)
    figure = Figure(figsize=(4.2 * len(sets), 3.4), layout="constrained")
    parts, lines, schedules = [], [], {}
    for store, axes in zip(sets, figure.subplots(1, len(sets), squeeze=False)[0], strict=True):
        rows = [["", *(f"noise {rate:g}" for rate in store.rates), "mean"]]
        runs = runs_of(store)
        (schedules[store.dataset.title],) = {
            run["settings"]["schedule"] for name, of_row in runs.items() if name.startswith(RECIPE) for run in of_row
        }
        maps = {name: average_map(of_row, store.rates) for name, of_row in runs.items()}
        for name, at in maps.items():
            rows.append([name, *map(mean_and_std, at), f"{statistics.mean(map(statistics.mean, at)):.3f}"])
            plot_means(axes, store.rates, at, name)
            lines += [
                [store.dataset.name, name, rate, seed, round(value, 5)]
                for rate, values in zip(store.rates, at, strict=True)
                for seed, value in enumerate(values)
            ]
        rows.append(["defaults less the best β of the paper's recipe at this rate, [95 % interval]", *_ahead(maps), ""])
        parts.append(f"### {store.dataset.title}, {store.layers}, {store.seeds} seeds\n\n{markdown(rows)}")
        axes.set(title=store.dataset.title, xlabel="noise rate", ylabel="test mAP, mean of both directions")
        axes.set_xticks(store.rates)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    noted = [title for title, schedule in schedules.items() if schedule in EARLIER.values()]
    where = f" ({', '.join(noted)})" if len(noted) < len(schedules) else ""
    text = "\n\n".join(parts) + hold_note(f"Rows of the {RECIPE}{where}", schedules.values())
    save(args.out / "defaults", text, ["set", "row", "noise_rate", "seed", "map"], lines, figure)


if __name__ == "__main__":
    run_main(main)
