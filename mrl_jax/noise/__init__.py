"""Label noise: injected, or read from a file."""

from mrl_jax.noise.files import read_noise_file, read_transition_matrix
from mrl_jax.noise.inject import NoiseSpec, NoisyLabels, inject_noise, transition_matrix

__all__ = ["NoiseSpec", "NoisyLabels", "inject_noise", "read_noise_file", "read_transition_matrix", "transition_matrix"]
