"""Writes a run's checkpoints and its record of skipped steps to the output folder."""

import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from retinanet.checkpoints.checkpoint import Checkpoint, save_checkpoint, saved_epoch
from retinanet.checkpoints.output_folder import BEST, write_end, write_evaluations, write_skipped
from retinanet.checkpoints.resume import LAST, PREVIOUS, save_run
from retinanet.checkpoints.torch_files import num_bytes
from retinanet.runtime.console import say
from retinanet.runtime.errors import Diverged, Stopped, UserError
from retinanet.runtime.files import free_space, size_text
from retinanet.runtime.printable import printable
from retinanet.runtime.ranks import ALONE, Ranks
from retinanet.runtime.signals import STOP
from retinanet.runtime.streams import complain
from retinanet.settings.options import flat
from retinanet.training.build import Run

SECONDS_BETWEEN_SAVES = 60
FINAL = "model_final.pt"


class Saves:
    """The checkpoints of a run, written by rank 0. If writing fails, a message says so and training continues."""

    def __init__(self, run: Run) -> None:
        self.run, self.last = run, time.monotonic()
        self.written: set[str] = set()  # names of weights files

    def save_state(self) -> bool:
        """Writes last.pt; returns whether that worked."""
        run = self.run
        if not run.ranks.is_first:
            return False
        log_skipped(run, ALONE)  # skipped steps since the last log line; on a stop the other ranks aren't asked
        worked = self._try(
            lambda: save_run(snapshot(run), run.state.to_plain(), run.facts, run.settings.output.output_path)
        )
        self.last = time.monotonic()
        return worked

    def save_state_if_long_ago(self) -> None:
        if time.monotonic() - self.last >= SECONDS_BETWEEN_SAVES:
            self.save_state()

    def save_weights(self, name: str, *, must: bool = False) -> bool:
        """Writes only the weights; returns whether they are saved.

        With `must`, writes them only if that has not worked yet, and raises UserError if it fails again.
        """
        if must and name in self.written:
            return True
        self.written.discard(name)
        write = partial(save_checkpoint, snapshot(self.run), self.run.settings.output.output_path / name)
        if must:
            write()
        elif not self._try(write):
            return False
        self.written.add(name)
        return True

    def best_on_disk(self) -> tuple[int, Path] | None:
        """Returns the epoch with the highest AP among those whose weights are in a file, and the file.

        If the disk was full, best.pt may be from an earlier epoch.
        """
        folder, aps = self.run.settings.output.output_path, self.run.state.ap_by_epoch
        epoch_of_best = saved_epoch(folder / BEST)
        for epoch in sorted(aps, key=lambda epoch: (-aps[epoch], epoch)):
            if epoch == epoch_of_best:
                return epoch, folder / BEST
            if (path := folder / weights_name(epoch)).exists():
                return epoch, path
        return None

    def record_evaluations(self) -> None:
        run = self.run
        self._try(lambda: write_evaluations(run.settings.output.output_path, run.state.ap_by_epoch))

    def _try(self, write: Callable[[], None]) -> bool:
        return _tried(write, "The previous file is untouched; training continues.")


def _tried(write: Callable[[], None], otherwise: str) -> bool:
    try:
        write()
    except UserError as error:
        complain(f"train.py: {printable(str(error))} {otherwise}")
        return False
    return True


def record_end(run: Run, how: str) -> None:
    """Adds the run's end to run.json, on rank 0."""
    if run.ranks.is_first:
        with STOP.deferred():
            _tried(lambda: write_end(run.settings.output.output_path, how), f"It lacks the run's end: {how}.")


def end_by(error: BaseException) -> str:
    """Returns the words of run.json for a run that `error` ended."""
    if isinstance(error, Stopped):
        return f"stopped by {signal.Signals(error.signal_number).name}"
    kind = "diverged" if isinstance(error, Diverged) else "failed"
    return f"{kind}: {str(error) or type(error).__name__}"


def weights_name(epoch: int) -> str:
    return f"retinanet_epoch{epoch}.pt"


