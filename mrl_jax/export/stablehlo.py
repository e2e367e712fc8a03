"""A model as StableHLO with a free batch size, by `jax.export`: files that JAX loads without this package.

Shape letters: D features, K classes.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export as jax_export

from mrl_jax.export.places import file_of
from mrl_jax.files import write_atomically
from mrl_jax.packages import need
from mrl_jax.run.model import TrainedModel

__all__ = ["PLATFORMS", "exported", "write_stablehlo"]

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
"""Where the program runs."""


def write_stablehlo(folder: Path, run: TrainedModel, representation: str | None = None) -> list[Path]:
    """Write `MODALITY.stablehlo` for every modality.

    Raises:
        InputError: the package flatbuffers is missing, or a file cannot be written.
    """
    need(["flatbuffers"], "--format stablehlo")
    paths = []
    for m in run.modalities:
        paths.append(folder / file_of(m, ".stablehlo"))
        write_atomically(paths[-1], bytes(exported(run, m, representation).serialize()))
    return paths


def exported(run: TrainedModel, modality: str, representation: str | None = None) -> jax_export.Exported:
    """The program of one modality, parameters included.

    Args:
        run: the model.
        modality: one of its modalities.
        representation: of the rows; None for that of the run.

    Returns:
        Features float32 [N, D] -> {"rows": [N, …], "log_posterior": [N, K]}, the latter where there are classes.
    """

    def program(features: Any) -> dict[str, Any]:
        output = run.apply(run.model, {modality: features}, representation)[modality]
        return {name: x for name, x in output._asdict().items() if x is not None}

    (batch,) = jax_export.symbolic_shape("batch")
    width = len(run.model.preprocess[modality]["mean"])
    of_any_size = jax_export.export(jax.jit(program), platforms=PLATFORMS)
    return of_any_size(jax.ShapeDtypeStruct((batch, width), np.float32))
