"""File formats: arrays out of `.npz`, `.npy`, HDF5, MATLAB and Parquet files, read on access."""
