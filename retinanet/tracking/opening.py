"""The start of the trackers that are asked for, each library imported only then."""

from collections.abc import Callable

from retinanet.runtime.errors import UserError
from retinanet.settings.train import MLFLOW, TENSORBOARD
from retinanet.tracking.trackers import TrackedRun, Tracker, Trackers, report_failure


def open_trackers(kinds: tuple[str, ...], run: TrackedRun) -> Trackers:
    """Start those of KINDS, or go on in the same run. UserError where a library isn't installed."""
    makers = {kind: _maker_of(kind) for kind in kinds}
    started = {}
    for kind, make in makers.items():
        try:
            started[kind] = make(run)
        except Exception as fault:
            report_failure(kind, fault)
    return Trackers(started)


def require_trackers(kinds: tuple[str, ...]) -> None:
    """UserError where one of KINDS lacks a package or can't keep a run here; for a check before the work."""
    for kind in kinds:
        _maker_of(kind)
        if kind == MLFLOW:
            from retinanet.tracking.mlflow import require_store

            require_store()


def _maker_of(kind: str) -> Callable[[TrackedRun], Tracker]:
    try:
        if kind == TENSORBOARD:
            from retinanet.tracking.tensorboard import TensorBoard

            return TensorBoard
        if kind == MLFLOW:
            from retinanet.tracking.mlflow import MLflow

            return MLflow
        from retinanet.tracking.wandb import WeightsAndBiases

        return WeightsAndBiases
    except ImportError:
        raise UserError(f"--track {kind}: is not installed. Install it with: pip install {kind}") from None
