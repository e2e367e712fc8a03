"""Table of the per-sample losses by name.

docs/method.md lists their equations and sources, docs/methods.md their numbers.

Shape letters: L embedding dimensions, K classes.

All take embeddings z [..., L], centres [K, L], labels [...] and tau, and return per-sample losses [...]. Some need more
arguments, on the noise, on earlier epochs or on the other samples; the training step provides them.
"""

from collections.abc import Callable

from jax import Array

from mrl_jax.losses.mrl import CLUSTERING_LOSSES
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
from mrl_jax.losses.robust.early_learning import early_learning_loss

__all__ = ["PER_SAMPLE_LOSSES"]

PER_SAMPLE_LOSSES: dict[str, Callable[..., Array]] = {
    **CLUSTERING_LOSSES,
    "focal": focal_loss,
    "mae": mean_absolute_error_loss,
    "gce": generalized_cross_entropy_loss,
    "sce": symmetric_cross_entropy_loss,
    "nce-rce": nce_rce_loss,
    "nce-mae": nce_mae_loss,
    "label-smoothing": label_smoothing_loss,
    "bootstrap-soft": soft_bootstrapping_loss,
    "bootstrap-hard": hard_bootstrapping_loss,
    "forward": forward_correction_loss,
    "elr": early_learning_loss,
    "lq": lq_loss,
}
"""Name -> per-sample loss; "forward" and "elr" take more arguments. `methods.clustering` has all losses."""
