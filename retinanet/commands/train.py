"""Trainings from their first epoch to their last: evaluated, saved and logged on the way, stopped by signals."""

import secrets
import signal
from contextlib import closing
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
from retinanet.settings.options import flat, with_values
from retinanet.settings.train import RANDOM, Optimisation, TrainSettings, settings_line
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
    tracked_numbers,
)
from retinanet.training.run import Run, build_run
from retinanet.training.saves import FINAL, Saves, log_bad_images, log_skipped, room_warning
from retinanet.training.sets import Sets, add_cache, load_sets
from retinanet.training.trackers import NO_TRACKERS, TrackedRun, Trackers, open_trackers, require_trackers
from retinanet.training.verify_resume import verify_resume


def train(settings: TrainSettings) -> int:
    """Do what train.py's command line asks for. Returns the exit code."""
    device = find_device(settings.machine.device)
    workers = default_workers(device) if settings.machine.workers is None else settings.machine.workers
    settings = with_values(settings, {"device": str(device), "workers": workers})
    require_trackers(settings.output.track or ())
    ranks = join(device, settings.safety.timeout)
    with STDOUT.outlived(), loss_of_rank_explained(ranks, settings.safety.timeout):
        for flag in settings.instead_of_training:
            if ranks.size > 1:
                raise UserError(f"{flag} is for one process. Run it without torchrun")
        with ranks.first_of_machine_alone():  # it leaves the parsed annotations to the others
            sets = load_sets(settings, ranks)
        if settings.output.patience and not has_objects(sets.val):
            why = placeholder_note(sets.val)
            raise UserError(
                f"--patience needs an AP, and the set {settings.data.val_set} has no objects{why}. Drop the flag"
            )
        if settings.instead_of_training:
            settings = with_values(settings, {"batch_size": settled_batch_size(settings, ranks, sets, None)})
        if settings.safety.verify_resume:
            return verify_resume(with_seed(settings, None, ranks), sets)
        if settings.optimisation.find_lr:
            return find_learning_rate(with_seed(settings, None, ranks), sets)
        numbers: dict[int, dict[str, float]] = {}
        for of_run in runs_of(settings):
            with LOG.kept(of_run.output.log_dir):
                seed, numbers_of_run = train_run(of_run, ranks, sets)
                numbers[seed] = numbers_of_run
                if settings.optimisation.seeds and len(numbers) == len(settings.optimisation.seeds):
                    print_spread(numbers)
        leave()
    return 0


def runs_of(settings: TrainSettings) -> list[TrainSettings]:
    """The settings of each run: with --seeds each seed, and its own folder below --output_path."""
    folder, seeds = settings.output.output_path, settings.optimisation.seeds
    if not seeds:
        return [settings]
    return [with_values(settings, {"seed": seed, "output_path": folder / f"seed{seed}"}) for seed in seeds]


def with_seed(settings: TrainSettings, saved: SavedRun | None, ranks: Ranks) -> TrainSettings:
    """The settings with their seed; where it is RANDOM, that of the `saved` run, or one that rank 0 draws for all."""
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


def train_run(settings: TrainSettings, ranks: Ranks, sets: Sets) -> tuple[int, dict[str, float]]:
    """Train from the start, or from where an earlier process was stopped.

    Returns the seed and the last evaluation's numbers.
    """
    # A rank that torchrun brought back resumes, though its command may say nothing of it.
    resumes = settings.output.resume or num_restarts() > 0
    saved, complaints = ranks.from_first(lambda: newest_run(settings.output.output_path) if resumes else (None, []))
    settings = with_values(settings, {"batch_size": settled_batch_size(settings, ranks, sets, saved)})
    run = build_run(with_seed(settings, saved, ranks), ranks, sets, saved)
    if settings.speed.cache == "ram" and sets.training_set.cache is None:
        add_cache(sets.training_set, ranks)
    lock = begin(run, saved, complaints) if ranks.is_first else None
    with closing(trackers_of(run)) as trackers:
        train_epochs(run, trackers)
    ranks.wait()
    del lock  # until here other runs were kept out of the folder
    return run.settings.optimisation.run_seed, run.state.numbers | {"final loss": run.state.epoch_losses[-1]}


def begin(run: Run, saved: SavedRun | None, complaints: list[str]) -> IO[str]:
    """Open the log and the output folder and say what is trained. Returns the folder's lock."""
    settings, state, folder = run.settings, run.state, run.settings.output.output_path
    done = f"{state.epoch} epochs and {state.iteration} iterations"
    plain, class_names = flat(settings), run.sets.val.class_names
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
    elif settings.output.resume:
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
    if not settings.output.track or not run.ranks.is_first:
        return NO_TRACKERS
    step = state.epoch * len(run.sampler) + state.iteration
    plain = flat(settings)
    name = make_name(name_of_run("train", plain)).removesuffix(ENDING)
    return open_trackers(settings.output.track, TrackedRun(settings.output.output_path, name, plain, step))


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
    settings, optimisation, training_set = run.settings, run.settings.optimisation, run.sets.training_set
    lines = [
        f"Seed: {optimisation.seed}",
        f"Num training images: {len(training_set)}",
        f"Not trained on: {training_set.num_crowds} crowds, {training_set.num_empty} boxes without area",
        *data_lines(training_set, run.state.network.anchor_shapes, settings),
        *warnings_of(training_set),
    ]
    if run.ranks.size > 1:
        rest = len(training_set) % run.sampler.batch_size
        each = settings.data.batch_size * optimisation.accumulate
        lines.append(
            f"Processes: {run.ranks.size} with {each} images each in a step; the {rest} images that fill no step are "
            f"{'left out' if settings.data.drop_last else 'shared out'}"
        )
    compiled = f"not compiled ({run.why_not_compiled})" if run.why_not_compiled else "compiled"
    lines.append(f"Precision: {run.facts.precision}, {compiled}")
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


def train_epochs(run: Run, trackers: Trackers) -> None:
    """Train the epochs that are left; evaluate and save on the way."""
    settings, state = run.settings, run.state
    saves = Saves(run)
    with STOP.deferred():
        try:
            while True:
                is_last = state.epoch >= settings.optimisation.epochs
                if state.epoch > state.evaluated and (is_last or state.epoch % settings.output.eval_every == 0):
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
                say(f"Stopped by {name}: {settings.output.output_path / LAST} is saved, and --resume continues from it")
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
        is_logged = state.iteration in (1, num_steps) or state.iteration % settings.output.log_every == 0
        is_saved = settings.output.save_every and step % settings.output.save_every == 0
        if is_logged or is_saved:
            run.ranks.meet()  # what is read from a GPU now would never come if a rank is missing
        if is_logged:
            log_skipped(run, run.ranks)
            log_bad_images(run)
            images_left = (settings.optimisation.epochs * num_steps - step) * run.sampler.batch_size
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
