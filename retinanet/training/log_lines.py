"""The lines of a training log, whose form stays: people tee them and programs read them."""

import json
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from retinanet.checkpoints.checkpoint import Checkpoint
from retinanet.checkpoints.resume import FREE
from retinanet.runtime.device import memory_in_use
from retinanet.training.engine import Progress
from retinanet.training.optimizer import linear_rule
from retinanet.training.settings import TrainSettings
from retinanet.training.state import TrainingState

MUCH_WAITING = 0.1  # of an epoch's time
# Of the settings without effect on the numbers only those are listed that tell runs apart.
UNLISTED = FREE - {"output_path", "batch_size", "epochs"}


def settings_line(settings: dict[str, Any]) -> str:
    """The flags of a training, for vis.py --logs."""
    listed = {name: value for name, value in settings.items() if name not in UNLISTED}
    return f"Settings: {json.dumps(listed, default=str)}"


def checkpoint_line(checkpoint: Checkpoint, path: Path, *, averaged: bool) -> str:
    weights = "averaged weights, " if averaged and checkpoint.ema else ""
    return f"Checkpoint: {path}, {weights}depth {checkpoint.depth}, after {checkpoint.epoch} epochs"


def views_line(sides: Sequence[int], flip_test: bool) -> str:
    """The views of test-time augmentation: shorter sides, mirrored or not."""
    listed = f"side{'s' if len(sides) > 1 else ''} {', '.join(map(str, sides))}"
    mirrored = f", {'each ' if len(sides) > 1 else ''}mirrored too" if flip_test else ""
    return f"Views: {listed}{mirrored}: {len(sides) * (1 + flip_test)} looks at each image"


def rate_hint(batch_size: int, rate: float) -> str | None:
    """What the linear scaling rule suggests where the batch is larger than the default but the rate is not."""
    if rate != TrainSettings.learning_rate or batch_size <= TrainSettings.batch_size:
        return None
    return (
        f"Hint: a step has {batch_size} images, the published runs' {TrainSettings.batch_size}, at the same rate. The "
        f"linear scaling rule gives --learning_rate {linear_rule(batch_size):g}, with --warmup_steps 500 or more"
    )


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


def seconds_per_image(state: TrainingState) -> float:
    """Of the run so far."""
    num_images = state.num_images + int(state.tally[2])
    return (state.seconds + state.epoch_seconds) / num_images if num_images else 0.0


def epoch_line(epoch: int, progress: Progress) -> str:
    """The epoch in one line, with what to do where the step had to wait for its images."""
    share = progress.waited / progress.seconds if progress.seconds else 0.0
    if share < MUCH_WAITING:
        verdict = "the loader keeps up"
    else:
        verdict = "the loader is too slow: raise --workers, or keep the images in memory with --cache ram"
    return (
        f"Epoch {epoch} took {timedelta(seconds=round(progress.seconds))}, mean loss {progress.epoch_mean:.5f}. "
        f"Waited for data: {share:.0%} of the time; {verdict}"
    )
