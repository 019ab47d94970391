"""Writes a dataset in any of the supported output formats."""

from pathlib import Path

from retinanet.convert.sets import Labelled
from retinanet.convert.write_coco import write_coco
from retinanet.convert.write_others import write_csv, write_voc, write_yolo
from retinanet.settings.convert import COCO, CSV, VOC, YOLO

WRITERS = {YOLO: write_yolo, VOC: write_voc, CSV: write_csv, COCO: write_coco}


def write(labelled: Labelled, kind: str, folder: Path, images: str) -> None:
    """Writes a dataset to `folder` in the format `kind`, to which `fitted` has adapted it.

    `images` says whether images are linked, copied or left out. If the dataset reads back differently, writes nothing
    and raises UserError.
    """
    WRITERS[kind](labelled, folder, images)
