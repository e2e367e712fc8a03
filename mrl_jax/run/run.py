"""The folder of a run: its files, written atomically, and `load_run`, which turns it back into a usable model.

```
config.json     every field of `Config`
data.json       the data set: modalities, dimensions, classes, sizes, digest, attribution
noise.json      noise spec, seed, wrong shares, digests, and the labels that training saw (--noise-file reads them)
metrics.jsonl   one line per epoch
checkpoints/    the last two that were written, each with the best model so far
model.npz       the model of the best epoch; there once the run is complete, as is the next
result.json     the test scores
curves.png      learning curves
search/         galleries that mrl_jax.search embedded; may be deleted
```
"""

import dataclasses
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mrl_jax.config import Config
from mrl_jax.data.dataset import Dataset
from mrl_jax.data.load import load_dataset
from mrl_jax.data.preprocess import apply_preprocess, kinds_for
from mrl_jax.data.published.catalog import CATALOG
from mrl_jax.errors import DatasetWarning, InputError
from mrl_jax.files import locked, pretty_json
from mrl_jax.run.model_file import Model, read_model, write_model
from mrl_jax.training.train_step import Recipe, embed

__all__ = ["Run", "RunFolder", "best_epoch", "load_run", "recipe_of", "run_data"]

_CONFIG, _DATA, _NOISE, _METRICS, _RESULT = "config.json", "data.json", "noise.json", "metrics.jsonl", "result.json"
_MODEL = "model.npz"


def recipe_of(config: Config) -> Recipe:
    """The part of a configuration that `train_step` needs."""
    names = {f.name for f in dataclasses.fields(Recipe)}
    values = {k: v for k, v in dataclasses.asdict(config).items() if k in names}
    return Recipe(**values | {"loss_options": tuple(sorted(config.loss_numbers.items()))})


def best_epoch(metrics: Sequence[Mapping[str, Any]]) -> int:
    """The epoch with the highest average validation mAP, the earliest of equals."""
    return max(metrics, key=lambda line: (line["valid"]["average"], -line["epoch"]))["epoch"]


