"""Converts a data set: reads one format, optionally splits the images into sets, and writes another format."""

import shlex

from retinanet.coco.folder import COCO, CSV, VOC, YOLO, format_of
from retinanet.convert.coco_files import read_coco
from retinanet.convert.csv_files import read_csv
from retinanet.convert.fit import fitted
from retinanet.convert.sets import FORMAT_NAMES, LabelledSet, upright_boxes
from retinanet.convert.split import split
from retinanet.convert.voc import read_voc
from retinanet.convert.write_coco import write_coco
from retinanet.convert.write_others import write_csv, write_voc, write_yolo
from retinanet.convert.yolo import read_yolo
from retinanet.runtime.console import say
from retinanet.runtime.errors import UserError
from retinanet.runtime.printable import counted
from retinanet.settings.convert import ConvertSettings

READERS = {YOLO: read_yolo, VOC: read_voc, CSV: read_csv, COCO: read_coco}
WRITERS = {YOLO: write_yolo, VOC: write_voc, CSV: write_csv, COCO: write_coco}


def convert(settings: ConvertSettings) -> int:
    """Converts the data set. Returns the exit code."""
    source = settings.source
    if not source.exists():
        raise UserError(f"{source}: no such file or folder. Check the path.")
    kind = format_of(source) if settings.read == "auto" else settings.read
    if kind is None:
        raise UserError(
            f"{source}: its format isn't recognised. Expected are YOLO's data.yaml, VOC's Annotations/*.xml, CSV rows "
            "path,x1,y1,x2,y2,class, or COCO's JSON. If it is one of them, set --from."
        )
    labelled = READERS[kind](source, settings.exif)
    labelled, frame_notes = upright_boxes(labelled, settings.exif, has_sizes=kind in (COCO, VOC))
    names = labelled.class_names
    say(f"Read {source}: {FORMAT_NAMES[kind]}, {counted(len(names), 'class')}: {', '.join(names[:20])}")
    if settings.splitting.split:
        labelled = split(labelled, settings.splitting.split, settings.splitting.seed, settings.splitting.group_by)
    labelled = fitted(labelled, settings.write, source)
    for note in [*labelled.notes, *frame_notes]:
        say(f"Note: {note}")
    WRITERS[settings.write](labelled, settings.output_path, settings.images)
    say(*map(_counts, labelled.sets))
    say(f"Written to {settings.output_path} in {FORMAT_NAMES[settings.write]}")
    if settings.write == COCO:
        words = [
            "--coco_path",
            str(settings.output_path),
            "--sets",
            *(labelled_set.name for labelled_set in labelled.sets),
        ]
        say(f"Check it: python -m retinanet.check_data {shlex.join(words)}")
    return 0


def _counts(labelled_set: LabelledSet) -> str:
    objects, crowds = _boxes(labelled_set)
    more = f" and {counted(crowds, 'crowd or difficult object')}" if crowds else ""
    return f"{labelled_set.name}: {counted(len(labelled_set.images), 'image')}, {counted(objects, 'object')}{more}"


def _boxes(labelled_set: LabelledSet) -> tuple[int, int]:
    """Returns the numbers of objects and of crowds in a set."""
    crowds = [box.is_crowd for image in labelled_set.images for box in image.boxes]
    return len(crowds) - sum(crowds), sum(crowds)
