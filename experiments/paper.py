"""What the programs of the paper's tables and figures share: data sets, methods, choice of settings, results.

Every program trains what is missing, and keeps it in `results/runs_SET.json`, one file per data set, after every
method: a program that was stopped goes on, and programs that need the same runs share them. Every run tells its
settings and machine.

Settings are chosen on validation mAP, with the same number of trials for every method: `BUDGET` values of its
temperature for a method of one loss, as many combinations of beta and temperature (tau1 = tau2) for one of both. A
trial is a run at the lowest and at the highest noise rate, with a seed that no result uses; the setting with the best
mean is taken for all rates.
"""

import argparse
import contextlib
import csv
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from machine import machine

from mrl_jax import Config, InputError, grid, load_dataset, preset, sweep
from mrl_jax.data.dataset import Dataset
from mrl_jax.data.prepared import copies
from mrl_jax.files import lock, write_whole

__all__ = [
    "BUDGET",
    "RATES",
    "DataSet",
    "Method",
    "Store",
    "find_sets",
    "main_of",
    "parser",
    "published",
    "read_results",
    "settled",
    "stores",
]

HERE = Path(__file__).parent
RESULTS = HERE / "results"
RATES = (0.2, 0.4, 0.6, 0.8)
BUDGET = 9
TRIAL_SEED = 1000
TAUS = (0.07, 0.11, 0.18, 0.28, 0.45, 0.7, 1.1, 1.8, 2.8)
BOTH = {"beta": (0.5, 0.8, 0.95), "tau": (0.25, 0.5, 1.0)}
PUBLISHED_SETS = ("wikipedia", "inria-websearch", "nus-wide", "xmedianet")
KNOWN = ("emoji", "wikipedia-views", *PUBLISHED_SETS)
VIEWS = ("image_cnn", "text_vec")
SMALL: dict[str, Any] = {"hidden_dims": (256, 256), "embed_dim": 128, "learning_rate": 2e-4}
"""Layers of the studies of many settings."""
SETTINGS = ("loss", "beta", "tau1", "tau2", "schedule")
SMOKE: dict[str, Any] = {"hidden_dims": (16,), "embed_dim": 8, "epochs": 2, "batch_size": 400}


@dataclass(frozen=True)
class Method:
    """A loss to compare.

    Attributes:
        name: in tables.
        loss: the clustering loss.
        clustering: whether it has one.
        contrastive: whether it has the contrastive loss.
        published: name of its row in published.csv, if there is one.
    """

    name: str
    loss: str = "rc"
    clustering: bool = True
    contrastive: bool = True
    published: str | None = None

    def trials(self) -> list[dict[str, float]]:
        """`BUDGET` settings."""
        if self.clustering and self.contrastive:
            return [{"beta": b, "tau1": t, "tau2": t} for b in BOTH["beta"] for t in BOTH["tau"]]
        if self.clustering:
            return [{"beta": 1.0, "tau1": t, "tau2": 1.0} for t in TAUS]  # tau2 has no effect
        return [{"beta": 0.0, "tau1": 1.0, "tau2": t} for t in TAUS]


MRL = Method("MRL", published="MRL")
CE = Method("CE", "ce", contrastive=False, published="deep-SM")
ABLATION = (
    replace(CE, published="CE"),
    Method("MRL (Lr only)", contrastive=False, published="MRL (Lr only)"),
    Method("MRL (Lc only)", clustering=False, published="MRL (Lc only)"),
    MRL,
)


@dataclass(frozen=True)
class DataSet:
    """A data set and the configuration of its runs, but for method, noise and seed.

    Attributes:
        name: of its results.
        title: in tables.
        config: of all runs.
        source: what `load_dataset` takes.
    """

    name: str
    title: str
    config: Config
    source: str

    @cached_property
    def data(self) -> Dataset:
        """The data, loaded once."""
        return load_dataset(self.source, self.config.modalities)

    @property
    def published(self) -> str:
        """Its name in published.csv."""
        return self.name.removesuffix("-views").replace("-", "_")


