"""Disturb the commands that write: what they leave must be continued to the undisturbed bits, or refused in a line.

    python tests/faults/run.py [--tries 20] [--only KIND] [--task TASK] [--seed 0] [--start 0] [--table PAGE]

A try runs a command on tiny data, disturbs it, continues or repeats it, and compares all that it leaves. Prints a line
per try that ends in anything else, with the command that repeats it, and a table. `--table` writes the table into a
page, such as docs/reliability.md, between its marks. Ctrl-C ends it early.
`damage.py` damages the files themselves.
"""

import argparse
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path[:0] = [str(Path(__file__).parents[i]) for i in (0, 1, 2)]  # shared test modules, when run as a program

import interrupted  # noqa: E402
import limited  # noqa: E402
import numpy as np  # noqa: E402
import places  # noqa: E402
import shared_folders  # noqa: E402
from client import HungError  # noqa: E402
from page_table import write_table  # noqa: E402
from tasks import Bench, Task  # noqa: E402


class Kind(NamedTuple):
    """A kind of fault: its title in the table, what tries it, and the tasks that it befalls; none for all."""

    title: str
    attempt: Callable[[Bench, Task, np.random.Generator], str]
    tasks: tuple[str, ...] = ()
    share: int = 1  # of so many tries one, where each starts a process


_RESUMED = ("train", "sweep", "leaderboard", "prepare")
KINDS = {
    "killed": Kind("SIGKILL", interrupted.killed),
    "ended": Kind("SIGTERM", interrupted.ended),
    "interrupted": Kind("Ctrl-C", interrupted.interrupted),
    "full-disk": Kind("full disk", limited.full_disk),
    "read-only": Kind("folder becomes read-only", limited.read_only),
    "few-handles": Kind("few file handles", limited.few_handles),
    "little-memory": Kind("little memory", limited.little_memory, share=4),
    "two-processes": Kind("two processes in a folder", shared_folders.two_processes, _RESUMED),
    "stale-lock": Kind("killed with its lock", shared_folders.stale_lock, _RESUMED, 4),
    "odd-name": Kind("unusual name of the folder, links", places.odd_name),
    "unwritable-home": Kind("HOME, TMPDIR or caches unwritable", places.unwritable_home, share=4),
}


class Row(NamedTuple):
    """The tries of a kind."""

    title: str
    tries: int = 0
    lost: int = 0
    silent: int = 0
    seconds: float = 0.0

    def add(self, wrong: str, seconds: float) -> "Row":
        """With one try more."""
        silent = wrong.startswith("SILENT")
        return Row(
            self.title, self.tries + 1, self.lost + bool(wrong and not silent), self.silent + silent,
            self.seconds + seconds,
        )  # fmt: skip


def table(rows: Sequence[Row]) -> str:
    """The rows in Markdown."""
    lines = ["| fault | tries | survived | lost | silent | seconds |", "|---|--:|--:|--:|--:|--:|"]
    total = Row("all", *(sum(row[i] for row in rows) for i in range(1, 5)))  # type: ignore[arg-type]
    for row in [*rows, total]:
        survived = row.tries - row.lost - row.silent
        lines.append(f"| {row.title} | {row.tries} | {survived} | {row.lost} | {row.silent} | {row.seconds:,.0f} |")
    return "\n".join(lines)


def run(
    tries: int,
    seed: int = 0,
    start: int = 0,
    kinds: Sequence[str] = (),
    tasks: tuple[str, ...] = (),
    shown: bool = True,
) -> tuple[list[Row], list[str]]:
    """Try kinds of faults; returns the rows of the table and the lines of tries that failed.

    Args:
        tries: of every kind.
        seed: from which all is drawn.
        start: number of the first try.
        kinds: kinds; none for all.
        tasks: tasks; none for all.
        shown: whether failures and progress are printed.
    """
    rows, failed = [], []
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as base:
        bench = Bench(Path(base), tasks)
        try:
            for name in kinds or KINDS:
                kind, row = KINDS[name], Row(KINDS[name].title)
                own = [task for task in bench.tasks.values() if not kind.tasks or task.name in kind.tasks]
                for number in range(start, start + -(-tries // kind.share) if own else start):
                    began, task = time.monotonic(), own[number % len(own)]
                    rng = np.random.default_rng([seed, number, list(KINDS).index(name)])
                    try:
                        wrong = kind.attempt(bench, task, rng)
                    except HungError as error:
                        wrong = f"hung: {error}"
                    if wrong.startswith(limited.SKIPPED):
                        continue
                    row = row.add(wrong, time.monotonic() - began)
                    if wrong:
                        failed.append(
                            f"--only {name} --seed {seed} --start {number} --tries 1"
                            f"{''.join(f' --task {t}' for t in tasks)}: {task.name}: {wrong}"
                        )
                    if shown and wrong:
                        print(failed[-1], flush=True)
                    if shown:
                        print(f"\r{kind.title}: {row.tries} tries, {row.seconds:.0f} s  ", end="", file=sys.stderr)
                rows.append(row)
                if shown:
                    print(file=sys.stderr)
        except KeyboardInterrupt:
            print("\nstopped; what was tried so far:", file=sys.stderr)
            rows.append(row)
        finally:
            bench.close()
    return rows, failed


def main() -> int:
    """The program; 1 if any try was lost or silent."""
    parser = argparse.ArgumentParser(description="Disturb commands that write.")
    parser.add_argument("--tries", type=int, default=20, help="of every kind; default: 20")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0, help="number of the first try")
    parser.add_argument("--only", action="append", choices=KINDS, default=[], help="kind of fault; default: all")
    parser.add_argument("--task", action="append", default=[], help="command that is disturbed; default: all")
    parser.add_argument("--table", type=Path, help="page that gets the table, between its marks")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(f"python tests/faults/run.py {shlex.join(sys.argv[1:])}: seed {args.seed}", flush=True)
    rows, failed = run(args.tries, args.seed, args.start, args.only, tuple(args.task))
    print(table(rows))
    if args.table is not None:
        write_table(args.table, "faults", table(rows))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
