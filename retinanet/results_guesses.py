"""The mistakes that a whole result file shares, told from its rows: other category ids, corners for sizes."""

import numpy as np

from retinanet.annotation_entries import is_id
from retinanet.annotations import Annotations, corners_for_sizes
from retinanet.results import NumberedRows


def sizes_by_id(annotations: Annotations) -> dict[int, list[int]]:
    """(height, width) of each image."""
    return dict(zip(annotations.image_ids.tolist(), annotations.sizes.tolist(), strict=True))


def with_area_in_set(boxed: NumberedRows, sizes: dict[int, list[int]]) -> NumberedRows:
    """Those rows, of such with four numbers, that are about the set's images and have a box with an area."""
    placed = [(index, row) for index, row in boxed if is_id(row["image_id"]) and row["image_id"] in sizes]
    return [(index, row) for index, row in placed if row["bbox"][2] > 0 and row["bbox"][3] > 0]


def category_readings(rows: NumberedRows, known: list[int]) -> list[tuple[str, dict[int, int]]]:
    """What category ids that are not all `known` may be instead: a mistake's name, and the right id of each."""
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
    return [(problem, right) for problem, right in readings.items() if set(right.values()) <= set(known)]


def written_as_corners(rows: NumberedRows, sizes: dict[int, list[int]]) -> list[int]:
    """Where boxes are (x1, y1, x2, y2), the positions in `rows` of those that read as sizes reach over their image."""
    if not rows:
        return []
    boxes = np.array([row["bbox"] for _, row in rows], dtype=float)
    wrong = corners_for_sizes(boxes, np.array([sizes[row["image_id"]] for _, row in rows], dtype=float))
    return np.flatnonzero(wrong).tolist()
