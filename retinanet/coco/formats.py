"""Recognises the annotation format of a dataset by its files."""

import csv
import re
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from retinanet.runtime.text_files import open_text
from retinanet.runtime.tree import Tree
from retinanet.settings.convert import COCO, CSV, CVAT, LABELME, LABELSTUDIO, VOC, YOLO

ROBOFLOW = "_annotations.coco.json"  # in the image folder
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".avif"}
ARCHIVES = {".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar"}
LOOKED_AT = 2000  # the maximum number of files examined in a folder, which may hold millions
LOOKED_INTO = 5  # the maximum number of files of a kind whose beginning is read
BEGINNING = 20_000  # bytes
CSV_COLUMNS = 6  # path, x1, y1, x2, y2, class
# Names of a CSV file's columns in the headers of several tools, in lower case and without punctuation.
CSV_PATHS = ("path", "filename", "file", "filepath", "image", "imagepath", "imagename", "imageid", "img")
CSV_CLASSES = ("class", "label", "classname", "labelname", "category", "categoryname", "name")
CSV_LEFTS, CSV_TOPS = ("x1", "xmin", "left"), ("y1", "ymin", "top")
CSV_CORNERS = (CSV_LEFTS, CSV_TOPS, ("x2", "xmax", "right"), ("y2", "ymax", "bottom"))
CSV_WIDTHS, CSV_HEIGHTS = ("width", "w"), ("height", "h")
CSV_BOXES = (  # the columns of a box that is written as left, top, width and height, the clearest names first
    ((*CSV_LEFTS, "x"), (*CSV_TOPS, "y"), ("w",), ("h",)),
    ((*CSV_LEFTS, "x"), (*CSV_TOPS, "y"), CSV_WIDTHS, CSV_HEIGHTS),
    (("bbox",),),  # as [left, top, width, height]
)
CSV_IMAGE_SIZES = (("imagewidth", "imgwidth", "width"), ("imageheight", "imgheight", "height"))
YOLO_ROW = rb"^\s*\d[\d.e+]*([\s,]+[-\d.e+]+){4}"  # class, centre x, centre y, width, height


class Format(NamedTuple):
    name: str  # as in --from
    words: str  # in messages
    is_shown_by: Callable[[Path, Sequence[Path]], bool]  # by a folder and the files below it


def _begins_with(files: Sequence[Path], suffixes: Sequence[str], pattern: bytes) -> bool:
    """Returns True if one of the first few files with these suffixes contains `pattern` near its beginning."""
    for path in islice((path for path in files if path.suffix.lower() in suffixes), LOOKED_INTO):
        try:
            with open(path, "rb") as file:
                beginning = file.read(BEGINNING).replace(b"\0", b"")  # so that the pattern matches UTF-16, too
        except OSError:
            continue
        if re.search(pattern, beginning):
            return True
    return False


def _has_cvats_xml(folder: Path, files: Sequence[Path]) -> bool:
    at_root = [path for path in files if path.parent == folder]
    return _begins_with(at_root, (".xml",), rb"<annotations[\s>]")


def _has_class_list(folder: Path, files: Sequence[Path]) -> bool:
    """Returns True if `folder` itself holds YOLO's data.yaml or darknet's obj.data."""
    at_root = [path for path in files if path.parent == folder]
    return _begins_with(at_root, (".yaml", ".yml"), rb"(?m)^\s*['\"]?(names|nc|train|val)\b") or _begins_with(
        at_root, (".data",), rb"(?m)^\s*(names|train|classes)\s*="
    )


def _has_voc_xml(folder: Path, files: Sequence[Path]) -> bool:
    return _begins_with(files, (".xml",), rb"<annotation[\s>]")


def _has_csv(folder: Path, files: Sequence[Path]) -> bool:
    near = [path for path in files if folder in (path.parent, path.parent.parent)]
    return any(_is_csv(path) for path in near)


def _has_tasks(folder: Path, files: Sequence[Path]) -> bool:
    return _begins_with(files, (".json",), rb"(?s)^\s*\[\s*\{.*\"(rectanglelabels|polygonlabels|result)\"\s*:")


