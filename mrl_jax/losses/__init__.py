"""Losses as pure functions: those of MRL (Hu et al., CVPR 2021), and `losses.robust`, others against noisy labels."""

from mrl_jax.losses.contrastive import contrastive_loss
from mrl_jax.losses.mrl import (
    CLUSTERING_LOSSES,
    CONTRASTIVE_SCALES,
    LossParts,
    MRLTerms,
    cross_entropy_loss,
    log_soft_assignment,
    mrl_loss,
    robust_clustering_loss,
    soft_assignment,
)

__all__ = [
    "CLUSTERING_LOSSES",
    "CONTRASTIVE_SCALES",
    "LossParts",
    "MRLTerms",
    "contrastive_loss",
    "cross_entropy_loss",
    "log_soft_assignment",
    "mrl_loss",
    "robust_clustering_loss",
    "soft_assignment",
]
