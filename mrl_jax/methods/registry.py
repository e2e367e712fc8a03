"""The registry of methods: one line each. Light: a method's file is imported when the method is used.

It lies below all that it names, so its hints say no more than `Any`.
"""

import importlib
from typing import Any

from mrl_jax.errors import InputError

__all__ = ["METHODS", "entry_of", "hyperparameters_of", "method_of", "register"]

METHODS: dict[str, Any] = {
    "mrl": "mrl_jax.methods.mrl",
    "cca": "mrl_jax.methods.cca",
}
"""Name, as in `--method` -> the module that holds its `ENTRY`, or the `MethodEntry` itself."""


def register(entry: Any) -> None:
    """Add a method of one's own for this process; `docs/extending.md` has an example.

    Args:
        entry: a `MethodEntry`.

    Raises:
        InputError: the name is taken.
    """
    if METHODS.get(entry.name, entry) is not entry:
        raise InputError(f"method {entry.name!r} is registered already; choose another name")
    METHODS[entry.name] = entry


def entry_of(name: str) -> Any:
    """The `MethodEntry` of a method.

    Raises:
        InputError: there is no method of this name.
    """
    if name not in METHODS:
        raise InputError(f"method {name!r}: choose from {', '.join(METHODS)}")
    entry = METHODS[name]
    if isinstance(entry, str):
        entry = getattr(importlib.import_module(entry), "ENTRY", None)
    if getattr(entry, "name", None) != name:
        raise InputError(f"method {name!r}: its module must hold a MethodEntry of this name, called ENTRY")
    return entry


def method_of(config: Any) -> Any:
    """The `Method` that a `Config` names."""
    return entry_of(config.method).method(config)


def hyperparameters_of(config: Any, noise: Any = None) -> Any:
    """The hyperparameters of a `Config` for its method, with the oracle noise where the method needs it."""
    return entry_of(config.method).hyperparameters(config, noise)
