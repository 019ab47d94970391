"""What predict can be told."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retinanet.runtime.errors import UserError
from retinanet.settings.options import Given, number_from, option, options_of, parsed, part, whole_number
from retinanet.settings.shared import Detection, Device, Views, max_pixels_option

MOST_USED = (
    *("checkpoint_path", "output_path", "threshold", "classes", "save"),
    *("tile", "overlap", "flip_test", "device"),
)
PICTURES, CROPS = SAVES = ("pictures", "crops")  # also the names of their folders
MOST_OVERLAP = 0.9


def _file_decides(name: str, default: str | None = None) -> Any:
    """Detection's option, but None by default, as an ONNX file has its own."""
    how = options_of(Detection)[name]
    default = default or f"{getattr(Detection, name)}, or an ONNX file's own"
    return option(None, f"{how.text} (default: {default})", how.kind)


@dataclass(frozen=True)
class Looks:
    """Where predict looks in an image: tiles, other sizes, its mirror image."""

    tile: int | None = option(
        None,
        "also look at tiles of this side, pixels of the image: for small objects in large images",
        whole_number(64),
        metavar="SIDE",
    )
    overlap: float = option(0.2, "of neighbouring tiles, as a share of their side", number_from(0, 1))
    views: Views = part(Views)


@dataclass(frozen=True)
class FileDetection:
    """Detection, where the weights' file decides what isn't given."""

    threshold: float | None = _file_decides(
        "threshold", "the one with the best F1 in the training's last evaluation, 0.3 without one"
    )
    num_candidates: int | None = _file_decides("num_candidates")
    nms_iou: float | None = _file_decides("nms_iou")
    max_detections: int | None = _file_decides("max_detections")


@dataclass(frozen=True)
class Machine(Device):
    batch_size: int | None = option(None, "images at a time (default: as in training)", whole_number(1))
    max_pixels: int = max_pixels_option()


@dataclass(frozen=True)
class PredictSettings:
    sources: tuple[str, ...] = option(
        (),
        "an image, a folder (with all below it), a glob in quotes, a .txt file of paths, or a video",
        nargs="+",
        metavar="SOURCE",
        positional=True,
    )
    checkpoint_path: Path = option(
        Path("output/best.pt"), "a checkpoint of train.py, or a file of retinanet.export", Path
    )
    output_path: Path = option(Path("predictions"), "folder for what is written", Path)
    classes: tuple[str, ...] | None = option(None, "keep these classes alone", nargs="+", metavar="NAME")
    save: tuple[str, ...] = option(
        (PICTURES,),
        "what to write beside predictions.json and predictions.csv: pictures with boxes, and videos; crops, a file for "
        "each detection. Without a word: nothing",
        SAVES,
        nargs="*",
    )
    looks: Looks = part(Looks, "more looks at an image", "their detections are merged before NMS")
    detection: FileDetection = part(FileDetection, "detection")
    machine: Machine = part(Machine, "machine")

    def check(self, given: Given) -> None:
        """UserError where flags contradict each other."""
        if self.looks.tile is None:
            given.refuse(("overlap",), "is of tiles. Give --tile too, or drop it")
        if self.looks.overlap > MOST_OVERLAP:
            raise UserError(
                f"--overlap {self.looks.overlap:g} would make far too many tiles. Give {MOST_OVERLAP} or less"
            )
        self.looks.views.check()


def predict_settings(argv: list[str] | None = None) -> PredictSettings:
    """The settings that the command line `argv`, or this process's, gives. UserError where flags contradict."""
    description = (
        "Detect objects in images and videos: pictures with boxes, and all detections as JSON and CSV. Exit code 1: "
        "some files could not be read."
    )
    settings, given = parsed(
        PredictSettings, description, argv, most_used=MOST_USED, prog="python -m retinanet.predict"
    )
    settings.check(given)
    return settings
