"""The machine and the software that a benchmark ran on, as its results name them."""

import os
import platform
import re
import sys
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mrl_jax.retrieval.on_host import usable_cores

__all__ = ["KEEP_MEMORY", "keep_memory", "machine"]

KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_TOP_PAD_": str(1 << 28)}
"""Variables that make glibc keep freed memory. By default it returns large blocks to the system at once."""


def keep_memory() -> None:
    """Restart this program with `KEEP_MEMORY`, unless it is set: glibc reads the variables at the start only."""
    if any(os.environ.get(name) != value for name, value in KEEP_MEMORY.items()):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | KEEP_MEMORY)


def machine(packages: Sequence[str]) -> dict[str, Any]:
    """Number of cores, model of the CPU, versions of Python and packages, and the date."""
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    versions = {"python": platform.python_version(), **{name: version(name) for name in packages}}
    hardware = {"cores": usable_cores(), "cpu": model[1] if model else platform.machine()}
    return {**hardware, "versions": versions, "date": date.today().isoformat()}
