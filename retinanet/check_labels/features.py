"""Describes labels and detections by features that distinguish mistakes from correct labels."""

from collections.abc import Sequence

import numpy as np

from retinanet.check_labels.evidence import Evidence, fractions_inside, ious, ious_of_pairs, log_odds
from retinanet.check_labels.planted import Labels

# The columns of a label. OWN, OTHER: log-odds of its class, and of the best other class, at its box; WELL, EXACT: the
# change in OWN if only regions that fit the box better count; OWN_IOU, ANY_IOU: IoU of the box with own_boxes and with
# any_boxes of its Evidence; AREA: the logarithm of the fraction of the image that the box covers; SAME, ELSE: largest
# IoU with another label of its class, and with a label of another class.
OWN, OTHER, WELL, EXACT, OWN_IOU, ANY_IOU, AREA, SAME, ELSE = range(9)
PRODUCTS = (
    *((OWN, OWN), (OTHER, OTHER), (OWN, OTHER), (OWN_IOU, OWN_IOU), (ANY_IOU, ANY_IOU), (OWN, AREA), (OWN, OWN_IOU)),
    *((OTHER, ANY_IOU), (OWN_IOU, AREA), (AREA, AREA), (SAME, SAME), (ELSE, ELSE)),
)
# The columns of a detection. SCORE, RIVAL: log-odds of its class and of the best other class; OVERLAP, INSIDE: its
# largest IoU with a label and its largest fraction inside a label; SIZE: like AREA; BETTER: its largest IoU with a
# detection that scores higher.
SCORE, RIVAL, OVERLAP, INSIDE, SIZE, BETTER = range(6)
DETECTION_PRODUCTS = (
    *((SCORE, SCORE), (OVERLAP, OVERLAP), (INSIDE, INSIDE), (SCORE, INSIDE), (SCORE, SIZE), (SIZE, SIZE)),
)


def label_features(given: Labels, evidence: Evidence, present: Labels, size: tuple[int, int]) -> np.ndarray:
    """Returns the features [Q, 9] of the labels `given`.

    `present` are all labels of their image, and `size` is the image's (height, width).
    """
    overlaps = ious(given.boxes, present.boxes)
    replacing = np.flatnonzero(given.replaced >= 0)
    overlaps[replacing, given.replaced[replacing]] = 0
    is_same = given.labels[:, None] == present.labels
    own = log_odds(evidence.scores)
    columns = {
        OWN: own[:, 0],
        OTHER: log_odds(evidence.other_scores),
        WELL: own[:, 1] - own[:, 0],
        EXACT: own[:, 2] - own[:, 0],
        OWN_IOU: ious_of_pairs(given.boxes, evidence.own_boxes) * (evidence.own_scores > 0),
        ANY_IOU: ious_of_pairs(given.boxes, evidence.any_boxes) * (evidence.own_scores > 0),
        AREA: _log_parts(given.boxes, size),
        SAME: np.where(is_same, overlaps, 0).max(axis=1, initial=0),
        ELSE: np.where(is_same, 0, overlaps).max(axis=1, initial=0),
    }
    return np.stack([columns[column] for column in range(len(columns))], axis=1)


def detection_features(
    boxes: np.ndarray, scores: np.ndarray, rivals: np.ndarray, labelled: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Returns the features [d, 6] of an image's detections, which must be sorted by descending score.

    `rivals` [d] are the best scores of other classes at the detections' `boxes`, `labelled` [n, 4] are the boxes of the
    image's labels, and `size` is (height, width).
    """
    columns = {
        SCORE: log_odds(scores),
        RIVAL: log_odds(rivals),
        OVERLAP: ious(boxes, labelled).max(axis=1, initial=0),
        INSIDE: fractions_inside(boxes, labelled).max(axis=1, initial=0),
        SIZE: _log_parts(boxes, size),
        BETTER: np.tril(ious(boxes, boxes), -1).max(axis=1, initial=0),
    }
    return np.stack([columns[column] for column in range(len(columns))], axis=1)


def with_products(features: np.ndarray, products: Sequence[tuple[int, int]]) -> np.ndarray:
    """Appends the products of some columns, so that a linear model can fit curves too."""
    return np.concatenate([features, *(features[:, [first]] * features[:, [second]] for first, second in products)], 1)


def _log_parts(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.log(boxes[:, 2:].prod(axis=1).clip(1) / (size[0] * size[1]))
