"""Weights & Biases."""

import os
from collections.abc import Mapping
from typing import Any

from mrl_jax.errors import InputError, first_line
from mrl_jax.packages import need
from mrl_jax.track.recorded_id import read_id, write_id
from mrl_jax.track.scalars import facts, final_scalars, scalars
from mrl_jax.training.callbacks import Callback, RunStart

__all__ = ["WandB"]


class WandB(Callback):
    """Logs the numbers of every epoch to Weights & Biases, and the scores at the end as its summary.

    Files of the library lie in `wandb/` in the folder of the run. The library's own settings hold, such as the
    variables `WANDB_PROJECT`, `WANDB_API_KEY` and `WANDB_MODE=offline`; `wandb sync` sends what was logged offline.
    A run that resumes goes on with its record.

    Args:
        settings: arguments of `wandb.init`, such as `project`, `entity`, `group`, `tags` and `mode`, in place of ours:
            the project is `mrl_jax` unless `WANDB_PROJECT` says otherwise, the name is that of the run.

    Raises:
        InputError: wandb is not installed.
    """

    def __init__(self, **settings: Any) -> None:
        self._wandb = need(["wandb"], "WandB")
        self._settings = settings
        self._run: Any = None

    def __repr__(self) -> str:
        return f"WandB({', '.join(f'{name}={value!r}' for name, value in self._settings.items())})"

    def run_begins(self, run: RunStart) -> None:
        """Begin a record, or go on with that of a run that resumes.

        Raises:
            InputError: the service does not know the user, or refuses a setting.
        """
        name = read_id(run.workdir, "wandb") or write_id(run.workdir, "wandb")
        own = {
            "name": run.name,
            "id": name,
            "resume": "allow",
            "config": facts(run),
            "dir": None if run.workdir is None else str(run.workdir),
        }
        if "WANDB_PROJECT" not in os.environ:
            own["project"] = "mrl_jax"
        try:
            self._run = self._wandb.init(**own | self._settings)
        except self._wandb.Error as error:
            raise InputError(
                f"Weights & Biases cannot begin ({first_line(error)}); log in by wandb login, or set WANDB_MODE=offline"
            ) from error

    def epoch_ends(self, line: Mapping[str, Any]) -> None:
        """Log the numbers of an epoch; the step is its number."""
        self._run.log(scalars(line), step=line["epoch"])

    def run_ends(self, result: Mapping[str, Any] | None, error: BaseException | None) -> None:
        """Add the scores, and finish the record, as failed if the run did not get to its end."""
        if self._run is None:
            return
        if result is not None:
            self._run.summary.update(final_scalars(result))
        self._run.finish(exit_code=0 if result is not None else 1)
        self._run = None
