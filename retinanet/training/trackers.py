"""Sends a run's numbers and pictures to experiment trackers: TensorBoard, MLflow or Weights & Biases.

A failing tracker never stops a run. Each library is imported only when it is used.
"""

import importlib
import json
import math
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from PIL import Image

from retinanet.runtime.errors import UserError
from retinanet.runtime.files import written_whole
from retinanet.runtime.printable import printable
from retinanet.runtime.streams import complain
from retinanet.settings.train import MLFLOW, TENSORBOARD, WANDB

IDS = "trackers.json"  # in the run's folder: the run's id in each tracker, for resuming
MOST_LETTERS, MOST_PARAMETERS = 6000, 100  # MLflow's limits on characters per parameter and parameters per call
MLFLOW_LETTERS = "-_./: "  # allowed in a name besides letters and digits
MLFLOW_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")


class TrackedRun(NamedTuple):
    """The information that a tracker gets at the start."""

    folder: Path  # the run's folder, where a tracker may store files
    name: str
    settings: dict[str, Any]  # as in run.json
    step: int  # steps done: 0, or the step at which the run resumes


class Tracker(Protocol):
    """A run in one tracking library."""

    def log(self, step: int, numbers: Mapping[str, float]) -> None: ...

    def picture(self, name: str, path: Path) -> None: ...

    def close(self, exit_code: int) -> None: ...


class TensorBoard:
    """Writes event files to the run's folder; view them with tensorboard --logdir FOLDER."""

    def __init__(self, run: TrackedRun) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # Later steps that an earlier process wrote are hidden, because a resumed run repeats them.
        self.writer = SummaryWriter(str(run.folder / TENSORBOARD), purge_step=run.step + 1 if run.step else None)
        self.step = run.step
        if not run.step:
            text = json.dumps(run.settings, indent=2, default=str)
            self.writer.add_text("settings", "\n".join(f"    {line}" for line in text.splitlines()), 0)

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self.step = step
        for name, number in numbers.items():
            self.writer.add_scalar(name, number, step)
        self.writer.flush()

    def picture(self, name: str, path: Path) -> None:
        with Image.open(path) as picture:
            self.writer.add_image(name, np.asarray(picture.convert("RGB")), self.step, dataformats="HWC")

    def close(self, exit_code: int) -> None:
        self.writer.close()


class MLflow:
    """Logs to a run at MLFLOW_TRACKING_URI, or at mlflow's default location."""

    def __init__(self, run: TrackedRun) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        self.client, self.metric = MlflowClient(), Metric
        self.last: dict[str, int] = {}  # the last step of each metric
        saved_id = known_id(run.folder, MLFLOW) if run.step else None
        if saved_id:
            self.run_id: str = saved_id
            self.client.update_run(self.run_id, status="RUNNING")
            # A resumed run repeats some steps, and MLflow would store them twice.
            for name in self.client.get_run(self.run_id).data.metrics:
                self.last[name] = max(metric.step for metric in self.client.get_metric_history(self.run_id, name))
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "retinanet")
        experiment = self.client.get_experiment_by_name(name)
        experiment_id = experiment.experiment_id if experiment else self.client.create_experiment(name)
        self.run_id = self.client.create_run(experiment_id, run_name=run.name).info.run_id
        remember_id(run.folder, MLFLOW, self.run_id)
        params = [Param(name, str(value)[:MOST_LETTERS]) for name, value in run.settings.items()]
        for start in range(0, len(params), MOST_PARAMETERS):
            self.client.log_batch(self.run_id, params=params[start : start + MOST_PARAMETERS])

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        metrics = [self.metric(_mlflow_name(name), number, now, step) for name, number in numbers.items()]
        new = [metric for metric in metrics if step > self.last.get(metric.key, -1)]
        if new:
            self.client.log_batch(self.run_id, metrics=new)

    def picture(self, name: str, path: Path) -> None:
        self.client.log_artifact(self.run_id, str(path))

    def close(self, exit_code: int) -> None:
        status = "KILLED" if exit_code > 128 else "FAILED" if exit_code else "FINISHED"  # above 128: by a signal
        self.client.set_terminated(self.run_id, status)


def _mlflow_name(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in MLFLOW_LETTERS else "_" for letter in name)


class WeightsAndBiases:
    """Logs to the project WANDB_PROJECT; with WANDB_MODE=offline, only to files in the run's output folder."""

    def __init__(self, run: TrackedRun) -> None:
        import wandb

        run_id = (known_id(run.folder, WANDB) if run.step else None) or secrets.token_hex(4)
        remember_id(run.folder, WANDB, run_id)  # before init, in case W&B creates the run but answers too late
        self.image = wandb.Image
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "retinanet"),
            name=run.name,
            id=run_id,
            resume="allow",  # W&B drops steps that it already has
            config=run.settings,
            dir=str(run.folder),
            settings=wandb.Settings(console="off"),  # stdout is the log
        )

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self.run.log(dict(numbers), step=step)

    def picture(self, name: str, path: Path) -> None:
        self.run.log({name: self.image(str(path))})

    def close(self, exit_code: int) -> None:
        self.run.finish(exit_code)


