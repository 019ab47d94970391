"""Classifies the errors of detections and what they cost: the six kinds of error of TIDE (Bolya et al., 2020)."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from retinanet.coco.annotations import Annotations
from retinanet.coco.results import Found
from retinanet.evaluation.average_precision import average_precision, mean_of_classes
from retinanet.evaluation.matches import IOUS, DetectionMatches, ranked_classes

HIT_IOU, TIDE_BACKGROUND_IOU = IOUS[0], 0.1
CLASS, LOCATION, BOTH, DUPLICATE, BACKGROUND, MISSED = range(6)
ERROR_KINDS = ("wrong class", "badly placed", "both", "duplicate", "background", "missed")
NO_ERROR = -1  # a hit, or an ignored detection that could not become one


class Errors(NamedTuple):
    """The kind of error of each of D detections, and the objects, of T annotations, that none was meant for."""

    kinds: np.ndarray  # int64 [D], CLASS to BACKGROUND, or NO_ERROR
    objects: np.ndarray  # int64 [D], the object that a detection of the wrong class or location was meant for, or -1
    missed: np.ndarray  # bool [T]


class Lost(NamedTuple):
    """The AP50 gained by fixing only one of the 6 kinds of error, for W weightings of the images."""

    mean: np.ndarray  # [6, W], the mean over the classes that have objects
    classes: np.ndarray  # [6, C, W]; NaN for a class without objects


def find_errors(matches: DetectionMatches, annotations: Annotations) -> Errors:
    """Assigns each false detection at IoU 0.5 to the first kind of error that fits.

    As in TIDE 1.0.1, a detection in a crowd, which is neither right nor wrong, counts where mending it would find an
    object that is not found.
    """
    near_own = (matches.own_iou >= TIDE_BACKGROUND_IOU) & (matches.own_iou <= HIT_IOU)
    near_other = matches.other_iou >= HIT_IOU
    is_open = ~_found_objects(matches, annotations)
    can_find = np.where(near_own, is_open[matches.own_object], near_other & is_open[matches.other_object])
    choices = [
        (matches.hits[0] | (matches.ignored[0] & ~can_find), NO_ERROR),
        (near_own, LOCATION),
        (near_other, CLASS),
        (matches.own_iou >= HIT_IOU, DUPLICATE),  # the right class and location, but a better detection has the object
        (np.maximum(matches.own_iou, matches.other_iou) <= TIDE_BACKGROUND_IOU, BACKGROUND),
    ]
    kinds = np.select([condition for condition, _ in choices], [kind for _, kind in choices], BOTH)
    objects = np.select([kinds == LOCATION, kinds == CLASS], [matches.own_object, matches.other_object], -1)
    accounted = np.concatenate([matches.objects, objects])
    missed = ~annotations.crowds
    missed[accounted[accounted >= 0]] = False
    return Errors(kinds, objects, missed)


def lost_to_errors(
    detections: Found, matches: DetectionMatches, errors: Errors, annotations: Annotations, weights: np.ndarray
) -> Lost:
    """Returns the AP50 gained by fixing only one kind of error, for `weights` [W, N] of the images.

    For an object that is not found, the top-scoring detection of the wrong class or place that was meant for it becomes
    a hit. All other false detections are dropped. Missed objects don't count, and a class that has no others counts as
    found completely.
    """
    base = _ap50(detections, matches, annotations, weights)
    fixed = np.stack(list(_fixed(detections, matches, errors, annotations, weights, base)))
    return Lost(mean_of_classes(fixed.swapaxes(0, 1)) - mean_of_classes(base), fixed - base)


def _fixed(
    detections: Found,
    matches: DetectionMatches,
    errors: Errors,
    annotations: Annotations,
    weights: np.ndarray,
    base: np.ndarray,
) -> Iterator[np.ndarray]:
    """Yields the AP50 of the classes [C, W] without each kind of error in turn."""
    is_found = _found_objects(matches, annotations)
    meant = np.flatnonzero((errors.objects >= 0) & ~is_found[errors.objects])
    best = np.zeros(len(errors.kinds), bool)
    best[meant[np.unique(errors.objects[meant], return_index=True)[1]]] = True  # the first detection scores highest
    for kind in (CLASS, LOCATION, BOTH, DUPLICATE, BACKGROUND):
        wrong = errors.kinds == kind
        fixed = wrong & best
        labels, hits, ignored = detections.labels.copy(), matches.hits[:1].copy(), matches.ignored[:1] | wrong
        labels[fixed] = annotations.labels[errors.objects[fixed]]
        hits[0, fixed], ignored[0, fixed] = True, False
        yield _ap50(
            detections._replace(labels=labels), matches._replace(hits=hits, ignored=ignored), annotations, weights
        )
    without_missed = _ap50(detections, matches, annotations, weights, counted_objects=~errors.missed)
    yield np.where(np.isnan(without_missed) & ~np.isnan(base), 1, without_missed)


def _found_objects(matches: DetectionMatches, annotations: Annotations) -> np.ndarray:
    """Marks the annotations that a detection hits at IoU 0.5: bool [T]."""
    is_found = np.zeros(len(annotations.labels), bool)
    is_found[matches.objects[matches.objects >= 0]] = True
    return is_found


def _ap50(
    detections: Found,
    matches: DetectionMatches,
    annotations: Annotations,
    weights: np.ndarray,
    counted_objects: np.ndarray | None = None,
) -> np.ndarray:
    ranked = ranked_classes(
        detections, matches._replace(hits=matches.hits[:1], ignored=matches.ignored[:1]), annotations, counted_objects
    )
    return np.stack([average_precision(of_class, weights).ap[0] for of_class in ranked])
