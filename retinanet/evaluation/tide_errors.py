"""What is wrong with each detection, and what that costs: the six kinds of error of TIDE (Bolya et al., 2020)."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from retinanet.coco.annotations import Annotations
from retinanet.coco.results import Found
from retinanet.evaluation.average_precision import average_precision, mean_of_classes
from retinanet.evaluation.matches import IOUS, Matches, ranked_classes

HIT_IOU, BACKGROUND_IOU = IOUS[0], 0.1
CLASS, LOCATION, BOTH, DUPLICATE, BACKGROUND, MISSED = range(6)
ERROR_KINDS = ("wrong class", "badly placed", "both", "duplicate", "background", "missed")
NO_ERROR = -1  # a hit, or ignored


class Errors(NamedTuple):
    """The kind of error of each of D detections, and the objects, of T annotations, that none accounts for."""

    kinds: np.ndarray  # int64 [D], CLASS to BACKGROUND, or NO_ERROR
    objects: np.ndarray  # int64 [D], the object that a detection of the wrong class or place was meant for, or -1
    missed: np.ndarray  # bool [T]


def find_errors(matches: Matches, annotations: Annotations) -> Errors:
    """Sort the false detections at IoU 0.5 into their kinds; the first that fits counts."""
    near_own = (matches.own_iou >= BACKGROUND_IOU) & (matches.own_iou <= HIT_IOU)
    choices = [
        (matches.hits[0] | matches.ignored[0], NO_ERROR),
        (near_own, LOCATION),
        (matches.other_iou >= HIT_IOU, CLASS),
        (matches.own_iou >= HIT_IOU, DUPLICATE),  # of a class and place that a better one has taken
        (np.maximum(matches.own_iou, matches.other_iou) <= BACKGROUND_IOU, BACKGROUND),
    ]
    kinds = np.select([condition for condition, _ in choices], [kind for _, kind in choices], BOTH)
    objects = np.select([kinds == LOCATION, kinds == CLASS], [matches.own_object, matches.other_object], -1)
    accounted = np.concatenate([matches.objects, objects])
    missed = ~annotations.crowds
    missed[accounted[accounted >= 0]] = False
    return Errors(kinds, objects, missed)


def lost_to_errors(
    found: Found, matches: Matches, errors: Errors, annotations: Annotations, weights: np.ndarray
) -> np.ndarray:
    """The AP50 that mending each kind of error alone would add, for W weightings of the images: [6 kinds, W].

    A detection of the wrong class or place is put right where it is the best of those meant for an object that is not
    found; all other false detections are taken away; missed objects are not asked for, and a class of missed objects
    alone counts as found whole.
    """
    base = _ap50(found, matches, annotations, weights)
    mended = [mean_of_classes(ap) for ap in _mended(found, matches, errors, annotations, weights, base)]
    return np.stack(mended) - mean_of_classes(base)


def _mended(
    found: Found, matches: Matches, errors: Errors, annotations: Annotations, weights: np.ndarray, base: np.ndarray
) -> Iterator[np.ndarray]:
    """The AP50 of the classes without each kind of error [C, W]."""
    is_found = np.zeros(len(annotations.labels), bool)
    is_found[matches.objects[matches.objects >= 0]] = True
    meant = np.flatnonzero((errors.objects >= 0) & ~is_found[errors.objects])
    best = np.zeros(len(errors.kinds), bool)
    best[meant[np.unique(errors.objects[meant], return_index=True)[1]]] = True  # the first: they come by falling score
    for kind in (CLASS, LOCATION, BOTH, DUPLICATE, BACKGROUND):
        wrong = errors.kinds == kind
        mended = wrong & best
        labels, hits, ignored = found.labels.copy(), matches.hits[:1].copy(), matches.ignored[:1] | wrong
        labels[mended] = annotations.labels[errors.objects[mended]]
        hits[0, mended], ignored[0, mended] = True, False
        yield _ap50(found._replace(labels=labels), matches._replace(hits=hits, ignored=ignored), annotations, weights)
    without_missed = _ap50(found, matches, annotations, weights, asked_for=~errors.missed)
    yield np.where(np.isnan(without_missed) & ~np.isnan(base), 1, without_missed)


def _ap50(
    found: Found, matches: Matches, annotations: Annotations, weights: np.ndarray, asked_for: np.ndarray | None = None
) -> np.ndarray:
    ranked = ranked_classes(
        found, matches._replace(hits=matches.hits[:1], ignored=matches.ignored[:1]), annotations, asked_for
    )
    return np.stack([average_precision(one, weights).ap[0] for one in ranked])
