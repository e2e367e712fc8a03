"""Which clustering loss a recipe names, and what it needs beyond a sample: the noise, earlier epochs, other samples.

Shape letters: M modalities, N training instances, B batch, K classes.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from mrl_jax.losses.mrl import cross_entropy_loss
from mrl_jax.losses.robust.robust import (
    ROBUST_LOSSES,
    early_learning_loss,
    forward_correction_loss,
    moving_targets,
)
from mrl_jax.losses.robust.selected import clean_posterior, small_loss_weights
from mrl_jax.methods.recipe import KnownNoise, Recipe
from mrl_jax.models.mlp import unit_rows

if TYPE_CHECKING:
    from mrl_jax.training.train_step import TrainData, TrainState

__all__ = ["WARMUP", "clean_samples", "recipe_loss", "stored_targets", "updated_targets"]

WARMUP = 5.0  # epochs with all samples, of "gmm"
_RAMP = 10.0  # epochs until "small-loss" drops the whole share of wrong labels
_THRESHOLD = 0.5  # posterior above which "gmm" keeps a sample
_ROWS = 4096  # embedded at once where all training samples are


def recipe_loss(
    recipe: Recipe,
    valid: Array,
    clean: Array | None,
    targets: Array | None,
    epoch: ArrayLike,
    axis_name: str | None,
) -> Callable[..., Array]:
    """The loss that the recipe names, with all that it needs beside embeddings, centres, labels and temperature.

    Args:
        recipe: the recipe.
        valid: True where a sample of the batch counts, [M, B].
        clean: True where the loss "gmm" trusts a label, [M, B]; None for everywhere.
        targets: of the batch for the loss "elr", [M, B, K].
        epoch: epoch number from 0, for the loss "small-loss".
        axis_name: of the devices that share the batch.

    Raises:
        ValueError: an unknown loss, or one that must be told of the noise and is not.
    """
    options = dict(recipe.loss_options)
    if recipe.loss == "forward":
        return partial(forward_correction_loss, transition=_known(recipe).transition)
    if recipe.loss == "elr":
        assert targets is not None  # `init_state` made room
        options.pop("momentum", None)
        return partial(early_learning_loss, targets=targets, **options)  # type: ignore[arg-type]
    if recipe.loss == "small-loss":
        dropped = jnp.asarray(_known(recipe).wrong_share)
        if ramp := options.get("ramp", _RAMP):
            dropped = dropped * jnp.minimum(jnp.asarray(epoch) / ramp, 1.0)

        def smallest(z: Array, centers: Array, labels: Array, tau: ArrayLike) -> Array:
            terms = cross_entropy_loss(z, centers, labels, tau)
            return terms * small_loss_weights(terms, 1.0 - dropped, valid, axis_name)

        return smallest
    if recipe.loss == "gmm":
        if clean is None:
            return cross_entropy_loss
        kept = clean & valid
        sizes = jnp.stack([valid.sum(axis=1), kept.sum(axis=1)])
        count, chosen = sizes if axis_name is None else jax.lax.psum(sizes, axis_name)
        weights = kept * (count / jnp.maximum(chosen, 1))[:, None]  # the mean over those kept
        return lambda *inputs: weights * cross_entropy_loss(*inputs)
    if recipe.loss not in ROBUST_LOSSES:
        raise ValueError(f"unknown loss {recipe.loss!r}; known: {', '.join(ROBUST_LOSSES)}")
    return partial(ROBUST_LOSSES[recipe.loss], **options)


def _known(recipe: Recipe) -> KnownNoise:
    if recipe.noise is None:
        raise ValueError(f"the loss {recipe.loss} must be told of the noise: Recipe(noise=KnownNoise(…))")
    return recipe.noise


def updated_targets(recipe: Recipe, targets: Array, rows: Array | None, z: Array, centers: Array) -> Array:
    """Early-learning targets of the instances `rows` [B], updated: [M, B, K] of [M, N, K].

    Raises:
        ValueError: it is not known which instances they are.
    """
    if rows is None:
        raise ValueError("the loss elr keeps targets of every training sample; give Batch(rows=…)")
    momentum = {k: v for k, v in recipe.loss_options if k == "momentum"}
    return moving_targets(targets[:, rows], z, centers, recipe.tau1, **momentum)


def stored_targets(targets: Array, new: Array, rows: Array, valid: Array, axis_name: str | None) -> Array:
    """Targets [M, N, K] with those of a batch replaced, where a sample counts."""
    new = jnp.where(valid[..., None], new, targets[:, rows])
    rows = jnp.where(valid.any(axis=0), rows, targets.shape[1])  # padding lies outside, where nothing is stored
    if axis_name is not None:
        rows, new = _of_all(rows, 0, axis_name), _of_all(new, 1, axis_name)
    return targets.at[:, rows].set(new, mode="drop")


def _of_all(x: Array, axis: int, axis_name: str) -> Array:
    """The parts of all devices along an axis; as a sum, which is known to be the same everywhere."""
    shares, size = jax.lax.axis_size(axis_name), x.shape[axis]
    room = jnp.zeros((*x.shape[:axis], shares * size, *x.shape[axis + 1 :]), x.dtype)
    own = jax.lax.dynamic_update_slice_in_dim(room, x, size * jax.lax.axis_index(axis_name), axis)
    return jax.lax.psum(own, axis_name)


def clean_samples(state: "TrainState", data: "TrainData", recipe: Recipe) -> Array:
    """Which training samples have labels that look right, by their losses: `sample_selection.clean_posterior`.

    Args:
        state: the model.
        data: the training split.
        recipe: of the loss "gmm".

    Returns:
        bool [M, N].
    """
    centers, threshold = unit_rows(state.centers), dict(recipe.loss_options).get("threshold", _THRESHOLD)
    valid = jnp.ones(data.labels.shape, bool) if data.mask is None else data.mask
    kept = []
    for i, (encoder, x) in enumerate(zip(state.encoders, data.features, strict=True)):
        own = jnp.arange(len(x)) if data.partners is None else data.partners[i]

        def term(row: Array, encoder: Any = encoder, x: Array = x, labels: Array = data.labels[i]) -> Array:
            z: Any = recipe.encoder.apply(encoder, x[row[0]])
            return cross_entropy_loss(z, centers, labels[row[1]], recipe.tau1)

        pairs = jnp.stack([own, jnp.arange(len(x))], axis=1)
        terms = jax.lax.map(term, pairs, batch_size=min(_ROWS, len(x)))
        kept.append(clean_posterior(terms, valid[i]) > threshold)
    return jnp.stack(kept)
