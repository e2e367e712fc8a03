"""Progress of training: a bar on a terminal or in a notebook, otherwise plain lines."""

import statistics
import sys
import time
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

__all__ = ["SweepProgress", "epoch_progress", "is_watched"]


def is_watched() -> bool:
    """Whether somebody sees a bar: standard error is a terminal, or the program runs in a notebook."""
    return in_notebook() or (sys.stderr is not None and sys.stderr.isatty())


def in_notebook() -> bool:
    """Whether the program runs in the kernel of a notebook: Jupyter, Colab, or an editor that has them."""
    if "IPython" not in sys.modules:
        return False
    shell = sys.modules["IPython"].get_ipython()
    return shell is not None and hasattr(shell, "kernel")


def _bar(**settings: Any) -> Any:
    """A bar of tqdm: a widget in a notebook, or text where widgets are not installed, without a warning of that."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tqdm.auto import tqdm

    return tqdm(**settings, unit="epoch", dynamic_ncols=True, bar_format=_BAR)


@contextmanager
def epoch_progress(epochs: int, enabled: bool) -> Iterator[Callable[[Sequence[Mapping[str, Any]]], None]]:
    """Yield a function that takes the log so far and shows its last line on standard error.

    Args:
        epochs: number of epochs of the run.
        enabled: if False, nothing is shown.
    """
    if not enabled:
        yield lambda log: None
    elif is_watched():
        time_left = _TimeLeft(time.monotonic)
        last = ""
        with _bar(total=epochs, desc="training") as bar:

            def advance(log: Sequence[Mapping[str, Any]]) -> None:
                nonlocal last
                if bar.n == 0 and len(log) > 1:  # resumed
                    bar.initial = bar.n = len(log) - 1
                time_left.epoch("run", 1)
                last = _scores(log)
                bar.set_postfix_str(f"{time_left.text(epochs - len(log))}{last}", refresh=False)
                bar.update()

            yield advance
            if 0 < bar.n < epochs:  # a run that stopped early is complete: notebooks draw other bars in red
                bar.total = bar.n
                bar.set_postfix_str(last, refresh=False)
    else:
        started = False

        def write(log: Sequence[Mapping[str, Any]]) -> None:
            nonlocal started
            if not started and len(log) > 1:
                print(f"resumed after epoch {len(log) - 1} of {epochs}", file=sys.stderr)
            started = True
            print(f"epoch {log[-1]['epoch']:>{len(str(epochs))}}/{epochs}  {_scores(log)}", file=sys.stderr, flush=True)

        yield write


class SweepProgress(AbstractContextManager["SweepProgress"]):
    """Progress over the epochs of many runs on standard error, with the time left.

    Args:
        runs: number of runs of the sweep.
        done: number of runs that are already complete.
        epochs: total number of epochs that remain, over all runs.
        enabled: if False, nothing is shown.
        programs: the groups of runs that are trained together, in order, each with its program; groups with equal
            programs compile once. Without them the first group alone is taken to compile.
        clock: gives the time in seconds.
    """

    def __init__(
        self,
        runs: int,
        done: int,
        epochs: int,
        enabled: bool,
        programs: Iterable[tuple[Sequence[Any], Hashable]] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runs, self._done, self._enabled, self._clock = runs, done, enabled, clock
        self._later = [(frozenset(map(id, group)), program) for group, program in programs]
        self._planned, self._compiled = bool(self._later), set[Hashable]()
        self._bar: Any = None
        self._left, self._of_group, self._training, self._printed = epochs, 0, 0, clock()
        self._time_left = _TimeLeft(clock)
        if enabled and is_watched():
            self._bar = _bar(total=epochs, desc="sweep")
        elif enabled and done:
            print(f"{done} of {runs} runs are complete", file=sys.stderr)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, runs: Sequence[Any]) -> None:
        """Count one epoch of runs that are trained together."""
        is_new = self._begin(runs)
        self._time_left.epoch(tuple(map(id, runs)), len(runs), is_new)
        self._training = len(runs)
        self._left -= len(runs)
        self._of_group = (runs[0].spec.epochs - max(len(r.log) for r in runs)) * len(runs)
        if self._bar is not None:
            self._bar.set_postfix_str(f"{self._estimate()}{self._at(runs)}", refresh=False)
            self._bar.update(len(runs))
        elif self._clock() - self._printed >= _SECONDS:
            self._print(self._at(runs))

    def end(self, runs: Sequence[Any]) -> None:
        """Count runs as ended."""
        self._begin(runs)
        self._done += len(runs)
        if not self._training:  # all failed in their first epoch
            self._of_group = sum(r.spec.epochs - len(r.log) for r in runs)
        self._left -= self._of_group  # that failed runs will not train
        self._of_group = self._training = 0
        self._time_left.end()
        failed = sum(r.error is not None for r in runs)
        if self._enabled and self._bar is None:
            self._print(f"{self._done}/{self._runs} runs done" + (f", {failed} failed" if failed else ""))

    def _begin(self, runs: Sequence[Any]) -> bool:
        """Count the group of these runs as begun; whether it is the first of its program."""
        first = next((x for x in self._later if id(runs[0]) in x[0]), None)
        if first is None:
            return False
        self._later.remove(first)
        is_new = first[1] not in self._compiled
        self._compiled.add(first[1])
        return is_new

    def _at(self, runs: Sequence[Any]) -> str:
        first, last = self._done + 1, self._done + len(runs)
        which = f"run {first}" if first == last else f"runs {first}-{last}"
        epoch = max(len(r.log) for r in runs)
        return f"{which} of {self._runs}, epoch {epoch}/{runs[0].spec.epochs}"

    def _print(self, message: str) -> None:
        if not self._enabled:
            return
        self._printed = self._clock()
        left = self._estimate().removesuffix(", ")
        print(f"{message}, {left}" if left else message, file=sys.stderr, flush=True)

    def _estimate(self) -> str:
        starting = self._runs - self._done - self._training
        programs = {program for _, program in self._later} - self._compiled
        if self._planned:  # without the first group of each new program
            firsts = [next(len(runs) for runs, p in self._later if p == program) for program in programs]
            starting = sum(len(runs) for runs, _ in self._later) - sum(firsts)
        return self._time_left.text(self._left, starting, len(programs), self._runs - self._done)


_SECONDS = 10.0  # minimum time between lines
# Without the estimate of tqdm, which counts compilation as the pace of all epochs.
_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"


class _TimeLeft:
    """Estimate the time left from epochs after the first of each group of runs.

    The first epoch of a group includes its start, and of a new program its compilation, which is no pace for others.
    Starts of later groups are estimated from those so far: of new programs per group, of known ones per run. Ends,
    which write the models, are estimated per run.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._since = clock, clock()
        self._group: Any = None
        self._seconds, self._epochs = 0.0, 0  # of all epochs but the first of each group
        self._starts: list[tuple[float, int, bool]] = []  # first epoch of each group, its runs, is its program new
        self._ends, self._ended = 0.0, 0  # seconds and runs of all ends

    def epoch(self, group: Any, runs: int, is_new: bool = False) -> None:
        """Count an epoch of runs that are trained together; `is_new` if the group is the first of its program."""
        seconds = self._passed()
        if group != self._group:
            self._group = group
            self._starts.append((seconds, runs, is_new or not self._starts))
        else:
            self._seconds += seconds
            self._epochs += runs

    def end(self) -> None:
        """Count the time since the last epoch as the end of the group."""
        seconds = self._passed()
        if self._group is not None:
            self._ends += seconds
            self._ended += self._starts[-1][1]
        self._group = None

    def text(self, epochs: int, runs: int = 0, programs: int = 0, ends: int = 0) -> str:
        """The time left, such as "3 min left, "; "" while it is unknown.

        Args:
            epochs: number of epochs left, over all runs.
            runs: number of runs that are not yet started, without the first group of each new program.
            programs: number of programs that are not yet compiled.
            ends: number of runs that have not ended.
        """
        new, known = ([(s, n) for s, n, is_new in self._starts if is_new == which] for which in (True, False))
        if epochs < 1 or not (self._epochs or known):
            return ""
        seconds = self._pace * epochs + self._ends * ends / max(self._ended, 1)
        seconds += programs * statistics.mean(max(0.0, s - self._pace * n) for s, n in new)
        if known:
            seconds += runs * sum(max(0.0, s - self._pace * n) for s, n in known) / sum(n for _, n in known)
        return f"{_duration(seconds)} left, "

    @property
    def _pace(self) -> float:
        return self._seconds / self._epochs if self._epochs else 0.0

    def _passed(self) -> float:
        before, self._since = self._since, self._clock()
        return self._since - before


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return f"{seconds:.0f} s" if seconds < 100 else f"{minutes:.0f} min" if minutes < 100 else f"{hours:.1f} h"


def _scores(log: Sequence[Mapping[str, Any]]) -> str:
    best = max(line["valid"]["average"] for line in log)
    loss = f"loss {log[-1]['train']['loss']:.4f}, " if "loss" in log[-1]["train"] else ""
    return f"{loss}valid mAP {log[-1]['valid']['average']:.3f} (best {best:.3f})"
