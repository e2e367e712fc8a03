"""Audit the labels of a run or of a data set: which are probably wrong, how much noise there is, duplicates, outliers.

python -m mrl_jax.audit --workdir DIR [--csv F] [--parquet F] [--json [F]] [--html F]
    [--write-cleaned F [--keep SHARE]]
python -m mrl_jax.audit --data-path FILE …        no training needed
"""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mrl_jax.cli import Parser, add_field_flags, add_shown_flags, exit_process, output_path, path, run_command
from mrl_jax.errors import InputError
from mrl_jax.files import check_outputs, pretty_json, write_atomically
from mrl_jax.options import CUT_FIELDS, MOST_NEIGHBOURS

__all__ = ["main"]

_METHODS = ("consensus", "votes", "model", "confident")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run_command(lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> None:
    args = _parser().parse_args(argv)
    _check_flags(args)
    if args.html:
        from mrl_jax.report.page import check_packages

        check_packages()
    from mrl_jax.audit.output import audit_csv, audit_text, write_cleaned, write_parquet
    from mrl_jax.audit.run import audit_data, audit_run

    data = None if args.data_path is None else Path(args.data_path)
    how: dict[str, Any] = {"method": args.method, "neighbours": args.neighbours}
    if args.workdir is not None:
        found = audit_run(args.workdir, data=data, checkpoint=args.checkpoint, **how)
    else:
        from mrl_jax.data.load import load_dataset

        cut = {name: getattr(args, name) for name in CUT_FIELDS if hasattr(args, name)}
        found = audit_data(load_dataset(Path(args.data_path), args.modalities, **cut), **how)
    audit = found.audit
    if args.csv:
        write_atomically(Path(args.csv), audit_csv(audit))
    if args.parquet:
        write_parquet(Path(args.parquet), audit)
    if args.html:
        from mrl_jax.report.audit_page import SUSPECTS, write_audit_page

        shown = {"top": max(args.top, SUSPECTS), "data": data, "pictures": args.pictures, "texts": args.texts}
        write_audit_page(found, args.html, **shown, flags=_source_flags(args))
    result = {**audit.summary(), "suspects": audit.suspects(args.top)}
    text = audit_text(found, args.top)
    if args.write_cleaned:
        cleaned = write_cleaned(Path(args.write_cleaned), found, args.keep)
        result["cleaned"] = cleaned
        done = f"{cleaned['relabelled']:,} relabelled" if args.keep is None else f"{cleaned['removed']:,} removed"
        text += f"\n\n{args.write_cleaned}: {done}; train with --data-path {args.write_cleaned}"
    if args.json not in (None, "-"):
        write_atomically(Path(args.json), pretty_json(result) + "\n")
    print(pretty_json(result) if args.json == "-" else text)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        compiles=True,
        prog="python -m mrl_jax.audit",
        description="Find labels of the training split that are probably wrong, ranked; estimate how much noise there "
        "is; find duplicates across splits, instances far from every class, and classes that look like one.",
        epilog="docs/audit.md explains every column.",
    )
    add = parser.add_argument
    add(
        "--workdir", type=path, metavar="DIR", help="folder of a run, whose labels are audited, injected noise included"
    )
    add("--data-path", type=path, metavar="FILE", help="data to audit; with --workdir the new place of the run's data")
    add("--modalities", nargs="+", default=(), metavar="M", help="of --data-path alone; default: all")
    add_field_flags(parser, CUT_FIELDS)
    add(
        "--method",
        choices=_METHODS,
        default="consensus",
        help="consensus: given labels and the votes of other instances; votes: these alone; model: the class posterior "
        "of the model, which may have memorised wrong labels; confident: cleanlab's score on the votes, for "
        "comparison; default: consensus",
    )
    add("--checkpoint", default="kept", metavar="kept|best|last|EPOCH", help="of the run; default: the model it keeps")
    add(
        "--top",
        type=int,
        default=20,
        metavar="N",
        help="suspects in the table and in JSON; default: 20. The page shows 100 of each modality, or more",
    )
    add("--neighbours", type=int, default=5, metavar="J", help="neighbours to name per suspect; default: 5")
    output = parser.add_argument_group("output, besides the table")
    output.add_argument("--csv", type=output_path, metavar="FILE", help="every sample, most suspicious first")
    output.add_argument("--parquet", type=output_path, metavar="FILE", help="the same as Parquet")
    output.add_argument(
        "--json",
        type=output_path,
        nargs="?",
        const="-",
        metavar="FILE",
        help="facts of the whole set and the top suspects; without FILE to standard output, without the table",
    )
    output.add_argument(
        "--html",
        type=output_path,
        metavar="FILE",
        help="one self-contained page: suspects with their samples and neighbours, noise, duplicates, outliers",
    )
    add_shown_flags(output, "of --html: ")
    output.add_argument(
        "--write-cleaned",
        type=output_path,
        metavar="FILE",
        help="the data with cleaned training labels (.npz), which train takes: those that are wrong with a probability "
        "above 0.5 become the suggested ones",
    )
    output.add_argument(
        "--keep",
        type=float,
        metavar="SHARE",
        help="of --write-cleaned: keep the given labels of this share of the samples, the least suspicious ones, and "
        "leave out the others",
    )
    return parser


