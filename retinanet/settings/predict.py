"""Defines the flags of python -m retinanet.predict."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from retinanet.runtime.errors import UserError
from retinanet.settings.convert import COCO, IMAGES, LINK, VOC, YOLO
from retinanet.settings.options import Given, number_from, option, options_of, parsed, part, whole_number
from retinanet.settings.shared import BEST, Detection, Device, TestTiles, Views, max_pixels_option

MOST_USED = (
    *("checkpoint_path", "output_path", "threshold", "classes", "save"),
    *("tile", "overlap", "flip_test", "device"),
)
PICTURES, CROPS = "pictures", "crops"
PRELABELS = (COCO, YOLO, VOC)  # the formats of annotations
SAVES = (PICTURES, CROPS, *PRELABELS)  # also the names of their folders
SCORE = number_from(0, 1)


class ClassThreshold(NamedTuple):
    name: str | None  # the class; None: all other classes
    number: float


def class_threshold(text: str) -> ClassThreshold:
    """Parses a bare number, or CLASS=NUMBER, which is split at the last = sign."""
    name, equals, number = text.rpartition("=")
    try:
        return ClassThreshold(name if equals else None, SCORE(number))
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"expected a number {SCORE.limits}, or CLASS=NUMBER; got {text!r}") from None


def _file_decides(name: str) -> Any:
    """Returns Detection's option `name` with the default None, so that an exported file's own value can apply."""
    details = options_of(Detection)[name]
    return option(
        None, f"{details.text} (default: {getattr(Detection, name)}, or an exported file's own)", details.kind
    )


@dataclass(frozen=True)
class Looks:
    """Defines the flags for test-time augmentation and for detection in tiles."""

    tiling: TestTiles = part(TestTiles)
    views: Views = part(Views)


@dataclass(frozen=True)
class FileDetection:
    """Redefines Detection's flags: None means the value in the weights file or, if the file has none, the default."""

    threshold: tuple[ClassThreshold, ...] | None = option(
        None,
        f"{options_of(Detection)['threshold'].text}; CLASS=NUMBER is for one class, a bare number for the others "
        "(0 to 1; default: the threshold with the best F1 in the run's last evaluation, 0.3 if there was none)",
        class_threshold,
        nargs="+",
    )
    num_candidates: int | None = _file_decides("num_candidates")
    nms_iou: float | None = _file_decides("nms_iou")
    max_detections: int | None = _file_decides("max_detections")

    def by_class(self) -> dict[str | None, float] | None:
        """Returns thresholds by class name, with the key None for the other classes; None if the flag isn't given."""
        return None if self.threshold is None else {each.name: each.number for each in self.threshold}

    def check(self) -> None:
        names = [each.name for each in self.threshold or ()]
        for name in names:
            if names.count(name) > 1:
                numbers = " and ".join(f"{each.number:g}" for each in self.threshold or () if each.name == name)
                whose = "the other classes" if name is None else f"the class {name!r}"
                raise UserError(f"--threshold: {numbers} are both for {whose}. Keep one of them.")


@dataclass(frozen=True)
class Machine(Device):
    batch_size: int | None = option(None, "images at a time (default: as in training)", whole_number(1))
    max_pixels: int = max_pixels_option()


@dataclass(frozen=True)
class PredictSettings:
    sources: tuple[str, ...] = option(
        (),
        "an image, a folder (with its subfolders), a glob in quotes, a .txt file of paths, or a video",
        nargs="+",
        metavar="SOURCE",
        positional=True,
    )
    checkpoint_path: Path = option(
        Path("output") / BEST, "a checkpoint of train.py, or a file that retinanet.export wrote", Path
    )
    output_path: Path = option(Path("predictions"), "folder for the output", Path)
    classes: tuple[str, ...] | None = option(None, "only report these classes", nargs="+", metavar="NAME")
    save: tuple[str, ...] = option(
        (PICTURES,),
        "what to write besides predictions.json and predictions.csv: pictures, or videos, with boxes; crops, a file "
        "for each detection; the detections in images as annotations (pre-labels) for annotation tools and training: "
        "coco, yolo, voc. --save without a value writes nothing else",
        SAVES,
        nargs="*",
    )
    images: str = option(LINK, "how images get next to the annotations: symbolic links, copies, or not at all", IMAGES)
    looks: Looks = part(Looks, "test-time augmentation and tiling", "all detections are merged before NMS")
    detection: FileDetection = part(FileDetection, "detection")
    machine: Machine = part(Machine, "machine")

    def check(self, given: Given) -> None:
        """Raises UserError if flags contradict each other."""
        self.looks.tiling.check(given)
        if not set(self.save) & set(PRELABELS):
            given.refuse(("images",), f"only applies with --save {', '.join(PRELABELS)}. Add one, or remove it.")
        self.looks.views.check()
        self.detection.check()


def _sources_first(argv: Sequence[str]) -> list[str]:
    """Moves sources that follow --threshold, such as street.jpg in `--threshold 0.3 street.jpg`, to the front.

    A word that can't be a threshold counts as a source. The first word after --threshold always stays, so that a
    mistake in it is reported.
    """
    sources: list[str] = []
    others: list[str] = []
    place = 0  # words since --threshold, 0 outside its values
    for word in argv:
        if word.startswith("-"):
            place = int(len(word) > len("--t") and "--threshold".startswith(word))
        elif place:
            place += 1
        (sources if place > 2 and not _may_be_threshold(word) else others).append(word)
    return [*sources, *others]


def _may_be_threshold(word: str) -> bool:
    try:
        float(word.rpartition("=")[2])
    except ValueError:
        return False
    return True


def predict_settings(argv: list[str] | None = None) -> PredictSettings:
    """Reads the settings from `argv` or the command line. Raises UserError if flags contradict each other."""
    description = (
        "Detect objects in images and videos, and write pictures with boxes and all detections as JSON and CSV. Exit "
        "code 1: some files could not be read."
    )
    words = _sources_first(sys.argv[1:] if argv is None else argv)
    settings, given = parsed(
        PredictSettings, description, words, most_used=MOST_USED, prog="python -m retinanet.predict"
    )
    settings.check(given)
    return settings
