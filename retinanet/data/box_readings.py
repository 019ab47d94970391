"""Defines readings of a box, that is, what its four numbers may mean; each converts a file's boxes to COCO boxes."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from retinanet.coco.boxes import turned_boxes, turned_sizes
from retinanet.settings.convert import AS_GIVEN, BOX_READINGS

Boxes = Callable[[np.ndarray, np.ndarray], np.ndarray]  # boxes [n, 4], sizes of their images [n, 2] -> boxes [n, 4]
SHIFT = 0.1  # of the picture's width or height


class Reading(NamedTuple):
    says: str  # what x, y, w and h of the file are
    boxes: Boxes


def read_boxes(name: str, boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Converts `boxes` in the reading `name` to COCO boxes [n, 4]; `sizes` [n, 2] are their images' (height, width)."""
    return READINGS[name].boxes(np.asarray(boxes, float).reshape(-1, 4), sizes)


def orientation_reading(orientation: int) -> str:
    """Returns the reading of boxes that refer to the stored pixels of such a picture: its name, or "" if none."""
    return OF_ORIENTATIONS.get(orientation, "")


def _moved(across: float, down: float) -> Boxes:
    """Returns the reading that moves boxes by these fractions of their own width and height."""
    return lambda boxes, sizes: boxes + boxes[:, [2, 3, 2, 3]] * [across, down, 0, 0]


def _shifted(across: float, down: float) -> Boxes:
    """Returns the reading that moves boxes by these fractions of the picture's width and height."""
    return lambda boxes, sizes: boxes + sizes[:, [1, 0, 1, 0]] * [across, down, 0, 0]


def _scaled(factor: float) -> Boxes:
    return lambda boxes, sizes: boxes / factor


def _turned(orientation: int, *, in_pixels: bool = False) -> Boxes:
    """Returns the reading that applies an EXIF orientation to boxes.

    With `in_pixels`, the boxes are in pixels of the frame that they were drawn in. Otherwise, they are fractions of
    that frame, multiplied by the size of the picture.
    """

    def boxes_of(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        orientations = np.full(len(boxes), orientation)
        drawn = turned_sizes(sizes, orientations)  # turning back swaps height and width just as turning does
        if not in_pixels:
            boxes = boxes * (drawn / sizes)[:, [1, 0, 1, 0]]
        return turned_boxes(boxes, orientations, drawn)

    return boxes_of


def _corners(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    return boxes - boxes[:, [0, 1, 0, 1]] * [0, 0, 1, 1]


READINGS = {
    AS_GIVEN: Reading("left, top, width and height", _moved(0, 0)),
    "centres": Reading("x and y are the centre of the box", _moved(-0.5, -0.5)),
    "corner_less_half": Reading("x and y are the corner minus half the width and height", _moved(0.5, 0.5)),
    "corners": Reading("the numbers are x1, y1, x2 and y2", _corners),
    "mirrored": Reading("the boxes belong to the mirrored picture", _turned(2)),
    "upside_down": Reading("y counts from the bottom of the picture", _turned(4)),
    "half_turn": Reading("the boxes belong to the picture rotated by 180 degrees", _turned(3)),
    "turned_left": Reading("the boxes belong to the picture rotated left, as fractions", _turned(6)),
    "turned_left_pixels": Reading("the boxes belong to the picture rotated left", _turned(6, in_pixels=True)),
    "turned_right": Reading("the boxes belong to the picture rotated right, as fractions", _turned(8)),
    "turned_right_pixels": Reading("the boxes belong to the picture rotated right", _turned(8, in_pixels=True)),
    "swapped": Reading("the numbers are top, left, height and width", _turned(5, in_pixels=True)),
    "swapped_fractions": Reading("the numbers are top, left, height and width, as fractions", _turned(5)),
    "scaled_up": Reading("all four numbers are 1.1 times too large", _scaled(1.1)),
    "scaled_down": Reading("all four numbers are 0.8 times what they should be", _scaled(0.8)),
    "shifted_right": Reading("the boxes are a tenth of the width too far right", _shifted(-SHIFT, 0)),
    "shifted_left": Reading("the boxes are a tenth of the width too far left", _shifted(SHIFT, 0)),
    "shifted_down": Reading("the boxes are a tenth of the height too far down", _shifted(0, -SHIFT)),
    "shifted_up": Reading("the boxes are a tenth of the height too far up", _shifted(0, SHIFT)),
}
OF_ORIENTATIONS = {
    2: "mirrored",
    3: "half_turn",
    4: "upside_down",
    5: "swapped_fractions",
    6: "turned_left",
    8: "turned_right",
}
assert (*READINGS,) == BOX_READINGS
