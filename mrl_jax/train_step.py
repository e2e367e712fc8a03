"""MRL as functions of arrays, for notebooks and programs of one's own: state, one step, one epoch.

Nothing here is compiled; wrap it in `jax.jit`. In every function the arrays come first, then the recipe. Other methods:
`mrl_jax.methods` and `mrl_jax.training.epoch`.
"""

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

from jax import Array
from jax.typing import ArrayLike

from mrl_jax.methods.gradient import learning_rate_at
from mrl_jax.methods.mrl import Hyperparameters, Weights, mrl
from mrl_jax.methods.state import Batch, OracleNoise, Shapes, State, TrainData
from mrl_jax.training import epoch as any_method
from mrl_jax.training.epoch import Metrics, epoch_batches

__all__ = [
    "Batch",
    "Metrics",
    "OracleNoise",
    "Recipe",
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

Recipe = Hyperparameters
"""Networks, objective and optimiser of MRL."""
TrainState = State
"""All that training changes; of MRL `state.params` has the fields `encoders` and `centers`."""


P = ParamSpec("P")
R = TypeVar("R")


def _recipe_after(*names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Accept calls of earlier versions, whose first argument was the recipe and the others were `names`."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> R:
            if args and isinstance(args[0], Hyperparameters):
                name = function.__name__
                message = f"{name}(recipe, {names[0]}, …) is the order of earlier versions; give {name}({names[0]}, …"
                warnings.warn(f"{message}, recipe)", DeprecationWarning, stacklevel=2)
                kwargs = dict(zip(names, args[1:], strict=False)) | {"recipe": args[0]} | kwargs
                args = ()
            return function(*args, **kwargs)

        return call

    return decorate


@_recipe_after("key", "dims", "num_classes", "num_instances")
def init_state(key: Array, dims: Sequence[int], num_classes: int, recipe: Recipe, num_instances: int = 0) -> TrainState:
    """Draw encoders and centres.

    Args:
        key: a `jax.random.key`.
        dims: number of features D of each modality.
        num_classes: K.
        recipe: model and optimiser.
        num_instances: N; the losses "elr" and "gmm" need it.

    Raises:
        ValueError: the loss keeps per-sample state, and there is no number of instances.
    """
    return mrl(recipe.loss).init(recipe, key, Shapes(tuple(dims), num_classes, num_instances))


@_recipe_after("encoders", "features")
def embed(encoders: Sequence[Any], features: Sequence[Array], recipe: Recipe) -> tuple[Array, ...]:
    """Embed every modality: [B, D] each to unit rows [B, L] each. The numbers of rows may differ.

    Args:
        encoders: parameters of the encoders, such as `state.params.encoders`.
        features: preprocessed features of each modality.
        recipe: the networks.
    """
    return tuple(recipe.encoder.apply(p, x) for p, x in zip(encoders, features, strict=True))  # type: ignore[misc]


def train_step(
    state: TrainState, batch: Batch, recipe: Recipe, epoch: ArrayLike = 0, axis_name: str | None = None
) -> tuple[TrainState, Metrics]:
    """One step of Adam on the total loss (eq. 8).

    The centres are brought back to unit length first, outside of the gradient, as in the official implementation: the
    gradient is the one at unit centres, and Adam then moves them off the sphere until the next step.

    Args:
        state: the state before the step.
        batch: the batch; padded rows and missing samples have no effect.
        recipe: objective and optimiser.
        epoch: epoch number from 0, for the learning rate.
        axis_name: of the devices that share the batch, under `shard_map` or `pmap`: each has the same state and its
            part of the batch. The step is that of one device with the whole batch, the metrics too.

    Returns:
        The state after the step, and the scalars "loss", "clustering", "contrastive" and "instances" by name.

    Example:
        Two modalities of 6 and 4 features, 3 classes, a batch of 8:

        >>> import jax, jax.numpy as jnp
        >>> recipe = Recipe(hidden_dims=(16,), embed_dim=8, learning_rate=1e-2)
        >>> state = init_state(jax.random.key(0), (6, 4), 3, recipe)
        >>> labels = jnp.arange(8) % 3
        >>> batch = Batch((jnp.eye(8, 6), jnp.eye(8, 4)), jnp.stack([labels, labels]), jnp.ones(8, bool))
        >>> step = jax.jit(train_step)
        >>> state, before = step(state, batch, recipe)
        >>> for _ in range(20):
        ...     state, after = step(state, batch, recipe)
        >>> bool(after["loss"] < before["loss"]), int(state.step)
        (True, 21)
    """
    return any_method.train_step(mrl(recipe.loss), recipe, state, batch, epoch, axis_name)


def train_epoch(
    state: TrainState,
    data: TrainData,
    key: Array,
    epoch: ArrayLike,
    recipe: Recipe,
    *,
    axis_name: str | None = None,
    sharding: Any = None,
) -> tuple[TrainState, Metrics]:
    """One pass over the data as a single `lax.scan`; see `mrl_jax.training.epoch.train_epoch`.

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
    method = mrl(recipe.loss)
    return any_method.train_epoch(
        method, recipe, state, data, key, epoch, recipe.batch_size, axis_name=axis_name, sharding=sharding
    )
