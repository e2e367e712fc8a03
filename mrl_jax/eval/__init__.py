"""Evaluation of runs, and of embeddings of any origin."""

from mrl_jax.eval.evaluate import Options, compare, evaluate, evaluate_embeddings

__all__ = ["Options", "compare", "evaluate", "evaluate_embeddings"]
