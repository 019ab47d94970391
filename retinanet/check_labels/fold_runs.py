"""Trains a detector for each fold, in a run folder of its own, or resumes the fold's run."""

from tqdm import tqdm

from retinanet.check_labels.folds import TRAIN, fold_folder, folds_of, write_fold_data
from retinanet.checkpoints.resume import with_saved_exif
from retinanet.coco.folder import VAL
from retinanet.data.dataset import CocoDataset
from retinanet.data.similar import joined_looks, looks_of
from retinanet.runtime.console import say
from retinanet.runtime.json_files import read_json
from retinanet.runtime.log_file import LOG
from retinanet.runtime.printable import counted
from retinanet.runtime.ranks import Ranks
from retinanet.runtime.streams import hides_bars
from retinanet.settings.check_labels import Checking
from retinanet.settings.options import with_values
from retinanet.settings.train import PUBLISHED_SEED, TrainSettings
from retinanet.training.run import train_run
from retinanet.training.sets import load_sets

FOLD_SEED = PUBLISHED_SEED  # of the division into folds, whatever --seed the runs have
THREADS = 8  # the number of threads that decode images to compare them


def fold_settings(checking: Checking, settings: TrainSettings, dataset: CocoDataset) -> list[TrainSettings]:
    """Divides the set, writes the folds' data folders, and returns the settings of each fold's run.

    Raises UserError if the set has too few images.
    """
    looks = looks_of(dataset.original, len(dataset), THREADS)
    bar = tqdm(looks, "Images that look alike", total=len(dataset), leave=False, disable=hides_bars())
    folds = folds_of(dataset.annotations, joined_looks(list(bar)), checking.folds, checking.group_by, FOLD_SEED)
    content = read_json(dataset.annotations.path)
    runs = []
    for fold in range(checking.folds):
        folder = fold_folder(settings.output.output_path, fold)
        write_fold_data(folder / "data", content, dataset, folds == fold)
        values = {
            "coco_path": folder / "data",
            "train_set": TRAIN,
            "val_set": VAL,
            "output_path": folder,
            "resume": True,
        }
        runs.append(with_saved_exif(with_values(settings, values), folder))
    return runs


def train_folds(runs: list[TrainSettings], ranks: Ranks) -> None:
    """Trains each fold's detector, or resumes its run."""
    for fold, run in enumerate(runs):
        with LOG.recording(run.output.log_dir):
            sets = load_sets(run, ranks)
            num_train, num_val = counted(len(sets.training_set), "image"), len(sets.val_set)
            say(f"Fold {fold + 1} of {len(runs)}: training on {num_train}, to check the other {num_val}")
            train_run(run, ranks, sets)
