"""Many settings on validation data of several sets: trained once for each set, kept, never mixed with other grids."""

import argparse
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from machine import machine
from paper import SMALL, SMOKE, VIEWS, read_results, write_results

from mrl_jax import Config, InputError, load_dataset, sweep
from mrl_jax.data.dataset import Dataset
from mrl_jax.data.emoji import load_records

__all__ = ["Setting", "mean_of", "studied"]

LEAST = 20  # members of a subgroup of emoji
EPOCHS = {"emoji": 20, "emoji-31": 20}  # others: the default
Setting = Mapping[str, Any]


def studied(
    args: argparse.Namespace,
    stem: str,
    sets: Sequence[str],
    settings_of: Callable[[int], Sequence[Setting]],
    rates: Sequence[float],
    seeds: Sequence[int],
) -> dict[str, Any]:
    """What every setting found on every set: small networks, kept in `STEM.json` after every set.

    Args:
        args: flags of `paper.parser`.
        stem: of the file.
        sets: names, where the flags give none.
        settings_of: number of classes -> fields of `Config` to try.
        rates: noise rates.
        seeds: seeds that no result uses.

    Returns:
        set -> classes, settings, and validation and test mAP [setting][rate][seed].

    Raises:
        InputError: an unknown set; the file holds another grid, or nothing that was asked for.
    """
    path = args.out / f"{stem}.json"
    kept: dict[str, Any] = read_results(path) if path.exists() else {"sets": {}}
    names = args.sets or sets
    if args.from_results:
        found = {name: kept["sets"][name] for name in args.sets or kept["sets"] if name in kept["sets"]}
        if not found:
            raise InputError(f"no results in {path}; run without --from-results to make them")
        return found
    for name in names:
        data = _load(name, args.views)
        config = Config(modalities=data.modalities, **SMALL, epochs=EPOCHS.get(name, Config().epochs))
        wanted = {
            "classes": data.num_classes,
            "sha256": data.digest(),
            "config": (Config(**config.to_json() | SMOKE) if args.smoke else config).to_json(),
            "settings": list(settings_of(data.num_classes)),
            "rates": list(rates),
            "seeds": list(seeds),
        }
        there = kept["sets"].get(name)
        if there is None:
            kept["sets"][name] = {**wanted, **_trained(name, wanted, data)}
            write_results(path, kept)
        elif odd := [key for key, value in wanted.items() if there[key] != value]:
            raise InputError(f"{path} holds {name} with other {odd[0]}; move it away, or name another --out")
    return {name: kept["sets"][name] for name in names}


def mean_of(found: Mapping[str, Any], index: int, rate: int | None = None, split: str = "valid") -> float:
    """mAP of a setting, the mean over seeds, at one rate or over all."""
    at = found[split][index]
    return statistics.mean(value for seeds in (at if rate is None else [at[rate]]) for value in seeds)


def _trained(name: str, wanted: Mapping[str, Any], data: Dataset) -> dict[str, Any]:
    configs = [
        Config(**wanted["config"] | setting | {"noise_rate": rate, "seed": seed})
        for setting in wanted["settings"]
        for rate in wanted["rates"]
        for seed in wanted["seeds"]
    ]
    print(f"{name}: {len(configs)} runs", flush=True)
    done = sweep(configs, data=data, progress=True)
    if done.failed:
        run, why = next(iter(done.failed.items()))
        raise SystemExit(f"{run}: {why}")
    scores = [run.scores for run in done.runs.values()]
    shape = len(wanted["settings"]), len(wanted["rates"]), len(wanted["seeds"])
    maps = {
        split: np.round([s[split]["best"]["average"] for s in scores], 5).reshape(shape).tolist()  # type: ignore[index]
        for split in ("valid", "test")
    }
    return {**maps, "machine": {**machine(["jax", "jaxlib", "numpy"]), "device": scores[0]["device"]}}  # type: ignore[index]


def _load(name: str, views: str | None) -> Dataset:
    if name == "emoji":
        return load_dataset("emoji", ("image", "text"))
    if name == "emoji-31":
        return _subgroups()
    if name == "wikipedia-views" and views:
        return load_dataset(views, VIEWS)
    kind, _, classes = name.partition("-")
    if kind == "generated" and classes.isdigit() and int(classes) > 1:
        return _generated(int(classes))
    raise InputError(
        f"unknown set {name!r}; choose from emoji, emoji-31, generated-K, and wikipedia-views with --views"
    )


def _subgroups() -> Dataset:
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


def _generated(classes: int, latent: int = 32, dim: int = 64, spread: float = 0.8) -> Dataset:
    """Gaussian clusters in a latent space, seen by two modalities through random maps with a tanh and noise."""
    rng = np.random.default_rng(classes)
    means = rng.normal(size=(classes, latent))
    maps = {name: rng.normal(size=(latent, dim)) / latent**0.5 for name in ("a", "b")}
    arrays: dict[str, Any] = {}
    for split, least, each in (("train", 2000, 8), ("valid", 500, 2), ("test", 500, 2)):
        labels = np.arange(max(least, each * classes)) % classes
        shared = means[labels] + spread * rng.normal(size=(len(labels), latent))
        for name, map_ in maps.items():
            own = shared + spread * rng.normal(size=shared.shape)
            arrays[f"{split}_{name}"] = np.tanh(own @ map_) + 0.3 * rng.normal(size=(len(labels), dim))
        arrays[f"{split}_labels"] = labels
    return load_dataset({k: x.astype(np.float32) if x.ndim == 2 else x for k, x in arrays.items()})
