"""Write a trained model, or the rows of its data, for other programs; or take in weights of the official MRL.

python -m mrl_jax.export --workdir DIR --format safetensors|torch|stablehlo|onnx|embeddings|card --out PATH
python -m mrl_jax.export --from CHECKPOINT.t7 --workdir NEW [PRESET] [--data-path FILE] [--modalities A B]
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mrl_jax.cli import Parser, add_field_flags, exit_process, output_path, path, run_command
from mrl_jax.config import PRESETS
from mrl_jax.data.dataset import SPLITS
from mrl_jax.errors import InputError
from mrl_jax.options import CUT_FIELDS, REPRESENTATIONS

__all__ = ["main"]

_OF_ROWS = ("embeddings", "card")
_OF_IMPORT = ("preset", "modalities", *(name for name in CUT_FIELDS if name != "split"))


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run_command(lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> None:
    args = _parser().parse_args(argv)
    _check_flags(args)
    if args.source is not None:
        _import(args)
        return
    from mrl_jax.export.write import export

    data = None if args.data_path is None else Path(args.data_path)
    how = {"checkpoint": args.checkpoint, "representation": args.representation, "split": args.split or "test"}
    print("\n".join(map(str, export(args.workdir, args.out, args.format, data=data, pictures=args.pictures, **how))))


def _import(args: argparse.Namespace) -> None:
    from mrl_jax.export.official import import_official
    from mrl_jax.run.folder import RunFolder

    settings = {name: getattr(args, name) for name in _OF_IMPORT if hasattr(args, name)}
    settings |= {} if args.split is None else {"split": args.split}
    run = import_official(args.source, args.workdir, data_path=args.data_path, **settings)
    print(f"{args.workdir}: {', '.join(run.modalities)}, {len(run.class_names)} classes, epoch {run.epoch}")
    recorded = RunFolder.open(args.workdir).data()["imported"]["scores"]
    if recorded:
        print("its own test scores: " + ", ".join(f"{name} {value:.3f}" for name, value in recorded.items()))
    print(f"scores here: python -m mrl_jax.eval --workdir {args.workdir}")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        compiles=True,
        prog="python -m mrl_jax.export",
        description="Write a trained model, or the rows of its data, in the form of another program; or make a run "
        "folder of weights of the official implementation of MRL.",
        epilog="docs/export.md describes each format.",
    )
    add = parser.add_argument
    add("--workdir", type=path, required=True, metavar="DIR", help="folder of the run; with --from a new one")
    add(
        "--format",
        choices=("safetensors", "torch", "stablehlo", "onnx", "embeddings", "card"),
        help="safetensors: tensors with the names of PyTorch; torch: a state and its module as .py; stablehlo: "
        "programs of JAX; onnx; embeddings: rows of a split; card: a model card",
    )
    add(
        "--out",
        type=output_path,
        metavar="PATH",
        help="file to write; a new folder for stablehlo and onnx; for embeddings .npz, .parquet or a new folder "
        "(layout of clip-retrieval)",
    )
    add("--checkpoint", default="kept", metavar="kept|best|last|EPOCH", help="default: the model that the run keeps")
    add("--representation", choices=REPRESENTATIONS, help="what rows are; default: that of the run")
    add(
        "--split",
        metavar="SPLIT",
        help="of embeddings and card: train, valid or test; default: test. With --from: how the data are cut, as in "
        "training",
    )
    add("--data-path", type=path, metavar="FILE", help="other data, or the new place of the run's data")
    add("--pictures", type=path, metavar="FOLDER", help="of embeddings: pictures named by id, whose paths are written")
    taken = parser.add_argument_group("weights of the official implementation")
    taken.add_argument("--from", dest="source", type=path, metavar="FILE", help="its checkpoint (.t7); needs torch")
    taken.add_argument(
        "preset", nargs="?", metavar="PRESET", default=argparse.SUPPRESS, help=f"its data: {', '.join(PRESETS)}"
    )
    add_field_flags(taken, _OF_IMPORT[1:])  # type: ignore[arg-type]
    return parser


def _check_flags(args: argparse.Namespace) -> None:
    if args.source is not None:
        given = [name for name in ("format", "out", "representation", "pictures") if getattr(args, name)]
        if given or args.checkpoint != "kept":
            raise InputError(f"--{(given or ['checkpoint'])[0]} does not go with --from, which makes a run folder")
        return
    if given := [name for name in _OF_IMPORT if hasattr(args, name)]:
        name = "PRESET" if given[0] == "preset" else f"--{given[0].replace('_', '-')}"
        raise InputError(f"{name} belongs to --from FILE; the run knows its own data")
    if args.split is not None and args.split not in SPLITS:
        raise InputError(f"--split {args.split}: choose from {', '.join(SPLITS)}")
    if args.format is None or args.out is None:
        raise InputError("nothing to write: give --format and --out, or --from FILE to make a run folder of weights")
    for name, formats in (("split", _OF_ROWS), ("data_path", _OF_ROWS), ("pictures", ("embeddings",))):
        if getattr(args, name) is not None and args.format not in formats:
            raise InputError(f"--{name.replace('_', '-')} belongs to --format {' or '.join(formats)}; leave it out")


if __name__ == "__main__":
    exit_process(main())
