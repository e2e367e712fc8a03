"""Runs that are kept: trained once, shared by all programs, never mixed with others.

Every program trains what is missing, and keeps it in `results/runs_SET.json`, one file per data set, after every
method; runs under way go on after their last checkpoints when a program that was killed is started again, and programs
that need the same runs share them. Every run tells its settings and machine.
"""

import argparse
import contextlib
import json
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.shared.command_line import settled
from experiments.shared.folders import RESULTS
from experiments.shared.machine import machine
from experiments.shared.protocol import BUDGET, KNOWN, RATES, TRIAL_SEED, DataSet, Method, find_sets
from experiments.shared.trained import trained
from mrl_jax import Config, InputError, grid
from mrl_jax.files import lock, write_whole

__all__ = ["Store", "alone", "best_setting", "read_results", "stores", "write_results"]

SETTINGS = ("loss", "beta", "tau1", "tau2", "schedule")


class Store:
    """The runs of a data set: settings tried, settings chosen, and what every seed found.

    Args:
        dataset: the data set.
        folder: where its file lies.
        train: whether runs that are missing are trained; else they are an error.
        seeds: how many.
        rates: noise rates.
        smoke: two trials are enough.
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
        self.kept: dict[str, Any] = {"set": {}, "machines": [], "methods": {}}
        if self._path.exists():
            self._read()

    def _read(self) -> None:
        self.kept = read_results(self._path, set=dict, machines=list, methods=dict)
        if self._train:
            self._refuse_other()

    def _refuse_other(self) -> None:
        """Runs of another configuration or of other data are not mixed with new ones."""
        now, then = self._described(), self.kept["set"]
        if odd := [name for name in now if now[name] != then.get(name)]:
            raise InputError(f"{self._path} holds runs with another {odd[0]}; move it away, or name another --out")

    @property
    def classes(self) -> int:
        """K, without the data where they were described before."""
        return int(self.kept["set"].get("classes") or self.dataset.data.num_classes)

    @property
    def layers(self) -> str:
        """Widths of its networks, in words, once there are runs."""
        config = self.kept["set"]["config"]
        return "layers " + "-".join(map(str, (*config["hidden_dims"], config["embed_dim"])))

    def setting(self, method: Method) -> str:
        """What was chosen for a method, in words."""
        chosen = self.kept["methods"][method.name]["chosen"]
        return ", ".join(f"{name} {value:g}" for name, value in chosen.items())

    def runs(self, method: Method) -> list[dict[str, Any]]:
        """Runs of a method at its chosen settings, a seed and noise rate each."""
        if "chosen" not in self._entry(method.name):
            self._refuse_training(method.name)
            with self._alone():
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
        """Runs of given configurations, with temperatures, kept under a name."""
        wanted = {_key(c.noise_rate, c.seed, _settings(c)): c for c in configs}
        if missing := [c for key, c in wanted.items() if key not in self._known(name)]:
            self._refuse_training(name, missing)
            with self._alone():
                if missing := [c for key, c in wanted.items() if key not in self._known(name)]:
                    with self._trained(name, missing) as found:
                        self._entry(name).setdefault("runs", []).extend(map(self._kept_run, found))
                        self._write()
        known = self._known(name)
        return [known[key] for key in wanted]

    def _entry(self, name: str) -> dict[str, Any]:
        return self.kept["methods"].setdefault(name, {})

    def _known(self, name: str) -> dict[str, dict[str, Any]]:
        return {_key(r["noise_rate"], r["seed"], r["settings"]): r for r in self._entry(name).get("runs", [])}

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """While runs are trained and written no other program does, and what others wrote before is known."""
        with alone(self._path):
            if self._path.exists():
                self._read()
            yield

    def _refuse_training(self, name: str, missing: Iterable[Config] = ()) -> None:
        """Where nothing is to be trained."""
        if not self._train:
            seeds = sorted({c.seed for c in missing})
            fewer = (
                f" for seeds {', '.join(map(str, seeds))}; give a smaller --seeds, or" if seeds and min(seeds) else ";"
            )
            raise InputError(f"{self._path} lacks runs of {name}{fewer} run without --from-results to train them")

    def _configs(self, method: Method) -> list[Config]:
        return grid(replace(self.dataset.config, loss=method.loss), noise_rate=self.rates, seed=list(range(self.seeds)))

    def _try(self, method: Method, entry: dict[str, Any]) -> None:
        """Try its settings, and choose."""
        settings = self._tried(method)
        base = replace(self.dataset.config, loss=method.loss, seed=TRIAL_SEED)
        rates = self.rates[0], self.rates[-1]
        configs = [replace(base, noise_rate=rate, **s) for s in settings for rate in rates]
        with self._trained(f"{method.name}, trials", configs) as found:
            valid = [round(r.scores["valid"]["best"]["average"], 5) for r in found]
            entry["trials"] = [{"settings": s, "valid": valid[2 * i : 2 * i + 2]} for i, s in enumerate(settings)]
            entry["chosen"] = best_setting(entry["trials"])
            self._write()

    def _tried(self, method: Method) -> list[dict[str, float]]:
        return method.trials()[:: 6 if self.smoke else 1]

    def _trained(self, what: str, configs: Sequence[Config]) -> contextlib.AbstractContextManager[list[Any]]:
        return trained(f"{self.dataset.name}, {what}", configs, self.dataset.data, self._path, not self.smoke)

    def _kept_run(self, run: Any) -> dict[str, Any]:
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
        """Place of this machine among those of the runs."""
        this = {**machine(["jax", "jaxlib", "flax", "optax", "numpy"]), "device": device}
        if this not in self.kept["machines"]:
            self.kept["machines"].append(this)
        return self.kept["machines"].index(this)

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
        self.kept["set"] = self._described()
        write_results(self._path, self.kept)


def stores(args: argparse.Namespace, suffix: str = "", **change: Any) -> list[Store]:
    """The data sets that the flags ask for, each with its runs.

    Args:
        args: flags of `program.parser`.
        suffix: of the names of their files.
        change: to the configuration of all runs.

    Raises:
        InputError: the flags, a data set or a file of results cannot be used.
    """
    settled(args)
    named = args.sets
    if args.from_results and not named:
        named = [name for name in KNOWN if (args.out / f"runs_{name}{suffix}.json").exists()]
        if not named:
            raise InputError(f"no results in {args.out}; run without --from-results to make them")
    sets = find_sets(named, args.views, args.smoke, not args.from_results, suffix, **change)
    return [Store(s, args.out, not args.from_results, args.seeds, RATES, args.smoke) for s in sets]


def best_setting(trials: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Of the settings tried the one with the highest mean validation mAP over the noise rates; the first of equals."""
    return dict(max(trials, key=lambda t: statistics.mean(t["valid"]))["settings"])


def read_results(path: Path, **parts: type) -> dict[str, Any]:
    """What a program kept.

    Args:
        path: of the file.
        parts: name -> type of what it must hold.

    Raises:
        InputError: it is damaged.
    """
    with contextlib.suppress(OSError, ValueError):
        kept = json.loads(path.read_text("utf-8"))
        if isinstance(kept, dict) and all(isinstance(kept.get(name), kind) for name, kind in parts.items()):
            return kept
    raise InputError(f"{path} is damaged; restore it, or move it away to train anew")


def write_results(path: Path, kept: Mapping[str, Any]) -> None:
    """Keep it, whole or not at all."""
    write_whole(path, json.dumps(kept, separators=(",", ":")) + "\n")


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """While one program trains for a file of results, no other does.

    Raises:
        InputError: another does.
    """
    with path.with_name(f".{path.name}.lock").open("w") as handle:
        lock(handle.fileno(), f"another program trains for {path}; wait until it is done")
        yield


def _settings(config: Config) -> dict[str, Any]:
    return {name: getattr(config, name) for name in SETTINGS}


def _key(rate: float, seed: int, settings: Mapping[str, Any]) -> str:
    return json.dumps([rate, seed, settings], sort_keys=True)
