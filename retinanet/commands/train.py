"""Trainings from their first epoch to their last: evaluated, saved and logged on the way, stopped by signals."""

import secrets
import signal
from contextlib import nullcontext
from dataclasses import replace
from typing import IO

from retinanet.check_data.summary import data_lines
from retinanet.checkpoints.output_folder import BEST, move_earlier_run, open_folder, write_record
from retinanet.checkpoints.resume import LAST, Facts, SavedRun, newest_run
from retinanet.coco.annotations import has_objects
from retinanet.coco.json_values import is_id
from retinanet.commands.find_lr import find_learning_rate
from retinanet.commands.verify_resume import verify_resume
from retinanet.data.learnable import warnings_of
from retinanet.evaluation.coco_table import AP, AP50, CocoTable, table_if_objects
from retinanet.evaluation.detect_set import detect_all
from retinanet.reports.log_table import print_spread
from retinanet.runtime.console import say
from retinanet.runtime.device import default_workers, find_device
from retinanet.runtime.errors import Stopped, UserError
from retinanet.runtime.log_file import LOG
from retinanet.runtime.log_names import name_of_run
from retinanet.runtime.ranks import Agreement, Ranks, join, leave, loss_of_rank_explained, num_restarts
from retinanet.runtime.signals import STOP
from retinanet.training.engine import progress_of, rest_of_epoch
from retinanet.training.log_lines import (
    best_line,
    epoch_line,
    log_line,
    rate_hint,
    schedule_hint,
    seconds_per_image,
    settings_line,
)
from retinanet.training.run import Run, build_run, loader_settings
from retinanet.training.saves import FINAL, Saves, log_bad_images, log_skipped
from retinanet.training.sets import Sets, add_cache, load_sets
from retinanet.training.settings import RANDOM, TrainSettings


def train(settings: TrainSettings) -> int:
    """Do what train.py's command line asks for. Returns the exit code."""
    device = find_device(settings.device)
    workers = default_workers(device) if settings.workers is None else settings.workers
    settings = replace(settings, device=str(device), workers=workers)
    ranks = join(device, settings.timeout)
    with loss_of_rank_explained(ranks, settings.timeout):
        for name in ("verify_resume", "find_lr"):
            if getattr(settings, name) and ranks.size > 1:
                raise UserError(f"--{name} is for one process. Run it without torchrun")
        with ranks.first_alone():  # it leaves the parsed annotations to the others
            sets = load_sets(settings, ranks)
        if settings.patience and not has_objects(sets.val):
            raise UserError(f"--patience needs an AP, and the set {settings.val_set} has no objects. Drop the flag")
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
    run = build_run(with_seed(settings, saved, ranks), ranks, sets, saved)
    if settings.cache == "ram" and sets.training_set.cache is None:
        add_cache(sets.training_set, ranks)
    lock = begin(run, saved, complaints) if ranks.is_first else None
    train_epochs(run)
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
    return lock


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
    lines.append(f"Precision: {run.facts.precision}, {'compiled' if run.facts.compiled else 'not compiled'}")
    hints = rate_hint(run.sampler.batch_size, settings.optimizer, settings.learning_rate), schedule_hint(settings)
    return [*lines, *filter(None, hints)]


def train_epochs(run: Run) -> None:
    """Train the epochs that are left; evaluate and save on the way."""
    settings, state = run.settings, run.state
    saves = Saves(run)
    with STOP.deferred():
        try:
            while True:
                is_last = state.epoch >= settings.epochs
                if state.epoch > state.evaluated and (is_last or state.epoch % settings.eval_every == 0):
                    evaluate_and_save(run, saves, is_last)
                if is_last:
                    break
                if out_of_patience(run):
                    if run.ranks.is_first:
                        saves.save_state()
                    break
                train_epoch(run, saves)
        except Stopped as stop:
            name = signal.Signals(stop.signal_number).name
            if run.ranks.is_first and saves.save_state():
                say(f"Stopped by {name}: {settings.output_path / LAST} is saved, and --resume continues from it")
            raise
    if best := best_line(state.ap_by_epoch, settings):
        say(best)
    say("epoch_loss_list:")
    say(str(state.epoch_losses))
    if run.ranks.is_first:
        saves.save_weights(FINAL, must=True)


def out_of_patience(run: Run) -> bool:
    """Whether --patience ends the run, the same at all ranks, of which the first alone knows the AP."""
    patience, state = run.settings.patience, run.state
    if not patience or state.epoch > state.evaluated:
        return False
    if run.ranks.from_first(state.evaluations_since_best) < patience:
        return False
    say(f"Stopped early after epoch {state.epoch}: {patience} evaluations without a higher AP (--patience)")
    return True


def train_epoch(run: Run, saves: Saves) -> None:
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
            say(log_line(state.epoch, progress_of(state, rate), images_left * seconds_per_image(state), run.device))
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


def evaluate_and_save(run: Run, saves: Saves, is_last: bool) -> None:
    """Save the epoch's weights, evaluate them, and keep the best."""
    if run.ranks.is_first:  # before evaluating: whatever stops that, the weights are there
        saves.save_weights(f"retinanet_epoch{run.state.epoch}.pt")
        if is_last:
            saves.save_weights(FINAL)
            saves.save_state()
    ap = evaluate_weights(run)
    if run.ranks.is_first and (0.0 if ap is None else ap) > run.state.best_ap:
        run.state.best_ap = ap or 0.0
        saves.save_weights(BEST)
    if ap is not None:
        run.state.ap_by_epoch[run.state.epoch] = ap
        saves.record_evaluations()
    run.state.evaluated = run.state.epoch
    if is_last:
        saves.save_state()
    run.ranks.wait()


def evaluate_weights(run: Run) -> float | None:
    """Print the table of the weights that test.py takes, the averaged ones if there are any, and return their AP.

    None where there is no table: without objects, and at other ranks than 0.
    """
    average, val = run.state.average, run.sets.val
    if average and has_objects(val) and (raw := _table(run)):
        say(f"Raw weights: AP {raw.numbers[AP]:.3f}, AP50 {raw.numbers[AP50]:.3f}. The averaged ones:")
    with average.in_place() if average else nullcontext():
        table = _table(run)
    if table is None:
        return None
    say(*table.text.splitlines())
    run.state.numbers = table.by_name(val.class_names)
    return table.numbers[AP]


def _table(run: Run) -> CocoTable | None:
    """The table of the val set; None where it has no objects, or at another rank than 0."""
    settings = run.settings
    with STOP.at_once():  # nothing in here changes what is saved then, the weights least of all
        found = detect_all(
            run.state.network,
            run.sets.val_set,
            loader_settings(settings, run.device),
            device=run.device,
            precision=run.precision,
            detection=settings.detection,
            ranks=run.ranks,
        )
        return table_if_objects(run.sets.val, found, settings.eval_backend) if run.ranks.is_first else None
