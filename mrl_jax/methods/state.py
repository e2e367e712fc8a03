"""What the trainer and every method exchange: shapes, training data, batches, and the state.

Shape letters: M modalities, N training instances, B batch, D features, K classes.
"""

from typing import Any, NamedTuple

import jax
from jax import Array

from mrl_jax.notebook import facts_html, facts_text

__all__ = ["Batch", "OracleNoise", "Partners", "Shapes", "State", "TrainData", "instance_count"]


class Shapes(NamedTuple):
    """The sizes that decide the shapes of a state.

    Attributes:
        dims: number of features D of each modality.
        classes: K.
        instances: N. Methods without per-sample state ignore it.
    """

    dims: tuple[int, ...]
    classes: int
    instances: int = 0


class State(NamedTuple):
    """All that training changes; arrays only.

    Attributes:
        params: the model, a pytree that belongs to the method. A field named `encoders` holds one entry per modality.
        optimizer: state of the optimiser, or of several; () where there is none.
        step: number of steps done, int32 scalar.
        samples: what the method keeps per training instance, a pytree with leaves [N, ...]; () for nothing.
    """

    params: Any
    optimizer: Any
    step: Array
    samples: Any = ()

    def __repr__(self) -> str:
        return facts_text("State", self._facts())

    def _repr_html_(self) -> str:
        return facts_html("State", self._facts() | {"shapes": ", ".join(_shapes(self.params))})

    def _facts(self) -> dict[str, str]:
        parts = {"params": self.params, "optimizer": self.optimizer, "samples": self.samples}
        try:
            step = str(int(self.step))
        except (TypeError, RuntimeError):  # of several runs, traced, or donated to a compiled program
            step = "unknown"
        return {"step": step} | {name: _numbers(part) for name, part in parts.items()}


def _numbers(tree: Any) -> str:
    """How many numbers a tree holds."""
    return f"{sum(getattr(x, 'size', 1) for x in jax.tree.leaves(tree)):,} numbers"


def _shapes(tree: Any) -> list[str]:
    return [str(list(getattr(x, "shape", ()))) for x in jax.tree.leaves(tree)]


class TrainData(NamedTuple):
    """The training split on the device.

    Attributes:
        features: one [N, D] per modality.
        labels: given labels, int32 [M, N].
        mask: bool [M, N], False where a sample is missing; None where none is.
        partners: int32 [M, N], which row of a modality's features stands at an instance; None for its own. Labels and
            mask are those of the instance already.
    """

    features: tuple[Array, ...]
    labels: Array
    mask: Array | None = None
    partners: Array | None = None


class Partners(NamedTuple):
    """What mixup has mixed into the instances of a batch.

    Attributes:
        share: of the other instance, in [0, 1): [B].
        labels: given labels of the others, int32 [M, B].
        samples: per-sample state of the others, leaves [B, ...].
    """

    share: Array
    labels: Array
    samples: Any = ()


class Batch(NamedTuple):
    """One batch.

    Attributes:
        features: one [B, D] per modality.
        labels: given labels, int32 [M, B].
        mask: False in padded rows and for missing samples, [B] or [M, B].
        rows: which training instances, int32 [B]. Methods with per-sample state need it.
        samples: per-sample state of these instances, leaves [B, ...]; the trainer fills it in.
        keys: random keys of these instances in this step, [B]; the method fills them in, and what follows.
        partners: what is mixed into the features.
    """

    features: tuple[Array, ...]
    labels: Array
    mask: Array
    rows: Array | None = None
    samples: Any = ()
    keys: Array | None = None
    partners: Partners | None = None


class OracleNoise(NamedTuple):
    """The noise of the training labels, for losses that assume to know it.

    Attributes:
        transition: probability that a sample of class k is labelled y, float32 [M, K, K].
        wrong_share: fraction of wrong labels, float32 [M].
    """

    transition: Any
    wrong_share: Any


def instance_count(mask: Array, axis_name: str | None = None) -> Array:
    """Number of instances of a batch that have a sample, int32 scalar.

    Args:
        mask: bool [B], or [M, B], as in `Batch`.
        axis_name: the batch is divided over this axis of devices; the number is that of the whole batch.
    """
    count = mask.any(axis=0).sum() if mask.ndim == 2 else mask.sum()
    return count if axis_name is None else jax.lax.psum(count, axis_name)
