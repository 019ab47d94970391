"""Checks labels: trains detectors on the other folds of a set, and lists labels that they contradict."""

from retinanet.check_labels.fold_runs import fold_settings, train_folds
from retinanet.data.dataset import load_set
from retinanet.runtime.device import find_device, num_workers
from retinanet.runtime.errors import UserError
from retinanet.runtime.ranks import join, leave
from retinanet.runtime.streams import STDOUT
from retinanet.settings.check_labels import CheckLabelsSettings
from retinanet.settings.options import with_values
from retinanet.training.trackers import require_trackers


def check_labels(settings: CheckLabelsSettings) -> int:
    """Writes the suspects among a set's labels. Returns the exit code."""
    training = settings.training
    device = find_device(training.machine.device)
    workers = num_workers(training.machine.workers, device)
    training = with_values(training, {"device": str(device), "workers": workers})
    require_trackers(training.output.track or ())
    ranks = join(device, training.safety.timeout)
    if ranks.size > 1:
        raise UserError("check_labels runs in one process only. Start it without torchrun.")
    data = training.data
    with STDOUT.set_up(timed=training.output.log_time), STDOUT.outlived():
        _, dataset = load_set(
            data.coco_path,
            data.train_set,
            min_side=data.min_side,
            max_side=data.max_side,
            max_pixels=training.machine.max_pixels,
            exif=data.exif,
            white_level=data.white_level,
        )
        runs = fold_settings(settings.checking, training, dataset)
        train_folds(runs, ranks)
        leave()
    return 0
