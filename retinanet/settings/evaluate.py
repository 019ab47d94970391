"""Defines the flags of test.py."""

from dataclasses import dataclass
from pathlib import Path

from retinanet.detector.settings import DEPTHS
from retinanet.runtime.errors import UserError
from retinanet.settings.export import FORMATS
from retinanet.settings.options import Given, number_from, option, parsed, part, whole_number
from retinanet.settings.shared import (
    FINAL,
    Detection,
    Machine,
    ReportPictures,
    TestTiles,
    Views,
    coco_path_option,
    eval_backend_option,
    exif_option,
    log_dir_option,
    log_time_option,
    max_side_option,
    min_side_option,
)

NUM_DRAWS, LEAST_DRAWS = 1000, 20  # bootstrap samples: the default, and the fewest for an interval
OF_NETWORKS = (".pt", ".pth", ".bin", *FORMATS.values())  # suffixes of checkpoints and exported files
MOST_USED = (
    *("coco_path", "set_name", "checkpoint_path", "results_path", "from_results", "report", "compare"),
    *("batch_size", "flip_test", "threshold", "device"),
)
# Flags that have no effect with --compare and --from_results.
FOR_DETECTION = (
    *("results_path", "checkpoint_path", "log_dir", "depth", "min_side", "max_side", "batch_size"),
    *("device", "precision", "workers"),
    *(
        "raw_weights",
        "flip_test",
        "test_sides",
        "tile",
        "overlap",
        "threshold",
        "num_candidates",
        "nms_iou",
        "max_detections",
    ),
)


@dataclass(frozen=True)
class Trained:
    """The settings that are taken from the checkpoint if they are None."""

    min_side: int | None = min_side_option(None)
    max_side: int | None = max_side_option(None)
    batch_size: int | None = option(None, "images per batch", whole_number(1))
    exif: str | None = exif_option(None)


@dataclass(frozen=True)
class EvaluateSettings:
    coco_path: Path = coco_path_option()
    set_name: str | None = option(
        None,
        "name of the set (default: test; with --from_results or --compare, as in the record next to a file, or val)",
    )
    checkpoint_path: Path = option(Path("output") / FINAL, "the checkpoint or exported file to evaluate", Path)
    results_path: Path | None = option(None, "JSON file to write (default: {set_name}_bbox_results.json)", Path)
    from_results: Path | None = option(
        None,
        "evaluate this result file instead of detecting; this doesn't need a checkpoint, and needs images only for the "
        "report's pictures",
        Path,
        metavar="FILE",
    )
    compare: tuple[Path, Path] | None = option(
        None,
        "compare these result files; this doesn't need a checkpoint, and needs images only for the pictures",
        Path,
        nargs=2,
        metavar=("A", "B"),
    )
    report: Path | None = option(
        None,
        "folder for report.html, metrics.json and figures, or with --compare for report.html and its picture",
        Path,
    )
    pictures: ReportPictures = part(ReportPictures)
    json: Path | None = option(
        None, "write the numbers of the evaluation or of --compare to this JSON file", Path, metavar="FILE"
    )
    min_ap: float | None = option(
        None, "end with exit code 1 if AP is below this, and with 2 if the set has no objects", number_from(0, 1)
    )
    num_draws: int = option(
        NUM_DRAWS, "bootstrap samples for confidence intervals, 20 or more; 0: no intervals", whole_number(0)
    )
    log_dir: Path | None = log_dir_option()
    log_time: bool = log_time_option()
    quiet: bool = option(False, "print only errors; the file of --log_dir gets everything", bool)
    depth: int | None = option(None, "check that the checkpoint has this depth; not needed", DEPTHS)
    trained: Trained = part(Trained, "taken from the checkpoint unless given")
    raw_weights: bool = option(False, "evaluate the raw weights instead of their moving average (EMA)", bool)
    views: Views = part(Views, "test-time augmentation and tiles", "the detections of all views are merged before NMS")
    tiling: TestTiles = part(TestTiles)
    detection: Detection = part(Detection, "detection")
    eval_backend: str = eval_backend_option()
    machine: Machine = part(Machine, "machine")

    @property
    def name_of_set(self) -> str:
        return self.set_name or ("val" if self.result_files else "test")

    @property
    def result_files(self) -> tuple[Path, ...]:
        """Returns the result files to evaluate or compare, or an empty tuple if a detector is evaluated."""
        return self.compare or ((self.from_results,) if self.from_results else ())

    def check(self, given: Given) -> None:
        """Raises UserError if flags contradict each other."""
        if 0 < self.num_draws < LEAST_DRAWS:
            raise UserError(
                f"--num_draws {self.num_draws} is too few for an interval. Use {LEAST_DRAWS} or more, or 0 for none."
            )
        if self.results_path and self.results_path.suffix.lower() == ".zip":
            raise UserError(
                f"--results_path {self.results_path}: the file is written as plain JSON. Choose a name that ends in "
                ".json, and pack the file with test_submission.py --zip."
            )
        if self.results_path and self.results_path.suffix.lower() in OF_NETWORKS:
            raise UserError(
                f"--results_path {self.results_path}: has the name of a checkpoint or an exported network. Choose a "
                "name that ends in .json."
            )
        if not self.report:
            given.refuse(("report_images", "report_mb"), "is about the page of a report. Add --report, or remove it.")
        self.pictures.check(given)
        if self.compare:
            given.refuse(
                ("from_results",), "evaluates one result file, but --compare compares two. Remove one of the two."
            )
            given.refuse(FOR_DETECTION, "only applies to detection. Remove it, or --compare.")
            if self.min_ap is not None:
                raise UserError(
                    "--min_ap evaluates one result file, but --compare compares two. Remove one of the two."
                )
        if self.from_results:
            given.refuse(FOR_DETECTION, "only applies to detection. Remove it, or --from_results.")
        if self.views.test_sides and self.trained.min_side:
            raise UserError("--test_sides and --min_side both set the shorter side. Remove one of the two.")
        self.views.check()
        self.tiling.check(given)


def evaluate_settings(argv: list[str] | None = None) -> EvaluateSettings:
    """Reads the settings from `argv` or the command line. Raises UserError if flags contradict each other."""
    description = "Evaluate a checkpoint on a set and write its result file, or evaluate or compare result files."
    settings, given = parsed(EvaluateSettings, description, argv, most_used=MOST_USED)
    settings.check(given)
    return settings
