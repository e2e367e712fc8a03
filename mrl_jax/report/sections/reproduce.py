"""How a run is repeated: the command, its settings, versions, and digests."""

import dataclasses
import os
import shlex
from collections.abc import Sequence
from typing import Any

from mrl_jax.config import Config, preset
from mrl_jax.names import base_name
from mrl_jax.options import FILE_FIELDS
from mrl_jax.report.blocks import Block, Code, Facts, Section
from mrl_jax.report.opened import OpenedRun
from mrl_jax.version import __version__

__all__ = ["flags_of", "report_command", "reproduce", "training_command"]


def training_command(config: Config, folders: bool = True) -> str:
    """The command that trains with a configuration: its preset, its method, and the flags that differ from these.

    Args:
        config: the configuration.
        folders: False names files without their folders, which tell of the machine of the run.
    """
    base = preset(config.preset, method=config.method)
    words = ["python -m mrl_jax.train", config.preset, f"--method {config.method}"]
    for f in dataclasses.fields(Config):
        value = getattr(config, f.name)
        if f.name in ("preset", "method") or value == getattr(base, f.name) or not config.has_effect(f.name):
            continue
        flag = f"--{f.name.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        elif value is not None:
            value = value if folders or f.name not in FILE_FIELDS else base_name(value)
            values = value if isinstance(value, tuple) else (value,)
            words.append(f"{flag} {' '.join(shlex.quote(str(v)) for v in values)}")
    return " ".join(words)


def flags_of(**given: Any) -> list[str]:
    """Flags of the arguments that are text or paths, as a shell takes them; other objects have no flag."""
    return [
        f"--{name.replace('_', '-')} {shlex.quote(str(value))}"
        for name, value in given.items()
        if isinstance(value, str | os.PathLike)
    ]


def report_command(workdirs: Sequence[str | os.PathLike[str]], **given: Any) -> str:
    """The command that makes a report.

    Args:
        workdirs: folders of runs or sweeps.
        given: other arguments of `write_report`.
    """
    where = " ".join(shlex.quote(str(folder)) for folder in workdirs)
    return " ".join([f"python -m mrl_jax.report --workdir {where}", *flags_of(**given)])


def reproduce(opened: OpenedRun, page: str) -> Section:
    """The commands, all settings, versions and digests of a run, and the origin of its data.

    Args:
        opened: the run.
        page: the command that makes the page.
    """
    recorded, config = opened.recorded, opened.run.config
    result = recorded.result or {}
    commands = [training_command(config), page]
    settings = [(name, _shown(value)) for name, value in config.to_json().items()]
    versions = [*result.get("versions", {}).items(), ("mrl_jax of this page", __version__)]
    metadata = recorded.data.get("metadata", {})
    origin = [(name, str(metadata[name])) for name in ("source", "homepage", "attribution") if name in metadata]
    digests = [("data", recorded.data["sha256"]), ("training labels", recorded.noise.get("labels_sha256", "unknown"))]
    facts = [
        *[(f"version of {name}" if " " not in name else name, str(v)) for name, v in versions],
        *([("trained on", f"{result['device']}, {result['seconds']:.1f} s")] if result else []),
        *[(f"SHA-256 of the {name}", digest) for name, digest in digests],
        *origin,
    ]
    lead = "The first command trains the run again, with the same noise; the second makes this page."
    every = Code("All settings", _lines(settings), folded=True)
    blocks: list[Block] = [Code("Commands", "\n".join(commands)), Facts(facts), every]
    return Section("reproduce", "How to reproduce", lead, blocks)


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _lines(rows: list[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in rows)
