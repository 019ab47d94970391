"""COCO annotation files, checked and packed into flat arrays.

This is one of the two edges where boxes are COCO's (left, top, width, height) in original pixels and classes are
category ids.
"""

import json
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeGuard

import numpy as np

from retinanet.errors import UserError
from retinanet.packed_names import PackedNames


class Annotations(NamedTuple):
    """A checked annotation file. N images in the file's order, T annotations ordered by image, then as in the file."""

    path: Path
    class_names: list[str]  # by label; labels follow rising category ids
    category_ids: list[int]
    image_ids: np.ndarray  # int64 [N]
    file_names: PackedNames
    sizes: np.ndarray  # int64 [N, 2], (height, width)
    first: np.ndarray  # int64 [N + 1], image i has the annotations first[i]:first[i + 1]
    boxes: np.ndarray  # float64 [T, 4], (left, top, width, height) in original pixels, as written
    labels: np.ndarray  # int64 [T]
    crowds: np.ndarray  # bool [T]
    areas: np.ndarray  # float64 [T], square pixels
    fingerprint: str = ""  # of the file's content


def read_json(path: str | Path) -> Any:
    """What is in the JSON file `path`; UserError where it is missing or broken."""
    try:
        with open(path, encoding="utf-8") as file:
            return parse_json(file, path)
    except OSError as fault:
        raise UserError(f"{path}: can't be read ({fault.strerror}). Check the path and its permissions.") from None


def parse_json(file: IO[str], path: str | Path) -> Any:
    """What is in the JSON `file`, which a UserError calls `path`."""
    try:
        return json.load(file)
    except (ValueError, RecursionError) as fault:  # not JSON, not UTF-8, or nested without end
        raise UserError(f"{path}: not valid JSON ({fault}). Is the file cut off? Write or copy it again.") from None


def read_annotations(path: str | Path) -> Annotations:
    """Read and check the COCO annotation file `path`. UserError names what is wrong with it and the fix.

    `annotations` may be absent (a test set), as may an annotation's `area` (width x height then) and `iscrowd`.
    """
    path = Path(path)
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}, not a COCO object with images and categories.")
    images = _entries(path, content, "images")
    categories = _entries(path, content, "categories")
    if not images:
        raise UserError(f"{path}: has no images. Check that the file was written to its end.")
    if not categories:
        raise UserError(f'{path}: has no categories. Add the classes: "categories": [{{"id": 1, "name": "cat"}}, ...].')

    names = _category_names(path, categories)
    category_ids = sorted(names)
    labels_of = {category_id: label for label, category_id in enumerate(category_ids)}
    image_ids, file_names, sizes = _read_images(path, images)
    rows_of = {image_id: row for row, image_id in enumerate(image_ids)}
    annotations = _entries(path, content, "annotations") if "annotations" in content else []
    owners = np.zeros(len(annotations), np.int64)
    boxes = np.zeros((len(annotations), 4))
    labels = np.zeros(len(annotations), np.int64)
    crowds = np.zeros(len(annotations), bool)
    areas = np.zeros(len(annotations))
    for row, annotation in enumerate(annotations):
        name = f"{path}: annotation {annotation.get('id', f'number {row}')}"
        owners[row] = _known(name, annotation, "image_id", rows_of, "images")
        labels[row] = _known(name, annotation, "category_id", labels_of, "categories")
        boxes[row], areas[row] = _box_and_area(name, annotation)
        crowds[row] = _crowd(name, annotation)
    order = np.argsort(owners, kind="stable")
    return Annotations(
        path=path,
        class_names=[names[category_id] for category_id in category_ids],
        category_ids=category_ids,
        image_ids=np.array(image_ids, np.int64),
        file_names=PackedNames.of(file_names),
        sizes=np.array(sizes, np.int64),
        first=np.searchsorted(owners[order], np.arange(len(images) + 1)),
        boxes=boxes[order],
        labels=labels[order],
        crowds=crowds[order],
        areas=areas[order],
    )


def has_objects(annotations: Annotations) -> bool:
    """Whether there is something to evaluate against.

    Test sets are handed out without annotations, or with fake ones: boxes without area, or one box for all images.
    One box for all is real where it is the whole image.
    """
    real = ~annotations.crowds & (annotations.boxes[:, 2:] > 0).all(axis=1)
    boxes = annotations.boxes[real]
    if len(boxes) <= 1 or len(np.unique(boxes, axis=0)) > 1:
        return len(boxes) > 0
    owners = np.repeat(np.arange(len(annotations.sizes)), np.diff(annotations.first))[real]
    return bool((boxes[0, 2:] == annotations.sizes[owners][:, ::-1]).all())


