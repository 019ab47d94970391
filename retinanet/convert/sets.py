"""Defines the annotated sets that the readers return. Except in COCO, image sizes come from the image files."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from retinanet.coco.boxes import turned_boxes
from retinanet.coco.json_values import is_number
from retinanet.data.box_readings import read_boxes
from retinanet.data.headers import frame_texts
from retinanet.data.images import read_header
from retinanet.runtime.errors import CANT_READ, DataFault, UserError, file_error_explained
from retinanet.runtime.missing_files import why_missing
from retinanet.runtime.streams import hides_bars
from retinanet.runtime.text_files import decoded
from retinanet.settings.convert import AS_GIVEN
from retinanet.settings.shared import UPRIGHT

AREA_TOLERANCE = 0.01  # rounding may make an annotated area differ from its box's area by this fraction
OF_PIXELS = ("segmentation", "keypoints")  # keys of a COCO annotation that no longer fit a turned image


class Box(NamedTuple):
    """The bounding box of an object, in pixels of its image."""

    label: int  # index into the class names
    left: float
    top: float
    width: float
    height: float
    is_crowd: bool = False
    score: float | None = None  # of a detection


class LabelledImage(NamedTuple):
    path: Path
    name: str  # the path relative to the image folder of the set, like file_name in COCO
    width: int
    height: int
    boxes: list[Box]
    image_id: int | None = None  # if the format has ids
    entry: dict[str, Any] | None = None  # the image's entry in a COCO file
    box_entries: list[dict[str, Any]] | None = None  # the boxes' entries in a COCO file, in the same order


class LabelledSet(NamedTuple):
    name: str  # train, val or test, or another name
    images: list[LabelledImage]
    content: dict[str, Any] | None = None  # what a COCO file holds besides images and annotations
    file: Path | None = None  # its COCO file


class Labelled(NamedTuple):
    """The contents of an annotated dataset."""

    class_names: list[str]
    sets: list[LabelledSet]
    category_ids: list[int] | None = None  # if the format has ids
    notes: Sequence[str] = ()  # remarks for the user
    export: str = ""  # the tool and its format, such as "CVAT's COCO 1.0", if the files show it
    has_sizes: bool = True  # whether the annotations say the sizes of their images


def with_distinct_names(labelled: Labelled) -> tuple[Labelled, list[str]]:
    """Prefixes each file name that occurs in several sets with its set's name, because all images go into one folder.

    Suffixes are ignored, because an annotation file may have its image's name with another suffix. Also returns a list
    that holds a note if any name was changed.
    """
    num_sets = Counter(
        stem for labelled_set in labelled.sets for stem in {_without_ending(image) for image in labelled_set.images}
    )
    renamed: list[str] = []

    def distinct(set_name: str, image: LabelledImage) -> LabelledImage:
        if num_sets[_without_ending(image)] == 1:
            return image
        name = Path(image.name)
        renamed.append(name.with_name(f"{set_name}_{name.name}").as_posix())
        return image._replace(name=renamed[-1])

    sets = [
        labelled_set._replace(images=[distinct(labelled_set.name, image) for image in labelled_set.images])
        for labelled_set in labelled.sets
    ]
    if not renamed:
        return labelled, []
    return labelled._replace(sets=sets), [
        f"where images of several sets have the same file name, the set's name is put before it: {len(renamed)}, as in "
        f"{renamed[0]}"
    ]


def _without_ending(image: LabelledImage) -> str:
    return str(Path(image.name).with_suffix(""))


def size_of(path: Path, where: str, exif: str = UPRIGHT) -> tuple[int, int]:
    """Returns the (width, height) of an image, upright or, with RAW, as its pixels are stored.

    Raises UserError, which says `where` the image is listed, if the image is missing or can't be read.
    """
    if not path.exists():
        raise UserError(f"{where}: there is no image {path}.{why_missing(path)} Put it there, or remove the line.")
    try:
        header = read_header(path)
    except UserError as fault:
        raise UserError(f"{where}: {str(fault).replace(f'{path}: ', f'{path} ', 1)}") from None
    height, width = header.upright_size if exif == UPRIGHT else header.stored_size
    return width, height


def upright_boxes(labelled: Labelled, exif: str) -> tuple[Labelled, list[str]]:
    """Rotates boxes to fit the upright image if the annotated size shows that they refer to the stored pixels.

    With RAW, boxes are also rotated if the size fits both the upright image and the stored pixels. Also returns notes
    on the images that have an EXIF orientation.
    """
    counts: Counter[str] = Counter()

    def turned(image: LabelledImage) -> LabelledImage:
        try:
            header = read_header(image.path)
        except UserError:  # a COCO file has the sizes, so its images needn't be readable
            return image
        size, upright, stored = (image.height, image.width), header.upright_size, header.stored_size
        turn = header.turn(size, exif)
        if header.orientation == 1 or turn is None:
            return image
        if turn != 1:  # the boxes are upright
            counts["untold"] += exif == UPRIGHT and (size == stored or not labelled.has_sizes)
            return image
        counts["turned"] += 1
        boxes = np.array([box[1:5] for box in image.boxes]).reshape(-1, 4)
        orientations, sizes = np.full(len(boxes), header.orientation), np.tile(stored, (len(boxes), 1))
        rows = turned_boxes(boxes, orientations, sizes).tolist()
        pairs = zip(image.boxes, rows, strict=True)
        placed = [box._replace(left=x, top=y, width=wide, height=high) for box, (x, y, wide, high) in pairs]
        entries = image.box_entries and [
            {key: value for key, value in entry.items() if key not in OF_PIXELS} for entry in image.box_entries
        ]
        return image._replace(height=upright[0], width=upright[1], boxes=placed, box_entries=entries)

    num_images = sum(len(labelled_set.images) for labelled_set in labelled.sets)
    with tqdm(total=num_images, desc="Image headers", leave=False, disable=hides_bars()) as bar:
        sets = []
        for labelled_set in labelled.sets:
            images = []
            for image in labelled_set.images:
                images.append(turned(image))
                bar.update()
            sets.append(labelled_set._replace(images=images))
    return labelled._replace(sets=sets), frame_texts(counts["turned"], counts["untold"])


def read_otherwise(labelled: Labelled, reading: str, fail: Callable[[DataFault], None]) -> Labelled:
    """Returns the dataset with its boxes converted by the given `reading`; everything else stays as it is.

    Even an annotated area stays, unless it is the area of the old box. `fail` is called for a box that has an area
    as given, but none in this reading; if `fail` returns, the box is left out.
    """
    if reading == AS_GIVEN:
        return labelled

    def reread(image: LabelledImage) -> LabelledImage:
        rows = read_boxes(reading, np.array([box[1:5] for box in image.boxes]), np.array([[image.height, image.width]]))
        boxes, entries = [], []
        old_entries = image.box_entries or [{} for _ in image.boxes]
        for box, entry, (x, y, wide, high) in zip(image.boxes, old_entries, rows.tolist(), strict=True):
            if min(wide, high) <= 0 < min(box.width, box.height):
                fail(DataFault(f"boxes without area as {reading}", _without_area(image, box, reading)))
                continue
            boxes.append(box._replace(left=x, top=y, width=wide, height=high))
            area = entry.get("area")
            is_of_box = is_number(area) and math.isclose(area, box.width * box.height, rel_tol=AREA_TOLERANCE)
            entries.append({key: value for key, value in entry.items() if key != "area" or not is_of_box})
        return image._replace(boxes=boxes, box_entries=entries if image.box_entries else image.box_entries)

    sets = [each._replace(images=[reread(image) for image in each.images]) for each in labelled.sets]
    return labelled._replace(sets=sets)


def _without_area(image: LabelledImage, box: Box, reading: str) -> str:
    return (
        f"{image.path}: the box {[*box[1:5]]} has no width or height when read as {reading}. Correct the box, or leave "
        "out --boxes."
    )


def text_of(path: Path) -> str:
    """Returns a file's text, decoded as UTF-8 or as its byte order mark says.

    Raises UserError if the file is missing or isn't text.
    """
    with file_error_explained(path, CANT_READ, "Check the path."):
        return decoded(path.read_bytes(), path)


def require_unique(names: Sequence[str], where: str) -> None:
    """Raises UserError if two classes have the same name, or if a class has no name."""
    for number, name in enumerate(names):
        if not name.strip():
            raise UserError(f"{where}: class {number} has no name. Give it one.")
        if name in names[:number]:
            raise UserError(f"{where}: two classes are called {name!r}. Give each its own name.")
