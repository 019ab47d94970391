"""What COCO's twelve numbers don't show: classes, errors, thresholds, and how certain the numbers are."""

from typing import NamedTuple

import numpy as np

from retinanet.coco.annotations import Annotations, owners_of
from retinanet.coco.results import Found
from retinanet.coco.score_thresholds import above, threshold_below
from retinanet.evaluation.average_precision import average_precision, mean_of_classes
from retinanet.evaluation.confusion import Confusion, confusion_of
from retinanet.evaluation.intervals import Interval, draws_of_images, interval
from retinanet.evaluation.matches import DetectionMatches, evaluated, match_detections, ranked_classes
from retinanet.evaluation.tide_errors import Errors, find_errors, lost_to_errors
from retinanet.settings.evaluate import NUM_DRAWS

USEFUL_F1 = 0.1  # below it at every score, a class is not found at any useful one
LEAST_IMAGES = 5  # with objects of a class, or its intervals would mean nothing


class WorkingPoint(NamedTuple):
    """The score threshold with the best F1 at IoU 0.5, just below a score. NaN if no detection hits an object."""

    threshold: float
    f1: float
    precision: float
    recall: float


class ClassNumbers(NamedTuple):
    name: str
    num_objects: int
    ap: Interval
    ap50: Interval
    ar: float  # of 100 detections an image
    best: WorkingPoint
    num_hits: int  # of its detections above the best threshold of all classes
    lost: np.ndarray  # [6], AP50 lost to each of ERROR_KINDS; NaN without objects

    @property
    def is_never_found(self) -> bool:
        """Whether no detection hits its objects at the best threshold, and other thresholds give no F1 worth having."""
        return self.num_objects > 0 and not self.num_hits and not self.best.f1 >= USEFUL_F1


class Analysis(NamedTuple):
    """All numbers about one result file. C classes, W draws of the images; the first axis of `drawn` is AP and AP50."""

    ap: Interval
    ap50: Interval
    classes: list[ClassNumbers]
    best: WorkingPoint  # of all classes together
    confusion: Confusion  # at the best threshold
    lost: np.ndarray  # [6], AP50 lost to each of ERROR_KINDS
    class_ap: np.ndarray  # [2, C]; NaN for a class without objects
    drawn_means: np.ndarray  # [2, W]
    drawn: np.ndarray  # [2, C, W]; NaN for a class that fewer than LEAST_IMAGES images have
    found: Found
    matches: DetectionMatches
    errors: Errors


def analyse(annotations: Annotations, found: Found, num_draws: int = NUM_DRAWS) -> Analysis:
    """Analyse the detections in a set that has objects.

    With `num_draws` 0 the intervals are NaN.
    """
    found = evaluated(found, annotations)
    matches = match_detections(found, annotations)
    errors = find_errors(matches, annotations)
    ranked = ranked_classes(found, matches, annotations)
    all_once = np.ones((1, len(annotations.image_ids)), np.uint8)
    numbers = [average_precision(one, all_once) for one in ranked]
    weights = draws_of_images(len(annotations.image_ids), num_draws)
    drawn = np.stack([_ap_and_ap50(average_precision(one, weights).ap) for one in ranked], axis=1)
    drawn_means = mean_of_classes(drawn.transpose(1, 0, 2))
    drawn[:, [len(np.unique(one.object_images)) < LEAST_IMAGES for one in ranked]] = np.nan
    class_ap = np.stack([_ap_and_ap50(one.ap)[:, 0] for one in numbers], axis=1)
    best = _best_overall(found, matches, annotations)
    num_hits = np.bincount(
        found.labels[matches.hits[0] & above(found.scores, best.threshold)], minlength=len(annotations.class_names)
    )
    lost = lost_to_errors(found, matches, errors, annotations, all_once)
    classes = [
        ClassNumbers(
            name=name,
            num_objects=len(ranked[label].object_images),
            ap=interval(class_ap[0, label], drawn[0, label], 0, 1),
            ap50=interval(class_ap[1, label], drawn[1, label], 0, 1),
            ar=float(numbers[label].recall.mean()),
            best=_best_of(found, matches, found.labels == label, len(ranked[label].object_images)),
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
        confusion=confusion_of(found, matches, annotations, best.threshold),
        lost=lost.mean[:, 0],
        class_ap=class_ap,
        drawn_means=drawn_means,
        drawn=drawn,
        found=found,
        matches=matches,
        errors=errors,
    )


def working_point(annotations: Annotations, found: Found) -> WorkingPoint:
    """The best threshold for the detections in a set that has objects, of all classes together."""
    found = evaluated(found, annotations)
    return _best_overall(found, match_detections(found, annotations), annotations)


def is_taken(analysis: Analysis) -> np.ndarray:
    """Which detections score above the best threshold: bool [D]."""
    return above(analysis.found.scores, analysis.best.threshold)


def image_f1(analysis: Analysis, annotations: Annotations) -> np.ndarray:
    """The F1 of each image at the best threshold, averaged over the ten IoUs: [N]; 1 if nothing is there or found."""
    num_images = len(annotations.image_ids)
    asked = np.bincount(owners_of(annotations)[~annotations.crowds], minlength=num_images)
    taken = is_taken(analysis)
    scores = np.zeros(num_images)
    for hits, ignored in zip(analysis.matches.hits, analysis.matches.ignored, strict=True):
        right = np.bincount(analysis.found.images[taken & hits], minlength=num_images)
        counted = np.bincount(analysis.found.images[taken & ~ignored], minlength=num_images)
        scores += np.where(asked + counted > 0, 2 * right / np.maximum(asked + counted, 1), 1)
    return scores / len(analysis.matches.hits)


def _ap_and_ap50(ap: np.ndarray) -> np.ndarray:
    """[IoUs, W] to [2, W]."""
    return np.stack([ap.mean(axis=0), ap[0]])


def _best_overall(found: Found, matches: DetectionMatches, annotations: Annotations) -> WorkingPoint:
    return _best_of(found, matches, np.ones(len(found.labels), bool), int((~annotations.crowds).sum()))


def _best_of(found: Found, matches: DetectionMatches, chosen: np.ndarray, num_objects: int) -> WorkingPoint:
    """The best threshold for the `chosen` detections, which have `num_objects` objects to find."""
    counted = chosen & ~matches.ignored[0]
    scores, hits = found.scores[counted].astype(np.float32), matches.hits[0, counted]
    # A threshold keeps all detections of equal float32 score or none.
    ends = np.flatnonzero(np.diff(scores, append=-np.inf))
    right, seen = hits.cumsum()[ends], ends + 1
    if not num_objects or not hits.any():
        return WorkingPoint(*[float("nan")] * 4)
    f1 = 2 * right / (seen + num_objects)
    best = f1.argmax()
    return WorkingPoint(
        threshold=threshold_below(scores[ends[best]]),
        f1=float(f1[best]),
        precision=float(right[best] / seen[best]),
        recall=float(right[best] / num_objects),
    )
