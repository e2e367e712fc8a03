"""Evaluate a run, or embeddings from elsewhere."""

from mrl_jax.eval.evaluate import Options, compare, evaluate, evaluate_embeddings

__all__ = ["Options", "compare", "evaluate", "evaluate_embeddings"]
