"""Weights of the official implementation of MRL, made a run folder.

It saves a dictionary with `torch.save` as `MRL_DATA_L_best_checkpoint.t7`: `model_state_dict_I` of modality I with
`fc1`, `fc2`, `fc3` (weight [H, D] and bias [H]), the class centres `C` [L, K] as columns, the `epoch`, the state of the
optimiser, and test scores such as `Img2Txt`. Its features are neither centred nor scaled.

Shape letters: D features, H hidden units, L embedding, K classes.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mrl_jax.config import preset, with_settings
from mrl_jax.data.dataset import Dataset
from mrl_jax.errors import InputError, first_line, listed
from mrl_jax.files import refuse_address
from mrl_jax.packages import need
from mrl_jax.run.folder import RunFolder
from mrl_jax.run.model import Model, TrainedModel
from mrl_jax.run.shapes import path_names
from mrl_jax.training.run_spec import prepare_data, prepare_run

__all__ = ["Official", "import_official", "read_official"]


@dataclass(frozen=True)
class Official:
    """What a checkpoint holds.

    Attributes:
        layers: per modality the pairs of weight [H, D] and bias [H], in order.
        classes: class centres [K, L].
        epoch: number of completed epochs.
        scores: test scores that the program has written, such as `Img2Txt`.
    """

    layers: tuple[tuple[tuple[np.ndarray, np.ndarray], ...], ...]
    classes: np.ndarray
    epoch: int
    scores: Mapping[str, float]


def import_official(
    path: str | os.PathLike[str], workdir: str | os.PathLike[str], data: Any = None, **settings: Any
) -> TrainedModel:
    """Make a run folder of a checkpoint, for evaluation, search, audit and export.

    What the checkpoint does not say, such as loss and noise rate, has the values of the paper's recipe, and no noise:
    the labels are those of the data. The folder has no result and no log.

    Args:
        path: the checkpoint.
        workdir: a new folder.
        data: anything `load_dataset` takes, with the features that it was trained on; None for what `settings` name.
        settings: fields of `Config` that say which data: `preset` (default "custom"), `data_path`, `modalities`, …

    Returns:
        The model.

    Raises:
        InputError: PyTorch is missing, the file is no such checkpoint, or the data do not fit it.
    """
    found = read_official(path)
    RunFolder.refuse_occupied(workdir)
    hidden = {tuple(len(bias) for _, bias in layers[:-1]) for layers in found.layers}
    if len(hidden) > 1:
        raise InputError(
            f"{path}: its networks differ in their hidden layers ({hidden}); they must have the same widths"
        )
    known = {"hidden_dims": hidden.pop(), "embed_dim": found.classes.shape[1], "preprocess": ("none",)}
    config = preset(settings.pop("preset", "custom"), recipe="paper", **known, **settings)
    prepared = prepare_data(config, data)
    _check_data(found, prepared.dataset, str(path))
    size = min(config.batch_size, len(prepared.dataset.splits["train"]))
    spec = prepare_run(with_settings(config, batch_size=size), prepared)
    arrays = _by_name(found)
    template = spec.template.state.params
    params = jax.tree_util.tree_map_with_path(lambda at, x: arrays["/".join(path_names(at))].astype(x.dtype), template)
    folder = RunFolder.create(workdir, spec.config)
    described = {**prepared.described, "imported": {"from": Path(path).name, "scores": dict(found.scores)}}
    folder.settle(described, spec.noise)
    modalities = prepared.dataset.modalities
    folder.write_model(Model(params, prepared.stats), modalities, found.epoch)
    return TrainedModel(
        spec.config, found.epoch, Model(params, prepared.stats), modalities, prepared.dataset.class_names
    )


def read_official(path: str | os.PathLike[str]) -> Official:
    """Read a checkpoint. Only tensors and numbers are read; nothing in it is executed.

    Raises:
        InputError: PyTorch is missing, the file cannot be read, holds other objects, or lacks a part.
    """
    refuse_address(path, "from")
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"checkpoint {str(path)!r} does not exist; give the .t7 file of the official implementation")
    torch = need(["torch"], f"checkpoint {str(path)!r}")
    scalar: Any = np.float64(0).__reduce__()[0]  # the program saves its scores as such numbers
    allowed = [scalar, (scalar, "numpy.core.multiarray.scalar"), np.dtype, type(np.dtype(np.float64))]
    try:
        with torch.serialization.safe_globals(allowed):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise errors of many types
        raise InputError(
            f"checkpoint {str(path)!r} cannot be read as tensors and numbers ({first_line(error)}); give the file "
            "that the official implementation saved"
        ) from error
    if not isinstance(content, dict) or "C" not in content or "model_state_dict_0" not in content:
        raise InputError(
            f"checkpoint {str(path)!r} is none of the official implementation: it lacks model_state_dict_0 or C"
        )
    count = sum(str(key).startswith("model_state_dict_") for key in content)
    states = [content.get(f"model_state_dict_{i}", {}) for i in range(count)]
    layers = tuple(_layers(state, f"{path}: model_state_dict_{i}") for i, state in enumerate(states))
    classes = np.asarray(content["C"].detach().numpy().T, np.float32)
    if widths := [len(own[-1][1]) for own in layers if len(own[-1][1]) != classes.shape[1]]:
        raise InputError(f"{path}: C has {classes.shape[1]} rows, and a network {widths[0]} outputs; they must agree")
    scores = {k: float(v) for k, v in content.items() if isinstance(v, float | np.floating)}
    return Official(layers, classes, max(int(content.get("epoch", 0)), 0), scores)


def _layers(state: Mapping[str, Any], source: str) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """The layers `fc1`, `fc2`, … of a network."""
    names = [f"fc{i + 1}" for i in range(len(state) // 2)]
    if not names or set(state) != {f"{name}.{part}" for name in names for part in ("weight", "bias")}:
        raise InputError(
            f"{source} has the parameters {listed(map(str, state))}; they must be fc1.weight, fc1.bias, fc2 …"
        )
    layers = tuple((state[f"{n}.weight"].detach().numpy(), state[f"{n}.bias"].detach().numpy()) for n in names)
    for (weight, _), (after, _) in pairwise(layers):
        if after.shape[1] != len(weight):
            raise InputError(f"{source}: a layer has {len(weight)} outputs, the next one {after.shape[1]} inputs")
    return layers


def _check_data(found: Official, dataset: Dataset, source: str) -> None:
    """Refuse data whose modalities or classes are not those of the checkpoint."""
    there = [own[0][0].shape[1] for own in found.layers]
    if there != list(dataset.dims.values()):
        here = ", ".join(f"{m} {d}" for m, d in dataset.dims.items())
        raise InputError(
            f"{source}: its networks take {', '.join(map(str, there))} features, the data have {here}; give the data "
            "that it was trained on, and their modalities in its order (--modalities A B)"
        )
    if len(found.classes) != dataset.num_classes:
        raise InputError(
            f"{source}: it has {len(found.classes)} classes, the data {dataset.num_classes}; give its data"
        )


def _by_name(found: Official) -> dict[str, np.ndarray]:
    """The arrays by their paths in the parameters of MRL."""
    arrays = {"centers": found.classes}
    for i, layers in enumerate(found.layers):
        for j, (weight, bias) in enumerate(layers):
            name = f"encoders/{i}/params/Dense_{j}"
            arrays |= {f"{name}/kernel": weight.T, f"{name}/bias": bias}
    return arrays
