"""Training as pure functions of arrays: state, one step, one epoch. Nothing here is compiled; callers wrap it in `jit`.

Shape letters: M modalities, N training instances, B batch, S steps of an epoch, D features, L embedding, K classes.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from mrl_jax.encoders import Encoder, init_centers, unit_rows
from mrl_jax.losses import cross_entropy_loss, mrl_loss
from mrl_jax.robust_losses import (
    ROBUST_LOSSES,
    clean_posterior,
    early_learning_loss,
    forward_correction_loss,
    moving_targets,
    small_loss_weights,
)

if TYPE_CHECKING:
    import optax

__all__ = [
    "SCHEDULES",
    "Batch",
    "KnownNoise",
    "Recipe",
    "StepMetrics",
    "TrainData",
    "TrainState",
    "Weights",
    "clean_samples",
    "embed",
    "epoch_batches",
    "init_state",
    "learning_rate_at",
    "train_epoch",
    "train_step",
]

SCHEDULES = ("cosine", "cosine-hold", "constant")
# Padded rows of the last batch, and their share of all instances, from which that batch is worth compiling a step of
# its own shape.
_PADDED, _PADDED_SHARE = 64, 0.05
_ROWS = 4096  # embedded at once where all training samples are
_RAMP, _WARMUP, _THRESHOLD = 10.0, 5.0, 0.5  # of small-loss, in epochs; of gmm, in epochs, and its posterior


def _static(default: Any) -> Any:
    return field(default=default, metadata={"static": True})


class KnownNoise(NamedTuple):
    """What a loss may be told of the noise in the training labels.

    Attributes:
        transition: probability that a sample of class k is labelled y, float32 [M, K, K].
        wrong_share: share of wrong labels, float32 [M].
    """

    transition: Any
    wrong_share: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Recipe:
    """How to train: model, objective and optimiser.

    A pytree whose leaves are the numbers that may differ between runs of one compiled program (`vmap` over them);
    the rest is static, so that changing it compiles anew.

    Attributes:
        beta: weight of the clustering loss (eq. 8).
        tau1: temperature of the soft assignment (eq. 2).
        tau2: temperature of the contrastive loss (eq. 6).
        learning_rate: Adam's rate before the schedule.
        weight_decay: decoupled decay of the weight matrices (not biases, not centres), as in AdamW.
        noise: for the losses "forward" and "small-loss".
        loss: clustering loss by name, a key of `mrl_jax.robust_losses.ROBUST_LOSSES`.
        loss_options: numbers of that loss, pairs of name and value: keyword arguments of its function; for "elr" those
            of `moving_targets`, too; "ramp" of "small-loss": epochs until it drops the whole share of wrong labels, 10;
            "warmup" and "threshold" of "gmm": epochs with all samples, 5, and posterior above which one is kept, 0.5.
        self_similarity: count a sample's similarity with itself in eq. 6.
        contrastive_scale: "equation" (eq. 7) or "program" (mean over all samples, twice).
        hidden_dims: widths of the encoders' hidden layers.
        embed_dim: L.
        initializer: of the linear layers, see `Encoder`.
        schedule: "cosine" decays from the rate to 0 once an epoch; "cosine-hold" runs one more epoch at the initial
            rate first, as the authors' program does; "constant".
        epochs: length of the schedule, the additional first epoch of "cosine-hold" included.
        batch_size: B.
        clip_norm: bound on the global norm of the gradient, or None.
        adam_betas: decay of Adam's first and second moment.
        precision: of the encoders' layers, see `Encoder`; losses, parameters and moments are float32.
    """

    beta: ArrayLike = 0.9
    tau1: ArrayLike = 1.0
    tau2: ArrayLike = 1.0
    learning_rate: ArrayLike = 1e-4
    weight_decay: ArrayLike = 0.0
    noise: KnownNoise | None = None
    loss: str = _static("rc")
    loss_options: tuple[tuple[str, float], ...] = _static(())
    self_similarity: bool = _static(False)
    contrastive_scale: str = _static("equation")
    hidden_dims: tuple[int, ...] = _static((4096, 4096))
    embed_dim: int = _static(512)
    initializer: str = _static("uniform")
    schedule: str = _static("cosine")
    epochs: int = _static(100)
    batch_size: int = _static(100)
    clip_norm: float | None = _static(None)
    adam_betas: tuple[float, float] = _static((0.5, 0.999))
    precision: str = _static("float32")

    @property
    def encoder(self) -> Encoder:
        """The encoder that every modality uses, with parameters of its own."""
        return Encoder(self.hidden_dims, self.embed_dim, self.initializer, self.precision)

    @property
    def optimizer(self) -> "optax.GradientTransformation":
        """Direction of the update: optional clipping, then Adam. Rate and decay are applied by `train_step`."""
        import optax  # deferred: who only embeds does without it

        clip = [] if self.clip_norm is None else [optax.clip_by_global_norm(self.clip_norm)]
        return optax.chain(*clip, optax.scale_by_adam(*self.adam_betas))


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
    """Learning rate of an epoch, counted from 0; it changes between epochs only."""
    if recipe.schedule == "constant":
        share = jnp.zeros(())
    elif recipe.schedule == "cosine":
        share = jnp.asarray(epoch) / recipe.epochs
    elif recipe.schedule == "cosine-hold":
        share = jnp.maximum(jnp.asarray(epoch) - 1, 0) / max(recipe.epochs - 1, 1)
    else:
        raise ValueError(f"unknown schedule {recipe.schedule!r}; known: {', '.join(SCHEDULES)}")
    return jnp.asarray(0.5 * recipe.learning_rate * (1.0 + jnp.cos(jnp.pi * share)))


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
        targets = None if state.targets is None else _targets(recipe, state.targets, batch, z, centers)
        total, terms = mrl_loss(
            z,
            centers,
            batch.labels,
            beta=recipe.beta,
            tau1=recipe.tau1,
            tau2=recipe.tau2,
            mask=batch.mask,
            loss=_clustering_loss(recipe, batch, valid, targets, epoch, axis_name),
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
        targets = _stored(state.targets, targets, batch.rows, valid, axis_name)  # type: ignore[arg-type]
    return TrainState(encoders, centers, optimizer, state.step + 1, targets), metrics


def _clustering_loss(
    recipe: Recipe, batch: Batch, valid: Array, targets: Array | None, epoch: ArrayLike, axis_name: str | None
) -> Callable[..., Array]:
    """The loss that the recipe names, with all that it needs beside embeddings, centres, labels and temperature."""
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
        if batch.clean is None:
            return cross_entropy_loss
        kept = batch.clean & valid
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


def _targets(recipe: Recipe, targets: Array, batch: Batch, z: Array, centers: Array) -> Array:
    """Early-learning targets of the batch [M, B, K], updated."""
    if batch.rows is None:
        raise ValueError("the loss elr keeps targets of every training sample; give Batch(rows=…)")
    momentum = {k: v for k, v in recipe.loss_options if k == "momentum"}
    return moving_targets(targets[:, batch.rows], z, centers, recipe.tau1, **momentum)


def _stored(targets: Array, new: Array, rows: Array, valid: Array, axis_name: str | None) -> Array:
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


def clean_samples(state: TrainState, data: TrainData, recipe: Recipe) -> Array:
    """Which training samples have labels that look right, by their losses: `robust_losses.clean_posterior`.

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
            (z,) = embed(recipe, [encoder], [x[row[0]]])
            return cross_entropy_loss(z, centers, labels[row[1]], recipe.tau1)

        pairs = jnp.stack([own, jnp.arange(len(x))], axis=1)
        terms = jax.lax.map(term, pairs, batch_size=min(_ROWS, len(x)))
        kept.append(clean_posterior(terms, valid[i]) > threshold)
    return jnp.stack(kept)


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
        warm = jnp.asarray(epoch) < dict(recipe.loss_options).get("warmup", _WARMUP)
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
