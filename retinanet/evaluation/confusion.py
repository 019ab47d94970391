"""Computes confusion matrices in sparse form, because a dense matrix grows with the square of the number of classes."""

from typing import NamedTuple

import numpy as np

from retinanet.coco.annotations import Annotations
from retinanet.coco.results import Found
from retinanet.coco.score_thresholds import above
from retinanet.evaluation.matches import DetectionMatches


class Confusion(NamedTuple):
    """Holds a sparse confusion matrix: the P pairs (true class, predicted class) that occur, in ascending order."""

    num_classes: int  # C; the label C means background as a true class, and "not found" as a found class
    true: np.ndarray  # int64 [P]
    found: np.ndarray  # int64 [P]
    counts: np.ndarray  # int64 [P]

    def table(self, classes: np.ndarray | None = None) -> np.ndarray:
        """Returns the dense matrix, int64 [n + 1, n + 1], for n `classes` (default: all classes).

        The last row is background, and the last column "not found".
        """
        classes = np.arange(self.num_classes) if classes is None else classes
        places = np.full(self.num_classes + 1, -1)
        places[[*classes, self.num_classes]] = np.arange(len(classes) + 1)
        chosen = (places[self.true] >= 0) & (places[self.found] >= 0)
        table = np.zeros((len(classes) + 1, len(classes) + 1), np.int64)
        table[places[self.true[chosen]], places[self.found[chosen]]] = self.counts[chosen]
        return table

    def between_classes(self) -> "Confusion":
        """Returns only the pairs of two different classes."""
        real = (self.true != self.found) & (np.maximum(self.true, self.found) < self.num_classes)
        return Confusion(self.num_classes, self.true[real], self.found[real], self.counts[real])


def confusion_of(detections: Found, matches: DetectionMatches, annotations: Annotations, threshold: float) -> Confusion:
    """Returns the confusion matrix of the detections above the score `threshold`, matched to objects of any class."""
    num_classes = len(annotations.class_names)
    taken = above(detections.scores, threshold)
    on_object = taken & (matches.any_class >= 0)
    on_nothing = taken & (matches.any_class < 0) & ~matches.ignored[0]
    missed = ~annotations.crowds
    missed[matches.any_class[on_object]] = False
    pairs = np.concatenate(
        [
            np.stack([annotations.labels[matches.any_class[on_object]], detections.labels[on_object]]),
            np.stack([np.full(on_nothing.sum(), num_classes), detections.labels[on_nothing]]),
            np.stack([annotations.labels[missed], np.full(missed.sum(), num_classes)]),
        ],
        axis=1,
    )
    keys, counts = np.unique(pairs[0] * (num_classes + 1) + pairs[1], return_counts=True)
    return Confusion(num_classes, *np.divmod(keys, num_classes + 1), counts.astype(np.int64))
