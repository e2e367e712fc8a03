"""The command for data sets: list them, describe one, prepare one, compute features.

python -m mrl_jax.data list | info NAME | prepare NAME (--data-path FILE | --download) | featurize …
"""

import argparse
import json
import os
import shlex
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mrl_jax.cli import Parser, add_array_limit, add_field_flags, exit_process, path, run_command
from mrl_jax.data.cache import cache_folder
from mrl_jax.data.dataset import SPLITS, Dataset
from mrl_jax.data.emoji.versions import is_emoji_source
from mrl_jax.data.featurize.pipeline import add_arguments, run
from mrl_jax.data.load import load_dataset
from mrl_jax.data.published import prepared
from mrl_jax.data.published.catalog import CATALOG, EMOJI, HUB_REPOSITORY, FeatureSet
from mrl_jax.data.published.prepare import prepare
from mrl_jax.errors import DatasetWarning, InputError
from mrl_jax.names import printable, printable_lines
from mrl_jax.options import CUT_FIELDS

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(lambda: _main(argv), "the same command takes it up again")


def _main(argv: Sequence[str] | None) -> None:
    args = _parser().parse_args(argv)
    args.run(args)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m mrl_jax.data", description="List, describe and prepare data sets.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", parser_class=Parser)
    names = ", ".join(["emoji", *CATALOG])

    listing = commands.add_parser("list", help="all data sets and whether they are ready")
    listing.set_defaults(run=_list)

    info = commands.add_parser("info", help="one data set: files, where published, digests, splits, class histogram")
    info.add_argument("name", metavar="NAME", help=f"{names}; any other name together with --data-path")
    info.add_argument(
        "--data-path", type=path, metavar="FILE", help="describe this file or folder instead of the prepared copy"
    )
    info.add_argument("--modalities", nargs="+", default=(), metavar="MODALITY")
    add_field_flags(info, CUT_FIELDS)
    add_array_limit(info)
    info.add_argument("--verify", action="store_true", help="read the complete prepared copy and compare its digests")
    info.add_argument("--json", action="store_true", help="print JSON")
    info.set_defaults(run=_info)

    preparing = commands.add_parser("prepare", help="turn a published file into memory-mapped arrays and TFDS records")
    preparing.add_argument("name", metavar="NAME", help=names)
    preparing.add_argument("--data-path", type=path, metavar="FILE", help="file or folder of the set")
    preparing.add_argument("--download", action="store_true", help=f"download it from the hub ({HUB_REPOSITORY})")
    preparing.add_argument("--modalities", nargs="+", default=(), metavar="MODALITY", help="default: all in the file")
    add_field_flags(preparing, CUT_FIELDS)
    add_array_limit(preparing)
    preparing.add_argument("--overwrite", action="store_true", help="replace a copy that was made from other data")
    preparing.set_defaults(run=_prepare)

    features = commands.add_parser("featurize", help="compute features of pictures and texts with Hugging Face models")
    add_arguments(features)
    features.set_defaults(run=run)
    return parser


def _cut(args: argparse.Namespace) -> dict[str, Any]:
    """The flags that say how arrays are named and cut, of those that are given, as arguments of `load_dataset`."""
    return {name: getattr(args, name) for name in CUT_FIELDS if hasattr(args, name)}


def _list(args: argparse.Namespace) -> None:
    rows = [("name", "classes", "train / valid / test", "ready", "file")]
    rows.append(("emoji", str(EMOJI.classes), _sizes(EMOJI), "yes", "comes with the package"))
    for name, facts in CATALOG.items():
        ready = printable("; ".join(" ".join(p.parent.name.split("-")) for p in prepared.copies(name)))
        rows.append((name, str(facts.classes), _sizes(facts), ready or "no", facts.files[0].names))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    for row in rows:
        print("  ".join([*(cell.ljust(w) for cell, w in zip(row[:4], widths, strict=True)), row[4]]).rstrip())
    print(f"\nprepared sets are in {cache_folder()}; python -m mrl_jax.data info NAME describes one")


