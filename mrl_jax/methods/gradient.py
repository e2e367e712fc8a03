"""Gradient methods, built from parts: networks, an objective, Adam, and a schedule of the learning rate.

Shape letters: M modalities, N training instances, B batch, L embedding.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from mrl_jax.methods.base import Method
from mrl_jax.methods.state import Batch, Shapes, State
from mrl_jax.options import SCHEDULES

if TYPE_CHECKING:
    from mrl_jax.config import Config

__all__ = ["SCHEDULES", "SETTINGS", "adam", "gradient_method", "learning_rate_at", "settings_of"]

SETTINGS = ("epochs", "batch_size", "learning_rate", "schedule", "weight_decay", "clip_norm", "init_from")
"""Fields of `Config` that every gradient method uses."""


def settings_of(config: "Config") -> dict[str, Any]:
    """The values of `SETTINGS` in a configuration, by name; the trainer itself reads `init_from`."""
    return {name: getattr(config, name) for name in SETTINGS if name != "init_from"}


def adam(h: Any) -> Any:
    """Direction of the update: optional clipping of the global norm, then Adam, an `optax.GradientTransformation`.

    Args:
        h: hyperparameters with `clip_norm` and `adam_betas`. Rate and decay are applied by the step.
    """
    import optax  # deferred: embedding does without it

    clip = [] if h.clip_norm is None else [optax.clip_by_global_norm(h.clip_norm)]
    return optax.chain(*clip, optax.scale_by_adam(*h.adam_betas))


def learning_rate_at(h: Any, epoch: ArrayLike) -> Array:
    r"""Learning rate of an epoch; it changes between epochs only.

    "cosine" is $\tfrac{\eta}{2} (1 + \cos(\pi e / E))$ for epoch e of E. "cosine-hold" has $\max(e - 1, 0)$ in place of
    e, as the official implementation does: the first two epochs run at the initial rate. "cosine-hold-v1" divides that
    by E - 1, as earlier versions of this package did, so that their runs resume to the same bits.

    Args:
        h: hyperparameters with `schedule`, `learning_rate` and `epochs`.
        epoch: its number, from 0.

    Raises:
        ValueError: unknown schedule.
    """
    if h.schedule == "constant":
        progress = jnp.zeros(())
    elif h.schedule == "cosine":
        progress = jnp.asarray(epoch) / h.epochs
    elif h.schedule == "cosine-hold":
        progress = jnp.maximum(jnp.asarray(epoch) - 1, 0) / h.epochs
    elif h.schedule == "cosine-hold-v1":
        progress = jnp.maximum(jnp.asarray(epoch) - 1, 0) / max(h.epochs - 1, 1)
    else:
        raise ValueError(f"unknown schedule {h.schedule!r}; known: {', '.join(SCHEDULES)}")
    return jnp.asarray(0.5 * h.learning_rate * (1.0 + jnp.cos(jnp.pi * progress)))


def gradient_method(
    name: str,
    *,
    init_params: Callable[..., Any],
    embed: Callable[..., Array],
    objective: Callable[..., tuple[Array, tuple[dict[str, Array], Any]]],
    project: Callable[[Any], Any] = lambda params: params,
    augment: Callable[..., Batch] = lambda h, batch, step, axis_name: batch,
    init_samples: Callable[..., Any] | None = None,
    refresh: Callable[..., Any] | None = None,
    complete: Callable[..., Any] | None = None,
    assign: Callable[..., Array] | None = None,
    decays: Callable[[tuple[Any, ...], Array], bool] = lambda path, leaf: leaf.ndim >= 2,
    prepare: Callable[..., Any] | None = None,
    needs: frozenset[str] = frozenset(),
    layers: Callable[..., Any] | None = None,
    class_layers: Callable[..., Any] | None = None,
) -> Method:
    """A method that follows the gradient of one objective with Adam.

    Its hyperparameters have the fields `learning_rate`, `weight_decay`, `schedule`, `epochs`, `clip_norm` and
    `adam_betas`.

    Args:
        name: see `Method`.
        init_params: (h, key, shapes) -> params.
        embed: see `Method`.
        objective: (h, params, batch, epoch, axis_name) -> loss, (metrics, samples). With an `axis_name` loss and
            metrics are shares of this device, which sum to those of the whole batch; samples are those of its rows.
        project: params -> params, before every step and outside of the gradient, such as onto the unit sphere.
        augment: (h, batch, step, axis_name) -> batch, before the gradient, such as dropout of features.
        init_samples: (h, shapes) -> per-sample state, leaves [N, ...].
        refresh: see `Method`.
        complete: see `Method`.
        assign: see `Method`.
        decays: (path, leaf) -> whether weight decay acts on a leaf of the parameters; by default on matrices.
        prepare: see `Method`.
        needs: see `Method`.
        layers: see `Method`.
        class_layers: see `Method`.
    """

    def init(h: Any, key: Array, shapes: Shapes) -> State:
        params = init_params(h, key, shapes)
        samples = () if init_samples is None else init_samples(h, shapes)
        return State(params, adam(h).init(params), jnp.zeros((), jnp.int32), samples)

    def step(
        h: Any, state: State, batch: Batch, epoch: ArrayLike, axis_name: str | None = None
    ) -> tuple[State, dict[str, Array], Any]:
        params = project(state.params)
        batch = augment(h, batch, state.step, axis_name)
        # Device-varying, so that each device finds the gradient of its share; a replicated one would be summed twice.
        own = params if axis_name is None else jax.lax.pcast(params, axis_name, to="varying")
        (loss, (metrics, samples)), gradient = jax.value_and_grad(
            lambda p: objective(h, p, batch, epoch, axis_name), has_aux=True
        )(own)
        if axis_name is not None:
            loss, metrics, gradient = jax.lax.psum((loss, metrics, gradient), axis_name)
        direction, optimizer = adam(h).update(gradient, state.optimizer, params)
        rate = learning_rate_at(h, epoch)

        def move(path: tuple[Any, ...], p: Array, d: Array) -> Array:
            return p - rate * (d + h.weight_decay * p if decays(path, p) else d)

        params = jax.tree_util.tree_map_with_path(move, params, direction)
        return State(params, optimizer, state.step + 1, state.samples), {"loss": loss, **metrics}, samples

    def log(h: Any, epoch: int) -> dict[str, float]:
        return {"learning_rate": float(learning_rate_at(h, epoch))}

    return Method(
        name,
        init,
        embed,
        step=step,
        prepare=prepare,
        refresh=refresh,
        complete=complete,
        assign=assign,
        log=log,
        needs=needs,
        init_params=init_params,
        layers=layers,
        class_layers=class_layers,
    )
