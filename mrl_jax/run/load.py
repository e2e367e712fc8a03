"""Load a trained model and its data from a run folder."""

import os
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax

from mrl_jax.backend import names_backend
from mrl_jax.config import Config
from mrl_jax.data.dataset import Dataset
from mrl_jax.data.load import load_dataset
from mrl_jax.data.published.catalog import CATALOG
from mrl_jax.data.tables import order_of
from mrl_jax.errors import DatasetWarning, InputError
from mrl_jax.methods.registry import entry_of
from mrl_jax.run.described import shapes_of
from mrl_jax.run.folder import RunFolder
from mrl_jax.run.metrics_file import best_epoch
from mrl_jax.run.model import Model, TrainedModel

__all__ = ["load_run", "run_data"]


@names_backend
def load_run(workdir: str | os.PathLike[str], checkpoint: str | int = "kept") -> TrainedModel:
    """Load a model from a run folder; the run need not be complete.

    Args:
        workdir: the folder.
        checkpoint: "kept" (the model that the run keeps: the best or the last, as its method says), "best" (by
            validation mAP), "last", or a number of epochs.

    Raises:
        InputError: there is no run or no such checkpoint, or it is damaged.
    """
    folder = RunFolder.open(workdir)
    folder.note_without_checksums()
    config, data = folder.config(), folder.data()
    which = checkpoint if str(checkpoint) in ("kept", "best", "last") else _epoch_number(checkpoint)
    result = folder.result()
    keeps = entry_of(config.method).keeps if result is None else result.get("kept", "best")
    at = {} if result is None else {name: scores["epoch"] for name, scores in result["test"].items()}
    wanted = keeps if which == "kept" else which
    # Without a result, the file of a run holds a model from before the run got more epochs, if there are checkpoints.
    complete = result is not None or not folder.has_checkpoints
    kept = folder.model(config, data) if complete and at.get(wanted, wanted) == at.get(keeps, keeps) else None
    model, epoch = kept or _read_checkpoint(folder, config, data, wanted)
    model = model._replace(params=jax.device_put(model.params))  # once, not for every embedded block
    columns = data.get("metadata", {}).get("columns", {})
    names = tuple(data["modalities"]), tuple(data["class_names"])
    return TrainedModel(config, epoch, model, *names, columns, folder.source())


def _epoch_number(checkpoint: str | int) -> int:
    try:
        return int(checkpoint)
    except (TypeError, ValueError):
        raise InputError(f"checkpoint {checkpoint!r}: choose kept, best, last or a number of epochs") from None


def _read_checkpoint(folder: RunFolder, config: Config, data: Mapping[str, Any], which: str | int) -> tuple[Model, int]:
    from mrl_jax.run.checkpoint import Checkpoints, template  # deferred: Orbax takes half a second

    with Checkpoints(folder.checkpoints, read_only=True) as checkpoints:
        epochs = checkpoints.epochs()
        if not epochs and folder.result() is not None:
            raise InputError(f"{folder.path}: of this run one model was kept, not that one; choose --checkpoint kept")
        if not epochs:
            raise InputError(f"{folder.checkpoints}: no complete checkpoint yet; wait for the first epoch to end")
        expected = template(config, shapes_of(data), data["modalities"])
        if which not in epochs:  # the last checkpoint decides, which has the best parameters, too
            last = epochs[-1]
            best = best_epoch(folder.metrics_until(last, checkpoints.metrics(last).get("log")))
            which = best if which == "best" else last if which == "last" else int(which)
            if which == best and which not in epochs:
                snapshot = checkpoints.restore(last, expected)
                return Model(snapshot.best, snapshot.preprocess), best
        snapshot = checkpoints.restore(int(which), expected)
        return Model(snapshot.state.params, snapshot.preprocess), int(which)


def run_data(run: TrainedModel, folder: RunFolder | None, data: Any = None) -> Dataset:
    """The data of a run, or other data for its model.

    Args:
        run: the run.
        folder: its folder, if there is one; data that the configuration names must have the digest recorded there.
        data: anything `load_dataset` takes; None for the data that the run's configuration names.

    Raises:
        InputError: the run was trained on arrays in memory, its data have changed, or the given data do not fit.
    """
    recorded = folder.data() if folder is not None and data is None else None
    as_needed = data is not None  # other data may have splits of their own
    if data is None:
        in_memory = run.config.preset == "custom" and run.config.data_path is None
        if in_memory or (recorded is not None and recorded.get("in_memory")):
            raise InputError("this run was trained on arrays in memory; pass them, or their file: --data-path FILE")
        data = run.config.data_path or run.source or run.config.preset
    set_name = run.config.preset if run.config.preset in CATALOG else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DatasetWarning)  # training has shown it
        dataset = load_dataset(data, run.modalities, set_name=set_name, **run.config.cut, as_needed=as_needed)
    if recorded is not None and dataset.digest() != recorded["sha256"]:
        raise InputError(f"data {str(data)!r} have changed since the run was trained; restore them")
    return _in_order(dataset, run)


def _in_order(dataset: Dataset, run: TrainedModel) -> Dataset:
    """The data with the columns of DataFrames in the order that the run was trained on."""
    given = dataset.metadata.get("columns", {})
    for m in dataset.modalities:
        if (order := order_of(given.get(m, ()), run.columns.get(m, ()), f"{dataset.name}: {m}")) is not None:
            splits = {
                name: replace(split, features={**split.features, m: split.features[m][:, order]})
                for name, split in dataset.splits.items()
            }
            dataset = replace(dataset, splits=splits, sha256={})
    return dataset
