"""Checkpoints of format 1, written by versions before the `Method` interface: of MRL only, with its fields by name.

`{"state": {"encoders", "centers", "optimizer", "step", "targets"}, "best": {"encoders", "centers"}, "preprocess"}`.
Only the loss "elr" has `targets` [M, N, K]. The selection of the loss "gmm" was not stored.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mrl_jax.config import Config
from mrl_jax.methods.state import State

__all__ = ["is_format_1", "nested_of", "state_of"]


def is_format_1(paths: Any) -> bool:
    """Whether a checkpoint with these paths of arrays has format 1."""
    return any(path.startswith("state/centers") for path in paths)


def nested_of(state: Any, best: Any, config: Config | None) -> dict[str, Any]:
    """Shapes of a snapshot's state and best parameters, nested as in format 1.

    Args:
        state: shapes of the state.
        best: shapes of the best parameters.
        config: of the run; its loss decides whether there are EMA targets.
    """
    nested = {
        "encoders": state.params.encoders,
        "centers": state.params.centers,
        "optimizer": jax.tree.map(_tuples, state.optimizer, is_leaf=_is_params),
        "step": state.step,
    }
    if config is not None and config.loss == "elr":
        instances, modalities, classes = state.samples.shape
        nested["targets"] = jax.ShapeDtypeStruct((modalities, instances, classes), state.samples.dtype)
    return {"state": nested, "best": {"encoders": best.encoders, "centers": best.centers}}


def state_of(restored: dict[str, Any], template: Any) -> tuple[Any, Any]:
    """State and best parameters from the nested arrays of format 1."""
    state, kind = restored["state"], type(template.params)
    # Arrays and order are the same; only the type of the pair of encoders and centres differs.
    optimizer = jax.tree.unflatten(jax.tree.structure(template.optimizer), jax.tree.leaves(state["optimizer"]))
    samples = template.samples
    if "targets" in state:
        samples = jnp.swapaxes(jnp.asarray(state["targets"]), 0, 1)
    elif jax.tree.leaves(samples):  # recomputed before the next epoch
        samples = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), samples)
    params = kind(tuple(state["encoders"]), state["centers"])
    best = kind(tuple(restored["best"]["encoders"]), restored["best"]["centers"])
    return State(params, optimizer, state["step"], samples), best


def _is_params(x: Any) -> bool:
    return hasattr(x, "encoders")


def _tuples(x: Any) -> Any:
    return (x.encoders, x.centers) if _is_params(x) else x
