"""The temperature from the number of classes (`--tau auto`) beside others: mAP on sets of 9 to 1,000 classes.

    python -m experiments.studies.temperatures [--sets emoji emoji-31 generated-100 …] [--views wikipedia_4views.npz]
    python -m experiments.studies.temperatures --from-results

MRL, and cross-entropy with the contrastive loss. tau1 = tau2 takes values from 0.1 to 1 and two values from the number
of classes: one makes the upper bound of p(y|x) 1/2 (`--tau auto`), the other 0.25, as tau = 1 does for 10 classes.
beta 0.9, noise 0.2 and 0.6, layers 256-256-128, 3 seeds that no result uses. Sets: emoji (9 classes), its subgroups of
at least 20 members (31 classes), Wikipedia pairs with reduced features (10), and generated ones of 10 to 1,000 classes.
Prints validation mAP, the mean over noise rates and seeds. 96 runs per set: 1,000 classes 38 minutes on one core (AMD
EPYC, 2026-11-28), 300 classes 9, the others less.
"""

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from experiments.shared.command_line import checked, parser, run_main
from experiments.shared.outputs import save
from experiments.shared.protocol import TRIAL_SEED
from experiments.shared.tables import markdown
from experiments.studies.sets import SETS, mean_of, studied
from mrl_jax.config import auto_temperature

TAUS = (0.1, 0.2, 0.35, 0.5, 0.7, 1.0)
LOSSES = {"rc": "MRL", "ce": "CE + contrastive"}
BETA, RATES, SEEDS = 0.9, (0.2, 0.6), tuple(range(TRIAL_SEED, TRIAL_SEED + 3))
GENERATED = (10, 100, 300, 1000)
SMOKE_HELP = "tiny networks, few temperatures, one seed, two sets"
OF_TEN = 1 / (1 + 9 * math.exp(-10 / 9))
"""The upper bound of p (simplex ETF) for 10 classes at tau = 1."""


def temperature_of(classes: int, p: float) -> float:
    """The temperature at which the upper bound of p(y|x), reached by a simplex ETF, is the given one."""
    return classes / (classes - 1) / math.log((classes - 1) * p / (1 - p))


def settings_of(classes: int, smoke: bool = False) -> list[dict[str, Any]]:
    """Losses and temperatures to try: fixed temperatures, then those from the number of classes."""
    taus = *(TAUS[::5] if smoke else TAUS), auto_temperature(classes), temperature_of(classes, OF_TEN)  # may be equal
    return [
        {"loss": loss, "beta": BETA, "tau1": round(tau, 4), "tau2": round(tau, 4)} for loss in LOSSES for tau in taus
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Train what is missing, print and draw."""
    args = checked(
        parser(__doc__, f"{SETS}, generated sets of 10 to 1,000 classes", seeds=False, smoke=SMOKE_HELP).parse_args(
            argv
        )
    )
    sets = ["emoji", "emoji-31", *(["wikipedia-views"] if args.views else [])]
    sets += [f"generated-{k}" for k in GENERATED]
    sets = ["emoji", "generated-10"] if args.smoke else sets
    seeds = SEEDS[:1] if args.smoke else SEEDS
    results = studied(args, "temperatures", sets, lambda k: settings_of(k, args.smoke), RATES, seeds)
    count = len(next(iter(results.values()))["settings"]) // len(LOSSES)
    fixed = [s["tau1"] for s in next(iter(results.values()))["settings"][: count - 2]]
    rows = [["set", "classes", "loss", *(f"τ {tau:g}" for tau in fixed), "p 1/2 (auto)", f"p {OF_TEN:.2f}"]]
    lines = []
    figure = Figure(figsize=(5 * len(LOSSES), 3.6), layout="constrained")
    panels = figure.subplots(1, len(LOSSES), sharey=True)
    for name, of_set in sorted(results.items(), key=lambda item: item[1]["classes"]):
        for i, (loss, axes) in enumerate(zip(LOSSES, panels, strict=True)):
            own = range(i * count, (i + 1) * count)
            taus, means = [of_set["settings"][j]["tau1"] for j in own], [mean_of(of_set, j) for j in own]
            ruled = [f"{mean:.3f} (τ {tau:.2f})" for mean, tau in zip(means[-2:], taus[-2:], strict=True)]
            title = LOSSES[loss]
            rows.append([name, str(of_set["classes"]), title, *(f"{mean:.3f}" for mean in means[:-2]), *ruled])
            (line,) = axes.plot(taus[:-2], means[:-2], marker=".", label=f"{name}, K = {of_set['classes']}")
            axes.plot(taus[-2], means[-2], "*", color=line.get_color(), markersize=11)
            axes.plot(taus[-1], means[-1], "d", color=line.get_color())
            axes.set(title=title, xscale="log", xlabel="τ1 = τ2 (star: auto; diamond: p of K = 10)")
            lines += [
                [name, of_set["classes"], loss, of_set["settings"][j]["tau1"], rate, seed, of_set["valid"][j][r][s]]
                for j in own
                for r, rate in enumerate(of_set["rates"])
                for s, seed in enumerate(of_set["seeds"])
            ]
    panels[0].set_ylabel("validation mAP")
    panels[0].legend(fontsize=7)
    for axes in panels:
        axes.grid(alpha=0.3)
    head = ["set", "classes", "loss", "tau", "noise_rate", "seed", "valid"]
    save(args.out / "temperatures", markdown(rows), head, lines, figure)


if __name__ == "__main__":
    run_main(main)
