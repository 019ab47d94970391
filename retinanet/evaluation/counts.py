"""Counts true positives, false positives, misses and the errors of each kind, at given score thresholds.

reports/page/numbers.js computes the same counts on a report's page, and tests check that they are equal.
"""

from typing import NamedTuple

import numpy as np

from retinanet.coco.annotations import Annotations, owners_of
from retinanet.coco.results import Found
from retinanet.coco.score_thresholds import above
from retinanet.evaluation.confusion import Confusion, confusion_of
from retinanet.evaluation.matches import DetectionMatches
from retinanet.evaluation.tide_errors import MISSED, Errors


class Counts(NamedTuple):
    """Holds the counts of G groups, which are classes, images or the points of a curve.

    A miss is an object without a matching detection of its class above the threshold. TIDE counts an object as "missed"
    only if no detection at all matches or nearly matches it.
    """

    true_positives: np.ndarray  # int64 [G]
    false_positives: np.ndarray  # int64 [G]
    misses: np.ndarray  # int64 [G]

    @property
    def precision(self) -> np.ndarray:
        """Returns the precision of each group [G]; NaN without detections."""
        return _shares(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> np.ndarray:
        """Returns the recall of each group [G]; NaN without objects."""
        return _shares(self.true_positives, self.true_positives + self.misses)

    @property
    def f1(self) -> np.ndarray:
        """Returns the F1 of each group [G]; NaN for a group with neither objects nor detections."""
        return _shares(2 * self.true_positives, 2 * self.true_positives + self.false_positives + self.misses)

    def total(self) -> "Counts":
        """Returns the sum of all groups, as one group."""
        return Counts(*(values.sum(keepdims=True) for values in self))


class ThresholdCounts(NamedTuple):
    """Holds the counts of right and wrong detections above a threshold, for C classes."""

    classes: Counts  # [C]
    errors: np.ndarray  # int64 [5, C], the detections of each class by kind: ERROR_KINDS except "missed"
    # False positives per image that has neither objects nor crowds; NaN if there is no such image.
    false_positives_per_empty_image: float
    confusion: Confusion  # at the common threshold


def count_at(
    detections: Found,
    matches: DetectionMatches,
    errors: Errors,
    annotations: Annotations,
    threshold: float,
    class_thresholds: np.ndarray | None = None,
) -> ThresholdCounts:
    """Counts the detections above `threshold` or, if given, above their classes' `class_thresholds` [C].

    The confusion matrix, in which a detection may match an object of any class, always uses the common `threshold`. The
    kind of an error doesn't depend on thresholds.
    """
    num_classes = len(annotations.class_names)
    taken = above(detections.scores, threshold if class_thresholds is None else class_thresholds[detections.labels])
    false_kinds = np.flatnonzero(taken & (errors.kinds >= 0))
    kinds_and_classes = errors.kinds[false_kinds] * num_classes + detections.labels[false_kinds]
    is_empty = np.diff(annotations.first) == 0
    on_empty = taken & is_empty[detections.images]
    return ThresholdCounts(
        count_by_class(taken, detections, matches, annotations),
        np.bincount(kinds_and_classes, minlength=MISSED * num_classes).reshape(MISSED, num_classes),
        float(_shares(on_empty.sum(), is_empty.sum())),
        confusion_of(detections, matches, annotations, threshold),
    )


def count_by_class(taken: np.ndarray, detections: Found, matches: DetectionMatches, annotations: Annotations) -> Counts:
    """Counts true positives, false positives and misses by class, at IoU 0.5.

    Detections that aren't marked in `taken`, bool [D], are left out.
    """
    labels = annotations.labels[~annotations.crowds]
    return _count_by(taken, matches, 0, detections.labels, labels, len(annotations.class_names))


def count_by_image(
    taken: np.ndarray, detections: Found, matches: DetectionMatches, annotations: Annotations, iou: int = 0
) -> Counts:
    """Counts as count_by_class does, but by image, and at the IoU threshold IOUS[iou]."""
    owners = owners_of(annotations)[~annotations.crowds]
    return _count_by(taken, matches, iou, detections.images, owners, len(annotations.image_ids))


def _count_by(
    taken: np.ndarray,
    matches: DetectionMatches,
    iou: int,
    groups: np.ndarray,
    object_groups: np.ndarray,
    num_groups: int,
) -> Counts:
    """Counts true positives, false positives and misses by group.

    `groups` [D] holds the group of each detection, and `object_groups` that of each non-crowd object.
    """
    hits, ignored = matches.hits[iou], matches.ignored[iou]
    num_objects = np.bincount(object_groups, minlength=num_groups)
    true_positives = np.bincount(groups[taken & hits], minlength=num_groups)
    num_detections = np.bincount(groups[taken & ~ignored], minlength=num_groups)
    return Counts(true_positives, num_detections - true_positives, num_objects - true_positives)


def _shares(parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    return np.divide(parts, wholes, out=np.full(np.shape(wholes), np.nan), where=wholes > 0)
