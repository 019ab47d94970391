"""Writes a dataset in any format that can be written."""

from pathlib import Path

from retinanet.convert.sets import Labelled
from retinanet.convert.write_coco import write_coco
from retinanet.convert.write_others import write_csv, write_voc, write_yolo
from retinanet.settings.convert import COCO, CSV, VOC, YOLO

WRITERS = {YOLO: write_yolo, VOC: write_voc, CSV: write_csv, COCO: write_coco}


def write(labelled: Labelled, kind: str, folder: Path, images: str) -> None:
    """Writes a dataset, which `fitted` has adapted to the format `kind`, to `folder`, and reads it back first.

    `images` says how the images get there: as links, as copies or not at all. Raises UserError if what is read back
    differs from what was to be written.
    """
    WRITERS[kind](labelled, folder, images)
