"""Reads COCO annotation files, checks them and packs them into flat arrays.

Boxes are (left, top, width, height) in original pixels, as in result files. Classes are identified by category id in
the files, and by label in the arrays.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from retinanet.coco.annotation_entries import box_and_area, category_entry, image_entry, is_crowd, known
from retinanet.coco.boxes import BACK, in_fractions, turned_boxes, turned_sizes
from retinanet.coco.json_values import is_id
from retinanet.runtime.errors import DataFault, UserError
from retinanet.runtime.json_files import read_json

MOST_NAMED = 5  # the maximum number of categories that a message names
LEFT_OUT = -1  # the row or label of an entry that was rejected


class Annotations(NamedTuple):
    """A checked annotation file: N images in file order, and T annotations sorted by image, then in file order."""

    path: Path
    class_names: list[str]  # indexed by label; labels follow ascending category ids
    category_ids: list[int]
    image_ids: np.ndarray  # int64 [N]
    file_names: np.ndarray  # bytes [N], UTF-8: a million str objects would be copied by every worker that reads them
    sizes: np.ndarray  # int64 [N, 2], (height, width)
    first: np.ndarray  # int64 [N + 1], image i has the annotations first[i]:first[i + 1]
    boxes: np.ndarray  # float64 [T, 4], (left, top, width, height) in original pixels, as written
    labels: np.ndarray  # int64 [T]
    crowds: np.ndarray  # bool [T]
    areas: np.ndarray  # float64 [T], square pixels
    fingerprint: str = ""  # digest of the file
    # uint8 [N]: the EXIF orientations by which sizes and boxes were turned after reading; None if nothing was turned
    turns: np.ndarray | None = None

    def file_name(self, image: int) -> str:
        return self.file_names[image].decode()


def read_annotations(path: str | Path) -> Annotations:
    """Reads and checks the COCO annotation file `path`. Raises UserError, naming the mistake and its fix.

    The list "annotations" is optional (test sets lack it), as are an annotation's "area" (default: width x height) and
    "iscrowd" (default: 0); null counts as absent.
    """
    return check_annotations(Path(path), read_json(path))[0]


def _raise(error: DataFault) -> None:
    raise error


def check_annotations(
    path: Path, content: Any, refuse: Callable[[DataFault], None] = _raise
) -> tuple[Annotations, np.ndarray]:
    """Checks and packs the `content` of the COCO annotation file `path`.

    Also returns each annotation's index in the file's list, int64 [T]. `refuse` is called with each mistake; if
    `refuse` returns, the faulty entry and all entries that refer to it are dropped. Raises UserError if the list of
    images or categories is missing or empty.
    """
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}, not a COCO object with images and categories.")
    images = _entries(path, content, "images")
    categories = _entries(path, content, "categories")
    annotations = _entries(path, content, "annotations") if content.get("annotations") is not None else []
    if not images:
        raise UserError(f"{path}: has no images. Check that the file was written completely.")
    if not categories:
        raise UserError(f'{path}: has no categories. Add the classes: "categories": [{{"id": 1, "name": "cat"}}, ...].')

    names, labels_of = _read_categories(path, categories, refuse)
    rows_of, file_names, sizes = _read_images(path, images, refuse)
    objects = _read_objects(path, annotations, rows_of, labels_of, refuse)
    packed = Annotations(
        path=path,
        class_names=list(names.values()),
        category_ids=list(names),
        image_ids=np.array([image_id for image_id, row in rows_of.items() if row != LEFT_OUT], np.int64),
        file_names=np.array([name.encode() for name in file_names], np.bytes_),
        sizes=np.array(sizes, np.int64).reshape(-1, 2),
        first=np.searchsorted(objects.owners, np.arange(len(sizes) + 1)),
        boxes=objects.boxes,
        labels=objects.labels,
        crowds=objects.crowds,
        areas=objects.areas,
    )
    try:
        require_pixels(packed)
    except DataFault as error:
        refuse(error)
    return packed, objects.places


class _Objects(NamedTuple):
    """The valid entries of "annotations", sorted by image, then in file order."""

    places: np.ndarray  # int64 [T], each annotation's index in the file's list
    owners: np.ndarray  # int64 [T], the row of each annotation's image
    boxes: np.ndarray
    labels: np.ndarray
    crowds: np.ndarray
    areas: np.ndarray


def _read_objects(
    path: Path,
    annotations: list[dict[str, Any]],
    rows_of: dict[int, int],
    labels_of: dict[int, int],
    refuse: Callable[[DataFault], None],
) -> _Objects:
    owners = np.full(len(annotations), LEFT_OUT, np.int64)
    boxes = np.zeros((len(annotations), 4))
    labels = np.full(len(annotations), LEFT_OUT, np.int64)
    crowds = np.zeros(len(annotations), bool)
    areas = np.zeros(len(annotations))
    for row, annotation in enumerate(annotations):
        try:
            owner = known(annotation, "image_id", rows_of, "image_unknown", "images")
            labels[row] = known(annotation, "category_id", labels_of, "category_unknown", "categories")
            boxes[row], areas[row] = box_and_area(annotation)
            crowds[row] = is_crowd(annotation)
            owners[row] = owner
        except DataFault as error:
            name = f"{path}: annotation {annotation.get('id', f'number {row}')}"
            refuse(DataFault(error.kind, f"{name}: {error}"))
    places = np.argsort(owners, kind="stable")
    places = places[(owners[places] != LEFT_OUT) & (labels[places] != LEFT_OUT)]
    return _Objects(places, *(array[places] for array in (owners, boxes, labels, crowds, areas)))


def require_pixels(annotations: Annotations) -> None:
    """Raises DataFault if most boxes look like fractions of the image size instead of pixels."""
    sizes = annotations.sizes[owners_of(annotations)]
    fractions = np.flatnonzero(in_fractions(annotations.boxes, sizes))
    if len(fractions):
        box, (height, width) = annotations.boxes[fractions[0]].tolist(), sizes[fractions[0]].tolist()
        raise DataFault(
            "box_in_fractions",
            f"{annotations.path}: boxes look like fractions of the image (YOLO's), {len(fractions)} of {len(sizes)}, "
            f"such as bbox {box} in {height} x {width} pixels (height x width). Write (left, top, width, height) in "
            "pixels: multiply by the image's width and height. YOLO's first two numbers are the box's centre: subtract "
            "half of its width and height.",
        )


def has_objects(annotations: Annotations) -> bool:
    """Returns True if the set has ground truth to evaluate against.

    Published test sets have no annotations, or only dummy annotations: boxes without area, or placeholder boxes.
    """
    return bool(_are_real(annotations).any()) and not placeholder_note(annotations)


def placeholder_note(annotations: Annotations) -> str:
    """Returns a note to append to a message about the set if its boxes look like placeholders, otherwise "".

    Boxes look like placeholders if every image has exactly one object, all with the same class and box (see
    one_box_for_all).
    """
    is_one_each = bool((np.diff(annotations.first) == 1).all() and (annotations.labels == annotations.labels[:1]).all())
    if not (is_one_each and one_box_for_all(annotations) and _are_real(annotations).all()):
        return ""
    name, box = annotations.class_names[annotations.labels[0]], annotations.boxes[0].tolist()
    return (
        f": it looks like placeholder boxes: each of the {len(annotations.image_ids)} images has exactly one object, "
        f"all of class {name!r} with bbox {box}"
    )


def one_box_for_all(annotations: Annotations) -> bool:
    """Returns True if there are several objects, and all have the same box, unless that box fills every image."""
    real = _are_real(annotations)
    boxes = annotations.boxes[real]
    if len(boxes) <= 1 or (boxes != boxes[0]).any():
        return False
    return bool((boxes[0, 2:] != annotations.sizes[owners_of(annotations)[real]][:, ::-1]).any())


def _are_real(annotations: Annotations) -> np.ndarray:
    """Marks the annotations that are not crowds and whose boxes have positive width and height: bool [T]."""
    return ~annotations.crowds & (annotations.boxes[:, 2:] > 0).all(axis=1)


def turned_upright(annotations: Annotations, turns: np.ndarray) -> Annotations:
    """Applies the EXIF orientations `turns` [N] to the image sizes and the boxes; orientation 1 changes nothing."""
    if (turns == 1).all():
        return annotations
    boxes = turned_boxes(annotations.boxes, *(values[owners_of(annotations)] for values in (turns, annotations.sizes)))
    return annotations._replace(sizes=turned_sizes(annotations.sizes, turns), boxes=boxes, turns=turns)


def as_in_file(boxes: np.ndarray, images: np.ndarray, annotations: Annotations) -> np.ndarray:
    """Converts upright `boxes` [n, 4], in `images` [n], to the orientation of the annotation file."""
    if annotations.turns is None:
        return boxes
    return turned_boxes(boxes, BACK[annotations.turns[images]], annotations.sizes[images])


def as_read(boxes: np.ndarray, images: np.ndarray, annotations: Annotations) -> np.ndarray:
    """Rotates `boxes` [n, 4] from a file to the orientation of `annotations`; `images` [n] are the boxes' images.

    This reverses as_in_file.
    """
    if annotations.turns is None:
        return boxes
    turns = annotations.turns[images]
    return turned_boxes(boxes, turns, turned_sizes(annotations.sizes[images], turns))


def subset_of(annotations: Annotations, images: np.ndarray) -> Annotations:
    """Returns the annotations of only the images with the indices `images` [n], in this order."""
    counts = np.diff(annotations.first)[images]
    first = np.concatenate([[0], np.cumsum(counts)])
    rows = np.arange(first[-1]) + np.repeat(annotations.first[images] - first[:-1], counts)
    return annotations._replace(
        image_ids=annotations.image_ids[images],
        file_names=annotations.file_names[images],
        sizes=annotations.sizes[images],
        first=first,
        boxes=annotations.boxes[rows],
        labels=annotations.labels[rows],
        crowds=annotations.crowds[rows],
        areas=annotations.areas[rows],
        turns=None if annotations.turns is None else annotations.turns[images],
    )


def owners_of(annotations: Annotations) -> np.ndarray:
    """Returns the index of each annotation's image: int64 [T]."""
    return np.repeat(np.arange(len(annotations.image_ids)), np.diff(annotations.first))


