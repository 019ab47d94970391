"""Boxes in NumPy arrays: their corners clipped, resized and mirrored, and the area that two of them share."""

import numpy as np

Edges = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # left, top, right, bottom


def edges_of(boxes: np.ndarray) -> Edges:
    """The edges [...] of COCO's `boxes` [..., 4]."""
    left, top, width, height = np.moveaxis(boxes, -1, 0)
    return left, top, left + width, top + height


def shared_area(boxes: Edges, others: Edges) -> np.ndarray:
    """The area of the intersections of boxes whose edges have shapes that broadcast."""
    (left, top, right, bottom), (x1, y1, x2, y2) = boxes, others
    width = (np.minimum(right, x2) - np.maximum(left, x1)).clip(0)
    height = (np.minimum(bottom, y2) - np.maximum(top, y1)).clip(0)
    return width * height


def clipped_corners(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """COCO's `boxes` [n, 4] as (x1, y1, x2, y2), clipped to their images, whose `sizes` [n, 2] are (height, width)."""
    return np.stack(edges_of(boxes), axis=1).clip(0, sizes[:, [1, 0, 1, 0]])


def resized_corners(corners: np.ndarray, old_sizes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """`corners` [n, 4] after their images of `old_sizes` [n, 2] are resized to `sizes` [n, 2]."""
    return corners * (sizes / old_sizes)[:, [1, 0, 1, 0]]


def mirrored_corners(corners: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """`corners` [n, 4] after their images of `widths` [n] are mirrored left to right."""
    x1, y1, x2, y2 = corners.T
    return np.stack([widths - x2, y1, widths - x1, y2], axis=1)
