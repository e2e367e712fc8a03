"""The commands of this package: `python -m mrl_jax` lists them, `python -m mrl_jax NAME …` runs one."""

import runpy
import sys
from collections.abc import Sequence

from mrl_jax.version import __version__

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "train": "train a run: presets, label noise, methods; checkpoints, learning curves, test scores",
    "eval": "score a run or embeddings of any origin with all metrics, or compare two of them",
    "search": "find the nearest items of a run's data for a text, a picture or a row",
    "sweep": "train many runs: seeds, noise rates, losses, hyperparameters; tables and a plot",
    "audit": "find the labels of a run or of a data set that are probably wrong, and the noise rate",
    "leaderboard": "rank methods on data of one's own, with paired tests over seeds and test instances",
    "report": "write a page of HTML on a run, or on several: scores, whether it memorised, samples",
    "export": "write a model or its rows for PyTorch, ONNX and others; take in official weights",
    "data": "list, describe, prepare and download data sets; make features from pictures and texts",
    "methods": "print the page of methods, losses and their settings",
}
"""Command -> what it does, in the order of the list. `python -m mrl_jax.NAME` is the same command."""


def main(argv: Sequence[str] | None = None) -> int:
    """List the commands, or run one of them; returns the exit code."""
    name, *rest = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("--help", "-h"):
        print(_page())
        return 0
    if name == "--version":
        print(f"mrl_jax {__version__}")
        return 0
    if name not in COMMANDS:
        what = "flag" if name.startswith("-") else "command"
        print(f"error: unknown {what} {name!r}; commands: {', '.join(COMMANDS)}; see --help", file=sys.stderr)
        return 2
    sys.argv = [f"mrl_jax.{name}", *rest]
    runpy.run_module(f"mrl_jax.{name}", run_name="__main__", alter_sys=True)  # ends with the command's exit code
    return 0


def _page() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name.ljust(width)}  {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "usage: python -m mrl_jax COMMAND [flags]   (or python -m mrl_jax.COMMAND [flags])",
            "",
            *lines,
            "",
            "python -m mrl_jax.COMMAND --help lists the flags of a command; --version prints the version.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