def find_sets(names: Sequence[str] | None, views: str | None, smoke: bool, on_disk: bool = True) -> list[DataSet]:
    """The data sets to work on.

    Args:
        names: which; None: emoji, the views if given, and of the published sets those that are prepared.
        views: file of the Wikipedia pairs with reduced features.
        smoke: tiny networks, few epochs.
        on_disk: whether they are needed.

    Raises:
        InputError: one that was named is unknown, or not on disk; one that is there is damaged.
    """
    change: dict[str, Any] = SMOKE if smoke else {}
    custom = {"modalities": VIEWS, **change}
    found = []
    for name in names or ("emoji", *(("wikipedia-views",) if views else ()), *PUBLISHED_SETS):
        if name == "wikipedia-views":
            if views is None and on_disk:
                raise InputError("the set wikipedia-views needs --views FILE")
            path = os.path.abspath(views or "")
            found.append(DataSet(name, "Wikipedia, reduced features", preset("custom", **custom), path))
            continue
        if name not in ("emoji", *PUBLISHED_SETS):
            raise InputError(f"unknown set {name!r}; choose from {', '.join(KNOWN)}")
        if on_disk and not names and name in PUBLISHED_SETS and not copies(name):
            continue
        if on_disk:
            load_dataset(name)
        found.append(DataSet(name, name, preset(name, **change), name))
    return found


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
            self.kept = read_results(self._path)
            if train:
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
            with self._alone(method.name):
                entry = self._entry(method.name)
                if "chosen" not in entry:
                    entry["trials"] = self._trials(method)
                    entry["chosen"] = best_setting(entry["trials"])
                    self._write()
        entry = self._entry(method.name)
        if self._train and [t["settings"] for t in entry["trials"]] != self._tried(method):
            raise InputError(
                f"{self._path} holds {method.name} chosen from other trials; move it away, or name another --out"
            )
        return self.fixed(method.name, [replace(c, **entry["chosen"]) for c in self._configs(method)])

    def fixed(self, name: str, configs: Iterable[Config]) -> list[dict[str, Any]]:
        """Runs of given configurations, with temperatures, kept under a name."""
        wanted = {_key(c.noise_rate, c.seed, _settings(c)): c for c in configs}
        if not wanted.keys() <= self._known(name).keys():
            with self._alone(name):
                missing = [c for key, c in wanted.items() if key not in self._known(name)]
                if missing:
                    found = self._sweep(f"{self.dataset.name}, {name}", missing)
                    self._entry(name).setdefault("runs", []).extend(map(self._kept_run, found))
                    self._write()
        known = self._known(name)
        return [known[key] for key in wanted]

    def _entry(self, name: str) -> dict[str, Any]:
        return self.kept["methods"].setdefault(name, {})

    def _known(self, name: str) -> dict[str, dict[str, Any]]:
        return {_key(r["noise_rate"], r["seed"], r["settings"]): r for r in self._entry(name).get("runs", [])}

    @contextlib.contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        """While runs are trained and written no other program does, and what others wrote before is known."""
        if not self._train:
            raise InputError(f"{self._path} lacks runs of {name}; run without --from-results to train them")
        with self._path.with_name(f".{self._path.name}.lock").open("w") as handle:
            lock(handle.fileno(), f"another program trains for {self._path}; wait until it is done")
            if self._path.exists():
                self.kept = read_results(self._path)
            yield

    def _configs(self, method: Method) -> list[Config]:
        return grid(replace(self.dataset.config, loss=method.loss), noise_rate=self.rates, seed=list(range(self.seeds)))

    def _trials(self, method: Method) -> list[dict[str, Any]]:
        settings = self._tried(method)
        base = replace(self.dataset.config, loss=method.loss, seed=TRIAL_SEED)
        rates = self.rates[0], self.rates[-1]
        configs = [replace(base, noise_rate=rate, **s) for s in settings for rate in rates]
        found = self._sweep(f"{self.dataset.name}, {method.name}, trials", configs)
        valid = [round(r.scores["valid"]["best"]["average"], 5) for r in found]
        return [{"settings": s, "valid": valid[2 * i : 2 * i + 2]} for i, s in enumerate(settings)]

    def _tried(self, method: Method) -> list[dict[str, float]]:
        return method.trials()[:: 6 if self.smoke else 1]

    def _sweep(self, what: str, configs: Sequence[Config]) -> list[Any]:
        print(f"{what}: {len(configs)} runs", file=sys.stderr, flush=True)
        found = sweep(configs, data=self.dataset.data, progress=True)
        if found.failed:
            name, why = next(iter(found.failed.items()))
            raise SystemExit(f"{name}: {why}")
        return list(found.runs.values())

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


