"""Chooses the colour, text and place of box labels, for pictures made with or without matplotlib."""

import unicodedata
from bisect import bisect
from itertools import accumulate

import numpy as np

from retinanet.coco.boxes import corners_of, shared_area
from retinanet.runtime.printable import printable

MOST_LETTERS = 30  # in a class name; a full-width letter, such as a Chinese character, counts as two
# Petroff's ten colours (https://arxiv.org/abs/2107.02270), which colour-blind readers can distinguish.
PALETTE = (
    *("#3f90da", "#ffa90e", "#bd1f01", "#832db6", "#92dadd"),
    *("#a96b59", "#e76300", "#b9ac70", "#717581", "#94a4a2"),
)


def shortened(name: str, most: int = MOST_LETTERS) -> str:
    """Returns the name made printable and cut to the width of `most` Latin letters."""
    name = printable(name)
    ends = list(accumulate(letter_widths(name), initial=0))
    return name if ends[-1] <= most else f"{name[: bisect(ends, most - 1) - 1]}…"


def class_colour(label: int) -> str:
    return PALETTE[label % len(PALETTE)]


def letter_widths(name: str) -> list[int]:
    """Returns the approximate width of each letter, in multiples of a Latin letter's width."""
    return [2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in name]


def text_colour(background: str) -> str:
    """Returns black or white, whichever contrasts more (by WCAG 2) with `background`, a colour such as #3f90da."""
    parts = np.array([int(background[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return "black" if linear @ [0.2126, 0.7152, 0.0722] > 0.179 else "white"


def place_labels(boxes: np.ndarray, sizes: np.ndarray, width: float) -> np.ndarray:
    """Returns the top-left corners [N, 2] of the labels of `boxes` [N, 4] in an image of the given `width`.

    Boxes are (left, top, width, height); `sizes` [N, 2] are the labels' (width, height). Each label is at the top or
    bottom edge of its box, in the position that overlaps boxes and earlier labels the least. Labels may extend past the
    image's top and bottom, but not past its sides.
    """
    places = np.zeros((len(boxes), 2))
    for row, (box, size) in enumerate(zip(boxes, sizes, strict=True)):
        corners = _candidates(box, size)
        corners[:, 0] = corners[:, 0].clip(0, max(0, width - size[0]))
        candidates = np.concatenate([corners, np.broadcast_to(size, corners.shape)], axis=1)
        earlier = np.concatenate([places[:row], sizes[:row]], axis=1)
        # A label over another label is unreadable; a label over the corner of a box is not.
        over_boxes, over_labels = (shared_area(candidates[:, None], others) for others in (boxes, earlier))
        covered = over_boxes.sum(axis=1) + 3 * over_labels.sum(axis=1)
        places[row] = corners[covered.argmin()]
    return places


def _candidates(box: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Returns 8 positions for a label, [8, 2]: above and below the box (aligned left, right or centred), then 2 inside.

    The order matters: place_labels uses the first of equally good positions.
    """
    left, top, right, bottom = corners_of(box)
    above, below = top - size[1], bottom
    end, middle = right - size[0], (left + right - size[0]) / 2
    outside = [(x, y) for y in (above, below) for x in (left, end, middle)]
    return np.array([*outside, (left, top), (left, bottom - size[1])])
