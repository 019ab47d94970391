"""Computes COCO average precision for many weightings of the images at once, for the bootstrap."""

from typing import NamedTuple

import numpy as np

RECALLS = np.linspace(0, 1, 101)
NUMBERS_AT_A_TIME = 2**24  # weightings x detections


class Ranked(NamedTuple):
    """Holds a class's n detections by descending score, matched at T IoUs, and the images of its m objects."""

    images: np.ndarray  # int64 [n], index of the image
    hits: np.ndarray  # bool [T, n], true positives
    ignored: np.ndarray  # bool [T, n], neither true nor false positives
    object_images: np.ndarray  # int64 [m]


class Precisions(NamedTuple):
    ap: np.ndarray  # [T, W]; NaN if all objects have weight 0
    recall: np.ndarray  # [T, W], over all detections


def average_precision(ranked: Ranked, weights: np.ndarray) -> Precisions:
    """Returns AP and recall at T IoU thresholds for each of the W weightings of the N images in `weights` [W, N].

    An image of weight w counts as w copies, except that tied detections a and b of two copies are ranked a, a,
    b, b instead of a, b, a, b. With weights of 1, AP and recall are the same as in the COCO evaluation.
    """
    step = max(1, NUMBERS_AT_A_TIME // max(1, len(ranked.images)))
    parts = [_for_weightings(ranked, weights[start : start + step]) for start in range(0, max(1, len(weights)), step)]
    return Precisions(*(np.concatenate(both, axis=1) for both in zip(*parts, strict=True)))


def mean_of_classes(values: np.ndarray) -> np.ndarray:
    """Returns the mean over the first axis, the classes, skipping NaN (a class without objects); NaN if all are NaN."""
    has_objects = ~np.isnan(values)
    count = has_objects.sum(axis=0)
    return np.where(count > 0, np.where(has_objects, values, 0).sum(axis=0) / np.maximum(count, 1), np.nan)


def _for_weightings(ranked: Ranked, weights: np.ndarray) -> Precisions:
    num_objects = weights[:, ranked.object_images].sum(axis=1, dtype=np.float64)[:, None]  # [W, 1]
    seen = np.take(weights, ranked.images, axis=1).cumsum(axis=1, dtype=np.float64)  # [W, n]
    ap = np.zeros((len(ranked.hits), len(weights)))
    recall = np.zeros_like(ap)
    for row, (hits, ignored) in enumerate(zip(ranked.hits, ranked.ignored, strict=True)):
        # Precision rises only at true positives, so they determine its envelope.
        places = np.flatnonzero(hits)
        if not len(places):
            continue
        right = np.take(weights, ranked.images[places], axis=1).cumsum(axis=1, dtype=np.float64)  # [W, hits]
        counted = seen[:, places]
        if ignored.any():
            counted = counted - _weight_before(places, np.flatnonzero(ignored), ranked.images, weights)
        precision = right / (counted + np.spacing(1))  # as pycocotools does
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        with np.errstate(invalid="ignore"):  # 0 / 0 if all objects have weight 0
            reached = np.searchsorted(RECALLS, right / num_objects, side="right")  # number of recalls attained
            recall[row] = right[:, -1] / num_objects[:, 0]
        ap[row] = (np.diff(reached, axis=1, prepend=0) * envelope).sum(axis=1) / len(RECALLS)
    nothing = num_objects[:, 0] == 0
    ap[:, nothing] = recall[:, nothing] = np.nan
    return Precisions(ap, recall)


def _weight_before(places: np.ndarray, ignored: np.ndarray, images: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns the total weight of the ignored detections before each of `places`: [W, places]."""
    summed = np.take(weights, images[ignored], axis=1).cumsum(axis=1, dtype=np.float64)
    summed = np.concatenate([np.zeros((len(weights), 1)), summed], axis=1)
    return summed[:, np.searchsorted(ignored, places)]
