"""Finds a set's files in the layout of this suite, COCO or Roboflow; for other data, names the command to use."""

import csv
import re
import shlex
from itertools import islice
from pathlib import Path

from retinanet.runtime.errors import UserError, either
from retinanet.runtime.text_files import LONGEST_MARK, encoding_of
from retinanet.settings.convert import COCO, CSV, VOC, YOLO

VAL = "val"
SETS = ("train", VAL, "test")
ROBOFLOW = "_annotations.coco.json"  # in the image folder
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".avif"}
CSV_COLUMNS = 6  # path, x1, y1, x2, y2, class
LOOKED_AT = 2000  # the maximum number of files examined in a folder, which may hold millions


def spellings_of(set_name: str) -> tuple[str, ...]:
    """Returns the names that a set may have on disk: Roboflow calls val "valid"."""
    return (VAL, "valid") if set_name == VAL else (set_name,)


def set_name_of(name: str) -> str:
    """Returns this suite's name for a set: "val" for "valid" and "validation", otherwise `name` itself."""
    return VAL if name.lower() in ("valid", "validation") else name


def find_annotation_file(coco_path: str | Path, set_name: str) -> Path:
    """Returns a set's annotation file, in this suite's layout ({set}.json), COCO's (annotations/) or Roboflow's.

    Raises UserError if there is no such file.
    """
    root = Path(coco_path)
    if not root.is_dir():
        if root.exists() and (instead := advice_for(root)):
            raise UserError(f"{root}: is {instead}")
        raise UserError(f"{root}: no such data folder. Set --coco_path (layout: data/README.md).")
    files = [root / f"{set_name}.json"]
    files += [root / "annotations" / f"{kind}_{set_name}.json" for kind in ("instances", "image_info")]
    files += [root / name / ROBOFLOW for name in spellings_of(set_name)]
    for file in files:
        if file.is_file():
            return file
    folders = [path.parent.name for path in root.glob(f"*/{ROBOFLOW}")]
    roboflows = {VAL if name in spellings_of(VAL) else name for name in folders}
    existing = sorted({*other_sets(files[0]), *other_sets(files[1]), *roboflows})
    if not existing and (instead := advice_for(root)):
        raise UserError(f"{root}: holds no {files[0].name}, but {instead}")
    sets = f" The folder has the sets {', '.join(existing)}." if existing else ""
    flags = either("--train_set", "--val_set", "--set_name", "--sets")
    raise UserError(
        f"{files[0]}: no such annotation file, and no {files[1]} either.{sets} Put the file there"
        f"{f', or choose another set with {flags}' * bool(flags)}."
    )


def find_image_folder(coco_path: str | Path, set_name: str, *, must_exist: bool = True) -> Path:
    """Returns the image folder of a set: images/{set}/, or {set}/ as in COCO and Roboflow.

    If neither exists, raises UserError, or returns images/{set}/ if `must_exist` is False.
    """
    folders = [Path(coco_path) / "images" / set_name, *(Path(coco_path) / name for name in spellings_of(set_name))]
    for folder in folders:
        if folder.is_dir():
            return folder
    if not must_exist:
        return folders[0]
    raise UserError(f"{folders[0]}: no such image folder, and no {folders[1]} either. Put the images there.")


def other_sets(annotation_file: Path) -> dict[str, Path]:
    """Returns the other annotation files in the folder of `annotation_file`, keyed by set name."""
    files = sorted(path for path in annotation_file.parent.glob("*.json") if path != annotation_file)
    return {re.sub("^(instances|image_info)_", "", path.stem): path for path in files}


def format_of(source: Path) -> str | None:
    """Returns the annotation format of `source`, a folder or a file: COCO, CSV, VOC or YOLO; None if unknown."""
    if source.is_file():
        by_suffix = {".yaml": YOLO, ".yml": YOLO, ".xml": VOC, ".json": COCO}
        return by_suffix.get(source.suffix.lower()) or (CSV if _is_csv(source) else None)
    if any(source.glob("*.yaml")) or any(source.glob("*.yml")):
        return YOLO
    if any(islice(source.glob("Annotations/**/*.xml"), 1)) or any(source.glob("*.xml")):
        return VOC
    if any(_is_csv(path) for path in sorted(source.glob("*.csv"))):
        return CSV
    if any(islice(source.glob("labels/**/*.txt"), 1)) or any(islice(source.glob("*/labels/*.txt"), 1)):
        return YOLO
    is_coco = any(source.glob("*.json")) or any(source.glob("annotations/*.json"))
    return COCO if is_coco or any(source.glob(f"*/{ROBOFLOW}")) else None


def advice_for(coco_path: Path) -> str | None:
    """Says what `coco_path` is, if not a COCO data folder, and which command handles it; None if unrecognised."""
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
    """Returns True if `path` is a CSV file whose first row has as many columns as an annotation."""
    if path.suffix.lower() != ".csv":
        return False
    try:
        with open(path, "rb") as file:
            encoding = encoding_of(file.read(LONGEST_MARK))
        with open(path, encoding=encoding, newline="") as file:
            return len(next(csv.reader(file), [])) == CSV_COLUMNS
    except (OSError, UnicodeError, csv.Error):
        return False
