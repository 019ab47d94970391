"""TensorBoard: event files in the run's folder; see them with tensorboard --logdir FOLDER."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from retinanet.tracking.trackers import TrackedRun

FOLDER = "tensorboard"


class TensorBoard:
    def __init__(self, run: TrackedRun) -> None:
        # What an earlier process wrote of later steps is hidden: they come again.
        self.writer = SummaryWriter(str(run.folder / FOLDER), purge_step=run.step + 1 if run.step else None)
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

    def close(self) -> None:
        self.writer.close()
