"""Data sets: `load_dataset(name, path or arrays)` returns a checked `Dataset` of NumPy arrays."""

from mrl_jax.data.dataset import SPLITS, Dataset, Split
from mrl_jax.data.load import load_dataset
from mrl_jax.data.published.load_file import load_arrays

__all__ = ["SPLITS", "Dataset", "Split", "load_arrays", "load_dataset"]