def _sizes(facts: FeatureSet) -> str:
    return " / ".join(f"{facts.sizes[s]:,}" for s in SPLITS)


def _info(args: argparse.Namespace) -> None:
    _check_info(args)
    facts = EMOJI if is_emoji_source(args.name) else CATALOG.get(args.name)
    data = None
    if args.data_path is not None:
        data = load_dataset(Path(args.data_path), args.modalities, set_name=args.name if facts else None, **_cut(args))
    elif facts is EMOJI or args.modalities or prepared.copies(args.name):  # with modalities, no copy is an error
        data = load_dataset(args.name, args.modalities, **_cut(args))  # a cut is of emoji, as checked
    output: dict[str, Any] = {"name": args.name}
    if facts is not None:
        output["published"] = _published(facts)
    if data is not None:
        output["data"] = _contents(data)
    if args.verify:
        output["verified"] = _verified(args.name)
    if args.json:
        print(printable_lines(json.dumps(output, indent=2, ensure_ascii=False)))
        return
    if facts is not None:
        _print_facts(args.name, facts)
    if data is None:
        print(f"\nnot prepared; run: python -m mrl_jax.data prepare {args.name} --data-path FILE")
    else:
        _print_contents(output["data"])
    if args.verify:
        print(f"verified: {output['verified']} arrays are unchanged")


def _check_info(args: argparse.Namespace) -> None:
    """Refuse wrong arguments before anything is read or prepared."""
    _check_path(args.data_path)
    emoji = is_emoji_source(args.name)
    if args.data_path is not None and (args.verify or emoji):
        reason = "--verify compares the prepared copy" if args.verify else "emoji comes with the package"
        raise InputError(f"{reason}, and --data-path names another file; give one of the two")
    given = [name for name in _cut(args) if not (emoji and name == "split_seed")]
    if args.data_path is None and given:
        raise InputError(f"--{given[0].replace('_', '-')} is for a file; give it with --data-path")
    if args.data_path is None and not emoji and args.name not in CATALOG:
        raise InputError(f"unknown data set {args.name!r}; choose from emoji, {', '.join(CATALOG)}, or add --data-path")
    if emoji and args.verify:
        raise InputError(
            "emoji comes with the package and has no prepared copy that could be verified; leave --verify out"
        )


def _check_path(path: str | None) -> None:
    if path is not None and not path.strip():
        raise InputError("--data-path is empty; give the path of a file or folder")


def _verified(name: str) -> int:
    """Number of arrays of all prepared copies, after a check of their digests."""
    count = 0
    for folder in prepared.copies(name):
        if bad := prepared.verify(folder):
            raise InputError(f"{folder} is damaged: {', '.join(bad)} changed; prepare {name} again")
        count += len(prepared.read_index(folder)["arrays"])
    if count == 0:
        raise InputError(f"{name}: there is no prepared copy to verify; prepare it first")
    return count


def _published(facts: FeatureSet) -> dict[str, Any]:
    return {
        "title": facts.title,
        "classes": facts.classes,
        "instances": dict(facts.sizes),
        "dims": dict(facts.dims),
        "features": facts.features,
        "files": [{"names": f.names, "keys": f.keys, "note": f.note} for f in facts.files],
        "where": facts.published,
        "in_paper": facts.in_paper,
    }


def _contents(data: Dataset) -> dict[str, Any]:
    """Description of a data set, as values that JSON can hold."""
    samples = {s: {m: int(data.splits[s].present(m).sum()) for m in data.modalities} for s in SPLITS}
    histogram = {
        s: {m: np.bincount(data.splits[s].samples(m)[1], minlength=data.num_classes).tolist() for m in data.modalities}
        for s in SPLITS
    }
    return {
        "modalities": data.dims,
        "class_names": list(data.class_names),
        "instances": {s: len(data.splits[s]) for s in SPLITS},
        "samples": samples,
        "histogram": histogram,
        "sha256": data.digest(),
        "metadata": dict(data.metadata),
    }


