"""Inference of the true labels from noisy ones, on plain arrays: votes of other instances, posterior, quality."""

from mrl_jax.label_inference.posterior import Inferred, infer_labels
from mrl_jax.label_inference.quality import auroc, calibration_error, label_quality, transition_error
from mrl_jax.label_inference.votes import VoteKernel, loo_scores, vote_kernel

__all__ = [
    "Inferred",
    "VoteKernel",
    "auroc",
    "calibration_error",
    "infer_labels",
    "label_quality",
    "loo_scores",
    "transition_error",
    "vote_kernel",
]
