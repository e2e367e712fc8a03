"""MLflow."""

import os
import time
from collections.abc import Mapping
from typing import Any

from mrl_jax.packages import need
from mrl_jax.track.recorded_id import read_id, write_id
from mrl_jax.track.scalars import as_text, facts, final_scalars, scalars
from mrl_jax.training.callbacks import Callback, RunStart

__all__ = ["MLflow"]


class MLflow(Callback):
    """Logs settings as parameters, the numbers of every epoch as metrics, and the scores at the end.

    A run that resumes goes on with its record, in which epochs that are trained again are logged once more, with the
    same values.

    Args:
        experiment: name of the experiment, made if it does not exist; None for the variable `MLFLOW_EXPERIMENT_NAME`,
            or else `mrl_jax`.
        uri: address of a tracking server, or `sqlite:///FILE`; None for the variable `MLFLOW_TRACKING_URI`, or else
            what MLflow takes by default, `sqlite:///mlflow.db`.

    Raises:
        InputError: MLflow is not installed.
    """

    def __init__(self, experiment: str | None = None, uri: str | None = None) -> None:
        need(["mlflow"], "MLflow")
        self._experiment = experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME", "mrl_jax")
        self._uri = uri
        self._client: Any = None
        self._run: str | None = None

    def __repr__(self) -> str:
        return f"MLflow(experiment={self._experiment!r})"

    def run_begins(self, run: RunStart) -> None:
        """Begin a record, or go on with that of a run that resumes."""
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self._client = MlflowClient(tracking_uri=self._uri)
        self._run = read_id(run.workdir, "mlflow")
        if self._run is not None:
            self._client.update_run(self._run, status="RUNNING")
            return
        known = self._client.get_experiment_by_name(self._experiment)
        where = self._client.create_experiment(self._experiment) if known is None else known.experiment_id
        record = self._client.create_run(where, run_name=run.name)
        self._run = write_id(run.workdir, "mlflow", record.info.run_id)
        parameters = [Param(name, as_text(value)) for name, value in facts(run).items()]
        self._client.log_batch(self._run, params=parameters)

    def epoch_ends(self, line: Mapping[str, Any]) -> None:
        """Log the numbers of an epoch; the step is its number."""
        self._log(scalars(line), line["epoch"])

    def run_ends(self, result: Mapping[str, Any] | None, error: BaseException | None) -> None:
        """Add the scores, and end the record: FINISHED, KILLED after Ctrl-C or SIGTERM, or FAILED."""
        if self._client is None or self._run is None:
            return
        if result is not None:
            self._log(final_scalars(result), result["test"]["last"]["epoch"])
        status = "FINISHED" if result is not None else "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
        self._client.set_terminated(self._run, status)
        self._client = self._run = None

    def _log(self, values: Mapping[str, float], epoch: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(self._run, metrics=[Metric(name, value, now, epoch) for name, value in values.items()])
