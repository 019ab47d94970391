"""Reads a dataset of any format."""

from pathlib import Path

from retinanet.convert.coco_files import read_coco
from retinanet.convert.csv_files import read_csv
from retinanet.convert.cvat import read_cvat
from retinanet.convert.labelling_json import read_labelme, read_labelstudio
from retinanet.convert.reading import Reading
from retinanet.convert.sets import Labelled
from retinanet.convert.voc import read_voc
from retinanet.convert.yolo import read_yolo
from retinanet.settings.convert import COCO, CSV, CVAT, LABELME, LABELSTUDIO, VOC, YOLO, ReadSettings

READERS = {
    YOLO: read_yolo,
    VOC: read_voc,
    CSV: read_csv,
    COCO: read_coco,
    CVAT: read_cvat,
    LABELSTUDIO: read_labelstudio,
    LABELME: read_labelme,
}


def read_dataset(source: Path, kind: str, told: ReadSettings | None = None) -> Labelled:
    """Returns the dataset in `source`, of the format `kind`. Raises UserError if there is a mistake in it."""
    reading = Reading(source, told)
    labelled = READERS[kind](reading)
    reading.end()
    return labelled
