"""How long a new user waits: the first commands of the README, in a new clone, by a user who has run nothing before.

    python -m experiments.benchmarks.first_contact [--rounds 3] [--ways make pip] [--python python3]

For a machine that does nothing else: it does not begin at a load above 0.3, unless --busy. A round clones HEAD and runs
the first block of `## Three commands` of the README in it (make), or the line for pip of docs/install.md and a training
(pip), line by line, with an empty HOME, so that pip, JAX and the package find no cache; then the last training again,
which finds them. Prints medians and ranges of the seconds of each line, and of those from the clone until a training
shows its table. The network, from which pip gets packages, is a part of the time.
"""

import argparse
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from experiments.shared.command_line import run_main
from experiments.shared.machine import machine
from experiments.shared.tables import markdown

ROOT = Path(__file__).resolve().parents[2]
WAYS = ("make", "pip")
TABLE = "average "  # how the last line of a table of scores begins
TRAIN = "python -m mrl_jax.train"
IDLE = 0.3


def lines_of(way: str, root: Path) -> list[str]:
    """The commands of a way to install, and to train, as the pages of a clone show them."""
    if way == "pip":
        (row,) = re.findall(r"^\| pip \| `(.+)` \|$", (root / "docs" / "install.md").read_text("utf-8"), re.MULTILINE)
        return [row, TRAIN]
    start = (root / "README.md").read_text("utf-8").split("## Three commands\n", 1)[1]
    block = re.findall(r"```\n(.*?)```", start, re.DOTALL)[0]
    return [line for line in block.splitlines() if "activate" not in line]  # every line has a shell of its own


def timed(line: str, folder: Path, env: dict[str, str], log: Path) -> tuple[float, float | None]:
    """Run a line in a shell: its seconds, and those until a table was complete.

    Raises:
        SystemExit: it failed.
    """
    began, table = time.perf_counter(), None
    how = {"cwd": folder, "env": env, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(["bash", "-c", line], **how) as shell, log.open("a", encoding="utf-8") as file:
        for shown in shell.stdout:
            file.write(shown)
            if table is None and shown.startswith(TABLE):
                table = time.perf_counter() - began
    if shell.returncode:
        raise SystemExit(f"{line!r} failed; its output is in {log}")
    return time.perf_counter() - began, table


def round_of(way: str, python: str, log: Path) -> dict[str, float]:
    """Seconds of every step of a way."""
    found = dict[str, float]()
    with tempfile.TemporaryDirectory() as base:
        home, clone = Path(base, "home"), Path(base, "mrl_jax")
        home.mkdir()
        keep = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG", "TMPDIR") or k.startswith("PIP_")}
        env = keep | {"HOME": str(home), "PYTHONUNBUFFERED": "1", "PYTHON": python}
        found["git clone"], _ = timed(
            f"git clone --quiet {shlex.quote(f'file://{ROOT}')} {clone}", Path(base), env, log
        )
        lines = lines_of(way, clone)
        until = found["git clone"]
        for number, line in enumerate([*lines, lines[-1].replace("--workdir runs/emoji", "--workdir runs/again")]):
            run = re.sub(r"^python3 ", f"{shlex.quote(python)} ", line)
            if line.startswith("python "):
                run = f". .venv/bin/activate && {run}"
            seconds, table = timed(run, clone, env, log)
            found[line if number < len(lines) else "the last line again"] = seconds
            if table is not None:
                found.setdefault("from the clone to the table", until + table)
            until += seconds
    return found


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each way; default: 3")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="default: both")
    parser.add_argument("--python", default="python3", help="the interpreter; default: python3")
    parser.add_argument("--busy", action="store_true", help="measure although the machine does other things")
    args = parser.parse_args()
    log = Path(tempfile.mkstemp(prefix="first_contact_", suffix=".log")[1])
    rows = [["way", "step", "seconds"]]
    if (load := os.getloadavg()[0]) > IDLE and not args.busy:
        raise SystemExit(f"the load is {load:.2f}, and other work would be measured, too; wait, or --busy")
    for way in args.ways:
        rounds = []
        for number in range(args.rounds):
            rounds.append(round_of(way, args.python, log))
            steps = ", ".join(f"{step} {seconds:.1f}" for step, seconds in rounds[-1].items())
            print(f"{way}, round {number + 1}: {steps}", file=sys.stderr, flush=True)
        for step in rounds[0]:
            of_step = [found[step] for found in rounds]
            spread = f" ({min(of_step):.1f}-{max(of_step):.1f})" if len(of_step) > 1 else ""
            rows.append([way, step, f"{statistics.median(of_step):.1f}{spread}"])
    print(markdown(rows))
    print(f"\n{machine(('jax', 'jaxlib'))}; output of the commands: {log}")


if __name__ == "__main__":
    run_main(main)
