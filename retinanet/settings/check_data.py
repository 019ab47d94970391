"""Defines the flags of python -m retinanet.check_data."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from retinanet.runtime.errors import UserError
from retinanet.settings.options import Given, option, parsed, part, whole_number
from retinanet.settings.shared import (
    MAX_SIDE,
    MIN_SIDE,
    Anchors,
    TrainTiles,
    check_sides,
    coco_path_option,
    exif_option,
    max_pixels_option,
    max_side_option,
    min_side_option,
    white_level_option,
)
from retinanet.settings.train import PUBLISHED_SEED, Network

MOST_THREADS = 16
PROOF_DEPTH = 18  # of the ResNet that --prove trains


@dataclass(frozen=True)
class CheckDataSettings:
    coco_path: Path = coco_path_option()
    sets: tuple[str, ...] | None = option(
        None,
        "the sets to check, the training set first (default: train, val and test, if they exist)",
        nargs="+",
        metavar="SET",
    )
    min_side: int = min_side_option(MIN_SIDE, "length of the images' shorter side; use the value you will train with")
    max_side: int = max_side_option(MAX_SIDE, "limit on the longer side; use the value you will train with")
    anchors: Anchors = part(Anchors)
    tiling: TrainTiles = part(TrainTiles)
    max_pixels: int = max_pixels_option()
    exif: str = exif_option()
    white_level: int = white_level_option()
    threads: int = option(
        min(MOST_THREADS, os.cpu_count() or 1), "number of threads that decode images", whole_number(1)
    )
    picture_path: Path = option(Path("check_data.png"), "picture file for the charts", Path)
    no_pixels: bool = option(False, "skip the check of the boxes against the pixels", bool)
    all: bool = option(False, "print all counts and examples, not only the most important", bool)
    prove: bool = option(
        False,
        "then train a small detector for minutes (about four on one CPU core), and say whether the dataset can be "
        "learned and, if not, why. Exit code 0: learnable, 1: not, 3: can't tell in so short a run",
        bool,
    )
    weights: str = option(
        Network.weights,
        "with --prove: weights to start from: imagenet (torchvision's, downloaded once), none, a FILE with a "
        "ResNet-18's state dict, or a checkpoint of train.py",
    )
    seed: int = option(PUBLISHED_SEED, "with --prove: the seed of the random draws and of training", whole_number(0))
    output_path: Path = option(Path("prove"), "with --prove: folder of the pictures", Path)

    def check(self, given: Given) -> None:
        """Raises UserError if flags contradict each other."""
        if not self.prove:
            given.refuse(("weights", "seed", "output_path"), "only applies to --prove. Remove it, or add --prove.")
        if self.prove and self.no_pixels:
            raise UserError("--prove needs the pixels. Remove --no_pixels.")
        if self.weights in ("imagenet_v2", "coco"):
            raise UserError(
                f"--weights {self.weights}: --prove trains a ResNet-18, for which these weights don't exist. Use "
                "imagenet, none, or the path of a ResNet-18's state dict."
            )
        check_sides(self.min_side, self.max_side)
        self.anchors.check()
        self.tiling.check(given)
        if self.sets and len(set(self.sets)) < len(self.sets):
            raise UserError(f"--sets {' '.join(self.sets)}: a set is listed twice. List each set once.")


def check_data_settings(argv: list[str] | None = None) -> CheckDataSettings:
    """Reads the settings from `argv` or the command line. Raises UserError if flags contradict each other."""
    description = "Check a dataset before you pay for training. Exit code 0: good, 1: mistakes, 2: can't be read."
    settings, given = parsed(CheckDataSettings, description, argv, prog="python -m retinanet.check_data")
    settings.check(given)
    if settings.prove and "picture_path" not in given.names:
        settings = replace(settings, picture_path=settings.output_path / settings.picture_path)
    return settings
