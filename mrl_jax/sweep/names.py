"""Names of the runs of a sweep, and the fields in which they differ."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from mrl_jax.config import Config
from mrl_jax.errors import InputError
from mrl_jax.methods.registry import entry_of
from mrl_jax.names import file_name
from mrl_jax.options import COMMON_FIELDS, FILE_FIELDS
from mrl_jax.run.same_config import with_length

__all__ = ["axes_of", "name_runs", "setting", "varied"]


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
            name
            for name, old in known.items()
            if name not in matched and _without_path(old) == _without_path(with_length(c, old))
        ]
        if same:
            named[same[0]] = with_length(c, known[same[0]])
            matched.add(same[0])
            continue
        base = _name(c, [*named.values(), c])
        name, n = base, 2
        while name in named:  # they differ in files, or in digits that the name does not show
            name, n = f"{base}+{n}", n + 1
        named[name] = c
    if not named:
        raise InputError("a sweep needs at least one configuration")
    return named


def varied(configs: Sequence[Config]) -> list[str]:
    """Fields in which configurations differ whose methods use them, axes first."""
    names = dict.fromkeys((*axes_of(configs), *(f.name for f in fields(Config))))
    values: dict[str, set[Any]] = {name: {getattr(c, name) for c in configs if c.has_effect(name)} for name in names}
    return [name for name in names if len(values[name]) > 1]


def axes_of(configs: Sequence[Config]) -> list[str]:
    """Fields that the tables of a sweep always show: those of its methods, in the order of the runs."""
    methods = dict.fromkeys(c.method for c in configs)
    return list(dict.fromkeys(axis for method in methods for axis in entry_of(method).axes))


def setting(config: Config, name: str) -> Any:
    """The value of a field; None where it has no effect on the method."""
    return getattr(config, name) if config.has_effect(name) else None


def _name(c: Config, runs: Sequence[Config]) -> str:
    """The method's stem, noise, the axes of the method, seed, and what else differs from its first run."""
    entry = entry_of(c.method)
    parts = {
        "noise_rate": f"-noise{c.noise_rate:g}",
        "beta": f"-beta{c.beta:g}",
        "tau1": f"-tau{_temperatures(c)}",
        "learning_rate": f"-lr{c.learning_rate:g}",
        "seed": f"-seed{c.seed}",
    }
    name = entry.stem(c) + "".join(part for axis, part in parts.items() if axis in entry.axes)
    alike = next(run for run in runs if run.method == c.method)
    for f in fields(Config):
        value = getattr(c, f.name)
        first = runs[0] if f.name in COMMON_FIELDS - {"method_options"} else alike
        if f.name not in ("method", *entry.axes, *FILE_FIELDS) and value != getattr(first, f.name):
            name += f"-{f.name}_{'_'.join(map(str, value)) if isinstance(value, tuple) else value}"
    return file_name(name.replace("/", "-"))  # as in a split 60/15/25


def _temperatures(c: Config) -> str:
    if c.tau1 is c.tau2 is None:
        return "auto"
    return "-".join("auto" if tau is None else f"{tau:g}" for tau in (c.tau1, c.tau2))


def _without_path(config: Config) -> Config:
    return replace(config, data_path=None)
