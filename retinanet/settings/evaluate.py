"""What test.py can be told."""

from dataclasses import dataclass
from pathlib import Path

from retinanet.detector.settings import DEPTHS
from retinanet.runtime.errors import UserError
from retinanet.settings.options import Given, option, parsed, part, whole_number
from retinanet.settings.shared import (
    Detection,
    Machine,
    Views,
    coco_path_option,
    eval_backend_option,
    log_dir_option,
    max_side_option,
    min_side_option,
)

NUM_DRAWS, LEAST_DRAWS = 1000, 20  # bootstrap samples: the default, and the fewest that make an interval
MOST_USED = (
    *("coco_path", "set_name", "checkpoint_path", "results_path", "from_results", "report", "compare"),
    *("batch_size", "flip_test", "threshold", "device"),
)
# Flags without a meaning beside --compare and --from_results.
FOR_DETECTION = (
    *("results_path", "checkpoint_path", "log_dir", "depth", "min_side", "max_side", "batch_size", "workers"),
    *("raw_weights", "flip_test", "test_sides", "threshold", "num_candidates", "nms_iou", "max_detections"),
)


@dataclass(frozen=True)
class Trained:
    """What the training had; None where the checkpoint decides."""

    min_side: int | None = min_side_option(None)
    max_side: int | None = max_side_option(None)
    batch_size: int | None = option(None, "images per batch", whole_number(1))


@dataclass(frozen=True)
class EvaluateSettings:
    coco_path: Path = coco_path_option()
    set_name: str | None = option(None, "name of the set (default: test; with --from_results or --compare val)")
    checkpoint_path: Path = option(Path("output/model_final.pt"), "the checkpoint to evaluate", Path)
    results_path: Path | None = option(None, "file to write (default: {set_name}_bbox_results.json)", Path)
    from_results: Path | None = option(
        None,
        "evaluate this result file instead of detecting; needs no checkpoint and, except for pictures, no images",
        Path,
        metavar="FILE",
    )
    compare: tuple[Path, Path] | None = option(
        None,
        "compare these result files; needs no checkpoint and, except for its picture, no images",
        Path,
        nargs=2,
        metavar=("A", "B"),
    )
    report: Path | None = option(
        None, "folder for metrics.json, figures, and report.html to open; with --compare for its picture", Path
    )
    num_draws: int = option(
        NUM_DRAWS, "bootstrap samples of the images for confidence intervals; 0: none", whole_number(0)
    )
    log_dir: Path | None = log_dir_option()
    depth: int | None = option(None, "stop unless the checkpoint has this depth", DEPTHS)
    trained: Trained = part(Trained, "taken from the checkpoint unless given")
    raw_weights: bool = option(False, "evaluate the weights themselves, not their average from --ema_decay", bool)
    views: Views = part(Views, "test-time augmentation", "the detections of all views are merged before NMS")
    detection: Detection = part(Detection, "detection")
    eval_backend: str = eval_backend_option()
    machine: Machine = part(Machine, "machine")

    @property
    def name_of_set(self) -> str:
        return self.set_name or ("val" if self.compare or self.from_results else "test")

    def check(self, given: Given) -> None:
        """UserError where flags contradict each other."""
        if 0 < self.num_draws < LEAST_DRAWS:
            raise UserError(
                f"--num_draws {self.num_draws} is too few for an interval. Give {LEAST_DRAWS} or more, or 0 for none"
            )
        if self.compare:
            given.refuse(("from_results",), "evaluates one result file, --compare compares two. Drop one of the two")
            given.refuse(FOR_DETECTION, "is for detection. Drop it, or --compare")
        if self.from_results:
            given.refuse(FOR_DETECTION, "is for detection. Drop it, or --from_results")
        if self.views.test_sides and self.trained.min_side:
            raise UserError("--test_sides and --min_side both give the shorter side. Drop one of the two")
        self.views.check()


def evaluate_settings(argv: list[str] | None = None) -> EvaluateSettings:
    """The settings that the command line `argv`, or this process's, gives. UserError where flags contradict."""
    description = "Evaluate a checkpoint on a set and write its result file, or evaluate or compare result files."
    settings, given = parsed(EvaluateSettings, description, argv, most_used=MOST_USED)
    settings.check(given)
    return settings
