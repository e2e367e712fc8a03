"""The registry of methods: one line each. Light: a method's file is imported when the method is used."""

import importlib
from typing import TYPE_CHECKING, Any

from mrl_jax.errors import InputError

if TYPE_CHECKING:
    from mrl_jax.methods.base import Method, MethodEntry

__all__ = ["METHODS", "entry_of", "hyperparameters_of", "method_of", "register"]

METHODS: "dict[str, str | MethodEntry]" = {
    "mrl": "mrl_jax.methods.mrl",
    "cca": "mrl_jax.methods.cca",
}
"""Name, as in `--method` -> the module that holds its `ENTRY`, or the entry itself."""


def register(entry: "MethodEntry") -> None:
    """Add a method of one's own for this process; `docs/extending.md` has an example.

    Raises:
        InputError: the name is taken.
    """
    if METHODS.get(entry.name, entry) is not entry:
        raise InputError(f"method {entry.name!r} is registered already; choose another name")
    METHODS[entry.name] = entry


def entry_of(name: str) -> "MethodEntry":
    """The entry of a method.

    Raises:
        InputError: there is no method of this name.
    """
    if name not in METHODS:
        raise InputError(f"method {name!r}: choose from {', '.join(METHODS)}")
    entry = METHODS[name]
    return importlib.import_module(entry).ENTRY if isinstance(entry, str) else entry


def method_of(config: Any) -> "Method":
    """The method that a `Config` names."""
    return entry_of(config.method).method(config)


def hyperparameters_of(config: Any, noise: Any = None) -> Any:
    """The hyperparameters of a `Config` for its method, with the oracle noise where the method needs it."""
    return entry_of(config.method).hyperparameters(config, noise)
