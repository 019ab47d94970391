"""Converts COCO boxes (left, top, width, height) to corners and back, and recognises boxes in other formats."""

import numpy as np

# Whether an EXIF orientation, 0 to 8, mirrors the stored pixels left to right or top to bottom, and whether it then
# swaps height and width. BACK holds, for each orientation, the orientation that reverses it.
MIRRORS_X = np.isin(np.arange(9), (2, 3, 7, 8))
MIRRORS_Y = np.isin(np.arange(9), (3, 4, 6, 7))
SWAPS = np.arange(9) >= 5
BACK = np.array([0, 1, 2, 3, 4, 5, 8, 7, 6], np.uint8)
LEAST_IMAGE_SIDE = 16  # pixels; in a smaller image, an object may really lie in the first pixel
MOST = 0.5  # no real dataset has a larger fraction of its boxes in the first pixel of their image
TOLERANCE = 0.05  # boxes that were not clipped extend slightly past their image
# Boxes count as corners if at least OUTSIDE_SHARE of them leave their image when read as (left, top, width, height) and
# at least INSIDE_SHARE lie inside when read as corners, so that a few unclipped boxes don't hide the mistake.
OUTSIDE_SHARE, INSIDE_SHARE = 0.1, 0.95


def corners_of(boxes: np.ndarray) -> np.ndarray:
    """Returns COCO `boxes` [..., 4] as (x1, y1, x2, y2)."""
    return np.concatenate([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], axis=-1)


def boxes_of(corners: np.ndarray) -> np.ndarray:
    """Returns the `corners` [..., 4], each (x1, y1, x2, y2), as COCO boxes."""
    return np.concatenate([corners[..., :2], corners[..., 2:] - corners[..., :2]], axis=-1)


def clipped_corners(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Returns the corners of COCO `boxes` [n, 4], clipped to images of the given `sizes` [n, 2] (height, width)."""
    return corners_of(boxes).clip(0, sizes[:, [1, 0, 1, 0]])


def resized_corners(corners: np.ndarray, old_sizes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Scales `corners` [n, 4] as if their images were resized from `old_sizes` [n, 2] to `sizes` [n, 2]."""
    return corners * (sizes / old_sizes)[:, [1, 0, 1, 0]]


def mirrored_corners(corners: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Mirrors `corners` [n, 4] left to right in images of the given `widths` [n]."""
    x1, y1, x2, y2 = corners.T
    return np.stack([widths - x2, y1, widths - x1, y2], axis=1)


def seen_in(corners: np.ndarray, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the part of each object in its window: a box in window pixels, and a fraction of the object's area.

    `corners` [n, 4] are in the image's pixels, and so are `windows` [n, 4], each (top, left, height, width). Returns
    float64 [n, 4] and [n].
    """
    moved = corners - windows[:, [1, 0, 1, 0]]
    parts = moved.clip(0, windows[:, [3, 2, 3, 2]])
    areas, wholes = ((each[:, 2:] - each[:, :2]).prod(axis=1) for each in (parts, moved))
    return parts, areas / np.where(wholes > 0, wholes, 1)


def turned_boxes(boxes: np.ndarray, orientations: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Applies EXIF `orientations` [n] to COCO `boxes` [n, 4]; `sizes` [n, 2] are the image sizes before rotation."""
    left, top, width, height = boxes.T
    rows, columns = sizes.T
    left = np.where(MIRRORS_X[orientations], columns - left - width, left)
    top = np.where(MIRRORS_Y[orientations], rows - top - height, top)
    upright, swapped = (np.stack(parts, axis=1) for parts in ((left, top, width, height), (top, left, height, width)))
    return np.where(SWAPS[orientations][:, None], swapped, upright)


def turned_sizes(sizes: np.ndarray, orientations: np.ndarray) -> np.ndarray:
    """Applies EXIF `orientations` [n] to image `sizes` [n, 2]."""
    return np.where(SWAPS[orientations][:, None], sizes[:, ::-1], sizes)


def shared_area(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns the intersection areas [...] of COCO `boxes` and `others` [..., 4], whose shapes must broadcast."""
    left, top, right, bottom = np.moveaxis(corners_of(boxes), -1, 0)
    x1, y1, x2, y2 = np.moveaxis(corners_of(others), -1, 0)
    width = (np.minimum(right, x2) - np.maximum(left, x1)).clip(0)
    height = (np.minimum(bottom, y2) - np.maximum(top, y1)).clip(0)
    return width * height


def in_fractions(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """If most `boxes` [n, 4] look like fractions of the image `sizes` [n, 2], marks those that do: bool [n].

    Read as pixels, such a box lies in the top-left pixel of its image, whether it consists of a corner and a size, a
    centre and a size, or two corners. Real objects, however tiny, rarely lie there. If all such boxes consist of whole
    numbers, such as (0, 0, 1, 1), they are placeholders and are not marked. Boxes without area, and boxes in tiny
    images, are neither counted nor marked.
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
    """If `boxes` [n, 4] look like (x1, y1, x2, y2), marks those that, if read as COCO boxes, extend past the image.

    `sizes` [n, 2] are the image sizes. Returns bool [n], all False if the boxes look like (left, top, width, height).
    """
    limits = sizes[:, ::-1] + 1
    fits_as_corners = ((boxes[:, 2:] > boxes[:, :2]) & (boxes[:, 2:] <= limits)).all(axis=1)
    sticks_out = (boxes[:, :2] + boxes[:, 2:] > limits).any(axis=1)
    if not len(boxes) or fits_as_corners.mean() < INSIDE_SHARE or sticks_out.mean() < OUTSIDE_SHARE:
        return np.zeros(len(boxes), bool)
    return sticks_out
