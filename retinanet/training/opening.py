"""Starts a run: chooses its seed, opens its folder and trackers, and logs its first lines."""

import secrets
import shlex
from dataclasses import replace
from typing import IO, Any

import numpy as np

from retinanet.checkpoints.output_folder import move_earlier_run, open_folder, write_record
from retinanet.checkpoints.resume import Facts, SavedRun
from retinanet.coco.json_values import is_id
from retinanet.data.anchor_coverage import AnchorSetup, Coverage, coverage, ious_of, setup_of, shares
from retinanet.data.anchor_remedies import MISSED, missed_classes, mostly_missed, remedies, remedy_lines
from retinanet.data.dataset import CocoDataset
from retinanet.data.learnable import SCARCE, warnings_of
from retinanet.data.tiles import TiledEpochs
from retinanet.data.white_level import used_range
from retinanet.detector.model import RetinaNet
from retinanet.detector.settings import AnchorShapes
from retinanet.runtime.console import say
from retinanet.runtime.device import bfloat16_speed
from retinanet.runtime.errors import UserError
from retinanet.runtime.files import size_on_disk, size_text
from retinanet.runtime.log_file import ENDING, LOG, make_name, name_of_run
from retinanet.runtime.printable import counted
from retinanet.runtime.ranks import Ranks
from retinanet.runtime.signals import STOP
from retinanet.settings.options import flat, options_of, with_values
from retinanet.settings.train import RANDOM, Optimisation, TrainSettings, anchor_words, settings_line
from retinanet.training.build import Run
from retinanet.training.log_lines import rate_hint, schedule_hint
from retinanet.training.saves import disk_line
from retinanet.training.trackers import NO_TRACKERS, TrackedRun, Trackers, open_trackers

MOST_DRAWN = 10_000  # objects to match: even of millions, a sample of this size gives the fractions to within 1%
MUCH_MISSED = 0.25  # a larger fraction of objects without an anchor is worth a warning, not just a note
MOST_SCARCE_NAMED = 10  # scarce classes to name


def with_seed(settings: TrainSettings, saved: SavedRun | None, ranks: Ranks) -> TrainSettings:
    """Returns the settings with a numeric seed: RANDOM becomes the `saved` run's seed, or a seed that rank 0 draws."""
    if settings.optimisation.seed != RANDOM:
        return settings
    if saved is None:
        seed = ranks.from_first(lambda: secrets.randbelow(2**31))
        say(f"--seed random: drew {seed}")
        return with_values(settings, {"seed": seed})
    seed = saved.checkpoint.settings.get("seed", Optimisation.seed)
    if not is_id(seed) or seed < 0:
        raise UserError(f"{saved.path}: its run has the seed {seed!r}. Start a new run without --resume.")
    say(f"--seed random: resuming with the saved run's {seed}")
    return with_values(settings, {"seed": seed})


def about_run(run: Run, devices: list[str]) -> dict[str, Any]:
    """Returns the part of run.json that describes the run itself; `devices` are the names of the ranks' devices."""
    return {
        "settings": flat(run.settings),
        "class_names": run.sets.val.class_names,
        "device": devices[0],
        "devices": devices,
        "data": {
            name: {"file": str(annotations.path), "sha256": annotations.fingerprint}
            for name, annotations in (("train", run.sets.train), ("val", run.sets.val))
        },
    }


def begin(run: Run, saved: SavedRun | None, complaints: list[str], devices: list[str], lock: IO[str] | None) -> IO[str]:
    """Opens the log and the output folder, and logs the first lines of the run. Returns the folder's lock.

    `devices` are the names of the ranks' devices. If the folder is already open, `lock` is its lock.
    """
    settings, state, folder = run.settings, run.state, run.settings.output.output_path
    done = f"{state.epoch} epochs and {state.iteration} iterations"
    plain = flat(settings)
    with STOP.deferred(), LOG.opened(name_of_run("train", plain)):
        lock = lock or open_folder(folder)
        moved = None if saved else move_earlier_run(folder)
        write_record(folder, about_run(run, devices), resumed=f"after {done}" if saved else None)
    if LOG.path:
        say(f"Log: {LOG.path}")
    say(settings_line(plain), on_terminal=())
    say(*repeated_lines(settings))
    for complaint in complaints:
        say(f"Can't resume from {complaint}")
    if saved:
        say(f"Resumed from {folder} after {done}", *ranks_changed(saved.facts, run.facts, run.state.network))
    elif settings.output.resume:
        say(f"{folder} holds nothing to resume, so a new run starts")
    if moved:
        before, num_files = moved
        size = size_text(size_on_disk(before))
        say(f"{folder} holds an earlier run: {counted(num_files, 'file')} moved to {before} ({size})")
    say(*opening_lines(run))
    say(disk_line(run))
    return lock


