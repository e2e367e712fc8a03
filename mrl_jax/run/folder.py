"""The folder of a run: its files, each written atomically.

```
checksums.json  checksums of the other files, without checkpoints (which have their own), curves, report, and the files
                of trackers and search
config.json     every field of `Config`
data.json       the data set: modalities, dimensions, classes, sizes, digest, attribution
noise.json      noise spec, seed, fractions of wrong labels, digests, and the training labels (--noise-file reads them)
metrics.jsonl   one line per epoch, each with a checksum of itself and all before it
samples/        what the model says of the training samples at some epochs, one file each
checkpoints/    the last two checkpoints, each with the best model so far; of a complete run the last
lengths.json    the numbers of epochs of a run that was given more of them
model.npz       the model that the run keeps, of the best epoch or the last; a complete run has it
result.json     the test scores; written last, it marks the run as complete
curves.png      learning curves
report.html     a page on the run, by mrl_jax.report; may be deleted
search/         galleries embedded by mrl_jax.search; may be deleted
trackers.json   names under which trackers know the run; without it they begin new records
tensorboard/    event files; may be deleted
wandb/          files of Weights & Biases; may be deleted once they are sent
```
"""

import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mrl_jax.checksums import CheckedFolder
from mrl_jax.config import Config
from mrl_jax.config_formats import format_of
from mrl_jax.data.emoji.versions import recorded_source
from mrl_jax.errors import DamageWarning, InputError
from mrl_jax.files import locked, pretty_json, refuse_address
from mrl_jax.json_files import parse_json
from mrl_jax.run.described import check_described, shapes_of
from mrl_jax.run.metrics_file import MetricsFile
from mrl_jax.run.model import Model
from mrl_jax.run.model_file import read_model, write_model
from mrl_jax.run.sample_files import read_samples, sample_names, write_samples
from mrl_jax.run.schemas import CONFIG, DATA, FAILED, LENGTHS, NOISE, RESULT, TRACKERS
from mrl_jax.run.settings_file import SETTINGS, read_settings, write_settings
from mrl_jax.run.start import CHECKPOINTS, refuse_occupied, starting

__all__ = ["RunFolder"]

_DATA, _NOISE, _RESULT, _MODEL, _LENGTHS = "data.json", "noise.json", "result.json", "model.npz", "lengths.json"
_noted: list[Path] = []  # the run whose missing checksums were warned of
_SCHEMAS = {
    SETTINGS: CONFIG,
    _DATA: DATA,
    _NOISE: NOISE,
    _RESULT: RESULT,
    _LENGTHS: LENGTHS,
    "sweep.json": CONFIG,  # its format is asked for first
    "failed.json": FAILED,
    "trackers.json": TRACKERS,
}