def is_id(value: Any) -> TypeGuard[int]:
    """Whether a value from JSON is a whole number that an int64 holds."""
    return type(value) is int and -(2**63) <= value < 2**63  # and no bool, which is an int too


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value from JSON is a finite number."""
    # NaN fails the comparison; the bound also keeps JSON's unbounded whole numbers within a float.
    return type(value) in (int, float) and -1e15 < value < 1e15


def require_same_classes(annotations: Annotations, names: list[str], category_ids: list[int], source: Path) -> None:
    """UserError unless the set has just the classes and category ids of `source`."""
    expected = dict(zip(category_ids, names, strict=True))
    given = dict(zip(annotations.category_ids, annotations.class_names, strict=True))
    if given != expected:
        raise UserError(
            f"{annotations.path}: has the categories {given}, but {source} has {expected}. Use files that belong "
            "together."
        )


def _is_text(value: Any) -> TypeGuard[str]:
    # A lone surrogate, which JSON can spell, can neither be printed nor be part of a path.
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def _entries(path: Path, content: dict[str, Any], key: str) -> list[dict[str, Any]]:
    entries = content.get(key)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(f'{path}: "{key}" must be a list of objects. Is this a COCO annotation file?')
    return entries


def _category_names(path: Path, categories: list[dict[str, Any]]) -> dict[int, str]:
    names: dict[int, str] = {}
    for category in categories:
        category_id, name = category.get("id"), category.get("name")
        if not is_id(category_id) or not _is_text(name):
            raise UserError(f"{path}: category {category} needs a whole number as id and a name.")
        if category_id in names:
            raise UserError(f"{path}: category id {category_id} stands twice. Give each category an id of its own.")
        names[category_id] = name
    return names


def _read_images(path: Path, images: list[dict[str, Any]]) -> tuple[list[int], list[str], list[tuple[int, int]]]:
    image_ids, file_names, sizes = [], [], []
    seen = set()
    for image in images:
        image_id, file_name = image.get("id"), image.get("file_name")
        height, width = image.get("height"), image.get("width")
        if not is_id(image_id):
            raise UserError(f"{path}: an image's id is {image_id!r} ({file_name}). Ids must be whole numbers.")
        if image_id in seen:
            raise UserError(f"{path}: image id {image_id} stands twice. Give each image an id of its own.")
        if not _is_text(file_name) or not file_name:
            raise UserError(f"{path}: image {image_id} has no file_name. Add it, relative to the image folder.")
        if Path(file_name).is_absolute() or ".." in Path(file_name).parts or "\0" in file_name:
            raise UserError(
                f"{path}: file_name {file_name!r} of image {image_id} leaves the image folder. Make it relative to it."
            )
        if not (is_id(height) and is_id(width) and height > 0 and width > 0):
            raise UserError(f"{path}: image {image_id} ({file_name}) needs height and width, whole pixels above 0.")
        seen.add(image_id)
        image_ids.append(image_id)
        file_names.append(file_name)
        sizes.append((height, width))
    return image_ids, file_names, sizes


def _known(name: str, annotation: dict[str, Any], key: str, rows: dict[int, int], where: str) -> int:
    value = annotation.get(key)
    if not is_id(value) or value not in rows:
        raise UserError(f'{name}: {key} {value!r} is not in "{where}". Add it there, or take the annotation out.')
    return rows[value]


def _box_and_area(name: str, annotation: dict[str, Any]) -> tuple[list[float], float]:
    box = annotation.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        raise UserError(f"{name}: bbox {box!r} must be four finite numbers (left, top, width, height).")
    if box[2] < 0 or box[3] < 0:
        raise UserError(f"{name}: bbox {box} has a negative size. It must be (left, top, width, height).")
    area = annotation.get("area", box[2] * box[3])
    if not is_number(area) or area < 0:
        raise UserError(f"{name}: area {area!r} must be a finite number of square pixels.")
    return box, area


def _crowd(name: str, annotation: dict[str, Any]) -> bool:
    crowd = annotation.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise UserError(f"{name}: iscrowd {crowd!r} must be 0 (an object) or 1 (a crowd of them).")
    return bool(crowd)
