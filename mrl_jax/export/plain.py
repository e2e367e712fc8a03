"""A trained model as plain arrays: the layers of its encoders, those from embedding to classes, and what they mean.

Names of tensors are those of a PyTorch module: `encoders.I` is the `nn.Sequential` of modality I (linear layers with
ReLU between them, so that their numbers are 0, 2, 4, …), `classifier` the same from unit rows to scores whose softmax
is the class posterior, and `preprocess.I` has the fitted `mean` and `scale`. A weight of `nn.Linear` is [H, D], the
transpose of the kernel of JAX.

Shape letters: D inputs, H outputs of a layer, K classes.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mrl_jax.data.preprocess import kinds_for
from mrl_jax.errors import InputError
from mrl_jax.methods.registry import hyperparameters_of, method_of
from mrl_jax.run.model import TrainedModel
from mrl_jax.run.representation import SHARPNESS, embedding_weight
from mrl_jax.version import __version__

__all__ = ["Layers", "PlainModel", "plain_model"]

Layers = Sequence[tuple[np.ndarray, np.ndarray]]
"""Kernel [D, H] and bias [H] of affine maps, float32, with ReLU between two of them."""


class PlainModel(NamedTuple):
    """A model without JAX.

    Attributes:
        encoders: one chain of layers per modality; its output is scaled to unit length.
        classifier: layers from unit rows to scores of the classes; empty where the method assigns none.
        tensors: name -> float32 array, as in the state of a PyTorch module.
        facts: what the tensors mean, as values that JSON can hold.
    """

    encoders: tuple[Layers, ...]
    classifier: Layers
    tensors: dict[str, np.ndarray]
    facts: dict[str, Any]


def plain_model(run: TrainedModel, representation: str | None = None) -> PlainModel:
    """Take a model apart.

    Args:
        run: the model.
        representation: what the files say that samples are retrieved by; None for that of the run.

    Raises:
        InputError: the embedding or the posterior of the method is no chain of layers.
    """
    method, h, params = method_of(run.config), hyperparameters_of(run.config), run.model.params
    kind = run.representation_for(representation)
    if method.layers is None:
        raise InputError(f"the {method.name} has no layers to write; --format stablehlo takes every method")
    if kind != "embedding" and method.class_layers is None:
        raise InputError(
            f"the posterior of the {method.name} is no chain of layers; choose --representation embedding, or --format "
            "stablehlo, which takes every method"
        )
    encoders = tuple(_arrays(method.layers(h, params, i)) for i in range(len(run.modalities)))
    classifier = () if method.class_layers is None else _arrays(method.class_layers(h, params))
    tensors: dict[str, np.ndarray] = {}
    for i, m in enumerate(run.modalities):
        stats = run.model.preprocess[m]
        tensors |= {f"preprocess.{i}.{name}": np.asarray(stats[name], np.float32) for name in ("mean", "scale")}
        tensors |= _named(f"encoders.{i}", encoders[i])
    tensors |= _named("classifier", classifier)
    kinds = kinds_for(run.modalities, run.config.preprocess)
    facts = {
        "format": 1,
        "mrl_jax": __version__,
        "modalities": list(run.modalities),
        "preprocess": [kinds[m] for m in run.modalities],
        "columns": {m: [str(name) for name in names] for m, names in run.columns.items()},
        "class_names": list(run.class_names),
        "widths": [_widths(layers) for layers in encoders],
        "classifier_widths": _widths(classifier),
        "representation": kind,
        "sharpness": SHARPNESS,
        "embedding_weight": embedding_weight(len(run.class_names)),
        "epoch": run.epoch,
        "config": run.config.to_json(),
    }
    return PlainModel(encoders, classifier, tensors, facts)


def _arrays(layers: Any) -> Layers:
    return tuple((np.asarray(kernel, np.float32), np.asarray(bias, np.float32)) for kernel, bias in layers)


def _named(prefix: str, layers: Layers) -> dict[str, np.ndarray]:
    named: dict[str, np.ndarray] = {}
    for i, (kernel, bias) in enumerate(layers):
        named |= {f"{prefix}.{2 * i}.weight": np.ascontiguousarray(kernel.T), f"{prefix}.{2 * i}.bias": bias}
    return named


def _widths(layers: Layers) -> list[int]:
    """Widths of the input and of every layer; empty without layers."""
    return [layers[0][0].shape[0], *(kernel.shape[1] for kernel, _ in layers)] if layers else []