def _print_facts(name: str, facts: FeatureSet) -> None:
    print(f"{name}: {facts.title}, {facts.classes} classes, {_sizes(facts)} instances (train / valid / test)")
    print(facts.features)
    if not facts.in_paper:
        print("not in the paper; the values of the preset are not the paper's")
    for file in facts.files:
        print(f"file: {file.names}\n      keys: {file.keys}" + (f"\n      {file.note}" if file.note else ""))
    print(f"where: {facts.published}")
    if facts.hub_file:
        print(f"       python -m mrl_jax.data prepare {name} --download downloads and verifies it")


def _print_contents(data: Mapping[str, Any]) -> None:
    lines = ["", f"data: {data['metadata'].get('prepared') or data['metadata'].get('source')}"]
    lines.append(f"sha256: {data['sha256']}")
    for m, d in data["modalities"].items():
        counts = " / ".join(f"{data['samples'][s][m]:,}" for s in SPLITS)
        lines.append(f"{m}: {d} features, {counts} samples (train / valid / test)")
    if cut := data["metadata"].get("cut"):
        rule = f"split {cut['split']}" if "split" in cut else cut.get("rule") or f"{cut['valid_share']:g} of train"
        seed = f", seed {cut['seed']}" if "seed" in cut else ""
        lines.append(f"cut: {'' if 'split' in cut else 'validation: '}{rule}, by {cut['by']}{seed}")
    lines += [f"differs: {line}" for line in data["metadata"].get("deviations", ())]
    print("\n".join(map(printable, lines)))
    first = next(iter(data["modalities"]))
    names = [printable(name) for name in data["class_names"]]
    width = max(5, *map(len, names))
    print(f"\n{'class':<{width}}  {'train':>7} {'valid':>7} {'test':>7}   ({printable(first)})")
    for k, name in enumerate(names):
        print(f"{name:<{width}}  " + " ".join(f"{data['histogram'][s][first][k]:>7,}" for s in SPLITS))


def _prepare(args: argparse.Namespace) -> None:
    _check_path(args.data_path)
    if args.name == "emoji":
        if args.data_path is not None or args.download or args.modalities or args.overwrite or _cut(args):
            raise InputError("emoji comes with the package: prepare takes no flags for it; leave them out")
        load_dataset("emoji")
        print("emoji: ready (it comes with the package)")
        return
    if args.name not in CATALOG:
        raise InputError(f"unknown data set {args.name!r}; choose from: emoji, {', '.join(CATALOG)}")
    if args.download == (args.data_path is not None):
        raise InputError(
            f"prepare {args.name} needs either --data-path FILE (the file or folder that you have: "
            f"{CATALOG[args.name].files[0].names}) or --download"
        )
    source = args.data_path if args.data_path is not None else _download(args.name)
    folder = prepare(args.name, source, args.modalities, overwrite=args.overwrite, progress=True, **_cut(args))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DatasetWarning)  # reported already when the source was read
        data = load_dataset(args.name, prepared.read_index(folder)["modalities"])  # a smaller copy may exist as well
    _print_contents(_contents(data))
    # The presets use image and text.
    choice = (
        "" if set(data.modalities) >= {"image", "text"} else f" --modalities {printable(shlex.join(data.modalities))}"
    )
    print(f"\nprepared in {folder}\nnow: python -m mrl_jax.train {args.name}{choice}")


def _download(name: str) -> str | os.PathLike[str]:
    facts = CATALOG[name]
    if facts.hub_file is None:
        raise InputError(f"{name} is not on the hub ({facts.published}); give your file with --data-path")
    from mrl_jax.data.published import hub

    return hub.download(HUB_REPOSITORY, facts.hub_file, cache_folder() / "downloads" / name)


if __name__ == "__main__":
    exit_process(main())
