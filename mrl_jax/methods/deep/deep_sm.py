"""Deep semantic matching (Wei et al. 2017): a network per modality, trained with cross-entropy on the classes.

In the comparison of MRL this row equals, digit for digit, its own network with the cross-entropy of the class centres
and without the contrastive loss (Tables 1 and 3). That is what stands here. The original retrieves by class posterior,
which `--representation posterior` does.
"""

import dataclasses
from typing import TYPE_CHECKING

from mrl_jax.methods.base import MethodEntry
from mrl_jax.methods.deep.parts import NETWORKS
from mrl_jax.methods.mrl import Hyperparameters, mrl
from mrl_jax.methods.mrl import hyperparameters as of_mrl
from mrl_jax.methods.state import OracleNoise

if TYPE_CHECKING:
    from mrl_jax.config import Config

__all__ = ["ENTRY"]


def hyperparameters(config: "Config", noise: OracleNoise | None) -> Hyperparameters:
    """Those of MRL with cross-entropy, and no contrastive loss."""
    return dataclasses.replace(of_mrl(config, noise), loss="ce", beta=1.0, tau2=1.0)


ENTRY = MethodEntry(
    name="deep-sm",
    summary="A network per modality onto the unit sphere, trained with the cross-entropy of the given labels; class "
    "centres are shared. It is mrl with --loss ce --beta 1.",
    source="Wei et al., Cross-Modal Retrieval with CNN Visual Features: A New Baseline, IEEE Transactions on "
    "Cybernetics 2017",
    equation=r"L = - \tfrac{1}{N} \sum_{i,j} \log p(y_j^i \mid x_j^i)",
    cost="none",
    method=lambda config: mrl("ce"),
    hyperparameters=hyperparameters,
    describe=lambda config: f"method: deep-sm, tau1 {config.tau1:.3g}, seed {config.seed}",
    title=lambda config: "method deep-sm",
    uses=NETWORKS | {"tau1", "representation"},
    axes=("method", "noise_rate", "tau1", "learning_rate", "seed"),
)
"""What the registry knows of the method `deep-sm`."""
