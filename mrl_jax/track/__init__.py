"""Trackers: callbacks that send what a run logs to TensorBoard, Weights & Biases, or MLflow."""

from mrl_jax.track.mlflow import MLflow
from mrl_jax.track.named import TRACKERS, tracker
from mrl_jax.track.tensorboard import TensorBoard
from mrl_jax.track.wandb import WandB

__all__ = ["TRACKERS", "MLflow", "TensorBoard", "WandB", "tracker"]
