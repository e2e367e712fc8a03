"""The temperature from the number of classes (`--tau auto`) beside others: mAP on sets of 9 to 1,000 classes.

python experiments/temperatures.py [--sets emoji emoji-31 generated-100 …] [--views wikipedia_4views.npz]
python experiments/temperatures.py --from-results

MRL with tau1 = tau2 at 0.1 to 1 and at the temperature from the number of classes, beta 0.9 and 0.95, noise 0.2 and
0.7, layers 512-512-128. Sets: emoji (9 classes), its subgroups of at least 20 (31 classes), Wikipedia pairs with
reduced features (10), and generated ones of 10 to 1,000 classes: Gaussian clusters in 32 dimensions, seen through two
random maps with a tanh and noise. Prints validation mAP, the mean over noise rates; keeps all numbers in
`results/temperatures.json`, after every set.
"""

import json
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from machine import machine
from matplotlib.figure import Figure
from outputs import markdown, save
from paper import VIEWS, main_of, parser, read_results, settled

from mrl_jax import Config, InputError, grid, load_dataset, sweep
from mrl_jax.config import auto_temperature
from mrl_jax.data.dataset import Dataset
from mrl_jax.data.emoji import load_records

TAUS = (0.1, 0.2, 0.35, 0.5, 0.7, 1.0)
BETAS, RATES = (0.9, 0.95), (0.2, 0.7)
GENERATED = (10, 30, 100, 300, 1000)
LEAST = 20  # members of a subgroup


def subgroups() -> Dataset:
    """Emoji with the Unicode subgroups as classes, those with enough members."""
    whole = load_dataset("emoji", ("image", "text"))
    names = {split: np.array([r["subgroup"] for r in load_records(split)]) for split in whole.splits}
    counts = Counter(name for of_split in names.values() for name in of_split.tolist())
    classes = sorted(name for name, count in counts.items() if count >= LEAST)
    arrays: dict[str, Any] = {}
    for split, of_split in names.items():
        kept = np.isin(of_split, classes)
        arrays |= {f"{split}_{m}": whole.splits[split].features[m][kept] for m in whole.modalities}
        arrays[f"{split}_labels"] = np.searchsorted(classes, of_split[kept])
    return load_dataset(arrays)


def generated(classes: int, latent: int = 32, dim: int = 64, spread: float = 0.8) -> Dataset:
    """Clusters in a latent space, seen by two modalities."""
    rng = np.random.default_rng(classes)
    means = rng.normal(size=(classes, latent))
    maps = {name: rng.normal(size=(latent, dim)) / latent**0.5 for name in ("a", "b")}
    arrays: dict[str, Any] = {}
    for split, least, each in (("train", 2000, 12), ("valid", 500, 3), ("test", 500, 3)):
        labels = np.arange(max(least, each * classes)) % classes
        shared = means[labels] + spread * rng.normal(size=(len(labels), latent))
        for name, map_ in maps.items():
            own = shared + spread * rng.normal(size=shared.shape)
            arrays[f"{split}_{name}"] = np.tanh(own @ map_) + 0.3 * rng.normal(size=(len(labels), dim))
        arrays[f"{split}_labels"] = labels
    return load_dataset({k: x.astype(np.float32) if x.ndim == 2 else x for k, x in arrays.items()})


def load(name: str, views: str | None) -> Dataset:
    """A set by name."""
    if name == "emoji":
        return load_dataset("emoji", ("image", "text"))
    if name == "emoji-31":
        return subgroups()
    if name == "wikipedia-views" and views:
        return load_dataset(views, VIEWS)
    kind, _, classes = name.partition("-")
    if kind == "generated" and classes.isdigit() and int(classes) > 1:
        return generated(int(classes))
    raise InputError(
        f"unknown set {name!r}; choose from emoji, emoji-31, generated-K, and wikipedia-views with --views"
    )


def study(data: Dataset, smoke: bool) -> dict[str, Any]:
    """Every cell of a set."""
    auto = auto_temperature(data.num_classes)
    layers: dict[str, Any] = {"hidden_dims": (512, 512), "embed_dim": 128, "learning_rate": 2e-4}
    if smoke:
        layers |= {"hidden_dims": (16,), "embed_dim": 8, "epochs": 2}
    base = Config(modalities=data.modalities, **layers)
    taus = sorted({*(TAUS[::5] if smoke else TAUS), round(auto, 4)})
    configs = [c for tau in taus for c in grid(base, beta=BETAS, noise_rate=RATES, tau1=[tau], tau2=[tau])]
    found = sweep(configs, data=data, progress=True)
    cells = [
        {
            "tau": r.config.tau1,
            "beta": r.config.beta,
            "noise_rate": r.config.noise_rate,
            "valid": r.scores["valid"]["best"]["average"],
            "test": r.scores["test"]["best"]["average"],
        }
        for r in found.runs.values()
        if r.scores is not None
    ]
    return {"classes": data.num_classes, "auto": round(auto, 4), "config": base.to_json(), "cells": cells}


def mean_at(found: Mapping[str, Any], tau: float, beta: float, split: str = "valid") -> float:
    """mAP of a cell, the mean over noise rates."""
    return statistics.mean(c[split] for c in found["cells"] if (c["tau"], c["beta"]) == (tau, beta))


def main(argv: Sequence[str] | None = None) -> None:
    """Train what is missing, print and draw."""
    args = settled(parser(__doc__).parse_args(argv))
    path = args.out / "temperatures.json"
    kept: dict[str, Any] = read_results(path) if path.exists() else {"sets": {}}
    names = args.sets or ["emoji", "emoji-31", *(["wikipedia-views"] if args.views else [])]
    if not args.sets:
        names += [f"generated-{k}" for k in (GENERATED[:1] if args.smoke else GENERATED)]
    for name in [] if args.from_results else names:
        if name not in kept["sets"]:
            kept["sets"][name] = study(load(name, args.views), args.smoke)
            kept["machine"] = machine(["jax", "jaxlib", "numpy"])
            path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    if not kept["sets"]:
        raise InputError(f"no results in {args.out}; run without --from-results to make them")
    taus = sorted({c["tau"] for found in kept["sets"].values() for c in found["cells"]} & set(TAUS))
    rows = [["set", "classes", "β", *(f"τ {tau:g}" for tau in taus), "τ(K)"]]
    figure = Figure(figsize=(5.5, 3.6), layout="constrained")
    axes = figure.subplots()
    for name, found in sorted(kept["sets"].items(), key=lambda item: item[1]["classes"]):
        for beta in BETAS:
            cells = [f"{mean_at(found, tau, beta):.3f}" for tau in taus]
            auto = f"{mean_at(found, found['auto'], beta):.3f} ({found['auto']:.2f})"
            rows.append([name, str(found["classes"]), f"{beta:g}", *cells, auto])
        curve = [mean_at(found, tau, BETAS[0]) for tau in taus]
        (line,) = axes.plot(taus, curve, marker=".", label=f"{name}, K = {found['classes']}")
        axes.plot(found["auto"], mean_at(found, found["auto"], BETAS[0]), "*", color=line.get_color(), markersize=11)
    axes.set(xscale="log", xlabel="τ1 = τ2 (star: from the number of classes)", ylabel="validation mAP")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    lines = [
        [name, found["classes"], *(c[k] for k in ("tau", "beta", "noise_rate", "valid", "test"))]
        for name, found in kept["sets"].items()
        for c in found["cells"]
    ]
    head = ["set", "classes", "tau", "beta", "noise_rate", "valid", "test"]
    save(args.out / "temperatures", markdown(rows), head, lines, figure)


if __name__ == "__main__":
    main_of(main)
