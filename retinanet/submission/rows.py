"""Mistakes that run through a whole result file, found from its rows: other category ids, corners instead of sizes.

Correct files can look the same: a background class, few classes, boxes that nobody clipped. So a mistake that is
possible is one thing, and a mistake that the rows prove is another.
"""

from collections import Counter
from collections.abc import Hashable
from typing import Any, NamedTuple

import numpy as np

from retinanet.coco.annotations import Annotations
from retinanet.coco.boxes import corners_for_sizes
from retinanet.coco.json_values import is_id, is_number

NumberedRows = list[tuple[int, dict[str, Any]]]  # rows that have all keys, with their indices in the file
ENOUGH = 10  # rows: fewer prove nothing about the others
# Shares of the rows whose ids are neither the set's nor a background's: above the first share they are no strays, and
# above the second if they have several different ids.
STRAY_SHARE, SEVERAL, SEVERAL_SHARE = 0.1, 3, 0.01
# Read as sizes, most corners leave their images, and a third of them by a quarter of a side. No detector's boxes do.
OVER_SHARE, FAR, FAR_SHARE = 0.5, 0.25, 1 / 3


class Corners(NamedTuple):
    """Boxes that look like (x1, y1, x2, y2) instead of (left, top, width, height)."""

    positions: list[int]  # indices into the rows of the boxes that, read as sizes, leave their image
    proved: bool  # rather than only possible


def sizes_by_id(annotations: Annotations) -> dict[int, list[int]]:
    """(height, width) of each image."""
    return dict(zip(annotations.image_ids.tolist(), annotations.sizes.tolist(), strict=True))


def with_area_in_set(boxed: NumberedRows, sizes: dict[int, list[int]]) -> NumberedRows:
    """The rows of the set's images whose box has an area; `boxed` rows have a box of four numbers."""
    placed = [(index, row) for index, row in boxed if is_id(row["image_id"]) and row["image_id"] in sizes]
    return [(index, row) for index, row in placed if row["bbox"][2] > 0 and row["bbox"][3] > 0]


def category_readings(rows: NumberedRows, known: list[int]) -> list[tuple[str, dict[int, int]]]:
    """Other meanings of category ids that are not all `known`: each mistake's name and the right id for each id.

    A possible meaning is no proof: see cannot_be_as_written.
    """
    used = {row["category_id"] for _, row in rows if is_id(row["category_id"])}
    if used <= set(known):
        return []
    readings = {
        f"category_id off by one: all are one too {words}": {category_id: category_id + step for category_id in used}
        for step, words in ((1, "low"), (-1, "high"))
    }
    for first in (0, 1):
        if used <= set(range(first, first + len(known))):
            right = {category_id: known[category_id - first] for category_id in used}
            readings[f"category_id counts the classes from {first}"] = right
    fitting = [(problem, right) for problem, right in readings.items() if set(right.values()) <= set(known)]
    return [reading for i, reading in enumerate(fitting) if reading[1] not in [right for _, right in fitting[:i]]]


def cannot_be_as_written(rows: NumberedRows, known: list[int]) -> bool:
    """Whether the category ids can't be the `known` ones, even allowing for stray rows and a background class.

    `known` is in rising order.
    """
    counts = Counter(row["category_id"] for _, row in rows if is_id(row["category_id"]))
    if counts.keys().isdisjoint(known):
        return bool(counts)
    background = {0, *(first - 1 for first in known[:1]), *(last + 1 for last in known[-1:])}
    odd = [count for category_id, count in counts.items() if category_id not in background.union(known)]
    share = sum(odd) / counts.total()
    return sum(odd) >= ENOUGH and (share > STRAY_SHARE or (len(odd) >= SEVERAL and share > SEVERAL_SHARE))


def corners_in(rows: NumberedRows, sizes: dict[int, list[int]]) -> Corners:
    """Whether the boxes of `rows`, with an area and in images of `sizes`, look like (x1, y1, x2, y2)."""
    if not rows:
        return Corners([], False)
    boxes = np.array([row["bbox"] for _, row in rows], dtype=float)
    images = np.array([sizes[row["image_id"]] for _, row in rows], dtype=float)
    over = corners_for_sizes(boxes, images)
    far = (boxes[:, :2] + boxes[:, 2:] > (1 + FAR) * images[:, ::-1]).any(axis=1)
    proved = over.mean() > OVER_SHARE and far.mean() > FAR_SHARE and far.sum() >= ENOUGH
    return Corners(np.flatnonzero(over).tolist(), bool(proved))


def is_box(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != 4:
        return False
    left, top, width, height = value  # a loop takes twice as long, and large files need millions of calls
    return is_number(left) and is_number(top) and is_number(width) and is_number(height)


def is_probability(value: Any) -> bool:
    return is_number(value) and 0 <= value <= 1


def sameness(row: dict[str, Any]) -> Hashable:
    """A key that is equal for duplicates."""
    if is_id(row["image_id"]) and is_id(row["category_id"]) and is_box(row["bbox"]):
        return (row["image_id"], row["category_id"], *row["bbox"])
    return repr((row["image_id"], row["category_id"], row["bbox"]))  # any other JSON values


def place_in_table(row: dict[str, Any]) -> tuple[int, int] | None:
    """The image and class, of which COCO's evaluation keeps the top detections; None if these are not ids."""
    return (row["image_id"], row["category_id"]) if is_id(row["image_id"]) and is_id(row["category_id"]) else None
