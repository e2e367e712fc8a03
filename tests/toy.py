"""A small learnable data set, and the flags and configuration that train on it in a second."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from mrl_jax import Config
from mrl_jax.checksums import CheckedFolder
from mrl_jax.config import with_settings
from mrl_jax.run.checkpoint import Checkpoints, template
from mrl_jax.run.described import shapes_of
from mrl_jax.run.folder import RunFolder
from mrl_jax.training.placement import Placement

SIZES = {"train": 60, "valid": 24, "test": 27}
DIMS = {"sound": 6, "touch": 4, "smell": 5}
CLASSES = 3


def toy_arrays(modalities: tuple[str, ...] = ("sound", "touch"), seed: int = 0) -> dict[str, np.ndarray]:
    """Gaussian clusters, one per class and modality, in the layout of an `.npz` of one's own."""
    rng = np.random.default_rng(seed)
    means = {m: 2.0 * rng.normal(size=(CLASSES, DIMS[m])) for m in modalities}
    arrays = {}
    for split, n in SIZES.items():
        labels = np.arange(n) % CLASSES
        arrays[f"{split}_labels"] = labels
        for m in modalities:
            arrays[f"{split}_{m}"] = (means[m][labels] + rng.normal(size=(n, DIMS[m]))).astype(np.float32)
    return arrays


def toy_config(**changes: Any) -> Config:
    defaults = {"hidden_dims": (16,), "embed_dim": 8, "batch_size": 16, "epochs": 3, "learning_rate": 1e-2}
    return with_settings(Config(**defaults), **changes)


TOY_FLAGS = [
    "--hidden-dims",
    "16",
    "--embed-dim",
    "8",
    "--batch-size",
    "16",
    "--epochs",
    "3",
    "--learning-rate",
    "0.01",
]


def save_npz(path: Path, arrays: dict[str, np.ndarray] | None = None, **changes: Any) -> Path:
    """Write the toy arrays with some replaced; a value of None leaves the key out."""
    arrays = {**(toy_arrays() if arrays is None else arrays), **changes}
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
    return path


def lose(folder: Path, *names: str) -> None:
    """Remove files of a run as if it had never written them, such as a run that was killed before."""
    for name in names:
        CheckedFolder(folder).record(name, None)
        (folder / name).unlink(missing_ok=True)


def unchecked(folder: Path) -> Path:
    """A folder without checksums, whose files may then be changed."""
    (folder / "checksums.json").unlink()
    return folder


def assert_same_checkpoints(a, b):
    """Two run folders end with the same bits, the optimiser's and the best model's included."""
    kept = []
    for path in (a, b):
        folder = RunFolder.open(path)
        config, data = folder.config(), folder.data()
        expected = template(config, shapes_of(data), data["modalities"])
        with Checkpoints(folder.checkpoints, read_only=True) as checkpoints:
            last = checkpoints.epochs()[-1]
            kept.append((last, checkpoints.restore(last, expected), folder.model(config, data)))  # and model.npz
    assert jax.tree.structure(kept[0]) == jax.tree.structure(kept[1])
    for x, y in zip(jax.tree.leaves(kept[0]), jax.tree.leaves(kept[1]), strict=True):
        np.testing.assert_array_equal(x, y)


def placement_of(mode, count=8):
    """Placement of a run on the first `count` CPU devices."""
    return Placement(mode, Mesh(np.array(jax.devices()[:count]), ("batch",)))
