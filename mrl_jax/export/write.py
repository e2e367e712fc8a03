"""`export`: a run, or the rows of a split, in the form of another program."""

import os
from pathlib import Path
from typing import Any

from mrl_jax.backend import names_backend
from mrl_jax.data.dataset import SPLITS
from mrl_jax.errors import InputError
from mrl_jax.export.places import file_of, new_folder
from mrl_jax.files import check_outputs, refuse_address
from mrl_jax.run.folder import RunFolder
from mrl_jax.run.load import load_run
from mrl_jax.run.model import TrainedModel
from mrl_jax.train import Result

__all__ = ["FORMATS", "export"]

FORMATS = {
    "safetensors": "a file of tensors with the names and layout of PyTorch, settings and classes inside",
    "torch": "a state that PyTorch loads, and beside it the module as .py; needs torch",
    "stablehlo": "a folder with a program per modality, for JAX and other compilers; any batch size",
    "onnx": "a folder with a file per modality, converted by PyTorch; needs torch, onnx and onnxscript",
    "embeddings": "the rows of a split: .npz, .parquet, or a folder in the layout of clip-retrieval",
    "card": "a model card in Markdown with the facts and scores of the run",
}
"""Format -> what is written."""

_FOLDERS = ("stablehlo", "onnx")


@names_backend
def export(
    run: TrainedModel | Result | str | os.PathLike[str],
    out: str | os.PathLike[str],
    format: str = "safetensors",
    *,
    checkpoint: str | int = "kept",
    representation: str | None = None,
    split: str = "test",
    data: Any = None,
    pictures: str | os.PathLike[str] | None = None,
) -> list[Path]:
    """Write a trained model, or the rows of its data, for other programs. docs/export.md describes each format.

    Args:
        run: the folder of a run, the `Result` of `train`, or a model from `load_run`.
        out: the file to write; for "stablehlo" and "onnx" a new folder.
        format: one of `FORMATS`.
        checkpoint: "kept", "best", "last" or a number of epochs; only used with a folder.
        representation: "embedding", "posterior" or "both"; None for that of the run.
        split: for "embeddings" and "card": "train", "valid" or "test".
        data: for "embeddings" and "card": anything `load_dataset` takes; None for the data of the run.
        pictures: for "embeddings": folder of pictures named by id, whose paths are written.

    Returns:
        The files and folders that were written.

    Raises:
        InputError: no run, an unknown format, a package is missing, the method cannot be written in the format, or a
            file cannot be written.
    """
    if format not in FORMATS:
        raise InputError(f"format {format!r}: choose from {', '.join(FORMATS)}")
    if split not in SPLITS:
        raise InputError(f"split {split!r}: choose from {', '.join(SPLITS)}")
    if isinstance(run, Result):
        run = run.run if run.workdir is None else run.workdir
    loaded = run if isinstance(run, TrainedModel) else load_run(run, checkpoint)
    folder = None if isinstance(run, TrainedModel) else RunFolder.open(run)
    refuse_address(out, "out", output=True)
    path = Path(out).expanduser()
    loaded.representation_for(representation)
    if format in _FOLDERS:
        return _in_folder(path, loaded, format, representation)
    if format != "embeddings" or path.suffix:
        read = [str(data)] if isinstance(data, str | os.PathLike) else []
        check_outputs({"--out": str(path)}, read, None if folder is None else str(folder.path))
    if format == "embeddings":
        from mrl_jax.export.embeddings import read_rows, write_rows

        where = None if pictures is None else Path(pictures).expanduser()
        return write_rows(path, read_rows(loaded, folder, split, data, representation, where))
    if format == "card":
        from mrl_jax.export.card import write_card

        if folder is None:
            raise InputError("a card tells the facts of a run's folder; give the folder instead of the model")
        if checkpoint != "kept" or representation is not None:
            raise InputError("a card describes the model that the run keeps; leave checkpoint and representation out")
        return write_card(path, folder, split, data)
    from mrl_jax.export.plain import plain_model
    from mrl_jax.export.pytorch import write_torch
    from mrl_jax.export.safetensors_file import write_safetensors

    model = plain_model(loaded, representation)
    return {"safetensors": write_safetensors, "torch": write_torch}[format](path, model)


def _in_folder(path: Path, run: TrainedModel, format: str, representation: str | None) -> list[Path]:
    names = [file_of(m, f".{format}") for m in run.modalities]
    with new_folder(path) as part:
        if format == "onnx":
            from mrl_jax.export.plain import plain_model
            from mrl_jax.export.pytorch import write_onnx

            write_onnx(part, plain_model(run, representation))
        else:
            from mrl_jax.export.stablehlo import write_stablehlo

            write_stablehlo(part, run, representation)
    return [path / name for name in names]
