"""Features of pictures and texts, computed by pretrained Hugging Face models."""

from mrl_jax.data.featurize.pipeline import featurize

__all__ = ["featurize"]
