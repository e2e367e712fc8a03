"""The study behind the defaults: beta x tau1 x tau2 x schedule, validation mAP of four sets at two noise rates.

    python -m experiments.studies.choose_defaults [--sets emoji emoji-31 …] [--views wikipedia_4views.npz]
    python -m experiments.studies.choose_defaults --from-results

Temperatures are multiples of the temperature from the number of classes, tau(K). Layers 256-256-128, learning rate
2e-4, one seed that no result uses; 108 settings at noise 0.2 and 0.8 on emoji (9 classes), its subgroups of at least 20
members (31 classes), the Wikipedia pairs with reduced features (10), and a generated set (100). Prints the best
settings by the mean over sets and rates with the rank of the defaults, the rank of the defaults on every set, the mean
of every value of every factor, and for every set the test mAP of the setting that sets of other families choose. 864
runs: 30 minutes on one core (AMD EPYC, 2026-11-28).
"""

import itertools
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from experiments.shared.command_line import checked, parser, run_main
from experiments.shared.leave_one_out import leave_one_out_table
from experiments.shared.outputs import save
from experiments.shared.protocol import TRIAL_SEED, hold_note
from experiments.shared.tables import markdown
from experiments.studies.sets import SETS, mean_of, studied
from mrl_jax import Config
from mrl_jax.config import auto_temperature

FACTORS: dict[str, tuple[Any, ...]] = {
    "beta": (0.7, 0.8, 0.9, 0.95),
    "tau1": (0.5, 1.0, 2.0),  # times tau(K)
    "tau2": (0.5, 1.0, 2.0),
    "schedule": ("cosine", "cosine-hold", "constant"),
}
RATES = (0.2, 0.8)
DEFAULTS = (Config().beta, 1.0, 1.0, Config().schedule)
BEST = 8
LEFT_OUT = "Every set left out once, with its family, mean of both noise rates (β, τ1 / τ(K), τ2 / τ(K), schedule):"


def combinations(smoke: bool = False) -> list[tuple[Any, ...]]:
    """All combinations of the factors; with `smoke` a few of them, with the defaults."""
    every = list(itertools.product(*FACTORS.values()))
    return [c for c in every if c == DEFAULTS or not smoke or every.index(c) % 40 == 0]


def settings_of(classes: int, smoke: bool) -> list[dict[str, Any]]:
    """The combinations as fields of a configuration."""
    tau = auto_temperature(classes)
    return [
        {"beta": beta, "tau1": round(tau1 * tau, 4), "tau2": round(tau2 * tau, 4), "schedule": schedule}
        for beta, tau1, tau2, schedule in combinations(smoke)
    ]


def table(maps: Mapping[tuple[Any, ...], Sequence[float]], titles: Sequence[str]) -> str:
    """Best settings, ranks of the defaults and factors, as Markdown; maps: combination -> mAP of every set and rate."""
    order = sorted(maps, key=lambda c: -statistics.mean(maps[c]))
    rows = [["rank", "β", "τ1 / τ(K)", "τ2 / τ(K)", "schedule", *titles, "mean"]]
    for rank, combination in enumerate(order, 1):
        if rank <= BEST or combination == DEFAULTS:
            mark = " (defaults)" if combination == DEFAULTS else ""
            cells = [f"{x:.3f}" for x in (*maps[combination], statistics.mean(maps[combination]))]
            rows.append([f"{rank} of {len(order)}{mark}", *map(str, combination), *cells])
    ranks = [
        ["set", "best: β, τ1 / τ(K), τ2 / τ(K), schedule", "its mean", "mean of the defaults", "rank of the defaults"]
    ]
    for i in range(0, len(titles), len(RATES)):
        of_set = {c: statistics.mean(values[i : i + len(RATES)]) for c, values in maps.items()}
        best, ranking = max(of_set, key=lambda c: of_set[c]), sorted(of_set, key=lambda c: -of_set[c])
        cells = [
            titles[i].rpartition(" ")[0],
            ", ".join(map(str, best)),
            *(f"{of_set[c]:.3f}" for c in (best, DEFAULTS)),
        ]
        ranks.append([*cells, f"{ranking.index(DEFAULTS) + 1} of {len(ranking)}"])
    factors = [["factor", "value", *titles, "mean"]]
    for i, (factor, values) in enumerate(FACTORS.items()):
        for value in values:
            if of_value := [maps[c] for c in maps if c[i] == value]:
                means = [statistics.mean(column) for column in zip(*of_value, strict=True)]
                factors.append([factor, str(value), *(f"{x:.3f}" for x in (*means, statistics.mean(means)))])
    return "\n\n".join(
        [markdown(rows), "By set:", markdown(ranks), "Mean over all settings with one value:", markdown(factors)]
    )


def left_out(results: Mapping[str, Any], tried: Sequence[tuple[Any, ...]]) -> str:
    """What the choice is worth on a set that has no part in it, as Markdown."""
    valid, test = (
        {name: {c: mean_of(x, i, split=split) for i, c in enumerate(tried)} for name, x in results.items()}
        for split in ("valid", "test")
    )
    return leave_one_out_table(LEFT_OUT, valid, test, DEFAULTS, lambda c: ", ".join(map(str, c)))


def draw(sets: Mapping[str, Any], tried: Sequence[tuple[Any, ...]]) -> Figure:
    """Validation mAP of all settings, the mean over rates, against every factor; a bar at the best."""
    figure = Figure(figsize=(2.6 * len(FACTORS), 2.6 * len(sets)), layout="constrained")
    for row, (name, scores) in zip(figure.subplots(len(sets), len(FACTORS), squeeze=False), sets.items(), strict=True):
        for i, (axes, (factor, values)) in enumerate(zip(row, FACTORS.items(), strict=True)):
            for x, value in enumerate(values):
                if at := [mean_of(scores, j) for j, c in enumerate(tried) if c[i] == value]:
                    axes.plot([x] * len(at), at, ".", color=f"C{x}", alpha=0.5)
                    axes.plot(x, max(at), "_", color="black", markersize=14)
            axes.set_xticks(range(len(values)), list(map(str, values)))
            axes.set_title({"tau1": "τ1 / τ(K)", "tau2": "τ2 / τ(K)", "beta": "β"}.get(factor, factor), fontsize=9)
            axes.grid(alpha=0.3)
        row[0].set_ylabel(f"{name}, K = {scores['classes']}\nvalidation mAP", fontsize=8)
    return figure


def main(argv: Sequence[str] | None = None) -> None:
    """Train what is missing, print and draw."""
    args = checked(parser(__doc__, SETS, seeds=False, smoke="tiny networks, few settings").parse_args(argv))
    sets = ["emoji", "emoji-31", *(["wikipedia-views"] if args.views else []), "generated-100"]
    results = studied(args, "choose_defaults", sets, lambda k: settings_of(k, args.smoke), RATES, (TRIAL_SEED,))
    tried = combinations(args.smoke)
    titles = [f"{name} {rate:g}" for name in results for rate in RATES]
    maps = {c: [mean_of(x, i, r) for x in results.values() for r in range(len(RATES))] for i, c in enumerate(tried)}
    lines = [[*c, *values] for c, values in maps.items()]
    note = hold_note("Settings with `cosine-hold`", (s["schedule"] for x in results.values() for s in x["settings"]))
    text = table(maps, titles) + left_out(results, tried) + note
    save(args.out / "choose_defaults", text, [*FACTORS, *titles], lines, draw(results, tried))


if __name__ == "__main__":
    run_main(main)
