"""Writes a run's checkpoints and its record of skipped steps to the output folder."""

import re
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from retinanet.checkpoints.checkpoint import Checkpoint, save_checkpoint, saved_epoch
from retinanet.checkpoints.output_folder import write_end, write_evaluations, write_skipped
from retinanet.checkpoints.resume import LAST, PREVIOUS, save_run
from retinanet.checkpoints.torch_files import num_bytes
from retinanet.runtime.console import say
from retinanet.runtime.errors import Diverged, Stopped, UserError
from retinanet.runtime.files import free_space, size_on_disk, size_text
from retinanet.runtime.printable import counted, printable
from retinanet.runtime.ranks import ALONE, Ranks
from retinanet.runtime.signals import STOP
from retinanet.runtime.streams import complain
from retinanet.settings.options import flat
from retinanet.settings.shared import BEST, FINAL
from retinanet.training.build import Run

SECONDS_BETWEEN_SAVES = 60


class Saves:
    """Writes a run's checkpoints, on rank 0. If writing fails, stderr gets a message and training continues."""

    def __init__(self, run: Run) -> None:
        self.run, self.last = run, time.monotonic()
        self.written: set[str] = set()  # names of weights files

    def save_state(self) -> bool:
        """Writes last.pt; returns True if that worked."""
        run = self.run
        if not run.ranks.is_first:
            return False
        log_skipped(run, ALONE)  # steps skipped since the last log line; on a stop, the other ranks can't be asked
        worked = self._try(
            lambda: save_run(snapshot(run), run.state.to_plain(), run.facts, run.settings.output.output_path)
        )
        self.last = time.monotonic()
        return worked

    def save_state_if_long_ago(self) -> None:
        if time.monotonic() - self.last >= SECONDS_BETWEEN_SAVES:
            self.save_state()

    def save_weights(self, name: str, *, must: bool = False) -> bool:
        """Writes only the weights, to the file `name`; returns True if they are saved.

        With `must`, does nothing if they have already been saved there, and raises UserError if writing fails.
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
        """Returns the epoch with the highest AP among the epochs with weights on disk, and the path of its weights.

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

    def remove_old_weights(self) -> None:
        """Removes the weights of all evaluated epochs, except the --keep newest and the best on disk."""
        output = self.run.settings.output
        if output.keep is None or not self.run.ranks.is_first:
            return
        old = _evaluated_on_disk(self.run)[: -output.keep]
        best = self.best_on_disk() if old else None
        paths = [output.output_path / weights_name(epoch) for epoch in old]
        removed = [path for path in paths if (best is None or path != best[1]) and _removed(path)]
        if removed:
            say(f"Removed, as --keep is {output.keep}: {', '.join(map(str, removed))}")

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
    """On rank 0, records in run.json how the run ended."""
    if run.ranks.is_first:
        with STOP.deferred():
            _tried(lambda: write_end(run.settings.output.output_path, how), f"It lacks the run's end: {how}.")


def end_by(error: BaseException) -> str:
    """Returns how `error` ended the run, in words for run.json."""
    if isinstance(error, Stopped):
        return f"stopped by {signal.Signals(error.signal_number).name}"
    kind = "diverged" if isinstance(error, Diverged) else "failed"
    return f"{kind}: {str(error) or type(error).__name__}"


def _removed(path: Path) -> bool:
    """Removes the file; returns True if that worked. If it fails, stderr gets a message and training continues."""
    try:
        path.unlink()
    except OSError as error:
        complain(f"train.py: {printable(str(path))}: can't be removed ({error.strerror}); training continues.")
        return False
    return True


def weights_name(epoch: int | str) -> str:
    return f"retinanet_epoch{epoch}.pt"


def _evaluated_on_disk(run: Run) -> list[int]:
    """Returns the epochs whose weights are in the folder, up to the run's current epoch, in ascending order."""
    names = (path.name for path in run.settings.output.output_path.glob(weights_name("*")))
    epochs = (int(match[1]) for name in names if (match := re.fullmatch(weights_name("([0-9]{1,18})"), name)))
    return sorted(epoch for epoch in epochs if epoch <= run.state.epoch)


def disk_line(run: Run) -> str:
    """Returns a line about the space that the run's files will take, or a warning if too little is free."""
    state, output = run.state, run.settings.output
    folder, epochs = output.output_path, run.settings.optimisation.epochs
    moments = 1 if run.settings.optimisation.optimizer == "sgd" else 2  # tensors that the optimiser keeps per parameter
    learned = num_bytes([group["params"] for group in state.optimizer.param_groups])
    weights = num_bytes(snapshot(run))
    whole = weights + moments * learned
    rest = range(state.evaluated + 1, epochs + 1)
    on_disk = _evaluated_on_disk(run)
    evaluated = sorted({*on_disk, *(epoch for epoch in rest if epoch % output.eval_every == 0 or epoch == epochs)})
    kept = evaluated[-output.keep :] if output.keep else evaluated
    files = dict.fromkeys((BEST, FINAL, *map(weights_name, kept)), weights) | {LAST: whole, PREVIOUS: whole}
    total = sum(files.values())
    paths = [folder / name for name in {*files, *map(weights_name, on_disk)}]
    existing = sum(size_on_disk(path) for path in paths if path.exists())
    needed = total + whole - existing  # a file is complete before it replaces the previous one
    parts = (
        f"{len(kept) + 2} files of weights, {size_text(weights)} each, and the state of the run twice, "
        f"{size_text(whole)} each"
    )
    free = free_space(folder)
    if needed <= free:
        return f"Disk: the run's files in {folder} will take {size_text(total)}: {parts}"
    keep = "lower --keep" if output.keep else "set --keep"
    return (
        f"Warning: {folder}: {size_text(free)} are free, but the run will write {size_text(needed)}. Its files will "
        f"take {size_text(total)}: {parts}, and once more while it is saved. Make room, {keep}, raise "
        "--eval_every, or choose another --output_path"
    )


def log_bad_images(run: Run) -> None:
    for messages in run.ranks.gathered(run.bad_images.take_new_messages()):
        for message in messages:
            say(f"Bad image, left out: {message}")
            run.bad_images.count(message)  # the limit is on the images of all ranks


def log_skipped(run: Run, ranks: Ranks) -> None:
    """Logs the steps skipped since the last call, with each rank's images in these steps.

    Raises Diverged if too many steps in a row were skipped.
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
        names = ", ".join(f"{image['file_name']} ({counted(len(image['boxes']), 'box')})" for image in images)
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
            f"training diverged: in {counted(skipped.max_in_row, 'step')} in a row the loss or gradient was not "
            f"finite. The weights were left as they are; {saved}. Lower --learning_rate, or warm up for longer "
            f"(--warmup_steps); {folder / 'divergence'} names the images of these steps."
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
