"""From the first epoch to the last, of one run or of several that are trained together: log, checkpoints, scores."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Protocol

import jax
import numpy as np

from mrl_jax import __version__
from mrl_jax.errors import InputError, NonFiniteLossError
from mrl_jax.retrieval.measure import cross_modal_chance
from mrl_jax.retrieval.ranking import usable_cores
from mrl_jax.run.checkpoint import Checkpoints, Snapshot
from mrl_jax.run.model_file import Model
from mrl_jax.run.run import RunFolder, best_epoch
from mrl_jax.training.processes import is_main, on_main
from mrl_jax.training.run_spec import Task
from mrl_jax.training.train_step import StepMetrics, learning_rate_at

__all__ = ["Member", "Program", "train_epochs"]

_EVERY = 30.0  # seconds between checkpoints, at least
_SHARE = 0.1  # of the time, at most, that goes into checkpoints


class Program(Protocol):
    """The states of R runs on devices, and what can be done with them; `OneRun` and `sweep.ManyRuns`."""

    def begin(self, snapshots: Sequence[Snapshot | None]) -> None:
        """Start each run from its snapshot, or anew."""

    def run_epoch(self, epoch: int) -> tuple[StepMetrics, np.ndarray]:
        """Train one epoch, counted from 0: metrics of the steps [R, S], whether all parameters are finite [R]."""

    def keep_best(self, which: Sequence[bool]) -> None:
        """Keep the weights of these runs as their best so far."""

    def score(self, split: str, best: bool = False) -> list[dict[str, Any] | NonFiniteLossError]:
        """Scores of every run on a split, of the state or of the best weights, or why there are none."""

    def snapshot(self, run: int = 0) -> Snapshot:
        """What a checkpoint of a run holds."""


@dataclass
class Member:
    """A run on its way.

    Attributes:
        task: the run.
        folder: where it is kept, or None.
        log: the lines of `metrics.jsonl` so far.
        spent: seconds before its last resumption.
        error: why it ended early.
        scores: content of `result.json`, at the end.
        model: the best `Model`, at the end of its training.
    """

    task: Task
    folder: RunFolder | None
    log: list[dict[str, Any]] = field(default_factory=list)
    spent: float = 0.0
    error: NonFiniteLossError | None = None
    scores: Any = None
    model: Any = None

    def recall(self) -> bool:
        """Whether the folder is that of a complete run; its log and scores are then read."""
        self.scores = None if self.folder is None else self.folder.result()
        if self.folder is not None and self.scores is not None:
            self.log = self.folder.metrics_until(self.task.config.epochs)
        return self.scores is not None

    def begin(self, store: Checkpoints | None) -> Snapshot | None:
        """Read the last checkpoint, and drop what was logged after it."""
        if self.folder is None or store is None:
            self.log = []
            return None
        epochs = store.epochs()
        folder, last = self.folder, epochs[-1] if epochs else 0
        self.log = on_main(lambda: folder.rewind(last))
        if not epochs:
            return None
        self.spent = store.metrics(last)["seconds"]
        return store.restore(last, self.task.template)

    def add(self, epoch: int, steps: StepMetrics, finite: bool, valid: dict[str, Any] | NonFiniteLossError) -> bool:
        """Log an epoch, counted from 0; returns whether it is the best so far.

        Raises:
            NonFiniteLossError: loss, parameters or embeddings are not finite.
        """
        bad = np.flatnonzero(~np.isfinite(steps.loss))
        if len(bad):
            raise _non_finite(epoch, f"the loss is {steps.loss[bad[0]]} in step {bad[0] + 1} of {len(steps.loss)}")
        if not finite:
            raise _non_finite(epoch, f"parameters are not finite after step {len(steps.loss)}, the last")
        if isinstance(valid, NonFiniteLossError):
            raise _non_finite(epoch, str(valid))
        weights = steps.instances / steps.instances.sum()
        line = {
            "epoch": epoch + 1,
            "learning_rate": float(learning_rate_at(self.task.recipe, epoch)),
            "train": {name: float(getattr(steps, name) @ weights) for name in ("loss", "clustering", "contrastive")},
            "valid": valid,
        }
        self.log.append(line)
        if self.folder is not None and is_main():
            self.folder.log(line)
        return best_epoch(self.log) == epoch + 1


def train_epochs(
    program: Program,
    members: Sequence[Member],
    started: float,
    show: Callable[[], None] = lambda: None,
    *,
    keep_state: bool = True,
) -> None:
    """Train all epochs that are left; the members then hold scores and models, and their folders are complete.

    Args:
        program: the runs' states.
        members: the runs, all after the same number of epochs.
        started: time of the start, as `time.perf_counter()` tells it.
        show: called after every epoch.
        keep_state: keep the state after the last epoch beside the best model.

    Raises:
        NonFiniteLossError: loss, parameters or embeddings became inf or NaN in every run; one that goes on alone of
            several only has its `error`.
        CheckpointError: a checkpoint could not be written.
        InputError: a run has gone on elsewhere since its epochs were counted.
    """
    epochs = members[0].task.config.epochs
    pace = _Pace()
    with ExitStack() as stack:
        stores = [None if m.folder is None else stack.enter_context(Checkpoints(m.folder.checkpoints)) for m in members]
        snapshots = [m.begin(store) for m, store in zip(members, stores, strict=True)]
        if len({len(m.log) for m in members}) > 1:
            raise InputError(
                "another process has gone on with a run of this group meanwhile; start again with --resume"
            )
        program.begin(snapshots)
        for epoch in range(len(members[0].log), epochs):
            steps, finite = program.run_epoch(epoch)
            steps = jax.tree.map(lambda x: np.asarray(x, np.float64), steps)
            valid = program.score("valid")
            improved = [False] * len(members)
            for i, member in enumerate(members):
                if member.error is not None:
                    continue
                try:
                    own = StepMetrics(*(x[i] for x in steps))
                    improved[i] = member.add(epoch, own, bool(finite[i]), valid[i])
                except NonFiniteLossError as error:
                    member.error = error
            _raise_if_all_failed(members)
            program.keep_best(improved)
            if on_main(pace.due) or (keep_state and epoch + 1 == epochs):
                with pace:
                    for i, (member, store) in enumerate(zip(members, stores, strict=True)):
                        if store is None or member.error is not None:
                            continue
                        seconds = member.spent + time.perf_counter() - started
                        average = member.log[-1]["valid"]["average"]
                        kept = {"epoch": epoch + 1, "average": average, "seconds": seconds}
                        store.save(epoch + 1, program.snapshot(i), kept)
                        if len(members) > 1:  # not the copies of all at once
                            store.wait()
            show()
        for store in stores:
            if store is not None:
                store.wait()
        _finish(program, members, started)


def _raise_if_all_failed(members: Sequence[Member]) -> None:
    if all(m.error is not None for m in members):
        raise members[0].error  # type: ignore[misc]


def _finish(program: Program, members: Sequence[Member], started: float) -> None:
    tests = {"best": program.score("test", best=True), "last": program.score("test")}
    for i, member in enumerate(members):
        if member.error is not None:
            continue
        for scores in tests.values():
            if isinstance(scores[i], NonFiniteLossError):
                member.error = scores[i]  # type: ignore[assignment]
        if member.error is not None:
            continue
        best, snapshot = best_epoch(member.log), program.snapshot(i)
        member.model = Model(*snapshot.best, snapshot.preprocess)
        at = {"best": best, "last": len(member.log)}
        test = {which: {"epoch": at[which], **scores[i]} for which, scores in tests.items()}  # type: ignore[dict-item]
        member.scores = _scores(member, test, member.spent + time.perf_counter() - started, len(members))
        if stream := getattr(program, "stream", None):
            member.scores["stream_waiting_share"] = round(stream.clock.share, 4)
        if member.folder is not None and is_main():
            member.folder.write_model(member.model, member.task.data.dataset.modalities, best)
            member.folder.write_result(member.scores)  # last: it says that the run is complete
    _raise_if_all_failed(members)


def _scores(member: Member, test: Mapping[str, Any], seconds: float, together: int) -> dict[str, Any]:
    """The content of `result.json`."""
    packages = ("jax", "flax", "optax", "orbax-checkpoint", "numpy")
    return {
        "test": test,
        "valid": {k: {"epoch": v["epoch"], **member.log[v["epoch"] - 1]["valid"]} for k, v in test.items()},
        "chance": cross_modal_chance(member.task.held_out["test"]),
        "wrong_share": member.task.noise["wrong_share"],
        "seconds": round(seconds, 3),
        **({"trained_together": together} if together > 1 else {}),
        "device": _device(),
        "versions": {"mrl_jax": __version__} | {p: version(p) for p in packages},
    }


class _Pace:
    """When to save: after the first epoch, then so often that little is lost and little time goes into it."""

    def __init__(self) -> None:
        self._ended, self._took = -np.inf, 0.0

    def due(self) -> bool:
        return bool(time.perf_counter() - self._ended >= max(_EVERY, self._took / _SHARE))

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._ended = time.perf_counter()
        self._took = self._ended - self._began


def _non_finite(epoch: int, what: str) -> NonFiniteLossError:
    return NonFiniteLossError(
        f"epoch {epoch + 1}: {what}; {'checkpoints of earlier epochs stay; ' if epoch else ''}try a lower learning "
        "rate, a higher temperature, or --clip-norm 1"
    )


def _device() -> str:
    first = jax.devices()[0]
    if first.platform == "cpu":
        cores = usable_cores()
        return f"cpu ({cores} core{'s' if cores > 1 else ''})"
    return f"{first.device_kind} ({first.platform})"
