"""Defines options that several commands share, such as those for data, anchors, tiles, detection and the machine."""

import argparse
import importlib.util
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from retinanet.detector.settings import AnchorShapes, DetectionSettings
from retinanet.runtime.errors import UserError
from retinanet.settings.options import Given, number_above, number_from, option, whole_number

BEST, FINAL = "best.pt", "model_final.pt"  # a run's checkpoint with the best AP, and its last
MIN_SIDE, MAX_SIDE = 608, 1024
OVERLAP, MOST_OVERLAP = 0.2, 0.9  # of tiles; a larger overlap would give far too many tiles
LEAST_SIDE, MOST_MIN_SIDE = 64, 2**13  # a single larger image would fill a GPU's memory
MAX_PIXELS = 89_000_000  # an RGB image with this many pixels takes 267 MB
EMBED, LINK = "embed", "link"  # how the report's page gets its pictures
UPRIGHT, RAW = EXIF = ("upright", "raw")  # how images with an EXIF orientation are read
WHITE_LEVEL = 2**16 - 1  # the value of white in 16-bit pictures
PHOTOMETRIC, CROP, ZOOM_OUT, JITTER = AUGMENTATIONS = ("photometric", "crop", "zoom_out", "jitter")
FROM_ORIGINAL = frozenset((CROP, JITTER))  # these enlarge parts of an image, so they need the original's pixels
PRECISIONS = ("auto", "float32", "float16", "bfloat16")
BACKENDS = ("hotcoco", "pycocotools")  # libraries that compute the COCO table, fastest first


def coco_path_option() -> Any:
    return option(Path("data"), "the dataset folder; layout: data/README.md", Path, may_change=True)


def min_side_option(default: int | None, text: str = "length of the images' shorter side, in pixels") -> Any:
    return option(default, text, whole_number(LEAST_SIDE, MOST_MIN_SIDE))


def max_side_option(default: int | None, text: str = "limit on the longer side, in pixels") -> Any:
    return option(default, text, whole_number(LEAST_SIDE))


def max_pixels_option() -> Any:
    return option(
        MAX_PIXELS, "refuse images with more pixels, before they are decoded", whole_number(1), may_change=True
    )


def exif_option(default: str | None = UPRIGHT) -> Any:
    text = (
        "how to read an image with an EXIF orientation if its annotated size doesn't show what the boxes refer to: "
        "upright, as viewers show the image, or raw, as its pixels are stored"
    )
    return option(default, text, EXIF)


def white_level_option() -> Any:
    return option(
        WHITE_LEVEL,
        "the value of white in images with 16 bits per channel, such as 4095 for the 12 bits of a camera",
        whole_number(1, WHITE_LEVEL),
    )


def log_dir_option() -> Any:
    text = "also write the log to a file in this folder, named after the run: log/README.md"
    return option(None, text, Path, may_change=True, repeated=False)


def log_time_option() -> Any:
    text = "start each line of stdout and of the log with the local time"
    return option(False, text, bool, may_change=True, repeated=False)


def eval_backend_option() -> Any:
    text = (
        "library that computes the COCO table: hotcoco or pycocotools, with equal numbers; auto: the fastest installed"
    )
    return option("auto", text, eval_backend, may_change=True, repeated=False)


@dataclass(frozen=True)
class Augmentation:
    """Defines the flags for the changes that training makes to its images."""

    train_sides: tuple[int, ...] | None = option(
        None,
        "multi-scale training: each batch uses one of these shorter sides, chosen at random; the limit on the longer "
        "side scales along (default: --min_side only)",
        whole_number(LEAST_SIDE),
        nargs="+",
        metavar="N",
    )
    flip: float = option(0.5, "probability of a horizontal flip", number_from(0, 1))
    augment: tuple[str, ...] | None = option(
        None,
        "augmentations: photometric (colours), crop (a part around an object), zoom_out (smaller, with a border), "
        "jitter (0.1 to 2 times as large, cropped or padded; replaces crop and zoom_out) (default: none)",
        AUGMENTATIONS,
        nargs="+",
        metavar="NAME",
    )

    def check(self) -> None:
        augment = self.augment or ()
        for flag, values in (("train_sides", self.train_sides or ()), ("augment", augment)):
            if repeated := [value for value, count in Counter(values).items() if count > 1]:
                raise UserError(f"--{flag}: {repeated[0]} is listed twice. List each value once.")
        for name in (CROP, ZOOM_OUT):
            if JITTER in augment and name in augment:
                raise UserError(f"--augment {JITTER}: it already crops and pads. Remove {name} or {JITTER}.")


