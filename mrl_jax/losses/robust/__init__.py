"""Losses against noisy labels from other papers than MRL's."""

from mrl_jax.losses.robust.robust import (
    PER_SAMPLE_LOSSES,
    early_learning_loss,
    focal_loss,
    forward_correction_loss,
    generalized_cross_entropy_loss,
    hard_bootstrapping_loss,
    label_smoothing_loss,
    lq_loss,
    mean_absolute_error_loss,
    moving_targets,
    nce_mae_loss,
    nce_rce_loss,
    soft_bootstrapping_loss,
    symmetric_cross_entropy_loss,
)

__all__ = [
    "PER_SAMPLE_LOSSES",
    "early_learning_loss",
    "focal_loss",
    "forward_correction_loss",
    "generalized_cross_entropy_loss",
    "hard_bootstrapping_loss",
    "label_smoothing_loss",
    "lq_loss",
    "mean_absolute_error_loss",
    "moving_targets",
    "nce_mae_loss",
    "nce_rce_loss",
    "soft_bootstrapping_loss",
    "symmetric_cross_entropy_loss",
]
