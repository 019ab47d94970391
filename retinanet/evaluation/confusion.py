"""The classes that objects were detected as: only pairs that occur, since a table grows with the classes' square."""

from typing import NamedTuple

import numpy as np

from retinanet.coco.annotations import Annotations
from retinanet.coco.results import Found
from retinanet.coco.score_thresholds import above
from retinanet.evaluation.matches import DetectionMatches


class Confusion(NamedTuple):
    """How often each of C classes was detected as each: the P pairs that occur, by true, then by found class."""

    num_classes: int  # C, which as a true class is background, and as a found class "not found"
    true: np.ndarray  # int64 [P]
    found: np.ndarray  # int64 [P]
    counts: np.ndarray  # int64 [P]

    def table(self, classes: np.ndarray | None = None) -> np.ndarray:
        """int64 [n + 1, n + 1] of n `classes` (default: all); last are background and "not found"."""
        classes = np.arange(self.num_classes) if classes is None else classes
        places = np.full(self.num_classes + 1, -1)
        places[[*classes, self.num_classes]] = np.arange(len(classes) + 1)
        chosen = (places[self.true] >= 0) & (places[self.found] >= 0)
        table = np.zeros((len(classes) + 1, len(classes) + 1), np.int64)
        table[places[self.true[chosen]], places[self.found[chosen]]] = self.counts[chosen]
        return table

    def between_classes(self) -> "Confusion":
        """Only the pairs of two different classes."""
        real = (self.true != self.found) & (np.maximum(self.true, self.found) < self.num_classes)
        return Confusion(self.num_classes, self.true[real], self.found[real], self.counts[real])


def confusion_of(found: Found, matches: DetectionMatches, annotations: Annotations, threshold: float) -> Confusion:
    """The confusions of detections that score above `threshold`; classes are ignored in matching them to objects."""
    num_classes = len(annotations.class_names)
    taken = above(found.scores, threshold)
    on_object = taken & (matches.any_class >= 0)
    on_nothing = taken & (matches.any_class < 0) & ~matches.ignored[0]
    missed = ~annotations.crowds
    missed[matches.any_class[on_object]] = False
    pairs = np.concatenate(
        [
            np.stack([annotations.labels[matches.any_class[on_object]], found.labels[on_object]]),
            np.stack([np.full(on_nothing.sum(), num_classes), found.labels[on_nothing]]),
            np.stack([annotations.labels[missed], np.full(missed.sum(), num_classes)]),
        ],
        axis=1,
    )
    keys, counts = np.unique(pairs[0] * (num_classes + 1) + pairs[1], return_counts=True)
    return Confusion(num_classes, *np.divmod(keys, num_classes + 1), counts.astype(np.int64))
