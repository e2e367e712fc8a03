"""Sets of the studies, and scores of many settings on them: trained once per set, never mixed with other grids."""

import argparse
import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from experiments.shared.machine import machine
from experiments.shared.protocol import EARLIER, SMALL, SMOKE, VIEWS
from experiments.shared.store import current_settings, exclusive, read_results, same_config, write_results
from experiments.shared.trained import trained
from mrl_jax import Config, InputError, load_dataset
from mrl_jax.data.dataset import Dataset
from mrl_jax.data.emoji.load import load_records

__all__ = ["SETS", "Setting", "audited_sets", "epochs_of", "load_set", "mean_of", "studied"]

SETS = (
    "emoji, emoji-31 (its subgroups), emoji-no-flags, emoji-900 (900 training instances), emoji-split-1 to 9 (other "
    "splits), generated-K (K classes), wikipedia-views and wikipedia-4views where --views is given"
)
MIN_MEMBERS = 20  # of a subgroup of emoji
SMALL_TRAIN = 900  # training instances of emoji-900
EPOCHS, OTHER_EPOCHS = 20, 30  # of the sets that are made from emoji, and of others
_MIN_CLASSES = 5  # with fewer, the temperature does not depend on their number
GENERATED = {"train": (2000, 8), "valid": (500, 2), "test": (500, 2)}
"""Split -> instances of a generated set, at least so many and so many per class."""
Setting = Mapping[str, Any]


def studied(
    args: argparse.Namespace,
    stem: str,
    sets: Sequence[str],
    settings_of: Callable[[int], Sequence[Setting]],
    rates: Sequence[float],
    seeds: Sequence[int],
) -> dict[str, Any]:
    """Scores of every setting on every set, with small networks; `STEM.json` is written after every set.

    Args:
        args: flags of `command_line.parser`.
        stem: name of the file, without suffix.
        sets: names of the sets, where the flags give none.
        settings_of: number of classes -> fields of `Config` to try.
        rates: noise rates.
        seeds: seeds that no result uses.

    Returns:
        set -> classes, settings, and validation and test mAP [setting][rate][seed].

    Raises:
        InputError: a set is unknown; the file holds another grid, or lacks a set; another program trains for it.
    """
    path, names = args.out / f"{stem}.json", args.sets or sets
    if args.from_results:
        return _read(path, args.sets, settings_of)
    data = {name: load_set(name, args.views) for name in names}  # errors in the data are raised before training
    with exclusive(path):
        content: dict[str, Any] = read_results(path, sets=dict) if path.exists() else {"sets": {}}
        for name in names:
            config = Config(modalities=data[name].modalities, **SMALL, epochs=epochs_of(name))
            config = replace(config, **SMOKE) if args.smoke else config
            wanted = {
                "classes": data[name].num_classes,
                "sha256": data[name].digest(),
                "config": config.to_json(),
                "settings": list(settings_of(data[name].num_classes)),
                "rates": list(rates),
                "seeds": list(seeds),
            }
            stored = content["sets"].get(name)
            if stored is None:
                configs = _configs(config, wanted)
                unique = list(dict.fromkeys(configs))  # two rules may give the same temperature
                with trained(name, unique, data[name], path, not args.smoke) as runs:
                    of_config = dict(zip(unique, (run.scores for run in runs), strict=True))
                    content["sets"][name] = {**wanted, **_summary(wanted, [of_config[c] for c in configs])}
                    write_results(path, content)
            elif different := _differences(_current(stored, path), wanted, path):
                raise InputError(f"{path} holds {name} with other {different[0]}; move it away, or name another --out")
    return {name: _current(content["sets"][name], path) for name in names}


