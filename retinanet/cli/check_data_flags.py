"""The command line of check_data, as settings."""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

from retinanet.checkpoints.settings import StartSettings, shapes_of
from retinanet.cli.flags import parsed, parser_of, whole_number
from retinanet.cli.shared_flags import (
    add_anchor_flags,
    add_coco_path_flag,
    add_max_pixels_flag,
    check_anchor_flags,
)
from retinanet.data.settings import MAX_PIXELS, MAX_SIDE, MIN_SIDE, MOST_MIN_SIDE
from retinanet.detector.settings import AnchorShapes
from retinanet.runtime.errors import UserError


@dataclass(frozen=True)
class CheckSettings:
    """What check_data checks and writes."""

    coco_path: Path = Path("data")
    sets: tuple[str, ...] | None = None
    min_side: int = MIN_SIDE
    max_side: int = MAX_SIDE
    anchor_scale: float = StartSettings.anchor_scale
    anchor_ratios: tuple[float, ...] = StartSettings.anchor_ratios
    anchor_octaves: int = StartSettings.anchor_octaves
    max_pixels: int = MAX_PIXELS
    threads: int = min(16, os.cpu_count() or 1)
    picture_path: Path = Path("check_data.png")
    all: bool = False

    @property
    def anchor_shapes(self) -> AnchorShapes:
        return shapes_of(self.anchor_scale, self.anchor_ratios, self.anchor_octaves)


def check_settings(argv: list[str] | None = None) -> CheckSettings:
    """The settings that the command line `argv`, or this process's, gives. UserError where flags contradict."""
    settings = parsed(build_parser(), CheckSettings, argv)
    if settings.max_side < settings.min_side:
        raise UserError(f"--max_side {settings.max_side} is below --min_side {settings.min_side}. Give both")
    check_anchor_flags(settings.anchor_ratios)
    if settings.sets and len(set(settings.sets)) < len(settings.sets):
        raise UserError(f"--sets {' '.join(settings.sets)} names a set twice. Give each once")
    return settings


def build_parser() -> argparse.ArgumentParser:
    parser = parser_of(
        CheckSettings,
        "Check a data set before you pay for training. Exit code 0: good, 1: mistakes, 2: can't be read.",
        prog="python -m retinanet.check_data",
    )
    add_coco_path_flag(parser)
    parser.add_argument(
        "--sets",
        nargs="+",
        metavar="SET",
        help="the sets to check, the training set first (default: those of train, val and test that exist)",
    )
    parser.add_argument("--min_side", type=whole_number(64, MOST_MIN_SIDE), help="as for train.py")
    parser.add_argument("--max_side", type=whole_number(64), help="as for train.py")
    add_anchor_flags(parser)
    add_max_pixels_flag(parser)
    parser.add_argument("--threads", type=whole_number(1), help="threads that decode images")
    parser.add_argument("--picture_path", type=Path, help="file to draw the charts in")
    parser.add_argument("--all", action="store_true", help="print everything, not only what matters most")
    return parser
