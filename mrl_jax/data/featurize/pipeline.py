"""Compute features of pictures and texts with Hugging Face models and write them as `.npz` in the own layout.

Features are computed batch by batch into a work folder beside the output. So memory use is small, and a run that was
killed continues after its last complete batch.
"""

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mrl_jax.cli import output_path, path
from mrl_jax.data.dataset import SPLITS
from mrl_jax.data.featurize.pretrained import (
    Encode,
    check_model,
    load_encoder,
    model_key,
    package_versions,
    torch_device,
)
from mrl_jax.data.featurize.raw_table import (
    Row,
    Table,
    check_table,
    digest_inputs,
    find_pictures,
    read_table,
    reason_of,
    shown_of,
)
from mrl_jax.data.formats.npz import read_npz_array
from mrl_jax.errors import InputError
from mrl_jax.files import locked, refuse_address
from mrl_jax.json_files import ANY, Number, parse_json, read_json
from mrl_jax.names import printable_lines

__all__ = ["add_arguments", "featurize", "run"]

_DONE = {"done": Number(0, whole=True), "pooling": ANY}
_PROGRESS = {"digest": str, "image?": _DONE, "text?": _DONE}
_MADE_BY = "mrl_jax.data.featurize"  # stored in the output; must not change


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command `featurize`."""
    add = parser.add_argument
    add("--images", type=path, required=True, metavar="FOLDER", help="folder with the pictures")
    add("--texts", type=path, required=True, metavar="FILE", help="CSV: id, text, label, optionally split and image")
    add("--image-model", required=True, metavar="NAME", help="vision or two-tower model: folder or name on the hub")
    add("--text-model", required=True, metavar="NAME", help="text or two-tower model: folder or name on the hub")
    add(
        "--output",
        type=output_path,
        required=True,
        metavar="FILE",
        help=".npz to write; a run that was killed continues",
    )
    add("--batch-size", type=int, default=32, metavar="B", help="pictures or texts per batch (default: 32)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto (default): cuda if available")
    add("--seed", type=int, default=0, help="seed of the 80/10/10 split, if the table has none (default: 0)")


def run(args: argparse.Namespace) -> None:
    """Run the command `featurize` with the flags of `add_arguments`."""
    models = {"image_model": args.image_model, "text_model": args.text_model}
    options = {"batch_size": args.batch_size, "device": args.device, "seed": args.seed}
    print(featurize(args.images, args.texts, args.output, **models, **options, progress=True))


def featurize(
    images: str | os.PathLike[str],
    texts: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    image_model: str | os.PathLike[str],
    text_model: str | os.PathLike[str],
    batch_size: int = 32,
    device: str = "auto",
    seed: int = 0,
    progress: bool = False,
) -> Path:
    """Compute features of pictures and texts and write them as an `.npz` for `load_dataset`.

    Two-tower models (CLIP, SigLIP) give their projected features. Other vision models give `pooler_output`, or the
    mean over patches if that is absent or untrained. Text models give the mean of the last layer over tokens.

    Args:
        images: folder with the pictures.
        texts: CSV in UTF-8 with the columns `id`, `text` and `label`, and optionally `split` (train, valid or test;
            without it 80/10/10 by the SHA-256 of seed and id) and `image` (file name in `images`; without it the file
            whose stem is the id). An empty text or an absent picture is a missing sample: its features are zeros, and
            `{split}_{modality}_mask` is False for it. Texts and paths of pictures are written, too, as
            `{split}_{modality}_shown`: search, report and audit show them.
        output: the `.npz`. A file made from the same inputs with the same settings is left unchanged.
        image_model: folder or hub name of a vision or two-tower model.
        text_model: folder or hub name of a text or two-tower model.
        batch_size: pictures or texts per batch; it changes features only by rounding.
        device: "auto", "cpu" or "cuda".
        seed: seed of the split.
        progress: show progress on standard error: a bar on a terminal, else lines.

    Returns:
        The path of the output.

    Raises:
        InputError: the inputs, the models or the disk do not allow it; one line says why.
    """
    output = Path(output)
    models = {"image": str(image_model), "text": str(text_model)}
    for what, where in {"images": images, "texts": texts, "output": output}.items():
        refuse_address(where, what, output=what == "output")
    _check_arguments(Path(images), output, models, batch_size, device)
    table = read_table(Path(texts), seed)
    find_pictures(table.rows, Path(images))
    missing = check_table(table)
    if progress and missing:
        _say("\n".join(missing))
    made = _digest_of(output)
    inputs = digest_inputs(table.rows)
    with torch_device(device) as device:
        keys = {modality: model_key(name) for modality, name in models.items()}
        environment = {"batch_size": batch_size, "device": device, "versions": package_versions()}
        settings = {"inputs": inputs, "models": keys, **environment}
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        if made not in (None, digest):
            raise InputError(
                f"output {output} exists and was made from other inputs or with other settings; "
                "delete it or choose another output"
            )
        with _disk_errors(output):
            if made == digest:
                _remove_leftover(output, digest)
                if progress:
                    _say(f"{output}: made from these inputs with these settings already; nothing to do")
                return output
            with _work_folder(output, digest) as work:
                encoders = {m: partial(load_encoder, m, name, keys[m], device) for m, name in models.items()}
                _embed_all(work, table.rows, encoders, batch_size, progress)
                sources = {m: {"model": name, **keys[m], **work.state[m]} for m, name in models.items()}
                origin = {"digest": digest, "texts": Path(texts).name, "split": table.split_by, **sources}
                _write(work, output, table, {"made_by": _MADE_BY, **origin, **environment})
    return output


def _check_arguments(images: Path, output: Path, models: Mapping[str, str], batch_size: int, device: str) -> None:
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise InputError(f"batch size {batch_size!r}: it must be an integer of 1 or more; try 32")
    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"device {device!r} is unknown; choose auto, cpu or cuda")
    if output.suffix != ".npz":
        raise InputError(f"output {output}: features are written as .npz; give a name that ends in .npz")
    if not images.is_dir():
        raise InputError(f"images {images}: no such folder; give the folder with the pictures")
    for modality, name in models.items():
        check_model(modality, name)


class _Work:
    """The work folder: `progress.json` and a memory-mapped array for each modality with the rows of the output."""

    def __init__(self, folder: Path, state: dict[str, Any]) -> None:
        self.folder, self.state = folder, state

    def array(self, modality: str, shape: tuple[int, int] | None = None) -> np.ndarray:
        """Open the array of a modality, or make one of zeros if a shape is given."""
        path = self.folder / f"{modality}.npy"
        if shape is None:
            try:
                return np.load(path, mmap_mode="r+")
            except (OSError, ValueError) as error:
                raise InputError(
                    f"work folder {self.folder} is damaged ({reason_of(error)}); delete it and run again"
                ) from error
        array = np.lib.format.open_memmap(path, "w+", np.float32, shape)
        if hasattr(os, "posix_fallocate"):  # writing to a map kills the process if the disk is full
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        return array

    def commit(self, modality: str, done: int, pooling: str) -> None:
        """Record that the first `done` samples of a modality are on disk."""
        self.state[modality] = {"done": done, "pooling": pooling}
        self.save()

    def save(self) -> None:
        """Write `progress.json` atomically."""
        part = self.folder / "progress.json.part"
        with part.open("w", encoding="utf-8") as file:
            json.dump(self.state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, self.folder / "progress.json")


def _work_path(output: Path) -> Path:
    return output.with_name(output.name + ".partial")


@contextlib.contextmanager
def _work_folder(output: Path, digest: str) -> Iterator[_Work]:
    """Open or make the work folder of these settings; it is removed at the end, or on an error if it is empty."""
    folder = _work_path(output)
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        state = _work_state(folder)
        if len(state) > 1 and state["digest"] != digest:
            raise InputError(
                f"work folder {folder} holds features of other inputs or settings; delete it, or choose another output"
            )
        work = _Work(folder, state if state.get("digest") == digest else {"digest": digest})
        work.save()
        try:
            yield work
        except BaseException:
            if len(work.state) == 1:  # the digest alone
                shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder)


def _work_state(folder: Path) -> dict[str, Any]:
    """Content of `progress.json`; {} for a new folder."""
    try:
        return read_json(folder / "progress.json", _PROGRESS, limit=1 << 20)
    except FileNotFoundError:
        if {path.name for path in folder.iterdir()} <= {"progress.json.part"}:
            return {}
    except ValueError:
        pass
    raise InputError(f"work folder {folder} holds other files or is damaged; delete it, or choose another output")


def _locked(folder: Path) -> contextlib.AbstractContextManager[None]:
    return locked(folder, f"work folder {folder}: another process is using it; wait for its end")


def _remove_leftover(output: Path, digest: str) -> None:
    """Remove the work folder of a run that was killed between writing the output and cleaning up."""
    folder = _work_path(output)
    if folder.is_dir() and _work_state(folder).get("digest") == digest:
        shutil.rmtree(folder)


def _embed_all(
    work: _Work, rows: Sequence[Row], load: Mapping[str, Callable[[], Encode]], batch_size: int, progress: bool
) -> None:
    if not load.keys() & work.state.keys():  # so that a wrong text model is refused before hours of pictures
        load["text"]()([next(row for row in rows if row.has("text"))])
    for modality in load:
        _embed(work, modality, rows, load[modality], batch_size, progress)


def _embed(
    work: _Work, modality: str, rows: Sequence[Row], load: Callable[[], Encode], batch_size: int, progress: bool
) -> None:
    """Compute the remaining features of a modality; every batch is on disk before it counts as done."""
    present = [j for j, row in enumerate(rows) if row.has(modality)]
    done = int(work.state.get(modality, {"done": 0})["done"])
    if done == len(present):
        return
    encode = load()
    array = work.array(modality) if done else None
    with _progress(modality, len(present), done, progress) as advance:
        for start in range(done, len(present), batch_size):
            chosen = present[start : start + batch_size]
            features, pooling = encode([rows[j] for j in chosen])
            if array is None:
                array = work.array(modality, (len(rows), features.shape[1]))
            if features.shape[1] != array.shape[1]:
                raise InputError(
                    f"{modality} model gives {features.shape[1]} features for id {rows[chosen[0]].id!r} and "
                    f"{array.shape[1]} for rows before it; choose a model with features of one size"
                )
            array[chosen] = features
            array.flush()  # type: ignore[attr-defined]
            work.commit(modality, start + len(chosen), pooling)
            advance(len(chosen))


def _write(work: _Work, output: Path, table: Table, source: Mapping[str, Any]) -> None:
    """Write the `.npz` atomically. Its members have a fixed date, so that equal features give equal bytes."""
    part = work.folder / "output.npz"
    features = {modality: work.array(modality) for modality in ("image", "text")}
    number = {name: k for k, name in enumerate(table.class_names)}
    with zipfile.ZipFile(part, "w") as archive:

        def add(key: str, array: np.ndarray) -> None:
            with archive.open(zipfile.ZipInfo(f"{key}.npy"), "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)

        stop = 0
        for split in SPLITS:  # rows are in this order
            rows = [row for row in table.rows if row.split == split]
            start, stop = stop, stop + len(rows)
            for modality, array in features.items():
                add(f"{split}_{modality}", array[start:stop])
                mask = np.array([row.has(modality) for row in rows])
                if not mask.all():
                    add(f"{split}_{modality}_mask", mask)
            add(f"{split}_labels", np.array([number[row.label] for row in rows], np.int32))
            add(f"{split}_ids", np.array([row.id for row in rows]))
            for modality, shown in shown_of(rows, output.parent).items():
                add(f"{split}_{modality}_shown", shown)
        add("class_names", np.array(table.class_names))
        add("source", np.array(json.dumps(source, sort_keys=True)))
    with part.open("r+b") as file:
        os.fsync(file.fileno())
    os.replace(part, output)


def _digest_of(output: Path) -> str | None:
    """Digest of the settings of an existing output; None if there is no output.

    Raises:
        InputError: the file was not made by `featurize` and must not be overwritten.
    """
    if not os.path.lexists(output):
        return None
    with contextlib.suppress(Exception):  # reading another file can raise almost any type
        source = parse_json(str(read_npz_array(output, "source")))
        if source["made_by"] == _MADE_BY:
            return str(source["digest"])
    raise InputError(f"output {output} exists and was not made by featurize; move it away or choose another output")


@contextlib.contextmanager
def _progress(modality: str, total: int, done: int, shown: bool) -> Iterator[Callable[[int], None]]:
    """Yields a function that adds to the number of finished rows, shown as a bar on a terminal, else as lines."""
    if not shown:
        yield lambda count: None
    elif sys.stderr.isatty():
        from tqdm import tqdm

        with tqdm(total=total, initial=done, desc=modality, unit=" rows", dynamic_ncols=True) as bar:
            yield bar.update
    else:
        state = {"rows": done, "reported": done, "time": time.monotonic()}

        def count(rows: int) -> None:
            state["rows"] += rows
            waited = time.monotonic() - state["time"]
            due = state["rows"] - state["reported"] >= total / 10 or waited >= 30
            if state["rows"] == total or (due and waited >= 3):
                _say(f"{modality}: {state['rows']:,} of {total:,} rows")
                state.update(reported=state["rows"], time=time.monotonic())

        yield count


@contextlib.contextmanager
def _disk_errors(output: Path) -> Iterator[None]:
    """Turn errors of the file system into an `InputError` that names the output."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"output {output} cannot be written ({error.strerror or error}); free space or choose another output; "
            "the same command continues after its last batch"
        ) from error


def _say(line: str) -> None:
    print(printable_lines(line), file=sys.stderr, flush=True)
