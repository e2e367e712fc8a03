"""Flags, folder of results, and exit codes of the programs that make tables and figures."""

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.shared.folders import RESULTS
from mrl_jax import InputError
from mrl_jax.backend import no_backend
from mrl_jax.cli import run_command
from mrl_jax.files import refuse_address

__all__ = ["checked", "parser", "require", "require_backend", "run_main"]

SETS = "emoji, the Wikipedia pairs where --views is given, and the published sets that are prepared"


def parser(
    doc: str | None, sets: str | None = SETS, seeds: bool = True, smoke: str = "", default_seeds: int = 5
) -> argparse.ArgumentParser:
    """The flags that all these programs have.

    Args:
        doc: text of --help.
        sets: the default data sets, in words; None for a program without data.
        seeds: whether the number of seeds is a flag.
        smoke: what --smoke reduces, in words; empty for networks, epochs and seeds.
        default_seeds: number of seeds where the flag does not say it.
    """
    flags = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.set_defaults(seeds=default_seeds)
    if sets:
        flags.add_argument("--sets", nargs="+", metavar="NAME", help=f"data sets; default: {sets}")
        flags.add_argument(
            "--views", metavar="FILE", help="Wikipedia pairs with reduced features, for the set wikipedia-views"
        )
    if seeds:
        text = f"runs of every cell, seeds 0 to N - 1; default: {default_seeds}"
        flags.add_argument("--seeds", type=int, metavar="N", help=text)
    flags.add_argument("--from-results", action="store_true", help="rebuild from the stored runs; train nothing")
    flags.add_argument("--out", type=Path, default=RESULTS, help="folder of the results; default: experiments/results")
    reduced = smoke or ("tiny networks, 2 seeds" if sets else "the same figure")
    flags.add_argument("--smoke", action="store_true", help=f"{reduced}; results in a temporary folder, unless --out")
    return flags


def checked(args: argparse.Namespace) -> argparse.Namespace:
    """The flags with a writable folder; `--smoke` reduces the seeds and changes the folder.

    Raises:
        InputError: the folder or the number of seeds cannot be used; a set is named twice.
    """
    if args.smoke and args.out == RESULTS:
        if args.from_results:
            raise InputError("--smoke keeps its results in a temporary folder; name it with --out FOLDER")
        args.out = Path(tempfile.mkdtemp())
        print(f"results in {args.out}", file=sys.stderr)
    if args.seeds < 1:
        raise InputError(f"--seeds {args.seeds}: must be at least 1")
    if args.smoke:
        args.seeds = 2
    named = getattr(args, "sets", None) or []
    if twice := [name for i, name in enumerate(named) if name in named[:i]]:
        raise InputError(f"--sets: {twice[0]} is named twice")
    refuse_address(args.out, "--out", output=True)
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=args.out):  # fail now, not after hours of training
            pass
    except OSError as error:
        raise InputError(f"--out {args.out} cannot be written ({error.strerror}); name another folder") from error
    return args


PACKAGES = {"faiss": "faiss-cpu", "pytrec_eval": "pytrec-eval-terrier", "sklearn": "scikit-learn"}
"""Module -> package that has it, where the names differ."""


def require(*modules: str) -> None:
    """Check that modules are installed, before anything is measured.

    Raises:
        InputError: some are not.
    """
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(_to_install(missing))


def _to_install(modules: Sequence[str]) -> str:
    packages = [PACKAGES.get(name, name) for name in modules]
    return (
        f"this program compares with {', '.join(packages)}, not installed here; run: pip install {' '.join(packages)} "
        "(for all programs: pip install -e '.[bench]')"
    )


def require_backend() -> None:
    """Check that JAX can start the backend that is asked for, in a process of its own, so that memory stays free here.

    Programs that measure in other processes need it; elsewhere `run_main` gives the same message.

    Raises:
        InputError: it cannot.
    """
    asked = [name for name in ("JAX_PLATFORMS", "JAX_PLATFORM_NAME") if os.environ.get(name)]
    if not asked:
        return
    started = subprocess.run([sys.executable, "-c", "import jax; jax.devices()"], capture_output=True, check=False)
    if started.returncode:
        raise InputError(no_backend(os.environ[asked[0]], asked[0]))


def _report_child(error: subprocess.CalledProcessError) -> int:
    """The exit code after another process of the program failed; says so, unless that process did so in one line."""
    if error.stderr:
        print(error.stderr if isinstance(error.stderr, str) else error.stderr.decode(), end="", file=sys.stderr)
    if error.returncode in (2, 130, 143):
        return error.returncode
    command = " ".join(" ".join(map(str, error.cmd[:4])).split())[:120]
    print(f"error: {command} … failed with exit code {error.returncode}; its message is above", file=sys.stderr)
    return 1


def run_main(main: Callable[[], None]) -> None:
    """Run a program as `mrl_jax.cli.run_command` runs a command; a package that is missing is bad input, too.

    A process that the program started and that failed ends it without a traceback.

    Raises:
        SystemExit: it failed; with its exit code.
    """

    def command() -> None:
        try:
            main()
        except ModuleNotFoundError as error:
            name = (error.name or "").split(".")[0]
            if name in ("", "mrl_jax", "experiments"):  # a fault of this project
                raise
            raise InputError(_to_install([name])) from None
        except subprocess.CalledProcessError as error:
            raise SystemExit(_report_child(error)) from None

    if code := run_command(command, "complete results are kept: run the command again to continue"):
        raise SystemExit(code)
