"""Whether a model memorised wrong labels: what it predicts for training samples, against given and true labels.

Shape letters: n training samples of a modality, K classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from mrl_jax.errors import InputError
from mrl_jax.methods.registry import hyperparameters_of, method_of
from mrl_jax.noise.record import recorded_labels
from mrl_jax.report.opened import OpenedRun
from mrl_jax.run.load import load_run
from mrl_jax.run.model import TrainedModel

__all__ = ["BINS", "Memory", "Predictions", "histogram", "memory_at", "memory_of", "memory_record", "predictions"]

BINS = 20
"""Bars of a histogram of probabilities, of equal width in [0, 1]."""
_SAMPLES = 20_000  # training samples of a modality that are looked at; of more, every k-th


class Predictions(NamedTuple):
    """What a model says of training samples of one modality.

    Attributes:
        rows: their rows in the training split, integers [n].
        given: the labels of training, integers [n].
        true: the labels of the data set, integers [n].
        predicted: the most probable class, integers [n].
        p_given: the probability of the given label, float [n].
    """

    rows: np.ndarray
    given: np.ndarray
    true: np.ndarray
    predicted: np.ndarray
    p_given: np.ndarray

    @property
    def wrong(self) -> np.ndarray:
        """Whether the given label is wrong, bool [n]."""
        return self.given != self.true


@dataclass(frozen=True)
class Memory:
    """How a model treats right and wrong labels, at some epochs.

    Attributes:
        epochs: the epochs.
        right: accuracy on the samples whose label is right; NaN without such samples, as the next two.
        repeated: share of the wrong labels that the model repeats.
        recovered: share of the wrongly labelled samples for which it predicts the true class.
        names: what each epoch is, such as "kept"; empty for a record of many epochs.
    """

    epochs: tuple[int, ...]
    right: tuple[float, ...]
    repeated: tuple[float, ...]
    recovered: tuple[float, ...]
    names: tuple[str, ...] = ()

    @property
    def has_wrong(self) -> bool:
        """Whether any label is wrong."""
        return not np.isnan(self.repeated).any()


def predictions(opened: OpenedRun, run: TrainedModel | None = None) -> dict[str, Predictions]:
    """Modality -> what a model says of its training samples, at most 20,000 of them.

    Args:
        opened: a run with the data that it was trained on.
        run: another model of the same run; None for the one that it keeps.

    Raises:
        InputError: the method assigns no classes, the run has other data, or its folder does not hold the labels.
    """
    run = run or opened.run
    method, h = method_of(run.config), hyperparameters_of(run.config)
    if method.assign is None:
        raise InputError(f"the {method.name} assigns no classes, so there are no probabilities of labels")
    if not opened.own_data:
        raise InputError(
            "the data given are not those that the run was trained on, so its labels do not belong to them"
        )
    given = _given_labels(opened)
    split = opened.dataset.splits["train"]
    found = {}
    for m in opened.run.modalities:
        present = np.flatnonzero(split.present(m))
        rows = present[:: -(-len(present) // _SAMPLES) or 1]
        z = run.embed({m: split.features[m][rows]})[m]
        log_p = np.asarray(method.assign(h, run.model.params, z), np.float64)
        labels = given[m][rows]
        p = np.exp(log_p[np.arange(len(rows)), labels])
        found[m] = Predictions(rows, labels, split.labels[m][rows], log_p.argmax(axis=1), np.clip(p, 0.0, 1.0))
    return found


def _given_labels(opened: OpenedRun) -> dict[str, np.ndarray]:
    """Modality -> the labels that training was given, by row of the training split, from `noise.json`."""
    path, modalities = opened.recorded.folder.recorded_noise, opened.run.modalities
    assert path is not None
    clean = np.stack([opened.dataset.splits["train"].labels[m] for m in modalities])
    labels, _, _ = recorded_labels(path, opened.recorded.noise, clean, modalities)
    return dict(zip(modalities, labels, strict=True))


def memory_at(found: Mapping[str, Predictions]) -> tuple[float, float, float]:
    """Accuracy on right labels, share of wrong labels repeated, and of true classes recovered, over all modalities."""
    given, true, predicted = (np.concatenate([getattr(p, name) for p in found.values()]) for name in _FIELDS)
    return _memory_of(predicted, given, true)


def _memory_of(predicted: np.ndarray, given: np.ndarray, true: np.ndarray) -> tuple[float, float, float]:
    wrong = given != true
    return _mean((predicted == given)[~wrong]), _mean((predicted == given)[wrong]), _mean((predicted == true)[wrong])


_FIELDS = ("given", "true", "predicted")


def memory_of(opened: OpenedRun, kept: Mapping[str, Predictions]) -> Memory:
    """The memory of the model that a run keeps, and of the last epoch if the folder still has it.

    Args:
        opened: the run.
        kept: what the kept model says.

    Raises:
        InputError: the last checkpoint is damaged.
    """
    points = [(opened.run.epoch, "kept", memory_at(kept))]
    folder = opened.recorded.folder
    if folder.has_checkpoints:  # of a run of a sweep only the kept model stays
        last = load_run(folder.path, "last")
        if last.epoch != opened.run.epoch:
            points.append((last.epoch, "last", memory_at(predictions(opened, last))))
    epochs, names, values = zip(*sorted(points), strict=True)
    right, repeated, recovered = zip(*values, strict=True)
    return Memory(epochs, right, repeated, recovered, names)


def memory_record(opened: OpenedRun, kept: Mapping[str, Predictions]) -> Memory | None:
    """The memory at the epochs that training recorded and at that of the kept model, or None without a record.

    Args:
        opened: the run.
        kept: what the kept model says.
    """
    recorded = opened.recorded.folder.samples()
    if not recorded:
        return None
    split, modalities = opened.dataset.splits["train"], opened.run.modalities
    labels = _given_labels(opened)
    partners = opened.recorded.noise.get("partners", {})  # the columns of the record are instances of the run
    rows = [np.asarray(partners.get(m, np.arange(len(split)))) for m in modalities]
    there, given, true = (
        np.concatenate([of(m)[at] for m, at in zip(modalities, rows, strict=True)])
        for of in (split.present, labels.__getitem__, split.labels.__getitem__)
    )
    values = {e: _memory_of(x["predicted"].ravel()[there], given[there], true[there]) for e, x in recorded.items()}
    values.setdefault(opened.run.epoch, memory_at(kept))
    epochs = tuple(sorted(values))
    right, repeated, recovered = zip(*(values[e] for e in epochs), strict=True)
    return Memory(epochs, right, repeated, recovered)


def histogram(p: np.ndarray, wrong: np.ndarray) -> list[dict[str, Any]]:
    """Bars of the probabilities of given labels: `{"low", "high", "labels", "count", "share"}`.

    Args:
        p: probabilities in [0, 1], float [n].
        wrong: which labels are wrong, bool [n].

    Returns:
        `BINS` bars of the right labels, then of the wrong ones; a share is a fraction of the labels of its kind. A kind
        without samples has no bars.
    """
    edges = np.linspace(0.0, 1.0, BINS + 1)
    bars = []
    for name, chosen in (("right", ~wrong), ("wrong", wrong)):
        if not chosen.any():
            continue
        counts, _ = np.histogram(p[chosen], edges)
        for low, high, count in zip(edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), strict=True):
            share = count / int(chosen.sum())
            bars.append({"low": round(low, 6), "high": round(high, 6), "labels": name, "count": count, "share": share})
    return bars


def _mean(values: Sequence[Any] | np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