def check_sides(min_side: int, max_side: int) -> None:
    """Raises UserError if the limit on the longer side is less than the shorter side."""
    if max_side < min_side:
        raise UserError(
            f"--min_side {min_side} is larger than --max_side {max_side}. Raise --max_side or lower --min_side."
        )


@dataclass(frozen=True)
class Anchors:
    """Defines the flags for the anchors of each feature-map cell.

    Anchor sizes start at `anchor_scale` strides and stay below twice that; each size comes in all `anchor_ratios`.
    """

    anchor_scale: float = option(
        AnchorShapes().side,
        "side of the smallest anchor on each level, in multiples of the level's stride",
        number_from(0.25, 64),
    )
    anchor_ratios: tuple[float, ...] = option(
        AnchorShapes().ratios, "anchor shapes: height / width", number_from(0.02, 50), nargs="+", metavar="RATIO"
    )
    anchor_octaves: int = option(
        len(AnchorShapes().scales),
        "anchor sizes per level, from the smallest to below twice that (scales per octave)",
        whole_number(1, 10),
    )

    @property
    def shapes(self) -> AnchorShapes:
        scales = tuple(2 ** (number / self.anchor_octaves) for number in range(self.anchor_octaves))
        return AnchorShapes(self.anchor_scale, self.anchor_ratios, scales)

    def check(self) -> None:
        if len(set(self.anchor_ratios)) < len(self.anchor_ratios):
            raise UserError("--anchor_ratios: a ratio is listed twice. List each ratio once.")


@dataclass(frozen=True)
class Detection(DetectionSettings):
    """Defines the flags for DetectionSettings."""

    threshold: float = option(
        DetectionSettings.threshold, "keep only detections that score above this", number_from(0, 1)
    )
    num_candidates: int = option(
        DetectionSettings.num_candidates, "top-scoring candidates per image that enter NMS", whole_number(1)
    )
    nms_iou: float = option(
        DetectionSettings.nms_iou,
        "NMS drops a detection that overlaps a better one of its class by more than this IoU",
        number_from(0, 1),
    )
    max_detections: int = option(DetectionSettings.max_detections, "detections kept per image", whole_number(1))


@dataclass(frozen=True)
class Views:
    """Defines the flags for test-time augmentation."""

    flip_test: bool = option(False, "also detect in the mirror image", bool)
    test_sides: tuple[int, ...] | None = option(
        None,
        "detect at each of these shorter sides; the limit on the longer side scales along (default: only the "
        "checkpoint's min_side)",
        whole_number(LEAST_SIDE),
        nargs="+",
        metavar="SIDE",
    )

    def check(self) -> None:
        sides = self.test_sides or ()
        for side in sides:
            if sides.count(side) > 1:
                raise UserError(f"--test_sides: {side} is listed twice. List each side once.")


class Tiles(NamedTuple):
    """Describes the square tiles into which an image is cut."""

    side: int  # in original pixels
    overlap: float  # of neighbouring tiles, as a fraction of their side

    @property
    def step(self) -> int:
        """Returns the largest distance between the starts of neighbouring tiles."""
        return max(1, int(self.side * (1 - self.overlap)))

    @property
    def words(self) -> list[str]:
        """Returns the flags that select these tiles."""
        return ["--tile", str(self.side), "--overlap", f"{self.overlap:g}"]


def tiles_from(side: object, overlap: object) -> Tiles | None:
    """Returns the Tiles for the values `side` and `overlap`, read from a file; None if the values are unusable."""
    if isinstance(side, int) and side >= LEAST_SIDE and isinstance(overlap, float) and 0 <= overlap <= MOST_OVERLAP:
        return Tiles(side, overlap)
    return None


def tile_side(text: str) -> int:
    """Parses the length of a tile's side; 0 means no tiles."""
    side = whole_number(0)(text)
    return side if side == 0 else whole_number(LEAST_SIDE)(text)


OVERLAP_TEXT = "overlap of neighbouring tiles, as a fraction of their side"


