"""Trained models and embeddings for other programs: safetensors, PyTorch, StableHLO, ONNX, tables, and a model card."""

from mrl_jax.export.write import FORMATS, export

__all__ = ["FORMATS", "export"]
