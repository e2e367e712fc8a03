"""The training loop, of one run or of several that are trained together: epochs, log, checkpoints, scores."""

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Protocol

import jax
import numpy as np

from mrl_jax.errors import DamageWarning, InputError, NonFiniteLossError
from mrl_jax.interface import option
from mrl_jax.interrupt import StopRequest
from mrl_jax.methods.registry import entry_of
from mrl_jax.retrieval.measure import cross_modal_chance
from mrl_jax.retrieval.on_host import usable_cores
from mrl_jax.run.checkpoint import Checkpoints, Snapshot
from mrl_jax.run.folder import RunFolder
from mrl_jax.run.metrics_file import best_epoch
from mrl_jax.run.model import Model
from mrl_jax.training.epoch import Metrics
from mrl_jax.training.processes import highest, is_main, on_main
from mrl_jax.training.recorded import record_samples, recorded_epochs
from mrl_jax.training.run_spec import RunSpec
from mrl_jax.version import __version__

__all__ = ["ActiveRun", "Trainer", "train_epochs"]

_INTERVAL = 30.0  # minimum of seconds between checkpoints
_TIME_FRACTION = 0.1  # maximum fraction of the time for checkpoints


class Trainer(Protocol):
    """The states of R runs on devices and the operations on them; `SingleRun` and `VmappedRuns` implement it."""

    def begin(self, snapshots: Sequence[Snapshot | None]) -> None:
        """Start each run from its snapshot, or from the beginning if that is None."""

    def run_epoch(self, epoch: int) -> tuple[Metrics, np.ndarray]:
        """Train an epoch, counted from 0; returns step metrics [R, S], and whether all parameters are finite [R]."""

    def keep_best(self, which: Sequence[bool]) -> None:
        """Keep the current parameters of the selected runs as their best ones."""

    def score(self, split: str, best: bool = False) -> list[dict[str, Any] | NonFiniteLossError]:
        """Scores of every run on a split with its current or its best parameters, or the error that prevents them."""

    def snapshot(self, run: int = 0) -> Snapshot:
        """The content of a checkpoint of a run."""

    def extra_scores(self) -> dict[str, Any]:
        """Entries of `result.json` that only this trainer has."""


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
        went_back: whether its last checkpoint was damaged and it goes on from one before.
    """

    spec: RunSpec
    folder: RunFolder | None
    log: list[dict[str, Any]] = field(default_factory=list)
    spent: float = 0.0
    error: NonFiniteLossError | None = None
    scores: Any = None
    model: Any = None
    went_back: bool = False

    def read_complete(self) -> bool:
        """Read log and scores if the folder holds a complete run; returns whether it does."""
        self.scores = None if self.folder is None or self.folder.lost_result else self.folder.result()
        if self.folder is not None and self.scores is not None:
            self.log = self.folder.metrics_until(self.spec.epochs)
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
        if self.folder is None or store is None:
            self.log = []
            return None
        folder, epochs = self.folder, [epoch for epoch in store.epochs() if epoch <= limit]
        failed: dict[int, InputError] = {}
        snapshot, last = None, 0
        for last in reversed(epochs):
            try:
                numbers = store.metrics(last)
                folder.metrics_until(last, numbers.get("log"))
                snapshot, self.spent = store.restore(last, self.spec.template), numbers["seconds"]
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
        store.save(epoch, snapshot, numbers | {"log": self.folder.log_check if self.folder and is_main() else ""})


def train_epochs(
    trainer: Trainer,
    runs: Sequence[ActiveRun],
    started: float,
    show: Callable[[], None] = lambda: None,
    *,
    keep_state: bool = True,
    keep_checkpoints: bool = False,
    stop: StopRequest | None = None,
    record: bool = False,
    start: float = math.inf,
) -> None:
    """Train the remaining epochs. Afterwards the runs have scores and models, and their folders are complete.

    Args:
        trainer: the runs' states.
        runs: the runs, all after the same number of epochs.
        started: time of the start, a value of `time.perf_counter()`.
        show: called after every epoch.
        keep_state: also keep the state after the last epoch, not only the model.
        keep_checkpoints: keep every checkpoint; otherwise the last two, and the last one at the end.
        stop: asked after every epoch but the last whether to stop.
        record: record what the model of a single run says of the training samples at some epochs.
        start: the epoch to go on from; later checkpoints are deleted.

    Raises:
        Interrupted: `stop` has a request; the runs are saved.
        NonFiniteLossError: loss, parameters or embeddings became inf or NaN in every run. If only some runs fail, each
            of them has its `error`.
        CheckpointError: a checkpoint could not be written.
        InputError: another process has continued one of the runs.
    """
    epochs = runs[0].spec.epochs
    pace = _Pace()
    with ExitStack() as stack:
        keep = None if keep_checkpoints else 2
        stores = [
            None if r.folder is None else stack.enter_context(Checkpoints(r.folder.checkpoints, keep)) for r in runs
        ]
        snapshots = [r.begin(store, start) for r, store in zip(runs, stores, strict=True)]
        if any(r.went_back for r in runs) and len(runs) > 1:  # so do the others of the group
            shortest = min(len(r.log) for r in runs)
            snapshots = [r.begin(store, shortest) for r, store in zip(runs, stores, strict=True)]
        if len({len(r.log) for r in runs}) > 1:
            raise InputError(
                f"another process has continued a run of this group in the meantime; start again with "
                f"{option('resume')}"
            )
        trainer.begin(snapshots)
        for epoch in range(len(runs[0].log), epochs):
            trainer.keep_best(_run_epoch(trainer, runs, epoch))
            last = epoch + 1 == epochs
            if record and epoch + 1 in recorded_epochs(epochs):
                _record(trainer, runs[0], epoch + 1)  # before the checkpoint, after which a resumed run begins
            stops = stop is not None and not last and highest(stop.number) > 0
            if on_main(pace.due) or stops or (keep_state and last):
                with pace:
                    _save(trainer, runs, stores, epoch + 1, started)
            show()
            if stop is not None and stops:
                _wait(stores)
                raise stop.interrupted(f"saved after epoch {epoch + 1} of {epochs}")
        _wait(stores)
        if keep_state and not keep_checkpoints:
            for store in stores:
                if store is not None:
                    store.drop_before(epochs)
        _finish(trainer, runs, started)


def _run_epoch(trainer: Trainer, runs: Sequence[ActiveRun], epoch: int) -> list[bool]:
    """Train and log an epoch; returns for each run whether it is its best so far."""
    metrics, finite = trainer.run_epoch(epoch)
    metrics = jax.tree.map(lambda x: np.asarray(x, np.float64), metrics)
    valid = trainer.score("valid")
    improved = [False] * len(runs)
    for i, run in enumerate(runs):
        if run.error is not None:
            continue
        try:
            own = {name: x[i] for name, x in metrics.items()}
            improved[i] = run.add(epoch, own, bool(finite[i]), valid[i])
        except NonFiniteLossError as error:
            run.error = error
    _raise_if_all_failed(runs)
    return improved


def _save(
    trainer: Trainer, runs: Sequence[ActiveRun], stores: Sequence[Checkpoints | None], epoch: int, started: float
) -> None:
    for i, (run, store) in enumerate(zip(runs, stores, strict=True)):
        if store is None or run.error is not None:
            continue
        run.save(store, epoch, trainer.snapshot(i), time.perf_counter() - started)
        if len(runs) > 1:  # one copy in memory at a time
            store.wait()


def _record(trainer: Trainer, run: ActiveRun, epoch: int) -> None:
    """Write what the model says of the training samples, if it has class posteriors and a folder."""
    if run.folder is None or run.error is not None:
        return
    found = record_samples(run.spec, trainer.snapshot().state.params)
    if found is not None and is_main():
        run.folder.write_samples(epoch, found)


def _wait(stores: Sequence[Checkpoints | None]) -> None:
    for store in stores:
        if store is not None:
            store.wait()


def _raise_if_all_failed(runs: Sequence[ActiveRun]) -> None:
    if all(r.error is not None for r in runs):
        raise runs[0].error  # type: ignore[misc]


def _means(metrics: Metrics) -> dict[str, float]:
    """Means of the metrics over the instances of an epoch; the loss comes first."""
    if not metrics:
        return {}
    weights = metrics["instances"] / metrics["instances"].sum()
    names = sorted(set(metrics) - {"instances"}, key=lambda name: (name != "loss", name))
    return {name: float(metrics[name] @ weights) for name in names}


def _finish(trainer: Trainer, runs: Sequence[ActiveRun], started: float) -> None:
    tests = {"best": trainer.score("test", best=True), "last": trainer.score("test")}
    for i, run in enumerate(runs):
        if run.error is not None:
            continue
        for scores in tests.values():
            if isinstance(scores[i], NonFiniteLossError):
                run.error = scores[i]  # type: ignore[assignment]
        if run.error is not None:
            continue
        kept, snapshot = entry_of(run.spec.config.method).keeps, trainer.snapshot(i)
        run.model = Model({"best": snapshot.best, "last": snapshot.state.params}[kept], snapshot.preprocess)
        at = {"best": best_epoch(run.log), "last": len(run.log)}
        test = {which: {"epoch": at[which], **scores[i]} for which, scores in tests.items()}  # type: ignore[dict-item]
        run.scores = _scores(run, test, run.spent + time.perf_counter() - started, len(runs))
        run.scores |= {"kept": kept} | trainer.extra_scores()
        if run.folder is not None and (lengths := run.folder.lengths()):
            run.scores["lengths"] = lengths
        if run.folder is not None and is_main():
            run.folder.write_model(run.model, run.spec.data.dataset.modalities, at[kept])
            run.folder.write_result(run.scores)  # last: this file marks the run as complete
    _raise_if_all_failed(runs)


def _scores(run: ActiveRun, test: Mapping[str, Any], seconds: float, together: int) -> dict[str, Any]:
    """The content of `result.json`."""
    packages = ("jax", "flax", "optax", "orbax-checkpoint", "numpy")
    return {
        "test": test,
        "valid": {k: {"epoch": v["epoch"], **run.log[v["epoch"] - 1]["valid"]} for k, v in test.items()},
        "chance": cross_modal_chance(run.spec.held_out["test"]),
        "chance_of": "random ranking",  # earlier versions: the class prior
        "wrong_share": run.spec.noise["wrong_share"],
        "seconds": round(seconds, 3),
        **({"trained_together": together} if together > 1 else {}),
        "device": _device(),
        "versions": {"mrl_jax": __version__} | {p: version(p) for p in packages},
    }


class _Pace:
    """When to save: after the first epoch, then at intervals that keep the time for checkpoints small."""

    def __init__(self) -> None:
        self._ended, self._took = -np.inf, 0.0

    def due(self) -> bool:
        return bool(time.perf_counter() - self._ended >= max(_INTERVAL, self._took / _TIME_FRACTION))

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._ended = time.perf_counter()
        self._took = self._ended - self._began


def _device() -> str:
    first = jax.devices()[0]
    if first.platform == "cpu":
        cores = usable_cores()
        return f"cpu ({cores} core{'s' if cores > 1 else ''})"
    return f"{first.device_kind} ({first.platform})"
