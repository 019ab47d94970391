"""Train a RetinaNet on a COCO-format data set, alone or as one of torchrun's processes."""

import argparse
import signal
from typing import IO

from retinanet.check_data.summary import data_lines
from retinanet.checkpoints.output_folder import move_earlier_run, open_folder, write_record
from retinanet.checkpoints.resume import LAST, newest_run
from retinanet.cli.flags import plain_settings
from retinanet.cli.train_checks import check_flags
from retinanet.cli.train_flags import build_parser
from retinanet.data.learnable import warnings_of
from retinanet.reports.log_table import print_spread
from retinanet.runtime.console import run, say
from retinanet.runtime.device import default_workers
from retinanet.runtime.errors import Stopped
from retinanet.runtime.log_file import LOG
from retinanet.runtime.log_names import name_of_run
from retinanet.runtime.ranks import Agreement, Ranks, join, leave, loss_of_rank_explained, num_restarts
from retinanet.runtime.signals import STOP
from retinanet.training.engine import progress_of, rest_of_epoch
from retinanet.training.log_lines import epoch_line, log_line, rate_hint, seconds_per_image, settings_line
from retinanet.training.run import Data, Job, add_cache, build_job, evaluate_weights, load_data, runs_of, settled_seed
from retinanet.training.saves import FINAL, Saves, tell_bad_images, tell_skipped
from retinanet.training.verify_resume import verify_resume


