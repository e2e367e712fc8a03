"""`audit`: the audit of a run, of a data set, or of arrays.

Shape letters: M modalities, N training instances, K classes.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mrl_jax.audit.duplicates import duplicates
from mrl_jax.audit.found import METHODS, Audit
from mrl_jax.audit.labels import audit_labels
from mrl_jax.backend import names_backend
from mrl_jax.config import Config, with_settings
from mrl_jax.data.dataset import Dataset
from mrl_jax.data.emoji.versions import is_emoji_source
from mrl_jax.data.frames import is_frame
from mrl_jax.data.load import load_dataset
from mrl_jax.data.preprocess import apply_preprocess, fit_preprocess, kinds_for
from mrl_jax.data.published.catalog import CATALOG
from mrl_jax.errors import InputError, NotTrainableError
from mrl_jax.methods.registry import hyperparameters_of, method_of
from mrl_jax.noise.record import recorded_labels
from mrl_jax.options import CUT_FIELDS
from mrl_jax.run.folder import RunFolder
from mrl_jax.run.load import load_run, run_data
from mrl_jax.run.model import TrainedModel
from mrl_jax.run.settings_file import SETTINGS
from mrl_jax.search.gallery import emoji_records, is_emoji
from mrl_jax.sweep.results import Sweep
from mrl_jax.train import Result, train
from mrl_jax.training.labels import present_mask

__all__ = ["Audited", "audit", "audit_data", "audit_run"]

_BLOCK = 4096


class Audited:
    """An audit with the data that it is about.

    Attributes:
        audit: what was found.
        data: the data set; its training labels are those of the data, without injected noise.
        run: the model, if there is one.
        folder: its folder, if there is one.
    """

    def __init__(self, audit: Audit, data: Dataset, run: TrainedModel | None, folder: RunFolder | None) -> None:
        self.audit, self.data, self.run, self.folder = audit, data, run, folder


@names_backend
def audit(source: Any = None, log_p: Any = None, z: Any = None, *, data: Any = None, **options: Any) -> Audit:
    """Find the labels that are probably wrong, and what else the data tell.

    Args:
        source: the folder of a run, or a `Result`; data: anything `load_dataset` takes, such as a DataFrame, a mapping
            of arrays, a file or a `Dataset`; or labels [N] or [M, N], for `audit_labels`.
        log_p: with labels only: log-probabilities of the classes, [N, K] or [M, N, K].
        z: with labels only: features or embeddings.
        data: without `source`: the data to audit, also a folder of arrays. For a run: its data, if it was trained on
            arrays in memory or they have moved.
        options: `method` and `neighbours`; for data also `modalities`, `set_name`, `keys`, `split`, `split_seed` and
            `valid_share` of `load_dataset`, and the labels of the training split are audited; for labels all of
            `audit_labels`.

    Raises:
        InputError: nothing of this kind, data that do not fit, or what `audit_labels` raises.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> truth = np.repeat(np.arange(3), 40)
        >>> z = np.eye(3)[truth] + 0.1 * rng.standard_normal((120, 3))
        >>> labels = truth.copy()
        >>> labels[:4] = 2  # four wrong ones
        >>> sorted(line["row"] for line in audit(labels, z=z).suspects(10))
        [0, 1, 2, 3]
        >>> arrays = {"image": z, "text": z, "labels": labels}
        >>> audit(arrays, split="60/15/25").modalities
        ('image', 'text')
    """
    if source is None and data is None:
        raise InputError("nothing to audit: give the folder of a run, data, or labels with z or log_p")
    if source is None or _is_data(source):
        if source is not None and data is not None:
            raise InputError("data is given twice, as the first argument and as data; give one of them")
        return audit_data(_loaded(data if source is None else source, log_p, z, options), **options).audit
    if isinstance(source, str | os.PathLike | Result):
        _refuse_other(options, "a run", log_p, z)
        return audit_run(_folder_of(source), data=data, **options).audit
    if data is not None:
        raise InputError("data belongs to a run; with labels give log_p or z")
    if isinstance(source, Config | TrainedModel | Sweep):
        raise InputError(
            f"{type(source).__name__} is not audited; give the folder of a run, its Result, data, or labels with z"
        )
    if cut := sorted({*options} & {*_CUT} - {"modalities"}):
        raise InputError(f"{cut[0]} goes with data; labels are audited as they are, all of them")
    return audit_labels(source, log_p, z, **options)


_CUT = ("modalities", "set_name", *CUT_FIELDS)
"""Options of `load_dataset`."""
_HOW = ("method", "neighbours")


def _is_data(source: Any) -> bool:
    """Whether this is data, and not a run or labels; a folder is that of a run."""
    if isinstance(source, str | os.PathLike):
        path = Path(source).expanduser()
        return path.is_file() or (not path.exists() and (source in CATALOG or is_emoji_source(source)))
    return isinstance(source, Dataset | Mapping) or is_frame(source)


def _loaded(data: Any, log_p: Any, z: Any, options: dict[str, Any]) -> Dataset:
    """The data set; what cuts it is taken from the options."""
    _refuse_other(options, "data", log_p, z, _CUT)
    cut = {name: options.pop(name) for name in _CUT if name in options}
    try:
        return load_dataset(data, **cut)
    except NotTrainableError as error:
        raise InputError(f"{error}; or audit all rows as arrays: audit(labels, z=[features, …])") from None


def _folder_of(source: Result | str | os.PathLike[str]) -> str | os.PathLike[str]:
    """The folder of a run."""
    folder = source.workdir if isinstance(source, Result) else source
    if folder is None:
        raise InputError(
            "this result has no folder; train with workdir=…, or audit its data: audit(data), or audit(labels, z=…)"
        )
    if not isinstance(source, Result) and not (Path(source) / SETTINGS).is_file():
        raise InputError(
            f"workdir {str(source)!r} holds no run ({SETTINGS} is missing); name the folder of a run, or give data as "
            "audit(data=…)"
        )
    return folder


def _refuse_other(options: Mapping[str, Any], what: str, log_p: Any, z: Any, more: Sequence[str] = ()) -> None:
    """Refuse options that are for another kind of source."""
    if log_p is not None or z is not None:
        raise InputError("log_p and z go with labels; a run or a data set has its own")
    if other := sorted({*options} - {*_HOW, *more}):
        goes = "data; a run knows its own" if other[0] in _CUT else f"labels; for {what} give {', '.join(_HOW)}"
        raise InputError(f"{other[0]} goes with {goes}")


def audit_run(
    workdir: str | os.PathLike[str],
    *,
    method: str = "consensus",
    neighbours: int = 5,
    data: Any = None,
    checkpoint: str | int = "kept",
) -> Audited:
    """The audit of the labels that a run was trained on, with all that it is about.

    Clean labels are those of the data, if noise was injected; they only score what is found.

    Args:
        workdir: the folder of the run.
        method: a key of `METHODS`.
        neighbours: how many to name for each of the most suspicious samples.
        data: as of `audit`.
        checkpoint: as of `load_run`, for the method "model" and for margins.

    Raises:
        InputError: no run, data that do not fit, or a method without class posterior where one is needed.
    """
    _check_method(method)
    folder, run = RunFolder.open(workdir), load_run(workdir, checkpoint)
    dataset = run_data(run, folder, data)
    split, names = dataset.splits["train"], dataset.modalities
    clean = np.stack([split.labels[m] for m in names])
    path = folder.path / "noise.json"
    record = folder.noise()
    labels, partners, _ = recorded_labels(path, record, clean, names)
    mask = present_mask(split, names) if split.masks else None
    injected = record.get("kind") == "file" or bool((labels != clean).any())
    kinds = kinds_for(names, run.config.preprocess)
    features = [
        _Rows(split.features[m], kinds[m], run.model.preprocess[m], own) for m, own in zip(names, partners, strict=True)
    ]
    labels, clean = (np.take_along_axis(x, partners, axis=1) for x in (labels, clean))
    mask = None if mask is None else np.take_along_axis(mask, partners, axis=1)
    margin = _recorded_margin(folder)
    log_p = _model_log_p(run, features) if method == "model" or margin is None else None
    if method == "model" and log_p is None:
        raise InputError(f"{folder.path}: method {run.config.method} has no class posterior; choose consensus or votes")
    found = audit_labels(
        labels,
        log_p if method == "model" else None,
        features,
        method=method,
        mask=mask,
        clean=clean if injected else None,
        ids=_ids(run, folder, data, split.ids),
        rows=partners,
        modalities=names,
        class_names=dataset.class_names,
        margin=_margin(log_p, labels) if margin is None and log_p is not None else margin,
        neighbours=neighbours,
    )
    return Audited(replace(found, duplicates=duplicates(dataset)), dataset, run, folder)


def audit_data(
    data: Dataset, *, method: str = "consensus", neighbours: int = 5, workdir: str | os.PathLike[str] | None = None
) -> Audited:
    """The audit of the labels of a data set. Only the method "model" trains: consensus, with its defaults.

    Args:
        data: the data set.
        method: a key of `METHODS`.
        neighbours: how many to name for each of the most suspicious samples.
        workdir: folder for the run of the method "model"; None keeps it in memory.

    Raises:
        InputError: data that do not fit, or an unknown method.
    """
    _check_method(method)
    split, names = data.splits["train"], data.modalities
    config = Config(modalities=names)
    kinds = kinds_for(names, config.preprocess)
    run, folder, log_p = None, None, None
    if method == "model":
        batch = min(config.batch_size, len(split))
        result = train(with_settings(config, method="consensus", batch_size=batch), workdir, data=data, progress=True)
        run, folder = result.run, None if result.workdir is None else RunFolder.open(result.workdir)
        stats = run.model.preprocess
    else:
        stats = fit_preprocess(kinds, split.features, split.masks)
    everyone = np.arange(len(split))
    features = [_Rows(split.features[m], kinds[m], stats[m], everyone) for m in names]
    labels = np.stack([split.labels[m] for m in names])
    if run is not None:
        log_p = _model_log_p(run, features)
    found = audit_labels(
        labels,
        log_p,
        features,
        method=method,
        mask=present_mask(split, names) if split.masks else None,
        ids=split.ids,
        modalities=names,
        class_names=data.class_names,
        margin=None if log_p is None else _margin(log_p, labels),
        neighbours=neighbours,
    )
    return Audited(replace(found, duplicates=duplicates(data)), data, run, folder)


def _ids(run: TrainedModel, folder: RunFolder, data: Any, own: np.ndarray | None) -> np.ndarray | None:
    """Names of the training instances; the embedded set has them beside its features."""
    if own is None and is_emoji(run, folder, data):
        return np.array([record["id"] for record in emoji_records(run, "train")])
    return own


def _check_method(method: str) -> None:
    if method not in METHODS:
        raise InputError(f"method {method!r}: choose from {', '.join(METHODS)}")


class _Rows:
    """Preprocessed features that are read block by block, so that a memory map stays on disk."""

    ndim = 2

    def __init__(self, x: np.ndarray, kind: str, stats: Mapping[str, Any], rows: np.ndarray) -> None:
        self._x, self._kind, self._stats, self._rows = x, kind, stats, rows
        self.shape = (len(rows), x.shape[1])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, at: Any) -> np.ndarray:
        return np.asarray(apply_preprocess(self._kind, self._stats, self._x[self._rows[at]]))

    def raw(self, at: Any) -> np.ndarray:
        """The features before the preprocessing."""
        return np.asarray(self._x[self._rows[at]])


def _model_log_p(run: TrainedModel, features: list[_Rows]) -> np.ndarray | None:
    """Log-probabilities of the classes by a model, float32 [M, N, K]; None if the method has no class posterior."""
    method, h = method_of(run.config), hyperparameters_of(run.config)
    if method.assign is None:
        return None
    found = []
    for m, x in zip(run.modalities, features, strict=True):
        parts = [
            np.asarray(method.assign(h, run.model.params, run.embed({m: x.raw(slice(i, i + _BLOCK))})[m]))
            for i in range(0, len(x), _BLOCK)
        ]
        found.append(np.concatenate(parts))
    return np.minimum(np.stack(found).astype(np.float32), 0.0)


def _recorded_margin(folder: RunFolder) -> np.ndarray | None:
    """The mean margin over the epochs that training recorded, [M, N]; None where it recorded none."""
    margins = [np.asarray(x["margin"], np.float64) for x in folder.samples().values()]
    return np.mean(margins, axis=0) if margins else None


def _margin(log_p: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Log-probability of the given label less the highest of the others, [M, N]."""
    own = np.take_along_axis(log_p, labels[..., None], axis=2)[..., 0]
    others = log_p.copy()
    np.put_along_axis(others, labels[..., None], -np.inf, axis=2)
    return own - others.max(axis=2)
