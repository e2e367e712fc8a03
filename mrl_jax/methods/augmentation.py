"""Augmentation in training: mixup of instances, dropout of features and units; the same on any number of devices.

Shape letters: M modalities, B batch, D features or units.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from mrl_jax.methods.state import Batch, Partners
from mrl_jax.models.dropout import drop, instance_keys
from mrl_jax.options import Number

__all__ = ["AUGMENTATION", "augment", "drop_units", "mix_instances"]

AUGMENTATION = {
    "dropout": Number(0.0, 0.0, 0.95, "probability that a feature is set to 0 in a step of training"),
    "hidden_dropout": Number(0.0, 0.0, 0.95, "probability that a unit of a hidden layer is set to 0 in a step"),
    "mixup": Number(0.0, 0.0, 0.5, "largest share of another instance that is mixed into an instance in a step"),
}
"""What `--method-options` sets."""

_SHARE = 0x6D6978  # place of the draw of mixup; those of dropout are numbered from 0
_LAYERS = 256  # places between hidden layers; more than modalities


def augment(h: Any, batch: Batch, step: Array, axis_name: str | None) -> Batch:
    """Drop features and mix instances, as far as the hyperparameters `dropout` and `mixup` ask for it.

    The batch also gets the keys that `drop_units` needs.

    Raises:
        ValueError: `batch.rows` is None.
    """
    if not (h.dropout or h.hidden_dropout or h.mixup):
        return batch
    if batch.rows is None:
        raise ValueError("dropout and mixup need the number of every instance; give Batch(rows=…)")
    keys = instance_keys(batch.rows, step)
    features = tuple(drop(x, h.dropout, keys, place) for place, x in enumerate(batch.features))
    batch = batch._replace(features=features, keys=keys)
    return mix_instances(batch, h.mixup, axis_name) if h.mixup else batch


def drop_units(h: Any, batch: Batch, modality: int) -> Callable[[Array, int], Array]:
    """Dropout of the units of hidden layers, for `Encoder`, as far as the hyperparameter `hidden_dropout` asks for it.

    Args:
        h: hyperparameters.
        batch: the batch, from `augment`.
        modality: number of the encoder.
    """
    keys = batch.keys
    if not h.hidden_dropout or keys is None:
        return lambda x, layer: x
    return lambda x, layer: drop(x, h.hidden_dropout, keys, modality + _LAYERS * (layer + 1))


def mix_instances(batch: Batch, largest: float, axis_name: str | None = None) -> Batch:
    r"""Mixup (Zhang et al., mixup: Beyond Empirical Risk Minimization, ICLR 2018) of whole instances.

    Instance j becomes $(1 - \lambda_j) x_j + \lambda_j x_l$ in all modalities, with $\lambda_j$ uniform in [0, largest)
    and l the next instance of the batch, so that its modalities still belong together. Batches are drawn anew in every
    epoch, and so are the pairs. Instances of which other modalities are missing are not mixed with each other.

    Args:
        batch: the batch with keys, or the part of it that this device has; rows that do not count are its last ones.
        largest: upper bound of the share of the other instance, 0.5 for the uniform distribution of mixup.
        axis_name: axis of the devices that share the batch, under `shard_map` or `pmap`.

    Returns:
        The batch with mixed features; its `partners` have the share, labels and per-sample state of the others.
    """
    assert batch.keys is not None
    size = len(batch.keys)
    present = jnp.broadcast_to(batch.mask, batch.labels.shape)
    own = (batch.features, batch.labels.T, present.T, batch.samples)  # leaves [B, ...]
    everyone, first = own, jnp.int32(0)
    if axis_name is not None:
        everyone = jax.tree.map(lambda x: jax.lax.all_gather(x, axis_name, tiled=True), own)
        first = size * jax.lax.axis_index(axis_name)
    counts = everyone[2].any(axis=1)
    last = jnp.where(counts, jnp.arange(len(counts)), 0).max()  # the last one that counts
    following = first + jnp.arange(size) + 1
    features, labels, there, samples = jax.tree.map(lambda x: x[jnp.where(following <= last, following, 0)], everyone)
    labels = jnp.where(there, labels, 0)  # of a missing sample it may be any number
    share = largest * jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, _SHARE)))(batch.keys)
    share = jnp.where((there == present.T).all(axis=1), share, 0.0)

    def mixed(x: Array, other: Array) -> Array:
        own = share[:, None].astype(x.dtype)
        return (1 - own) * x + own * other

    return batch._replace(
        features=jax.tree.map(mixed, batch.features, features), partners=Partners(share, labels.T, samples)
    )
