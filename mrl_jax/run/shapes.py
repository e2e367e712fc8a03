"""Shapes of a run's state without computing arrays, and the names of the arrays in a tree."""

import functools
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from mrl_jax.config import Config
from mrl_jax.methods.base import Method
from mrl_jax.methods.registry import hyperparameters_of, method_of
from mrl_jax.methods.state import Shapes, State

__all__ = ["embedding_width", "params_shapes", "path_names", "state_shapes"]


def state_shapes(config: Config, shapes: Shapes) -> State:
    """Shapes and dtypes of the state of a run."""
    h = hyperparameters_of(config)
    return _state_shapes(method_of(config), _Static(h, jax.tree.structure(h), _decisive(h)), shapes)


@dataclass(frozen=True)
class _Static:
    """Hyperparameters, equal to others that differ in numbers only: those decide no shapes."""

    h: Any = field(compare=False)
    structure: Hashable  # contains the static fields
    leaves: Hashable


def _decisive(h: Any) -> Hashable:
    """What of the leaves may decide shapes: whole numbers, and shapes of arrays."""
    return tuple(float if isinstance(x, float) else x if np.isscalar(x) else np.shape(x) for x in jax.tree.leaves(h))


@functools.lru_cache(maxsize=32)  # a run asks several times, and so do all runs of a sweep
def _state_shapes(method: Method, static: _Static, shapes: Shapes) -> State:
    return jax.eval_shape(lambda: method.init(static.h, jax.random.key(0), shapes))


def params_shapes(config: Config, shapes: Shapes) -> Any:
    """Shapes and dtypes of the parameters of a run; where the method allows, without those of the optimiser."""
    method, h = method_of(config), hyperparameters_of(config)
    if (init := method.init_params) is None:
        return state_shapes(config, shapes).params
    return jax.eval_shape(lambda: init(h, jax.random.key(0), shapes))


def embedding_width(config: Config, params: Any, features: int) -> int:
    """L, the dimension of the common space, which may be smaller than `embed_dim`.

    Args:
        config: settings of the run.
        params: its parameters, or their shapes.
        features: number of features of the first modality.
    """
    method, h = method_of(config), hyperparameters_of(config)
    x = jax.ShapeDtypeStruct((1, features), np.float32)
    return int(jax.eval_shape(lambda p, x: method.embed(h, p, 0, x), params, x).shape[-1])


def path_names(path: Iterable[Any]) -> list[str]:
    """The names of the fields, keys and positions on a path of JAX to a leaf of a tree."""
    return [str(getattr(k, "name", getattr(k, "key", getattr(k, "idx", k)))) for k in path]
