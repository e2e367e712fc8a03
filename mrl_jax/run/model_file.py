"""`model.npz`: the model of a complete run in plain arrays, for a quick start and for readers without JAX.

For each modality the linear layers of its encoder, `MODALITY/Dense_0/kernel` [D, H] and `…/bias` [H], and the fitted
preprocessing, `MODALITY/mean` [D] and `MODALITY/scale`; `centers` [K, L]; `epoch`. All float32 but the last.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mrl_jax.errors import InputError
from mrl_jax.files import written_whole
from mrl_jax.models.mlp import layer_shapes

__all__ = ["Model", "read_model", "write_model"]


class Model(NamedTuple):
    """What embeds.

    Attributes:
        encoders: parameters of the encoders, one tree per modality.
        centers: class centres [K, L].
        preprocess: modality -> fitted statistics.
    """

    encoders: tuple[Any, ...]
    centers: Any
    preprocess: Mapping[str, Mapping[str, Any]]


def write_model(path: Path, model: Model, modalities: Sequence[str], epoch: int) -> None:
    """Write a model, whole or not at all.

    Args:
        path: the file.
        model: the model.
        modalities: their names, in the order of its encoders.
        epoch: epochs done.

    Raises:
        InputError: it cannot be written.
    """
    arrays: dict[str, Any] = {"epoch": epoch, "centers": model.centers}
    for encoder, m in zip(model.encoders, modalities, strict=True):
        arrays |= {f"{m}/{layer}/{name}": x for layer, ps in encoder["params"].items() for name, x in ps.items()}
        arrays |= {f"{m}/{name}": x for name, x in model.preprocess[m].items()}
    with written_whole(path) as part, part.open("wb") as file:
        np.savez(file, **{name: np.asarray(x) for name, x in arrays.items()})  # type: ignore[arg-type]


def read_model(
    path: Path, dims: Mapping[str, int], hidden_dims: Sequence[int], embed_dim: int, num_classes: int
) -> tuple[Model, int]:
    """Read a model of these sizes, and the number of epochs done.

    Args:
        path: the file.
        dims: modality -> number of features.
        hidden_dims: widths of the hidden layers.
        embed_dim: L.
        num_classes: K.

    Raises:
        InputError: it cannot be read, or has other sizes.
    """
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        epoch = int(arrays.pop("epoch"))
    except Exception as error:  # damaged files raise nearly anything
        why = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
        raise InputError(
            f"{path} cannot be read ({why.splitlines()[0]}); delete it, and the checkpoints serve, or restore it"
        ) from error
    expected: dict[str, tuple[int, ...]] = {"centers": (num_classes, embed_dim)}
    for m, d in dims.items():
        expected |= {f"{m}/mean": (d,), f"{m}/scale": ()}
        for layer, shapes in layer_shapes(d, hidden_dims, embed_dim).items():
            expected |= {f"{m}/{layer}/{name}": shape for name, shape in shapes.items()}
    for name in sorted(expected.keys() | arrays.keys()):
        found = arrays[name].shape if name in arrays else None
        if found != expected.get(name):
            raise InputError(
                f"{path} belongs to another configuration: {name} is {_told(found)}, config.json needs "
                f"{_told(expected.get(name))}; restore config.json"
            )
    encoders = tuple(
        {
            "params": {
                layer: {name: arrays[f"{m}/{layer}/{name}"] for name in shapes}
                for layer, shapes in layer_shapes(d, hidden_dims, embed_dim).items()
            }
        }
        for m, d in dims.items()
    )
    preprocess = {m: {name: arrays[f"{m}/{name}"] for name in ("mean", "scale")} for m in dims}
    return Model(encoders, arrays["centers"], preprocess), epoch


def _told(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else str(list(shape))
