"""Embeddings and labels for tests of retrieval."""

import numpy as np

from mrl_jax.retrieval import on_host, ranking


def module_with(name):
    """The module of rankings that has a limit with this name."""
    return on_host if hasattr(on_host, name) else ranking


def exact_rows(n, dim=8, distinct=12, seed=0):
    """Unit rows with four entries +-1/2, many of them repeated: their products are exact, so ties are ties."""
    rng = np.random.default_rng(seed)
    rows = np.zeros((distinct, dim), np.float32)
    for row in rows:
        row[rng.choice(dim, 4, replace=False)] = rng.choice([-0.5, 0.5], 4)
    return rows[rng.integers(0, distinct, n)]


def random_rows(n, dim=16, seed=0):
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)


def labels(n, k=4, seed=0):
    return np.random.default_rng([seed, n]).integers(0, k, n)


def multi_hot(n, k=5, share=0.3, seed=0):
    return np.random.default_rng([seed, n, k]).random((n, k)) < share
