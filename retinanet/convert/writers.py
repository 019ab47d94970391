"""Writes a dataset in any of the supported output formats."""

from pathlib import Path

from retinanet.convert.sets import Labelled
from retinanet.convert.write_coco import write_coco
from retinanet.convert.write_others import write_csv, write_voc, write_yolo
from retinanet.settings.convert import COCO, CSV, VOC, YOLO

WRITERS = {YOLO: write_yolo, VOC: write_voc, CSV: write_csv, COCO: write_coco}


def write(labelled: Labelled, kind: str, folder: Path, images: str) -> None:
    """Writes a dataset, which `fitted` has adapted to the format `kind`, to `folder`, if it reads back the same.

    `images` says whether images are linked, copied or left out. Raises UserError if the dataset reads back differently.
    """
    WRITERS[kind](labelled, folder, images)