def describe(data: Dataset) -> dict[str, Any]:
    """What `data.json` says of a data set."""
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
    """Paths and files of a run. Every file appears whole or not at all."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"

    @classmethod
    def create(cls, path: str | os.PathLike[str], config: Config) -> "RunFolder":
        """Start a run in a new or empty folder.

        Raises:
            InputError: the folder holds anything already, or cannot be written.
        """
        folder = cls.refuse_occupied(path)
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
            try:
                folder.checkpoints.mkdir()  # of two processes that start here at once, one fails at this
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
        """Check that a new run may begin here, without writing.

        Raises:
            InputError: the folder holds anything, or is no folder.
        """
        folder = cls(path)
        try:
            held = [p.name for p in folder.path.iterdir()] if folder.path.exists() else []
        except OSError as error:
            raise InputError(
                f"workdir {str(path)!r} cannot be written ({error.strerror}); name another folder"
            ) from error
        if held:
            what = "a run; --resume continues it" if _CONFIG in held else "other files"
            raise InputError(f"workdir {str(path)!r} already holds {what}; name a new folder to start another")
        return folder

    def lock(self) -> AbstractContextManager[None]:
        """Keep other processes from training in this folder; the lock ends with the process, however that ends.

        Raises:
            InputError: another process is training here.
        """
        return locked(self.path, f"workdir {str(self.path)!r}: another process is training here; wait for its end")

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "RunFolder":
        """Open the folder of an existing run.

        Raises:
            InputError: no run lies there.
        """
        folder = cls(path)
        if not (folder.path / _CONFIG).is_file():
            raise InputError(f"workdir {str(path)!r} holds no run ({_CONFIG} is missing); name the folder of a run")
        return folder

    def config(self) -> Config:
        """The run's configuration."""
        return Config.from_json(self.read(_CONFIG), self.path / _CONFIG)

    def read(self, name: str) -> Any:
        """A JSON file of the run, which holds an object.

        Raises:
            InputError: missing or damaged.
        """
        try:
            value = json.loads((self.path / name).read_text("utf-8"))
            if not isinstance(value, dict):
                raise ValueError("it holds no object")
            return value
        except OSError as error:
            raise InputError(f"{self.path / name} cannot be read ({error.strerror}); is the run complete?") from error
        except ValueError as error:
            raise InputError(f"{self.path / name} is damaged ({error}); restore it or train anew") from error

    def write(self, name: str, value: Any) -> None:
        """Write a JSON file in one move."""
        self._replace(name, pretty_json(value) + "\n")

    def settle(self, data: Mapping[str, Any], noise: Mapping[str, Any]) -> None:
        """Write `data.json` and `noise.json`, or compare with those that stand.

        Raises:
            InputError: the run was started with other data or other labels.
        """
        for name, value, digest in ((_DATA, data, "sha256"), (_NOISE, noise, "labels_sha256")):
            if not (self.path / name).exists():
                self.write(name, value)
            elif (old := self.read(name)).get(digest) != value[digest]:
                raise InputError(
                    f"{self.path / name}: the run began with other {name.removesuffix('.json')} ({digest} "
                    f"{str(old.get(digest))[:12]}, now {value[digest][:12]}); restore the data it began with"
                )

    def data(self) -> dict[str, Any]:
        """What `data.json` says."""
        data = self.read(_DATA)
        if missing := {"modalities", "dims", "class_names", "sha256"} - set(data):
            raise InputError(f"{self.path / _DATA} is damaged ({', '.join(sorted(missing))} missing); train anew")
        dims, classes = data["dims"], data["class_names"]
        if not isinstance(dims, dict) or set(dims) != set(data["modalities"]) or not isinstance(classes, list):
            raise InputError(f"{self.path / _DATA} is damaged (modalities, dims or class_names); train anew")
        return data

    def noise(self) -> dict[str, Any]:
        """What `noise.json` says."""
        return self.read(_NOISE)

    def metrics(self) -> list[dict[str, Any]]:
        """The complete lines of `metrics.jsonl`; a line cut short by a kill is left out."""
        path = self.path / _METRICS
        try:
            lines = path.read_text("utf-8").split("\n")[:-1] if path.exists() else []
            return [{**json.loads(line)} for line in lines]
        except (ValueError, TypeError) as error:
            raise InputError(f"{path} is damaged ({error}); train anew") from error

    def metrics_until(self, epochs: int) -> list[dict[str, Any]]:
        """The lines of the given number of epochs.

        Raises:
            InputError: there are fewer, or a line lacks what is needed.
        """
        lines = self.metrics()[:epochs]
        if len(lines) < epochs:
            raise InputError(f"{self.path / _METRICS} has {len(lines)} lines for {epochs} epochs; train anew")
        if any("epoch" not in x or "average" not in x.get("valid", {}) for x in lines):
            raise InputError(f"{self.path / _METRICS} is damaged (epoch or valid mAP missing); train anew")
        return lines

    def rewind(self, epochs: int) -> list[dict[str, Any]]:
        """Drop what was logged after the given number of epochs; returns the lines that stay."""
        lines = self.metrics_until(epochs)
        self._replace(_METRICS, "".join(_line(x) for x in lines))
        return lines

    def log(self, line: Mapping[str, Any]) -> None:
        """Append one epoch to `metrics.jsonl`."""
        with (self.path / _METRICS).open("a", encoding="utf-8") as file:
            file.write(_line(line))
            file.flush()
            os.fsync(file.fileno())

    def result(self) -> dict[str, Any] | None:
        """What `result.json` says, or None for a run that is not complete."""
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
        dims = {m: data["dims"][m] for m in data["modalities"]}
        return read_model(path, dims, config.hidden_dims, config.embed_dim, len(data["class_names"]))

    def write_model(self, model: Model, modalities: Sequence[str], epoch: int) -> None:
        """Write `model.npz`; modalities in the order of the encoders."""
        write_model(self.path / _MODEL, model, modalities, epoch)

    def _replace(self, name: str, text: str) -> None:
        part = self.path / f".{name}.part"
        with part.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.path / name)


