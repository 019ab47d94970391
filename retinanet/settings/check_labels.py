"""Defines the flags of python -m retinanet.check_labels: its own, and train.py's flags for training on the folds."""

from dataclasses import dataclass, replace
from pathlib import Path

from retinanet.settings.options import another_default, option, parsed, part, whole_number, with_values
from retinanet.settings.shared import ReportPictures
from retinanet.settings.train import STRONG, Data, Optimisation, Output, TrainSettings, settled

LEAST_FOLDS = 2
MOST_USED = (
    *("coco_path", "train_set", "folds", "group_by", "results", "output_path"),
    *("recipe", "depth", "weights", "min_side", "max_side", "batch_size", "epochs", "device"),
)
# Flags of train.py that make no sense for the runs of folds.
REFUSED = {
    "val_set": "names a set to evaluate on, but each fold's run is evaluated on the images that it isn't trained on.",
    "seeds": "trains several runs, but each fold has only one.",
    "find_lr": "replaces the training. Use it with train.py.",
    "verify_resume": "replaces the training. Use it with train.py.",
    "patience": "would end the folds' runs at different times.",
}
# The flags that apply with --results, which replaces the folds and their runs.
WITH_RESULTS = frozenset(
    (
        *("results", "coco_path", "train_set", "output_path", "report_images", "report_mb"),
        *("exif", "white_level", "max_pixels", "eval_backend", "log_time"),
    )
)


@dataclass(frozen=True)
class FoldData(Data):
    train_set: str = option("train", "the set whose labels are checked")


@dataclass(frozen=True)
class FoldOptimisation(Optimisation):
    epochs: int = another_default(Optimisation, "epochs", 12)


@dataclass(frozen=True)
class FoldOutput(Output):
    output_path: Path = option(
        Path("label_check"), "folder for the suspects and the folds' runs", Path, may_change=True, repeated=False
    )
    resume: bool = option(
        False,
        "accepted, but not needed: the folds' runs in --output_path are always resumed",
        bool,
        may_change=True,
        repeated=False,
    )


@dataclass(frozen=True)
class FoldTraining(TrainSettings):
    recipe: str = another_default(TrainSettings, "recipe", STRONG)
    data: FoldData = part(FoldData, "data")
    optimisation: FoldOptimisation = part(FoldOptimisation, "optimisation")
    output: FoldOutput = part(FoldOutput, "output")


@dataclass(frozen=True)
class Checking:
    folds: int = option(
        3,
        "number of parts of the set; for each part, a detector that hasn't seen its labels is trained on the others",
        whole_number(LEAST_FOLDS),
    )
    group_by: str | None = option(
        None,
        "keep images whose file names match with the same text in one fold, such as the frames of a video: "
        r"'^clip\d+'; images that look alike always stay together",
        metavar="REGEX",
    )
    results: Path | None = option(
        None,
        "use the detections in this result file instead of training; test.py must have written it with a detector that "
        "hasn't seen the set. Wrong classes are then harder to find",
        Path,
        metavar="FILE",
    )
    pictures: ReportPictures = part(ReportPictures)


@dataclass(frozen=True)
class CheckLabelsSettings:
    checking: Checking = part(Checking, "labels")
    training: TrainSettings = part(FoldTraining)


def check_labels_settings(argv: list[str] | None = None) -> CheckLabelsSettings:
    """Reads the settings from `argv` or the command line. Raises UserError if flags contradict each other."""
    description = "Find labels that are probably mistakes, with detectors that haven't seen their images."
    prog = "python -m retinanet.check_labels"
    settings, given = parsed(CheckLabelsSettings, description, argv, most_used=MOST_USED, prog=prog)
    for name, reason in REFUSED.items():
        given.refuse((name,), f"{reason} Remove it.")
    if settings.checking.results:
        given.refuse(
            sorted(given.changed - WITH_RESULTS), "is for training, which --results replaces. Remove one of the two."
        )
    settings.checking.pictures.check(given)
    training = with_values(settled(settings.training, given), {"patience": Output.patience})  # --from_run may set it
    return replace(settings, training=training)
