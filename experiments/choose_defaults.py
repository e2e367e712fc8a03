"""What the defaults were chosen from: beta x tau1 x tau2 x schedule on validation mAP of three sets at two noise rates.

    python experiments/choose_defaults.py [--sets emoji emoji-31 wikipedia-views] [--views wikipedia_4views.npz]
    python experiments/choose_defaults.py --from-results

Temperatures are multiples of the one from the number of classes, tau(K). Layers 256-256-128, one seed that no result
uses; 81 settings at noise 0.2 and 0.8 on emoji (9 classes), its subgroups of at least 20 (31 classes) and the Wikipedia
pairs with reduced features (10). Prints the best settings by the mean over sets and rates, with the defaults among
them wherever they stand, and the mean of every value of every factor; keeps all cells in `results/`, after every set.
"""

import itertools
import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from machine import machine
from matplotlib.figure import Figure
from noisy_label_losses import SMALL
from outputs import markdown, save
from paper import SMOKE, TRIAL_SEED, main_of, parser, read_results, settled
from temperatures import load

from mrl_jax import Config, InputError, sweep
from mrl_jax.config import auto_temperature
from mrl_jax.data.dataset import Dataset

FACTORS: dict[str, tuple[Any, ...]] = {
    "beta": (0.7, 0.9, 0.95),
    "tau1": (0.5, 1.0, 2.0),  # times tau(K)
    "tau2": (0.5, 1.0, 2.0),
    "schedule": ("cosine", "cosine-hold", "constant"),
}
RATES = (0.2, 0.8)
DEFAULTS = (Config().beta, 1.0, 1.0, Config().schedule)
BEST = 8
Setting = tuple[Any, ...]


def study(data: Dataset, smoke: bool) -> dict[str, Any]:
    """Validation mAP of every setting at every rate."""
    tau = auto_temperature(data.num_classes)
    base: dict[str, Any] = {"modalities": data.modalities, "seed": TRIAL_SEED, **SMALL, **(SMOKE if smoke else {})}
    settings = [DEFAULTS, *(s for s in settings_of(smoke) if s != DEFAULTS)]
    configs = [
        Config(**base, beta=beta, tau1=tau1 * tau, tau2=tau2 * tau, schedule=schedule, noise_rate=rate)
        for beta, tau1, tau2, schedule in settings
        for rate in RATES
    ]
    found = sweep(configs, data=data, progress=True)
    if found.failed:
        name, why = next(iter(found.failed.items()))
        raise SystemExit(f"{name}: {why}")
    valid = [round(r.scores["valid"]["best"]["average"], 5) for r in found.runs.values()]  # type: ignore[index]
    cells = [
        dict(zip(FACTORS, s, strict=True)) | {"valid": valid[len(RATES) * i :][: len(RATES)]}
        for i, s in enumerate(settings)
    ]
    return {"classes": data.num_classes, "tau": round(tau, 4), "config": configs[0].to_json(), "cells": cells}


def settings_of(smoke: bool) -> list[Setting]:
    """All combinations."""
    return list(itertools.product(*FACTORS.values()))[:: 40 if smoke else 1]


def tables(sets: Mapping[str, Any]) -> tuple[str, dict[Setting, list[float]]]:
    """Markdown, and setting -> mAP of every set and rate."""
    found: dict[Setting, list[float]] = {}
    for of_set in sets.values():
        for cell in of_set["cells"]:
            found.setdefault(tuple(cell[f] for f in FACTORS), []).extend(cell["valid"])
    order = sorted(found, key=lambda s: -statistics.mean(found[s]))
    titles = [f"{name} {rate:g}" for name in sets for rate in RATES]
    rows = [["rank", "β", "τ1 / τ(K)", "τ2 / τ(K)", "schedule", *titles, "mean"]]
    for rank, setting in enumerate(order, 1):
        if rank <= BEST or setting == DEFAULTS:
            mark = " (defaults)" if setting == DEFAULTS else ""
            cells = [f"{x:.3f}" for x in (*found[setting], statistics.mean(found[setting]))]
            rows.append([f"{rank} of {len(order)}{mark}", *(str(x) for x in setting), *cells])
    factors = [["factor", "value", *titles, "mean"]]
    for i, (factor, values) in enumerate(FACTORS.items()):
        for value in values:
            of_value = [found[s] for s in found if s[i] == value]
            if of_value:
                means = [statistics.mean(column) for column in zip(*of_value, strict=True)]
                factors.append([factor, str(value), *(f"{x:.3f}" for x in (*means, statistics.mean(means)))])
    return f"{markdown(rows)}\n\nMean over all settings with one value:\n\n{markdown(factors)}", found


def draw(sets: Mapping[str, Any]) -> Figure:
    """Validation mAP, the mean over rates, of all settings of each set, coloured by factor."""
    figure = Figure(figsize=(2.6 * len(FACTORS), 2.6 * len(sets)), layout="constrained")
    for row, (name, found) in zip(figure.subplots(len(sets), len(FACTORS), squeeze=False), sets.items(), strict=True):
        for axes, (factor, values) in zip(row, FACTORS.items(), strict=True):
            for x, value in enumerate(values):
                at = [statistics.mean(c["valid"]) for c in found["cells"] if c[factor] == value]
                axes.plot([x] * len(at), at, ".", color=f"C{x}", alpha=0.5)
                if at:
                    axes.plot(x, max(at), "_", color="black", markersize=14)
            axes.set_xticks(range(len(values)), [str(v) for v in values])
            axes.set_title(factor if factor in ("beta", "schedule") else f"{factor} / tau(K)", fontsize=9)
            axes.grid(alpha=0.3)
        row[0].set_ylabel(f"{name}, K = {found['classes']}\nvalidation mAP", fontsize=8)
    return figure


def main(argv: Sequence[str] | None = None) -> None:
    """Train what is missing, print and draw."""
    args = settled(parser(__doc__).parse_args(argv))
    path = args.out / "choose_defaults.json"
    kept: dict[str, Any] = read_results(path) if path.exists() else {"sets": {}}
    names = args.sets or ["emoji", "emoji-31", *(["wikipedia-views"] if args.views else [])]
    for name in [] if args.from_results else names:
        if name not in kept["sets"]:
            kept["sets"][name] = study(load(name, args.views), args.smoke)
            kept["machine"] = machine(["jax", "jaxlib", "numpy"])
            path.write_text(json.dumps(kept, separators=(",", ":")) + "\n", encoding="utf-8")
    if not kept["sets"]:
        raise InputError(f"no results in {args.out}; run without --from-results to make them")
    text, found = tables(kept["sets"])
    lines = [[*s, *values] for s, values in found.items()]
    head = [*FACTORS, *(f"{name} {rate:g}" for name in kept["sets"] for rate in RATES)]
    save(args.out / "choose_defaults", text, head, lines, draw(kept["sets"]))


if __name__ == "__main__":
    main_of(main)
