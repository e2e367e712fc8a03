"""Training as pure functions of arrays: state, one step, one epoch. Nothing here is compiled; callers wrap it in `jit`.

Shape letters: M modalities, N training instances, B batch, S steps of an epoch, D features, L embedding, K classes.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from mrl_jax.losses.mrl import mrl_loss
from mrl_jax.methods.recipe import Recipe
from mrl_jax.methods.recipe_loss import WARMUP, clean_samples, recipe_loss, stored_targets, updated_targets
from mrl_jax.models.mlp import init_centers, unit_rows
from mrl_jax.options import SCHEDULES

__all__ = [
    "Batch",
    "Recipe",
    "StepMetrics",
    "TrainData",
    "TrainState",
    "Weights",
    "embed",
    "epoch_batches",
    "init_state",
    "learning_rate_at",
    "train_epoch",
    "train_step",
]

# Padded rows of the last batch, and their share of all instances, from which that batch is worth compiling a step of
# its own shape.
_PADDED, _PADDED_SHARE = 64, 0.05


class Weights(NamedTuple):
    """The trained model: what of a state embeds and assigns to classes.

    Attributes:
        encoders: parameters of the encoders, one tree per modality.
        centers: class centres C [K, L].
    """

    encoders: tuple[Any, ...]
    centers: Array


class TrainState(NamedTuple):
    """All that training changes; arrays only.

    Attributes:
        encoders: parameters of the encoders, one tree per modality.
        centers: class centres C [K, L]; unit rows at the start of every step.
        optimizer: Adam's moments and count.
        step: number of steps done, int32 scalar.
        targets: of every training sample for the loss "elr", [M, N, K]; else None.
    """

    encoders: tuple[Any, ...]
    centers: Array
    optimizer: Any
    step: Array
    targets: Array | None = None

    @property
    def weights(self) -> Weights:
        """The model alone."""
        return Weights(self.encoders, self.centers)


class TrainData(NamedTuple):
    """The training split on the device.

    Attributes:
        features: one [N, D] per modality.
        labels: given labels [M, N].
        mask: bool [M, N], False where a sample is missing; None where none is.
        partners: int32 [M, N], which row of a modality's features stands at an instance; None for its own. Labels and
            mask are those of the instance already.
    """

    features: tuple[Array, ...]
    labels: Array
    mask: Array | None = None
    partners: Array | None = None


class Batch(NamedTuple):
    """One batch.

    Attributes:
        features: one [B, D] per modality.
        labels: given labels [M, B].
        mask: False in padded rows and for missing samples, [B] or [M, B].
        rows: which training instances, int32 [B]; the loss "elr" needs it.
        clean: True where the loss "gmm" trusts a label, [M, B]; None for everywhere.
    """

    features: tuple[Array, ...]
    labels: Array
    mask: Array
    rows: Array | None = None
    clean: Array | None = None


class StepMetrics(NamedTuple):
    """What a step reports, scalars (stacked to [S] by `train_epoch`): total loss, its two parts, size of the batch."""

    loss: Array
    clustering: Array
    contrastive: Array
    instances: Array


def init_state(recipe: Recipe, key: Array, dims: Sequence[int], num_classes: int, num_instances: int = 0) -> TrainState:
    """Draw encoders and centres.

    Args:
        recipe: model and optimiser.
        key: a `jax.random.key`.
        dims: number of features D of each modality.
        num_classes: K.
        num_instances: N; only the loss "elr" needs it.

    Raises:
        ValueError: the loss "elr" without a number of instances.
    """
    targets = None
    if recipe.loss == "elr":
        if num_instances < 1:
            raise ValueError("init_state: the loss elr keeps targets of every training sample; give num_instances")
        targets = jnp.zeros((len(dims), num_instances, num_classes), jnp.float32)
    keys = jax.random.split(key, len(dims) + 1)
    encoders = tuple(
        recipe.encoder.init(k, jnp.zeros((1, d), jnp.float32)) for k, d in zip(keys[:-1], dims, strict=True)
    )
    centers = init_centers(keys[-1], num_classes, recipe.embed_dim)
    return TrainState(encoders, centers, recipe.optimizer.init((encoders, centers)), jnp.zeros((), jnp.int32), targets)


def embed(recipe: Recipe, encoders: Sequence[Any], features: Sequence[Array]) -> tuple[Array, ...]:
    """Embed every modality: [B, D] each to unit rows [B, L] each. The numbers of rows may differ."""
    return tuple(recipe.encoder.apply(p, x) for p, x in zip(encoders, features, strict=True))  # type: ignore[misc]


def learning_rate_at(recipe: Recipe, epoch: ArrayLike) -> Array:
    r"""Learning rate of an epoch, which changes between epochs only: $\frac{\eta}{2} (1 + \cos \pi s)$.

    For epoch e of E, counted from 0, s is e / E ("cosine"), max(e - 1, 0) / E ("cosine-hold", the official
    implementation) or 0 ("constant"). "cosine-hold-v1", max(e - 1, 0) / max(E - 1, 1), is what versions before format 2
    of `config.json` called "cosine-hold": their runs resume with it to the same bits.

    Args:
        recipe: rate, schedule and E.
        epoch: e.

    Raises:
        ValueError: an unknown schedule.
    """
    if recipe.schedule == "constant":
        fraction = jnp.zeros(())
    elif recipe.schedule == "cosine":
        fraction = jnp.asarray(epoch) / recipe.epochs
    elif recipe.schedule == "cosine-hold":
        fraction = jnp.maximum(jnp.asarray(epoch) - 1, 0) / recipe.epochs
    elif recipe.schedule == "cosine-hold-v1":
        fraction = jnp.maximum(jnp.asarray(epoch) - 1, 0) / max(recipe.epochs - 1, 1)
    else:
        raise ValueError(f"unknown schedule {recipe.schedule!r}; known: {', '.join(SCHEDULES)}")
    return jnp.asarray(0.5 * recipe.learning_rate * (1.0 + jnp.cos(jnp.pi * fraction)))


def train_step(
    state: TrainState, batch: Batch, recipe: Recipe, epoch: ArrayLike = 0, axis_name: str | None = None
) -> tuple[TrainState, StepMetrics]:
    """One step of Adam on the total loss (eq. 8).

    The centres are brought back to unit length first, outside the gradient, as in the authors' program: the gradient is
    the one at unit centres, and Adam then moves them off the sphere until the next step.

    Args:
        state: the state before the step.
        batch: the batch; padded rows and missing samples count for nothing.
        recipe: objective and optimiser.
        epoch: epoch number from 0, for the learning rate.
        axis_name: of the devices that share the batch, under `shard_map` or `pmap`: each has the same state and gives
            its part of the batch. The step is that of one device with the whole batch, the metrics too.

    Example:
        Two modalities of 6 and 4 features, 3 classes, a batch of 8:

        >>> import jax, jax.numpy as jnp
        >>> recipe = Recipe(hidden_dims=(16,), embed_dim=8, learning_rate=1e-2)
        >>> state = init_state(recipe, jax.random.key(0), dims=(6, 4), num_classes=3)
        >>> labels = jnp.arange(8) % 3
        >>> batch = Batch((jnp.eye(8, 6), jnp.eye(8, 4)), jnp.stack([labels, labels]), jnp.ones(8, bool))
        >>> step = jax.jit(train_step)
        >>> state, before = step(state, batch, recipe)
        >>> for _ in range(20):
        ...     state, after = step(state, batch, recipe)
        >>> bool(after.loss < before.loss), int(state.step)
        (True, 21)
    """
    params = (state.encoders, unit_rows(state.centers))
    # Its own on every device, so that each finds the gradient of its share; what is shared would be summed twice.
    own = params if axis_name is None else jax.lax.pcast(params, axis_name, to="varying")

    valid = jnp.broadcast_to(batch.mask, batch.labels.shape)

    def objective(params: tuple[tuple[Any, ...], Array]) -> tuple[Array, Any]:
        encoders, centers = params
        z = jnp.stack(embed(recipe, encoders, batch.features))  # [M, B, L]
        targets = None if state.targets is None else updated_targets(recipe, state.targets, batch.rows, z, centers)
        total, terms = mrl_loss(
            z,
            centers,
            batch.labels,
            beta=recipe.beta,
            tau1=recipe.tau1,
            tau2=recipe.tau2,
            mask=batch.mask,
            loss=recipe_loss(recipe, valid, batch.clean, targets, epoch, axis_name),
            self_similarity=recipe.self_similarity,
            contrastive_scale=recipe.contrastive_scale,
            axis_name=axis_name,
        )
        return total, (terms, targets)

    (loss, (terms, targets)), gradient = jax.value_and_grad(objective, has_aux=True)(own)
    instances = batch.mask.sum() if batch.mask.ndim == 1 else batch.mask.any(axis=0).sum()
    if axis_name is not None:
        loss, terms, gradient, instances = jax.lax.psum((loss, terms, gradient, instances), axis_name)
    direction, optimizer = recipe.optimizer.update(gradient, state.optimizer, params)
    rate = learning_rate_at(recipe, epoch)

    def move(path: tuple[Any, ...], p: Array, d: Array) -> Array:
        is_kernel = getattr(path[-1], "key", None) == "kernel"
        return p - rate * (d + recipe.weight_decay * p if is_kernel else d)

    encoders, centers = jax.tree_util.tree_map_with_path(move, params, direction)
    metrics = StepMetrics(loss, terms.clustering, terms.contrastive, instances)
    if targets is not None:
        targets = stored_targets(state.targets, targets, batch.rows, valid, axis_name)  # type: ignore[arg-type]
    return TrainState(encoders, centers, optimizer, state.step + 1, targets), metrics


def epoch_batches(key: Array, num_instances: int, batch_size: int, shares: int = 1) -> tuple[Array, Array]:
    """Draw the batches of an epoch: every instance once, the last, incomplete batch padded.

    Args:
        key: key of this epoch.
        num_instances: N.
        batch_size: B.
        shares: into how many equal parts a batch is to be cut; it is padded to a multiple of them.

    Returns:
        Row numbers int32 [S, B] and mask [S, B], False where padded, with S = ceil(N / B); padded, B is larger.
    """
    steps = math.ceil(num_instances / batch_size)
    rows = jax.random.permutation(key, num_instances)
    rows = jnp.pad(rows, (0, steps * batch_size - num_instances))
    mask = jnp.arange(steps * batch_size) < num_instances
    behind = [(0, 0), (0, -batch_size % shares)]
    return jnp.pad(rows.reshape(steps, batch_size), behind), jnp.pad(mask.reshape(steps, batch_size), behind)


def train_epoch(
    state: TrainState,
    data: TrainData,
    key: Array,
    epoch: ArrayLike,
    recipe: Recipe,
    *,
    axis_name: str | None = None,
    sharding: Any = None,
) -> tuple[TrainState, StepMetrics]:
    """One pass over the data as a single `lax.scan`; a last batch that is mostly padding is a step of its own shape.

    Args:
        state: the state before the epoch.
        data: the training split, resident on the device.
        key: the run's key for batches; the epoch folds its number into it, so resuming needs no saved randomness.
        epoch: epoch number from 0.
        recipe: how to train.
        axis_name: of the devices that share every batch, under `shard_map` or `pmap`; each has all the data.
        sharding: of the instances of every batch over devices, under `jit`: a `NamedSharding` along one axis of a mesh.

    Returns:
        The state after the epoch, and the metrics of its S steps, arrays [S].
    """
    shares = 1 if axis_name is None else jax.lax.axis_size(axis_name)
    shares = shares if sharding is None else sharding.mesh.shape[sharding.spec[0]]
    count, clean = data.labels.shape[1], None
    if recipe.loss == "gmm":
        warm = jnp.asarray(epoch) < dict(recipe.loss_options).get("warmup", WARMUP)
        everyone = jnp.ones(data.labels.shape, bool)
        clean = jax.lax.cond(warm, lambda: everyone, lambda: clean_samples(state, data, recipe))
    batches = epoch_batches(jax.random.fold_in(key, epoch), count, recipe.batch_size, shares)

    def part(batches: tuple[Array, Array]) -> tuple[Array, Array]:
        """Columns [S, B / shares] of this device."""
        if axis_name is None:
            return batches
        width = batches[0].shape[1] // shares
        first = width * jax.lax.axis_index(axis_name)
        return tuple(jax.lax.dynamic_slice_in_dim(x, first, width, axis=1) for x in batches)  # type: ignore[return-value]

    def body(state: TrainState, batch: tuple[Array, Array]) -> tuple[TrainState, StepMetrics]:
        rows, mask = batch if sharding is None else jax.lax.with_sharding_constraint(batch, sharding)
        own = [rows] * len(data.features) if data.partners is None else data.partners[:, rows]
        features = tuple(x[i] for x, i in zip(data.features, own, strict=True))
        if data.mask is not None:
            mask = data.mask[:, rows] & mask[None]
        trusted = None if clean is None else clean[:, rows]
        return train_step(state, Batch(features, data.labels[:, rows], mask, rows, trusted), recipe, epoch, axis_name)

    padded = -count % recipe.batch_size
    if padded < max(_PADDED, _PADDED_SHARE * count):
        return jax.lax.scan(body, state, part(batches))
    last = recipe.batch_size - padded
    last += -last % shares
    state, steps = jax.lax.scan(body, state, part((batches[0][:-1], batches[1][:-1])))
    state, step = jax.lax.scan(body, state, part((batches[0][-1:, :last], batches[1][-1:, :last])))
    return state, jax.tree.map(lambda *x: jnp.concatenate(x), steps, step)
