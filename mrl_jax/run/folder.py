"""The folder of a run: its files, each written atomically.

```
config.json     every field of `Config`
data.json       the data set: modalities, dimensions, classes, sizes, digest, attribution
noise.json      noise spec, seed, fractions of wrong labels, digests, and the training labels (--noise-file reads them)
metrics.jsonl   one line per epoch
samples/        what the model says of the training samples at some epochs, one file each
checkpoints/    the last two checkpoints, each with the best model so far; of a complete run the last
lengths.json    the numbers of epochs of a run that was given more of them
model.npz       the model that the run keeps, of the best epoch or the last; a complete run has it
result.json     the test scores; written last, it marks the run as complete
curves.png      learning curves
report.html     a page on the run, by mrl_jax.report; may be deleted
search/         galleries embedded by mrl_jax.search; may be deleted
```
"""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from mrl_jax.config import Config
from mrl_jax.config_formats import format_of
from mrl_jax.data.dataset import Dataset
from mrl_jax.data.emoji.versions import recorded_source
from mrl_jax.errors import InputError
from mrl_jax.files import atomic_path, locked, pretty_json, refuse_address, write_atomically
from mrl_jax.interface import option
from mrl_jax.json_files import parse_json, read_json
from mrl_jax.methods.state import Shapes
from mrl_jax.run.model import Model
from mrl_jax.run.model_file import read_model, write_model
from mrl_jax.run.schemas import CONFIG, DATA, FAILED, LENGTHS, LINE, NOISE, RESULT, SWEEP

__all__ = ["RunFolder", "best_epoch", "describe", "shapes_of"]

_CONFIG, _DATA, _NOISE, _METRICS, _RESULT = "config.json", "data.json", "noise.json", "metrics.jsonl", "result.json"
_MODEL, _LENGTHS, _SAMPLES = "model.npz", "lengths.json", "samples"
_SCHEMAS = {
    _CONFIG: CONFIG,
    _DATA: DATA,
    _NOISE: NOISE,
    _RESULT: RESULT,
    _LENGTHS: LENGTHS,
    "sweep.json": SWEEP,
    "failed.json": FAILED,
}


def best_epoch(metrics: Sequence[Mapping[str, Any]]) -> int:
    """The epoch with the highest average validation mAP; in a tie the earliest."""
    return max(metrics, key=lambda line: (line["valid"]["average"], -line["epoch"]))["epoch"]


def describe(data: Dataset) -> dict[str, Any]:
    """The content of `data.json` for a data set."""
    return {
        "name": data.name,
        "modalities": list(data.modalities),
        "dims": data.dims,
        "class_names": list(data.class_names),
        "instances": {name: len(split) for name, split in data.splits.items()},
        "samples": {
            name: {m: int(split.present(m).sum()) for m in data.modalities} for name, split in data.splits.items()
        },
        "sha256": data.digest(),
        "metadata": dict(data.metadata),
    }


