"""Ranks suspects or images in ways other than check_labels: a naive queue, ObjectLab's scores, hotcoco's diagnostics.

All of them use the same detections as check_labels.

ObjectLab's scores come from our own implementation of https://arxiv.org/abs/2309.00832.
"""

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from retinanet.coco.annotations import Annotations
from retinanet.coco.boxes import corners_of
from retinanet.coco.results import Found
from retinanet.evaluation.matches import box_ious

MATCH_IOU, TOUCH_IOU = 0.5, 0.1
# From the paper: the weight of IoU in the similarity, the temperature of the softmin, and how fast nearness falls with
# the distance.
ALPHA, TEMPERATURE, DISTANCE_FACTOR = 0.9, 0.1, 0.1
# The paper's thresholds are 0.5 and 0.95, for detectors that end with a softmax. Few scores of a RetinaNet are that
# high, so lower thresholds are tried as well, and the best pair counts.
LOW_THRESHOLDS, HIGH_THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.5), (0.1, 0.2, 0.3, 0.5, 0.95)
HOTCOCO_LEAST = 0.05  # the lowest score of a detection that hotcoco takes as a sign of a label error


class Entry(NamedTuple):
    """An entry of a queue: a label, or a place where one is missing."""

    image: int  # its index in the set
    annotation: int | None  # an index into the annotations
    box: np.ndarray | None  # of a missing object


def overlaps_in(found: Found, annotations: Annotations, image: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the rows of the image's detections and labels, and their IoUs [d, n].

    Crowds, and detections inside them, are left out.
    """
    detections = np.flatnonzero(found.images == image)
    rows = np.arange(*annotations.first[image : image + 2])
    crowds = annotations.boxes[rows[annotations.crowds[rows]]]
    rows = rows[~annotations.crowds[rows]]
    inside = box_ious(found.boxes[detections][None], crowds[None], np.ones((1, len(crowds)), bool))[0]
    detections = detections[inside.max(axis=1, initial=0) < MATCH_IOU]
    boxes = annotations.boxes[rows]
    ious = box_ious(found.boxes[detections][None], boxes[None], np.zeros((1, len(rows)), bool))[0]
    return detections, rows, ious


def naive_queue(found: Found, annotations: Annotations) -> list[Entry]:
    """Returns the labels contradicted by a detection, and the detections without a label, by descending score."""
    scored: list[tuple[float, Entry]] = []
    for image in range(len(annotations.image_ids)):
        detections, rows, ious = overlaps_in(found, annotations, image)
        named = set[int]()
        for detection, overlaps in sorted(zip(detections, ious, strict=True), key=lambda pair: -found.scores[pair[0]]):
            score, best = float(found.scores[detection]), int(overlaps.argmax()) if len(rows) else -1
            iou = overlaps[best] if len(rows) else 0.0
            if iou < TOUCH_IOU:
                scored.append((score, Entry(image, None, found.boxes[detection])))
                continue
            is_same = found.labels[detection] == annotations.labels[rows[best]]
            if not (is_same and iou >= MATCH_IOU) and best not in named:
                named.add(best)
                scored.append((score, Entry(image, int(rows[best]), None)))
    return [entry for _, entry in sorted(scored, key=lambda pair: -pair[0])]


def softmin(scores: np.ndarray) -> float:
    """Returns the mean of the `scores`, weighted towards the lowest, or 1 if there are none."""
    if not len(scores):
        return 1.0
    weights = np.exp((scores.min() - scores) / TEMPERATURE)
    return float((scores * weights).sum() / weights.sum())


def objectlab(found: Found, annotations: Annotations, low: float, high: float) -> np.ndarray:
    """Returns ObjectLab's score for the quality of each image's labels, from 0 (mistakes) to 1."""
    parts = []
    for image in range(len(annotations.image_ids)):
        detections, rows, ious = overlaps_in(found, annotations, image)
        first, second = corners_of(found.boxes[detections]), corners_of(annotations.boxes[rows])
        centres, others = ((each[:, :2] + each[:, 2:]) / 2 for each in (first, second))
        distances = np.linalg.norm(centres[:, None] - others[None], axis=2)
        parts.append((detections, rows, ALPHA * ious + (1 - ALPHA) * np.exp(-DISTANCE_FACTOR * distances)))
    least = min((similarity[similarity > 0].min() for *_, similarity in parts if similarity.any()), default=1.0)
    qualities = []
    for detections, rows, similarity in parts:
        scores = found.scores[detections]
        is_same = found.labels[detections][:, None] == annotations.labels[rows]  # [d, n]
        is_sure = scores >= high
        overlooked = np.where(
            is_same.any(axis=1),
            np.where(is_same, similarity, 0).max(axis=1, initial=0),
            least * (1 - scores),
        )[is_sure]
        usable = is_same & (scores > low)[:, None]
        placed = np.where(usable.any(axis=0), np.where(usable, similarity, 0).max(axis=0, initial=0), 1)
        swapped = 1 - np.where(~is_same & is_sure[:, None], similarity, 0).max(axis=0, initial=0)
        swapped = swapped.clip(min=least)
        qualities.append(np.prod([softmin(each) for each in (overlooked, placed, swapped)]) ** (1 / 3))
    return np.array(qualities)


def best_objectlab(found: Found, annotations: Annotations, is_spoiled: np.ndarray) -> tuple[float, tuple[float, float]]:
    """Returns ObjectLab's best average precision over all pairs of thresholds, and the pair that achieves it.

    Choosing the best pair favours ObjectLab.
    """
    pairs = [(low, high) for low in LOW_THRESHOLDS for high in HIGH_THRESHOLDS]
    return max((average_precision(-objectlab(found, annotations, *pair), is_spoiled), pair) for pair in pairs)


def best_hotcoco(
    annotation_file: Path, result_rows: Sequence[dict[str, Any]], annotations: Annotations, is_spoiled: np.ndarray
) -> tuple[float, str]:
    """Returns the average precision and the name of the best ranking by hotcoco's image_diagnostics."""
    from hotcoco import COCO, COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotation_file))
        evaluation = COCOeval(truth, truth.loadRes(list(result_rows)), "bbox")
        evaluation.evaluate()
        diagnostics = evaluation.image_diagnostics(iou_thr=MATCH_IOU, score_thr=HOTCOCO_LEAST)
    worst: dict[int, float] = {}
    for error in diagnostics["label_errors"]:
        worst[error["image_id"]] = max(worst.get(error["image_id"], 0), error["dt_score"])
    ids, summary = annotations.image_ids.tolist(), diagnostics["img_summary"]
    rankings = {"label_errors": np.array([worst.get(identity, 0) for identity in ids])}
    for name in ("f1", "ap"):
        rankings[name] = np.array([-(summary.get(identity, {}).get(name) or 0) for identity in ids])
    return max((average_precision(scores, is_spoiled), name) for name, scores in rankings.items())


def average_precision(scores: np.ndarray, is_wanted: np.ndarray) -> float:
    """Ranks all items by descending `scores` (ties keep their order); returns the mean precision at the wanted ones."""
    wanted = is_wanted[np.argsort(-scores, kind="stable")]
    precision = np.cumsum(wanted) / np.arange(1, len(wanted) + 1)
    return float(precision[wanted].mean())
