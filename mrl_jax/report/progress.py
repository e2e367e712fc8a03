"""Progress of training: a bar on a terminal or in a notebook, otherwise plain lines."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

__all__ = ["SweepProgress", "epoch_progress"]


@contextmanager
def epoch_progress(epochs: int, enabled: bool) -> Iterator[Callable[[Sequence[Mapping[str, Any]]], None]]:
    """Yield a function that takes the log so far and shows its last line on standard error.

    Args:
        epochs: number of epochs of the run.
        enabled: if False, nothing is shown.
    """
    if not enabled:
        yield lambda log: None
    elif sys.stderr.isatty() or "ipykernel" in sys.modules:
        from tqdm.auto import tqdm

        with tqdm(total=epochs, desc="training", unit="epoch", dynamic_ncols=True) as bar:

            def advance(log: Sequence[Mapping[str, Any]]) -> None:
                if bar.n == 0 and len(log) > 1:  # resumed: earlier epochs do not count for the time left
                    bar.initial = bar.n = len(log) - 1
                bar.set_postfix_str(_scores(log), refresh=False)
                bar.update()

            yield advance
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
    """

    def __init__(self, runs: int, done: int, epochs: int, enabled: bool) -> None:
        self._runs, self._done, self._epochs, self._enabled = runs, done, epochs, enabled
        self._bar: Any = None
        self._passed, self._began, self._printed = 0, time.monotonic(), time.monotonic()
        if enabled and (sys.stderr.isatty() or "ipykernel" in sys.modules):
            from tqdm.auto import tqdm

            self._bar = tqdm(total=epochs, desc="sweep", unit="epoch", dynamic_ncols=True)
        elif enabled and done:
            print(f"{done} of {runs} runs are complete", file=sys.stderr)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, runs: Sequence[Any]) -> None:
        """Count one epoch of runs that are trained together."""
        self._passed += len(runs)
        if self._bar is not None:
            self._bar.set_postfix_str(self._at(runs), refresh=False)
            self._bar.update(len(runs))
        elif time.monotonic() - self._printed >= _SECONDS:
            self._print(self._at(runs))

    def end(self, runs: Sequence[Any]) -> None:
        """Count runs as ended."""
        self._done += len(runs)
        self._epochs -= sum(r.spec.epochs - len(r.log) for r in runs)  # that failed runs will not train
        failed = sum(r.error is not None for r in runs)
        if self._enabled and self._bar is None:
            self._print(f"{self._done}/{self._runs} runs done" + (f", {failed} failed" if failed else ""))

    def _at(self, runs: Sequence[Any]) -> str:
        first, last = self._done + 1, self._done + len(runs)
        which = f"run {first}" if first == last else f"runs {first}-{last}"
        epoch = max(len(r.log) for r in runs)
        return f"{which} of {self._runs}, epoch {epoch}/{runs[0].spec.epochs}"

    def _print(self, message: str) -> None:
        if not self._enabled:
            return
        self._printed = time.monotonic()
        left = (self._printed - self._began) * (self._epochs - self._passed) / max(self._passed, 1)
        more = f", {_duration(left)} left" if self._passed < self._epochs else ""
        print(f"{message}{more}", file=sys.stderr, flush=True)


_SECONDS = 10.0  # minimum time between lines


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return f"{seconds:.0f} s" if seconds < 100 else f"{minutes:.0f} min" if minutes < 100 else f"{hours:.1f} h"


def _scores(log: Sequence[Mapping[str, Any]]) -> str:
    best = max(line["valid"]["average"] for line in log)
    loss = f"loss {log[-1]['train']['loss']:.4f}, " if "loss" in log[-1]["train"] else ""
    return f"{loss}valid mAP {log[-1]['valid']['average']:.3f} (best {best:.3f})"
