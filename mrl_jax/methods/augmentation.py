"""Augmentation of a training batch: mixup of instances and dropout of features, the same on one device and on several.

Shape letters: M modalities, B batch, D features.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from mrl_jax.methods.state import Batch, Partners
from mrl_jax.models.dropout import drop_features
from mrl_jax.options import Number

__all__ = ["DROPOUT", "MIXUP", "augment", "mix_instances"]

DROPOUT = Number(0.35, 0.0, 0.95, "probability that a feature is set to 0 in a step of training")
"""What `--method-options dropout=` sets."""

MIXUP = Number(0.5, 0.0, 0.5, "largest share of another instance that is mixed into an instance in a step of training")
"""What `--method-options mixup=` sets."""

_KEY = 0x6D6978  # of all runs, as that of dropout


def augment(h: Any, batch: Batch, step: Array, axis_name: str | None) -> Batch:
    """Drop features and mix instances, as far as the hyperparameters `dropout` and `mixup` ask for it.

    Raises:
        ValueError: `batch.rows` is None.
    """
    if not (h.dropout or h.mixup):
        return batch
    if batch.rows is None:
        raise ValueError("dropout and mixup need the number of every instance; give Batch(rows=…)")
    batch = batch._replace(features=drop_features(batch.features, h.dropout, batch.rows, step))
    return mix_instances(batch, h.mixup, step, axis_name) if h.mixup else batch


def mix_instances(batch: Batch, largest: float, step: Array, axis_name: str | None = None) -> Batch:
    r"""Mixup (Zhang et al., mixup: Beyond Empirical Risk Minimization, ICLR 2018) of whole instances.

    Instance j becomes $(1 - \lambda_j) x_j + \lambda_j x_l$ in all modalities, with $\lambda_j$ uniform in [0, largest)
    and l the next instance of the batch, so that its modalities still belong together. Batches are drawn anew in every
    epoch, and so are the pairs. Instances of which other modalities are missing are not mixed with each other.

    Args:
        batch: the batch, or the part of it that this device has; rows that do not count are its last ones.
        largest: upper bound of the share of the other instance, 0.5 for the uniform distribution of mixup.
        step: number of the step.
        axis_name: axis of the devices that share the batch, under `shard_map` or `pmap`.

    Returns:
        The batch with mixed features; its `partners` have the share, labels and per-sample state of the others.
    """
    assert batch.rows is not None
    present = jnp.broadcast_to(batch.mask, batch.labels.shape)
    own = (batch.features, batch.labels.T, present.T, batch.samples)  # leaves [B, ...]
    everyone, first = own, jnp.int32(0)
    if axis_name is not None:
        everyone = jax.tree.map(lambda x: jax.lax.all_gather(x, axis_name, tiled=True), own)
        first = len(batch.rows) * jax.lax.axis_index(axis_name)
    counts = everyone[2].any(axis=1)
    last = jnp.where(counts, jnp.arange(len(counts)), 0).max()  # the last one that counts
    following = first + jnp.arange(len(batch.rows)) + 1
    features, labels, there, samples = jax.tree.map(lambda x: x[jnp.where(following <= last, following, 0)], everyone)
    keys = jax.vmap(lambda row: jax.random.fold_in(jax.random.fold_in(jax.random.key(_KEY), step), row))(batch.rows)
    share = largest * jax.vmap(jax.random.uniform)(keys)
    share = jnp.where((there == present.T).all(axis=1), share, 0.0)

    def mixed(x: Array, other: Array) -> Array:
        own = share[:, None].astype(x.dtype)
        return (1 - own) * x + own * other

    return batch._replace(
        features=jax.tree.map(mixed, batch.features, features), partners=Partners(share, labels.T, samples)
    )
