"""The compilation cache on disk: the next start of a command compiles nothing anew."""

import hashlib
import os
import platform
import sys
from pathlib import Path
from typing import Any

__all__ = ["cache_folder", "keep_compiled"]

_MAX_SIZE = 1 << 30  # bytes; beyond, JAX drops the programs that were used least recently


def keep_compiled(keep: bool = True) -> None:
    """Let JAX read compiled programs from the user's cache folder, and write those that it compiles there.

    Settings of JAX that were made before, such as the variable JAX_COMPILATION_CACHE_DIR, stay. If the folder cannot be
    written, there is no cache.

    Args:
        keep: False switches the cache off, whatever was set.
    """
    if not keep:
        os.environ.pop("JAX_ENABLE_COMPILATION_CACHE", None)
        _set({"jax_enable_compilation_cache": False})
        return
    if "JAX_COMPILATION_CACHE_DIR" in os.environ or cache_folder() is not None:
        return
    import platformdirs

    folder = Path(platformdirs.user_cache_dir("mrl_jax"), "compiled", _processor())
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if os.access(folder, os.W_OK):
        settings = {"dir": str(folder), "max_size": _MAX_SIZE}
        times = {"jax_persistent_cache_min_compile_time_secs": 0, "jax_persistent_cache_min_entry_size_bytes": 0}
        _set({f"jax_compilation_cache_{name}": value for name, value in settings.items()} | times)


def cache_folder() -> str | None:
    """The folder of the cache, or None if there is none."""
    return sys.modules["jax"].config.jax_compilation_cache_dir if "jax" in sys.modules else None


def _set(settings: dict[str, Any]) -> None:
    """Set options of JAX, except those that environment variables set, without importing JAX."""
    for name, value in settings.items():
        if name.upper() in os.environ:
            continue
        os.environ[name.upper()] = str(value).lower() if isinstance(value, bool) else str(value)
        if "jax" in sys.modules:
            sys.modules["jax"].config.update(name, value)


def _processor() -> str:
    """Name of this kind of processor. A program compiled for another one may use instructions that this one lacks."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        features = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):  # not Linux
        features = platform.processor()
    return hashlib.sha256(f"{platform.machine()} {features}".encode()).hexdigest()[:12]
