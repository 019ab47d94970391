"""What a folder holds that is no COCO data set, and the command for it."""

import csv
import shlex
from itertools import islice
from pathlib import Path

from retinanet.settings.convert import COCO, CSV, VOC, YOLO

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".avif"}
CSV_COLUMNS = 6  # path, x1, y1, x2, y2, class
LOOKED_AT = 2000  # files of a folder, which may have millions


def format_of(source: Path) -> str | None:
    """Which of FORMATS the annotations at `source` are in, a folder or a file; None if none of them."""
    if source.is_file():
        by_suffix = {".yaml": YOLO, ".yml": YOLO, ".xml": VOC, ".json": COCO}
        return by_suffix.get(source.suffix.lower()) or (CSV if _is_csv(source) else None)
    if any(source.glob("*.yaml")) or any(source.glob("*.yml")):
        return YOLO
    if any(source.glob("Annotations/*.xml")) or any(source.glob("*.xml")):
        return VOC
    if any(_is_csv(path) for path in sorted(source.glob("*.csv"))):
        return CSV
    if any(islice(source.glob("labels/**/*.txt"), 1)) or any(islice(source.glob("*/labels/*.txt"), 1)):
        return YOLO
    is_coco = any(source.glob("*.json")) or any(source.glob("annotations/*.json"))
    return COCO if is_coco or any(source.glob("*/_annotations.coco.json")) else None


def advice_for(coco_path: Path) -> str | None:
    """What `coco_path` is instead of a data folder of COCO's, and the command to give; None where that isn't clear."""
    quoted = shlex.quote(str(coco_path))
    if coco_path.suffix.lower() in IMAGE_SUFFIXES and coco_path.is_file():
        return f"an image. To detect in it: python -m retinanet.predict {quoted}"
    names = {YOLO: "annotations in YOLO's format", VOC: "annotations in PASCAL VOC's format", CSV: "annotations as CSV"}
    kind = format_of(coco_path)
    if kind in names:
        return f"{names[kind]}. To convert them: python -m retinanet.convert {quoted} --output_path data"
    if kind == COCO and coco_path.is_file():
        return (
            "a COCO file, and a folder is needed. To split it into train and val: python -m retinanet.convert "
            f"{quoted} --split 0.8 0.2 --output_path data"
        )
    if kind is None and coco_path.is_dir():
        files = [path for path in islice(coco_path.rglob("*"), LOOKED_AT) if path.is_file()]
        if any(path.suffix.lower() in IMAGE_SUFFIXES for path in files):
            return f"images without annotations. To detect in them: python -m retinanet.predict {quoted}"
    return None


def _is_csv(path: Path) -> bool:
    """Whether its first row has the columns of an annotation."""
    if path.suffix.lower() != ".csv":
        return False
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            return len(next(csv.reader(file), [])) == CSV_COLUMNS
    except (OSError, UnicodeDecodeError, csv.Error):
        return False
