"""Classifies errors into the six types of TIDE (Bolya et al., 2020) and computes the AP50 that each type costs."""

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
NO_ERROR = -1  # a true positive, or an ignored detection that could not become a true positive


class Errors(NamedTuple):
    """Holds the error type of each of D detections, and the missed objects among T annotations."""

    kinds: np.ndarray  # int64 [D], CLASS to BACKGROUND, or NO_ERROR
    objects: np.ndarray  # int64 [D], the object that a detection of the wrong class or location nearly matched, or -1
    missed: np.ndarray  # bool [T], objects that no detection matches or nearly matches


class Lost(NamedTuple):
    """Holds the AP50 gained by fixing only one error type, for each of the 6 types and W weightings of the images."""

    mean: np.ndarray  # [6, W], the mean over the classes that have objects
    classes: np.ndarray  # [6, C, W]; NaN for a class without objects


def find_errors(matches: DetectionMatches, annotations: Annotations) -> Errors:
    """Assigns each false positive at IoU 0.5 to the first error type that fits, in TIDE's order.

    As in TIDE 1.0.1, a detection in a crowd counts as an error if correcting its class or box would make it match an
    object that no detection matches; otherwise, it is ignored.
    """
    near_own = (matches.own_iou >= TIDE_BACKGROUND_IOU) & (matches.own_iou <= HIT_IOU)
    near_other = matches.other_iou >= HIT_IOU
    is_open = ~_found_objects(matches, annotations)
    can_find = np.where(near_own, is_open[matches.own_object], near_other & is_open[matches.other_object])
    choices = [
        (matches.hits[0] | (matches.ignored[0] & ~can_find), NO_ERROR),
        (near_own, LOCATION),
        (near_other, CLASS),
        (matches.own_iou >= HIT_IOU, DUPLICATE),  # right class and location, but a better detection matched the object
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
    """Returns the AP50 gained by fixing only one error type, with the N images weighted by `weights` [W, N].

    Fixing a type drops its false positives, except that the highest-scoring near match of each unmatched object becomes
    a true positive. Fixing the type "missed" leaves out the missed objects; a class without other objects then has an
    AP50 of 1.
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
    """Yields the AP50 of each class, [C, W], with each error type fixed in turn."""
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
    """Returns a mask, bool [T], of the annotations that a detection matches at IoU 0.5."""
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