def read_results(path: Path) -> dict[str, Any]:
    """What a program kept.

    Raises:
        InputError: it is damaged.
    """
    try:
        kept = json.loads(path.read_text("utf-8"))
        if isinstance(kept, dict):
            return kept
    except (OSError, ValueError):
        pass
    raise InputError(f"{path} is damaged; restore it, or move it away to train anew")


def write_results(path: Path, kept: Mapping[str, Any]) -> None:
    """Keep it, whole or not at all."""
    write_whole(path, json.dumps(kept, separators=(",", ":")) + "\n")


def _settings(config: Config) -> dict[str, Any]:
    return {name: getattr(config, name) for name in SETTINGS}


def _key(rate: float, seed: int, settings: Mapping[str, Any]) -> str:
    return json.dumps([rate, seed, settings], sort_keys=True)


def best_setting(trials: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Of the settings tried the one with the highest mean validation mAP over the noise rates; the first of equals."""
    return dict(max(trials, key=lambda t: statistics.mean(t["valid"]))["settings"])


def published(table: int, dataset: str, method: str | None, direction: int, rate: float) -> float | None:
    """A cell of the paper; the full method of its ablation, Table 3, stands in Table 1.

    Args:
        table: number of the table.
        dataset: name in published.csv.
        method: name of the row.
        direction: 0 image to text, 1 text to image.
        rate: noise rate.
    """
    names = ("image_to_text", "text_to_image")
    with (HERE / "published.csv").open(newline="") as file:
        cells = {
            (int(r["table"]), r["dataset"], r["method"], r["direction"], float(r["noise_rate"])): float(r["map"])
            for r in csv.DictReader(file)
        }
    where = dataset, str(method), names[direction], rate
    return cells.get((table, *where), cells.get((1, *where)) if table == 3 else None)


def parser(doc: str | None, sets: bool = True, seeds: bool = True) -> argparse.ArgumentParser:
    """The flags that all programs have, but for those of sets and seeds where it has none to choose."""
    flags = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.set_defaults(seeds=5)
    if sets:
        flags.add_argument("--sets", nargs="+", metavar="NAME", help="default: emoji, and all that are on disk")
        flags.add_argument(
            "--views", metavar="FILE", help="Wikipedia pairs with reduced features: wikipedia_4views.npz"
        )
    if seeds:
        flags.add_argument("--seeds", type=int, help="default: 5")
    flags.add_argument("--from-results", action="store_true", help="rebuild from the kept runs; train nothing")
    flags.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    flags.add_argument("--smoke", action="store_true", help="tiny networks, two seeds, results in a temporary folder")
    return flags


def settled(args: argparse.Namespace) -> argparse.Namespace:
    """The flags, with the folder made, and with `--smoke` small and elsewhere."""
    if args.smoke and args.out == RESULTS:
        if args.from_results:
            raise InputError("--smoke keeps its results in a temporary folder; name it with --out FOLDER")
        args.out = Path(tempfile.mkdtemp())
        print(f"results in {args.out}", file=sys.stderr)
    if args.smoke:
        args.seeds = 2
    if args.seeds < 1:
        raise InputError(f"--seeds {args.seeds}: must be at least 1")
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {args.out} cannot be made ({error.strerror}); name another folder") from error
    return args


def stores(args: argparse.Namespace) -> list[Store]:
    """The data sets that the flags ask for, each with its runs."""
    settled(args)
    named = args.sets
    if args.from_results and not named:
        named = [p.stem.removeprefix("runs_") for p in sorted(args.out.glob("runs_*.json"))]
        named = [name for name in named if name in KNOWN]  # not those of noisy_label_losses.py
        if not named:
            raise InputError(f"no results in {args.out}; run without --from-results to make them")
    sets = find_sets(named, args.views, args.smoke, not args.from_results)
    return [Store(s, args.out, not args.from_results, args.seeds, RATES, args.smoke) for s in sets]


def main_of(program: Callable[[Sequence[str] | None], None]) -> None:
    """Run a program; bad input is one line."""
    try:
        program(None)
        sys.stdout.flush()
    except InputError as error:
        raise SystemExit(f"error: {error}") from None
    except BrokenPipeError:  # the reader of the table, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
