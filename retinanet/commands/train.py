"""Train, once or with each of several seeds; or find a learning rate, or check that a resumed run is the same run."""

from retinanet.coco.annotations import has_objects, placeholder_note
from retinanet.reports.log_table import print_spread
from retinanet.runtime.device import default_workers, find_device
from retinanet.runtime.errors import UserError
from retinanet.runtime.log_file import LOG
from retinanet.runtime.ranks import join, leave, loss_of_rank_explained
from retinanet.runtime.streams import STDOUT
from retinanet.settings.options import with_values
from retinanet.settings.train import TrainSettings
from retinanet.training.batch_size import settled_batch_size
from retinanet.training.find_lr import find_learning_rate
from retinanet.training.opening import with_seed
from retinanet.training.run import train_run
from retinanet.training.sets import load_sets
from retinanet.training.trackers import require_trackers
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
            with LOG.recording(of_run.output.log_dir):
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