class RunFolder:
    """Paths and files of a run. Every file is written atomically."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / CHECKPOINTS
        self.checked = CheckedFolder(self.path)
        self._log = MetricsFile(self.checked)

    @classmethod
    def create(cls, path: str | os.PathLike[str], config: Config) -> "RunFolder":
        """Start a run in a new or empty folder.

        Raises:
            InputError: the folder is not empty, or cannot be written.
        """
        folder = cls.refuse_occupied(path)
        with starting(folder.path):
            folder.checkpoints.mkdir(exist_ok=True)
            folder.checked.begin()
            folder.write(SETTINGS, config.to_json())
        return folder

    @classmethod
    def refuse_occupied(cls, path: str | os.PathLike[str]) -> "RunFolder":
        """Check that a new run can start in a folder, without writing.

        Raises:
            InputError: the folder is not empty, or is no folder.
        """
        refuse_occupied(Path(path))
        return cls(path)

    def lock(self) -> AbstractContextManager[None]:
        """Keep other processes from training in this folder. The lock ends with the process, even if it is killed.

        Raises:
            InputError: another process is training here.
        """
        message = f"workdir {str(self.path)!r}: another process is training here; wait for its end"
        return locked(self.path, message, wait=0.2)  # one that looks whether it can start holds it for a moment

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "RunFolder":
        """Open the folder of an existing run.

        Raises:
            InputError: the folder holds no run.
        """
        refuse_address(path, "workdir")
        folder = cls(path)
        if not (folder.path / SETTINGS).is_file():
            raise InputError(f"workdir {str(path)!r} holds no run ({SETTINGS} is missing); name the folder of a run")
        return folder

    def note_without_checksums(self) -> None:
        """Warn, once in a process, of a run without checksums, and of none after it."""
        if not self.checked.has_checksums and not _noted:
            _noted.append(self.path)
            warnings.warn(
                f"{self.path} has no checksums (an earlier version wrote it): damage to its files may go unseen",
                DamageWarning,
                stacklevel=3,
            )

    def format(self) -> int:
        """The format in which the run's configuration was written."""
        return format_of(self.read(SETTINGS), self.path / SETTINGS)

    def config(self) -> Config:
        """The run's configuration."""
        values = self.read(SETTINGS)
        config = Config.from_json(values, self.path / SETTINGS)
        if config.representation is None and config.has_effect("representation"):
            config = replace(config, representation="embedding")  # written before runs recorded it
        return config

    def read(self, name: str) -> Any:
        """The object in a JSON file of the run.

        Raises:
            InputError: missing or damaged.
        """
        try:
            if name == SETTINGS:
                return read_settings(self.checked)
            return parse_json(self.checked.read(name), _SCHEMAS[name])
        except InputError:
            raise
        except OSError as error:
            raise InputError(f"{self.path / name} cannot be read ({error.strerror}); is the run complete?") from error
        except ValueError as error:
            raise InputError(f"{self.path / name} is damaged ({error}); restore it or train anew") from error

    def write(self, name: str, value: Any) -> None:
        """Write a JSON file atomically."""
        if name == SETTINGS:
            write_settings(self.checked, value)
        else:
            self.checked.write(name, pretty_json(value) + "\n")

    def record_checksums(self) -> None:
        """Record the checksums of a run of an earlier version, as its files are now."""
        if self.checked.has_checksums:
            return
        self.rewind(len(self.metrics()))
        names = [_DATA, _NOISE, _RESULT, _MODEL, _LENGTHS, *sample_names(self.checked)]
        config = self.read(SETTINGS)
        self.checked.begin(name for name in names if (self.path / name).exists())
        self.checked.record_settings(config)

    def lengths(self) -> list[int]:
        """The numbers of epochs for which the run was begun and extended; empty if it never was."""
        if not (self.path / _LENGTHS).exists():
            self.checked.check_absent(_LENGTHS)
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
        self.checked.remove(_RESULT)
        self.write(SETTINGS, config.to_json())  # last: a run that is killed before has its old length
        self.checked.record(_RESULT, None)

    def settle(self, data: Mapping[str, Any], noise: Mapping[str, Any]) -> None:
        """Write `data.json` and `noise.json`, or compare with the existing files.

        Raises:
            InputError: the run was started with other data or other labels.
        """
        compared = ((_DATA, data, "sha256"), (_DATA, data, "init_from_sha256"), (_NOISE, noise, "labels_sha256"))
        for name, value, digest in compared:
            if not (self.path / name).exists():
                self._restore(name, value)
            elif (old := self.read(name)).get(digest) != value.get(digest):
                raise InputError(
                    f"{self.path / name}: the run began with other {name.removesuffix('.json')} ({digest} "
                    f"{str(old.get(digest))[:12]}, now {str(value.get(digest))[:12]}); restore what it began with"
                )

    def _restore(self, name: str, value: Any) -> None:
        """Write a file that a run which has begun should have; one that is lost must be what it was."""
        try:
            self.checked.check_absent(name)
        except InputError as error:
            if not self.checked.would_accept(name, pretty_json(value) + "\n"):
                raise error
        self.write(name, value)

    def data(self) -> dict[str, Any]:
        """The content of `data.json`."""
        data = self.read(_DATA)
        try:
            check_described(data)
        except ValueError as error:
            raise InputError(f"{self.path / _DATA} is damaged ({error}); train anew") from error
        return data

    def imported(self) -> bool:
        """Whether the model came from another program, so that no training led to it."""
        return (self.path / _DATA).exists() and "imported" in self.data()

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
        return self._log.lines()

    def metrics_until(self, epochs: int, check: str | None = None) -> list[dict[str, Any]]:
        """The lines of the given number of epochs.

        Args:
            epochs: their number.
            check: checksum that the last of them must have, or None.

        Raises:
            InputError: there are fewer lines, one is damaged, or they are of another run.
        """
        return self._log.until(epochs, check)

    def rewind(self, epochs: int) -> list[dict[str, Any]]:
        """Remove the lines after the given number of epochs from `metrics.jsonl`; returns the other lines."""
        return self._log.rewind(epochs)

    def log(self, line: Mapping[str, Any]) -> None:
        """Append one epoch to `metrics.jsonl`."""
        self._log.append(line)

    @property
    def log_check(self) -> str:
        """The checksum of the last line of `metrics.jsonl`."""
        return self._log.check

    def write_samples(self, epoch: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Write what the model says of the training samples after an epoch."""
        write_samples(self.checked, epoch, arrays)

    def samples(self) -> dict[int, dict[str, np.ndarray]]:
        """Epoch -> "predicted" int32 [M, N] and "margin" float16 [M, N] of the training samples; empty without any.

        Raises:
            InputError: a file is damaged.
        """
        return read_samples(self.checked)

    def result(self) -> dict[str, Any] | None:
        """The content of `result.json`, or None for a run that is not complete.

        Raises:
            InputError: it is damaged, or lost.
        """
        if (self.path / _RESULT).exists():
            return self.read(_RESULT)
        self.checked.check_absent(_RESULT)
        return None

    @property
    def has_checkpoints(self) -> bool:
        """Whether there is a complete checkpoint; unfinished saves have other names."""
        return any(path.name.isdecimal() for path in self.checkpoints.glob("*"))

    @property
    def lost_result(self) -> bool:
        """Whether `result.json` is lost, and the last checkpoint is there to make it again."""
        return not (self.path / _RESULT).exists() and self.has_checkpoints

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write `result.json`."""
        self._log.complete()
        self.write(_RESULT, result)
        self.checked.settle()

    def model(self, config: Config, data: Mapping[str, Any]) -> tuple[Model, int] | None:
        """The model of `model.npz` and its epoch, or None for a run that is not complete.

        Raises:
            InputError: it is damaged, or does not fit the configuration and `data.json`.
        """
        path = self.path / _MODEL
        if not path.exists():
            return None
        try:
            content = self.checked.read(_MODEL)
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror})") from error
        return read_model(path, content, config, shapes_of(data), data["modalities"])

    def write_model(self, model: Model, modalities: Sequence[str], epoch: int) -> None:
        """Write `model.npz`; the modalities are in the order of the encoders."""
        with self.checked.replacing(_MODEL) as part:
            write_model(part, model, modalities, epoch)
