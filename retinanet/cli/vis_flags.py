"""The command line of vis.py, as settings."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from retinanet.cli.augment_flags import NAMES, add_augment_flags, check_augment_flags
from retinanet.cli.flags import number_from, parsed, parser_of, refuse, whole_number
from retinanet.cli.shared_flags import add_coco_path_flag, add_max_pixels_flag
from retinanet.data.settings import MAX_PIXELS, AugmentSettings
from retinanet.runtime.errors import UserError
from retinanet.training.settings import PUBLISHED_SEED, TrainSettings

MOST_USED = (
    *("coco_path", "set_name", "image_id", "num_images", "vis_pred", "pred_file"),
    *("threshold", "picture_path", "augmented", "logs"),
)
# Flags without a meaning beside --logs.
FOR_IMAGES = (
    *("coco_path", "set_name", "image_id", "num_images", "seed"),
    *("vis_pred", "pred_file", "threshold", "max_pixels", "augmented", "output_path", "size", "columns", "hide_names"),
)
FOR_DETECTIONS = ("vis_pred", "pred_file", "threshold")


@dataclass(frozen=True)
class PictureSettings:
    """What vis.py draws; the defaults of the training images are train.py's."""

    coco_path: Path = Path("data")
    set_name: str | None = None
    image_id: int | None = None
    num_images: int = 1
    seed: int | None = None
    vis_pred: bool = False
    pred_file: Path | None = None
    threshold: float | None = None
    picture_path: Path | None = None
    output_path: Path | None = None
    size: int | None = None
    columns: int = 4
    hide_names: bool = False
    show: bool = False
    max_pixels: int = MAX_PIXELS
    augmented: bool = False
    min_side: int = TrainSettings.min_side
    max_side: int = TrainSettings.max_side
    train_sides: tuple[int, ...] | None = None
    flip: float = TrainSettings.flip
    augment: tuple[str, ...] | None = None
    batch_size: int = TrainSettings.batch_size
    ignore_crowds: bool = False
    logs: tuple[Path, ...] | None = None
    loss_scale: str | None = None

    @property
    def name_of_set(self) -> str:
        return self.set_name or ("train" if self.augmented else "val")

    @property
    def picture(self) -> Path:
        return self.picture_path or Path("curves.png" if self.logs else "vis.png")

    @property
    def order_seed(self) -> int:
        if self.seed is not None:
            return self.seed
        return PUBLISHED_SEED if self.augmented else 0

    @property
    def augmentation(self) -> AugmentSettings:
        return AugmentSettings(self.flip, self.augment or (), self.train_sides or ())


def picture_settings(argv: list[str] | None = None) -> PictureSettings:
    """The settings that the command line `argv`, or this process's, gives. UserError where flags contradict."""
    settings = parsed(build_parser(), PictureSettings, argv)
    if settings.image_id is not None and settings.num_images > 1:
        raise UserError("--image_id draws one image. Drop --num_images")
    if settings.loss_scale and not settings.logs:
        raise UserError("--loss_scale is for the curves of --logs")
    if settings.logs:
        refuse(settings, FOR_IMAGES, "is for pictures of images. Drop it, or --logs")
    if settings.output_path:
        refuse(
            settings, ("picture_path", "columns", "augmented", "show"), "is for one picture. Drop it, or --output_path"
        )
    if settings.augmented:
        refuse(settings, FOR_DETECTIONS, "is for pictures of detections. Drop it, or --augmented")
    else:
        refuse(settings, (*NAMES, "ignore_crowds"), "is for --augmented")
    check_augment_flags(settings.min_side, settings.max_side, settings.train_sides, settings.augment)
    return settings


def build_parser() -> argparse.ArgumentParser:
    parser = parser_of(
        PictureSettings,
        "Draw the objects of images and what a model found in them, or with --logs the curves of runs.",
        most_used=MOST_USED,
    )
    add_coco_path_flag(parser)
    parser.add_argument("--set_name", help="name of the set (default: val, with --augmented train)")
    parser.add_argument("--image_id", type=int, help="the image to draw (default: --seed chooses)")
    parser.add_argument("--num_images", type=whole_number(1), help="number of images, drawn in a grid")
    parser.add_argument(
        "--seed",
        type=whole_number(0),
        help="which images are drawn, and with --augmented how they change (default: 0, with --augmented "
        f"{PUBLISHED_SEED})",
    )
    parser.add_argument("--vis_pred", action="store_true", help="draw the detections in {set_name}_bbox_results.json")
    parser.add_argument("--pred_file", type=Path, help="draw the detections in this result file")
    parser.add_argument(
        "--threshold",
        type=number_from(0, 1),
        help="draw detections with a higher score (default: the best F1's on the set, 0.3 where it has no objects or "
        "none is hit)",
    )
    parser.add_argument("--picture_path", type=Path, help="file to write (default: vis.png, with --logs curves.png)")
    parser.add_argument(
        "--output_path", type=Path, help="folder for a picture of each image instead of one picture of all"
    )
    parser.add_argument(
        "--size",
        type=whole_number(100, 10_000),
        help="longer side of each image in the picture, pixels (default: 480; with --output_path the image's, at most "
        "2000)",
    )
    parser.add_argument("--columns", type=whole_number(1), help="images side by side")
    parser.add_argument("--hide_names", action="store_true", help="draw boxes without class names and scores")
    parser.add_argument("--show", action="store_true", help="also open a window")
    add_max_pixels_flag(parser)
    training = parser.add_argument_group("training", "with train.py's flags and --seed: the images it trains on")
    training.add_argument(
        "--augmented", action="store_true", help="draw each image as it is, and as train.py changes it in 3 epochs"
    )
    add_augment_flags(training)
    training.add_argument(
        "--ignore_crowds", action="store_true", help="crowd regions, dashed, are changed with the image"
    )
    runs = parser.add_argument_group("runs")
    runs.add_argument(
        "--logs", type=Path, nargs="+", help="draw the losses and AP in these logs, and print a table of the runs"
    )
    runs.add_argument("--loss_scale", choices=("log", "linear"), help="axis of the losses (default: log)")
    return parser
