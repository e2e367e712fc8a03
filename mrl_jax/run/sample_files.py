"""`samples/` of a run: what the model says of the training samples at some epochs, one file each."""

from collections.abc import Mapping
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path

import numpy as np

from mrl_jax.checksums import CheckedFolder
from mrl_jax.data.formats.npz import open_npz
from mrl_jax.errors import InputError, first_line

__all__ = ["read_samples", "sample_names", "write_samples"]

_SAMPLES = "samples"
_ARRAYS = ("predicted", "margin")


def write_samples(checked: CheckedFolder, epoch: int, arrays: Mapping[str, np.ndarray]) -> None:
    """Write the file of an epoch.

    Raises:
        InputError: it cannot be written.
    """
    (checked.path / _SAMPLES).mkdir(exist_ok=True)
    with checked.replacing(f"{_SAMPLES}/{epoch:06d}.npz") as part, part.open("wb") as file:
        np.savez(file, predicted=arrays["predicted"], margin=arrays["margin"])


def read_samples(checked: CheckedFolder) -> dict[int, dict[str, np.ndarray]]:
    """As `RunFolder.samples`."""
    found, names = {}, sample_names(checked)
    if names:  # without any, the run has none, or they were deleted
        for lost in sorted(checked.names(_SAMPLES) - set(names)):
            raise InputError(f"{checked.path / lost} is missing; delete the folder {_SAMPLES} to go on without")
    for name in names:
        try:
            content = checked.read(name)
            with ExitStack() as stack:  # which checks what the arrays claim before it makes them
                reads = open_npz(BytesIO(content), len(content), stack)
                found[int(Path(name).stem)] = {key: reads[key]() for key in _ARRAYS}
        except Exception as error:  # damaged files raise errors of many types
            raise InputError(
                f"{checked.path / name} is damaged ({first_line(error)}); delete the folder {_SAMPLES} to go on without"
            ) from error
    return found


def sample_names(checked: CheckedFolder) -> list[str]:
    """The names of the files within the folder of the run, in the order of epochs."""
    return [f"{_SAMPLES}/{path.name}" for path in sorted((checked.path / _SAMPLES).glob("*.npz"))]
