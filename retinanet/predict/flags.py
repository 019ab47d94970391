"""The command line of predict, as settings."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from retinanet.cli.flags import number_from, parsed, parser_of, whole_number
from retinanet.cli.shared_flags import (
    add_detection_flags,
    add_device_flags,
    add_max_pixels_flag,
    add_views_flags,
    check_views_flags,
)
from retinanet.data.settings import MAX_PIXELS
from retinanet.runtime.errors import UserError

MOST_USED = (
    *("checkpoint_path", "output_path", "threshold", "classes", "save"),
    *("tile", "overlap", "flip_test", "device"),
)
PICTURES, CROPS = SAVES = ("pictures", "crops")  # also the names of their folders


@dataclass(frozen=True)
class PredictSettings:
    """What predict does; None where the checkpoint decides."""

    sources: tuple[str, ...] = ()
    checkpoint_path: Path = Path("output/best.pt")
    output_path: Path = Path("predictions")
    threshold: float | None = None
    classes: tuple[str, ...] | None = None
    save: tuple[str, ...] = (PICTURES,)
    tile: int | None = None
    overlap: float = 0.2
    flip_test: bool = False
    test_sides: tuple[int, ...] | None = None
    batch_size: int | None = None
    num_candidates: int | None = None
    nms_iou: float | None = None
    max_detections: int | None = None
    device: str = "auto"
    precision: str = "auto"
    max_pixels: int = MAX_PIXELS


def predict_settings(argv: list[str] | None = None) -> PredictSettings:
    """The settings that the command line `argv`, or this process's, gives. UserError where flags contradict."""
    settings = parsed(build_parser(), PredictSettings, argv)
    if settings.overlap != PredictSettings.overlap and settings.tile is None:
        raise UserError("--overlap is of tiles. Give --tile too, or drop it")
    if settings.overlap > 0.9:
        raise UserError(f"--overlap {settings.overlap:g} would make far too many tiles. Give 0.9 or less")
    check_views_flags(settings.test_sides or ())
    return settings


def build_parser() -> argparse.ArgumentParser:
    parser = parser_of(
        PredictSettings,
        "Detect objects in images and videos: pictures with boxes, and all detections as JSON and CSV. Exit code 1: "
        "some files could not be read.",
        most_used=MOST_USED,
        prog="python -m retinanet.predict",
    )
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="an image, a folder (with all below it), a glob in quotes, a .txt file of paths, or a video",
    )
    parser.add_argument("--checkpoint_path", type=Path, help="a checkpoint of train.py, or a file of retinanet.export")
    parser.add_argument("--output_path", type=Path, help="folder for what is written")
    parser.add_argument("--classes", nargs="+", metavar="NAME", help="keep these classes alone")
    parser.add_argument(
        "--save",
        choices=SAVES,
        nargs="*",
        help="what to write beside predictions.json and predictions.csv: pictures with boxes, and videos; crops, a "
        "file for each detection. Without a word: nothing",
    )
    views = parser.add_argument_group("more looks at an image", "their detections are merged before NMS")
    views.add_argument(
        "--tile",
        type=whole_number(64),
        metavar="SIDE",
        help="also look at tiles of this side, pixels of the image: for small objects in large images",
    )
    views.add_argument("--overlap", type=number_from(0, 1), help="of neighbouring tiles, as a share of their side")
    add_views_flags(views)
    add_detection_flags(
        parser,
        "keep detections with a higher score (default: the one with the best F1 in the training's last evaluation, 0.3 "
        "without one)",
        file_decides=True,
    )
    machine = parser.add_argument_group("machine")
    add_device_flags(machine)
    machine.add_argument("--batch_size", type=whole_number(1), help="images at a time (default: as in training)")
    add_max_pixels_flag(machine)
    return parser
