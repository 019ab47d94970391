"""Runs training: epochs and steps, with logging, saving and evaluation, until the run ends or is stopped."""

import signal
from contextlib import closing

from retinanet.checkpoints.output_folder import open_folder
from retinanet.checkpoints.provenance import name_of_device
from retinanet.checkpoints.resume import LAST, newest_run
from retinanet.checkpoints.start import with_saved_network
from retinanet.evaluation.coco_table import table_lines
from retinanet.runtime.console import say
from retinanet.runtime.errors import Stopped
from retinanet.runtime.ranks import Agreement, Ranks, num_restarts
from retinanet.runtime.signals import STOP
from retinanet.settings.options import with_values
from retinanet.settings.shared import FINAL
from retinanet.settings.train import TrainSettings
from retinanet.training.batch_size import settled_batch_size
from retinanet.training.box_look import BoxLook
from retinanet.training.build import Run, build_run
from retinanet.training.engine import progress_of, rest_of_epoch
from retinanet.training.evaluation import evaluate_and_save, out_of_patience
from retinanet.training.log_lines import best_line, epoch_line, log_line, seconds_per_image, tracked_numbers
from retinanet.training.opening import begin, check_command, trackers_of, with_seed
from retinanet.training.saves import Saves, end_by, log_bad_images, log_skipped, record_end
from retinanet.training.sets import Sets, add_cache
from retinanet.training.trackers import Trackers
from retinanet.training.val_pictures import ValPictures


def train_run(settings: TrainSettings, ranks: Ranks, sets: Sets) -> tuple[int, dict[str, float]]:
    """Trains from the start, or resumes where an earlier process stopped.

    Returns the seed, and a dict of the last evaluation's numbers and the final loss.
    """
    # A rank that torchrun restarted resumes, even if its command has no --resume.
    resumes, folder = settings.output.resume or num_restarts() > 0, settings.output.output_path
    # Locked before it looks: a run that is stopped at this moment may still save there.
    lock = open_folder(folder) if resumes and ranks.is_first and folder.exists() else None
    saved, complaints = ranks.from_first(lambda: newest_run(folder) if resumes else (None, []))
    val_pictures = ValPictures(sets.val_set, ranks, timeout=settings.safety.timeout, is_resumed=saved is not None)
    val_pictures.decode_few()
    is_wanted = ranks.is_first and saved is None
    box_look = BoxLook(sets.training_set, check_command(settings), is_wanted=is_wanted)
    settings = with_saved_network(settings, saved)
    settings = with_values(settings, {"batch_size": settled_batch_size(settings, ranks, sets, saved)})
    run = build_run(with_seed(settings, saved, ranks), ranks, sets, saved)
    if settings.speed.cache == "ram" and sets.training_set.cache is None:
        add_cache(sets.training_set, ranks)
    devices = ranks.gathered(name_of_device(run.device))
    if ranks.is_first:
        lock = begin(run, saved, complaints, devices, lock)  # keeps other runs out of the folder
    try:
        with trackers_of(run) as trackers, closing(val_pictures), closing(box_look):
            ranks.wait()  # git, a slow disk or a tracker may keep rank 0 busy for longer than --timeout
            train_epochs(run, trackers, val_pictures, box_look)
    except BaseException as error:
        record_end(run, end_by(error))
        raise
    record_end(run, "finished" if run.state.epoch >= settings.optimisation.epochs else "out of patience")
    ranks.wait()
    del lock
    return run.settings.optimisation.run_seed, run.state.numbers | {"final loss": run.state.epoch_losses[-1]}


def train_epochs(run: Run, trackers: Trackers, val_pictures: ValPictures, box_look: BoxLook) -> None:
    """Trains for the remaining epochs, evaluating and saving along the way."""
    settings, state, saves = run.settings, run.state, Saves(run)
    with STOP.deferred():
        try:
            saves.remove_old_weights()  # of a resumed run
            if not state.iteration:
                _evaluate_if_due(run, saves, trackers)  # a run may have stopped between an epoch and its evaluation
            while state.epoch < settings.optimisation.epochs:
                if out_of_patience(run):
                    saves.save_state()
                    break
                train_epoch(run, saves, trackers, val_pictures, box_look)
                _evaluate_if_due(run, saves, trackers)
        except Stopped as stop:
            name = signal.Signals(stop.signal_number).name
            if saves.save_state():
                say(f"Stopped by {name}: {settings.output.output_path / LAST} is saved, and --resume continues from it")
            raise
    say(on_terminal=table_lines(state.numbers))  # each evaluation has shown one line there
    if run.ranks.is_first and (best := saves.best_on_disk()):
        epoch, path = best
        say(best_line(state.ap_by_epoch[epoch], epoch, path, settings))
    say("epoch_loss_list:", str(state.epoch_losses), on_terminal=())
    if run.ranks.is_first:
        saves.save_weights(FINAL, must=True)


def _evaluate_if_due(run: Run, saves: Saves, trackers: Trackers) -> None:
    epoch, is_last = run.state.epoch, run.state.epoch >= run.settings.optimisation.epochs
    if epoch > run.state.evaluated and (is_last or epoch % run.settings.output.eval_every == 0):
        evaluate_and_save(run, saves, trackers, is_last)


def train_epoch(run: Run, saves: Saves, trackers: Trackers, val_pictures: ValPictures, box_look: BoxLook) -> None:
    """Trains for the rest of the epoch, unless a signal stops the run.

    During the first epoch, threads may decode val pictures and judge the boxes of the training set.
    """
    settings, state = run.settings, run.state
    first_steps = run.sampler.first_steps(settings.optimisation.epochs)
    num_steps = first_steps[state.epoch + 1] - first_steps[state.epoch]
    agreement = Agreement(run.ranks)
    for rate in rest_of_epoch(run):
        step = first_steps[state.epoch] + state.iteration
        is_logged = state.iteration in (1, num_steps) or state.iteration % settings.output.log_every == 0
        is_saved = settings.output.save_every and step % settings.output.save_every == 0
        if is_logged or is_saved:
            run.ranks.meet()  # reading from a GPU would wait forever if a rank were missing
        if is_logged:
            log_skipped(run, run.ranks)
            log_bad_images(run)
            images_left = (first_steps[-1] - step) * run.sampler.batch_size
            progress = progress_of(state, rate)
            say(log_line(state.epoch, progress, images_left * seconds_per_image(state), run.device))
            trackers.log(step, tracked_numbers(progress, run.device))
            if settings.output.track:
                run.ranks.wait()  # a tracker's server may keep rank 0 busy for longer than --timeout
        elif run.device.type == "cpu":
            log_skipped(run, run.ranks)  # not on a GPU, where reading would wait
        if is_saved:
            log_skipped(run, run.ranks)
            saves.save_state()
            run.ranks.wait()  # a slow disk may keep rank 0 busy for longer than --timeout
        if stop := agreement.outcome():
            run.ranks.meet()  # saving reads from the GPU too
            raise Stopped(stop)
        agreement.put_forward(STOP.signal_number or 0)
        val_pictures.start()
        val_pictures.check()
        box_look.start()
        box_look.report()
    stop = agreement.outcome()
    val_pictures.finish()
    box_look.report(waits=True)
    progress = progress_of(state, 0)
    say(epoch_line(state.epoch, progress))
    state.finish_epoch(progress.epoch_mean)
    saves.save_state_if_long_ago()
    run.ranks.wait()
    val_pictures.note()
    if stop:
        raise Stopped(stop)
