"""Detects boxes that are not COCO's (left, top, width, height) in pixels: fractions of the image, or corners."""

import numpy as np

LEAST_IMAGE_SIDE = 16  # of an image; in a smaller one the first pixel may well be an object
MOST = 0.5  # in no real set does a larger share of the boxes lie in the first pixel of their images
TOLERANCE = 0.05  # boxes that were not clipped reach slightly past their image
# Boxes count as corners if at least the first share leaves the image when read as width and height, and at least the
# second lies inside when read as corners: a few boxes that were not clipped don't hide the mistake.
OUTSIDE_SHARE, INSIDE_SHARE = 0.1, 0.95


def in_fractions(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Which of `boxes` [n, 4] are fractions of their images of `sizes` [n, 2]: bool [n]. None unless most are.

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
    """Which of `boxes` [n, 4] leave their images of `sizes` [n, 2], if all look like (x1, y1, x2, y2): bool [n].

    None of them if they look like (left, top, width, height).
    """
    limits = sizes[:, ::-1] + 1
    fits_as_corners = ((boxes[:, 2:] > boxes[:, :2]) & (boxes[:, 2:] <= limits)).all(axis=1)
    sticks_out = (boxes[:, :2] + boxes[:, 2:] > limits).any(axis=1)
    if not len(boxes) or fits_as_corners.mean() < INSIDE_SHARE or sticks_out.mean() < OUTSIDE_SHARE:
        return np.zeros(len(boxes), bool)
    return sticks_out
