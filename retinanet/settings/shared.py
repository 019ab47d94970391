"""Options of several commands: the data folder, the images' size, anchors, detection, the machine, COCO's table."""

import argparse
import importlib.util
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retinanet.detector.settings import AnchorShapes, DetectionSettings
from retinanet.runtime.errors import UserError
from retinanet.settings.options import number_from, option, whole_number

MIN_SIDE, MAX_SIDE = 608, 1024
LEAST_SIDE, MOST_MIN_SIDE = 64, 2**13  # larger images fill a GPU's memory one by one
MAX_PIXELS = 89_000_000  # an RGB image of this many is 267 MB
PHOTOMETRIC, CROP, ZOOM_OUT, JITTER = AUGMENTATIONS = ("photometric", "crop", "zoom_out", "jitter")
FROM_ORIGINAL = frozenset((CROP, JITTER))  # they enlarge parts, and need the pixels that a resized image has lost
PRECISIONS = ("auto", "float32", "float16", "bfloat16")
BACKENDS = ("hotcoco", "pycocotools")  # compute COCO's table; the fastest first


def coco_path_option() -> Any:
    return option(Path("data"), "the data folder; see data/README.md", Path, may_change=True)


def min_side_option(default: int | None, text: str = "shorter side of the images, pixels") -> Any:
    return option(default, text, whole_number(LEAST_SIDE, MOST_MIN_SIDE))


def max_side_option(default: int | None, text: str = "longest that the longer side may be, pixels") -> Any:
    return option(default, text, whole_number(LEAST_SIDE))


def max_pixels_option() -> Any:
    return option(
        MAX_PIXELS, "refuse images with more pixels, before they are decoded", whole_number(1), may_change=True
    )


def log_dir_option() -> Any:
    text = "also write the log to a file in this folder, named after the run; see log/README.md"
    return option(None, text, Path, may_change=True)


def eval_backend_option() -> Any:
    text = "library that computes COCO's table: hotcoco or pycocotools, which give equal numbers; auto: the fastest "
    return option("auto", text + "installed", eval_backend, may_change=True)


@dataclass(frozen=True)
class Augmentation:
    """How a training changes its images."""

    train_sides: tuple[int, ...] | None = option(
        None,
        "multi-scale training: each batch draws its shorter side from these, the longer side's limit scales "
        "(default: --min_side alone)",
        whole_number(LEAST_SIDE),
        nargs="+",
        metavar="N",
    )
    flip: float = option(0.5, "probability of a horizontal flip", number_from(0, 1))
    augment: tuple[str, ...] | None = option(
        None,
        "augmentations: photometric (colours), crop (a part), zoom_out (smaller, with a border), jitter (0.1 to 2 "
        "times as large, cut or padded; replaces crop and zoom_out) (default: none)",
        AUGMENTATIONS,
        nargs="+",
        metavar="NAME",
    )

    def check(self) -> None:
        augment = self.augment or ()
        for flag, values in (("train_sides", self.train_sides or ()), ("augment", augment)):
            if repeated := [value for value, count in Counter(values).items() if count > 1]:
                raise UserError(f"--{flag} names {repeated[0]} twice. Give each once")
        for name in (CROP, ZOOM_OUT):
            if JITTER in augment and name in augment:
                raise UserError(f"--augment {JITTER} crops and pads already. Drop it or {name}")


def check_sides(min_side: int, max_side: int) -> None:
    """UserError where no image has such a size."""
    if max_side < min_side:
        raise UserError(f"--max_side {max_side} is below --min_side {min_side}. Give both")


@dataclass(frozen=True)
class Anchors:
    """The anchors of a cell as flags: `num_octaves` sizes from `scale` strides to below its double, in all ratios."""

    anchor_scale: float = option(
        AnchorShapes().side, "side of the smallest anchors, in strides of their level", number_from(0.25, 64)
    )
    anchor_ratios: tuple[float, ...] = option(
        AnchorShapes().ratios, "height / width of the anchors", number_from(0.02, 50), nargs="+", metavar="RATIO"
    )
    anchor_octaves: int = option(
        len(AnchorShapes().scales),
        "sizes of anchors on each level, from one octave to the next",
        whole_number(1, 10),
    )

    @property
    def shapes(self) -> AnchorShapes:
        scales = tuple(2 ** (number / self.anchor_octaves) for number in range(self.anchor_octaves))
        return AnchorShapes(self.anchor_scale, self.anchor_ratios, scales)

    def check(self) -> None:
        if len(set(self.anchor_ratios)) < len(self.anchor_ratios):
            raise UserError("--anchor_ratios names a ratio twice. Give each once")


@dataclass(frozen=True)
class Detection(DetectionSettings):
    """DetectionSettings as flags."""

    threshold: float = option(DetectionSettings.threshold, "keep detections with a higher score", number_from(0, 1))
    num_candidates: int = option(
        DetectionSettings.num_candidates, "top-scoring candidates of an image that enter NMS", whole_number(1)
    )
    nms_iou: float = option(
        DetectionSettings.nms_iou,
        "NMS drops a detection that overlaps a better one by more than this IoU",
        number_from(0, 1),
    )
    max_detections: int = option(DetectionSettings.max_detections, "most detections of an image", whole_number(1))


@dataclass(frozen=True)
class Views:
    """Test-time augmentation."""

    flip_test: bool = option(False, "also detect on the mirror image", bool)
    test_sides: tuple[int, ...] | None = option(
        None,
        "detect at each of these shorter sides; the longer side's limit scales with them (default: the checkpoint's "
        "min_side alone)",
        whole_number(LEAST_SIDE),
        nargs="+",
        metavar="SIDE",
    )

    def check(self) -> None:
        sides = self.test_sides or ()
        for side in sides:
            if sides.count(side) > 1:
                raise UserError(f"--test_sides: {side} appears twice, and would find everything twice. Give it once")


def device_name(text: str) -> str:
    """A kind: auto, cpu, cuda or cuda:N. Whether the machine has it is asked when PyTorch is there."""
    device, _, number = text.partition(":")
    if text not in ("auto", "cpu", "cuda") and not (device == "cuda" and number.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not one of auto, cpu, cuda, cuda:0, cuda:1 ...")
    return text


@dataclass(frozen=True)
class Device:
    device: str = option("auto", "auto (the GPU if there is one), cpu, cuda or cuda:N", device_name, may_change=True)
    precision: str = option(
        "auto",
        "number format of the network; auto: bfloat16 on a GPU that has it, otherwise float32 (TF32 on a GPU)",
        PRECISIONS,
        may_change=True,
    )


@dataclass(frozen=True)
class Machine(Device):
    workers: int | None = option(
        None, "loader processes (default: 1 on a CPU, up to 8 for a GPU)", whole_number(0), may_change=True
    )
    max_pixels: int = max_pixels_option()


def installed_backends() -> list[str]:
    """The installed BACKENDS, the fastest first."""
    return [backend for backend in BACKENDS if importlib.util.find_spec(backend)]


def eval_backend(text: str) -> str:
    """A kind: a backend that is installed; auto is the fastest, and stays auto where none is.

    Not every run needs one: coco_table.require_backend is for those that do.
    """
    backends = installed_backends()
    if text == "auto":
        return backends[0] if backends else text
    if text not in BACKENDS:
        raise argparse.ArgumentTypeError(f"{text!r} is not one of auto, {', '.join(BACKENDS)}")
    if text not in backends:
        raise argparse.ArgumentTypeError(f"{text} is not installed: pip install {text}, or drop the flag")
    return text