def repeated_lines(settings: TrainSettings) -> list[str]:
    """Returns a line about --from_run's record and the flags that override it; no line without --from_run."""
    if not settings.from_run:
        return []
    given = [f"--{name}" for name in options_of(TrainSettings) if name in settings.given - {"from_run"}]
    return [f"Settings from {settings.from_run}" + (f", except for {' '.join(given)}" if given else "")]


def trackers_of(run: Run) -> Trackers:
    """Returns the trackers of --track on rank 0; the other ranks have none."""
    settings, state = run.settings, run.state
    if not settings.output.track or not run.ranks.is_first:
        return NO_TRACKERS
    step = run.sampler.first_steps(state.epoch)[-1] + state.iteration
    plain = flat(settings)
    name = make_name(name_of_run("train", plain)).removesuffix(ENDING)
    return open_trackers(settings.output.track, TrackedRun(settings.output.output_path, name, plain, step))


def ranks_changed(old: Facts, new: Facts, network: RetinaNet) -> list[str]:
    """Returns a line about the effect of a changed number of processes, or [] if the number hasn't changed."""
    if old.num_ranks == new.num_ranks:
        return []
    before, now = (facts.num_ranks * facts.batch_size for facts in (old, new))
    images = f"{counted(now, 'image')} per step"
    images = f"still {images}" if now == before else f"{images} instead of {before}"
    is_same = now == before and not network.backbone.learn_statistics  # each rank learns them from its own images
    effect = "only rounding differs from the same run by" if is_same else "other numbers than in a run by"
    return [f"Processes: {new.num_ranks}, {old.num_ranks} until now; {images}, so {effect} {old.num_ranks}"]


def opening_lines(run: Run) -> list[str]:
    """Returns lines about the dataset, the ranks and the precision of a run, with warnings and hints."""
    settings, optimisation, training_set = run.settings, run.settings.optimisation, run.sets.training_set
    lines = [
        f"Seed: {optimisation.seed}",
        f"Num training images: {len(training_set)}",
        f"Not trained on: {counted(training_set.num_crowds, 'crowd')}, {counted(training_set.num_empty, 'box')} "
        "without area",
        *tile_lines(training_set, settings),
        *data_lines(training_set, run.state.network.architecture.anchors, settings),
        *warnings_of(training_set, run.sets.val),
        *training_set.frame_notes(),
        *run.sets.val_set.frame_notes(),
        *range_lines(training_set),
    ]
    if run.ranks.size > 1:
        rest = run.sampler.shown_in(0).num_drawn % run.sampler.batch_size
        each = settings.data.batch_size * optimisation.accumulate
        lines.append(
            f"Processes: {run.ranks.size} with {counted(each, 'image')} each per step; the remainder of "
            f"{counted(rest, 'image')} is {'left out' if settings.data.drop_last else 'shared out'}"
        )
    compiled = f"not compiled ({run.why_not_compiled})" if run.why_not_compiled else "compiled"
    lines.append(f"Precision: {run.facts.precision}, {compiled}{bfloat16_note(run)}")
    if optimisation.optimizer != "sgd" and optimisation.clip_norm <= Optimisation.clip_norm:
        name = "AdamW" if optimisation.optimizer == "adamw" else "Adam"
        lines.append(
            f"Gradients: clipped at a norm of {optimisation.clip_norm:g} in nearly every step. That is normal: the "
            f"size of {name}'s steps hardly depends on the gradient's"
        )
    hints = (
        rate_hint(run.sampler.batch_size, optimisation.optimizer, optimisation.learning_rate),
        schedule_hint(settings),
    )
    return [*lines, *filter(None, hints)]


def bfloat16_note(run: Run) -> str:
    """Returns a note on what bfloat16 would change on this CPU, to append to the line about the precision."""
    if run.device.type != "cpu" or run.facts.precision != "float32":
        return ""
    times = bfloat16_speed()
    effect = "would train faster, too" if times > 1 else "would train more slowly"
    return f". In bfloat16, this CPU multiplies matrices {times:.1f} times as fast, so --precision bfloat16 {effect}"


def tile_lines(dataset: CocoDataset, settings: TrainSettings) -> list[str]:
    """Returns a line about the images and tiles of an epoch; no line without --tile."""
    tiling = settings.data.tiling
    if not tiling.tiles:
        return []
    seed, repeats = settings.optimisation.run_seed, settings.data.repeat_threshold
    return [TiledEpochs(dataset, tiling.tiles, tiling.min_visible, seed, repeats).line()]


