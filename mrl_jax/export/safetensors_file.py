"""A model as a file of safetensors, which other programs read without running code."""

import json
from pathlib import Path

from mrl_jax.export.plain import PlainModel
from mrl_jax.files import write_atomically
from mrl_jax.packages import need

__all__ = ["write_safetensors"]


def write_safetensors(path: Path, model: PlainModel) -> list[Path]:
    """Write the tensors, and the facts as JSON in the metadata entry `mrl_jax`.

    Raises:
        InputError: the package safetensors is missing, or the file cannot be written.
    """
    need(["safetensors"], "--format safetensors")
    from safetensors.numpy import save

    # Readers of the field look for the entry "format": "pt" says that layers are those of PyTorch.
    metadata = {"format": "pt", "mrl_jax": json.dumps(model.facts, ensure_ascii=False)}
    write_atomically(path, save(model.tensors, metadata))
    return [path]
