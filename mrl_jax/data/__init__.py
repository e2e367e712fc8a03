"""Data sets: `load_dataset(name, path or arrays)` gives a `Dataset` of NumPy arrays, checked."""

from mrl_jax.data.dataset import SPLITS, Dataset, Split
from mrl_jax.data.load import load_arrays, load_dataset

__all__ = ["SPLITS", "Dataset", "Split", "load_arrays", "load_dataset"]
