"""MLflow: a run at MLFLOW_TRACKING_URI, or where mlflow keeps runs by default."""

import os
import time
from collections.abc import Mapping
from pathlib import Path

from mlflow import MlflowClient, get_tracking_uri
from mlflow.entities import Metric, Param

from retinanet.runtime.errors import UserError
from retinanet.settings.train import MLFLOW
from retinanet.tracking.run_ids import known_id, remember_id
from retinanet.tracking.trackers import TrackedRun

MOST_LETTERS = 6000  # of a parameter
MOST_AT_ONCE = 100  # parameters of a call
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
LETTERS = "-_./: "  # that a name may have beside letters and digits


def require_store() -> None:
    """Raises UserError, with what to install or to set, where mlflow can't keep runs at its place."""
    place = get_tracking_uri()
    try:
        MlflowClient()  # opens the store; a server isn't asked yet
    except Exception as fault:
        kind = place.partition(":")[0] if ":" in place else "file"
        if kind == "file":
            fix = (
                "Newer versions of mlflow write to a folder only with MLFLOW_ALLOW_FILE_STORE=true. Set that, or "
                "MLFLOW_TRACKING_URI to a server or a database such as sqlite:///mlflow.db"
            )
        elif kind.partition("+")[0] in DATABASES:
            fix = "mlflow-skinny has no databases: pip install mlflow, or set MLFLOW_TRACKING_URI to a server"
        else:
            fix = f"It says: {str(fault).strip().splitlines()[0][:200]}. Set MLFLOW_TRACKING_URI to another place"
        raise UserError(f"--track mlflow: mlflow can't keep runs at {place}. {fix}") from None


class MLflow:
    def __init__(self, run: TrackedRun) -> None:
        self.client = MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "retinanet")
        self.last = -1
        known = known_id(run.folder, MLFLOW) if run.step else None
        if known:
            self.run_id: str = known
            self.client.update_run(self.run_id, status="RUNNING")
            # A step that an earlier process has logged comes again; MLflow would keep it twice.
            names = self.client.get_run(self.run_id).data.metrics
            steps = [one.step for name in names for one in self.client.get_metric_history(self.run_id, name)]
            self.last = max(steps, default=-1)
            return
        experiment = self.client.get_experiment_by_name(name)
        experiment_id = experiment.experiment_id if experiment else self.client.create_experiment(name)
        self.run_id = self.client.create_run(experiment_id, run_name=run.name).info.run_id
        remember_id(run.folder, MLFLOW, self.run_id)
        params = [Param(name, str(value)[:MOST_LETTERS]) for name, value in run.settings.items()]
        for start in range(0, len(params), MOST_AT_ONCE):
            self.client.log_batch(self.run_id, params=params[start : start + MOST_AT_ONCE])

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        if step <= self.last:
            return
        now = int(time.time() * 1000)
        metrics = [Metric(_plain(name), number, now, step) for name, number in numbers.items()]
        self.client.log_batch(self.run_id, metrics=metrics)

    def picture(self, name: str, path: Path) -> None:
        self.client.log_artifact(self.run_id, str(path))

    def close(self) -> None:
        self.client.set_terminated(self.run_id)


def _plain(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in LETTERS else "_" for letter in name)
