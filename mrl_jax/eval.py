"""Evaluate a run: checkpoint -> embeddings -> mAP of every direction.

python -m mrl_jax.eval --workdir DIR [--split valid|test] [--checkpoint best|last|EPOCH] [--json [FILE]]
"""

import json
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mrl_jax.cli import Parser, run_command
from mrl_jax.data import SPLITS, load_dataset
from mrl_jax.data.catalog import CATALOG
from mrl_jax.errors import DatasetWarning, InputError, NonFiniteLossError
from mrl_jax.report import table
from mrl_jax.retrieval import cross_modal_chance, cross_modal_map
from mrl_jax.run import Run, RunFolder, load_run

__all__ = ["evaluate", "main", "score"]


def score(z: Mapping[str, Any], labels: Mapping[str, Any]) -> dict[str, Any]:
    """mAP of every direction.

    Args:
        z: modality -> embeddings [N, L].
        labels: modality -> integers [N].

    Returns:
        `{"map": {"a->b": mAP, …}, "average": mean over the directions}`.

    Raises:
        NonFiniteLossError: an embedding is inf or NaN.
    """
    for m, rows in z.items():
        if not bool(jax.numpy.isfinite(rows).all()):
            raise NonFiniteLossError(f"the embeddings of {m} are not finite")
    by_direction = cross_modal_map(z, labels)
    return {"map": by_direction, "average": sum(by_direction.values()) / len(by_direction)}


def evaluate(
    run: Run | str | os.PathLike[str], data: Any = None, split: str = "test", checkpoint: str | int = "best"
) -> dict[str, Any]:
    """Evaluate a run on a split of its data.

    Args:
        run: the folder of a run, or a `Run` from `load_run`.
        data: anything `load_dataset` takes; None for the data that the run's configuration names.
        split: "train", "valid" or "test"; labels are those of the data set, without injected noise, but a run with
            noisy validation labels, given by its folder, is scored on these.
        checkpoint: "best", "last" or a number of epochs; only used with a folder.

    Returns:
        `{"epoch", "split", "map": {"a->b": mAP}, "average", "chance": {"a->b": class prior}}`.

    Raises:
        InputError: no run, no such checkpoint or split, or data that do not fit the run.
    """
    if split not in SPLITS:
        raise InputError(f"split {split!r}: choose from {', '.join(SPLITS)}")
    recorded = given = None
    if not isinstance(run, Run):
        folder = RunFolder.open(run)
        recorded = folder.data() if data is None else None
        given = folder.noise().get("validation", {}).get("labels") if data is None else None
        run = load_run(run, checkpoint)
    if data is None:
        in_memory = run.config.preset == "custom" and run.config.data_path is None
        if in_memory or (recorded is not None and recorded.get("in_memory")):
            raise InputError("this run was trained on arrays in memory; pass them: evaluate(run, data)")
        data = run.config.data_path or run.config.preset
    set_name = run.config.preset if run.config.preset in CATALOG else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DatasetWarning)  # training told it
        dataset = load_dataset(data, run.modalities, set_name=set_name)
    if recorded is not None and dataset.digest() != recorded["sha256"]:
        raise InputError(f"data {str(data)!r} have changed since the run was trained; restore them")
    samples = {m: dataset.splits[split].samples(m) for m in run.modalities}
    labels = {m: y for m, (_, y) in samples.items()}
    if split == "valid" and given is not None:
        labels = {m: np.asarray(given[m], np.int32)[: len(y)] for m, y in dataset.splits["valid"].labels.items()}
        labels = {m: y[dataset.splits["valid"].present(m)] for m, y in labels.items()}
    z = run.embed({m: x for m, (x, _) in samples.items()})
    with jax.default_matmul_precision(run.config.matmul_precision):
        scores = score(z, labels)
    return {"epoch": run.epoch, "split": split, **scores, "chance": cross_modal_chance(labels)}


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run_command(lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> None:
    parser = Parser(prog="python -m mrl_jax.eval", description="Retrieval scores of a run, exact, from its checkpoint.")
    parser.add_argument("--workdir", required=True, metavar="DIR", help="folder of the run")
    parser.add_argument("--split", default="test", choices=("valid", "test"), help="default: test")
    parser.add_argument("--data-path", metavar="FILE", help="other data, or the run's own at another place")
    parser.add_argument(
        "--checkpoint", default="best", metavar="best|last|EPOCH", help="default: best by validation mAP"
    )
    parser.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="write JSON; without FILE to standard output"
    )
    args = parser.parse_args(argv)
    if args.json is not None and not Path(args.json).name:
        raise InputError(f"--json {args.json!r} names no file; leave the name out to write to standard output")

    data = None if args.data_path is None else Path(args.data_path)
    scores = {"checkpoint": args.checkpoint, **evaluate(args.workdir, data, args.split, args.checkpoint)}
    text = json.dumps(scores, indent=2, ensure_ascii=False)
    if args.json == "-":
        print(text)
        return
    if args.json:
        _write_whole(Path(args.json), text + "\n")

    title = f"{args.split}, epoch {scores['epoch']}"
    print(table({title: scores, "chance": {"map": scores["chance"]}}))


def _write_whole(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(text, "utf-8")
        os.replace(part, path)
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be written ({error.strerror}); name another file") from error


if __name__ == "__main__":
    sys.exit(main())