def _check_flags(args: argparse.Namespace) -> None:
    if args.workdir is None and args.data_path is None:
        raise InputError("nothing to audit: give --workdir DIR, or --data-path FILE")
    for name, value in (("top", args.top), ("neighbours", args.neighbours)):
        if value < 0 + (name == "top"):
            raise InputError(f"--{name} {value}: it must be {1 if name == 'top' else 0} or more")
    if args.neighbours > MOST_NEIGHBOURS:
        raise InputError(f"--neighbours {args.neighbours}: it must be at most {MOST_NEIGHBOURS}")
    if args.keep is not None and not args.write_cleaned:
        raise InputError("--keep belongs to --write-cleaned FILE; give both")
    for name in ("pictures", "texts"):
        if getattr(args, name) is not None and not args.html:
            raise InputError(f"--{name} belongs to --html FILE; give both")
    if args.keep is not None and not 0.0 < args.keep <= 1.0:
        raise InputError(f"--keep {args.keep:g}: give a share greater than 0 and at most 1")
    if args.write_cleaned and Path(args.write_cleaned).suffix.lower() != ".npz":
        raise InputError(f"--write-cleaned {args.write_cleaned!r}: the data are written as .npz; name it so")
    if args.workdir is not None:
        given = [name for name in CUT_FIELDS if hasattr(args, name)] + ["modalities"] * bool(args.modalities)
        if given:
            raise InputError(f"--{given[0].replace('_', '-')} is for --data-path alone; the run knows its own")
    elif args.checkpoint != "kept":
        raise InputError("--checkpoint belongs to --workdir DIR; leave it out")
    outputs = {
        "--json": None if args.json == "-" else args.json,
        "--csv": args.csv,
        "--parquet": args.parquet,
        "--html": args.html,
        "--write-cleaned": args.write_cleaned,
    }
    check_outputs(outputs, [args.data_path, args.texts], args.workdir)


def _source_flags(args: argparse.Namespace) -> str:
    """The flags that say what is audited and how, as a shell takes them."""
    defaults = {"method": "consensus", "checkpoint": "kept", "neighbours": 5}
    words = []
    for name in ("workdir", "data_path", "modalities", *CUT_FIELDS, "method", "checkpoint", "neighbours"):
        value = getattr(args, name, None)
        if value is None or value == () or value == defaults.get(name):
            continue
        values = value if isinstance(value, list | tuple) else [value]
        words += [f"--{name.replace('_', '-')}", *(shlex.quote(str(v)) for v in values)]
    return " ".join(words)


if __name__ == "__main__":
    exit_process(main())
