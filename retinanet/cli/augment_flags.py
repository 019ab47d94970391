"""Flags of the training images and what changes them, which train.py and vis.py share."""

import argparse
from collections import Counter
from collections.abc import Callable, Sequence

from retinanet.cli.flags import number_from, whole_number
from retinanet.data.settings import AUGMENTATIONS, CROP, JITTER, MOST_MIN_SIDE, ZOOM_OUT
from retinanet.runtime.errors import UserError

NAMES = ("min_side", "max_side", "train_sides", "flip", "augment", "batch_size")


ONE_OR_MORE = whole_number(1)


def add_augment_flags(
    group: argparse._ActionsContainer,
    batch_size: Callable[[str], int] = ONE_OR_MORE,
    batch_help: str = "images per batch",
) -> None:
    group.add_argument("--min_side", type=whole_number(64, MOST_MIN_SIDE), help="shorter side of the images, pixels")
    group.add_argument("--max_side", type=whole_number(64), help="longest that the longer side may be, pixels")
    group.add_argument(
        "--train_sides",
        type=whole_number(64),
        nargs="+",
        metavar="N",
        help="multi-scale training: each batch draws its shorter side from these, the longer side's limit scales "
        "(default: --min_side alone)",
    )
    group.add_argument("--flip", type=number_from(0, 1), help="probability of a horizontal flip")
    group.add_argument(
        "--augment",
        choices=AUGMENTATIONS,
        nargs="+",
        metavar="NAME",
        help="augmentations: photometric (colours), crop (a part), zoom_out (smaller, with a border), jitter (0.1 to 2 "
        "times as large, cut or padded; replaces crop and zoom_out) (default: none)",
    )
    group.add_argument("--batch_size", type=batch_size, help=batch_help)


def check_augment_flags(
    min_side: int, max_side: int, train_sides: Sequence[int] | None, augment: Sequence[str] | None
) -> None:
    """UserError where they contradict each other."""
    if max_side < min_side:
        raise UserError(f"--max_side {max_side} is below --min_side {min_side}. Give both")
    for flag, values in (("train_sides", train_sides or ()), ("augment", augment or ())):
        if repeated := [value for value, count in Counter(values).items() if count > 1]:
            raise UserError(f"--{flag} names {repeated[0]} twice. Give each once")
    for name in (CROP, ZOOM_OUT):
        if augment and JITTER in augment and name in augment:
            raise UserError(f"--augment {JITTER} crops and pads already. Drop it or {name}")
