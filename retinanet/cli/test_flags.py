"""The command line of test.py, as settings."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from retinanet.cli.flags import parsed, parser_of, refuse, whole_number
from retinanet.cli.shared_flags import (
    add_coco_path_flag,
    add_detection_flags,
    add_eval_backend_flag,
    add_log_dir_flag,
    add_machine_flags,
    add_views_flags,
    check_views_flags,
)
from retinanet.data.settings import MAX_PIXELS, MOST_MIN_SIDE
from retinanet.detector.settings import DEPTHS, DetectionSettings
from retinanet.evaluation.analysis import LEAST_DRAWS, NUM_DRAWS
from retinanet.runtime.errors import UserError

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
class EvaluationSettings:
    """What test.py does; None where the checkpoint or the set's name decides."""

    coco_path: Path = Path("data")
    set_name: str | None = None
    checkpoint_path: Path = Path("output/model_final.pt")
    results_path: Path | None = None
    from_results: Path | None = None
    compare: tuple[Path, Path] | None = None
    report: Path | None = None
    num_draws: int = NUM_DRAWS
    log_dir: Path | None = None
    depth: int | None = None
    min_side: int | None = None
    max_side: int | None = None
    batch_size: int | None = None
    raw_weights: bool = False
    flip_test: bool = False
    test_sides: tuple[int, ...] | None = None
    threshold: float = DetectionSettings.threshold
    num_candidates: int = DetectionSettings.num_candidates
    nms_iou: float = DetectionSettings.nms_iou
    max_detections: int = DetectionSettings.max_detections
    eval_backend: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    workers: int | None = None
    max_pixels: int = MAX_PIXELS

    @property
    def name_of_set(self) -> str:
        return self.set_name or ("val" if self.compare or self.from_results else "test")

    @property
    def detection(self) -> DetectionSettings:
        return DetectionSettings(self.threshold, self.num_candidates, self.nms_iou, self.max_detections)


def evaluation_settings(argv: list[str] | None = None) -> EvaluationSettings:
    """The settings that the command line `argv`, or this process's, gives. UserError where flags contradict."""
    settings = parsed(build_parser(), EvaluationSettings, argv)
    if 0 < settings.num_draws < LEAST_DRAWS:
        raise UserError(
            f"--num_draws {settings.num_draws} is too few for an interval. Give {LEAST_DRAWS} or more, or 0 for none"
        )
    if settings.compare:
        refuse(settings, ("from_results",), "evaluates one result file, --compare compares two. Drop one of the two")
        refuse(settings, FOR_DETECTION, "is for detection. Drop it, or --compare")
    if settings.from_results:
        refuse(settings, FOR_DETECTION, "is for detection. Drop it, or --from_results")
    sides = settings.test_sides or ()
    if sides and settings.min_side:
        raise UserError("--test_sides and --min_side both give the shorter side. Drop one of the two")
    check_views_flags(sides)
    return settings


def build_parser() -> argparse.ArgumentParser:
    parser = parser_of(
        EvaluationSettings,
        "Evaluate a checkpoint on a set and write its result file, or evaluate or compare result files.",
        most_used=MOST_USED,
    )
    add_coco_path_flag(parser)
    parser.add_argument("--set_name", help="name of the set (default: test; with --from_results or --compare val)")
    parser.add_argument("--checkpoint_path", type=Path, help="the checkpoint to evaluate")
    parser.add_argument("--results_path", type=Path, help="file to write (default: {set_name}_bbox_results.json)")
    parser.add_argument(
        "--from_results",
        type=Path,
        metavar="FILE",
        help="evaluate this result file instead of detecting; needs no checkpoint and, except for pictures, no images",
    )
    parser.add_argument(
        "--compare",
        type=Path,
        nargs=2,
        metavar=("A", "B"),
        help="compare these result files; needs no checkpoint and, except for its picture, no images",
    )
    parser.add_argument(
        "--report",
        type=Path,
        help="folder for metrics.json, figures, and report.html to open; with --compare for its picture",
    )
    parser.add_argument(
        "--num_draws", type=whole_number(0), help="bootstrap samples of the images for confidence intervals; 0: none"
    )
    add_log_dir_flag(parser)
    parser.add_argument("--depth", type=int, choices=DEPTHS, help="stop unless the checkpoint has this depth")
    given = parser.add_argument_group("taken from the checkpoint unless given")
    given.add_argument("--min_side", type=whole_number(64, MOST_MIN_SIDE), help="shorter side of the images, pixels")
    given.add_argument("--max_side", type=whole_number(64), help="longest that the longer side may be, pixels")
    given.add_argument("--batch_size", type=whole_number(1), help="images per batch")
    parser.add_argument(
        "--raw_weights", action="store_true", help="evaluate the weights themselves, not their average from --ema_decay"
    )
    views = parser.add_argument_group("test-time augmentation", "the detections of all views are merged before NMS")
    add_views_flags(views)
    add_detection_flags(parser)
    add_eval_backend_flag(parser)
    add_machine_flags(parser)
    return parser
