"""Trainings from their first epoch to their last: evaluated, saved and logged on the way, stopped by signals."""

import secrets
import signal
from contextlib import closing
from dataclasses import replace
from typing import IO

from retinanet.check_data.summary import data_lines
from retinanet.checkpoints.output_folder import move_earlier_run, open_folder, write_record
from retinanet.checkpoints.resume import LAST, Facts, SavedRun, newest_run
from retinanet.coco.annotations import has_objects, placeholder_note
from retinanet.coco.json_values import is_id
from retinanet.data.learnable import warnings_of
from retinanet.reports.log_table import print_spread
from retinanet.runtime.console import say
from retinanet.runtime.device import default_workers, find_device
from retinanet.runtime.errors import Stopped, UserError
from retinanet.runtime.log_file import LOG
from retinanet.runtime.log_names import ENDING, make_name, name_of_run
from retinanet.runtime.ranks import Agreement, Ranks, join, leave, loss_of_rank_explained, num_restarts
from retinanet.runtime.signals import STOP
from retinanet.runtime.streams import STDOUT
from retinanet.tracking.opening import open_trackers, require_trackers
from retinanet.tracking.trackers import NO_TRACKERS, TrackedRun, Trackers
from retinanet.training.batch_size import settled_batch_size
from retinanet.training.engine import progress_of, rest_of_epoch
from retinanet.training.evaluation import evaluate_and_save, out_of_patience
from retinanet.training.find_lr import find_learning_rate
from retinanet.training.log_lines import (
    best_line,
    epoch_line,
    log_line,
    rate_hint,
    schedule_hint,
    seconds_per_image,
    settings_line,
    tracked_numbers,
)
from retinanet.training.run import Run, build_run
from retinanet.training.saves import FINAL, Saves, log_bad_images, log_skipped, room_warning
from retinanet.training.sets import Sets, add_cache, load_sets
from retinanet.training.settings import RANDOM, TrainSettings
from retinanet.training.verify_resume import verify_resume


def train(settings: TrainSettings) -> int:
    """Do what train.py's command line asks for. Returns the exit code."""
    device = find_device(settings.device)
    workers = default_workers(device) if settings.workers is None else settings.workers
    settings = replace(settings, device=str(device), workers=workers)
    require_trackers(settings.track or ())
    ranks = join(device, settings.timeout)
    with STDOUT.outlived(), loss_of_rank_explained(ranks, settings.timeout):
        for name in ("verify_resume", "find_lr"):
            if getattr(settings, name) and ranks.size > 1:
                raise UserError(f"--{name} is for one process. Run it without torchrun")
        with ranks.first_of_machine_alone():  # it leaves the parsed annotations to the others
            sets = load_sets(settings, ranks)
        if settings.patience and not has_objects(sets.val):
            why = placeholder_note(sets.val)
            raise UserError(
                f"--patience needs an AP, and the set {settings.val_set} has no objects{why}. Drop the flag"
            )
        if settings.verify_resume or settings.find_lr:
            settings = replace(settings, batch_size=settled_batch_size(settings, ranks, sets, None))
        if settings.verify_resume:
            return verify_resume(with_seed(settings, None, ranks), sets)
        if settings.find_lr:
            return find_learning_rate(with_seed(settings, None, ranks), sets)
        numbers: dict[int, dict[str, float]] = {}
        for one in runs_of(settings):
            with LOG.kept(one.log_dir):
                seed, numbers_of_run = train_run(one, ranks, sets)
                numbers[seed] = numbers_of_run
                if settings.seeds and len(numbers) == len(settings.seeds):
                    print_spread(numbers)
        leave()
    return 0


def runs_of(settings: TrainSettings) -> list[TrainSettings]:
    """The settings of each run: with --seeds each seed, and its own folder below --output_path."""
    folder = settings.output_path
    return [replace(settings, seed=seed, output_path=folder / f"seed{seed}") for seed in settings.seeds or ()] or [
        settings
    ]


