"""The flags of what a training image undergoes, which train.py and the picture of it share."""

import argparse
from collections import Counter

from retinanet.cli.flags import number_from, whole_number
from retinanet.data.settings import (
    AUGMENTATIONS,
    CROP,
    JITTER,
    MAX_SIDE,
    MIN_SIDE,
    MOST_MIN_SIDE,
    ZOOM_OUT,
    AugmentSettings,
)
from retinanet.training import optimizer

NAMES = ("min_side", "max_side", "train_sides", "flip", "augment", "batch_size")


def add_augment_flags(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--min_side",
        type=whole_number(64, MOST_MIN_SIDE),
        default=MIN_SIDE,
        help="shorter side, pixels",
    )
    group.add_argument("--max_side", type=whole_number(64), default=MAX_SIDE, help="longer side, at most")
    group.add_argument(
        "--train_sides",
        type=whole_number(64),
        nargs="+",
        metavar="N",
        help="shorter sides of training batches, one drawn for each; the longer is limited in proportion (default: "
        "--min_side alone)",
    )
    group.add_argument("--flip", type=number_from(0, 1), default=AugmentSettings.flip, help="probability of mirroring")
    group.add_argument(
        "--augment",
        choices=AUGMENTATIONS,
        nargs="+",
        metavar="NAME",
        help="random changes of training images: photometric (colours), crop (a part), zoom_out (smaller, with a "
        "border), jitter (0.1 to 2 times as large, cut or padded; in place of crop and zoom_out) (default: none)",
    )
    group.add_argument("--batch_size", type=whole_number(1), default=optimizer.BATCH_SIZE, help="images of a batch")


def check_augment_flags(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End the program where they contradict each other."""
    if args.max_side < args.min_side:
        parser.error(f"--max_side {args.max_side} is below --min_side {args.min_side}")
    for flag in ("train_sides", "augment"):
        twice = [value for value, count in Counter(getattr(args, flag) or ()).items() if count > 1]
        if twice:
            parser.error(f"--{flag} has {twice[0]} twice. Give each once")
    names = args.augment or ()
    for name in (CROP, ZOOM_OUT):
        if JITTER in names and name in names:
            parser.error(f"--augment {JITTER} cuts and pads already. Leave it or {name} away")


def augment_settings(args: argparse.Namespace) -> AugmentSettings:
    return AugmentSettings(args.flip, tuple(args.augment or ()), tuple(args.train_sides or ()))
