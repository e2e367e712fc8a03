"""The command `python -m mrl_jax.leaderboard`."""

import time
from collections.abc import Sequence
from pathlib import Path

from mrl_jax.cli import Parser, add_config_flags, exit_process, output_path, run_command
from mrl_jax.config import PRESETS
from mrl_jax.errors import InputError, NonFiniteLossError
from mrl_jax.interrupt import continues_hint

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run_command(lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> None:
    parser = Parser(
        compiles=True,
        prog="python -m mrl_jax.leaderboard",
        description="Train methods on the same data, noise and seeds, and rank them with paired tests.",
    )
    parser.add_argument(
        "--methods", nargs="+", default=["all"], metavar="NAME", help="all, or some of docs/methods.md; default: all"
    )
    parser.add_argument("--data", metavar="NAME|FILE", help="a preset, or a file of data; as PRESET or --data-path")
    parser.add_argument(
        "--noise-rates", type=float, nargs="+", metavar="R", help="rates of wrong labels; default: 0.2 0.4 0.6 0.8"
    )
    parser.add_argument("--seeds", type=int, metavar="N", help="seeds 0 to N - 1; with 5 or more, tests; default: 5")
    parser.add_argument(
        "--workdir",
        type=output_path,
        metavar="DIR",
        help="folder, new or empty; default: runs/leaderboard-TIME. It keeps the models, some MB a run",
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue the one in --workdir; what is given replaces its own"
    )
    add_config_flags(parser)
    given = vars(parser.parse_args(argv))
    workdir, resume, place = given.pop("workdir"), given.pop("resume"), given.pop("data")
    methods, rates, seeds = given.pop("methods"), given.pop("noise_rates"), given.pop("seeds")
    if place is not None:
        if taken := [name for name in ("preset", "data_path") if name in given]:
            raise InputError(
                f"--data {place} and {taken[0]} {given[taken[0]]!r} were both given; leave one of them out"
            )
        given["preset" if place in PRESETS else "data_path"] = place
    if "noise_rate" in given:
        if rates is not None:
            raise InputError("--noise-rate and --noise-rates were both given; leave one of them out")
        rates = [given.pop("noise_rate")]
    if resume and workdir is None:
        raise InputError("--resume needs the folder of the leaderboard: --workdir DIR")
    if workdir == "":
        raise InputError("--workdir '' names no folder")

    from mrl_jax.leaderboard.board import leaderboard  # deferred: brings JAX

    workdir = workdir or time.strftime("runs/leaderboard-%Y%m%d-%H%M%S")
    chosen = None if methods == ["all"] else methods
    with continues_hint(Path(workdir) / "leaderboard.json"):
        result = leaderboard(workdir, chosen, noise_rates=rates, seeds=seeds, resume=resume, progress=True, **given)
    print(result.markdown())
    print(f"\nleaderboard folder: {workdir} (leaderboard.md, leaderboard.csv, leaderboard.png, a sweep per method)")
    if result.failed:
        name, why = next(iter(result.failed.items()))
        raise NonFiniteLossError(f"{len(result.failed)} methods failed, the first: {name}: {why}")


if __name__ == "__main__":
    exit_process(main())
