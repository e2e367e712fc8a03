"""The folder of a run, and the trained model in it."""

from mrl_jax.run.run import Run, RunFolder, load_run

__all__ = ["Run", "RunFolder", "load_run"]
