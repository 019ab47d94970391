"""Detects boxes in fractions of their image, as YOLO writes them; COCO's are in pixels."""

import numpy as np

LEAST_IMAGE_SIDE = 16  # of an image; in a smaller one the first pixel may well be an object
MOST = 0.5  # in no real set does a larger share of the boxes lie in the first pixel of their images
TOLERANCE = 0.05  # boxes that were not clipped reach slightly past their image


def in_fractions(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Which of `boxes` [n, 4] are fractions of their images of `sizes` [n, 2]: bool [n]. None of them if few are.

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
