"""What the timing programs share: flags, turns, files of numbers, parts in processes of their own."""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from experiments.shared.folders import ROOT

__all__ = [
    "log",
    "read_numbers",
    "run_module",
    "seconds_of",
    "timing_parser",
    "turns",
    "write_numbers",
    "write_parts",
    "write_table",
]  # fmt: skip

log: Callable[..., None] = partial(print, file=sys.stderr, flush=True)


def timing_parser(
    doc: str | None,
    smoke: str = "tiny sizes, nothing is stored: does it run?",
    rounds: int | None = None,
    parts: Sequence[str] = (),
    markdown: bool = True,
) -> argparse.ArgumentParser:
    """The flags that timing programs have.

    Args:
        doc: text of --help.
        smoke: help of --smoke; empty for no such flag.
        rounds: default of --rounds; None for no such flag.
        parts: choices of --parts; empty for no such flag.
        markdown: whether the program prints tables of stored results.
    """
    flags = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if parts:
        flags.add_argument("--parts", nargs="+", choices=parts, default=list(parts), help="default: all")
    if rounds is not None:
        flags.add_argument("--rounds", type=int, default=rounds, help=f"timed rounds; default: {rounds}")
    if smoke:
        flags.add_argument("--smoke", action="store_true", help=smoke)
    if markdown:
        flags.add_argument("--markdown", action="store_true", help="print the tables of the stored results instead")
    return flags


def turns(names: Iterable[str], rounds: int) -> Iterator[tuple[int, str]]:
    """Number of the round and name; the order of the names changes direction from round to round."""
    order = list(names)
    for r in range(rounds):
        for name in order[:: -1 if r % 2 else 1]:
            yield r, name


def seconds_of(f: Callable[[], object]) -> float:
    """Seconds of a call, which must wait for its result."""
    started = time.perf_counter()
    f()
    return time.perf_counter() - started


def read_numbers(path: Path) -> Any:
    """The numbers in a file of results."""
    return json.loads(path.read_text("utf-8"))


def write_table(path: Path, results: Any, table: str) -> None:
    """Write the numbers, and beside them their table as Markdown."""
    write_numbers(path, results)
    path.with_suffix(".md").write_text(table + "\n", encoding="utf-8")


def write_numbers(path: Path, numbers: Mapping[str, Any]) -> None:
    """Write numbers to a file of results."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(numbers, indent=1) + "\n", "utf-8")
    log(f"written to {path}")


def write_parts(path: Path, numbers: Mapping[str, Any]) -> None:
    """Write the parts that were measured; other parts of the file, and their machines, stay."""
    stored = read_numbers(path) if path.exists() else {"machine": {}}
    write_numbers(path, {**stored, **numbers, "machine": {**stored["machine"], **numbers["machine"]}})


def run_module(module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Any:
    """Run a module of this repository in a process of its own.

    Args:
        module: its dotted name.
        arguments: its flags.
        environment: all variables of the process; None for those of this process.

    Returns:
        The JSON value on the last line that it prints.
    """
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])
