"""The registry of methods: one line each. Light: the file of a method is imported when the method is used.

Settings lie below the methods. Through this registry they know which of them have an effect. It is the only module that
is imported by its name in a table.
"""

import importlib
from typing import TYPE_CHECKING, Any

from mrl_jax.errors import InputError

if TYPE_CHECKING:
    from mrl_jax.config import Config
    from mrl_jax.methods.base import Method, MethodEntry
    from mrl_jax.methods.state import OracleNoise

__all__ = ["METHODS", "entry_of", "hyperparameters_of", "method_of", "register"]

METHODS: "dict[str, str | MethodEntry]" = {
    "mrl": "mrl_jax.methods.mrl",
    "consensus": "mrl_jax.methods.consensus",
    "cca": "mrl_jax.methods.linear.cca:CCA",
    "mcca": "mrl_jax.methods.linear.cca:MCCA",
    "pls": "mrl_jax.methods.linear.pls",
    "gma": "mrl_jax.methods.linear.gma",
    "mvda": "mrl_jax.methods.linear.mvda:MVDA",
    "mvda-vc": "mrl_jax.methods.linear.mvda:MVDA_VC",
    "gss-sl": "mrl_jax.methods.linear.gss_sl",
    "dcca": "mrl_jax.methods.deep.dcca:DCCA",
    "dccae": "mrl_jax.methods.deep.dcca:DCCAE",
    "acmr": "mrl_jax.methods.deep.acmr",
    "deep-sm": "mrl_jax.methods.deep.deep_sm",
    "fgcrossnet": "mrl_jax.methods.deep.fgcrossnet",
    "sdml": "mrl_jax.methods.deep.sdml",
    "dscmr": "mrl_jax.methods.deep.dscmr",
    "smln": "mrl_jax.methods.deep.smln",
    "elrcmr": "mrl_jax.methods.deep.elrcmr",
    "rono": "mrl_jax.methods.deep.rono",
    "rshnl": "mrl_jax.methods.deep.rshnl",
    "nirnl": "mrl_jax.methods.deep.nirnl",
    "rfcmh": "mrl_jax.methods.deep.rfcmh",
}
"""Name, as in `--method` -> the module that holds its `ENTRY`, or MODULE:NAME, or the `MethodEntry` itself."""


def register(entry: "MethodEntry") -> None:
    """Add a method of one's own for this process; `docs/extending.md` has an example.

    A program that evaluates or searches its runs registers it, too; the commands know the methods of the package only.

    Args:
        entry: the method.

    Raises:
        InputError: the name is taken.
    """
    if METHODS.get(entry.name, entry) is not entry:
        raise InputError(f"method {entry.name!r} is registered already; choose another name")
    METHODS[entry.name] = entry


def entry_of(name: str) -> "MethodEntry":
    """The `MethodEntry` of a method.

    Raises:
        InputError: there is no method of this name.
    """
    if name not in METHODS:
        raise InputError(f"method {name!r}: choose from {', '.join(METHODS)}")
    found = METHODS[name]
    entry: MethodEntry | None
    if isinstance(found, str):
        module, _, attribute = found.partition(":")
        entry = getattr(importlib.import_module(module), attribute or "ENTRY", None)
    else:
        entry = found
    if entry is None or entry.name != name:
        raise InputError(
            f"method {name!r}: its module must hold a MethodEntry of this name, called ENTRY or as MODULE:NAME says"
        )
    if entry.keeps not in ("best", "last"):
        raise InputError(f"method {name!r}: keeps={entry.keeps!r}; give 'best' or 'last'")
    return entry


def method_of(config: "Config") -> "Method":
    """The `Method` that a `Config` names."""
    return entry_of(config.method).method(config)


def hyperparameters_of(config: "Config", noise: "OracleNoise | None" = None) -> Any:
    """The hyperparameters of a `Config` for its method, with the oracle noise where the method needs it."""
    return entry_of(config.method).hyperparameters(config, noise)
