"""Stop a run whose validation mAP no longer rises."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mrl_jax.errors import InputError
from mrl_jax.training.callbacks import Callback, RunStart

__all__ = ["EarlyStopping"]


@dataclass
class EarlyStopping(Callback):
    """Stops a run when the average validation mAP has not risen for a number of epochs.

    What it decides depends on the log alone: a run that resumes stops where it would have stopped, with the same bits,
    if it gets the same callback again. The schedule of the learning rate stays that of the planned number of epochs,
    so that the rate has not yet fallen to its end when the run stops. Methods that keep the model of the last epoch,
    such as `consensus`, keep that of the epoch at which they stop.

    Attributes:
        patience: number of epochs without a rise after which the run stops.
        least: by how much mAP must exceed the highest so far to count as a rise.

    Raises:
        InputError: patience below 1, or `least` below 0.

    Example:
        >>> stopping = EarlyStopping(patience=2)
        >>> [stopping.epoch_ends({"valid": {"average": v}}) for v in (0.3, 0.4, 0.4, 0.35)]
        [False, False, False, True]
    """

    patience: int = 10
    least: float = 0.0
    _best: float = field(default=float("-inf"), init=False, repr=False)
    _without: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.patience, bool) or not isinstance(self.patience, int) or self.patience < 1:
            raise InputError(f"patience {self.patience!r}: must be an integer of 1 or more")
        if not 0 <= self.least < float("inf"):
            raise InputError(f"least {self.least!r}: must be a number of 0 or more")

    def run_begins(self, run: RunStart) -> bool:
        """Start anew, and read the epochs of a run that resumes; True if it had stopped."""
        self._best, self._without = float("-inf"), 0
        stops = [self.epoch_ends(line) for line in run.log]
        return stops[-1] if stops else False

    def epoch_ends(self, line: Mapping[str, Any]) -> bool:
        """Whether the run stops after this epoch."""
        value = line["valid"]["average"]
        if value > self._best + self.least:
            self._best, self._without = value, 0
        else:
            self._without += 1
        return self._without >= self.patience
