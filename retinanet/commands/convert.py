"""Converts a dataset: reads one format, optionally splits the images into sets, and writes another format."""

import shlex
from pathlib import Path

from retinanet.coco.folder import export_above
from retinanet.coco.formats import ARCHIVES, LOOKED_AT, WORDS, format_of
from retinanet.convert.decisions import corrected, read_decisions
from retinanet.convert.fit import fitted
from retinanet.convert.readers import read
from retinanet.convert.reading import Reading
from retinanet.convert.sets import Labelled, LabelledSet, read_otherwise, upright_boxes
from retinanet.convert.split import split
from retinanet.convert.writers import write
from retinanet.runtime.console import say
from retinanet.runtime.errors import UserError
from retinanet.runtime.printable import counted
from retinanet.runtime.tree import Tree
from retinanet.settings.convert import COCO, CSV, NONE, YOLO, ConvertSettings

NO_VAL = "there is no set val, which train.py needs; --split 0.8 0.2 divides the images"


def convert(settings: ConvertSettings) -> int:
    """Converts the dataset. Returns the exit code."""
    source = settings.source
    for path in (source, settings.reading.image_path):
        if path is not None and not path.exists():
            raise UserError(f"{path}: no such file or folder. Check the path.")
    if settings.reading.image_path and not settings.reading.image_path.is_dir():
        raise UserError(f"--image_path {settings.reading.image_path}: is a file. Name the folder of the images.")
    decisions = read_decisions(settings.decisions) if settings.decisions else None
    reading = Reading(source, settings.reading, settings.exif)
    source = reading.source
    kind = format_of(source, reading.tree) if settings.read == "auto" else settings.read
    if kind is None:
        raise _unrecognised(reading)
    if settings.reading.rows and kind != YOLO:
        raise UserError(f"--rows only applies to YOLO labels, but {source} is in {WORDS[kind]}. Leave the flag out.")
    if settings.reading.names and kind not in (YOLO, CSV):
        raise UserError(
            f"--names only applies to YOLO labels and CSV, but {source} is in {WORDS[kind]}. Leave the flag out."
        )
    if decisions and kind != COCO:
        raise UserError(f"--decisions needs COCO annotations, but {source} is in {WORDS[kind]}. Leave the flag out.")
    labelled, changes = corrected(read(reading, kind), decisions) if decisions else (read(reading, kind), [])
    labelled = _named(labelled, settings)
    labelled, frame_notes = upright_boxes(labelled, settings.exif)
    labelled = read_otherwise(labelled, settings.boxes, reading.note_mistake)
    names = labelled.class_names
    export = labelled.export or WORDS[kind].removeprefix("the ")
    say(f"Read {source}: {export}, {counted(len(names), 'class')}: {', '.join(names[:20])}")
    reading.end()
    if changes:
        say(*changes)
    _require_images(labelled, source)
    splitting = settings.splitting
    if shares := splitting.split:
        labelled = split(labelled, shares, splitting.seed, splitting.group_by, group_similar=splitting.group_similar)
    labelled = fitted(labelled, settings.write, source)
    lacks_val = [each.name for each in labelled.sets] == ["train"] and settings.reading.set is None
    for note in [*labelled.notes, *frame_notes, *[NO_VAL] * lacks_val]:
        say(f"Note: {note}")
    write(labelled, settings.write, settings.output_path, settings.images)
    say(*map(_counts, labelled.sets))
    say(f"Written to {settings.output_path} in {WORDS[settings.write]}")
    say(reading.account().line(reading.root))
    if settings.write == COCO and settings.images != NONE:  # check_data needs the images
        words = [
            "--coco_path",
            str(settings.output_path),
            "--sets",
            *(labelled_set.name for labelled_set in labelled.sets),
        ]
        say(f"Check it: python -m retinanet.check_data {shlex.join(words)}")
    return 0


def _unrecognised(reading: Reading) -> UserError:
    source = reading.source
    if source.is_file() and source.suffix.lower() in ARCHIVES:
        return UserError(f"{source}: is an archive. Unpack it, and use the folder.")
    advice = "If it is one of them, set --from."
    if source.is_dir() and (above := export_above(source)):
        advice = f"It is a part of {above}: try that folder."
    elif source.is_dir():
        parts = [path.relative_to(source).parts for path in reading.files()]
        folders = dict.fromkeys(source / part for part, *deeper in parts if deeper)
        if below := next((path for path in folders if format_of(path, Tree(LOOKED_AT))), None):
            advice = f"Its folder {below} looks like a dataset: try that."
    return UserError(
        f"{source}: its format isn't recognised. convert reads YOLO's data.yaml, VOC's XML files, CSV rows "
        f"path,x1,y1,x2,y2,class, COCO's JSON, and the files of CVAT, Label Studio or labelme. {advice}"
    )


def _require_images(labelled: Labelled, source: Path) -> None:
    """Raises UserError if a set has no images left because all of them have mistakes."""
    for labelled_set in labelled.sets:
        if not labelled_set.images:
            raise UserError(
                f"{source}: nothing is left of the set {labelled_set.name}, since all its images have mistakes. "
                "Correct the mistakes that are listed above."
            )


def _named(labelled: Labelled, settings: ConvertSettings) -> Labelled:
    """If --set is given, gives that name to the only set; raises UserError if there are several sets."""
    name = settings.reading.set
    if name is None:
        return labelled
    if len(labelled.sets) > 1:
        sets = ", ".join(each.name for each in labelled.sets)
        raise UserError(f"--set {name}: {settings.source} has the sets {sets}. Leave the flag out.")
    return labelled._replace(sets=[each._replace(name=name) for each in labelled.sets])


def _counts(labelled_set: LabelledSet) -> str:
    objects, crowds = _boxes(labelled_set)
    more = f" and {counted(crowds, 'crowd or difficult object')}" if crowds else ""
    return f"{labelled_set.name}: {counted(len(labelled_set.images), 'image')}, {counted(objects, 'object')}{more}"


def _boxes(labelled_set: LabelledSet) -> tuple[int, int]:
    """Returns the numbers of objects and of crowds in a set."""
    crowds = [box.is_crowd for image in labelled_set.images for box in image.boxes]
    return len(crowds) - sum(crowds), sum(crowds)
