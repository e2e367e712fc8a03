"""The folder of a sweep: names of its runs, their folders, and its tables.

```
sweep.json      the runs: what all configurations share, and what differs in each
runs/NAME/      a folder per run, as of `mrl_jax.train`; of a complete run the best model is kept, not the state
sweep.csv       a row per run and direction
sweep.md        mean ± std over seeds per configuration, and the best by validation mAP
summary.json    the same as numbers
sweep.png       the same as a picture
```
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mrl_jax.config import Config
from mrl_jax.config_formats import format_of
from mrl_jax.errors import InputError
from mrl_jax.files import pretty_json, write_whole
from mrl_jax.options import FILE_FIELDS
from mrl_jax.run.run import RunFolder

if TYPE_CHECKING:
    from mrl_jax.sweep.results import Sweep

__all__ = ["AXES", "SweepFolder", "name_runs", "varied"]

AXES = ("loss", "noise_rate", "beta", "tau1", "tau2", "learning_rate", "seed")
"""What a run's name tells in any case."""

_SWEEP = "sweep.json"


def name_runs(configs: Sequence[Config], known: Mapping[str, Config]) -> dict[str, Config]:
    """Name -> configuration; a name tells every axis, and what else differs from the first configuration.

    Args:
        configs: the configurations.
        known: runs that have their names already; they come first. Their data may have moved.

    Raises:
        InputError: two are equal, or there is none.
    """
    named, given, found = dict(known), set[Config](), set[str]()
    for c in configs:
        if c in given:
            raise InputError(f"two runs of the sweep have the same configuration (seed {c.seed}); give each once")
        given.add(c)
        # The very same run, else the first of those that differ in the place of their data alone.
        same = [name for name, old in known.items() if old == c] or [
            name for name, old in known.items() if name not in found and _placeless(old) == _placeless(c)
        ]
        if same:
            named[same[0]] = c
            found.add(same[0])
            continue
        base, told = _stem(c)
        first = next(iter(named.values()), c)
        for f in fields(Config):
            value = getattr(c, f.name)
            if f.name not in (*told, *FILE_FIELDS) and value != getattr(first, f.name):
                base += f"-{f.name}_{'_'.join(map(str, value)) if isinstance(value, tuple) else value}"
        name, n = base, 2
        while name in named:  # they differ in files, or in digits that the name does not show
            name, n = f"{base}+{n}", n + 1
        named[name] = c
    if not named:
        raise InputError("a sweep needs at least one configuration")
    return named


def _stem(c: Config) -> tuple[str, tuple[str, ...]]:
    """The first part of a run's name, and the fields in it."""
    if c.method != "mrl":
        return f"{c.method}-noise{c.noise_rate:g}-seed{c.seed}", ("method", "noise_rate", "seed")
    numbers = f"noise{c.noise_rate:g}-beta{c.beta:g}-tau{_taus(c)}-lr{c.learning_rate:g}-seed{c.seed}"
    return f"{c.loss}-{numbers}", ("method", *AXES)


def _taus(c: Config) -> str:
    if c.tau1 is c.tau2 is None:
        return "auto"
    return "-".join("auto" if tau is None else f"{tau:g}" for tau in (c.tau1, c.tau2))


def _placeless(config: Config) -> Config:
    return replace(config, data_path=None)


class SweepFolder:
    """Paths and files of a sweep. Every file appears whole or not at all."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    @classmethod
    def refuse_occupied(cls, path: str | os.PathLike[str]) -> "SweepFolder":
        """Check that a new sweep may begin here, without writing.

        Raises:
            InputError: the folder holds anything, or is no folder.
        """
        if (Path(path) / _SWEEP).is_file():
            raise InputError(
                f"workdir {str(path)!r} already holds a sweep; --resume continues it; or name a new folder"
            )
        RunFolder.refuse_occupied(path)
        return cls(path)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "SweepFolder":
        """Open the folder of a sweep.

        Raises:
            InputError: no sweep lies there.
        """
        if not (Path(path) / _SWEEP).is_file():
            raise InputError(f"workdir {str(path)!r} holds no sweep ({_SWEEP} is missing); name the folder of a sweep")
        return cls(path)

    def configs(self) -> dict[str, Config]:
        """The runs by name.

        Raises:
            InputError: `sweep.json` is damaged, or a newer version wrote it.
        """
        content = RunFolder(self.path).read(_SWEEP)
        where = self.path / _SWEEP
        number = {"format": format_of(content, where)}
        try:
            runs = {str(name): {**content["common"], **own, **number} for name, own in content["runs"].items()}
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{where} is damaged ({error!r}); restore it or sweep anew") from error
        return {name: Config.from_json(values, where) for name, values in runs.items()}

    def lock(self) -> AbstractContextManager[None]:
        """Keep other processes from sweeping in this folder, which is made if it is not there.

        Raises:
            InputError: another process is at work here, or the folder cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"workdir {str(self.path)!r} cannot be written ({error.strerror}); name another folder"
            ) from error
        return RunFolder(self.path).lock()

    def write(self, named: Mapping[str, Config]) -> None:
        """Write `sweep.json`."""
        values = {name: config.to_json() for name, config in named.items()}
        first = next(iter(values.values()))
        common = {k: v for k, v in first.items() if all(x[k] == v for x in values.values())}
        runs = {name: {k: v for k, v in x.items() if k not in common} for name, x in values.items()}
        content = {"format": common.pop("format"), "common": common, "runs": runs}
        write_whole(self.path / _SWEEP, pretty_json(content) + "\n")

    def run(self, name: str, config: Config) -> RunFolder:
        """The folder of a run, made where it is not there yet."""
        path, part = self.path / "runs" / name, self.path / "runs" / f".{name}.part"
        if not path.exists():
            shutil.rmtree(part, ignore_errors=True)  # of a sweep that was killed
            RunFolder.create(part, config)
            part.rename(path)
        return RunFolder.open(path)

    def write_tables(self, found: "Sweep") -> None:
        """Write the tables of what is known so far; with the plot, which takes longest, if nothing is missing."""
        write_whole(self.path / "sweep.csv", found.csv())
        write_whole(self.path / "sweep.md", found.markdown() + "\n")
        summary = found.summary()
        write_whole(self.path / "summary.json", json.dumps(summary, indent=1) + "\n")
        if summary["cells"] and not summary["missing"]:
            found.plot(self.path / "sweep.png")


def varied(configs: Sequence[Config]) -> list[str]:
    """Fields in which configurations differ, axes first."""
    names = [*AXES, *(f.name for f in fields(Config) if f.name not in AXES)]
    values: dict[str, set[Any]] = {name: {getattr(c, name) for c in configs} for name in names}
    return [name for name in names if len(values[name]) > 1]
