"""What a program may do while a run trains: a protocol of four methods, and what they are told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mrl_jax.config import Config
from mrl_jax.errors import InputError, listed

__all__ = ["METHODS", "Callback", "RunStart", "checked", "name_of"]


@dataclass(frozen=True)
class RunStart:
    """What is known when a run begins, or goes on.

    Attributes:
        name: the name of its folder, in a sweep that of the run; in memory the name of the data set.
        config: its settings.
        data: content of `data.json`: modalities, sizes, digest.
        noise: content of `noise.json`.
        epochs: the number of epochs for which it is planned.
        log: lines of `metrics.jsonl` of the epochs that are done; empty unless it resumes.
        workdir: its folder, or None in memory.
    """

    name: str
    config: Config
    data: Mapping[str, Any]
    noise: Mapping[str, Any]
    epochs: int
    log: Sequence[Mapping[str, Any]]
    workdir: Path | None

    @property
    def done(self) -> int:
        """The number of epochs that are done."""
        return len(self.log)


class Callback:
    """Methods that `train` calls, in the first process only. Any object with some of them will do.

    The calls wait for each other, and training waits for them. A callback that keeps anything from epoch to epoch must
    take it from `RunStart.log` when the run resumes. An exception ends the run once it is saved; see `CallbackError`.
    """

    def run_begins(self, run: RunStart) -> bool | None:
        """Before the first epoch, and before the next one of a run that resumes.

        Returns:
            True if the run is to stop where it is: it was killed just after it had been stopped.
        """

    def epoch_ends(self, line: Mapping[str, Any]) -> bool | None:
        """After an epoch was logged.

        Args:
            line: the line of `metrics.jsonl`: "epoch" from 1, "learning_rate", "train" and "valid".

        Returns:
            True to stop the run after this epoch. It is then complete.
        """

    def checkpoint_written(self, epoch: int, path: Path) -> None:
        """A checkpoint lies on disk; training may be some epochs ahead of it, and two checkpoints later it is deleted.

        Args:
            epoch: the number of epochs that it holds.
            path: its folder.
        """

    def run_ends(self, result: Mapping[str, Any] | None, error: BaseException | None) -> None:
        """Once, at the end, however it comes.

        Args:
            result: content of `result.json`; None if the run did not get to its end.
            error: what ended it early; `Interrupted` after Ctrl-C or SIGTERM.
        """


METHODS = ("run_begins", "epoch_ends", "checkpoint_written", "run_ends")
"""The methods of a callback."""


def checked(callbacks: Any) -> tuple[Any, ...]:
    """The callbacks of a run, as they were given.

    Raises:
        InputError: not a list of objects that have one of the methods.
    """
    if isinstance(callbacks, str) or not isinstance(callbacks, Sequence):
        raise InputError(f"callbacks {_shown(callbacks)}: give a list, such as callbacks=[EarlyStopping()]")
    for callback in callbacks:
        if isinstance(callback, type):
            raise InputError(f"callback {callback.__name__} is a class; give an instance: {callback.__name__}()")
        if not any(callable(getattr(callback, method, None)) for method in METHODS):
            raise InputError(f"callback {_shown(callback)} has none of the methods {listed(METHODS)}; give it one")
    return tuple(callbacks)


def name_of(callback: Any) -> str:
    """The name of a callback in messages and records: its own text, or its type if it has none."""
    own = type(callback).__repr__ is not object.__repr__
    return _shown(callback) if own else type(callback).__name__


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:79]}…"