def owners_of_rows(annotations: Annotations, rows: np.ndarray) -> np.ndarray:
    """Returns the image index of each annotation in `rows` [n]: int64 [n]."""
    return np.searchsorted(annotations.first, rows, side="right") - 1


def require_same_classes(annotations: Annotations, names: list[str], category_ids: list[int], source: Path) -> None:
    """Raises DataFault unless the set has exactly the classes and category ids of `source`."""
    expected = dict(zip(category_ids, names, strict=True))
    given = dict(zip(annotations.category_ids, annotations.class_names, strict=True))
    if given != expected:
        differing = sorted(key for key in given.keys() | expected.keys() if given.get(key) != expected.get(key))
        ours, theirs = (
            {key: names_by_id.get(key) for key in differing[:MOST_NAMED]} for names_by_id in (given, expected)
        )
        more = f" ({len(differing)} differ)" if len(differing) > MOST_NAMED else ""
        fix = "Use files of the same classes."
        if only_here := [f"{key} ({name})" for key, name in given.items() if key not in expected]:
            added = ", ".join(only_here[:MOST_NAMED])
            fix = f"Add {added} to the categories of {source}, or use files of the same classes."
        raise DataFault(
            "classes_differ",
            f"{annotations.path}: has the categories {ours}, but {source} has {theirs}{more}. {fix}",
        )


