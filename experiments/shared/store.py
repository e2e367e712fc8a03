"""Stored runs: trained once, shared by all programs, never mixed with runs of another configuration or other data.

Every program trains the runs that are missing and writes them to `results/runs_SET.json`, one file per data set, after
every method. A program that was killed continues its runs from their last checkpoints when it is started again.
Every run is stored with its settings and its machine. Settings in a file of an older format are read as this version
means them (`mrl_jax.config_formats`).
"""

import argparse
import contextlib
import json
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.shared.command_line import checked
from experiments.shared.folders import RESULTS
from experiments.shared.machine import machine
from experiments.shared.protocol import BUDGET, KNOWN, RATES, TRIAL_SEED, DataSet, Method, find_sets
from experiments.shared.trained import trained
from mrl_jax import Config, InputError, grid
from mrl_jax.config_formats import DEFAULTS, current_values, format_of
from mrl_jax.files import lock, write_atomically

__all__ = [
    "Store",
    "best_setting",
    "current_settings",
    "exclusive",
    "read_results",
    "same_config",
    "stored_sets",
    "stores",
    "write_results",
]

SETTINGS = ("loss", "beta", "tau1", "tau2", "schedule")
_FORMAT = "format"  # version of `Config.to_json`, no field


class Store:
    """The runs of a data set: settings tried, settings chosen, scores of every seed.

    Args:
        dataset: the data set.
        folder: folder of its file.
        train: whether missing runs are trained; else they are an error.
        seeds: number of seeds.
        rates: noise rates.
        smoke: try two settings only, and keep checkpoints in memory.
    """

    def __init__(
        self,
        dataset: DataSet,
        folder: Path = RESULTS,
        train: bool = True,
        seeds: int = 5,
        rates: Sequence[float] = RATES,
        smoke: bool = False,
    ) -> None:
        self.dataset, self.seeds, self.rates, self.smoke = dataset, seeds, tuple(rates), smoke
        self._train, self._path = train, folder / f"runs_{dataset.name}.json"
        self._content: dict[str, Any] = {"set": {}, "machines": [], "methods": {}}
        if self._path.exists():
            self._read()

    def _read(self) -> None:
        self._content = read_results(self._path, set=dict, machines=list, methods=dict)
        config = self._content["set"].get("config", {})
        for entry in self._content["methods"].values():
            for part in (*entry.get("trials", ()), *entry.get("runs", ())):
                part["settings"] = current_settings(part["settings"], config, self._path)
        if self._train:
            self._refuse_other()

    def _refuse_other(self) -> None:
        """Refuse to mix stored runs of another configuration or of other data with new ones."""
        now, stored = self._described(), self._content["set"]
        different = [name for name in now if name != "config" and now[name] != stored.get(name)]
        if fields := same_config(stored.get("config", {}), now["config"], self._path):
            different.insert(0, f"config ({', '.join(fields)})")
        if different:
            raise InputError(
                f"{self._path} holds runs with another {different[0]}; move it away, or name another --out"
            )

    @property
    def classes(self) -> int:
        """K, from the file where it is stored, else from the data."""
        return int(self._content["set"].get("classes") or self.dataset.data.num_classes)

    @property
    def layers(self) -> str:
        """Widths of the networks, in words, once there are runs."""
        config = self._content["set"]["config"]
        return "layers " + "-".join(map(str, (*config["hidden_dims"], config["embed_dim"])))

    def chosen(self, method: Method) -> dict[str, float]:
        """Settings that were chosen for a method whose runs are stored."""
        return dict(self._content["methods"][method.name]["chosen"])

    def setting(self, method: Method) -> str:
        """Settings that were chosen for a method, in words."""
        return ", ".join(f"{name} {value:g}" for name, value in self.chosen(method).items())

    def runs(self, method: Method) -> list[dict[str, Any]]:
        """Runs of a method at its chosen settings, one per seed and noise rate."""
        if "chosen" not in self._entry(method.name):
            self._refuse_training(method.name)
            with self._exclusive():
                entry = self._entry(method.name)
                if "chosen" not in entry:
                    self._try(method, entry)
        entry = self._entry(method.name)
        if self._train and [t["settings"] for t in entry["trials"]] != self._tried(method):
            raise InputError(
                f"{self._path} holds {method.name} chosen from other trials; move it away, or name another --out"
            )
        return self.fixed(method.name, [replace(c, **entry["chosen"]) for c in self._configs(method)])

    def fixed(self, name: str, configs: Iterable[Config]) -> list[dict[str, Any]]:
        """Runs of given configurations, with temperatures, stored under a name."""
        wanted = {_key(c.noise_rate, c.seed, _settings(c)): c for c in configs}
        if missing := [c for key, c in wanted.items() if key not in self._stored(name)]:
            self._refuse_training(name, missing)
            with self._exclusive():
                if missing := [c for key, c in wanted.items() if key not in self._stored(name)]:
                    with self._trained(name, missing) as runs:
                        self._entry(name).setdefault("runs", []).extend(map(self._summary, runs))
                        self._write()
        stored = self._stored(name)
        return [stored[key] for key in wanted]

    def available(self, name: str, wanted: Sequence[Config], earlier: Sequence[Config]) -> Sequence[Config]:
        """`wanted`, or `earlier` where nothing may be trained, runs of `wanted` are missing and `earlier` is complete.

        Args:
            name: name under which `fixed` stores the runs.
            wanted: configurations.
            earlier: the same with a value that an earlier version used.
        """
        stored = self._stored(name)

        def complete(configs: Sequence[Config]) -> bool:
            return all(_key(c.noise_rate, c.seed, _settings(c)) in stored for c in configs)

        return earlier if not self._train and not complete(wanted) and complete(earlier) else wanted

    def _entry(self, name: str) -> dict[str, Any]:
        return self._content["methods"].setdefault(name, {})

    def _stored(self, name: str) -> dict[str, dict[str, Any]]:
        return {_key(r["noise_rate"], r["seed"], r["settings"]): r for r in self._entry(name).get("runs", [])}

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Keep other programs from training for this file, and read what they wrote before."""
        with exclusive(self._path):
            if self._path.exists():
                self._read()
            yield

    def _refuse_training(self, name: str, missing: Iterable[Config] = ()) -> None:
        """Raise where nothing may be trained."""
        if not self._train:
            seeds = sorted({c.seed for c in missing})
            fewer = (
                f" for seeds {', '.join(map(str, seeds))}; give a smaller --seeds, or" if seeds and min(seeds) else ";"
            )
            raise InputError(f"{self._path} lacks runs of {name}{fewer} run without --from-results to train them")

    def _configs(self, method: Method) -> list[Config]:
        return grid(replace(self.dataset.config, loss=method.loss), noise_rate=self.rates, seed=list(range(self.seeds)))

    def _try(self, method: Method, entry: dict[str, Any]) -> None:
        """Try the settings of a method, and choose one."""
        settings = self._tried(method)
        base = replace(self.dataset.config, loss=method.loss, seed=TRIAL_SEED)
        rates = self.rates[0], self.rates[-1]
        configs = [replace(base, noise_rate=rate, **s) for s in settings for rate in rates]
        with self._trained(f"{method.name}, trials", configs) as runs:
            valid = [round(r.scores["valid"]["best"]["average"], 5) for r in runs]
            entry["trials"] = [{"settings": s, "valid": valid[2 * i : 2 * i + 2]} for i, s in enumerate(settings)]
            entry["chosen"] = best_setting(entry["trials"])
            self._write()

    def _tried(self, method: Method) -> list[dict[str, float]]:
        return method.trials()[:: 6 if self.smoke else 1]

    def _trained(self, what: str, configs: Sequence[Config]) -> contextlib.AbstractContextManager[list[Any]]:
        return trained(f"{self.dataset.name}, {what}", configs, self.dataset.data, self._path, not self.smoke)

    def _summary(self, run: Any) -> dict[str, Any]:
        """What is stored of a run."""
        scores, config = run.scores, run.config
        curves = {
            kind: {
                name: [round(line["valid"][kind][name], 5) for line in run.metrics]
                for name in run.metrics[0]["valid"][kind]
            }
            for kind in ("map", "accuracy")
        }
        return {
            "noise_rate": config.noise_rate,
            "seed": config.seed,
            "settings": _settings(config),
            "machine": self._machine(scores["device"]),
            "test": scores["test"],
            "valid": scores["valid"],
            "wrong_share": scores["wrong_share"],
            "seconds": scores["seconds"],
            "valid_curves": curves,
        }

    def _machine(self, device: str) -> int:
        """Index of this machine in the list of machines."""
        this = {**machine(["jax", "jaxlib", "flax", "optax", "numpy"]), "device": device}
        if this not in self._content["machines"]:
            self._content["machines"].append(this)
        return self._content["machines"].index(this)

    def _described(self) -> dict[str, Any]:
        data = self.dataset.data
        config = {k: v for k, v in self.dataset.config.to_json().items() if k != "data_path"}
        return {
            "name": self.dataset.name,
            "classes": data.num_classes,
            "sizes": {name: len(split) for name, split in data.splits.items()},
            "sha256": data.digest(),
            "config": config,
            "budget": BUDGET,
            "trial_seed": TRIAL_SEED,
            "trial_rates": [self.rates[0], self.rates[-1]],
        }

    def _write(self) -> None:
        self._content["set"] = self._described()
        write_results(self._path, self._content)


def stores(args: argparse.Namespace, suffix: str = "", **change: Any) -> list[Store]:
    """The stored runs of every data set that the flags name.

    Args:
        args: flags of `command_line.parser`.
        suffix: appended to the names of the files.
        change: fields of the configuration that differ from the preset in all runs.

    Raises:
        InputError: the flags, a data set or a file of results cannot be used.
    """
    checked(args)
    named = args.sets
    if args.from_results and not named:
        named = [name for name in KNOWN if (args.out / f"runs_{name}{suffix}.json").exists()]
        if not named:
            raise InputError(f"no results in {args.out}; run without --from-results to make them")
    sets = find_sets(named, args.views, args.smoke, not args.from_results, suffix, **change)
    return [Store(s, args.out, not args.from_results, args.seeds, RATES, args.smoke) for s in sets]


def same_config(stored: Mapping[str, Any], now: Mapping[str, Any], source: str | Path) -> list[str]:
    """Compare a stored configuration with one of today, both as `Config.to_json` writes them.

    A field that is missing stands for the default of the format that the configuration has.

    Args:
        stored: the configuration in a file of results.
        now: the configuration of the runs that are wanted.
        source: the file, for messages.

    Returns:
        Names of the fields that differ, or that are stored and unknown today; empty if the configurations are the same.

    Raises:
        InputError: a newer version wrote the file.
    """
    fields = DEFAULTS[format_of(stored, source)]
    unknown = [name for name in stored if name not in fields and name != _FORMAT]
    before = current_values({name: value for name, value in stored.items() if name not in unknown}, source)
    today = current_values(now, source)
    return [*(name for name in today if today[name] != before[name]), *unknown]


def current_settings(settings: Mapping[str, Any], config: Mapping[str, Any], source: str | Path) -> dict[str, Any]:
    """Stored settings, some fields of `Config`, as this version means them.

    Args:
        settings: field -> value.
        config: the configuration that is stored with them; it has the number of the format.
        source: the file, for messages.

    Raises:
        InputError: a newer version wrote the file, or a field is unknown.
    """
    values = current_values({**settings, _FORMAT: format_of(config, source)}, source)
    return {name: values[name] for name in settings}


def best_setting(trials: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The setting with the highest mean validation mAP over the noise rates; the first one of a tie."""
    return dict(max(trials, key=lambda t: statistics.mean(t["valid"]))["settings"])


