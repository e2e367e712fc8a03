"""A trained model as a pure function of arrays, for `jax.jit`, `jax.vmap`, `jax.grad` and `jax.export`.

Shape letters: D features, L embedding, K classes.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from mrl_jax.data.preprocess import kinds_for
from mrl_jax.errors import InputError
from mrl_jax.methods.registry import hyperparameters_of, method_of
from mrl_jax.run.representation import represent
from mrl_jax.unit_rows import unit_rows

if TYPE_CHECKING:
    from mrl_jax.config import Config

__all__ = ["Output", "apply_model"]


class Output(NamedTuple):
    """What a model says of features of one modality.

    Attributes:
        rows: what they are retrieved by: unit rows [..., L], or another representation.
        log_posterior: log p(k | x), [..., K]; None where the method assigns no classes.
    """

    rows: Array
    log_posterior: Array | None


def apply_model(
    config: "Config", modalities: Sequence[str], model: Any, features: Mapping[str, Any], representation: str
) -> dict[str, Output]:
    """Preprocess features, embed them and assign classes; the first two arguments and the last are static.

    Args:
        config: settings of the run.
        modalities: names of its modalities, in order.
        model: parameters and preprocessing, a `run.model.Model`.
        features: modality -> [..., D]; some of the run's modalities.
        representation: "embedding", "posterior" or "both".

    Raises:
        InputError: an unknown modality, or another number of features.
    """
    kinds, method, h = kinds_for(modalities, config.preprocess), method_of(config), hyperparameters_of(config)
    outputs = {}
    for m, x in features.items():
        if m not in kinds:
            raise InputError(f"modality {m!r} is not in this run; it has: {', '.join(modalities)}")
        stats, x = model.preprocess[m], jnp.asarray(x, jnp.float32)
        if x.ndim < 1 or x.shape[-1] != len(stats["mean"]):
            raise InputError(
                f"{m} features have shape {list(x.shape)}; this run was trained on [N, {len(stats['mean'])}]"
            )
        z = method.embed(h, model.params, list(modalities).index(m), _preprocessed(kinds[m], stats, x))
        log_p = None if method.assign is None else method.assign(h, model.params, z)
        outputs[m] = Output(represent(method, h, model.params, z, representation), log_p)
    return outputs


def _preprocessed(kind: str, stats: Mapping[str, Any], x: Array) -> Array:
    """As `data.preprocess.apply_preprocess`, in float32 and under any transformation."""
    if kind == "standardize":
        return (x - jnp.broadcast_to(stats["mean"], x.shape)) / stats["scale"]
    return unit_rows(x) if kind == "l2" else x
