"""The command line of convert, as settings."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from retinanet.cli.flags import number_above, parsed, parser_of, whole_number
from retinanet.coco.folder import COCO, FORMATS
from retinanet.runtime.errors import UserError

LINK, COPY, NONE = IMAGES = ("link", "copy", "none")  # what happens to the images


@dataclass(frozen=True)
class ConvertSettings:
    """What convert reads and writes."""

    source: Path = Path()
    output_path: Path = Path("data")
    read: str = "auto"
    write: str = COCO
    images: str = LINK
    split: tuple[float, ...] | None = None
    seed: int = 0
    group_by: str | None = None


def convert_settings(argv: list[str] | None = None) -> ConvertSettings:
    """The settings that the command line `argv`, or this process's, gives. UserError where flags contradict."""
    settings = parsed(build_parser(), ConvertSettings, argv)
    shares = settings.split
    if shares and not 2 <= len(shares) <= 3:
        raise UserError("--split takes two shares (train val) or three (train val test)")
    if shares and abs(sum(shares) - 1) > 1e-6:
        raise UserError(
            f"--split {' '.join(f'{share:g}' for share in shares)}: the shares add up to {sum(shares):g}, not 1"
        )
    if not shares and (settings.group_by is not None or settings.seed != ConvertSettings.seed):
        raise UserError("--group_by and --seed are for --split. Give it, or drop them")
    return settings


def build_parser() -> argparse.ArgumentParser:
    parser = parser_of(
        ConvertSettings,
        "Convert YOLO's, PASCAL VOC's or CSV annotations into a data folder for train.py, or split a data set.",
        prog="python -m retinanet.convert",
    )
    parser.add_argument(
        "source", type=Path, metavar="SOURCE", help="a data set's folder, its data.yaml, CSV or JSON file"
    )
    parser.add_argument("--output_path", type=Path, help="folder for what is written; nothing in it is overwritten")
    parser.add_argument("--from", dest="read", choices=("auto", *FORMATS), help="the format of SOURCE")
    parser.add_argument("--to", dest="write", choices=FORMATS, help="the format to write")
    parser.add_argument(
        "--images", choices=IMAGES, help="what to do with the images: symbolic links, copies, or nothing"
    )
    splitting = parser.add_argument_group(
        "splitting", "divide all images among new sets, each with its share of every class"
    )
    splitting.add_argument(
        "--split",
        type=number_above(0, 1),
        nargs="+",
        metavar="SHARE",
        help="of train and val, or of train, val and test",
    )
    splitting.add_argument("--seed", type=whole_number(0), help="another one gives another split")
    splitting.add_argument(
        "--group_by",
        metavar="REGEX",
        help="keep images together whose file names match with the same text, such as the frames of a video",
    )
    return parser
