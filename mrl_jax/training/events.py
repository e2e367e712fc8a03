"""The calls of callbacks, and what follows from them: a run that stops early, or an error once it is saved."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

import numpy as np

from mrl_jax.errors import CallbackError, InputError, first_line
from mrl_jax.interface import option
from mrl_jax.run.checkpoint import Checkpoints
from mrl_jax.training.active_run import ActiveRun
from mrl_jax.training.callbacks import RunStart, name_of
from mrl_jax.training.processes import on_main

__all__ = ["Events"]


class Events(AbstractContextManager["Events"]):
    """The events of runs that are trained together. Leaving the context tells those that have not ended why.

    Only the first process has callbacks; all of them learn what they decided, so all call these methods.

    Args:
        runs: the runs, whose `stopped` is set when a callback stops them.
        stores: their checkpoints.

    Attributes:
        failed: what failed, for the message of an error; None as long as nothing did.
    """

    def __init__(self, runs: Sequence[ActiveRun], stores: Sequence[Checkpoints | None]) -> None:
        self.failed: str | None = None
        self._runs, self._stores = runs, stores
        self._begun: list[tuple[ActiveRun, Any]] = []  # and not ended
        self._untold: list[tuple[int, int]] = []  # run and epoch of checkpoints that are being written, or just were
        self._stops: dict[int, str] = {}
        self._cause: Exception | None = None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for run, callback in self._begun:
            try:
                _call(callback, "run_ends", run.scores, None if run.scores is not None else run.error or error)
            except Exception as second:  # the error that ended the run says more
                if error is not None:
                    error.add_note(f"callback {name_of(callback)} failed in run_ends ({_reason(second)})")
        self._begun = []

    def begin(self) -> None:
        """Tell that the runs begin.

        Raises:
            InputError: a callback does not go with its run.
        """
        self._agree(self._tell_begin)

    def epoch(self, due: Callable[[], bool]) -> bool:
        """Tell that an epoch ended, which the runs have logged.

        Args:
            due: asked in the first process whether a checkpoint is due.

        Returns:
            Its answer, in every process.
        """
        return self._agree(self._tell_epoch, due)

    def saving(self) -> None:
        """Note that a checkpoint of all runs that train is being written."""
        for i, (run, store) in enumerate(zip(self._runs, self._stores, strict=True)):
            if run.callbacks and store is not None and run.error is None and run.scores is None:
                self._untold.append((i, len(run.log)))

    def settle(self) -> None:
        """Tell of checkpoints, all of which lie on disk now, and of the ends of runs that have their scores."""
        self._agree(self._tell_settled)

    def error(self) -> CallbackError:
        """The error of what failed, once everything is saved."""
        run = self._runs[0]
        if run.folder is None:
            remedy = "the run was in memory and is lost; mend the callback"
        elif not any(r.trains and r.scores is None for r in self._runs):
            remedy = "the run is complete, and its result is written"
        else:
            saved = f"saved after epoch {len(run.log)} of {run.spec.epochs}; " if run.log else ""
            remedy = f"{saved}mend the callback, then {option('resume')} continues it"
        error = CallbackError(f"{self.failed}; {remedy}")
        error.__cause__ = self._cause
        return error

    def _agree(self, tell: Callable[[], None], due: Callable[[], bool] = lambda: False) -> bool:
        """Call callbacks in the first process, and note in all what they decided."""

        def action() -> Any:
            tell()
            return {"due": due(), "stops": list(self._stops.items()), "failed": self.failed}

        told = on_main(action)
        self.failed, self._stops = told["failed"], {}
        for i, by in told["stops"]:
            run = self._runs[i]
            if len(run.log) < run.spec.epochs:  # otherwise it ends in any case
                run.stopped = by
        return told["due"]

    def _tell_begin(self) -> None:
        for i, run in enumerate(self._runs):
            start = RunStart(
                run.name or run.spec.data.dataset.name,
                run.spec.config,
                run.spec.data.described,
                run.spec.noise,
                run.spec.epochs,
                tuple(run.log),
                None if run.folder is None else run.folder.path,
            )
            for callback in run.callbacks:
                self._begun.append((run, callback))
                self._ask(i, callback, "run_begins", start)

    def _tell_epoch(self) -> None:
        latest = dict(self._untold)
        writing = {i for i in latest if self._stores[i].is_writing()}  # type: ignore[union-attr]
        for i, epoch in [x for x in self._untold if x[0] not in writing or x[1] < latest[x[0]]]:
            self._tell_written(i, epoch)
        for i, run in enumerate(self._runs):
            for callback in run.callbacks if run.trains else ():
                self._ask(i, callback, "epoch_ends", run.log[-1])
        for run, callback in [pair for pair in self._begun if pair[0].error is not None]:
            self._begun.remove((run, callback))
            self._attempt(run, callback, "run_ends", None, run.error)

    def _tell_written(self, i: int, epoch: int) -> None:
        self._untold.remove((i, epoch))
        run = self._runs[i]
        path = None if run.folder is None else run.folder.checkpoints / str(epoch)
        if path is not None and path.exists():  # otherwise a later one took its place
            for callback in run.callbacks:
                self._attempt(run, callback, "checkpoint_written", epoch, path)

    def _tell_settled(self) -> None:
        for i, epoch in list(self._untold):
            self._tell_written(i, epoch)
        for run, callback in [pair for pair in self._begun if pair[0].scores is not None]:
            self._begun.remove((run, callback))
            self._attempt(run, callback, "run_ends", run.scores, None)

    def _ask(self, i: int, callback: Any, method: str, *values: Any) -> None:
        """Call a method that may stop a run."""
        run = self._runs[i]
        answer = self._attempt(run, callback, method, *values)
        if answer is None or self.failed is not None:
            return
        if not isinstance(answer, bool | np.bool_):
            answered = f"it returned {type(answer).__name__}; return True to stop the run, else False or None"
            self.failed = self._described(run, callback, method, answered)
        elif answer and not run.log:
            self.failed = self._described(run, callback, method, "it cannot stop a run before the first epoch")
        elif answer:
            self._stops.setdefault(i, name_of(callback))

    def _attempt(self, run: ActiveRun, callback: Any, method: str, *values: Any) -> Any:
        """Call a method; the first that fails is noted, and no other is called until the runs have ended."""
        if self.failed is not None:
            return None
        try:
            return _call(callback, method, *values)
        except Exception as error:
            if isinstance(error, InputError) and method == "run_begins":
                raise  # what the user gave does not go together
            self.failed, self._cause = self._described(run, callback, method, _reason(error)), error
            return None

    def _described(self, run: ActiveRun, callback: Any, method: str, reason: str) -> str:
        of = f"run {run.name}: " if len(self._runs) > 1 else ""
        after = f" after epoch {len(run.log)}" if run.log else ""
        return f"{of}callback {name_of(callback)} failed in {method}{after} ({reason})"


def _call(callback: Any, method: str, *values: Any) -> Any:
    own = getattr(callback, method, None)
    return own(*values) if callable(own) else None


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"
