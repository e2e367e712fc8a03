"""The command line: a parser with flags from the options, one-line errors, exit codes."""

import _thread
import argparse
import contextlib
import functools
import math
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

from mrl_jax.backend import describe_fault
from mrl_jax.compile_cache import cache_folder, keep_compiled
from mrl_jax.config import PRESETS, Config, shown
from mrl_jax.errors import (
    CallbackError,
    CheckpointError,
    DamageWarning,
    DatasetWarning,
    InputError,
    NonFiniteLossError,
    ProcessLostError,
)
from mrl_jax.files import refuse_address
from mrl_jax.interface import as_command
from mrl_jax.interrupt import Interrupted, interrupts, raise_interrupts
from mrl_jax.names import printable
from mrl_jax.options import ARRAY_LIMIT, OPTIONS, RECIPES, Option

__all__ = [
    "Parser",
    "add_array_limit",
    "add_config_flags",
    "add_field_flags",
    "add_shown_flags",
    "exit_process",
    "output_path",
    "path",
    "run_command",
]


class Parser(argparse.ArgumentParser):
    """An argument parser that reports an error as one line, and takes no abbreviated flags and no list twice.

    Args:
        compiles: for a command that reads data and computes: add the flags of the compilation cache and of the limit
            on arrays, and set up the cache when arguments are parsed.
        kwargs: of `argparse.ArgumentParser`.
    """

    def __init__(self, compiles: bool = False, **kwargs: object) -> None:
        super().__init__(allow_abbrev=False, **kwargs)  # type: ignore[arg-type]
        self.register("action", None, _Store)
        self.lists_given = set[str]()
        self._compiles = compiles
        if compiles:
            self.add_argument(
                "--no-compile-cache",
                action="store_true",
                help="compile anew; by default compiled programs are stored in the user's cache folder",
            )
            add_array_limit(self)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As `argparse`, which calls it for every parser, those of subcommands included."""
        self.lists_given.clear()
        return super().parse_known_args(args, namespace)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As `argparse`; sets up the compilation cache and removes its flag from the result."""
        values = super().parse_args(args, namespace)
        if self._compiles:
            keep_compiled(not values.no_compile_cache)
            del values.no_compile_cache
        return values

    def error(self, message: str) -> NoReturn:
        """Report wrong usage like any other bad input, with exit code 2."""
        raise InputError(f"{message}; see {self.prog} --help")


def path(value: str) -> str:
    """Type of a flag that names a file or folder to read; an address, such as https://…, is refused."""
    return _local(value, output=False)


def output_path(value: str) -> str:
    """Type of a flag that names a file or folder to write."""
    return _local(value, output=True)


def _local(value: str, output: bool) -> str:
    try:
        refuse_address(value, output=output)
    except InputError as error:  # argparse shows no message of a ValueError
        raise argparse.ArgumentTypeError(str(error)) from None
    return value


class _Store(argparse.Action):
    """Store a value, as `argparse` does, and say so where a flag of several values replaces an earlier one."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        if option_string is not None and self.nargs not in (None, "?"):
            if self.dest in parser.lists_given:
                _warn(f"{option_string} is given twice; the last values count; to have all, give them at once")
            parser.lists_given.add(self.dest)
        setattr(namespace, self.dest, values)


class _ArrayLimit(argparse.Action):
    """`--max-array-gb` sets the environment variable, which processes of the command have, too."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        try:
            number = float(values)
        except ValueError:
            number = 0.0
        if not 0 < number < math.inf:
            raise InputError(f"{option_string} {values}: give a number of 10^9 bytes above 0")
        os.environ[ARRAY_LIMIT] = values


def add_array_limit(parser: argparse.ArgumentParser) -> None:
    """Add the flag of the limit on arrays of data files; `run_command` takes the limit back at its end."""
    parser.add_argument(
        "--max-array-gb",
        action=_ArrayLimit,
        default=argparse.SUPPRESS,
        metavar="GB",
        help=f"how large one array of a data file may be, in 10^9 bytes; default: {ARRAY_LIMIT}, or the memory",
    )


