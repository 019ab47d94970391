"""What a training leaves in its output folder on the way, and what it tells of."""

import sys
import time
from collections.abc import Callable

import numpy as np

from retinanet.checkpoints.checkpoint import Checkpoint, save_checkpoint
from retinanet.checkpoints.output_folder import write_skipped
from retinanet.checkpoints.resume import LAST, save_run
from retinanet.cli.flags import plain_settings
from retinanet.runtime.console import say
from retinanet.runtime.errors import Diverged, UserError
from retinanet.runtime.printable import printable
from retinanet.runtime.ranks import ALONE, Ranks
from retinanet.training.run import Job

SECONDS_BETWEEN_SAVES = 60
FINAL = "model_final.pt"


class Saves:
    """The checkpoints of a run, which rank 0 writes. One that can't be written is told of, and training goes on."""

    def __init__(self, job: Job) -> None:
        self.job, self.last = job, time.monotonic()
        self.kept: set[str] = set()  # files of weights that were written

    def save(self) -> bool:
        """Write last.pt; whether that worked."""
        job = self.job
        if not job.ranks.is_first:
            return False
        tell_skipped(job, ALONE)  # of a stop between two log lines; the other ranks are not asked then
        worked = self._try(lambda: save_run(snapshot(job), job.state.to_plain(), job.facts, job.args.output_path))
        self.last = time.monotonic()
        return worked

    def save_if_long_ago(self) -> None:
        if time.monotonic() - self.last >= SECONDS_BETWEEN_SAVES:
            self.save()

    def keep(self, name: str) -> bool:
        """Write the weights alone; whether that worked."""
        self.kept.discard(name)
        return self._try(lambda: self.require(name))

    def require(self, name: str) -> None:
        """Write the weights alone unless they are written. UserError where that fails."""
        if name not in self.kept:
            save_checkpoint(snapshot(self.job), self.job.args.output_path / name)
            self.kept.add(name)

    def _try(self, write: Callable[[], None]) -> bool:
        try:
            write()
        except UserError as fault:
            message = printable(str(fault))
            print(f"train.py: {message} What was there before is as it was; training goes on.", file=sys.stderr)
            return False
        return True


def tell_bad_images(job: Job) -> None:
    for messages in job.ranks.gathered(job.bad_images.take_news()):
        for message in messages:
            say(f"Bad image, left out: {message}")


def tell_skipped(job: Job, ranks: Ranks) -> None:
    """Name the steps skipped since the last time, with the images of `ranks`. Diverged if too many were in a row."""
    skipped, annotations = job.state.skipped, job.data.train
    told = skipped.look()
    by_rank = ranks.gathered(told) if told else []  # all ranks skip the same steps
    for step, of_ranks in zip(told, zip(*by_rank, strict=True), strict=False):
        images = [image for one in of_ranks for image in one["images"]]
        for image in images:
            index = int(np.flatnonzero(annotations.image_ids == image["image_id"])[0])
            image["file_name"] = annotations.file_names[index]
            image["classes"] = [annotations.class_names[label] for label in image.pop("labels")]
        names = ", ".join(f"{image['file_name']} ({len(image['boxes'])} boxes)" for image in images)
        try:
            where = str(write_skipped(job.args.output_path, {**step, "images": images}))
        except OSError as fault:
            where = f"nowhere ({fault.strerror})"
        say(
            f"Skipped: epoch {step['epoch']}, iteration {step['iteration']}: not finite: classification loss "
            f"{step['classification_loss']}, regression loss {step['regression_loss']}, gradient norm "
            f"{step['gradient_norm']}; learning rate {step['learning_rate']:g}, images {names}. Written to {where}. "
            f"Skipped so far: {skipped.total}"
        )
    if skipped.too_many:
        folder = job.args.output_path
        saved = f"{folder / LAST} is from before" if (folder / LAST).exists() else "nothing was saved before"
        raise Diverged(
            f"training diverged: in {skipped.max_in_row} steps in a row the loss or gradient was not finite. The "
            f"weights were left as they are; {saved}. Lower --learning_rate, or warm up with a lower one for the first "
            f"epochs; {folder / 'divergence'} names the images of these steps."
        )


def snapshot(job: Job) -> Checkpoint:
    args, state, val = job.args, job.state, job.data.val
    return Checkpoint(
        model=state.network.state_dict(),
        depth=args.depth,
        channels=args.channels,
        class_names=val.class_names,
        category_ids=val.category_ids,
        min_side=args.min_side,
        max_side=args.max_side,
        batch_size=args.batch_size,
        epoch=state.epoch,
        settings=plain_settings(args),
        head_norm=args.head_norm,
        level_code=state.network.level_code,
        ema=state.average.weights if state.average else None,
        anchors=state.network.anchor_shapes,
    )
