"""Defines the flags of python -m retinanet.convert."""

from dataclasses import dataclass
from pathlib import Path

from retinanet.runtime.errors import UserError
from retinanet.runtime.printable import counted
from retinanet.settings.options import Given, number_above, option, parsed, part, whole_number
from retinanet.settings.shared import exif_option

YOLO, VOC, CSV, COCO = WRITTEN = ("yolo", "voc", "csv", "coco")
CVAT, LABELSTUDIO, LABELME = ONLY_READ = ("cvat", "labelstudio", "labelme")
BOXES, OUTLINES, KEYPOINTS, TRACKS = ROWS = ("boxes", "outlines", "keypoints", "tracks")
STOP, SKIP = BAD_LABELS = ("stop", "skip")
LINK, COPY, NONE = IMAGES = ("link", "copy", "none")  # how the output gets the images
AS_GIVEN = "as_given"
BOX_READINGS = (  # data/box_readings.py defines each
    AS_GIVEN,
    "centres",
    "corner_less_half",
    "corners",
    "mirrored",
    "upside_down",
    "half_turn",
    "turned_left",
    "turned_left_pixels",
    "turned_right",
    "turned_right_pixels",
    "swapped",
    "swapped_fractions",
    "scaled_up",
    "scaled_down",
    "shifted_right",
    "shifted_left",
    "shifted_down",
    "shifted_up",
)


@dataclass(frozen=True)
class Splitting:
    split: tuple[float, ...] | None = option(
        None,
        "fractions for train and val, or train, val and test, such as 0.8 0.1 0.1",
        number_above(0, 1),
        nargs="+",
        metavar="SHARE",
    )
    seed: int = option(0, "seed of the random split", whole_number(0))
    group_by: str | None = option(
        None,
        r"keep images whose file names match with the same text together, such as the frames of a video: '^clip\d+'",
        metavar="REGEX",
    )
    group_similar: bool = option(
        False, "keep images that look alike together, such as copies or the frames of a video; decodes all images", bool
    )

    def check(self, given: Given) -> None:
        shares = self.split
        if shares and not 2 <= len(shares) <= 3:
            raise UserError(
                f"--split has {counted(len(shares), 'fraction')}. Use two (train val) or three (train val test)."
            )
        if shares and abs(sum(shares) - 1) > 1e-6:
            raise UserError(
                f"--split {' '.join(f'{share:g}' for share in shares)}: the fractions add up to {sum(shares):g}. They "
                "must add up to 1."
            )
        if not shares and given.changed & {"group_by", "group_similar", "seed"}:
            raise UserError(
                "--group_by, --group_similar and --seed only apply to --split. Set --split too, or remove them."
            )


@dataclass(frozen=True)
class ReadSettings:
    rows: str | None = option(
        None,
        "what a YOLO row with more than five numbers holds: a box and its score, an outline, a box and keypoints, or "
        "a box, perhaps its score, and the number of a track",
        ROWS,
    )
    image_path: Path | None = option(
        None, "folder of the images, if they aren't found; its subfolders are searched too", Path, metavar="DIR"
    )
    set: str | None = option(None, "name of the set that is written, if SOURCE has only one", metavar="NAME")
    names: tuple[str, ...] | None = option(
        None,
        "class names of YOLO labels without a list of names, in the order of their numbers, or the class of a CSV file "
        "that names none",
        nargs="+",
    )
    allow_unlabelled: bool = option(
        False, "accept sets in which hardly any image has a label file; images without one have no objects", bool
    )
    bad_labels: str = option(
        STOP, "list all mistakes and write nothing, or leave out the rows and images that have them", BAD_LABELS
    )

    def check(self, given: Given) -> None:
        name = self.set
        if name is not None and (not name or "/" in name or "\\" in name or name.startswith(".")):
            raise UserError(f"--set {name!r} is not a file name. Use a name such as train.")
        if name is not None and "split" in given.changed:
            raise UserError("--set names the only set that is written, and --split makes several. Remove one of them.")


@dataclass(frozen=True)
class ConvertSettings:
    source: Path = option(
        Path(), "a dataset's folder, or its file of annotations or classes", Path, metavar="SOURCE", positional=True
    )
    output_path: Path = option(Path("data"), "folder for the output; nothing in it is overwritten", Path)
    read: str = option("auto", "format of SOURCE", ("auto", *WRITTEN, *ONLY_READ), flag="from")
    write: str = option(COCO, "format to write", WRITTEN, flag="to")
    images: str = option(LINK, "how images get into the output: symbolic links, copies, or not at all", IMAGES)
    exif: str = exif_option()
    decisions: Path | None = option(
        None,
        "correct the labels of a COCO set as decided in this file, which the page of check_labels saved",
        Path,
        metavar="FILE",
    )
    boxes: str = option(
        AS_GIVEN,
        "what the numbers of the boxes in SOURCE mean, if check_data says that they aren't left, top, width and height",
        BOX_READINGS,
    )
    reading: ReadSettings = part(ReadSettings, "reading", "what the files of SOURCE don't say")
    splitting: Splitting = part(
        Splitting, "splitting", "divide all images into new sets, each with its share of every class"
    )


def convert_settings(argv: list[str] | None = None) -> ConvertSettings:
    """Reads the settings from `argv` or the command line. Raises UserError if flags contradict each other."""
    description = "Convert annotations of other formats and tools into a data folder for train.py, or split a dataset."
    settings, given = parsed(ConvertSettings, description, argv, prog="python -m retinanet.convert")
    settings.splitting.check(given)
    settings.reading.check(given)
    return settings
