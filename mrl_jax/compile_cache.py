"""The compilation cache on disk: the next start of a command compiles nothing anew.

JAX takes an entry for the program that its file name says, whatever it holds. Entries that a command writes end with a
checksum of name and content, in a frame that other readers of Zstandard skip. One that does not fit, such as after a
write that was killed, is compiled anew.
"""

import hashlib
import importlib.util
import os
import platform
import sys
import warnings
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import xxhash

from mrl_jax.errors import DamageWarning

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
    _check_entries()
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


_JAX_CACHE = "jax._src.compilation_cache"
_FRAME = b"\x5d\x2a\x4d\x18" + (16).to_bytes(4, "little")  # a frame that Zstandard skips, and its length
_LENGTH = len(_FRAME) + 16


class CheckedEntries:
    """Adds checksums to a cache of JAX, which has `get(key)`, `put(key, value)` and `path`."""

    def __init__(self, cache: Any) -> None:
        self._cache, self._path = cache, cache._path

    def get(self, key: str) -> bytes | None:
        """The entry without its checksum; None if there is none, or if it is damaged. Others' entries have none."""
        value: bytes | None = self._cache.get(key)
        if value is None or value[-_LENGTH:-16] != _FRAME:
            return value
        if value[-16:] == _checksum(key, value[:-_LENGTH]):
            return value[:-_LENGTH]
        warnings.warn(
            DamageWarning(f"a compiled program in {self._path} is damaged; it is compiled anew"), stacklevel=2
        )
        (Path(self._path) / f"{key}-cache").unlink(missing_ok=True)  # else JAX would keep it
        return None

    def put(self, key: str, value: bytes) -> None:
        """Write an entry."""
        self._cache.put(key, value + _FRAME + _checksum(key, value))


def _checksum(key: str, value: bytes) -> bytes:
    return xxhash.xxh3_128_digest(key.encode() + b"\0" + value)


class _Finder(MetaPathFinder):
    """Lets the cache of JAX check entries as soon as JAX is imported."""

    def find_spec(self, name: str, *_: Any) -> ModuleSpec | None:
        if name != _JAX_CACHE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                _check_entries_of(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _check_entries() -> None:
    """Let JAX check entries, now or once it is imported."""
    if (module := sys.modules.get(_JAX_CACHE)) is not None:
        _check_entries_of(module)
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def _check_entries_of(module: Any) -> None:
    """Wrap what makes JAX's cache of files. It is not public: without it, entries are not checked."""
    make = getattr(module, "get_file_cache", None)
    if make is None or getattr(make, "checks_entries", False):
        return

    def checked(path: str) -> Any:
        made = make(path)
        return made if made is None else (CheckedEntries(made[0]), made[1])

    checked.checks_entries = True  # type: ignore[attr-defined]
    module.get_file_cache = checked


def _processor() -> str:
    """Name of this kind of processor. A program compiled for another one may use instructions that this one lacks."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        features = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):  # not Linux
        features = platform.processor()
    return hashlib.sha256(f"{platform.machine()} {features}".encode()).hexdigest()[:12]
