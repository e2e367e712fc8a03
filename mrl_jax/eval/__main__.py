"""Score a run or embeddings of any origin, or test the difference between two of them.

python -m mrl_jax.eval --workdir DIR [--split valid|test] [--checkpoint kept|best|last|EPOCH] [--json [FILE]] …
python -m mrl_jax.eval --embeddings FILE …
python -m mrl_jax.eval --compare A B …        A, B: folders of runs or files of embeddings
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mrl_jax.cli import Parser, exit_process, output_path, path, run_command
from mrl_jax.errors import InputError
from mrl_jax.eval.embedded import Embedded
from mrl_jax.eval.embeddings import read_embeddings
from mrl_jax.eval.evaluate import PERMUTATIONS, Options, compare, embed_split
from mrl_jax.eval.output import (
    comparison_csv,
    comparison_table,
    per_query_csv,
    plot_precision_recall,
    score_csv,
    score_table,
)
from mrl_jax.eval.scores import PROTOCOLS, directions, full_report
from mrl_jax.files import check_outputs, pretty_json, write_atomically
from mrl_jax.options import REPRESENTATIONS
from mrl_jax.retrieval import measure as retrieval
from mrl_jax.retrieval.similarity import METRICS

__all__ = ["main"]

_RUN_FLAGS = ("split", "checkpoint", "data_path", "representation")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run_command(lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> None:
    args = _parser().parse_args(argv)
    _check_flags(args)
    options = Options(
        tuple(args.k or Options.k), tuple(args.protocol), args.without_relevant, args.bootstrap, metric=args.metric
    )
    data = None if args.data_path is None else Path(args.data_path)
    split, checkpoint = args.split or "test", args.checkpoint or "kept"
    if args.compare is not None:
        (a, b), kind = args.compare, args.representation
        n = PERMUTATIONS if args.permutations is None else args.permutations
        result = compare(
            a,
            b,
            data,
            split,
            checkpoint,
            modalities=args.modalities,
            options=options,
            permutations=n,
            representation=kind,
        )
        _output(args, result, comparison_csv(result), comparison_table(result))
        return
    if args.embeddings is not None:
        embedded = read_embeddings(args.embeddings, args.modalities)
        report, per_query = full_report(embedded, options)
        scores = {"source": args.embeddings, **report}
        title = args.embeddings
    else:
        embedded = embed_split(args.workdir, data, split, checkpoint, args.representation)
        report, per_query = full_report(embedded, options)
        scores = {"source": args.workdir, "checkpoint": checkpoint, "epoch": embedded.epoch, "split": split, **report}
        title = f"{split}, epoch {embedded.epoch}"
    if args.per_query:
        by_name = directions(embedded, options.protocol)
        rows = {name: embedded.rows_of(by_name[name].query) for name in per_query}
        write_atomically(Path(args.per_query), per_query_csv(per_query, rows))
    if args.plot:
        plot_precision_recall(Path(args.plot), _curves(embedded, options), title)
    _output(args, scores, score_csv(scores), f"{title}\n\n{score_table(scores)}")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        compiles=True,
        prog="python -m mrl_jax.eval",
        description="Exact retrieval scores of a run or of embeddings of any origin, and tests between two systems.",
        epilog="docs/evaluation.md defines every metric.",
    )
    what = parser.add_argument_group("what to score (give one of these)")
    what.add_argument("--workdir", type=path, metavar="DIR", help="folder of a run")
    what.add_argument(
        "--embeddings",
        type=path,
        metavar="FILE",
        help="embeddings and labels (.npz, .h5, .mat, .parquet, folder of .npy)",
    )
    what.add_argument(
        "--compare", type=path, nargs=2, metavar=("A", "B"), help="two runs or files: test their difference"
    )
    of_run = parser.add_argument_group("for runs")
    of_run.add_argument("--split", choices=("valid", "test"), help="default: test")
    of_run.add_argument("--data-path", type=path, metavar="FILE", help="other data, or the new place of the run's data")
    of_run.add_argument("--checkpoint", metavar="kept|best|last|EPOCH", help="default: the model that the run keeps")
    of_run.add_argument(
        "--representation",
        choices=REPRESENTATIONS,
        help="what items are ranked by: embedding, class posterior, or both; default: that of the run",
    )
    scoring = parser.add_argument_group("how to score")
    scoring.add_argument(
        "--modalities", nargs="+", default=(), metavar="M", help="of --embeddings or --compare; default: all"
    )
    scoring.add_argument(
        "--protocol",
        nargs="+",
        choices=PROTOCOLS,
        default=["cross"],
        help="gallery: each other modality, all others together, or the query's own; default: cross",
    )
    scoring.add_argument(
        "--metric",
        choices=METRICS,
        help="similarity to rank by, ties in gallery order; dot equals cosine for embeddings of a run, which have unit "
        "length; hamming is for embeddings that are codes; default: cosine, for class posteriors dot",
    )
    scoring.add_argument("--k", nargs="+", type=int, metavar="K", help="cut-offs; default: 1 5 10 50")
    scoring.add_argument(
        "--without-relevant",
        choices=("zero", "skip"),
        default="zero",
        help="queries without a relevant item count as 0 or are left out; default: zero",
    )
    scoring.add_argument(
        "--bootstrap",
        type=int,
        default=1000,
        metavar="N",
        help="samples for intervals, 0 for none; default: 1000",
    )
    scoring.add_argument("--permutations", type=int, metavar="N", help=f"of --compare; default: {PERMUTATIONS}")
    output = parser.add_argument_group("output, besides the table")
    output.add_argument(
        "--json",
        type=output_path,
        nargs="?",
        const="-",
        metavar="FILE",
        help="all scores; without FILE to standard output, without the table",
    )
    output.add_argument("--csv", type=output_path, metavar="FILE", help="all scores, one per line")
    output.add_argument("--per-query", type=output_path, metavar="FILE", help="every metric of every query, CSV")
    output.add_argument("--plot", type=output_path, metavar="FILE", help="precision-recall curves, PNG")
    return parser


def _check_flags(args: argparse.Namespace) -> None:
    """Refuse contradictory flags before anything is computed."""
    given = [name for name in ("workdir", "embeddings", "compare") if getattr(args, name) is not None]
    if len(given) != 1:
        text = "all of them" if len(given) == 3 else " and ".join(f"--{n}" for n in given) or "none"
        raise InputError(f"give one of --workdir DIR, --embeddings FILE and --compare A B ({text} given)")
    unused = {
        "workdir": ("modalities", "permutations"),
        "embeddings": (*_RUN_FLAGS, "permutations"),
        "compare": ("k", "per_query", "plot"),
    }
    if given == ["compare"] and not any((Path(x) / "config.json").is_file() for x in args.compare):
        unused["compare"] += _RUN_FLAGS  # two files
    for name in unused[given[0]]:
        if getattr(args, name) not in (None, ()):
            what = "--compare of two files" if name in _RUN_FLAGS and given == ["compare"] else f"--{given[0]}"
            raise InputError(f"--{name.replace('_', '-')} cannot be combined with {what}; leave it out")
    outputs = {
        "--json": None if args.json == "-" else args.json,
        "--csv": args.csv,
        "--per-query": args.per_query,
        "--plot": args.plot,
    }
    check_outputs(outputs, [args.embeddings, args.data_path, *(args.compare or ())], args.workdir)


def _output(args: argparse.Namespace, result: Mapping[str, Any], table_csv: str, table: str) -> None:
    if args.csv:
        write_atomically(Path(args.csv), table_csv)
    if args.json not in (None, "-"):
        write_atomically(Path(args.json), pretty_json(result) + "\n")
    print(pretty_json(result) if args.json == "-" else table)


def _curves(embedded: Embedded, options: Options) -> dict[str, Any]:
    """Precision at 101 levels of recall, mean over the queries, per direction."""
    if embedded.labels is None:
        raise InputError(f"{embedded.source}: --plot needs labels, and there are none; leave it out")
    curves = {}
    for name, d in directions(embedded, options.protocol).items():
        gallery = np.concatenate([embedded.embeddings[m] for m in d.gallery])
        labels = np.concatenate([embedded.labels[m] for m in d.gallery])
        curves[name] = retrieval.precision_recall_curve(
            embedded.embeddings[d.query],
            gallery,
            embedded.labels[d.query],
            labels,
            exclude_self=d.exclude_self,
            without_relevant=options.without_relevant,
            metric=options.metric_for(embedded),
        )
    return curves


if __name__ == "__main__":
    exit_process(main())
