"""`model.npz`: the model of a complete run as plain arrays, which load quickly and can be read without JAX.

The name of an array is its path in the parameters; in the field `encoders` the modality takes the place of its number.
MRL has the linear layers of each encoder, `MODALITY/Dense_0/kernel` [D, H] and `…/bias` [H], and `centers` [K, L].
Every method has the fitted preprocessing, `MODALITY/mean` [D] and `MODALITY/scale`, and `epoch`. All but `epoch` are
float32.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mrl_jax.config import Config
from mrl_jax.data.formats.npz import open_npz
from mrl_jax.errors import InputError
from mrl_jax.methods.state import Shapes
from mrl_jax.run.model import Model
from mrl_jax.run.shapes import params_shapes, path_names

__all__ = ["read_model", "write_model"]


def write_model(path: Path, model: Model, modalities: Sequence[str], epoch: int) -> None:
    """Write a model.

    Args:
        path: the file, which is not written atomically.
        model: the model.
        modalities: names of the modalities, in the order of training.
        epoch: number of completed epochs.

    Raises:
        OSError: it cannot be written.
    """
    arrays: dict[str, Any] = {"epoch": epoch, **dict(_named(model.params, modalities))}
    for m in modalities:
        arrays |= {f"{m}/{name}": x for name, x in model.preprocess[m].items()}
    with path.open("wb") as file:
        np.savez(file, **{name: np.asarray(x) for name, x in arrays.items()})  # type: ignore[arg-type]


def read_model(
    path: Path, content: bytes, config: Config, shapes: Shapes, modalities: Sequence[str]
) -> tuple[Model, int]:
    """Read the model of a run, and its number of completed epochs.

    Args:
        path: the file, for messages.
        content: its content.
        config: the settings of the run.
        shapes: sizes that determine the shapes of its state.
        modalities: names of the modalities, in the order of training.

    Raises:
        InputError: it cannot be read, or has other arrays.
    """
    try:
        with ExitStack() as stack:
            arrays = {name: read() for name, read in open_npz(BytesIO(content), len(content), stack).items()}
        epoch = int(arrays.pop("epoch"))
    except Exception as error:  # damaged files raise errors of many types
        why = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
        raise InputError(
            f"{path} cannot be read ({why.splitlines()[0]}); restore it, or delete it to use the checkpoints"
        ) from error
    template = params_shapes(config, shapes)
    params = _named(template, modalities)
    expected = {name: tuple(x.shape) for name, x in params}
    for m, d in zip(modalities, shapes.dims, strict=True):
        expected |= {f"{m}/mean": (d,), f"{m}/scale": ()}
    for name in sorted(expected.keys() | arrays.keys()):
        stored = arrays[name].shape if name in arrays else None
        if stored != expected.get(name):
            raise InputError(
                f"{path} belongs to another configuration: {name} is {_shape(stored)}, config.json needs "
                f"{_shape(expected.get(name))}; restore config.json"
            )
    if other := next((name for name in expected if arrays[name].dtype.kind != "f"), None):
        raise InputError(f"{path} is damaged ({other} is {arrays[other].dtype}); restore it, or train anew")
    preprocess = {m: {name: arrays[f"{m}/{name}"] for name in ("mean", "scale")} for m in modalities}
    values = [arrays[name] for name, _ in params]
    return Model(jax.tree.unflatten(jax.tree.structure(template), values), preprocess), epoch


_OTHERS = ("mean", "scale", "epoch")  # what the file holds beside the parameters


def _named(params: Any, modalities: Sequence[str]) -> list[tuple[str, Any]]:
    """The arrays of parameters by name, in the order of the tree.

    A parameter with the name of another array of the file, such as the `mean` of an encoder beside that of the
    preprocessing, has a level more: `MODALITY/encoder/mean`.
    """
    named = []
    for path, x in jax.tree_util.tree_leaves_with_path(params):
        keys = path_names(path)
        if keys[0] == "encoders":
            keys = [modalities[int(keys[1])], *(k for k in keys[2:] if k != "params")]  # a level of Flax's own
        if len(keys) <= 2 and keys[-1] in _OTHERS:
            keys.insert(-1, "encoder")
        named.append(("/".join(keys), x))
    return named


def _shape(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else str(list(shape))
