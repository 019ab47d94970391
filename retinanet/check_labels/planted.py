"""Plants mistakes in labels, to learn how detections at mistakes differ from detections at correct labels."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from retinanet.check_labels.evidence import ious
from retinanet.coco.boxes import boxes_of, corners_of

RIGHT, WRONG_CLASS, BADLY_PLACED, NO_OBJECT, TWICE = range(5)
NUM_KINDS = 5
CLASSES_OF_A_LABEL = 3  # wrong classes planted per label
MOVES_OF_A_LABEL = 3
STRAYS_OF_AN_IMAGE = 4
MOST_MOVE = 0.4  # the farthest that an edge is moved, as a fraction of the side
MOVED_IOU = (0.2, 0.65)  # the limits of the IoU of a badly placed box with the right box
DRAWS = 20  # attempts to find a move with such an IoU
FREE_IOU = 0.3  # a stray box overlaps every label by less than this
REDRAWN = 0.08  # the most by which an edge differs if an object is labelled twice, as a fraction of the side
SAME_CLASS = 0.75  # how often a second label has the same class


class Labels(NamedTuple):
    """Q labels in an image: actual labels, whose kind is RIGHT, or planted mistakes."""

    kinds: np.ndarray  # int64 [Q]
    boxes: np.ndarray  # float64 [Q, 4], (left, top, width, height)
    labels: np.ndarray  # int64 [Q]
    replaced: np.ndarray  # int64 [Q], the index of the image's label that this label replaces; -1 if it is added


def planted_in(
    boxes: np.ndarray,
    labels: np.ndarray,
    size: tuple[int, int],
    num_classes: int,
    others: tuple[np.ndarray, np.ndarray],
    draw: np.random.Generator,
) -> Iterator[Labels]:
    """Yields mistakes to plant in an image of `size` (height, width) with the given `boxes` [n, 4] and `labels` [n].

    `others` are the boxes of all images, as fractions of image sides, and the labels of these boxes.
    """
    rows = np.arange(len(boxes))
    if len(rows):
        for _ in range(CLASSES_OF_A_LABEL if num_classes > 1 else 0):
            wrong = (labels + draw.integers(1, num_classes, len(rows))) % num_classes
            yield Labels(np.full(len(rows), WRONG_CLASS), boxes, wrong, rows)
        for _ in range(MOVES_OF_A_LABEL):
            moved, is_moved = _moved(boxes, size, draw)
            count = int(is_moved.sum())
            yield Labels(np.full(count, BADLY_PLACED), moved[is_moved], labels[is_moved], rows[is_moved])
        again = _clipped(corners_of(boxes) + draw.uniform(-REDRAWN, REDRAWN, (len(rows), 4)) * _sides(boxes), size)
        is_same = draw.random(len(rows)) < SAME_CLASS
        wrong = (labels + draw.integers(0, num_classes, len(rows))) % num_classes
        yield Labels(np.full(len(rows), TWICE), again, np.where(is_same, labels, wrong), np.full(len(rows), -1))
    height, width = size
    chosen = draw.integers(len(others[0]), size=STRAYS_OF_AN_IMAGE)
    strays = others[0][chosen] * [width, height, width, height]
    is_free = (ious(strays, boxes) < FREE_IOU).all(axis=1)
    count = int(is_free.sum())
    yield Labels(np.full(count, NO_OBJECT), strays[is_free], others[1][chosen][is_free], np.full(count, -1))


def _moved(boxes: np.ndarray, size: tuple[int, int], draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Moves the edges of each box at random, so that its IoU with the original is within MOVED_IOU.

    Half of the attempts only shift the box. Returns the boxes, and a mask [n] of the boxes that were moved.
    """
    moved, is_moved = boxes.copy(), np.zeros(len(boxes), bool)
    for _ in range(DRAWS):
        moves = draw.uniform(-MOST_MOVE, MOST_MOVE, (len(boxes), 4))
        is_shift = draw.random(len(boxes)) < 0.5
        moves[is_shift, 2:] = moves[is_shift, :2]
        tried = _clipped(corners_of(boxes) + moves * _sides(boxes), size)
        overlaps = ious(tried, boxes).diagonal()
        is_good = ~is_moved & (overlaps > MOVED_IOU[0]) & (overlaps < MOVED_IOU[1])
        moved[is_good], is_moved = tried[is_good], is_moved | is_good
    return moved, is_moved


def _sides(boxes: np.ndarray) -> np.ndarray:
    return boxes[:, [2, 3, 2, 3]]


def _clipped(corners: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns the `corners` [n, 4] as COCO boxes, clipped to an image of `size` (height, width)."""
    height, width = size
    corners = corners.clip(0, [width, height, width, height])
    return boxes_of(np.concatenate([corners[:, :2], np.maximum(corners[:, 2:], corners[:, :2])], axis=1))
