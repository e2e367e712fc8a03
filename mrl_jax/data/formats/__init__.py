"""File formats: read arrays from `.npz`, `.npy`, HDF5, MATLAB and Parquet files on access."""

from mrl_jax.data.formats.open import FORMATS, LazyArrays, header_of, open_arrays, read_float32

__all__ = ["FORMATS", "LazyArrays", "header_of", "open_arrays", "read_float32"]