class Library(NamedTuple):
    module: str  # fails to import if the library is missing
    tracker: Callable[[TrackedRun], Tracker]


LIBRARIES = {
    TENSORBOARD: Library("torch.utils.tensorboard", TensorBoard),
    MLFLOW: Library("mlflow", MLflow),
    WANDB: Library("wandb", WeightsAndBiases),
}


class Trackers:
    """Sends numbers and pictures to all trackers of a run; a tracker that fails is reported once and then left out."""

    def __init__(self, trackers: dict[str, Tracker]) -> None:
        self.working = dict(trackers)

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Sends the finite values in `numbers`, recorded at step `step`."""
        finite = {name: float(number) for name, number in numbers.items() if math.isfinite(number)}
        self._each(lambda tracker: tracker.log(step, finite))

    def pictures(self, paths: Mapping[str, Path]) -> None:
        for name, path in paths.items():
            self._each(lambda tracker, name=name, path=path: tracker.picture(name, path))  # type: ignore[misc]

    def close(self, exit_code: int = 0) -> None:
        """Ends the run in all trackers, with the `exit_code` of its command."""
        self._each(lambda tracker: tracker.close(exit_code))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.close(getattr(error, "exit_code", 1) if error else 0)

    def _each(self, do: Callable[[Tracker], None]) -> None:
        for kind, tracker in list(self.working.items()):
            try:
                do(tracker)
            except Exception as fault:  # whatever a library, its disk or its server raises
                del self.working[kind]
                _report_failure(kind, fault)


NO_TRACKERS = Trackers({})


def open_trackers(kinds: Sequence[str], run: TrackedRun) -> Trackers:
    """Starts the trackers `kinds`, or resumes their runs; a tracker that fails is reported and left out."""
    started = {}
    for kind in kinds:
        try:
            started[kind] = LIBRARIES[kind].tracker(run)
        except Exception as fault:
            _report_failure(kind, fault)
    return Trackers(started)


def require_trackers(kinds: Sequence[str]) -> None:
    """Raises UserError if a tracker lacks a package or can't store a run. Call this before the run starts."""
    for kind in kinds:
        try:
            importlib.import_module(LIBRARIES[kind].module)
        except ImportError:
            raise UserError(f"--track {kind}: {kind} is not installed. Install it with: pip install {kind}") from None
        if kind == MLFLOW:
            _require_mlflow_store()


def _require_mlflow_store() -> None:
    """Raises UserError, naming the package to install or the variable to set, if mlflow can't store runs."""
    from mlflow import MlflowClient, get_tracking_uri

    place = get_tracking_uri()
    try:
        MlflowClient()  # opens a local store, but doesn't contact a server yet
    except Exception as fault:
        kind = place.partition(":")[0] if ":" in place else "file"
        if kind == "file":
            fix = (
                "Newer versions of mlflow write to a folder only with MLFLOW_ALLOW_FILE_STORE=true. Set that, or "
                "MLFLOW_TRACKING_URI to a server or a database such as sqlite:///mlflow.db"
            )
        elif kind.partition("+")[0] in MLFLOW_DATABASES:
            fix = "mlflow-skinny has no databases: pip install mlflow, or set MLFLOW_TRACKING_URI to a server"
        else:
            fix = f"It says: {str(fault).strip().splitlines()[0][:200]}. Set MLFLOW_TRACKING_URI to another place"
        raise UserError(f"--track mlflow: mlflow can't keep runs at {place}. {fix}") from None


def _report_failure(kind: str, fault: Exception) -> None:
    message = printable(f"{type(fault).__name__}: {fault}")[:300]
    complain(f"train.py: --track {kind} failed and is off from here on ({message}). Training continues.")


def known_id(folder: Path, kind: str) -> str | None:
    """Returns the id of the folder's run in the tracker `kind`; None if the folder has no such id."""
    try:
        content = json.loads((folder / IDS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    run_id = content.get(kind) if isinstance(content, dict) else None
    return run_id if isinstance(run_id, str) else None


def remember_id(folder: Path, kind: str, run_id: str) -> None:
    ids = {library: known_id(folder, library) for library in LIBRARIES} | {kind: run_id}
    with written_whole(folder / IDS) as file:
        file.write(json.dumps({name: value for name, value in ids.items() if value}) + "\n")