@dataclass(frozen=True)
class Run:
    """A trained model with all it needs to embed new features.

    Attributes:
        config: its configuration.
        epoch: epochs done at this checkpoint.
        model: encoders, class centres, preprocessing.
        modalities: their names in order.
        class_names: K names.
    """

    config: Config
    epoch: int
    model: Model
    modalities: tuple[str, ...]
    class_names: tuple[str, ...]

    def embed(self, features: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Embed raw features, preprocessing included.

        Args:
            features: modality -> [N, D]; any of the run's modalities, each with its own N.

        Returns:
            Modality -> unit rows [N, L].

        Raises:
            InputError: an unknown modality, another number of columns than in training, or values NaN or inf.
        """
        kinds = kinds_for(self.modalities, self.config.preprocess)
        out = {}
        for m, x in features.items():
            if m not in kinds:
                raise InputError(f"modality {m!r} is not in this run; it has: {', '.join(self.modalities)}")
            stats, encoder = self.model.preprocess[m], self.model.encoders[self.modalities.index(m)]
            x, width = np.asarray(x), len(stats["mean"])
            if x.ndim != 2 or x.shape[1] != width:
                raise InputError(f"{m} features have shape {list(x.shape)}; this run was trained on [N, {width}]")
            if x.dtype.kind not in "fiub":
                raise InputError(f"{m} features are {x.dtype}; they must be real numbers")
            with np.errstate(over="ignore"):
                x = x.astype(np.float32, copy=False)
            if not np.isfinite(x).all():
                raise InputError(f"{m} features are not finite in float32: remove or impute NaN and inf")
            out[m] = np.asarray(embed_from_host(recipe_of(self.config), encoder, kinds[m], stats, x))
        return out


def embed_from_host(
    recipe: Recipe, encoder: Any, kind: str, stats: Mapping[str, Any], x: np.ndarray, block: int = 4096
) -> jax.Array:
    """Preprocess and embed raw features [N, D] that lie on the host or on disk as unit rows [N, L], block by block.

    The same bits as `embed_rows` of the preprocessed whole.
    """
    starts = range(0, max(len(x), 1), block)
    parts = [embed_rows(recipe, encoder, apply_preprocess(kind, stats, x[i : i + block]), block) for i in starts]
    return jax.numpy.concatenate(parts)


@partial(jax.jit, static_argnames="block")
def embed_rows(recipe: Recipe, encoder: Any, x: jax.Array, block: int = 4096) -> jax.Array:
    """Embed [N, D] as unit rows [N, L], in blocks so that hidden layers stay small."""
    return jax.lax.map(lambda row: embed(recipe, (encoder,), (row,))[0], x, batch_size=min(block, len(x)))


def load_run(workdir: str | os.PathLike[str], checkpoint: str | int = "best") -> Run:
    """Load a model from the folder of a run, finished or not.

    Args:
        workdir: the folder.
        checkpoint: "best" (by validation mAP), "last", or a number of epochs.

    Raises:
        InputError: no run, no such checkpoint, or a damaged one.
    """
    folder = RunFolder.open(workdir)
    config, data = folder.config(), folder.data()
    which = checkpoint if checkpoint in ("best", "last") else _epoch_number(checkpoint)
    found = None if which == "last" else folder.model(config, data)
    if found is not None and which not in ("best", found[1]):
        found = None
    model, epoch = found or _read_checkpoint(folder, config, data, which)
    encoders, centers = jax.device_put((model.encoders, model.centers))  # once, not for every block that is embedded
    model = model._replace(encoders=encoders, centers=centers)
    return Run(config, epoch, model, tuple(data["modalities"]), tuple(data["class_names"]))


def _epoch_number(checkpoint: str | int) -> int:
    try:
        return int(checkpoint)
    except ValueError:
        raise InputError(f"checkpoint {checkpoint!r}: choose best, last or a number of epochs") from None


def _read_checkpoint(folder: RunFolder, config: Config, data: Mapping[str, Any], which: str | int) -> tuple[Model, int]:
    from mrl_jax.run.checkpoint import Checkpoints, template  # deferred: Orbax takes half a second

    with Checkpoints(folder.checkpoints, read_only=True) as checkpoints:
        epochs = checkpoints.epochs()
        if not epochs and folder.result() is not None:
            raise InputError(f"{folder.path}: of this run only the best model was kept; choose --checkpoint best")
        if not epochs:
            raise InputError(f"{folder.checkpoints}: no complete checkpoint yet; wait for the first epoch to end")
        dims = [data["dims"][m] for m in data["modalities"]]
        sizes = len(data["class_names"]), data["modalities"], data["instances"]["train"]
        expected = template(config, dims, *sizes)
        best = best_epoch(folder.metrics_until(epochs[-1]))
        epoch = best if which == "best" else epochs[-1] if which == "last" else int(which)
        if epoch == best and epoch not in epochs:
            snapshot = checkpoints.restore(epochs[-1], expected)
            return Model(*snapshot.best, snapshot.preprocess), best
        snapshot = checkpoints.restore(epoch, expected)
        return Model(*snapshot.state.weights, snapshot.preprocess), epoch


def run_data(run: Run, folder: RunFolder | None, data: Any = None) -> Dataset:
    """The data of a run, or others in their place.

    Args:
        run: the run.
        folder: its folder, if there is one: the digest recorded there must be that of the run's own data.
        data: anything `load_dataset` takes; None for what the run's configuration names.

    Raises:
        InputError: the run was trained on arrays in memory, its data have changed, or those given do not fit.
    """
    recorded = folder.data() if folder is not None and data is None else None
    if data is None:
        in_memory = run.config.preset == "custom" and run.config.data_path is None
        if in_memory or (recorded is not None and recorded.get("in_memory")):
            raise InputError("this run was trained on arrays in memory; pass them, or their file: --data-path FILE")
        data = run.config.data_path or run.config.preset
    set_name = run.config.preset if run.config.preset in CATALOG else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DatasetWarning)  # training told it
        dataset = load_dataset(data, run.modalities, set_name=set_name)
    if recorded is not None and dataset.digest() != recorded["sha256"]:
        raise InputError(f"data {str(data)!r} have changed since the run was trained; restore them")
    return dataset


def _line(values: Mapping[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n"
