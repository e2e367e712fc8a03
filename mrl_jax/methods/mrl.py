r"""MRL (Hu et al., CVPR 2021): encoders onto the unit sphere, class centres, a clustering and a contrastive loss.

One gradient method with any clustering loss of `methods.clustering` in place of the paper's.

Shape letters: M modalities, N training instances, B batch, D features, L embedding, K classes.
"""

import dataclasses
import functools
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from mrl_jax.errors import InputError
from mrl_jax.methods.augmentation import AUGMENTATION, augment
from mrl_jax.methods.base import Method, MethodEntry
from mrl_jax.methods.class_centers import (
    Weights,
    assign,
    class_layers,
    decays,
    embed,
    embed_all,
    init_params,
    layers,
    project,
    total_loss,
)
from mrl_jax.methods.clustering import LOSS_PARTS, numbers_of
from mrl_jax.methods.gradient import SETTINGS, gradient_method
from mrl_jax.methods.state import Batch, OracleNoise, State, TrainData
from mrl_jax.models.mlp import Encoder
from mrl_jax.options import LOSSES, OPTIONS

if TYPE_CHECKING:
    from mrl_jax.config import Config

__all__ = ["ENTRY", "Hyperparameters", "Weights", "hyperparameters", "mrl"]


def _static(default: Any) -> Any:
    return field(default=default, metadata={"static": True})


def _option(name: str) -> Any:
    """A static field with the default of the option."""
    return _static(OPTIONS[name].default)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Hyperparameters:
    """Networks, objective and optimiser of MRL.

    A pytree whose leaves are the numbers that may differ between runs of one compiled program (`vmap` over them);
    the rest is static, so that changing it compiles anew. Defaults are those of the options, but for temperatures of 1.

    Attributes:
        beta: weight of the clustering loss (eq. 8).
        tau1: temperature of the soft assignment (eq. 2).
        tau2: temperature of the contrastive loss (eq. 6).
        learning_rate: Adam's rate before the schedule.
        weight_decay: decoupled decay of the weight matrices (not biases, not centres), as in AdamW.
        noise: for the losses "forward" and "small-loss".
        loss: clustering loss, a key of `options.LOSSES`.
        loss_options: numbers of that loss, pairs of name and value; the others have the defaults of `options.LOSSES`.
        self_similarity: count a sample's similarity with itself in eq. 6.
        contrastive_scale: "equation" (eq. 7) or "program" (mean over all samples, twice).
        hidden_dims: widths of the encoders' hidden layers.
        embed_dim: L.
        initializer: of the linear layers, see `Encoder`.
        schedule: of the learning rate, see `learning_rate_at`.
        epochs: length of the schedule.
        batch_size: B.
        clip_norm: upper bound of the global norm of the gradient, or None.
        adam_betas: decay of Adam's first and second moment.
        precision: of the encoders' layers, see `Encoder`; losses, parameters and moments are float32.
        dropout: probability that a feature is set to 0 in a step of training.
        hidden_dropout: probability that a unit of a hidden layer is set to 0 in a step of training; None for none.
        mixup: largest share of another instance in an instance, in a step of training.
    """

    beta: ArrayLike = OPTIONS["beta"].default
    tau1: ArrayLike = 1.0
    tau2: ArrayLike = 1.0
    learning_rate: ArrayLike = OPTIONS["learning_rate"].default
    weight_decay: ArrayLike = OPTIONS["weight_decay"].default
    noise: OracleNoise | None = None
    loss: str = _option("loss")
    loss_options: tuple[tuple[str, float], ...] = _static(())
    self_similarity: bool = _option("self_similarity")
    contrastive_scale: str = _option("contrastive_scale")
    hidden_dims: tuple[int, ...] = _option("hidden_dims")
    embed_dim: int = _option("embed_dim")
    initializer: str = _option("initializer")
    schedule: str = _option("schedule")
    epochs: int = _static(30)
    batch_size: int = _option("batch_size")
    clip_norm: float | None = _option("clip_norm")
    adam_betas: tuple[float, float] = _static((0.5, 0.999))
    precision: str = _option("precision")
    dropout: float = _static(0.0)
    hidden_dropout: float | None = _static(None)
    mixup: float = _static(0.0)

    @property
    def encoder(self) -> Encoder:
        """The encoder that every modality uses, with parameters of its own."""
        return Encoder(self.hidden_dims, self.embed_dim, self.initializer, self.precision)


_NO_MIXUP = (
    "mixup has no meaning with the loss {loss}, which keeps state of every sample or selects among them; leave it out, "
    "or choose another loss"
)


