"""What a run trains with: model, objective and optimiser, as one pytree."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
from jax.typing import ArrayLike

from mrl_jax.models.mlp import Encoder

if TYPE_CHECKING:
    import optax

__all__ = ["KnownNoise", "Recipe"]


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
        loss: clustering loss by name, a key of `mrl_jax.losses.robust.robust.ROBUST_LOSSES`.
        loss_options: numbers of that loss, pairs of name and value: keyword arguments of its function; for "elr" those
            of `moving_targets`, too; "ramp" of "small-loss": epochs until it drops the whole share of wrong labels, 10;
            "warmup" and "threshold" of "gmm": epochs with all samples, 5, and posterior above which one is kept, 0.5.
        self_similarity: count a sample's similarity with itself in eq. 6.
        contrastive_scale: "equation" (eq. 7) or "program" (mean over all samples, twice).
        hidden_dims: widths of the encoders' hidden layers.
        embed_dim: L.
        initializer: of the linear layers, see `Encoder`.
        schedule: "cosine" decays the rate towards 0, once an epoch; "cosine-hold" does so one epoch later, as the
            official implementation; "cosine-hold-v1" is what older versions called "cosine-hold"; "constant".
        epochs: length of the schedule.
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
