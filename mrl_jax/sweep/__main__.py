"""The command `python -m mrl_jax.sweep`."""

import dataclasses
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mrl_jax.cli import Parser, add_config_flags, exit_process, output_path, run_command
from mrl_jax.config import Config, fields_used, preset, with_settings
from mrl_jax.errors import InputError, NonFiniteLossError
from mrl_jax.interrupt import continues_hint
from mrl_jax.options import MOST_RUNS
from mrl_jax.track.named import add_track_flag, tracker

_AXES = {
    "method": ("--methods", str),
    "noise_rate": ("--noise-rates", float),
    "loss": ("--losses", str),
    "beta": ("--betas", float),
    "tau1": ("--tau1s", float),
    "tau2": ("--tau2s", float),
    "learning_rate": ("--learning-rates", float),
}
_SEEDS = 5


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run_command(lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> None:
    parser = Parser(
        compiles=True,
        prog="python -m mrl_jax.sweep",
        description="Train every combination of seeds, noise rates and hyperparameters; mean ± std over seeds.",
    )
    add_config_flags(parser)
    parser.add_argument("--seeds", type=int, metavar="N", help=f"seeds, counted from --seed; default: {_SEEDS}")
    for name, (flag, kind) in _AXES.items():
        text = f"values of the {name.replace('_', ' ')}, combined with those of all other flags"
        parser.add_argument(flag, type=kind, nargs="+", metavar="V", help=text)
    parser.add_argument(
        "--workdir", type=output_path, metavar="DIR", help="folder of the sweep, new or empty; default: runs/sweep-TIME"
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue the sweep in --workdir; values that are given replace its own and add runs",
    )
    add_track_flag(parser)
    given = vars(parser.parse_args(argv))
    track = given.pop("track")
    _ = [tracker(name) for name in track]  # what is not installed is refused before anything is written
    workdir, resume = given.pop("workdir"), given.pop("resume")
    seeds = given.pop("seeds")
    axes = {name: given.pop(flag[2:].replace("-", "_")) for name, (flag, _) in _AXES.items()}
    axes = {name: values for name, values in axes.items() if values is not None}
    if resume and workdir is None:
        raise InputError("--resume needs the folder of the sweep: --workdir DIR")
    if twice := [name for name in axes if name in given]:
        flag = _AXES[twice[0]][0]
        raise InputError(f"--{twice[0].replace('_', '-')} and {flag} were both given; leave one of them out")
    if given.get("loss_options") and len(losses := axes.get("loss", [])) > 1:
        raise InputError(
            f"--loss-options belongs to one loss, and --losses names {', '.join(losses)}; give it in a sweep of that "
            "loss alone"
        )
    if seeds is not None and not 1 <= seeds <= MOST_RUNS:
        rule = "at least 1" if seeds < 1 else f"at most {MOST_RUNS}"
        raise InputError(f"--seeds {seeds}: must be {rule}")

    if workdir == "":
        raise InputError("--workdir '' names no folder")

    from mrl_jax.sweep.folder import SweepFolder
    from mrl_jax.sweep.sweep import sweep  # deferred: brings JAX

    workdir = workdir or time.strftime("runs/sweep-%Y%m%d-%H%M%S")
    if resume:
        if "recipe" in given:
            raise InputError("--recipe is for new sweeps; a sweep resumes with its own settings: leave the flag out")
        configs = _more(list(SweepFolder.open(workdir).configs().values()), given, axes, seeds)
    else:
        name = given.pop("preset", "custom" if "data_path" in given else "emoji")
        first = {axis: values[0] for axis, values in axes.items()}
        if "method" in axes:  # of several, one that uses all that is given; `grid` leaves out what the others do not
            asked = {*given, *axes} - {"preset", "recipe"}
            first["method"] = next((m for m in axes["method"] if asked <= fields_used(m)), axes["method"][0])
        base = preset(name, **given, **first)
        configs = _grid(base, axes, range(base.seed, base.seed + (seeds or _SEEDS)))
    with continues_hint(Path(workdir) / "sweep.json"):
        results = sweep(
            configs, workdir, resume=resume, progress=True, callbacks=lambda _: [tracker(name) for name in track]
        )
    print(results.markdown())
    print(f"\nsweep folder: {workdir} (sweep.csv, sweep.md, summary.json, sweep.png, runs/)")
    if failed := results.failed:
        raise NonFiniteLossError(
            f"{len(failed)} of {len(results.runs)} runs failed, the first: {next(iter(failed.values()))}"
        )


def _more(known: list[Config], given: dict[str, Any], axes: dict[str, list[Any]], seeds: int | None) -> list[Config]:
    """Configurations of a sweep that resumes: its own, or its grid with the given values in place of its own."""
    if not axes and seeds is None and set(given) <= {"data_path"}:  # the data may have moved
        return [dataclasses.replace(c, **given) for c in known]
    own = list(dict.fromkeys(c.method for c in known))
    methods = axes.get("method", [given["method"]] if "method" in given else own)
    used = {method: fields_used(method) for method in methods}
    configs = []
    for method in methods:
        # What no method uses is passed on, and refused there.
        idle = {name for name in (*given, *axes) if name not in used[method] and any(name in u for u in used.values())}
        alike = [c for c in known if c.method == method] or [with_settings(known[0], method=method)]
        changes = {name: value for name, value in given.items() if name not in idle}
        values = {name: list(dict.fromkeys(getattr(c, name) for c in alike)) for name in _AXES if name in used[method]}
        values |= {name: [changes[name]] for name in values if name in changes}
        values |= {name: v for name, v in axes.items() if name not in idle}
        numbers = list(dict.fromkeys(c.seed for c in alike)) if "seed" not in given else [given["seed"]]
        if seeds is not None:
            numbers = list(range(min(numbers), min(numbers) + seeds))
        configs += _grid(with_settings(alike[0], **changes), values | {"method": [method]}, numbers)
    return configs


def _grid(base: Config, axes: dict[str, list[Any]], seeds: Iterable[int]) -> list[Config]:
    from mrl_jax.sweep.sweep import grid

    return grid(base, **axes, seed=seeds)


if __name__ == "__main__":
    exit_process(main())
