"""Collects an image's detections, and what the detector says about the image's labels and about planted mistakes."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from retinanet.check_labels.evidence import Evidence, evidence_at, fractions_inside, ious, rival_ious_of
from retinanet.check_labels.features import detection_features, label_features
from retinanet.check_labels.planted import Labels
from retinanet.coco.results import Found
from retinanet.evaluation.regions import ImageRegions

MATCH_IOU = 0.5  # a detection with at least this IoU belongs to a label
IN_CROWD = 0.5  # a detection with at least this fraction of its area in a crowd region counts as part of the crowd


class Rated(NamedTuple):
    """The n labels of an image, its detections (d of them belong to no label), and the mistakes planted in it."""

    image: int  # its index in the set
    found: Found  # all detections in it
    rows: np.ndarray  # int64 [n], the labels' indices in the annotations
    labels: Labels
    evidence: Evidence  # of the labels
    features: np.ndarray  # [n, F]
    free: Found  # the detections that belong to no label
    free_features: np.ndarray  # [d, G]
    planted: list[Labels]
    planted_features: list[np.ndarray]
    missed_features: np.ndarray  # [m, G], of detections whose label was removed


def rate(
    regions: ImageRegions,
    found: Found,
    rows: np.ndarray,
    labels: Labels,
    crowds: np.ndarray,
    planted: Sequence[Labels],
    size: tuple[int, int],
) -> Rated:
    """Rates an image of `size` (height, width) whose detections, sorted by descending score, are `found`.

    `rows` are the indices of its `labels` in the annotations, and `crowds` [k, 4] are its crowd regions. If mistakes
    are `planted`, each label is also removed in turn, to get the features of missed objects.
    """

    def evidence_about(given: Labels) -> Evidence:
        return evidence_at(regions, given.boxes, given.labels, rival_ious_of(regions, labels.boxes, given.replaced))

    every, evidence = found, evidence_about(labels)
    found = found.at(fractions_inside(found.boxes, crowds).max(axis=1, initial=0) < IN_CROWD)
    rivals = evidence_at(regions, found.boxes, found.labels).other_scores
    overlaps = ious(found.boxes, labels.boxes)
    is_free = overlaps.max(axis=1, initial=0) < MATCH_IOU

    def of_found(chosen: np.ndarray, labelled: np.ndarray) -> np.ndarray:
        return detection_features(found.boxes, found.scores, rivals, labelled, size)[chosen]

    missed = []
    for label in range(len(rows)) if planted else ():
        is_other = np.arange(len(rows)) != label
        is_match = (overlaps[:, label] >= MATCH_IOU) & (found.labels == labels.labels[label])
        best = np.flatnonzero(is_match & (overlaps[:, is_other] < MATCH_IOU).all(axis=1))[:1]
        missed.append(of_found(best, labels.boxes[is_other]))
    free_features = of_found(np.flatnonzero(is_free), labels.boxes)
    return Rated(
        image=regions.image,
        found=every,
        rows=rows,
        labels=labels,
        evidence=evidence,
        features=label_features(labels, evidence, labels, size),
        free=found.at(is_free),
        free_features=free_features,
        planted=list(planted),
        planted_features=[label_features(each, evidence_about(each), labels, size) for each in planted],
        missed_features=np.concatenate([free_features[:0], *missed]),
    )
