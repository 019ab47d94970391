"""What convert can be told."""

from dataclasses import dataclass
from pathlib import Path

from retinanet.runtime.errors import UserError
from retinanet.settings.options import Given, number_above, option, parsed, part, whole_number

YOLO, VOC, CSV, COCO = FORMATS = ("yolo", "voc", "csv", "coco")
LINK, COPY, NONE = IMAGES = ("link", "copy", "none")  # what happens to the images


@dataclass(frozen=True)
class Splitting:
    split: tuple[float, ...] | None = option(
        None, "of train and val, or of train, val and test", number_above(0, 1), nargs="+", metavar="SHARE"
    )
    seed: int = option(0, "another one gives another split", whole_number(0))
    group_by: str | None = option(
        None,
        "keep images together whose file names match with the same text, such as the frames of a video",
        metavar="REGEX",
    )

    def check(self, given: Given) -> None:
        shares = self.split
        if shares and not 2 <= len(shares) <= 3:
            raise UserError("--split takes two shares (train val) or three (train val test)")
        if shares and abs(sum(shares) - 1) > 1e-6:
            raise UserError(
                f"--split {' '.join(f'{share:g}' for share in shares)}: the shares add up to {sum(shares):g}, not 1"
            )
        if not shares and given.changed & {"group_by", "seed"}:
            raise UserError("--group_by and --seed are for --split. Give it, or drop them")


@dataclass(frozen=True)
class ConvertSettings:
    source: Path = option(
        Path(), "a data set's folder, its data.yaml, CSV or JSON file", Path, metavar="SOURCE", positional=True
    )
    output_path: Path = option(Path("data"), "folder for what is written; nothing in it is overwritten", Path)
    read: str = option("auto", "the format of SOURCE", ("auto", *FORMATS), flag="from")
    write: str = option(COCO, "the format to write", FORMATS, flag="to")
    images: str = option(LINK, "what to do with the images: symbolic links, copies, or nothing", IMAGES)
    splitting: Splitting = part(
        Splitting, "splitting", "divide all images among new sets, each with its share of every class"
    )


def convert_settings(argv: list[str] | None = None) -> ConvertSettings:
    """The settings that the command line `argv`, or this process's, gives. UserError where flags contradict."""
    description = (
        "Convert YOLO's, PASCAL VOC's or CSV annotations into a data folder for train.py, or split a data set."
    )
    settings, given = parsed(ConvertSettings, description, argv, prog="python -m retinanet.convert")
    settings.splitting.check(given)
    return settings
