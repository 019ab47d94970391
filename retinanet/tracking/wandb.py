"""Weights & Biases: a run in the project WANDB_PROJECT; WANDB_MODE=offline keeps it in the run's folder."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

import wandb

from retinanet.settings.train import WANDB
from retinanet.tracking.run_ids import known_id, remember_id
from retinanet.tracking.trackers import TrackedRun


class WeightsAndBiases:
    def __init__(self, run: TrackedRun) -> None:
        run_id = (known_id(run.folder, WANDB) if run.step else None) or secrets.token_hex(4)
        remember_id(run.folder, WANDB, run_id)  # even if W&B makes the run, but takes too long to say so
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "retinanet"),
            name=run.name,
            id=run_id,
            resume="allow",  # it drops steps that it has already
            config=run.settings,
            dir=str(run.folder),
            settings=wandb.Settings(console="off"),  # stdout is the log
        )

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self.run.log(dict(numbers), step=step)

    def picture(self, name: str, path: Path) -> None:
        self.run.log({name: wandb.Image(str(path))})

    def close(self) -> None:
        self.run.finish()
