"""Run folders and the trained models in them."""

from mrl_jax.run.folder import RunFolder
from mrl_jax.run.load import load_run, run_data
from mrl_jax.run.metrics_file import best_epoch
from mrl_jax.run.model import Run, TrainedModel

__all__ = ["Run", "RunFolder", "TrainedModel", "best_epoch", "load_run", "run_data"]
