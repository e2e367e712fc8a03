"""Many runs at once: seeds, noise rates and hyperparameters."""

from mrl_jax.sweep.sweep import Outcome, Sweep, grid, sweep

__all__ = ["Outcome", "Sweep", "grid", "sweep"]