@dataclass(frozen=True)
class TrainTiles:
    """Defines the flags for training on tiles."""

    tile: int | None = option(
        None,
        "also train on square tiles with this side, in pixels of the image file, such as 640; for small objects in "
        "large images. Tiles are resized to --min_side and --max_side, like whole images (docs/training.md)",
        whole_number(LEAST_SIDE),
        metavar="SIDE",
    )
    overlap: float = option(OVERLAP, OVERLAP_TEXT, number_from(0, MOST_OVERLAP))
    min_visible: float = option(
        0.5,
        "an object is a target in a tile that shows at least this fraction of its area; in other tiles, it is ignored",
        number_above(0, 1),
    )

    @property
    def tiles(self) -> Tiles | None:
        return Tiles(self.tile, self.overlap) if self.tile else None

    @property
    def least_visible(self) -> float | None:
        """Returns --min_visible; None without tiles."""
        return self.min_visible if self.tile else None

    def check(self, given: Given) -> None:
        if self.tile is None:
            given.refuse(("overlap", "min_visible"), "only applies with --tile. Set --tile too, or remove it.")


@dataclass(frozen=True)
class TestTiles:
    """Defines the flags for detection in tiles; None means the value from training."""

    tile: int | None = option(
        None,
        "also detect in square tiles with this side, in pixels of the image file, such as 640; for small objects in "
        "large images; 0: no tiles (default: as in training)",
        tile_side,
        metavar="SIDE",
    )
    overlap: float | None = option(
        None, f"{OVERLAP_TEXT} (default: as in training, or {OVERLAP})", number_from(0, MOST_OVERLAP)
    )

    def check(self, given: Given) -> None:
        if self.tile == 0:
            given.refuse(("overlap",), "has no effect with --tile 0. Remove one of the two.")


@dataclass(frozen=True)
class ReportPictures:
    """Defines the flags for the pictures in the HTML report."""

    report_images: str = option(EMBED, "embed the pictures in report.html, or link to the image files", (EMBED, LINK))
    report_mb: float = option(
        15.0,
        "embed pictures up to this many megabytes, the most telling first; pictures shrink if not all fit",
        number_from(0),
    )

    def check(self, given: Given) -> None:
        if self.report_images == LINK:
            given.refuse(("report_mb",), "limits pictures that are embedded. Remove it, or --report_images link.")


def device_name(text: str) -> str:
    """Parses auto, cpu, cuda or cuda:N. Whether the device exists is checked later, when PyTorch is imported."""
    device, _, number = text.partition(":")
    if text not in ("auto", "cpu", "cuda") and not (device == "cuda" and number.isdecimal()):
        raise argparse.ArgumentTypeError(f"expected auto, cpu, cuda, or cuda:0, cuda:1 ...; got {text!r}")
    return text


@dataclass(frozen=True)
class Device:
    device: str = option(
        "auto",
        "auto (the GPU if there is one), cpu, cuda or cuda:N",
        device_name,
        may_change=True,
        repeated=False,
    )
    precision: str = option(
        "auto",
        "number format of the network; auto: bfloat16 on a GPU that has it and, in predict, also on a CPU where it is "
        "faster; otherwise float32 (TF32 on a GPU)",
        PRECISIONS,
        may_change=True,
    )


@dataclass(frozen=True)
class Machine(Device):
    workers: int | None = option(
        None,
        "loader processes; 0 loads in the main process (default: 1 on a CPU, up to 8 for a GPU)",
        whole_number(0),
        may_change=True,
        repeated=False,
    )
    max_pixels: int = max_pixels_option()


def installed_backends() -> list[str]:
    """Returns the installed BACKENDS, fastest first."""
    return [backend for backend in BACKENDS if importlib.util.find_spec(backend)]


def eval_backend(text: str) -> str:
    """Parses the name of an installed backend; auto becomes the fastest one, or stays auto if none is installed.

    Not every run needs a backend; a run that needs one calls coco_table.require_backend.
    """
    backends = installed_backends()
    if text == "auto":
        return backends[0] if backends else text
    if text not in BACKENDS:
        raise argparse.ArgumentTypeError(f"expected auto, {' or '.join(BACKENDS)}; got {text!r}")
    if text not in backends:
        raise argparse.ArgumentTypeError(f"{text} is not installed. Install it with: pip install {text}")
    return text
