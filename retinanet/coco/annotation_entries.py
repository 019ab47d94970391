"""Checks the entries of a COCO annotation file; raises a DataFault that names the mistake and its fix."""

import re
from collections.abc import Container
from pathlib import Path
from typing import Any

from retinanet.coco.json_values import is_id, is_number, is_text
from retinanet.runtime.errors import DataFault

# Matches C:\a.jpg, \\server\a.jpg and ..\a.jpg. Other backslashes are allowed, because some archives unpack to files
# with backslashes in their names.
WINDOWS_OUTSIDE = re.compile(r"([A-Za-z]:)?[\\/]|(.*[\\/])?\.\.\\")
BOX_OF_MASK = "Add the box around it: (left, top, width, height) in pixels."


def leaves_folder(file_name: str) -> bool:
    """Returns True if `file_name` isn't a valid path, or may lead outside the folder that it is relative to."""
    return Path(file_name).is_absolute() or ".." in Path(file_name).parts or "\0" in file_name


def category_entry(category: dict[str, Any], seen: Container[int]) -> tuple[int, str]:
    """Returns the category's id and name; `seen` holds the ids of earlier categories."""
    category_id, name = category.get("id"), category.get("name")
    if not is_id(category_id) or not is_text(name):
        key, value, advice = "id", category_id, "a whole number without quotes"
        if is_id(category_id):
            key, value, advice = "name", name, f'"{name}", with quotes' if is_number(name) else "text"
        raise DataFault("category_malformed", f"category {category} has {_shown(key, value)}. Write {advice}.")
    if category_id in seen:
        raise DataFault(
            "category_id_twice", f"category id {category_id} appears twice. Give each category a different id."
        )
    return category_id, name


def image_entry(image: dict[str, Any], seen: Container[int]) -> tuple[int, str, tuple[int, int]]:
    """Returns the image's id, file name and (height, width); `seen` holds the ids of earlier images."""
    image_id, file_name = image.get("id"), image.get("file_name")
    if not is_id(image_id):
        raise DataFault(
            "image_id_malformed",
            f"an image's id is {image_id!r} ({file_name}). Ids must be whole numbers, without quotes.",
        )
    if image_id in seen:
        raise DataFault("image_id_twice", f"image id {image_id} appears twice. Give each image a different id.")
    if isinstance(file_name, str) and not is_text(file_name):
        raise DataFault(
            "file_name_malformed",
            f"file_name {file_name!r} of image {image_id} contains half a surrogate pair, which a file "
            "name can't. Write it as UTF-8.",
        )
    if not is_text(file_name) or not file_name:
        raise DataFault(
            "file_name_missing", f"image {image_id} has no file_name. Add it, relative to the image folder."
        )
    if leaves_folder(file_name):
        raise DataFault(
            "file_name_outside",
            f"file_name {file_name!r} of image {image_id} leaves the image folder. Make it relative to that folder.",
        )
    if WINDOWS_OUTSIDE.match(file_name):
        raise DataFault(
            "file_name_windows",
            f"file_name {file_name!r} of image {image_id} looks like a Windows path that leaves the image folder. Make "
            "it relative to that folder, with / instead of \\.",
        )
    return image_id, file_name, (_pixels(image, "height"), _pixels(image, "width"))


def _pixels(image: dict[str, Any], key: str) -> int:
    side = image.get(key)
    if is_id(side) and side > 0:
        return side
    is_whole = is_number(side) and side > 0 and side == int(side)
    advice = f"{side:.0f}, without a decimal point" if is_whole else "the number of pixels, without quotes"
    where = f"image {image['id']} ({image['file_name']})"
    raise DataFault("image_size_malformed", f"{where} has {_shown(key, side)}. Write {advice}.")


def _shown(key: str, value: Any) -> str:
    return f"no {key}" if value is None else f"the {key} {value!r}"


def known(annotation: dict[str, Any], key: str, rows: dict[int, int], kind: str, where: str) -> int:
    """Returns the row of the image or category that the annotation refers to by `key`; `rows` maps ids to rows.

    Raises a DataFault if the id is malformed, and one of `kind` if the list called `where` doesn't contain the id.
    """
    value = annotation.get(key)
    if isinstance(value, str | float):
        raise DataFault(
            "id_malformed", f"{key} {value!r} is not a whole number. Write it without quotes or a decimal point."
        )
    if not is_id(value) or value not in rows:
        raise DataFault(kind, f'{key} {value!r} is not in "{where}". Add it there, or remove the annotation.')
    return rows[value]


def box_and_area(annotation: dict[str, Any]) -> tuple[list[float], float]:
    """Returns the box (left, top, width, height) and the annotated area, which defaults to width x height."""
    box, mask = annotation.get("bbox"), annotation.get("segmentation")
    if not box and mask:
        raise DataFault("box_missing", f"has a segmentation but no bbox. {BOX_OF_MASK}")
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        is_quoted = any(isinstance(number, str) for number in (box if isinstance(box, list) else [box]))
        quotes = ", without quotes" if is_quoted else ""
        raise DataFault(
            "box_malformed", f"bbox {box!r} must be four finite numbers (left, top, width, height){quotes}."
        )
    if box[2] < 0 or box[3] < 0:
        raise DataFault("box_negative", f"bbox {box} has a negative size. It must be (left, top, width, height).")
    area = annotation.get("area")
    if area is None:
        area = box[2] * box[3]
    if not is_number(area) or area < 0:
        raise DataFault("area_malformed", f"area {area!r} must be a finite number of square pixels, or be left out.")
    if box[2] == box[3] == 0 and _is_wide(mask, area):
        raise DataFault("box_missing", f"has a segmentation but no bbox: {box} is empty. {BOX_OF_MASK}")
    return box, area


def _is_wide(mask: Any, area: float) -> bool:
    """Returns True if `mask` (polygons [[x1, y1, x2, y2 ...] ...] or run lengths) is larger than a pixel."""
    if isinstance(mask, dict):
        return area > 1
    if not isinstance(mask, list):
        return False
    polygons = [outline for outline in mask if isinstance(outline, list) and all(map(is_number, outline))]
    return any(
        max(outline[0::2]) - min(outline[0::2]) > 1 and max(outline[1::2]) - min(outline[1::2]) > 1
        for outline in polygons
        if len(outline) > 1
    )


def is_crowd(annotation: dict[str, Any]) -> bool:
    crowd = annotation.get("iscrowd")
    if crowd not in (None, 0, 1):
        raise DataFault("crowd_malformed", f"iscrowd {crowd!r} must be 0 (an object) or 1 (a crowd of them).")
    return bool(crowd)