def _current(of_set: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """A stored set with its settings as this version means them."""
    config = of_set.get("config", {})
    return {**of_set, "settings": [current_settings(s, config, path) for s in of_set.get("settings", ())]}


def _earlier(settings: Iterable[Setting]) -> list[Setting]:
    """Settings with the earlier form of their schedule."""
    return [{name: EARLIER.get(v, v) if name == "schedule" else v for name, v in s.items()} for s in settings]


def _differences(stored: Mapping[str, Any], wanted: Mapping[str, Any], path: Path) -> list[str]:
    """Parts of a stored set that are not as wanted."""
    fields = same_config(stored.get("config", {}), wanted["config"], path)
    others = [key for key, value in wanted.items() if key != "config" and stored.get(key) != value]
    return [*others, *([f"config ({', '.join(fields)})"] if fields else [])]


def _read(path: Path, names: Sequence[str] | None, settings_of: Callable[[int], Sequence[Setting]]) -> dict[str, Any]:
    """Stored scores of some sets, or of all."""
    sets = read_results(path, sets=dict)["sets"] if path.exists() else {}
    sets = {name: _current(of_set, path) for name, of_set in sets.items()}
    if missing := [name for name in names or () if name not in sets]:
        raise InputError(f"{path} lacks {missing[0]}; run without --from-results to train it")
    if not sets:
        raise InputError(f"no results in {path}; run without --from-results to make them")
    earlier = {}  # set -> whether it has the earlier form of a schedule, and only that
    for name, of_set in sets.items():
        wanted = list(settings_of(of_set.get("classes", 0)))
        if of_set["settings"] not in (wanted, _earlier(wanted)):
            raise InputError(f"{path} holds {name} with other settings; give --smoke if they are of a smoke run")
        earlier[name] = of_set["settings"] != wanted
    chosen = {name: sets[name] for name in names or sets}
    if len({earlier[name] for name in chosen}) > 1:
        old = ", ".join(name for name in chosen if earlier[name])
        raise InputError(
            f"{path} holds {old} with an earlier form of a schedule; name the sets of one form with --sets"
        )
    return chosen


def mean_of(scores: Mapping[str, Any], index: int, rate: int | None = None, split: str = "valid") -> float:
    """mAP of a setting, the mean over seeds, at one rate or over all."""
    at = scores[split][index]
    return statistics.mean(value for seeds in (at if rate is None else [at[rate]]) for value in seeds)


def _configs(config: Config, wanted: Mapping[str, Any]) -> list[Config]:
    return [
        replace(config, **setting, noise_rate=rate, seed=seed)
        for setting in wanted["settings"]
        for rate in wanted["rates"]
        for seed in wanted["seeds"]
    ]


def _summary(wanted: Mapping[str, Any], scores: Sequence[Any]) -> dict[str, Any]:
    """What is stored of the scores of all configurations."""
    shape = len(wanted["settings"]), len(wanted["rates"]), len(wanted["seeds"])
    maps = {
        split: np.round([s[split]["best"]["average"] for s in scores], 5).reshape(shape).tolist()
        for split in ("valid", "test")
    }
    return {**maps, "machine": {**machine(["jax", "jaxlib", "numpy"]), "device": scores[0]["device"]}}


def epochs_of(name: str) -> int:
    """Number of epochs on a set of the studies."""
    return EPOCHS if name.partition("-")[0] == "emoji" else OTHER_EPOCHS


def load_set(name: str, views: str | None) -> Dataset:
    """Load a set of the studies.

    Args:
        name: "emoji"; "emoji-31", its subgroups; "emoji-no-flags", without the class of flags, whose names all contain
            "flag"; "emoji-900", with 900 of its training instances; "emoji-split-S", its split of seed S, 1 to 9;
            "wikipedia-views", two views of the pairs, or "wikipedia-4views", all four as modalities; or "generated-K".
        views: file of the Wikipedia pairs, or None.

    Raises:
        InputError: the set is unknown, or its file is not given.
    """
    if name == "emoji":
        return load_dataset("emoji", ("image", "text"))
    if name == "emoji-31":
        return _subgroups()
    if name == "emoji-no-flags":
        return _without_flags()
    if name == "emoji-900":
        return _small()
    if re.fullmatch("emoji-split-[1-9]", name):
        return load_dataset("emoji", ("image", "text"), split_seed=int(name[-1]))
    if name in ("wikipedia-views", "wikipedia-4views"):
        if views is None:
            raise InputError(f"the set {name} needs --views FILE")
        return load_dataset(views, VIEWS if name == "wikipedia-views" else ())
    kind, _, classes = name.partition("-")
    if kind == "generated" and classes.isdigit() and int(classes) >= _MIN_CLASSES:
        return _generated(int(classes))
    raise InputError(
        f"unknown set {name!r}; choose from emoji, emoji-31, emoji-no-flags, emoji-900, emoji-split-1 to 9, "
        f"wikipedia-views, wikipedia-4views and generated-K, K at least {_MIN_CLASSES}"
    )


def audited_sets(args: argparse.Namespace) -> list[str]:
    """The sets of the studies of the audit, where the flags name none."""
    return ["emoji", *(["wikipedia-views"] if args.views and not args.smoke else [])]


def _subgroups() -> Dataset:
    """Emoji with those Unicode subgroups as classes that have enough members."""
    whole = load_dataset("emoji", ("image", "text"))
    names = {split: np.array([r["subgroup"] for r in load_records(split)]) for split in whole.splits}
    counts = Counter(name for of_split in names.values() for name in of_split.tolist())
    classes = sorted(name for name, count in counts.items() if count >= MIN_MEMBERS)
    arrays: dict[str, Any] = {}
    for split, of_split in names.items():
        rows = np.isin(of_split, classes)
        arrays |= {f"{split}_{m}": whole.splits[split].features[m][rows] for m in whole.modalities}
        arrays[f"{split}_labels"] = np.searchsorted(classes, of_split[rows])
    return load_dataset(arrays)


def _without_flags() -> Dataset:
    """Emoji without the class of flags, its last; the other rows are in the splits of the whole set."""
    whole = load_dataset("emoji", ("image", "text"))
    flags = whole.num_classes - 1
    arrays: dict[str, Any] = {"class_names": whole.class_names[:flags]}
    for name, split in whole.splits.items():
        rows = split.labels["image"] != flags
        arrays |= {f"{name}_{m}": split.features[m][rows] for m in whole.modalities}
        arrays[f"{name}_labels"] = split.labels["image"][rows]
    return load_dataset(arrays)


def _small() -> Dataset:
    """Emoji with 900 training instances, drawn once; the other splits are whole."""
    whole = load_dataset("emoji", ("image", "text"))
    arrays: dict[str, Any] = {"class_names": whole.class_names}
    for name, split in whole.splits.items():
        drawn = np.random.default_rng(0).permutation(len(split))[:SMALL_TRAIN] if name == "train" else slice(None)
        arrays |= {f"{name}_{m}": split.features[m][drawn] for m in whole.modalities}
        arrays[f"{name}_labels"] = split.labels["image"][drawn]
    return load_dataset(arrays)


def _generated(classes: int, latent: int = 32, dim: int = 64, spread: float = 0.8) -> Dataset:
    """Gaussian clusters in a latent space; each modality is a random linear map of it, then tanh, then noise."""
    rng = np.random.default_rng(classes)
    means = rng.normal(size=(classes, latent))
    maps = {name: rng.normal(size=(latent, dim)) / latent**0.5 for name in ("a", "b")}
    arrays: dict[str, Any] = {}
    for split, (least, each) in GENERATED.items():
        labels = np.arange(max(least, each * classes)) % classes
        shared = means[labels] + spread * rng.normal(size=(len(labels), latent))
        for name, map_ in maps.items():
            own = shared + spread * rng.normal(size=shared.shape)
            arrays[f"{split}_{name}"] = np.tanh(own @ map_) + 0.3 * rng.normal(size=(len(labels), dim))
        arrays[f"{split}_labels"] = labels
    return load_dataset({k: x.astype(np.float32) if x.ndim == 2 else x for k, x in arrays.items()})