class _Tau(argparse.Action):
    """`--tau` sets both temperatures."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        try:
            value = None if values == "auto" else float(values)
        except ValueError:
            raise InputError(f"--tau {values}: give a number, or auto") from None
        namespace.tau1 = namespace.tau2 = value


def add_config_flags(parser: argparse.ArgumentParser) -> None:
    """Add the preset and a flag for every field of `Config`. Flags not given stay absent: presets fill them."""
    parser.add_argument("preset", nargs="?", metavar="PRESET", default=argparse.SUPPRESS, help=", ".join(PRESETS))
    parser.add_argument(
        "--recipe",
        metavar="{" + ",".join(RECIPES) + "}",
        default=argparse.SUPPRESS,
        help="beta, temperatures and schedule: ours, or the paper's; default: default",
    )
    parser.add_argument(
        "--tau",
        action=_Tau,
        metavar="{auto,FLOAT}",
        default=argparse.SUPPRESS,
        help="both temperatures, for --tau1 and --tau2; auto: from the number of classes; default: auto",
    )
    add_field_flags(parser, [name for name in OPTIONS if name != "preset"])


def add_shown_flags(parser: Any, use: str = "") -> None:
    """Add the flags for what a page shows of the samples of one's own data.

    Args:
        parser: a parser, or a group of one.
        use: what they belong to, for their help, such as "of --html: ".
    """
    parser.add_argument("--pictures", type=path, metavar="FOLDER", help=f"{use}pictures of the samples, named by id")
    parser.add_argument(
        "--texts", type=path, metavar="FILE", help=f"{use}texts of the samples: a CSV with the columns id and text"
    )


def add_field_flags(parser: argparse.ArgumentParser, names: Iterable[str]) -> None:
    """Add a flag for each of these fields of `Config`. Flags not given stay absent."""
    hints = get_type_hints(Config)
    for name in names:
        option = OPTIONS[name]
        options: dict[str, Any] = {"default": argparse.SUPPRESS, "help": _help(option)}
        kind = next((a for a in get_args(hints[name]) if a not in (type(None), ...)), hints[name])
        if kind is bool:
            options["action"] = argparse.BooleanOptionalAction
        else:
            options["type"] = kind
            options["metavar"] = "{" + ",".join(option.choices) + "}" if option.choices else kind.__name__.upper()
            if get_origin(hints[name]) is tuple:
                options["nargs"] = "+"
            if name == "keys":
                options["action"] = "extend"  # each entry is one name; the flag may be repeated
        parser.add_argument("--" + name.replace("_", "-"), **options)


def _help(option: Option) -> str:
    text = option.help.replace("%", "%%")
    return text if option.default in (None, ()) else f"{text}; default: {shown(option.default)}"


@contextlib.contextmanager
def _same_array_limit() -> Iterator[None]:
    before = os.environ.get(ARRAY_LIMIT)
    try:
        yield
    finally:
        os.environ.pop(ARRAY_LIMIT, None)
        if before is not None:
            os.environ[ARRAY_LIMIT] = before


def run_command(command: Callable[[], object], interrupted: str = "run it again") -> int:
    """Run a command; report errors that a user can mend as one line on standard error.

    Args:
        command: the command.
        interrupted: what to do after Ctrl-C, for the message.

    Returns:
        The exit code: 0 done, 2 bad input, 1 a run that failed, 130 interrupted, 143 ended by SIGTERM after saving.
    """
    raise_interrupts()
    _repeat_swallowed_interrupts()
    before = interrupts()
    try:
        with as_command(), _same_array_limit(), warnings.catch_warnings():
            warnings.simplefilter("always", DatasetWarning)
            warnings.simplefilter("always", DamageWarning)
            show_default, reported = warnings.showwarning, set[str]()

            def show(message: Any, kind: Any, *where: Any) -> None:
                if kind in (DatasetWarning, DamageWarning):
                    _warn(message)
                elif "writing persistent compilation cache" in str(message):  # comes once for every program
                    text = f"compiled programs cannot be stored in {cache_folder()}; make space there"
                    if text not in reported:
                        reported.add(text)
                        _warn(text)
                elif "persistent compilation cache" in str(message):
                    _warn(f"{str(message).splitlines()[0]}; if this comes again, delete {cache_folder()}")
                else:
                    show_default(message, kind, *where)

            warnings.showwarning = show  # type: ignore[assignment]
            command()
        if sys.stdout is not None:  # the caller may have closed it
            sys.stdout.flush()
    except InputError as error:
        return _report(error, 2)
    except BrokenPipeError:  # the reader, such as `head`, closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if isinstance(error, CheckpointError):  # coroutines of Orbax that never began are freed at the end
            warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
        nameless = type(error) is OSError and error.filename is None  # raised by standard output
        return _report(f"the output cannot be written ({error.strerror})" if nameless else error, 1)
    except (CallbackError, NonFiniteLossError, ProcessLostError) as error:
        return _report(error, 1)
    except (AssertionError, RuntimeError) as error:  # JAX raises either where a backend is not there
        if (fault := describe_fault(error)) is not None:
            return _report(fault, 2)
        if "RESOURCE_EXHAUSTED" not in str(error):  # JAX's status for too little memory
            raise
        why = str(error).splitlines()[0].removeprefix("RESOURCE_EXHAUSTED: ")
        return _report(
            f"the device has too little memory ({why[:200]}); smaller batches (--batch-size), narrower layers "
            "(--hidden-dims), or features left on the host (--stream on) need less",
            1,
        )
    except Interrupted as error:
        return _report(error, error.code)
    except KeyboardInterrupt:
        return _report(f"interrupted; {interrupted}", 130)
    except Exception as error:
        if interrupts() > before:  # during the imports of another library
            return _report(f"interrupted; {interrupted}", 130)
        if (fault := describe_fault(error)) is not None:
            return _report(fault, 2)
        raise
    return 0


def exit_process(code: int) -> NoReturn:
    """End the process of a command. After an interrupt without Python's own end, which threads of XLA may crash."""
    if code > 128:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        os._exit(code)
    sys.exit(code)


@functools.cache  # once per process
def _repeat_swallowed_interrupts() -> None:
    """Raise Ctrl-C again if it arrived in a finaliser or a callback of the garbage collector, where Python drops it."""
    default = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if unraisable.exc_type is KeyboardInterrupt:
            threading.Timer(0.01, _thread.interrupt_main).start()  # without delay it would be dropped again
        else:
            default(unraisable)

    sys.unraisablehook = hook


def _report(error: object, code: int) -> int:
    print(f"error: {printable(' '.join(str(error).split()))}", file=sys.stderr)
    return code


def _warn(message: object) -> None:
    print(f"warning: {printable(' '.join(str(message).split()))}", file=sys.stderr)
