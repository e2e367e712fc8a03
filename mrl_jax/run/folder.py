"""The folder of a run: its files, each written atomically.

```
checksums.json  checksums of the other files, without checkpoints (which have their own), curves and report
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
```
"""

import errno
import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from mrl_jax.checksums import CHECKSUMS, CheckedFolder
from mrl_jax.config import Config
from mrl_jax.config_formats import format_of
from mrl_jax.data.dataset import Dataset
from mrl_jax.data.emoji.versions import recorded_source
from mrl_jax.errors import DamageWarning, InputError, first_line, shortened
from mrl_jax.files import locked, pretty_json, refuse_address, write_atomically
from mrl_jax.interface import option
from mrl_jax.json_files import parse_json, read_json
from mrl_jax.methods.state import Shapes
from mrl_jax.run.metrics_file import encode, read_lines
from mrl_jax.run.model import Model
from mrl_jax.run.model_file import read_model, write_model
from mrl_jax.run.schemas import CONFIG, DATA, FAILED, LENGTHS, NOISE, RESULT

__all__ = ["RunFolder", "best_epoch", "describe", "shapes_of"]

_CONFIG, _DATA, _NOISE, _METRICS, _RESULT = "config.json", "data.json", "noise.json", "metrics.jsonl", "result.json"
_MODEL, _LENGTHS, _SAMPLES = "model.npz", "lengths.json", "samples"
_noted: list[Path] = []  # the run whose missing checksums were warned of
_SCHEMAS = {
    _CONFIG: CONFIG,
    _DATA: DATA,
    _NOISE: NOISE,
    _RESULT: RESULT,
    _LENGTHS: LENGTHS,
    "sweep.json": CONFIG,  # its format is asked for first
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
        self.checked = CheckedFolder(self.path)
        self._check: str | None = None  # checksum of the last line of `metrics.jsonl`, once it is known

    @classmethod
    def create(cls, path: str | os.PathLike[str], config: Config) -> "RunFolder":
        """Start a run in a new or empty folder.

        Raises:
            InputError: the folder is not empty, or cannot be written.
        """
        folder = cls.refuse_occupied(path)
        try:
            made = _make_folders(folder.path)
            with locked(folder.path, f"workdir {str(path)!r}: another process starts a run here; name another folder"):
                cls.refuse_occupied(path)
                try:
                    for part in folder.path.glob(".*.part"):  # of a start that was killed
                        part.unlink()
                    folder.checkpoints.mkdir(exist_ok=True)
                    folder.checked.begin()
                    folder.write(_CONFIG, config.to_json())
                except BaseException:
                    folder._clear_start(made)
                    raise
        except OSError as error:
            raise InputError(
                f"workdir {str(path)!r} cannot be written ({error.strerror}); name another folder"
            ) from error
        return folder

    def _clear_start(self, made: Sequence[Path]) -> None:
        """Remove what a start that failed has written, and the folders that it made."""
        for name in (_CONFIG, CHECKSUMS):
            with suppress(OSError):
                (self.path / name).unlink()
        for folder in (self.checkpoints, *reversed(made)):
            with suppress(OSError):  # others may have written there
                folder.rmdir()

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
            if _CONFIG not in names:  # a start that was killed leaves these
                names = [n for n in names if n != CHECKSUMS and not (n.startswith(".") and n.endswith(".part"))]
                if names == [folder.checkpoints.name] and not any(folder.checkpoints.iterdir()):
                    names = []
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
        if not (folder.path / _CONFIG).is_file():
            raise InputError(f"workdir {str(path)!r} holds no run ({_CONFIG} is missing); name the folder of a run")
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
        return format_of(self.read(_CONFIG), self.path / _CONFIG)

    def config(self) -> Config:
        """The run's configuration."""
        values = self.read(_CONFIG)
        config = Config.from_json(values, self.path / _CONFIG)
        if config.representation is None and config.has_effect("representation"):
            config = replace(config, representation="embedding")  # written before runs recorded it
        return config

    def read(self, name: str) -> Any:
        """The object in a JSON file of the run.

        Raises:
            InputError: missing or damaged.
        """
        try:
            if name == _CONFIG:
                return self._read_config()
            return parse_json(self.checked.read(name), _SCHEMAS[name])
        except InputError:
            raise
        except OSError as error:
            raise InputError(f"{self.path / name} cannot be read ({error.strerror}); is the run complete?") from error
        except ValueError as error:
            raise InputError(f"{self.path / name} is damaged ({error}); restore it or train anew") from error

    def _read_config(self) -> Any:
        """The content of `config.json`, compared value by value, so that the message can say what was changed."""
        for attempt in (1, 2):  # another process may replace the file between two reads
            values, recorded = read_json(self.path / _CONFIG, CONFIG), self.checked.settings()
            if not self.checked.has_checksums or values in recorded:
                break
            if attempt == 2:
                raise changed_settings(self.path / _CONFIG, values, recorded[0] if recorded else {})
        return values

    def write(self, name: str, value: Any) -> None:
        """Write a JSON file atomically."""
        content = pretty_json(value) + "\n"
        if name == _CONFIG:
            self.checked.record_settings(parse_json(content))
            write_atomically(self.path / name, content)
            self.checked.settle_settings()
        else:
            self.checked.write(name, content)

    def record_checksums(self) -> None:
        """Record the checksums of a run of an earlier version, as its files are now."""
        if self.checked.has_checksums:
            return
        self.rewind(len(self.metrics()))
        names = [_DATA, _NOISE, _RESULT, _MODEL, _LENGTHS, *(f"{_SAMPLES}/{p.name}" for p in self._sample_files())]
        config = self.read(_CONFIG)
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
        self.write(_CONFIG, config.to_json())  # last: a run that is killed before has its old length
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
        names, split_names = data["modalities"], list(data["samples"])
        if sorted(data["dims"]) != sorted(set(names)) or len(set(names)) < len(names) or not data["class_names"]:
            raise InputError(f"{self.path / _DATA} is damaged (modalities, dims or class_names); train anew")
        if any(sorted(data["samples"][s]) != sorted(names) or s not in data["instances"] for s in split_names):
            raise InputError(f"{self.path / _DATA} is damaged (samples or instances); train anew")
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
        return self._read_metrics()[0]

    def _read_metrics(self, epochs: int | None = None) -> tuple[list[dict[str, Any]], list[str]]:
        """The lines of `metrics.jsonl` and their checksums; later lines than of these epochs may be damaged."""
        path = self.path / _METRICS
        try:
            lines = path.read_text("utf-8", "surrogateescape").split("\n")[:-1] if path.exists() else []
            found, checks = read_lines(lines[:epochs], self.checked.has_checksums)
            whole = (self.checked.recorded() or {"files": {}})["files"].get(_METRICS)
            if whole and epochs is None and (checks[-1] if checks else None) not in whole:
                raise ValueError("its last checksum differs")
            return found, checks
        except InputError:
            raise
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror})") from error
        except ValueError as error:
            raise InputError(f"{path} is damaged ({error}); train anew") from error

    def metrics_until(self, epochs: int, check: str | None = None) -> list[dict[str, Any]]:
        """The lines of the given number of epochs.

        Args:
            epochs: their number.
            check: checksum that the last of them must have, or None.

        Raises:
            InputError: there are fewer lines, one is damaged, or they are of another run.
        """
        lines, checks = self._read_metrics(epochs)
        if len(lines) < epochs:
            raise InputError(f"{self.path / _METRICS} has {len(lines)} lines for {epochs} epochs; train anew")
        if check is not None and checks[-1:] != [check]:
            raise InputError(f"{self.path / _METRICS} is not the file of this run (checksums differ); train anew")
        return lines

    def rewind(self, epochs: int) -> list[dict[str, Any]]:
        """Remove the lines after the given number of epochs from `metrics.jsonl`; returns the other lines."""
        lines = self.metrics_until(epochs)
        self.checked.record(_METRICS, None)
        text, self._check = "", ""
        for line in lines:
            encoded, self._check = encode(line, self._check)
            text += encoded
        write_atomically(self.path / _METRICS, text)
        return lines

    def log(self, line: Mapping[str, Any]) -> None:
        """Append one epoch to `metrics.jsonl`."""
        encoded, self._check = encode(line, self.log_check)
        with (self.path / _METRICS).open("a", encoding="utf-8") as file:
            file.write(encoded)
            file.flush()
            os.fsync(file.fileno())

    @property
    def log_check(self) -> str:
        """The checksum of the last line of `metrics.jsonl`."""
        if self._check is None:
            self._check = (self._read_metrics()[1] or [""])[-1]
        return self._check

    def write_samples(self, epoch: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Write what the model says of the training samples after an epoch."""
        (self.path / _SAMPLES).mkdir(exist_ok=True)
        with self.checked.replacing(f"{_SAMPLES}/{epoch:06d}.npz") as part, part.open("wb") as file:
            np.savez(file, predicted=arrays["predicted"], margin=arrays["margin"])

    def samples(self) -> dict[int, dict[str, np.ndarray]]:
        """Epoch -> "predicted" int32 [M, N] and "margin" float16 [M, N] of the training samples; empty without any.

        Raises:
            InputError: a file is damaged.
        """
        found, paths = {}, self._sample_files()
        if paths:  # without any, the run has none, or they were deleted
            for lost in sorted(self.checked.names(_SAMPLES) - {f"{_SAMPLES}/{path.name}" for path in paths}):
                raise InputError(f"{self.path / lost} is missing; delete the folder {_SAMPLES} to go on without")
        for path in paths:
            try:
                content = self.checked.read(f"{_SAMPLES}/{path.name}")
                with np.load(BytesIO(content), allow_pickle=False) as arrays:
                    found[int(path.stem)] = {name: arrays[name] for name in ("predicted", "margin")}
            except Exception as error:  # damaged files raise errors of many types
                raise InputError(
                    f"{path} is damaged ({first_line(error)}); delete the folder {_SAMPLES} to go on without"
                ) from error
        return found

    def _sample_files(self) -> list[Path]:
        return sorted((self.path / _SAMPLES).glob("*.npz"))

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
        self.checked.record(_METRICS, self.log_check)
        self.checked.done(_METRICS)
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


def shapes_of(data: Mapping[str, Any]) -> Shapes:
    """The sizes that determine the shapes of a run's state, from its `data.json`."""
    dims = tuple(data["dims"][m] for m in data["modalities"])
    return Shapes(dims, len(data["class_names"]), data["instances"]["train"])


def _make_folders(path: Path) -> list[Path]:
    """Make a folder and those above it; returns those that were made, the outermost first."""
    made: list[Path] = []
    for folder in [*reversed(path.parents), path]:
        if not folder.exists():
            folder.mkdir(exist_ok=True)
            made.append(folder)
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    return made


def changed_settings(path: Path, values: Mapping[str, Any], recorded: Mapping[str, Any]) -> InputError:
    """The error for settings that were changed by hand or damaged; it names them."""
    changes = [
        f"{name} is {shortened(repr(values.get(name)), 80)}, was {shortened(repr(recorded.get(name)), 80)}"
        for name in sorted(values.keys() | recorded.keys())
        if values.get(name) != recorded.get(name) or (name in values) != (name in recorded)
    ]
    return InputError(
        f"{path} was changed after the run began: {'; '.join(changes[:5])}{' …' * (len(changes) > 5)}; put that back, "
        "or start another run with the new values in a new folder"
    )
