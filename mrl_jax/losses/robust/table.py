r"""Table of the per-sample losses by name, with their equations and sources.

Shape letters: L embedding dimensions, K classes.

With p = p(y | x) for the given label y, $p_k$ = p(k | x) (eq. 2), and $q$ the one-hot label:

| name | per-sample loss | source |
|---|---|---|
| rc | $\log(1 - p)$ | Hu et al., CVPR 2021 (eq. 5) |
| ce | $-\log p$ | (eq. 3) |
| focal | $-(1 - p)^\gamma \log p$ | Lin et al., ICCV 2017 |
| mae | $\lVert q - p_\cdot \rVert_1 = 2 (1 - p)$ | Ghosh et al., AAAI 2017 |
| gce | $(1 - p^q) / q$ | Zhang and Sabuncu, NeurIPS 2018 |
| sce | $-a \log p + 4 b (1 - p)$ | Wang et al., ICCV 2019 |
| nce-rce, nce-mae | $a \log p / \sum_k \log p_k + b \cdot$ RCE or MAE | Ma et al., ICML 2020 |
| label-smoothing | cross-entropy with $(1 - \epsilon) q + \epsilon / K$ | Szegedy et al., CVPR 2016 |
| bootstrap-soft, -hard | cross-entropy with $t q + (1 - t) r$, r $p_\cdot$ or its one-hot maximum | Reed et al., 2015 |
| forward | $-\log (T^\top p_\cdot)_y$, T the transition matrix | Patrini et al., CVPR 2017 |
| elr | $-\log p + \lambda \log(1 - \langle t, p_\cdot \rangle)$, t EMA targets | Liu et al., NeurIPS 2020 |
| lq | $(1 - q) (1 - p^q) / q + q (1 - p)$ | RSHNL, AAAI 2025 |
| small-loss | $-\log p$ of the smallest losses in a batch | Han et al., NeurIPS 2018, with one network |
| gmm | $-\log p$ where the loss belongs to the lower of two Gaussians | Li et al., ICLR 2020 |

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
