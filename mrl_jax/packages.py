"""Packages that only parts of the program need: those of extras."""

import importlib
import importlib.util
from collections.abc import Sequence
from typing import Any

from mrl_jax.errors import InputError

__all__ = ["need"]


def need(packages: Sequence[str], what: str) -> Any:
    """Check that packages are installed; returns the first, imported.

    Args:
        packages: their names in imports.
        what: what needs them, for the message.

    Raises:
        InputError: one is not installed.
    """
    if missing := [name for name in packages if importlib.util.find_spec(name) is None]:
        raise InputError(f"{what} needs {', '.join(missing)}, not installed here; run: pip install {' '.join(missing)}")
    return importlib.import_module(packages[0])