def data_lines(dataset: CocoDataset, shapes: AnchorShapes, settings: TrainSettings) -> list[str]:
    """Returns lines about the objects to learn in `dataset`, and about how many of them get an anchor of `shapes`."""
    annotations, rows = dataset.annotations, np.flatnonzero(dataset.is_learned)
    num_clipped = int((dataset.overhangs()[rows] >= 1).sum())
    counts = np.bincount(annotations.labels[rows], minlength=len(annotations.class_names)).tolist()
    scarce = [f"{name} {count}" for count, name in sorted(zip(counts, annotations.class_names, strict=True))]
    scarce = scarce[: sum(count < SCARCE for count in counts)]
    more = [f"and {len(scarce) - MOST_SCARCE_NAMED} more"] if len(scarce) > MOST_SCARCE_NAMED else []
    setup = setup_of(dataset, shapes, settings.data.tiling)
    by_iou = coverage(dataset, setup, replace(settings.loss, matcher="iou"), MOST_DRAWN)
    foreground, background = settings.loss.foreground_iou, settings.loss.background_iou
    ious = ious_of(setup, by_iou.objects.corners, annotations.sizes[by_iou.objects.images])
    reached = [f"{share:.1%}" for share in shares(by_iou.matched, ious, background)]
    drawn = "" if by_iou.are_all else " drawn"
    return [
        f"Objects to learn: {len(rows)} of {counted(len(counts), 'class')}; {num_clipped} clipped at the image border",
        f"Classes of fewer than {SCARCE} objects: {', '.join([*scarce[:MOST_SCARCE_NAMED], *more]) or 'none'}",
        f"Best anchor of {counted(len(ious), 'object')}{drawn}: matched (IoU {foreground:g} or more) for {reached[0]}, "
        f"IoU {background:g} or more for {reached[1]}, below for {reached[2]} (more: {check_command(settings)})",
        *(_missed_lines(dataset, setup, settings, by_iou) if len(rows) else []),
    ]


def _missed_lines(dataset: CocoDataset, setup: AnchorSetup, settings: TrainSettings, by_iou: Coverage) -> list[str]:
    """Returns lines about the objects without an anchor, and about remedies; no lines if there are few such objects."""
    now, forced = by_iou, ""
    what = f"have no anchor with an IoU of {settings.loss.foreground_iou:g} or more at this size"
    if settings.loss.matcher != "iou":
        by_matcher = coverage(dataset, setup, settings.loss, MOST_DRAWN)
        if settings.loss.matcher == "low_quality":
            forced = f". --matcher low_quality leaves {by_matcher.missed:.1%} without any; a forced anchor rarely helps"
        else:
            now, what = by_matcher, f"get no anchor from --matcher {settings.loss.matcher} at this size"
    mostly = mostly_missed(now)
    if now.missed <= MISSED and not mostly:
        return []
    missed = f"{now.missed:.1%} of the objects {what} ({missed_classes(now, dataset.annotations.class_names)})"
    options = remedies(dataset, setup, settings.loss, now, fixed_anchors=settings.network.weights == "coco")
    lines = remedy_lines(options)
    if now.missed <= MUCH_MISSED and not mostly:  # this is common, and good results are still possible
        return [f"Note: {missed}{forced}" + (f". {lines[0].strip()}" if lines else "")]
    advice = ["What helps, the most useful first:", *lines] if lines else []
    return [f"Warning: {missed}, so they are hardly learned{forced}", *advice]


def range_lines(dataset: CocoDataset) -> list[str]:
    """Returns a line about the range of values in the set's 16-bit pictures; no line if it has no such pictures."""
    if not (used := used_range(dataset)):
        return []
    return [f"{'Warning: ' * used.is_far}{used.text()}"]


def check_command(settings: TrainSettings) -> str:
    """Returns the check_data command for the run's sets, read as the run reads them, and its image size and anchors."""
    words = ["python", "-m", "retinanet.check_data", "--coco_path", str(settings.data.coco_path)]
    words += ["--sets", *dict.fromkeys((settings.data.train_set, settings.data.val_set))]
    words += ["--min_side", str(settings.data.min_side), "--max_side", str(settings.data.max_side)]
    if tiles := settings.data.tiling.tiles:
        words += tiles.words
    ours, defaults = flat(settings), flat(TrainSettings())
    for name in ("exif", "white_level", "max_pixels"):
        words += [f"--{name}", str(ours[name])] if ours[name] != defaults[name] else []
    return shlex.join([*words, *anchor_words(settings.network.anchors.shapes)])
