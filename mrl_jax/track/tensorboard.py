"""Event files of TensorBoard, written by tensorboardX, which needs neither TensorFlow nor torch."""

import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mrl_jax.errors import InputError
from mrl_jax.files import pretty_json
from mrl_jax.packages import need
from mrl_jax.track.scalars import facts, final_scalars, scalars
from mrl_jax.training.callbacks import Callback, RunStart

__all__ = ["TensorBoard"]


class TensorBoard(Callback):
    """Writes the numbers of every epoch as scalars, the settings as text, and the test scores at the end.

    `tensorboard --logdir runs` shows all runs below `runs/`. Of a run that resumes, TensorBoard hides the epochs that
    are trained again.

    Args:
        folder: folder of the event files; None for `tensorboard/` in the folder of the run.

    Raises:
        InputError: tensorboardX is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self._writer_of = need(["tensorboardX"], "TensorBoard").SummaryWriter
        self._folder = None if folder is None else Path(folder)
        self._writer: Any = None

    def __repr__(self) -> str:
        return f"TensorBoard({'' if self._folder is None else repr(str(self._folder))})"

    def run_begins(self, run: RunStart) -> None:
        """Open the event file.

        Raises:
            InputError: a run in memory, and no folder was given.
        """
        if self._folder is None and run.workdir is None:
            raise InputError("TensorBoard() has no folder, and the run is in memory; give one: TensorBoard(folder)")
        folder = self._folder or run.workdir / "tensorboard"  # type: ignore[operator]
        # Names of event files hold the second alone, and runs may resume within one. They are read in order of names.
        suffix = f".{run.done:06d}.{uuid.uuid4().hex[:8]}"
        purge = run.done + 1 if run.done else None
        self._writer = self._writer_of(str(folder), purge_step=purge, filename_suffix=suffix)
        self._writer.add_text("settings", f"```\n{pretty_json(facts(run))}\n```", run.done)

    def epoch_ends(self, line: Mapping[str, Any]) -> None:
        """Write the numbers of an epoch, at once: a viewer reads along."""
        for name, value in scalars(line).items():
            self._writer.add_scalar(name, value, line["epoch"])
        self._writer.flush()

    def run_ends(self, result: Mapping[str, Any] | None, error: BaseException | None) -> None:
        """Write the test scores, of the best and the last epoch each at its own, and close the file."""
        if self._writer is None:
            return
        for name, value in ({} if result is None else final_scalars(result)).items():
            split, which, what = name.split("/", 2)
            if split == "test" and what != "epoch" and result is not None:
                self._writer.add_scalar(f"test/{what}/{which}", value, result["test"][which]["epoch"])
        self._writer.close()
        self._writer = None
