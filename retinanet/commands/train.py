"""Trains once or with each of several seeds, runs the learning-rate finder, or verifies that resuming is exact."""

from pathlib import Path

from retinanet.checkpoints.resume import with_saved_exif
from retinanet.checkpoints.start import with_saved_network
from retinanet.coco.annotations import has_objects, placeholder_note
from retinanet.reports.log_table import print_spread
from retinanet.runtime.device import find_device, num_workers
from retinanet.runtime.errors import UserError
from retinanet.runtime.log_file import LOG
from retinanet.runtime.ranks import join, leave, loss_of_rank_explained, num_restarts
from retinanet.runtime.streams import STDOUT
from retinanet.settings.options import with_values
from retinanet.settings.train import TrainSettings
from retinanet.training.batch_size import settled_batch_size
from retinanet.training.opening import with_seed
from retinanet.training.run import train_run
from retinanet.training.sets import load_sets
from retinanet.training.trackers import require_trackers
from retinanet.training.verify_resume import verify_resume


def train(settings: TrainSettings) -> int:
    """Runs the requested training. Returns the exit code."""
    device = find_device(settings.machine.device)
    workers = num_workers(settings.machine.workers, device)
    settings = with_values(settings, {"device": str(device), "workers": workers})
    require_trackers(settings.output.track or ())
    ranks = join(device, settings.safety.timeout)
    timed = STDOUT.set_up(timed=settings.output.log_time)
    with timed, STDOUT.outlived(), loss_of_rank_explained(ranks, settings.safety.timeout):
        for flag in settings.instead_of_training:
            if ranks.size > 1:
                raise UserError(f"{flag} runs in one process only. Start it without torchrun")
        if settings.output.resume or num_restarts() > 0:
            settings = with_saved_exif(settings, runs_of(settings)[0].output.output_path)
        with ranks.first_of_machine_alone():  # the first rank caches the parsed annotations for the others
            sets = load_sets(settings, ranks)
        if settings.output.patience and not has_objects(sets.val):
            why = placeholder_note(sets.val)
            raise UserError(
                f"--patience needs an AP, and the set {settings.data.val_set} has no objects{why}. Remove the flag"
            )
        if settings.instead_of_training:
            settings = with_saved_network(settings, None)
            settings = with_values(settings, {"batch_size": settled_batch_size(settings, ranks, sets, None)})
        if settings.safety.verify_resume:
            return verify_resume(with_seed(settings, None, ranks), sets)
        if settings.optimisation.find_lr:
            from retinanet.training.find_lr import find_learning_rate  # it imports Matplotlib

            return find_learning_rate(with_seed(settings, None, ranks), sets)
        numbers: dict[int, dict[str, float]] = {}
        require_same_start(settings)
        for run_settings in runs_of(settings):
            with LOG.recording(run_settings.output.log_dir):
                seed, numbers_of_run = train_run(run_settings, ranks, sets)
                numbers[seed] = numbers_of_run
                seeds = settings.optimisation.seeds
                if ranks.is_first and seeds and len(numbers) == len(seeds):  # only rank 0 has all numbers
                    print_spread(numbers)
        leave()
    return 0


def require_same_start(settings: TrainSettings) -> None:
    """Raises UserError if the run of one seed would replace the weights from which the next one starts."""
    weights = Path(settings.network.weights)
    can_collide = settings.optimisation.seeds and not settings.output.resume and weights.exists()
    for run in runs_of(settings) if can_collide else ():
        if weights.resolve().parent == run.output.output_path.resolve():
            raise UserError(
                f"--weights {weights}: is in the folder of seed {run.optimisation.seed}, whose run moves the files "
                "there away. Copy it to another folder, or choose another --output_path."
            )


def runs_of(settings: TrainSettings) -> list[TrainSettings]:
    """Returns the settings of each run: with --seeds, one run per seed, in its own folder below --output_path."""
    folder, seeds = settings.output.output_path, settings.optimisation.seeds
    if not seeds:
        return [settings]
    return [with_values(settings, {"seed": seed, "output_path": folder / f"seed{seed}"}) for seed in seeds]
