"""Faults of JAX's surroundings, such as a backend that is not there, as errors of one line.

Imports no library: JAX is looked at only where it is imported already.
"""

import functools
import os
import re
import sys
from collections.abc import Callable
from types import ModuleType, TracebackType
from typing import Any, ParamSpec, TypeVar

from mrl_jax.errors import InputError, first_line

__all__ = ["describe_fault", "names_backend", "no_backend", "report_faults_of_imports"]

P = ParamSpec("P")
R = TypeVar("R")

_PLATFORMS = ("jax_platforms", "jax_platform_name")
_CONFIG = os.path.join("jax", "_src", "config.py")


def names_backend(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function that uses JAX: a backend that JAX cannot start becomes an `InputError`."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except (AssertionError, RuntimeError) as error:  # JAX raises either where a backend is not there
            if (fault := describe_fault(error)) is None:
                raise
            raise InputError(fault) from error

    return call


def describe_fault(error: BaseException) -> str | None:
    """The message for an error that the surroundings of JAX cause; None if it has another cause.

    Args:
        error: as JAX raised it: on its import, by a value of a variable that it does not take; or later, since a
            backend does not start.
    """
    if isinstance(error, ValueError):
        return _wrong_variable(error)
    if not isinstance(error, AssertionError | RuntimeError) or "jax" not in sys.modules:
        return None
    jax = sys.modules["jax"]
    try:
        jax.devices()
    except (AssertionError, RuntimeError) as fault:
        return _cannot_start(jax, fault)
    return None


def _cannot_start(jax: ModuleType, fault: Exception) -> str:
    count = os.environ.get("JAX_NUM_CPU_DEVICES", "")
    if count.lstrip("-").isdecimal() and int(count) < 1:
        return f"JAX_NUM_CPU_DEVICES={count}: JAX cannot start with it; give 1 or more, or unset it"
    asked = {name: getattr(jax.config, name, None) or os.environ.get(name.upper()) for name in _PLATFORMS}
    given = [(name.upper(), value) for name, value in asked.items() if value]
    given.sort(key=lambda pair: f"Unknown backend {pair[1]}" not in str(fault))
    if not given:
        return f"JAX cannot start here ({first_line(fault)})"
    return no_backend(given[0][1], given[0][0])


def no_backend(platforms: str, variable: str = "JAX_PLATFORMS") -> str:
    """The message for platforms that JAX was asked for and cannot start."""
    return (
        f"{variable}={platforms}: JAX cannot start this backend here; unset it, or name one that is installed, such "
        f"as {variable}=cpu"
    )


def _wrong_variable(error: ValueError) -> str | None:
    trace, last = error.__traceback__, None
    while trace is not None:
        trace, last = trace.tb_next, trace
    names = [name.upper().replace(".", "_") for name in re.findall(r"jax[_.]\w+", str(error), re.IGNORECASE)]
    given = [name for name in names if name in os.environ]
    if last is None or not last.tb_frame.f_code.co_filename.endswith(_CONFIG) or not given:
        return None
    return f"{given[0]}={os.environ[given[0]]}: JAX does not take this value; correct the variable, or unset it"


def report_faults_of_imports() -> None:
    """End a command whose import of JAX fails by a variable of its environment with one line, exit code 2."""
    show = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> Any:
        if (fault := describe_fault(error)) is None:
            return show(kind, error, trace)
        print(f"error: {fault}", file=sys.stderr, flush=True)
        os._exit(2)

    sys.excepthook = hook
