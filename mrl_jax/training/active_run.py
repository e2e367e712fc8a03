"""A run during its training: its log, its checkpoints, and how it ends."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from mrl_jax.errors import DamageWarning, InputError, NonFiniteLossError
from mrl_jax.methods.registry import entry_of
from mrl_jax.run.checkpoint import Checkpoints, Snapshot
from mrl_jax.run.folder import RunFolder
from mrl_jax.run.metrics_file import best_epoch
from mrl_jax.training.epoch import Metrics
from mrl_jax.training.processes import is_main, on_main
from mrl_jax.training.run_spec import RunSpec

__all__ = ["ActiveRun"]


@dataclass
class ActiveRun:
    """A run during its training.

    Attributes:
        spec: the run.
        folder: its folder, or None for a run in memory.
        log: the lines of `metrics.jsonl` so far.
        spent: seconds of training before it was last resumed.
        error: the error that ended it, or None.
        scores: content of `result.json`, at the end.
        model: the `Model` that it keeps, at the end of its training.
        name: its name in a sweep or the name of its folder; "" in memory.
        callbacks: what is told of it, in the first process; none in others.
        stopped: the callback that stopped it before its last epoch, or None.
        went_back: whether its last checkpoint was damaged and it goes on from one before.
    """

    spec: RunSpec
    folder: RunFolder | None
    log: list[dict[str, Any]] = field(default_factory=list)
    spent: float = 0.0
    error: NonFiniteLossError | None = None
    scores: Any = None
    model: Any = None
    name: str = ""
    callbacks: Sequence[Any] = ()
    stopped: str | None = None
    went_back: bool = False

    @property
    def trains(self) -> bool:
        """Whether it has epochs to train: it did not fail, and was not stopped."""
        return self.error is None and self.stopped is None

    def read_complete(self) -> bool:
        """Read log and scores if the folder holds a complete run; returns whether it does."""
        self.scores = None if self.folder is None or self.folder.lost_result else self.folder.result()
        if self.folder is not None and self.scores is not None:
            stopped = self.scores.get("stopped")
            self.log = self.folder.metrics_until(self.spec.epochs if stopped is None else stopped["epoch"])
        return self.scores is not None

    def begin(self, store: Checkpoints | None, limit: float = math.inf) -> Snapshot | None:
        """Read the last checkpoint, and remove later lines from the log; returns None without a checkpoint.

        If it is damaged, the one before is read, with a warning.

        Args:
            store: checkpoints of the run.
            limit: the epoch up to which a checkpoint counts.

        Raises:
            InputError: no checkpoint can be read.
        """
        self.stopped = None
        if self.folder is None or store is None:
            self.log = []
            return None
        folder, epochs = self.folder, [epoch for epoch in store.epochs() if epoch <= limit]
        failed: dict[int, InputError] = {}
        snapshot, stop, last = None, None, 0
        for last in reversed(epochs):
            try:
                numbers = store.metrics(last)
                folder.metrics_until(last, numbers.get("log"))
                snapshot, self.spent = store.restore(last, self.spec.template), numbers["seconds"]
                stop = numbers.get("stopped")
                break
            except InputError as error:
                failed[last] = error
                if last == epochs[0] or jax.process_count() > 1:  # processes could go back to different epochs
                    raise failed[epochs[-1]] from None
        for epoch in (epoch for epoch in epochs if epoch < last):
            store.metrics(epoch)  # refused now, not at the next save, which reads them all
        if failed:
            what = str(failed[epochs[-1]]).rsplit("; ", 1)[0]  # without the remedy
            warnings.warn(
                f"{what}; training goes on from the checkpoint before, of epoch {last}",
                DamageWarning,
                stacklevel=2,
            )
        self.went_back = bool(failed)
        # It ends where it was stopped, without the callback too, unless it has more epochs since.
        if stop is not None and stop["of"] == self.spec.epochs:
            self.stopped = stop["by"]
        if failed or limit < math.inf:
            store.drop_after(last)
        self.log = on_main(lambda: folder.rewind(last))
        return snapshot

    def add(self, epoch: int, metrics: Metrics, finite: bool, valid: dict[str, Any] | NonFiniteLossError) -> bool:
        """Log an epoch, counted from 0; returns whether it is the best so far.

        Raises:
            NonFiniteLossError: loss, parameters or embeddings are not finite.
        """
        losses = metrics.get("loss", np.zeros(0))
        bad = np.flatnonzero(~np.isfinite(losses))
        if len(bad):
            raise self._non_finite(epoch, f"the loss is {losses[bad[0]]} in step {bad[0] + 1} of {len(losses)}")
        if not finite:
            when = f" after step {len(losses)}, the last" if len(losses) else ""
            raise self._non_finite(epoch, f"parameters are not finite{when}")
        if isinstance(valid, NonFiniteLossError):
            raise self._non_finite(epoch, str(valid))
        line = {
            "epoch": epoch + 1,
            **self.spec.method.log(self.spec.hyperparameters, epoch),
            "train": _means(metrics),
            "valid": valid,
        }
        self.log.append(line)
        if self.folder is not None and is_main():
            self.folder.log(line)
        return best_epoch(self.log) == epoch + 1

    def _non_finite(self, epoch: int, what: str) -> NonFiniteLossError:
        remedy = entry_of(self.spec.config.method).remedy
        kept = "checkpoints of earlier epochs stay; " if epoch else ""
        return NonFiniteLossError(f"epoch {epoch + 1}: {what}; {kept}{remedy}")

    def save(self, store: Checkpoints, epoch: int, snapshot: Snapshot, seconds: float) -> None:
        """Start to write a checkpoint.

        Args:
            store: checkpoints of the run.
            epoch: number of completed epochs.
            snapshot: content of the checkpoint.
            seconds: time since training was started or resumed.
        """
        average = self.log[-1]["valid"]["average"]
        if self.folder is not None and is_main():
            self.folder.checked.settle()  # what was written before a checkpoint is there for good
        numbers = {"epoch": epoch, "average": average, "seconds": self.spent + seconds}
        numbers |= {} if self.stopped is None else {"stopped": {"of": self.spec.epochs, "by": self.stopped}}
        store.save(epoch, snapshot, numbers | {"log": self.folder.log_check if self.folder and is_main() else ""})


def _means(metrics: Metrics) -> dict[str, float]:
    """Means of the metrics over the instances of an epoch; the loss comes first."""
    if not metrics:
        return {}
    weights = metrics["instances"] / metrics["instances"].sum()
    names = sorted(set(metrics) - {"instances"}, key=lambda name: (name != "loss", name))
    return {name: float(metrics[name] @ weights) for name in names}