def _entries(path: Path, content: dict[str, Any], key: str) -> list[dict[str, Any]]:
    entries = content.get(key)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(f'{path}: "{key}" must be a list of objects. Is this a COCO annotation file?')
    return entries


def _read_categories(
    path: Path, categories: list[dict[str, Any]], refuse: Callable[[DataFault], None]
) -> tuple[dict[int, str], dict[int, int]]:
    """Returns the class names by category id, in ascending order of the ids, and the label of each id."""
    names: dict[int, str] = {}
    labels_of: dict[int, int] = {}
    for category in categories:
        try:
            category_id, name = category_entry(category, labels_of)
        except DataFault as error:
            refuse(DataFault(error.kind, f"{path}: {error}"))
            if is_id(category.get("id")):
                labels_of.setdefault(category["id"], LEFT_OUT)
        else:
            names[category_id] = name
            labels_of[category_id] = 0
    names = dict(sorted(names.items()))
    return names, labels_of | {category_id: label for label, category_id in enumerate(names)}


def _read_images(
    path: Path, images: list[dict[str, Any]], refuse: Callable[[DataFault], None]
) -> tuple[dict[int, int], list[str], list[tuple[int, int]]]:
    """Returns the row of each image id, and each row's file name and (height, width)."""
    rows_of: dict[int, int] = {}
    file_names: list[str] = []
    sizes: list[tuple[int, int]] = []
    for image in images:
        try:
            image_id, file_name, size = image_entry(image, rows_of)
        except DataFault as error:
            refuse(DataFault(error.kind, f"{path}: {error}"))
            if is_id(image.get("id")):
                rows_of.setdefault(image["id"], LEFT_OUT)
        else:
            rows_of[image_id] = len(sizes)
            file_names.append(file_name)
            sizes.append(size)
    return rows_of, file_names, sizes
