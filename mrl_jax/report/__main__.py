"""The command `python -m mrl_jax.report`."""

from collections.abc import Sequence
from pathlib import Path

from mrl_jax.cli import Parser, add_shown_flags, exit_process, output_path, path, run_command
from mrl_jax.errors import InputError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run_command(lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> None:
    parser = Parser(
        compiles=True,
        prog="python -m mrl_jax.report",
        description="One page of HTML on a run, or on several: protocol, scores, whether it memorised, samples.",
        epilog="docs/report.md says how to read it.",
    )
    parser.add_argument(
        "--workdir", type=path, nargs="+", metavar="DIR", help="folder of a run or a sweep; several are compared"
    )
    parser.add_argument(
        "--html", type=output_path, metavar="FILE", help="file to write; default: report.html in the folder"
    )
    parser.add_argument("--split", choices=("test", "valid"), default="test", help="default: test")
    parser.add_argument("--data-path", type=path, metavar="FILE", help="other data, or the new place of the runs' data")
    add_shown_flags(parser)
    parser.add_argument("--title", metavar="TEXT", help="heading of the page; default: data and method")
    args = parser.parse_args(argv)
    if not args.workdir:
        raise InputError("a report needs the folder of a run or a sweep: --workdir DIR")

    from mrl_jax.report.write import write_report  # deferred: brings JAX

    data = None if args.data_path is None else Path(args.data_path)
    page = write_report(
        args.workdir,
        args.html,
        split=args.split,
        data=data,
        title=args.title,
        pictures=args.pictures,
        texts=args.texts,
        progress=True,
    )
    print(f"report: {page} ({page.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    exit_process(main())
