"""Where the names of boxes go, so that they cover neither the objects nor each other."""

import numpy as np


def place_labels(boxes: np.ndarray, sizes: np.ndarray, width: float) -> np.ndarray:
    """The left top corners [N, 2] for labels at boxes [N, 4] of an image that is `width` wide.

    `sizes` [N, 2] are the labels' (width, height). Boxes are (left, top, width, height). A label goes beside its box's
    top or bottom edge where it covers least: of boxes, and of the labels before it. It may stand over the image's top
    and bottom edges, not over its sides.
    """
    places = np.zeros((len(boxes), 2))
    for row, (box, size) in enumerate(zip(boxes, sizes, strict=True)):
        corners = _candidates(box, size)
        corners[:, 0] = corners[:, 0].clip(0, max(0, width - size[0]))
        candidates = np.concatenate([corners, np.broadcast_to(size, corners.shape)], axis=1)
        earlier = np.concatenate([places[:row], sizes[:row]], axis=1)
        # A label over another can't be read, one over a corner of a box can.
        covered = _shared_area(candidates, boxes).sum(axis=1) + 3 * _shared_area(candidates, earlier).sum(axis=1)
        places[row] = corners[covered.argmin()]
    return places


def _candidates(box: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Above and below the box, at its left, its right, its middle; then inside. Of equals the first is taken."""
    left, top, right, bottom = box[0], box[1], box[0] + box[2], box[1] + box[3]
    above, below = top - size[1], bottom
    end, middle = right - size[0], (left + right - size[0]) / 2
    outside = [(x, y) for y in (above, below) for x in (left, end, middle)]
    return np.array([*outside, (left, top), (left, bottom - size[1])])


def _shared_area(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """[N, M] of boxes [N, 4] and [M, 4]."""
    ends = np.minimum((boxes[:, :2] + boxes[:, 2:])[:, None], others[:, :2] + others[:, 2:])
    return (ends - np.maximum(boxes[:, None, :2], others[:, :2])).clip(min=0).prod(axis=2)