def room_warning(run: Run) -> str | None:
    """Returns a warning if the disk has less room than the files need that the run has yet to write."""
    state, folder = run.state, run.settings.output.output_path
    epochs, eval_every = run.settings.optimisation.epochs, run.settings.output.eval_every
    moments = 1 if run.settings.optimisation.optimizer == "sgd" else 2  # tensors that the optimiser keeps per parameter
    learned = num_bytes([group["params"] for group in state.optimizer.param_groups])
    weights = num_bytes(snapshot(run))
    whole = weights + moments * learned
    rest = range(state.evaluated + 1, epochs + 1)
    evaluations = [epoch for epoch in rest if epoch % eval_every == 0 or epoch == epochs]
    files = dict.fromkeys((BEST, FINAL, *map(weights_name, evaluations)), weights) | {LAST: whole, PREVIOUS: whole}
    existing = sum((folder / name).stat().st_size for name in files if (folder / name).exists())
    needed = sum(files.values()) + whole - existing  # a file is complete before it replaces the previous one
    free = free_space(folder)
    if needed <= free:
        return None
    return (
        f"Warning: {folder}: {size_text(free)} are free, but the run will write {size_text(needed)}: the weights of "
        f"{len(evaluations)} evaluations and of two more files, {size_text(weights)} each, and its state three times, "
        f"{size_text(whole)} each. Make room, raise --eval_every, or choose another --output_path"
    )


def log_bad_images(run: Run) -> None:
    for messages in run.ranks.gathered(run.bad_images.take_new_messages()):
        for message in messages:
            say(f"Bad image, left out: {message}")


def log_skipped(run: Run, ranks: Ranks) -> None:
    """Logs the steps skipped since the last call, with the images of `ranks`.

    Raises Diverged if too many were in a row.
    """
    skipped, annotations = run.state.skipped, run.sets.train
    new = skipped.take_new()
    by_rank = ranks.gathered(new) if new else []  # all ranks skip the same steps
    for step, of_ranks in zip(new, zip(*by_rank, strict=True), strict=False):
        images = [
            {
                "image_id": int(annotations.image_ids[image["row"]]),
                "boxes": image["boxes"],
                "file_name": annotations.file_name(image["row"]),
                "classes": [annotations.class_names[label] for label in image["labels"]],
            }
            for of_rank in of_ranks
            for image in of_rank["images"]
        ]
        names = ", ".join(f"{image['file_name']} ({len(image['boxes'])} boxes)" for image in images)
        try:
            where = str(write_skipped(run.settings.output.output_path, {**step, "images": images}))
        except OSError as error:
            where = f"nowhere ({error.strerror})"
        say(
            f"Skipped: epoch {step['epoch']}, iteration {step['iteration']}: not finite: classification loss "
            f"{step['classification_loss']}, regression loss {step['regression_loss']}, gradient norm "
            f"{step['gradient_norm']}; learning rate {step['learning_rate']:g}, images {names}. Written to {where}. "
            f"Skipped so far: {skipped.total}"
        )
    if skipped.too_many:
        folder = run.settings.output.output_path
        saved = f"{folder / LAST} is older" if (folder / LAST).exists() else "nothing was saved yet"
        raise Diverged(
            f"training diverged: in {skipped.max_in_row} steps in a row the loss or gradient was not finite. The "
            f"weights were left as they are; {saved}. Lower --learning_rate, or warm up for longer (--warmup_steps); "
            f"{folder / 'divergence'} names the images of these steps."
        )


def snapshot(run: Run) -> Checkpoint:
    settings, state, val = run.settings, run.state, run.sets.val
    return Checkpoint(
        model=state.network.state_dict(),
        architecture=state.network.architecture,
        class_names=val.class_names,
        category_ids=val.category_ids,
        min_side=settings.data.min_side,
        max_side=settings.data.max_side,
        batch_size=settings.data.batch_size,
        epoch=state.epoch,
        settings=flat(settings),
        ema=state.average.weights if state.average else None,
        score_threshold=state.score_threshold,
    )
