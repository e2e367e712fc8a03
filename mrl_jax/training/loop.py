"""The training loop, of one run or of several that are trained together: epochs, log, checkpoints, scores."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from typing import Any, Protocol

import jax
import numpy as np

from mrl_jax.errors import InputError, NonFiniteLossError
from mrl_jax.interface import option
from mrl_jax.interrupt import StopRequest
from mrl_jax.methods.registry import entry_of
from mrl_jax.retrieval.measure import cross_modal_chance
from mrl_jax.retrieval.on_host import usable_cores
from mrl_jax.run.checkpoint import Checkpoints, Snapshot
from mrl_jax.run.metrics_file import best_epoch
from mrl_jax.run.model import Model
from mrl_jax.training.active_run import ActiveRun
from mrl_jax.training.epoch import Metrics
from mrl_jax.training.events import Events
from mrl_jax.training.processes import highest, is_main
from mrl_jax.training.recorded import record_samples, recorded_epochs
from mrl_jax.version import __version__

__all__ = ["Trainer", "train_epochs"]

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
        CallbackError: a callback of a run failed; the runs are saved.
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
        events = stack.enter_context(Events(runs, stores))
        events.begin()
        if events.failed:
            raise events.error()
        trainer.begin(snapshots)

        def save() -> None:
            with pace:
                _save(trainer, runs, stores, started)
            events.saving()

        def finish(stopped: bool) -> None:
            """Score runs: all that are left, or those that were stopped; if a callback fails, the others are saved."""
            _finish(trainer, runs, started, stopped)
            events.settle()
            if events.failed:
                if any(run.trains and run.scores is None for run in runs):
                    save()
                    _wait(stores)
                raise events.error()

        for epoch in range(len(runs[0].log), epochs):
            if not any(run.trains for run in runs):
                break
            if any(run.stopped and run.scores is None for run in runs):
                finish(stopped=True)
            trainer.keep_best(_run_epoch(trainer, runs, epoch))
            due = events.epoch(pace.due)
            last = epoch + 1 == epochs or not any(run.trains for run in runs)
            if record and (last or epoch + 1 in recorded_epochs(epochs)):
                _record(trainer, runs[0], epoch + 1)  # before the checkpoint, after which a resumed run begins
            asked = stop is not None and not last and highest(stop.number) > 0
            if due or asked or events.failed or (keep_state and last):
                save()
            show()
            if asked or events.failed:
                _wait(stores)
                events.settle()
            if events.failed:
                raise events.error()
            if stop is not None and asked:
                raise stop.interrupted(f"saved after epoch {epoch + 1} of {epochs}")
        _wait(stores)
        events.settle()  # a callback that fails now does not keep the run from its end
        if keep_state and not keep_checkpoints:
            for run, store in zip(runs, stores, strict=True):
                if store is not None:
                    store.drop_before(len(run.log))
        finish(stopped=False)


def _run_epoch(trainer: Trainer, runs: Sequence[ActiveRun], epoch: int) -> list[bool]:
    """Train and log an epoch; returns for each run whether it is its best so far."""
    metrics, finite = trainer.run_epoch(epoch)
    metrics = jax.tree.map(lambda x: np.asarray(x, np.float64), metrics)
    valid = trainer.score("valid")
    improved = [False] * len(runs)
    for i, run in enumerate(runs):
        if not run.trains:
            continue
        try:
            own = {name: x[i] for name, x in metrics.items()}
            improved[i] = run.add(epoch, own, bool(finite[i]), valid[i])
        except NonFiniteLossError as error:
            run.error = error
    _raise_if_all_failed(runs)
    return improved


def _save(trainer: Trainer, runs: Sequence[ActiveRun], stores: Sequence[Checkpoints | None], started: float) -> None:
    for i, (run, store) in enumerate(zip(runs, stores, strict=True)):
        if store is None or run.error is not None or run.scores is not None:
            continue
        run.save(store, len(run.log), trainer.snapshot(i), time.perf_counter() - started)
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


def _finish(trainer: Trainer, runs: Sequence[ActiveRun], started: float, stopped: bool) -> None:
    """Score runs and write their models and results: those that were stopped, or all that are left."""
    tests = {"best": trainer.score("test", best=True), "last": trainer.score("test")}
    for i, run in enumerate(runs):
        if run.error is not None or run.scores is not None or (stopped and not run.stopped):
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
        if run.stopped is not None:
            run.scores["stopped"] = {"epoch": len(run.log), "of": run.spec.epochs, "by": run.stopped}
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