def _has_shapes(folder: Path, files: Sequence[Path]) -> bool:
    return _begins_with(files, (".json",), rb"(?s)^\s*\{.*\"shapes\"\s*:")


def _has_label_files(folder: Path, files: Sequence[Path]) -> bool:
    texts = [path for path in files if path.suffix.lower() == ".txt"]
    if any("labels" in path.relative_to(folder).parts[:-1] for path in texts):
        return True
    images = {path.with_suffix("") for path in files if path.suffix.lower() in IMAGE_SUFFIXES}
    return _begins_with([path for path in texts if path.with_suffix("") in images], (".txt",), YOLO_ROW)


def _has_json(folder: Path, files: Sequence[Path]) -> bool:
    names = [path.relative_to(folder) for path in files if path.suffix.lower() == ".json"]
    return any(path.parent.name in ("", "annotations") or path.name == ROBOFLOW for path in names)


# The formats in the order in which they are looked for: Label Studio's YOLO also has a JSON file.
FORMATS = (
    Format(CVAT, "CVAT's own XML", _has_cvats_xml),
    Format(YOLO, "the YOLO format", _has_class_list),
    Format(VOC, "the PASCAL VOC format", _has_voc_xml),
    Format(CSV, "CSV", _has_csv),
    Format(LABELSTUDIO, "Label Studio's JSON", _has_tasks),
    Format(LABELME, "labelme's JSON", _has_shapes),
    Format(YOLO, "the YOLO format", _has_label_files),
    Format(COCO, "the COCO format", _has_json),
)
WORDS = {each.name: each.words for each in FORMATS}


def format_of(source: Path, tree: Tree) -> str | None:
    """Returns the annotation format of `source`, a folder or a file; None if unknown."""
    folder, files = (source.parent, [source]) if source.is_file() else (source, tree.files(source))
    if source.is_file() and (by_suffix := {".yaml": YOLO, ".yml": YOLO, ".data": YOLO}.get(source.suffix.lower())):
        return by_suffix
    name = next((each.name for each in FORMATS if each.is_shown_by(folder, files)), None)
    return VOC if name is None and source.is_file() and source.suffix.lower() == ".xml" else name


class CsvColumns(NamedTuple):
    """The indices of a CSV file's columns."""

    path: int
    box: list[int]  # four, or one that holds all four numbers
    label: int | None  # of the class
    are_sizes: bool  # True if the box is left, top, width and height; False if it is x1, y1, x2 and y2
    image_size: list[int]  # width and height of the image, if the file gives them


def csv_columns(header: list[str]) -> CsvColumns | None:
    """Returns the columns named in a CSV file's first row; None if it doesn't name the image and box columns."""
    names = [re.sub("[^a-z0-9]", "", word.lower()) for word in header]

    def places(wanted: Sequence[Sequence[str]], but: Sequence[int] = ()) -> list[int]:
        columns = [[names.index(name) for name in same if name in names] for same in wanted]
        first = [each[0] for each in columns if each and each[0] not in but]
        return first if len(first) == len(wanted) else []

    path, label = places([CSV_PATHS]), places([CSV_CLASSES])
    for number, wanted in enumerate((CSV_CORNERS, *CSV_BOXES)):
        if path and (box := places(wanted)):
            return CsvColumns(path[0], box, label[0] if label else None, number > 0, places(CSV_IMAGE_SIZES, box))
    return None


def csv_delimiter(first_line: str) -> str:
    """Returns the character that separates the columns of a CSV file."""
    return "," if "," in first_line else max(";\t", key=first_line.count)


def _is_csv(path: Path) -> bool:
    """Returns True if `path` is a CSV file whose first row is an annotation or a header."""
    if path.suffix.lower() != ".csv":
        return False
    try:
        with open_text(path) as file:
            first = file.readline()
        words = next(csv.reader([first], delimiter=csv_delimiter(first)), [])
        return len(words) == CSV_COLUMNS or csv_columns(words) is not None
    except (OSError, UnicodeError, csv.Error):
        return False