class RunFolder:
    """Paths and files of a run. Every file is written atomically."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"

    @classmethod
    def create(cls, path: str | os.PathLike[str], config: Config) -> "RunFolder":
        """Start a run in a new or empty folder.

        Raises:
            InputError: the folder is not empty, or cannot be written.
        """
        folder = cls.refuse_occupied(path)
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
            try:
                folder.checkpoints.mkdir()  # of two processes that start here at once, one fails here
            except FileExistsError:
                cls.refuse_occupied(path)
            folder.write(_CONFIG, config.to_json())
        except OSError as error:
            raise InputError(
                f"workdir {str(path)!r} cannot be written ({error.strerror}); name another folder"
            ) from error
        return folder

    @classmethod
    def refuse_occupied(cls, path: str | os.PathLike[str]) -> "RunFolder":
        """Check that a new run can start in a folder, without writing.

        Raises:
            InputError: the folder is not empty, or is no folder.
        """
        refuse_address(path, "workdir", output=True)
        folder = cls(path)
        try:
            names = [p.name for p in folder.path.iterdir()] if folder.path.exists() else []
        except OSError as error:
            raise InputError(
                f"workdir {str(path)!r} cannot be written ({error.strerror}); name another folder"
            ) from error
        if names:
            what = f"a run; {option('resume')} continues it" if _CONFIG in names else "other files"
            raise InputError(f"workdir {str(path)!r} already holds {what}; name a new folder to start another")
        return folder

    def lock(self) -> AbstractContextManager[None]:
        """Keep other processes from training in this folder. The lock ends with the process, even if it is killed.

        Raises:
            InputError: another process is training here.
        """
        return locked(self.path, f"workdir {str(self.path)!r}: another process is training here; wait for its end")

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "RunFolder":
        """Open the folder of an existing run.

        Raises:
            InputError: the folder holds no run.
        """
        refuse_address(path, "workdir")
        folder = cls(path)
        if not (folder.path / _CONFIG).is_file():
            raise InputError(f"workdir {str(path)!r} holds no run ({_CONFIG} is missing); name the folder of a run")
        return folder

    def format(self) -> int:
        """The format in which the run's configuration was written."""
        return format_of(self.read(_CONFIG), self.path / _CONFIG)

    def config(self) -> Config:
        """The run's configuration."""
        config = Config.from_json(self.read(_CONFIG), self.path / _CONFIG)
        if config.representation is None and config.has_effect("representation"):
            config = replace(config, representation="embedding")  # written before runs recorded it
        return config

    def read(self, name: str) -> Any:
        """The object in a JSON file of the run.

        Raises:
            InputError: missing or damaged.
        """
        try:
            return read_json(self.path / name, _SCHEMAS[name])
        except OSError as error:
            raise InputError(f"{self.path / name} cannot be read ({error.strerror}); is the run complete?") from error
        except ValueError as error:
            raise InputError(f"{self.path / name} is damaged ({error}); restore it or train anew") from error

    def write(self, name: str, value: Any) -> None:
        """Write a JSON file atomically."""
        write_atomically(self.path / name, pretty_json(value) + "\n")

    def lengths(self) -> list[int]:
        """The numbers of epochs for which the run was begun and extended; empty if it never was."""
        if not (self.path / _LENGTHS).exists():
            return []
        epochs = self.config().epochs  # later ones: the program was killed while it extended the run
        lengths = [n for n in self.read(_LENGTHS)["epochs"] if n <= epochs]
        return lengths if len(lengths) > 1 else []

    def extend(self, config: Config) -> None:
        """Give the run more epochs. It is then no longer complete; its model stays until it is again.

        Args:
            config: its configuration with the new number of epochs.
        """
        begun = self.config().epochs
        assert begun is not None  # a run records its number
        before = self.lengths() or [begun]
        self.write(_LENGTHS, {"epochs": [*before, config.epochs]})
        (self.path / _RESULT).unlink(missing_ok=True)
        self.write(_CONFIG, config.to_json())  # last: a run that is killed before has its old length

    def settle(self, data: Mapping[str, Any], noise: Mapping[str, Any]) -> None:
        """Write `data.json` and `noise.json`, or compare with the existing files.

        Raises:
            InputError: the run was started with other data or other labels.
        """
        compared = ((_DATA, data, "sha256"), (_DATA, data, "init_from_sha256"), (_NOISE, noise, "labels_sha256"))
        for name, value, digest in compared:
            if not (self.path / name).exists():
                self.write(name, value)
            elif (old := self.read(name)).get(digest) != value.get(digest):
                raise InputError(
                    f"{self.path / name}: the run began with other {name.removesuffix('.json')} ({digest} "
                    f"{str(old.get(digest))[:12]}, now {str(value.get(digest))[:12]}); restore what it began with"
                )

    def data(self) -> dict[str, Any]:
        """The content of `data.json`."""
        data = self.read(_DATA)
        names, split_names = data["modalities"], list(data["samples"])
        if sorted(data["dims"]) != sorted(set(names)) or len(set(names)) < len(names) or not data["class_names"]:
            raise InputError(f"{self.path / _DATA} is damaged (modalities, dims or class_names); train anew")
        if any(sorted(data["samples"][s]) != sorted(names) or s not in data["instances"] for s in split_names):
            raise InputError(f"{self.path / _DATA} is damaged (samples or instances); train anew")
        return data

    def source(self) -> str | None:
        """The version of the embedded set that the run began with, as `load_dataset` takes it.

        None if the run has not begun, or has other data.
        """
        if not (self.path / _DATA).exists():
            return None
        return recorded_source(self.read(_DATA).get("metadata", {}))

    @property
    def recorded_noise(self) -> Path | None:
        """The path of `noise.json`, or None if the run has not begun."""
        path = self.path / _NOISE
        return path if path.exists() else None

    def noise(self) -> dict[str, Any]:
        """The content of `noise.json`."""
        return self.read(_NOISE)

    def metrics(self) -> list[dict[str, Any]]:
        """The complete lines of `metrics.jsonl`, without a last line that was interrupted."""
        path = self.path / _METRICS
        try:
            lines = path.read_text("utf-8").split("\n")[:-1] if path.exists() else []
            found = [parse_json(line, LINE) for line in lines]
            if wrong := [i for i, line in enumerate(found, 1) if line["epoch"] != i]:
                raise ValueError(f"line {wrong[0]} is of another epoch")
            return found
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror})") from error
        except ValueError as error:
            raise InputError(f"{path} is damaged ({error}); train anew") from error

    def metrics_until(self, epochs: int) -> list[dict[str, Any]]:
        """The lines of the given number of epochs.

        Raises:
            InputError: there are fewer lines, or one is damaged.
        """
        lines = self.metrics()[:epochs]
        if len(lines) < epochs:
            raise InputError(f"{self.path / _METRICS} has {len(lines)} lines for {epochs} epochs; train anew")
        return lines

    def rewind(self, epochs: int) -> list[dict[str, Any]]:
        """Remove the lines after the given number of epochs from `metrics.jsonl`; returns the other lines."""
        lines = self.metrics_until(epochs)
        write_atomically(self.path / _METRICS, "".join(_line(x) for x in lines))
        return lines

    def log(self, line: Mapping[str, Any]) -> None:
        """Append one epoch to `metrics.jsonl`."""
        with (self.path / _METRICS).open("a", encoding="utf-8") as file:
            file.write(_line(line))
            file.flush()
            os.fsync(file.fileno())

    def write_samples(self, epoch: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Write what the model says of the training samples after an epoch."""
        path = self.path / _SAMPLES / f"{epoch:06d}.npz"
        path.parent.mkdir(exist_ok=True)
        with atomic_path(path) as part, part.open("wb") as file:
            np.savez(file, predicted=arrays["predicted"], margin=arrays["margin"])

    def samples(self) -> dict[int, dict[str, np.ndarray]]:
        """Epoch -> "predicted" int32 [M, N] and "margin" float16 [M, N] of the training samples; empty without any.

        Raises:
            InputError: a file is damaged.
        """
        found = {}
        for path in sorted((self.path / _SAMPLES).glob("*.npz")):
            try:
                with np.load(path, allow_pickle=False) as arrays:
                    found[int(path.stem)] = {name: arrays[name] for name in ("predicted", "margin")}
            except (OSError, ValueError, KeyError, BadZipFile) as error:
                raise InputError(f"{path} is damaged ({error}); delete it") from error
        return found

    def result(self) -> dict[str, Any] | None:
        """The content of `result.json`, or None for a run that is not complete."""
        return self.read(_RESULT) if (self.path / _RESULT).exists() else None

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write `result.json`."""
        self.write(_RESULT, result)

    def model(self, config: Config, data: Mapping[str, Any]) -> tuple[Model, int] | None:
        """The model of `model.npz` and its epoch, or None for a run that is not complete.

        Raises:
            InputError: it is damaged, or does not fit the configuration and `data.json`.
        """
        path = self.path / _MODEL
        if not path.exists():
            return None
        return read_model(path, config, shapes_of(data), data["modalities"])

    def write_model(self, model: Model, modalities: Sequence[str], epoch: int) -> None:
        """Write `model.npz`; the modalities are in the order of the encoders."""
        write_model(self.path / _MODEL, model, modalities, epoch)


def shapes_of(data: Mapping[str, Any]) -> Shapes:
    """The sizes that determine the shapes of a run's state, from its `data.json`."""
    dims = tuple(data["dims"][m] for m in data["modalities"])
    return Shapes(dims, len(data["class_names"]), data["instances"]["train"])


def _line(values: Mapping[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n"
