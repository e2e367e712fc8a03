"""Search with a run: find the nearest items of a gallery for a text, a picture or a row of the run's data.

python -m mrl_jax.search --workdir DIR (--text "…" | --image FILE | --row MODALITY:SPLIT:INDEX) [--top 10]
python -m mrl_jax.search --workdir DIR --serve [--host 127.0.0.1 --port 8000]
"""

import argparse
import contextlib
import functools
import gc
import importlib.util
import io
import json
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mrl_jax.cli import Parser, add_shown_flags, exit_process, output_path, path, run_command
from mrl_jax.errors import InputError
from mrl_jax.files import check_outputs
from mrl_jax.names import printable, printable_lines
from mrl_jax.options import REPRESENTATIONS

if TYPE_CHECKING:
    from mrl_jax.search.output import Pictures
    from mrl_jax.search.searcher import Searcher

__all__ = ["main"]

_SERVER = ("starlette", "uvicorn", "httptools")
"""Packages of the extra `serve`."""

_LINES = {
    "TEXT": "the nearest items of a text",
    ":text TEXT": "the same, for a text that begins with a colon",
    ":image FILE": "the nearest items of a picture",
    ":row MODALITY:SPLIT:INDEX": "the nearest items of a row of the run's data, such as image:test:7",
    ":help": "this list",
    ":quit": "end",
}
"""What a line of --interactive may be."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run_command(lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> None:
    args = _parser().parse_args(argv)
    _check_flags(args)
    if args.serve:
        _serve(args)
        return
    with _fast_start():  # imports take most of the time to the first answer: flags are checked before
        from mrl_jax.search.output import pictures_of
        from mrl_jax.search.searcher import Query, Searcher

    data = None if args.data_path is None else Path(args.data_path)
    with _warming_up(args):
        how = (args.metric, args.representation)
        searcher = Searcher(args.workdir, args.modality, args.split, data, args.checkpoint, *how, args.texts)
        pictures = pictures_of(searcher, args.pictures) if args.png else None
        searcher.prepare()
    answers = [searcher.answer(Query(kind, value, args.query_modality), args.top) for kind, value in args.queries]
    if answers:
        _show(answers, args, pictures)
    if args.interactive:
        _converse(searcher, args, pictures)


def _serve(args: argparse.Namespace) -> None:
    missing = [name for name in _SERVER if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"--serve needs {', '.join(missing)}, not installed here; run: pip install {' '.join(missing)}"
        )
    with _fast_start():
        from mrl_jax.search.searcher import Searcher
        from mrl_jax.search.server.serving import bind, serve

    data = None if args.data_path is None else Path(args.data_path)
    how = (args.metric, args.representation)
    with bind(args.host or "127.0.0.1", 8000 if args.port is None else args.port) as bound:  # before all is loaded
        print(f"loading {printable(args.workdir)}, which takes some seconds", file=sys.stderr, flush=True)
        searcher = Searcher(args.workdir, None, args.split, data, args.checkpoint, *how, args.texts)
        serve(searcher, args.pictures, args.top, bound)


@contextlib.contextmanager
def _fast_start() -> Iterator[None]:
    """Pause garbage collection: imports create hundreds of thousands of objects that stay."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


@contextlib.contextmanager
def _warming_up(args: argparse.Namespace) -> Iterator[None]:
    """Compile in a thread meanwhile; errors in it are ignored, since the search itself reports them."""
    from mrl_jax.search.searcher import warm_up

    def work() -> None:
        with contextlib.suppress(Exception):
            kind, value = next(iter(args.queries), ("text", ""))
            row, split, _ = [*value.rsplit(":", 2), "", ""][:3] if kind == "row" else ("", None, "")
            query, how = row or args.query_modality or kind, (args.metric, args.representation)
            warm_up(args.workdir, query, args.modality, args.split, args.top, split, *how)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def _show(answers: Sequence[dict[str, Any]], args: argparse.Namespace, pictures: "Pictures | None") -> None:
    from mrl_jax.files import atomic_path
    from mrl_jax.search.output import answer_table, write_grid

    if pictures is not None:
        write_grid(Path(args.png), answers, pictures)
    if args.json is None:
        print("\n\n".join(map(answer_table, answers)), flush=True)
    elif args.interactive:  # one line per answer
        print("\n".join(printable(json.dumps(answer, ensure_ascii=False)) for answer in answers), flush=True)
    else:
        text = printable_lines(json.dumps({"queries": answers}, indent=2, ensure_ascii=False))
        if args.json == "-":
            print(text)
            return
        with atomic_path(Path(args.json)) as part:
            part.write_text(text + "\n", "utf-8")
        print("\n\n".join(map(answer_table, answers)))


def _converse(searcher: "Searcher", args: argparse.Namespace, pictures: "Pictures | None") -> None:
    """Answer line by line until the end of the input; an error in a line is printed, and the next line is read."""
    from mrl_jax.display.tables import aligned_lines
    from mrl_jax.search.searcher import Query

    if sys.stdin is None:  # standard input is closed
        return
    terminal = sys.stdin.isatty()
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # a line that is no valid text is an error of its own
    if terminal:
        print("type a text, or :image FILE, :row MODALITY:SPLIT:INDEX; :help lists all, :quit ends", file=sys.stderr)
    while True:
        if terminal:
            print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        command, _, rest = line.strip().partition(" ")
        if not line or command == ":quit":
            return
        if not command:
            continue
        if command == ":help":
            print("\n".join(aligned_lines([*_LINES.items()], left=(0, 1))), file=sys.stderr, flush=True)
            if args.json is not None:  # one line of output per line of input
                print(json.dumps({"help": _LINES}), flush=True)
            continue
        kind = command[1:] if command in (":image", ":row", ":text") else "text"
        value = rest.strip() if command.startswith(":") and kind == command[1:] else line.strip()
        try:
            if command.startswith(":") and value == line.strip():
                raise InputError(f"{command} is unknown; give {', '.join(_LINES)}")
            _show([searcher.answer(Query(kind, value, args.query_modality), args.top)], args, pictures)
        except InputError as error:
            message = " ".join(str(error).split())
            print(f"error: {message}", file=sys.stderr, flush=True)
            if args.json is not None:  # one line of output per line of input
                print(json.dumps({"error": message}, ensure_ascii=False), flush=True)