def main(argv: list[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.workers is None:
        args.workers = default_workers(args.device)
    ranks = join(args.device, args.timeout)
    with loss_of_rank_explained(ranks, args.timeout):
        check_flags(parser, args, ranks)
        with ranks.first_alone():  # it leaves the parsed annotations to the others
            data = load_data(args, ranks)
        if args.verify_resume or args.find_lr:
            args.seed = settled_seed(args.seed, None, ranks)
        if args.verify_resume:
            return verify_resume(args, data)
        if args.find_lr:
            from retinanet.training.find_lr import (
                find_learning_rate,  # and with it matplotlib, which no training waits for
            )

            return find_learning_rate(args, data)
        numbers = {}
        for run_args in runs_of(args):
            with LOG.kept(args.log_dir):
                numbers[run_args.seed] = train_run(run_args, ranks, data)
                if args.seeds and len(numbers) == len(args.seeds):
                    print_spread(numbers)
        leave()
    return 0


def train_run(args: argparse.Namespace, ranks: Ranks, data: Data) -> dict[str, float]:
    """Train from the start, or from where an earlier process was stopped. Returns the last evaluation's numbers."""
    # A rank that torchrun brought back goes on, though its command may say nothing of it.
    goes_on = args.resume or num_restarts() > 0
    saved, complaints = ranks.from_first(lambda: newest_run(args.output_path) if goes_on else (None, []))
    args.seed = settled_seed(args.seed, saved, ranks)
    job = build_job(args, ranks, data, saved)
    if args.cache == "ram" and data.training_set.cache is None:
        add_cache(data.training_set, ranks)
    lock = begin(job, saved is not None, complaints) if ranks.is_first else None
    train(job)
    ranks.wait()
    del lock  # until here other runs were kept out of the folder
    return job.state.numbers | {"final loss": job.state.epoch_losses[-1]}


def begin(job: Job, is_resumed: bool, complaints: list[str]) -> IO[str]:
    """Open the log and the output folder and say what is trained. Returns the folder's lock."""
    args, state, folder = job.args, job.state, job.args.output_path
    done = f"{state.epoch} epochs and {state.iteration} iterations"
    settings, class_names = plain_settings(args), job.data.val.class_names
    with STOP.deferred(), LOG.opened(name_of_run("train", settings)):
        lock = open_folder(folder)
        moved = None if is_resumed else move_earlier_run(folder)
        write_record(folder, settings, class_names, args.device, resumed=f"after {done}" if is_resumed else None)
    if LOG.path:
        say(f"Log: {LOG.path}")
    say(settings_line(settings))
    for complaint in complaints:
        say(f"Can't go on from {complaint}")
    if is_resumed:
        say(f"Resumed from {folder} after {done}")
    elif args.resume:
        say(f"{folder} holds nothing to go on from: a new run")
    if moved:
        say(f"{folder} holds an earlier run: its {moved[1]} files are now in {moved[0]}")
    training_set = job.data.training_set
    say(f"Seed: {args.seed}")
    say(f"Num training images: {len(training_set)}")
    say(f"Not trained on: {training_set.num_crowds} crowds, {training_set.num_empty} boxes without area")
    lines = data_lines(training_set, state.network.anchor_shapes, args.foreground_iou, args.background_iou)
    for line in [*lines, *warnings_of(training_set)]:
        say(line)
    if job.ranks.size > 1:
        rest = len(training_set) % job.sampler.batch_size
        say(
            f"Processes: {job.ranks.size} with {args.batch_size * args.accumulate} images each in a step; the {rest} "
            f"images that fill no step are {'left out' if args.drop_last else 'shared out'}"
        )
    say(f"Precision: {job.facts.precision}, {'compiled' if job.facts.compiled else 'not compiled'}")
    if hint := rate_hint(job.sampler.batch_size, args.learning_rate):
        say(hint)
    return lock


def train(job: Job) -> None:
    """Train the epochs that are left; evaluate and save on the way."""
    args, state = job.args, job.state
    saves = Saves(job)
    with STOP.deferred():
        try:
            while True:
                is_last = state.epoch >= args.epochs
                if state.epoch > state.evaluated and (is_last or state.epoch % args.eval_every == 0):
                    evaluate_and_keep(job, saves, is_last)
                if is_last:
                    break
                train_epoch(job, saves)
        except Stopped as stop:
            name = signal.Signals(stop.signal_number).name
            if job.ranks.is_first and saves.save():
                say(f"Stopped by {name}: {args.output_path / LAST} is saved, and --resume goes on from it")
            raise
    say("epoch_loss_list:")
    say(str(state.epoch_losses))
    if job.ranks.is_first:
        saves.require(FINAL)


def train_epoch(job: Job, saves: Saves) -> None:
    """Train what is left of the epoch, or until a signal stops it."""
    args, state, num_steps = job.args, job.state, len(job.sampler)
    agreement = Agreement(job.ranks)
    for rate in rest_of_epoch(job):
        is_logged = state.iteration in (1, num_steps) or state.iteration % args.log_every == 0
        is_saved = args.save_every and (state.epoch * num_steps + state.iteration) % args.save_every == 0
        if is_logged or is_saved:
            job.ranks.meet()  # what is read from a GPU now would never come if a rank is missing
        if is_logged:
            tell_skipped(job, job.ranks)
            tell_bad_images(job)
            images_left = (args.epochs * num_steps - state.epoch * num_steps - state.iteration) * job.sampler.batch_size
            say(log_line(state.epoch, progress_of(state, rate), images_left * seconds_per_image(state), args.device))
        elif args.device.type == "cpu":
            tell_skipped(job, job.ranks)  # a GPU would have to be waited for
        if is_saved:
            tell_skipped(job, job.ranks)
            saves.save()
            job.ranks.wait()  # for rank 0, which a slow disk may take longer than --timeout
        if stop := agreement.outcome():
            job.ranks.meet()  # saving reads from the GPU too
            raise Stopped(stop)
        agreement.put_forward(STOP.signal_number or 0)
    agreement.outcome()
    progress = progress_of(state, 0)
    say(epoch_line(state.epoch, progress))
    state.finish_epoch(progress.epoch_mean)
    saves.save_if_long_ago()
    job.ranks.wait()


def evaluate_and_keep(job: Job, saves: Saves, is_last: bool) -> None:
    """Keep the epoch's weights, evaluate them, and keep the best."""
    if job.ranks.is_first:  # before evaluating: whatever stops that, the weights are there
        saves.keep(f"retinanet_epoch{job.state.epoch}.pt")
        if is_last:
            saves.keep(FINAL)
            saves.save()
    ap = evaluate_weights(job)
    if job.ranks.is_first and ap > job.state.best_ap:
        job.state.best_ap = ap
        saves.keep("best.pt")
    job.state.evaluated = job.state.epoch
    if is_last:
        saves.save()
    job.ranks.wait()


if __name__ == "__main__":
    run(main)
