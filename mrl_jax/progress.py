"""Progress of a run: a bar on a terminal or in a notebook, plain lines in a log."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

__all__ = ["epoch_progress"]


@contextmanager
def epoch_progress(epochs: int, enabled: bool) -> Iterator[Callable[[Sequence[Mapping[str, Any]]], None]]:
    """Yields a function that takes the log so far and shows its last line, on standard error.

    Args:
        epochs: how many the run has.
        enabled: False shows nothing.
    """
    if not enabled:
        yield lambda log: None
    elif sys.stderr.isatty() or "ipykernel" in sys.modules:
        from tqdm.auto import tqdm

        with tqdm(total=epochs, desc="training", unit="epoch", dynamic_ncols=True) as bar:

            def advance(log: Sequence[Mapping[str, Any]]) -> None:
                if bar.n == 0 and len(log) > 1:  # resumed: those before tell nothing of the time left
                    bar.initial = bar.n = len(log) - 1
                bar.set_postfix_str(_told(log), refresh=False)
                bar.update()

            yield advance
    else:
        started = False

        def write(log: Sequence[Mapping[str, Any]]) -> None:
            nonlocal started
            if not started and len(log) > 1:
                print(f"resumed after epoch {len(log) - 1} of {epochs}", file=sys.stderr)
            started = True
            print(f"epoch {log[-1]['epoch']:>{len(str(epochs))}}/{epochs}  {_told(log)}", file=sys.stderr, flush=True)

        yield write


def _told(log: Sequence[Mapping[str, Any]]) -> str:
    best = max(line["valid"]["average"] for line in log)
    return f"loss {log[-1]['train']['loss']:.4f}, valid mAP {log[-1]['valid']['average']:.3f} (best {best:.3f})"