def _check_flags(args: argparse.Namespace) -> None:
    _check_serve(args)
    if not args.queries and not args.interactive and not args.serve:
        raise InputError("nothing to search for; give --text, --image or --row, or --interactive, or --serve")
    if args.top < 1:
        raise InputError(f"--top {args.top}: it must be 1 or more")
    for kind, value in args.queries:
        if kind == "image" and not Path(value).name:
            raise InputError(f"--image {value!r} is no file name; give the path of a picture")
    if args.data_path is not None and not Path(args.data_path).expanduser().exists():
        raise InputError(f"--data-path {args.data_path!r} does not exist; give the file or folder of the data")
    if args.query_modality is not None and not args.interactive and all(k == "row" for k, _ in args.queries):
        raise InputError("--query-modality is for texts and pictures, and a row has its own modality; leave it out")
    pictures = [value for kind, value in args.queries if kind == "image"]
    outputs = {"--json": None if args.json == "-" else args.json, "--png": args.png}
    check_outputs(outputs, [args.data_path, args.texts, *pictures], args.workdir)
    if args.interactive and args.json not in (None, "-"):
        raise InputError("--interactive writes JSON to standard output, one line per answer; leave the file out")
    if args.pictures is not None and args.png is None and not args.serve:
        raise InputError("--pictures is used only for the picture grid and the page; add --png FILE, or --serve")


def _check_serve(args: argparse.Namespace) -> None:
    if not args.serve:
        if args.host is not None or args.port is not None:
            raise InputError("--host and --port are for the page; add --serve")
        return
    others = {"--interactive": args.interactive, "--json": args.json, "--png": args.png, "--modality": args.modality}
    others |= {f"--{kind}": value for kind, value in args.queries} | {"--query-modality": args.query_modality}
    if given := [flag for flag, value in others.items() if value not in (None, False)]:
        raise InputError(f"{given[0]} does not go with --serve: queries come from the page; leave it out")
    if args.port is not None and not 0 <= args.port <= 65535:
        raise InputError(f"--port {args.port}: it must be from 0 to 65535; 0 takes a free one")


def _query(kind: str, value: str) -> tuple[str, str]:
    return kind, path(value) if kind == "image" else value


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        compiles=True,
        prog="python -m mrl_jax.search",
        description="Search with a run: find the nearest items of a gallery for a text, a picture or a row of the "
        "run's data. --text, --image and --row may be repeated.",
    )
    add = parser.add_argument
    add("--workdir", type=path, required=True, metavar="DIR", help="folder of the run")
    for kind, metavar, text in (
        ("text", "TEXT", "a text, for runs on the emoji set or on files made by featurize"),
        ("image", "FILE", "a picture, for the same runs"),
        ("row", "MODALITY:SPLIT:INDEX", "a row of the run's data, counted from 0, such as image:test:7"),
    ):
        query = {"dest": "queries", "action": "append", "type": functools.partial(_query, kind), "default": []}
        add(f"--{kind}", metavar=metavar, help=text, **query)  # type: ignore[arg-type]
    add(
        "--interactive",
        action="store_true",
        help="answer lines of standard input: texts, :image FILE, :row …, :help",
    )
    add("--serve", action="store_true", help="serve a page and a JSON API until Ctrl-C; needs the extra serve")
    add("--host", metavar="ADDRESS", help="with --serve: address to listen on (default: 127.0.0.1, this machine only)")
    add("--port", type=int, metavar="N", help="with --serve: its port, 0 for a free one (default: 8000)")
    add("--top", type=int, default=10, metavar="K", help="results per query (default: 10)")
    add("--modality", metavar="NAME", help="modality of the gallery (default: the first that is not the query's)")
    add("--query-modality", metavar="NAME", help="modality of a text or picture (default: the first that takes it)")
    add(
        "--split",
        nargs="+",
        default=["test"],
        choices=("train", "valid", "test"),
        help="splits of the gallery (default: test)",
    )
    add(
        "--metric",
        choices=("cosine", "dot", "hamming"),
        help="similarity to rank by, ties in gallery order; dot equals cosine for embeddings of a run, which have unit "
        "length; hamming is for embeddings that are codes (default: cosine, for class posteriors dot)",
    )
    add(
        "--representation",
        choices=REPRESENTATIONS,
        help="rank by the embedding, by the class posterior (scores are the probability of the same class), or by both "
        "(plus 0.01 times the cosine of the embeddings); default: that of the run",
    )
    add("--checkpoint", default="kept", metavar="kept|best|last|EPOCH", help="default: the model that the run keeps")
    add("--data-path", type=path, metavar="FILE", help="other data, or the new place of the run's data")
    add(
        "--json",
        type=output_path,
        nargs="?",
        const="-",
        metavar="FILE",
        help="write JSON; without FILE to standard output",
    )
    add("--png", type=output_path, metavar="FILE", help="draw the results as a picture, one line per query")
    add_shown_flags(parser)
    return parser


if __name__ == "__main__":
    exit_process(main())
