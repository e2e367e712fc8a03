"""Names of the runs of a sweep, and the fields in which they differ."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from mrl_jax.config import Config
from mrl_jax.errors import InputError
from mrl_jax.methods.registry import entry_of
from mrl_jax.options import FILE_FIELDS

__all__ = ["AXES", "name_runs", "varied"]

AXES = ("loss", "noise_rate", "beta", "tau1", "tau2", "learning_rate", "seed")
"""Fields that the name of a run of MRL always contains, and columns that `sweep.csv` always has."""


def name_runs(configs: Sequence[Config], known: Mapping[str, Config]) -> dict[str, Config]:
    """Name the runs of a sweep: the axes, and what else differs from the first configuration.

    Args:
        configs: the configurations.
        known: runs that have names already; they come first. Their data may have moved.

    Returns:
        Name -> configuration.

    Raises:
        InputError: two configurations are equal, or there is none.
    """
    named, given, matched = dict(known), set[Config](), set[str]()
    for c in configs:
        if c in given:
            raise InputError(f"two runs of the sweep have the same configuration (seed {c.seed}); give each once")
        given.add(c)
        # The very same run, else the first of those that differ only in the path of their data.
        same = [name for name, old in known.items() if old == c] or [
            name for name, old in known.items() if name not in matched and _without_path(old) == _without_path(c)
        ]
        if same:
            named[same[0]] = c
            matched.add(same[0])
            continue
        base = _name(c, next(iter(named.values()), c))
        name, n = base, 2
        while name in named:  # they differ in files, or in digits that the name does not show
            name, n = f"{base}+{n}", n + 1
        named[name] = c
    if not named:
        raise InputError("a sweep needs at least one configuration")
    return named


def varied(configs: Sequence[Config]) -> list[str]:
    """Fields in which configurations differ, axes first."""
    names = [*AXES, *(f.name for f in fields(Config) if f.name not in AXES)]
    values: dict[str, set[Any]] = {name: {getattr(c, name) for c in configs} for name in names}
    return [name for name in names if len(values[name]) > 1]


def _name(c: Config, first: Config) -> str:
    """Method or loss, the axes that the method uses, and what else differs from the first configuration."""
    default = c.method == Config.method
    used = [axis for axis in AXES if axis not in entry_of(c.method).unused and (default or axis != "loss")]
    parts = {
        "noise_rate": f"-noise{c.noise_rate:g}",
        "beta": f"-beta{c.beta:g}",
        "tau1": f"-tau{_temperatures(c)}",
        "learning_rate": f"-lr{c.learning_rate:g}",
        "seed": f"-seed{c.seed}",
    }
    name = (c.loss if default else c.method) + "".join(part for axis, part in parts.items() if axis in used)
    in_stem = ("method", *used)
    for f in fields(Config):
        value = getattr(c, f.name)
        if f.name not in (*in_stem, *FILE_FIELDS) and value != getattr(first, f.name):
            name += f"-{f.name}_{'_'.join(map(str, value)) if isinstance(value, tuple) else value}"
    return name


def _temperatures(c: Config) -> str:
    if c.tau1 is c.tau2 is None:
        return "auto"
    return "-".join("auto" if tau is None else f"{tau:g}" for tau in (c.tau1, c.tau2))


def _without_path(config: Config) -> Config:
    return replace(config, data_path=None)
