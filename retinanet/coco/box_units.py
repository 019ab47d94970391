"""Boxes in fractions of their image, as YOLO and others write them, where COCO has pixels."""

import numpy as np

LEAST_IMAGE_SIDE = 16  # of an image; the first pixel of a smaller one may well hold an object
MOST = 0.5  # a larger share of a set's boxes than this does not lie in the first pixels of its images
TOLERANCE = 0.05  # boxes that were not clipped reach a bit past their image


def in_fractions(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Which of `boxes` [n, 4] are in fractions of their images of `sizes` [n, 2], where most are: bool [n].

    Read as pixels, such a box lies in the top left pixel of its image, be it (left, top, width, height), of the centre
    or the corners: even in a set of the tiniest objects, they are elsewhere. Boxes of whole numbers, (0, 0, 1, 1), are
    placeholders, and those without area are none.
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
