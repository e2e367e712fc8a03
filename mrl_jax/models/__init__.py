"""Networks that map the features of a modality onto the unit sphere."""

from mrl_jax.models.mlp import Encoder

__all__ = ["Encoder"]
