"""What a benchmark tells of where and with what it was run."""

import os
import platform
import re
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

__all__ = ["machine"]


def machine(packages: Sequence[str]) -> dict[str, Any]:
    """Cores, their model, versions of Python and packages, and the date."""
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    versions = {"python": platform.python_version(), **{name: version(name) for name in packages}}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    told = {"cores": cores, "cpu": model[1] if model else platform.machine()}
    return {**told, "versions": versions, "date": date.today().isoformat()}
