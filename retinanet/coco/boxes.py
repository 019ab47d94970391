"""Converts COCO boxes (left, top, width, height) to corners and back, and recognises boxes in other formats."""

import numpy as np

LEAST_IMAGE_SIDE = 16  # pixels; in smaller images, the first pixel may well be an object
MOST = 0.5  # no real set has a larger fraction of its boxes in the first pixel of their images
TOLERANCE = 0.05  # boxes that were not clipped reach slightly past their image
# Boxes count as corners if at least the first fraction leaves the image when read as width and height, and at least the
# second fraction lies inside when read as corners: a few boxes that were not clipped don't hide the mistake.
OUTSIDE_SHARE, INSIDE_SHARE = 0.1, 0.95


def corners_of(boxes: np.ndarray) -> np.ndarray:
    """Returns COCO `boxes` [..., 4] as (x1, y1, x2, y2)."""
    return np.concatenate([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], axis=-1)


def boxes_of(corners: np.ndarray) -> np.ndarray:
    """Returns `corners` [..., 4], which are (x1, y1, x2, y2), as COCO boxes."""
    return np.concatenate([corners[..., :2], corners[..., 2:] - corners[..., :2]], axis=-1)


def clipped_corners(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Returns the corners of COCO `boxes` [n, 4], clipped to their images of `sizes` [n, 2] (height, width)."""
    return corners_of(boxes).clip(0, sizes[:, [1, 0, 1, 0]])


def resized_corners(corners: np.ndarray, old_sizes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Returns `corners` [n, 4] after their images of `old_sizes` [n, 2] are resized to `sizes` [n, 2]."""
    return corners * (sizes / old_sizes)[:, [1, 0, 1, 0]]


def mirrored_corners(corners: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Returns `corners` [n, 4] after their images of `widths` [n] are mirrored left to right."""
    x1, y1, x2, y2 = corners.T
    return np.stack([widths - x2, y1, widths - x1, y2], axis=1)


def shared_area(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns the areas [...] of the intersections of COCO `boxes` and `others` [..., 4], whose shapes broadcast."""
    left, top, right, bottom = np.moveaxis(corners_of(boxes), -1, 0)
    x1, y1, x2, y2 = np.moveaxis(corners_of(others), -1, 0)
    width = (np.minimum(right, x2) - np.maximum(left, x1)).clip(0)
    height = (np.minimum(bottom, y2) - np.maximum(top, y1)).clip(0)
    return width * height


def in_fractions(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Marks the `boxes` [n, 4] that are fractions of their images of `sizes` [n, 2], if most are: bool [n].

    Read as pixels, such a box lies in the top left pixel of its image, whether it holds a corner and a size, a centre
    and a size, or two corners. Real objects, however tiny, are elsewhere. Boxes of whole numbers such as (0, 0, 1, 1)
    are placeholders; boxes without area don't count.
    """
    within = np.all((boxes >= -TOLERANCE) & (boxes <= 1 + TOLERANCE), axis=1)
    if not within.any():
        return within
    counted = (boxes[:, 2:] > 0).all(axis=1) & (sizes >= LEAST_IMAGE_SIDE).all(axis=1)
    within &= counted
    are_whole = (boxes[within] == np.rint(boxes[within])).all()
    if are_whole or within.sum() <= MOST * counted.sum():
        return np.zeros(len(boxes), bool)
    return within


def corners_for_sizes(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Marks the `boxes` [n, 4] that leave their images of `sizes` [n, 2], if all look like (x1, y1, x2, y2): bool [n].

    Marks none if they look like (left, top, width, height).
    """
    limits = sizes[:, ::-1] + 1
    fits_as_corners = ((boxes[:, 2:] > boxes[:, :2]) & (boxes[:, 2:] <= limits)).all(axis=1)
    sticks_out = (boxes[:, :2] + boxes[:, 2:] > limits).any(axis=1)
    if not len(boxes) or fits_as_corners.mean() < INSIDE_SHARE or sticks_out.mean() < OUTSIDE_SHARE:
        return np.zeros(len(boxes), bool)
    return sticks_out
