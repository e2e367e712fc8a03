"""Losses against noisy labels from other papers than MRL's."""

from mrl_jax.losses.robust.bounded import (
    focal_loss,
    generalized_cross_entropy_loss,
    lq_loss,
    mean_absolute_error_loss,
    nce_mae_loss,
    nce_rce_loss,
    symmetric_cross_entropy_loss,
)
from mrl_jax.losses.robust.corrected import (
    forward_correction_loss,
    hard_bootstrapping_loss,
    label_smoothing_loss,
    soft_bootstrapping_loss,
)
from mrl_jax.losses.robust.early_learning import early_learning_loss, ema_targets
from mrl_jax.losses.robust.table import PER_SAMPLE_LOSSES

__all__ = [
    "PER_SAMPLE_LOSSES",
    "early_learning_loss",
    "ema_targets",
    "focal_loss",
    "forward_correction_loss",
    "generalized_cross_entropy_loss",
    "hard_bootstrapping_loss",
    "label_smoothing_loss",
    "lq_loss",
    "mean_absolute_error_loss",
    "nce_mae_loss",
    "nce_rce_loss",
    "soft_bootstrapping_loss",
    "symmetric_cross_entropy_loss",
]