def read_results(path: Path, **parts: type) -> dict[str, Any]:
    """Read a file of results.

    Args:
        path: the file.
        parts: name -> type of a part that the file must have.

    Raises:
        InputError: the file is damaged.
    """
    with contextlib.suppress(OSError, ValueError):
        content = json.loads(path.read_text("utf-8"))
        if isinstance(content, dict) and all(isinstance(content.get(name), kind) for name, kind in parts.items()):
            return content
    raise InputError(f"{path} is damaged; restore it, or move it away to train anew")


def stored_sets(path: Path) -> dict[str, Any]:
    """The sets in a file of results, for --from-results.

    Raises:
        InputError: the file does not exist, or is damaged.
    """
    if not path.exists():
        raise InputError(f"no results in {path}; run without --from-results to make them")
    return dict(read_results(path, sets=dict)["sets"])


def write_results(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file of results, atomically."""
    write_atomically(path, json.dumps(content, separators=(",", ":")) + "\n")


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Keep other programs from training for a file of results.

    Raises:
        InputError: another program trains for it.
    """
    with path.with_name(f".{path.name}.lock").open("w") as handle:
        lock(handle.fileno(), f"another program trains for {path}; wait until it is done")
        yield


def _settings(config: Config) -> dict[str, Any]:
    return {name: getattr(config, name) for name in SETTINGS}


def _key(rate: float, seed: int, settings: Mapping[str, Any]) -> str:
    return json.dumps([rate, seed, settings], sort_keys=True)