def _objective(
    h: Hyperparameters, params: Weights, batch: Batch, epoch: ArrayLike, axis_name: str | None
) -> tuple[Array, tuple[dict[str, Array], Any]]:
    """The total loss (eq. 8)."""
    if batch.partners is not None and not LOSS_PARTS[h.loss].mixes:
        raise ValueError(_NO_MIXUP.format(loss=h.loss))
    z = embed_all(h, params, batch)
    valid = jnp.broadcast_to(batch.mask, batch.labels.shape)
    loss, samples = LOSS_PARTS[h.loss].bind(h, batch, z, params.centers, valid, epoch, axis_name)
    total, metrics = total_loss(h, params, batch, z, loss, axis_name)
    return total, (metrics, samples)


@functools.cache
def mrl(loss: str = "rc") -> Method:
    """MRL with a clustering loss, a key of `options.LOSSES`.

    Raises:
        ValueError: unknown loss.
    """
    if loss not in LOSS_PARTS:
        raise ValueError(f"unknown loss {loss!r}; known: {', '.join(LOSS_PARTS)}")
    part = LOSS_PARTS[loss]
    refresh_part = part.refresh

    def refresh(h: Hyperparameters, state: State, data: TrainData, epoch: ArrayLike) -> State:
        return state._replace(samples=refresh_part(h, state.params, data, epoch, embed))  # type: ignore[misc]

    return gradient_method(
        f"loss {loss}",
        init_params=init_params,
        embed=embed,
        objective=_objective,
        project=project,
        augment=augment,
        init_samples=part.init_samples,
        refresh=None if refresh_part is None else refresh,
        assign=assign,
        decays=decays,
        layers=layers,
        class_layers=class_layers,
        needs=part.needs | ({"noise"} if LOSSES[loss].needs_noise else set()),
    )


_NOT_OF_CONFIG = ("noise", "adam_betas", *AUGMENTATION)
_FIELDS = tuple(f.name for f in dataclasses.fields(Hyperparameters) if f.name not in _NOT_OF_CONFIG)


def hyperparameters(config: "Config", noise: OracleNoise | None) -> Hyperparameters:
    """The hyperparameters of a `Config`; those without effect on its method have their defaults."""
    values = {name: getattr(config, name) for name in _FIELDS} | config.method_numbers
    return Hyperparameters(**values | {"loss_options": tuple(sorted(config.loss_numbers.items())), "noise": noise})


def _check(config: "Config") -> None:
    if config.method_numbers.get("mixup") and not LOSS_PARTS[config.loss].mixes:
        raise InputError(_NO_MIXUP.format(loss=config.loss))


def _describe(config: "Config") -> str:
    loss = " ".join((config.loss, *config.loss_options))
    return f"loss: {loss}, beta {config.beta:g}, tau1 {config.tau1:.3g}, tau2 {config.tau2:.3g}, seed {config.seed}"


def _warnings(config: "Config", noise: OracleNoise | None) -> Iterable[str]:
    if noise is not None and config.assumed_noise is None and not noise.wrong_share.any():
        yield (
            f"loss {config.loss} is plain cross-entropy here: no noise is injected and none is assumed; if the labels "
            "of the data are noisy, give the share of wrong ones, --assumed-noise R"
        )
    warmup = numbers_of(config.loss, config.loss_numbers).get("warmup", 0.0)
    if warmup >= config.epochs:
        yield (
            f"loss {config.loss} is plain cross-entropy here: its warmup of {warmup:g} epochs takes all "
            f"{config.epochs}; give fewer, --loss-options warmup=N, or more --epochs"
        )


ENTRY = MethodEntry(
    name="mrl",
    summary="Encoders per modality onto the unit sphere. A robust clustering loss lets samples lead that agree with "
    "their label already; a contrastive loss brings the modalities of an instance together.",
    source="Hu et al., Learning Cross-Modal Retrieval with Noisy Labels, CVPR 2021",
    equation=r"\beta \, \tfrac{1}{N} \sum_{i,j} \log(1 - p(y_j^i \mid x_j^i)) "
    r"- (1 - \beta) \, \tfrac{1}{N} \sum_{i,j} \log P(j \mid x_j^i)",
    cost="the similarities of all samples of a batch",
    method=lambda config: mrl(config.loss),
    hyperparameters=hyperparameters,
    describe=_describe,
    title=lambda config: f"{config.loss} loss, beta {config.beta:g}",
    numbers=AUGMENTATION,
    uses=frozenset(
        {
            *SETTINGS,
            *("hidden_dims", "embed_dim", "initializer", "precision", "representation"),
            *("loss", "loss_options", "assumed_noise", "beta", "tau1", "tau2", "self_similarity", "contrastive_scale"),
        }
    ),
    axes=("loss", "noise_rate", "beta", "tau1", "tau2", "learning_rate", "seed"),
    stem=lambda config: config.loss,
    check=_check,
    warnings=_warnings,
    remedy="try a lower learning rate, a higher temperature, or --clip-norm 1",
)
"""What the registry knows of the method `mrl`."""
