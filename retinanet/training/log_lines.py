"""Formats the lines of a training log. The format is fixed: people `tee` the lines, and programs parse them."""

import shlex
from datetime import timedelta
from pathlib import Path

import torch

from retinanet.runtime.device import memory_in_use
from retinanet.runtime.printable import counted
from retinanet.settings.train import STEP, Optimisation, TrainSettings
from retinanet.training.engine import Progress
from retinanet.training.schedule import sgd_rate
from retinanet.training.state import TrainingState

MUCH_WAITING = 0.1  # fraction of an epoch's time


def rate_hint(batch_size: int, optimizer: str, rate: float) -> str | None:
    """Returns a hint about SGD's learning rate for steps of `batch_size` images; None if it doesn't apply.

    Adam and AdamW get no hint: the size of their steps hardly depends on the gradient's size, so the default rate suits
    them.
    """
    if optimizer != "sgd" or rate != Optimisation.learning_rate:
        return None
    return (
        f"Hint: the learning rate {rate:g} is Adam's. The RetinaNet paper trains with SGD at 0.01 for 16 images; "
        f"for {counted(batch_size, 'image')}, use --learning_rate {sgd_rate(batch_size):g} with --warmup_steps 500 or "
        "more"
    )


def schedule_hint(settings: TrainSettings) -> str | None:
    """Returns a hint if the default milestones are used but don't fit the number of epochs; otherwise None."""
    optimisation = settings.optimisation
    epochs, milestones = optimisation.epochs, optimisation.milestones
    num_falls = sum(milestone < epochs for milestone in milestones)
    if optimisation.schedule != STEP or milestones != Optimisation.milestones or num_falls == len(milestones):
        return None
    better = sorted({epochs * 2 // 3, epochs * 8 // 9} - {0})
    advice = f"--milestones {' '.join(map(str, better))}, or " if epochs > 2 else ""
    return (
        f"Hint: the milestones {' '.join(map(str, milestones))} are for {Optimisation.epochs} epochs; in {epochs} the "
        f"learning rate {'falls once' if num_falls else 'never falls'}. Use {advice}--schedule cosine"
    )


def best_line(ap: float, epoch: int, path: Path, settings: TrainSettings) -> str:
    """Returns the line about a run's best evaluation, with the command that tests the weights in `path`."""
    words = ["python", "test.py", "--coco_path", str(settings.data.coco_path), "--set_name", settings.data.val_set]
    words += ["--checkpoint_path", str(path)]
    return f"Best: AP {ap:.3f} after epoch {epoch} of {settings.optimisation.epochs}. Evaluate it: {shlex.join(words)}"


def log_line(epoch: int, progress: Progress, seconds_left: float, device: torch.device) -> str:
    fields = {
        "Epoch": epoch,
        "Iteration": progress.iteration,
        "Classification loss": f"{progress.classification:.5f}",
        "Regression loss": f"{progress.regression:.5f}",
        "Running loss": f"{progress.running:.5f}",
        "Learning rate": f"{progress.learning_rate:g}",
        "Images/s": f"{progress.num_images / progress.seconds:.1f}",
        "Memory": f"{memory_in_use(device) / 1e9:.2f} GB",
        "Time left": timedelta(seconds=round(seconds_left)),
    }
    return " | ".join(f"{name}: {value}" for name, value in fields.items())


def tracked_numbers(progress: Progress, device: torch.device) -> dict[str, float]:
    """Returns the numbers that trackers get with each log line."""
    return {
        "train/classification loss": progress.classification,
        "train/regression loss": progress.regression,
        "train/running loss": progress.running,
        "train/learning rate": progress.learning_rate,
        "train/gradient norm": progress.gradient_norm,
        "train/clipped steps": progress.clipped,
        "train/images per second": progress.num_images / progress.seconds,
        "train/memory in GB": memory_in_use(device) / 1e9,
    }


def seconds_per_image(state: TrainingState) -> float:
    """Returns the mean seconds per image of the run so far; 0 before the first step."""
    num_images = state.num_images + int(state.tally[2])
    return (state.seconds + state.epoch_seconds) / num_images if num_images else 0.0


def epoch_line(epoch: int, progress: Progress) -> str:
    """Returns the line about a finished epoch, with advice if the steps had to wait for images."""
    share = progress.waited / progress.seconds if progress.seconds else 0.0
    if share < MUCH_WAITING:
        verdict = "the loader keeps up"
    else:
        verdict = "the loader is too slow: raise --workers, or keep the images in memory with --cache ram"
    return (
        f"Epoch {epoch} took {timedelta(seconds=round(progress.seconds))}, mean loss {progress.epoch_mean:.5f}. "
        f"Waited for data: {share:.0%} of the time; {verdict}. Clipped: {progress.clipped:.0%} of the steps"
    )
