"""Converts a data set: reads one format, optionally splits the images into sets, and writes another format."""

import shlex

from retinanet.coco.formats import WORDS, format_of
from retinanet.convert.fit import fitted
from retinanet.convert.readers import read
from retinanet.convert.reading import Reading
from retinanet.convert.sets import Labelled, LabelledSet, read_otherwise, upright_boxes
from retinanet.convert.split import split
from retinanet.convert.write_coco import write_coco
from retinanet.convert.write_others import write_csv, write_voc, write_yolo
from retinanet.runtime.console import say
from retinanet.runtime.errors import UserError
from retinanet.runtime.printable import counted
from retinanet.settings.convert import COCO, CSV, LABELSTUDIO, VOC, YOLO, ConvertSettings

WITHOUT_SIZES = (YOLO, CSV, LABELSTUDIO)  # formats that don't say the size of the images, or only in percent
WRITERS = {YOLO: write_yolo, VOC: write_voc, CSV: write_csv, COCO: write_coco}


def convert(settings: ConvertSettings) -> int:
    """Converts the data set. Returns the exit code."""
    source = settings.source
    for path in (source, settings.reading.image_path):
        if path is not None and not path.exists():
            raise UserError(f"{path}: no such file or folder. Check the path.")
    reading = Reading(source, settings.reading, settings.exif)
    kind = format_of(source, reading.tree) if settings.read == "auto" else settings.read
    if kind is None:
        raise UserError(
            f"{source}: its format isn't recognised. Expected are YOLO's data.yaml, VOC's XML files, CSV rows "
            "path,x1,y1,x2,y2,class, COCO's JSON, or the files of CVAT, Label Studio or labelme. If it is one of them, "
            "set --from."
        )
    for flag, value in (("--rows", settings.reading.rows), ("--names", settings.reading.names)):
        if value and kind != YOLO:
            raise UserError(f"{flag} is about YOLO's labels, but {source} is {WORDS[kind]}. Leave the flag out.")
    labelled = _named(read(reading, kind), settings)
    labelled, frame_notes = upright_boxes(labelled, settings.exif, has_sizes=kind not in WITHOUT_SIZES)
    labelled = read_otherwise(labelled, settings.boxes, reading.note_mistake)
    names = labelled.class_names
    say(f"Read {source}: {labelled.export or WORDS[kind]}, {counted(len(names), 'class')}: {', '.join(names[:20])}")
    reading.end()
    if settings.splitting.split:
        labelled = split(labelled, settings.splitting.split, settings.splitting.seed, settings.splitting.group_by)
    labelled = fitted(labelled, settings.write, source)
    for note in [*labelled.notes, *frame_notes]:
        say(f"Note: {note}")
    WRITERS[settings.write](labelled, settings.output_path, settings.images)
    say(*map(_counts, labelled.sets))
    say(f"Written to {settings.output_path} in {WORDS[settings.write]}")
    say(reading.account().line(reading.root))
    if settings.write == COCO:
        words = [
            "--coco_path",
            str(settings.output_path),
            "--sets",
            *(labelled_set.name for labelled_set in labelled.sets),
        ]
        say(f"Check it: python -m retinanet.check_data {shlex.join(words)}")
    return 0


def _named(labelled: Labelled, settings: ConvertSettings) -> Labelled:
    """Gives the only set the name from --set. Raises UserError if there are several sets."""
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