def with_seed(settings: TrainSettings, saved: SavedRun | None, ranks: Ranks) -> TrainSettings:
    """The settings with their seed; where it is RANDOM, that of the `saved` run, or one that rank 0 draws for all."""
    if settings.seed != RANDOM:
        return settings
    if saved is None:
        seed = ranks.from_first(lambda: secrets.randbelow(2**31))
        say(f"--seed random: drew {seed}")
        return replace(settings, seed=seed)
    seed = saved.checkpoint.settings.get("seed", TrainSettings.seed)
    if not is_id(seed) or seed < 0:
        raise UserError(f"{saved.path}: its run has the seed {seed!r}. Start a new run without --resume.")
    say(f"--seed random: resuming with the saved run's {seed}")
    return replace(settings, seed=seed)


def train_run(settings: TrainSettings, ranks: Ranks, sets: Sets) -> tuple[int, dict[str, float]]:
    """Train from the start, or from where an earlier process was stopped.

    Returns the seed and the last evaluation's numbers.
    """
    # A rank that torchrun brought back resumes, though its command may say nothing of it.
    resumes = settings.resume or num_restarts() > 0
    saved, complaints = ranks.from_first(lambda: newest_run(settings.output_path) if resumes else (None, []))
    settings = replace(settings, batch_size=settled_batch_size(settings, ranks, sets, saved))
    run = build_run(with_seed(settings, saved, ranks), ranks, sets, saved)
    if settings.cache == "ram" and sets.training_set.cache is None:
        add_cache(sets.training_set, ranks)
    lock = begin(run, saved, complaints) if ranks.is_first else None
    with closing(trackers_of(run)) as trackers:
        train_epochs(run, trackers)
    ranks.wait()
    del lock  # until here other runs were kept out of the folder
    return run.settings.run_seed, run.state.numbers | {"final loss": run.state.epoch_losses[-1]}


def begin(run: Run, saved: SavedRun | None, complaints: list[str]) -> IO[str]:
    """Open the log and the output folder and say what is trained. Returns the folder's lock."""
    settings, state, folder = run.settings, run.state, run.settings.output_path
    done = f"{state.epoch} epochs and {state.iteration} iterations"
    plain, class_names = settings.plain(), run.sets.val.class_names
    with STOP.deferred(), LOG.opened(name_of_run("train", plain)):
        lock = open_folder(folder)
        moved = None if saved else move_earlier_run(folder)
        write_record(folder, plain, class_names, run.device, resumed=f"after {done}" if saved else None)
    if LOG.path:
        say(f"Log: {LOG.path}")
    say(settings_line(plain))
    for complaint in complaints:
        say(f"Can't resume from {complaint}")
    if saved:
        say(f"Resumed from {folder} after {done}", *ranks_changed(saved.facts, run.facts))
    elif settings.resume:
        say(f"{folder} holds nothing to resume: a new run")
    if moved:
        say(f"{folder} holds an earlier run: its {moved[1]} files are now in {moved[0]}")
    say(*opening_lines(run))
    if warning := room_warning(run):
        say(warning)
    return lock


def trackers_of(run: Run) -> Trackers:
    """Those of --track, at rank 0 alone."""
    settings, state = run.settings, run.state
    if not settings.track or not run.ranks.is_first:
        return NO_TRACKERS
    step = state.epoch * len(run.sampler) + state.iteration
    plain = settings.plain()
    name = make_name(name_of_run("train", plain)).removesuffix(ENDING)
    return open_trackers(settings.track, TrackedRun(settings.output_path, name, plain, step))


def ranks_changed(old: Facts, new: Facts) -> list[str]:
    """What another number of processes changes, in a line."""
    if old.num_ranks == new.num_ranks:
        return []
    before, now = (facts.num_ranks * facts.batch_size for facts in (old, new))
    images = f"still {now} images a step" if now == before else f"{now} images a step instead of {before}"
    effect = "only rounding differs from the same run by" if now == before else "other numbers than in a run by"
    return [f"Processes: {new.num_ranks}, {old.num_ranks} until now; {images}, so {effect} {old.num_ranks}"]


