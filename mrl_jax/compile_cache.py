"""Compiled programs kept on disk, so that the next start of a command compiles nothing anew."""

import hashlib
import os
import platform
import sys
from pathlib import Path
from typing import Any

__all__ = ["keep_compiled", "kept_in"]

_MOST = 1 << 30  # bytes; beyond, JAX drops what was used least recently


def keep_compiled(keep: bool = True) -> None:
    """Let JAX read compiled programs from the user's cache folder, and write there what it compiles.

    Settings of JAX that were made already, such as the variable JAX_COMPILATION_CACHE_DIR, stay. Where the folder
    cannot be written, nothing is kept.

    Args:
        keep: False: neither read nor write, whatever was set.
    """
    if not keep:
        os.environ.pop("JAX_ENABLE_COMPILATION_CACHE", None)
        _set({"jax_enable_compilation_cache": False})
        return
    if "JAX_COMPILATION_CACHE_DIR" in os.environ or kept_in() is not None:
        return
    import platformdirs

    folder = Path(platformdirs.user_cache_dir("mrl_jax"), "compiled", _processor())
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if os.access(folder, os.W_OK):
        settings = {"dir": str(folder), "max_size": _MOST}
        times = {"jax_persistent_cache_min_compile_time_secs": 0, "jax_persistent_cache_min_entry_size_bytes": 0}
        _set({f"jax_compilation_cache_{name}": value for name, value in settings.items()} | times)


def kept_in() -> str | None:
    """The folder that is in use, if one is."""
    return sys.modules["jax"].config.jax_compilation_cache_dir if "jax" in sys.modules else None


def _set(settings: dict[str, Any]) -> None:
    """Set options of JAX, but for those that variables set, without importing it: a command may do that later."""
    for name, value in settings.items():
        if name.upper() in os.environ:
            continue
        os.environ[name.upper()] = str(value).lower() if isinstance(value, bool) else str(value)
        if "jax" in sys.modules:
            sys.modules["jax"].config.update(name, value)


def _processor() -> str:
    """A name for this kind of processor: programs compiled for another one may use instructions that it lacks."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        told = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):  # not Linux
        told = platform.processor()
    return hashlib.sha256(f"{platform.machine()} {told}".encode()).hexdigest()[:12]
