"""Analyses detections beyond the twelve COCO metrics: by class, error type and threshold, with confidence intervals."""

from typing import NamedTuple

import numpy as np

from retinanet.coco.annotations import Annotations
from retinanet.coco.results import Found
from retinanet.coco.score_thresholds import above, threshold_below
from retinanet.evaluation.average_precision import average_precision, mean_of_classes
from retinanet.evaluation.confusion import Confusion, confusion_of
from retinanet.evaluation.counts import Counts, count_by_class, count_by_image
from retinanet.evaluation.intervals import Interval, draws_of_images, interval
from retinanet.evaluation.matches import DetectionMatches, evaluated, match_detections, ranked_classes
from retinanet.evaluation.tide_errors import Errors, find_errors, lost_to_errors
from retinanet.settings.evaluate import NUM_DRAWS

USEFUL_F1 = 0.1  # a class counts as never found only if its F1 stays below this at every threshold
LEAST_IMAGES = 5  # a set or class with objects in fewer images gets no intervals, because they would be meaningless


class WorkingPoint(NamedTuple):
    """Holds the score threshold with the best F1 at IoU 0.5, and its metrics. All are NaN if there is no true positive.

    The threshold lies just below the score of a detection.
    """

    threshold: float
    f1: float
    precision: float
    recall: float


class ClassNumbers(NamedTuple):
    name: str
    num_objects: int
    ap: Interval
    ap50: Interval
    ar: float  # with at most 100 detections of the class per image
    best: WorkingPoint
    num_hits: int  # true positives above the overall best threshold
    lost: np.ndarray  # [6], AP50 lost to each of ERROR_KINDS; NaN without objects

    @property
    def is_never_found(self) -> bool:
        """Returns True if the class has objects but is hardly ever found.

        That is, it has no hit at the overall best threshold, and its F1 is below USEFUL_F1 at every threshold.
        """
        return self.num_objects > 0 and not self.num_hits and not self.best.f1 >= USEFUL_F1


class Analysis(NamedTuple):
    """Holds the metrics of one result file, for C classes and W bootstrap draws of the images.

    The first axis of `class_ap`, `drawn_means` and `drawn` is (AP, AP50).
    """

    ap: Interval
    ap50: Interval
    classes: list[ClassNumbers]
    best: WorkingPoint  # over all classes
    confusion: Confusion  # at the best threshold
    lost: np.ndarray  # [6], AP50 lost to each of ERROR_KINDS
    class_ap: np.ndarray  # [2, C]; NaN for a class without objects
    drawn_means: np.ndarray  # [2, W]
    drawn: np.ndarray  # [2, C, W]; NaN for a class that occurs in fewer than LEAST_IMAGES images
    found: Found
    matches: DetectionMatches
    errors: Errors


def analyse(annotations: Annotations, detections: Found, num_draws: int = NUM_DRAWS) -> Analysis:
    """Analyses the `detections` on the set `annotations`, which must have objects.

    If `num_draws` is 0, the bounds of the intervals are NaN. A set with objects in fewer than LEAST_IMAGES images gets
    no draws.
    """
    detections = evaluated(detections, annotations)
    matches = match_detections(detections, annotations)
    errors = find_errors(matches, annotations)
    ranked = ranked_classes(detections, matches, annotations)
    all_once = np.ones((1, len(annotations.image_ids)), np.uint8)
    numbers = [average_precision(of_class, all_once) for of_class in ranked]
    object_images = [of_class.object_images for of_class in ranked]
    if len(np.unique(np.concatenate(object_images))) < LEAST_IMAGES:
        num_draws = 0
    weights = draws_of_images(len(annotations.image_ids), num_draws)
    drawn = np.stack([_ap_and_ap50(average_precision(of_class, weights).ap) for of_class in ranked], axis=1)
    drawn_means = mean_of_classes(drawn.transpose(1, 0, 2))
    drawn[:, [len(np.unique(images)) < LEAST_IMAGES for images in object_images]] = np.nan
    class_ap = np.stack([_ap_and_ap50(of_class.ap)[:, 0] for of_class in numbers], axis=1)
    best = _best_overall(detections, matches, annotations)
    taken = above(detections.scores, best.threshold)
    num_hits = count_by_class(taken, detections, matches, annotations).true_positives
    lost = lost_to_errors(detections, matches, errors, annotations, all_once)
    classes = [
        ClassNumbers(
            name=name,
            num_objects=len(ranked[label].object_images),
            ap=interval(class_ap[0, label], drawn[0, label], 0, 1),
            ap50=interval(class_ap[1, label], drawn[1, label], 0, 1),
            ar=float(numbers[label].recall.mean()),
            best=_best_of(detections, matches, detections.labels == label, len(ranked[label].object_images)),
            num_hits=int(num_hits[label]),
            lost=lost.classes[:, label, 0],
        )
        for label, name in enumerate(annotations.class_names)
    ]
    means = mean_of_classes(class_ap.T)
    return Analysis(
        ap=interval(means[0], drawn_means[0], 0, 1),
        ap50=interval(means[1], drawn_means[1], 0, 1),
        classes=classes,
        best=best,
        confusion=confusion_of(detections, matches, annotations, best.threshold),
        lost=lost.mean[:, 0],
        class_ap=class_ap,
        drawn_means=drawn_means,
        drawn=drawn,
        found=detections,
        matches=matches,
        errors=errors,
    )