def opening_lines(run: Run) -> list[str]:
    """The data set, the ranks and the precision of a run, with what is worth knowing about them."""
    settings, training_set = run.settings, run.sets.training_set
    lines = [
        f"Seed: {settings.seed}",
        f"Num training images: {len(training_set)}",
        f"Not trained on: {training_set.num_crowds} crowds, {training_set.num_empty} boxes without area",
        *data_lines(training_set, run.state.network.anchor_shapes, settings),
        *warnings_of(training_set),
    ]
    if run.ranks.size > 1:
        rest = len(training_set) % run.sampler.batch_size
        lines.append(
            f"Processes: {run.ranks.size} with {settings.batch_size * settings.accumulate} images each in a step; the "
            f"{rest} images that fill no step are {'left out' if settings.drop_last else 'shared out'}"
        )
    compiled = f"not compiled ({run.why_not_compiled})" if run.why_not_compiled else "compiled"
    lines.append(f"Precision: {run.facts.precision}, {compiled}")
    if settings.optimizer != "sgd" and settings.clip_norm <= TrainSettings.clip_norm:
        name = "AdamW" if settings.optimizer == "adamw" else "Adam"
        lines.append(
            f"Gradients: clipped at a norm of {settings.clip_norm:g} in nearly every step. That is normal: the size of "
            f"{name}'s steps hardly depends on the gradient's"
        )
    hints = rate_hint(run.sampler.batch_size, settings.optimizer, settings.learning_rate), schedule_hint(settings)
    return [*lines, *filter(None, hints)]


def train_epochs(run: Run, trackers: Trackers) -> None:
    """Train the epochs that are left; evaluate and save on the way."""
    settings, state = run.settings, run.state
    saves = Saves(run)
    with STOP.deferred():
        try:
            while True:
                is_last = state.epoch >= settings.epochs
                if state.epoch > state.evaluated and (is_last or state.epoch % settings.eval_every == 0):
                    evaluate_and_save(run, saves, trackers, is_last)
                if is_last:
                    break
                if out_of_patience(run):
                    if run.ranks.is_first:
                        saves.save_state()
                    break
                train_epoch(run, saves, trackers)
        except Stopped as stop:
            name = signal.Signals(stop.signal_number).name
            if run.ranks.is_first and saves.save_state():
                say(f"Stopped by {name}: {settings.output_path / LAST} is saved, and --resume continues from it")
            raise
    if run.ranks.is_first and (best := saves.best_on_disk()):
        epoch, path = best
        say(best_line(state.ap_by_epoch[epoch], epoch, path, settings))
    say("epoch_loss_list:")
    say(str(state.epoch_losses))
    if run.ranks.is_first:
        saves.save_weights(FINAL, must=True)


def train_epoch(run: Run, saves: Saves, trackers: Trackers) -> None:
    """Train what is left of the epoch, or until a signal stops it."""
    settings, state, num_steps = run.settings, run.state, len(run.sampler)
    agreement = Agreement(run.ranks)
    for rate in rest_of_epoch(run):
        step = state.epoch * num_steps + state.iteration
        is_logged = state.iteration in (1, num_steps) or state.iteration % settings.log_every == 0
        is_saved = settings.save_every and step % settings.save_every == 0
        if is_logged or is_saved:
            run.ranks.meet()  # what is read from a GPU now would never come if a rank is missing
        if is_logged:
            log_skipped(run, run.ranks)
            log_bad_images(run)
            images_left = (settings.epochs * num_steps - step) * run.sampler.batch_size
            progress = progress_of(state, rate)
            say(log_line(state.epoch, progress, images_left * seconds_per_image(state), run.device))
            trackers.log(step, tracked_numbers(progress, run.device))
        elif run.device.type == "cpu":
            log_skipped(run, run.ranks)  # a GPU would have to be waited for
        if is_saved:
            log_skipped(run, run.ranks)
            saves.save_state()
            run.ranks.wait()  # for rank 0, which a slow disk may take longer than --timeout
        if stop := agreement.outcome():
            run.ranks.meet()  # saving reads from the GPU too
            raise Stopped(stop)
        agreement.put_forward(STOP.signal_number or 0)
    agreement.outcome()
    progress = progress_of(state, 0)
    say(epoch_line(state.epoch, progress))
    state.finish_epoch(progress.epoch_mean)
    saves.save_state_if_long_ago()
    run.ranks.wait()
