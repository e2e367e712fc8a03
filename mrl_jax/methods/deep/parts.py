"""What the compared methods with networks share: hyperparameters, networks, and losses of whole batches.

Shape letters: M modalities, B batch, D features, L embedding.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import Array

from mrl_jax.methods.gradient import SETTINGS
from mrl_jax.methods.mrl import Hyperparameters as OfMRL
from mrl_jax.methods.state import Batch, OracleNoise
from mrl_jax.models.mlp import Encoder

if TYPE_CHECKING:
    from mrl_jax.config import Config

__all__ = [
    "NETWORKS",
    "Hyperparameters",
    "bounded",
    "hyperparameters",
    "mean_distance",
    "network",
    "of_whole_batch",
    "present",
]

NETWORKS = frozenset({*SETTINGS, "hidden_dims", "embed_dim", "initializer", "precision"})
"""Fields of `Config` that every method with networks uses."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Hyperparameters(OfMRL):
    """Hyperparameters of a compared method: those of MRL, and its own numbers.

    Attributes:
        numbers: those of `--method-options`, pairs of name and value.
    """

    numbers: tuple[tuple[str, float], ...] = field(default=(), metadata={"static": True})

    def __getitem__(self, name: str) -> float:
        return dict(self.numbers)[name]


_OF_CONFIG = {f.name for f in dataclasses.fields(OfMRL)} - {"noise", "loss_options"}


def hyperparameters(config: "Config", noise: OracleNoise | None) -> Hyperparameters:
    """The hyperparameters of a `Config`; those without effect on its method have their defaults."""
    names = [f.name for f in dataclasses.fields(config) if f.name in _OF_CONFIG and config.has_effect(f.name)]
    values = {name: getattr(config, name) for name in names}
    return Hyperparameters(**values, numbers=tuple(sorted(config.method_numbers.items())))


def network(h: Hyperparameters, out: int | None = None, *, unit: bool = True, reverse: bool = False) -> Encoder:
    """The network of a modality.

    Args:
        h: hyperparameters with `hidden_dims`, `embed_dim`, `initializer` and `precision`.
        out: outputs; None for `embed_dim`.
        unit: whether outputs have unit length.
        reverse: hidden layers in reverse order, as in a decoder.
    """
    hidden = tuple(reversed(h.hidden_dims)) if reverse else h.hidden_dims
    return Encoder(hidden, h.embed_dim if out is None else out, h.initializer, h.precision, unit)


def bounded(losses: Array, q: float) -> Array:
    r"""The bounded loss $\tfrac{1 - q}{q} (1 - p^q) + q (1 - p)$ of losses $-\log p$, of any shape (RSHNL and RFCMH).

    Example:
        >>> import jax.numpy as jnp
        >>> round(float(bounded(jnp.log(2.0), 0.5)), 4)  # (1 - 0.7071) + 0.25
        0.5429
    """
    return -(1.0 - q) / q * jnp.expm1(-q * losses) - q * jnp.expm1(-losses)


def present(batch: Batch) -> Array:
    """Which samples count, bool [M, B]."""
    return jnp.broadcast_to(batch.mask, batch.labels.shape)


def mean_distance(x: Array, y: Array, valid: Array, axis_name: str | None = None) -> Array:
    r"""Mean Euclidean distance of rows, $\tfrac{1}{n} \sum_j \lVert x_j - y_j \rVert$, with gradient 0 at distance 0.

    Args:
        x: rows [B, D].
        y: rows [B, D].
        valid: rows that count, bool [B].
        axis_name: axis of the devices that share the rows; each returns its share of the mean over all of them.

    Returns:
        A scalar; 0 if no row counts.
    """
    squared = jnp.where(valid, jnp.square(x - y).sum(axis=-1), 0.0)
    zero = squared == 0
    count = valid.sum() if axis_name is None else jax.lax.psum(valid.sum(), axis_name)
    return jnp.where(zero, 0.0, jnp.sqrt(jnp.where(zero, 1.0, squared))).sum() / jnp.maximum(count, 1)


def of_whole_batch(
    loss: Callable[..., tuple[Array, dict[str, Array]]], axis_name: str | None, *parts: Any
) -> tuple[Array, dict[str, Array]]:
    """The share of this device in a loss that is not a sum over instances, such as one over pairs.

    Every device computes the loss of the whole batch, and counts one part of it. The shares sum to the loss, and their
    gradients to its gradient.

    Args:
        loss: function of the parts of all devices that returns the loss and metrics.
        axis_name: see `Method.step`.
        parts: trees with leaves [B, ...] of the instances of this device.

    Returns:
        Shares of the loss and of the metrics.
    """
    if axis_name is None:
        return loss(*parts)
    whole = jax.tree.map(lambda x: jax.lax.all_gather(x, axis_name, tiled=True), parts)
    size = jax.lax.axis_size(axis_name)
    return jax.tree.map(lambda x: x / size, loss(*whole))
