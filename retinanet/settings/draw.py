"""Defines the flags of vis.py, including train.py's flags that affect augmented images."""

from dataclasses import dataclass
from pathlib import Path

from retinanet.runtime.errors import UserError
from retinanet.settings.options import Given, number_from, option, parsed, part, whole_number
from retinanet.settings.shared import (
    MAX_SIDE,
    MIN_SIDE,
    Augmentation,
    TrainTiles,
    check_sides,
    coco_path_option,
    exif_option,
    max_pixels_option,
    max_side_option,
    min_side_option,
    white_level_option,
)
from retinanet.settings.train import PUBLISHED_SEED, Data

MOST_USED = (
    *("coco_path", "set_name", "image_id", "num_images", "vis_pred", "pred_file"),
    *("threshold", "picture_path", "augmented", "logs"),
)
# Flags that have no effect with --logs.
FOR_IMAGES = (
    *("coco_path", "set_name", "image_id", "num_images", "seed"),
    *("vis_pred", "pred_file", "threshold", "max_pixels", "exif", "white_level"),
    *("augmented", "output_path", "size", "columns", "hide_names"),
)
FOR_ONE_PICTURE = ("picture_path", "columns", "augmented", "show")
FOR_DETECTIONS = ("vis_pred", "pred_file", "threshold")
FOR_AUGMENTED = (
    *("min_side", "max_side", "train_sides", "flip", "augment", "tile", "overlap", "min_visible"),
    *("batch_size", "ignore_crowds"),
)


@dataclass(frozen=True)
class TrainingImages:
    augmented: bool = option(
        False,
        "draw each image as it is and as train.py augments it in 3 epochs; with --tile, a tile of it in each epoch",
        bool,
    )
    min_side: int = min_side_option(MIN_SIDE)
    max_side: int = max_side_option(MAX_SIDE)
    augmentation: Augmentation = part(Augmentation)
    tiling: TrainTiles = part(TrainTiles)
    batch_size: int = option(Data.batch_size, "images per batch", whole_number(1))
    ignore_crowds: bool = option(False, "also draw crowd regions, dashed, augmented with the image", bool)


@dataclass(frozen=True)
class Runs:
    logs: tuple[Path, ...] | None = option(
        None,
        "draw the losses and AP from these logs (files, folders with their subfolders, globs in quotes), and print a "
        "table of the runs",
        Path,
        nargs="+",
        metavar="LOG",
    )
    loss_scale: str | None = option(None, "axis of the losses (default: log)", ("log", "linear"))


@dataclass(frozen=True)
class DrawSettings:
    coco_path: Path = coco_path_option()
    set_name: str | None = option(None, "name of the set (default: val, or train with --augmented)")
    image_id: int | None = option(None, "the image to draw (default: --seed chooses)", int)
    num_images: int = option(1, "number of images, drawn in a grid", whole_number(1))
    seed: int | None = option(
        None,
        "chooses the images, and with --augmented their augmentation (default: 0, or "
        f"{PUBLISHED_SEED} with --augmented)",
        whole_number(0),
    )
    vis_pred: bool = option(False, "draw the detections in {set_name}_bbox_results.json", bool)
    pred_file: Path | None = option(None, "draw the detections in this result file", Path)
    threshold: float | None = option(
        None,
        "draw only detections that score above this (default: the threshold with the best F1 on the set; 0.3 if the "
        "set has no objects or none is found)",
        number_from(0, 1),
    )
    picture_path: Path | None = option(None, "file to write (default: vis.png, or curves.png with --logs)", Path)
    output_path: Path | None = option(None, "folder for a picture of each image, instead of one grid", Path)
    size: int | None = option(
        None,
        "longer side of each image in the picture, in pixels (default: 480; with --output_path the image's own, from "
        "480 to 2000)",
        whole_number(100, 10_000),
    )
    columns: int = option(4, "images side by side", whole_number(1))
    hide_names: bool = option(False, "draw boxes without class names and scores", bool)
    show: bool = option(False, "also open a window", bool)
    max_pixels: int = max_pixels_option()
    exif: str = exif_option()
    white_level: int = white_level_option()
    training: TrainingImages = part(
        TrainingImages, "training", "with --augmented, the same flags as train.py show the images that it trains on"
    )
    runs: Runs = part(Runs, "runs")

    @property
    def name_of_set(self) -> str:
        return self.set_name or ("train" if self.training.augmented else "val")

    @property
    def picture(self) -> Path:
        return self.picture_path or Path("curves.png" if self.runs.logs else "vis.png")

    @property
    def order_seed(self) -> int:
        if self.seed is not None:
            return self.seed
        return PUBLISHED_SEED if self.training.augmented else 0

    def check(self, given: Given) -> None:
        """Raises UserError if flags contradict each other."""
        if self.image_id is not None and self.num_images > 1:
            raise UserError("--image_id draws one image. Remove --num_images.")
        if self.runs.loss_scale and not self.runs.logs:
            raise UserError("--loss_scale only applies to the curves of --logs. Set --logs too, or remove it.")
        if self.runs.logs:
            given.refuse(FOR_IMAGES, "is for pictures of images. Remove it, or --logs.")
        if self.output_path:
            given.refuse(FOR_ONE_PICTURE, "is for a single picture. Remove it, or --output_path.")
        if self.training.augmented:
            given.refuse(FOR_DETECTIONS, "is for pictures of detections. Remove it, or --augmented.")
        else:
            given.refuse(FOR_AUGMENTED, "only applies to --augmented. Set --augmented too, or remove it.")
        if not self.vis_pred and not self.pred_file:
            given.refuse(("threshold",), "is for pictures of detections. Set --vis_pred or --pred_file, or remove it.")
        check_sides(self.training.min_side, self.training.max_side)
        self.training.augmentation.check()
        self.training.tiling.check(given)


def draw_settings(argv: list[str] | None = None) -> DrawSettings:
    """Reads the settings from `argv` or the command line. Raises UserError if flags contradict each other."""
    description = "Draw the objects and detections in images, or with --logs the curves of runs."
    settings, given = parsed(DrawSettings, description, argv, most_used=MOST_USED)
    settings.check(given)
    return settings
