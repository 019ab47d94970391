"""Measures what a detector says about a labelled box: its scores for the label and other classes, and its own boxes."""

from typing import NamedTuple

import numpy as np

from retinanet.evaluation.matches import box_ious
from retinanet.evaluation.regions import ImageRegions

NEAR = 0.3  # a region with at least this IoU says something about a box
AT_BOX, WELL_PLACED, EXACT = LEVELS = (0.5, 0.7, 0.85)
LEAST_SCORE = 1e-3  # scores are kept this far from 0 and 1, so that their log-odds are finite


class Evidence(NamedTuple):
    """What an image's regions say about each of Q labelled boxes."""

    scores: np.ndarray  # [Q, LEVELS], the best score of the box's label among regions with at least the level's IoU
    other_scores: np.ndarray  # [Q], the best score of another label at AT_BOX
    other_labels: np.ndarray  # int64 [Q], that label
    own_boxes: np.ndarray  # [Q, 4], where regions with an IoU of NEAR or more see its label; if none do, the box
    own_scores: np.ndarray  # [Q], the best score of the label there
    any_boxes: np.ndarray  # [Q, 4], like own_boxes, but for the label that scores best there


def evidence_at(
    regions: ImageRegions, boxes: np.ndarray, labels: np.ndarray, rival_ious: np.ndarray | float = 0
) -> Evidence:
    """Returns the evidence about `boxes` [Q, 4] with `labels` [Q].

    `rival_ious` [Q, N] are the largest IoUs of each region with other labels. A region doesn't count for a box if the
    region overlaps another label more.
    """
    count = len(boxes)
    overlaps = ious(boxes, regions.boxes)  # [Q, N]
    rows, places = np.nonzero((overlaps >= NEAR) & (overlaps >= rival_ious))  # P pairs of a box and a region
    overlaps, scores, seen = overlaps[rows, places], regions.scores[places], regions.boxes[places]
    pairs = np.arange(len(rows))
    own = scores[pairs, labels[rows]]
    others = _largest(scores * (overlaps >= AT_BOX)[:, None], rows, count)  # [Q, C]
    others[np.arange(count), labels] = 0
    near = _largest(scores, rows, count)
    any_class = scores[pairs, near.argmax(axis=1)[rows]]
    return Evidence(
        scores=np.stack([_largest(own * (overlaps >= level), rows, count) for level in LEVELS], axis=1),
        other_scores=others.max(axis=1),
        other_labels=others.argmax(axis=1),
        own_boxes=_consensus(seen, own, rows, boxes),
        own_scores=near[np.arange(count), labels],
        any_boxes=_consensus(seen, any_class, rows, boxes),
    )


def rival_ious_of(regions: ImageRegions, labelled: np.ndarray, replaced: np.ndarray) -> np.ndarray:
    """Returns, for each of Q replaced labels, each region's largest IoU with the image's other labels: [Q, N].

    `labelled` [n, 4] are the labels' boxes; `replaced` [Q] are indices into them, or -1 if no label is replaced.
    """
    overlaps = ious(labelled, regions.boxes)  # [n, N]
    if not len(labelled):
        return np.zeros((len(replaced), overlaps.shape[1]))
    best, rest = overlaps.argmax(axis=0), np.sort(overlaps, axis=0)
    second = rest[-2] if len(labelled) > 1 else np.zeros(overlaps.shape[1])
    return np.where(best == replaced[:, None], second, rest[-1])


def _largest(values: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """Returns the largest of each row's `values` [P, ...], or 0 for a row without values: [count, ...].

    `rows` [P] are the rows of the values, in ascending order.
    """
    largest = np.zeros((count, *values.shape[1:]))
    present, starts = np.unique(rows, return_index=True)
    if len(present):
        largest[present] = np.maximum.reduceat(values, starts, axis=0)
    return largest


def _consensus(seen: np.ndarray, scores: np.ndarray, rows: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Returns, for each of `boxes`, the weighted mean of the boxes `seen` [P, 4] there, or the box itself: [Q, 4].

    The weights are the squares of the `scores` [P]; scores below half of the best score at a box don't count.
    """
    is_good = scores >= _largest(scores, rows, len(boxes))[rows] / 2
    weights = np.where(is_good, np.maximum(scores, 1e-9) ** 2, 0)
    consensus = boxes.astype(np.float64)
    present, starts = np.unique(rows, return_index=True)
    if len(present):
        total = np.add.reduceat(weights, starts)
        consensus[present] = np.add.reduceat(weights[:, None] * seen, starts, axis=0) / total[:, None]
    return consensus


def log_odds(scores: np.ndarray) -> np.ndarray:
    bounded = scores.clip(LEAST_SCORE, 1 - LEAST_SCORE)
    return np.log(bounded / (1 - bounded))


def ious(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns the IoU of each of `boxes` [n, 4] with each of `others` [m, 4]: [n, m]."""
    return box_ious(boxes[None], others[None], np.zeros((1, len(others)), bool))[0]


def ious_of_pairs(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns the IoUs of `boxes` [n, 4] and `others` [n, 4], row by row: [n]."""
    return box_ious(boxes[:, None], others[:, None], np.zeros((len(others), 1), bool))[:, 0, 0]


def fractions_inside(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns the fraction of each of `boxes` [n, 4] that lies in each of `others` [m, 4]: [n, m]."""
    return box_ious(boxes[None], others[None], np.ones((1, len(others)), bool))[0]