def ap_without(analysis: Analysis, annotations: Annotations, is_left_out: np.ndarray) -> tuple[float, float]:
    """Returns AP and AP50 without the images that `is_left_out`, bool [N], marks; NaN if no objects are left."""
    weights = (~is_left_out[None]).astype(np.uint8)
    ranked = ranked_classes(analysis.found, analysis.matches, annotations)
    class_ap = np.concatenate([_ap_and_ap50(average_precision(of_class, weights).ap) for of_class in ranked], axis=1)
    ap, ap50 = mean_of_classes(class_ap.T).tolist()
    return ap, ap50


def working_point(annotations: Annotations, detections: Found) -> WorkingPoint:
    """Returns the working point with the best F1 over all classes. The set must have objects."""
    detections = evaluated(detections, annotations)
    return _best_overall(detections, match_detections(detections, annotations), annotations)


def is_taken(analysis: Analysis) -> np.ndarray:
    """Returns a mask, bool [D], of the detections that score above the best threshold."""
    return above(analysis.found.scores, analysis.best.threshold)


def image_counts(analysis: Analysis, annotations: Annotations, iou: int = 0) -> Counts:
    """Counts true positives, false positives and misses by image, at the best threshold.

    `iou` is the index of the IoU threshold (0: IoU 0.5).
    """
    return count_by_image(is_taken(analysis), analysis.found, analysis.matches, annotations, iou)


def f1_of_images(counts: Counts) -> np.ndarray:
    """Returns the F1 of each image, [N], which is 1 for an image with neither objects nor detections."""
    return np.nan_to_num(counts.f1, nan=1.0)


def image_f1(analysis: Analysis, annotations: Annotations) -> np.ndarray:
    """Returns the F1 of each image at the best threshold, averaged over the ten IoU thresholds: [N]."""
    f1 = [f1_of_images(image_counts(analysis, annotations, iou)) for iou in range(len(analysis.matches.hits))]
    return np.mean(f1, axis=0)


def _ap_and_ap50(ap: np.ndarray) -> np.ndarray:
    """Returns AP and AP50 [2, W] from the AP at each IoU [IoUs, W]."""
    return np.stack([ap.mean(axis=0), ap[0]])


def _best_overall(detections: Found, matches: DetectionMatches, annotations: Annotations) -> WorkingPoint:
    return _best_of(detections, matches, np.ones(len(detections.labels), bool), int((~annotations.crowds).sum()))


def _best_of(detections: Found, matches: DetectionMatches, chosen: np.ndarray, num_objects: int) -> WorkingPoint:
    """Returns the working point with the best F1 of the `chosen` detections, given `num_objects` objects to find."""
    counted = chosen & ~matches.ignored[0]
    scores, hits = detections.scores[counted].astype(np.float32), matches.hits[0, counted]
    # A threshold keeps either all detections with equal float32 scores or none of them.
    ends = np.flatnonzero(np.diff(scores, append=-np.inf))
    right, seen = hits.cumsum()[ends], ends + 1
    if not num_objects or not hits.any():
        return WorkingPoint(*[float("nan")] * 4)
    counts = Counts(right, seen - right, num_objects - right)
    best = counts.f1.argmax()
    return WorkingPoint(
        threshold=threshold_below(scores[ends[best]]),
        f1=float(counts.f1[best]),
        precision=float(counts.precision[best]),
        recall=float(counts.recall[best]),
    )
