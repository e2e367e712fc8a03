"""The clustering losses of MRL as parts of a gradient method: per-sample losses, and what a loss keeps or needs.

Most losses are functions of a sample alone (`mrl_jax.losses.robust`). The others need the oracle noise, keep EMA
targets, or select samples.

Shape letters: M modalities, N training instances, B batch, L embedding, K classes.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from mrl_jax.losses.mrl import cross_entropy_loss
from mrl_jax.losses.robust.corrected import forward_correction_loss
from mrl_jax.losses.robust.early_learning import early_learning_loss, ema_targets
from mrl_jax.losses.robust.selected import clean_posterior, small_loss_weights
from mrl_jax.losses.robust.table import PER_SAMPLE_LOSSES
from mrl_jax.methods.state import Batch, Shapes, TrainData
from mrl_jax.options import LOSSES
from mrl_jax.unit_rows import unit_rows

__all__ = ["LOSS_PARTS", "ClusteringLoss", "numbers_of"]

_ROWS = 4096  # embedded at once where all training samples are


class ClusteringLoss(NamedTuple):
    """A clustering loss and its state; h are the hyperparameters of MRL.

    Attributes:
        bind: (h, batch, z [M, B, L], centers, valid [M, B], epoch, axis_name) -> a function (z, centers, labels, tau)
            of per-sample losses [M, B], and the new per-sample state of the batch, or None.
        init_samples: (h, shapes) -> per-sample state, leaves [N, ...].
        refresh: (h, params, data, epoch, embed) -> per-sample state of all instances.
        needs: as of `Method`, beside the oracle noise, which `options.LOSSES` declares.
        mixes: whether it can be counted for two labels of one sample, as mixup does.
    """

    bind: Callable[..., tuple[Callable[..., Array], Any]]
    init_samples: Callable[..., Any] | None = None
    refresh: Callable[..., Any] | None = None
    needs: frozenset[str] = frozenset()
    mixes: bool = False


def numbers_of(loss: str, given: Mapping[str, float]) -> dict[str, Any]:
    """The numbers of a loss: those that are given, the others from `options.LOSSES`."""
    return {name: number.default for name, number in LOSSES[loss].numbers.items()} | dict(given)


def _numbers(h: Any) -> dict[str, Any]:
    return numbers_of(h.loss, dict(h.loss_options))


def _of_a_sample(loss: Callable[..., Array]) -> ClusteringLoss:
    """A loss that needs nothing but the sample; only numbers that are set are passed, as defaults may depend on K."""
    return ClusteringLoss(lambda h, *_: (partial(loss, **dict(h.loss_options)), None), mixes=True)


# ---------------------------------------------------------------------------------------------------------------------
# Oracle noise


def _bind_forward(h: Any, *_: Any) -> tuple[Callable[..., Array], None]:
    return partial(forward_correction_loss, transition=_oracle(h).transition), None


def _bind_small_loss(
    h: Any, batch: Batch, z: Array, centers: Array, valid: Array, epoch: ArrayLike, axis_name: str | None
) -> tuple[Callable[..., Array], None]:
    dropped = jnp.asarray(_oracle(h).wrong_share)
    if ramp := _numbers(h)["ramp"]:
        dropped = dropped * jnp.minimum(jnp.asarray(epoch) / ramp, 1.0)

    def smallest(z: Array, centers: Array, labels: Array, tau: ArrayLike) -> Array:
        losses = cross_entropy_loss(z, centers, labels, tau)
        return losses * small_loss_weights(losses, 1.0 - dropped, valid, axis_name)

    return smallest, None


def _oracle(h: Any) -> Any:
    if h.noise is None:
        raise ValueError(f"the loss {h.loss} needs the oracle noise: Hyperparameters(noise=OracleNoise(…))")
    return h.noise


# ---------------------------------------------------------------------------------------------------------------------
# EMA targets


def _init_targets(h: Any, shapes: Shapes) -> Array:
    return jnp.zeros((_instances(h, shapes), len(shapes.dims), shapes.classes), jnp.float32)


def _instances(h: Any, shapes: Shapes) -> int:
    if shapes.instances < 1:
        raise ValueError(f"the loss {h.loss} keeps state of every training sample; give num_instances")
    return shapes.instances


def _bind_early_learning(
    h: Any, batch: Batch, z: Array, centers: Array, valid: Array, epoch: ArrayLike, axis_name: str | None
) -> tuple[Callable[..., Array], Array]:
    numbers = _numbers(h)
    before = jnp.swapaxes(batch.samples, 0, 1)  # [M, B, K]
    targets = ema_targets(before, z, centers, h.tau1, momentum=numbers["momentum"])
    loss = partial(early_learning_loss, targets=targets, strength=numbers["strength"])
    return loss, jnp.swapaxes(jnp.where(valid[..., None], targets, before), 0, 1)


# ---------------------------------------------------------------------------------------------------------------------
# The GMM split


def _init_clean(h: Any, shapes: Shapes) -> Array:
    return jnp.ones((_instances(h, shapes), len(shapes.dims)), bool)


def _refresh_clean(h: Any, params: Any, data: TrainData, epoch: ArrayLike, embed: Callable[..., Array]) -> Array:
    """Which labels look right by their losses, bool [N, M]; all of them in the first epochs."""
    numbers = _numbers(h)
    everyone = jnp.ones(data.labels.shape, bool)
    warm = jnp.asarray(epoch) < numbers["warmup"]
    return jax.lax.cond(warm, lambda: everyone, lambda: _clean(h, params, data, numbers["threshold"], embed)).T


def _clean(h: Any, params: Any, data: TrainData, threshold: ArrayLike, embed: Callable[..., Array]) -> Array:
    centers = unit_rows(params.centers)
    valid = jnp.ones(data.labels.shape, bool) if data.mask is None else data.mask
    clean = []
    for i, x in enumerate(data.features):
        own = jnp.arange(len(x)) if data.partners is None else data.partners[i]

        def loss(row: Array, i: int = i, x: Array = x) -> Array:
            z = embed(h, params, i, x[row[0]])
            return cross_entropy_loss(z, centers, data.labels[i][row[1]], h.tau1)

        pairs = jnp.stack([own, jnp.arange(len(x))], axis=1)
        losses = jax.lax.map(loss, pairs, batch_size=min(_ROWS, len(x)))
        clean.append(clean_posterior(losses, valid[i]) > threshold)
    return jnp.stack(clean)


def _bind_gmm(
    h: Any, batch: Batch, z: Array, centers: Array, valid: Array, epoch: ArrayLike, axis_name: str | None
) -> tuple[Callable[..., Array], None]:
    kept = batch.samples.T & valid
    sizes = jnp.stack([valid.sum(axis=1), kept.sum(axis=1)])
    count, chosen = sizes if axis_name is None else jax.lax.psum(sizes, axis_name)
    weights = kept * (count / jnp.maximum(chosen, 1))[:, None]  # so that the mean is over those kept
    return lambda *inputs: weights * cross_entropy_loss(*inputs), None


LOSS_PARTS: dict[str, ClusteringLoss] = {
    **{name: _of_a_sample(loss) for name, loss in PER_SAMPLE_LOSSES.items()},  # some replaced below
    "forward": ClusteringLoss(_bind_forward, mixes=True),
    "small-loss": ClusteringLoss(_bind_small_loss),
    "elr": ClusteringLoss(_bind_early_learning, _init_targets),
    "gmm": ClusteringLoss(_bind_gmm, _init_clean, _refresh_clean, frozenset({"resident"})),
}
"""Value of `--loss` -> the loss."""
