"""Ranks the labels of a set, and objects that seem to lack a label, by the probability of a mistake.

It isn't known which labels are wrong, so mistakes are planted in the set's own labels: changed classes, moved boxes,
boxes in unlabelled places, duplicate labels, and removed labels. Two regressions learn how the detector's output
differs at these mistakes; one then rates the actual labels, the other the detections without a label.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from retinanet.check_labels.evidence import ious
from retinanet.check_labels.features import DETECTION_PRODUCTS, OWN, PRODUCTS, with_products
from retinanet.check_labels.planted import (
    BADLY_PLACED,
    NO_OBJECT,
    NUM_KINDS,
    RIGHT,
    TWICE,
    WRONG_CLASS,
    Labels,
    planted_in,
)
from retinanet.check_labels.rated import Rated, rate
from retinanet.check_labels.softmax_regression import fit
from retinanet.coco.annotations import Annotations, owners_of
from retinanet.coco.boxes import boxes_of, clipped_corners
from retinanet.coco.results import Found
from retinanet.evaluation.regions import ImageRegions

# The assumed fraction of labels that are wrong, by kind; missing objects are the most common mistake.
PRIORS = {WRONG_CLASS: 0.03, BADLY_PLACED: 0.03, NO_OBJECT: 0.02, TWICE: 0.01}
MISSING_PRIOR = 0.08  # missing objects per label
MISSING = "missing object"
KIND_NAMES = {
    WRONG_CLASS: "wrong class",
    BADLY_PLACED: "badly placed box",
    NO_OBJECT: "box without an object",
    TWICE: "same object twice",
}
KINDS = (MISSING, *KIND_NAMES.values())
SAME_PLACE_IOU = 0.2  # a missing object that overlaps a more suspect label this much is part of that label's mistake
SAME_OBJECT_IOU = 0.4  # two missing objects that overlap this much are the same object
TWICE_IOU = 0.5  # labels of the same object overlap at least this much
MOST_DRAWN = 5000  # images in which mistakes are planted
CLASS_WEIGHT = 10  # a class's usual score includes this many extra labels that have the mean score of all labels


class Suspect(NamedTuple):
    """A label that may be wrong, or an object that may lack a label.

    Boxes are (left, top, width, height) in the image as loaded, after any EXIF rotation.
    """

    kind: str
    probability: float
    image: int  # its index in the set
    annotation: int | None = None  # an index into the set's annotations
    suggested_label: int | None = None
    suggested_box: np.ndarray | None = None
    score: float | None = None
    other_annotation: int | None = None


def rated_images(annotations: Annotations, seen: Iterable[tuple[ImageRegions, Found]], seed: int) -> Iterator[Rated]:
    """Yields a rating of each image; `seen` yields each image's regions, and its detections by descending score."""
    draw = np.random.default_rng(seed)
    owners, num_images = owners_of(annotations), len(annotations.image_ids)
    boxes = boxes_of(clipped_corners(annotations.boxes, annotations.sizes[owners]))
    is_label = ~annotations.crowds & (boxes[:, 2:] > 0).all(axis=1)
    others = (boxes / annotations.sizes[owners][:, [1, 0, 1, 0]])[is_label], annotations.labels[is_label]
    drawn = set(draw.permutation(num_images)[:MOST_DRAWN].tolist())
    for regions, found in seen:
        rows = np.arange(*annotations.first[regions.image : regions.image + 2])
        crowds, rows = boxes[rows[annotations.crowds[rows]]], rows[is_label[rows]]
        labels = Labels(np.full(len(rows), RIGHT), boxes[rows], annotations.labels[rows], np.arange(len(rows)))
        height, width = annotations.sizes[regions.image].tolist()
        num_classes, planted = len(annotations.class_names), list[Labels]()
        if regions.image in drawn:
            planted = [*planted_in(labels.boxes, labels.labels, (height, width), num_classes, others, draw)]
        yield rate(regions, found, rows, labels, crowds, planted, (height, width))


def suspects_in(rated: list[Rated], num_classes: int) -> list[Suspect]:
    """Returns the suspects in the `rated` images, by descending probability."""
    suspects = [*_label_suspects(rated, num_classes), *_missing_suspects(rated)]
    suspects.sort(key=lambda suspect: -suspect.probability)
    boxes = {row: box for each in rated for row, box in zip(each.rows.tolist(), each.labels.boxes, strict=True)}
    return list(_distinct(suspects, boxes))


def _label_suspects(rated: list[Rated], num_classes: int) -> Iterator[Suspect]:
    """Yields a suspect for each label."""
    present = [each for each in rated if len(each.rows)]
    if not present:
        return
    drawn = [each for each in present if each.planted]
    features = np.concatenate([each.features for each in present])
    labels = np.concatenate([each.labels.labels for each in present])
    usual = _usual_scores(features[:, OWN], labels, num_classes)

    def inputs(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
        features = features.copy()
        features[:, OWN] -= usual[labels]
        return with_products(features, PRODUCTS)

    parts = [(each.features, each.labels) for each in drawn]
    parts += [pair for each in rated for pair in zip(each.planted_features, each.planted, strict=True)]
    kinds = np.concatenate([labels.kinds for _, labels in parts])
    counts = np.bincount(kinds, minlength=NUM_KINDS)
    shares = np.array([{RIGHT: 1.0, **PRIORS}[kind] for kind in range(NUM_KINDS)])
    sample_weights = (shares * counts[RIGHT] / counts.clip(1))[kinds]
    samples = np.concatenate([inputs(features, labels.labels) for features, labels in parts])
    probabilities = fit(samples, kinds, sample_weights).probabilities(inputs(features, labels), NUM_KINDS)
    start = 0
    for each in present:
        yield from _suspects_of_image(each, probabilities[start : start + len(each.rows)])
        start += len(each.rows)


def _usual_scores(scores: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns the mean of the `scores` by class: [num_classes]; for a rare class, it is near the overall mean."""
    counts, totals = (np.bincount(labels, values, num_classes) for values in (np.ones(len(scores)), scores))
    return (totals + CLASS_WEIGHT * scores.mean()) / (counts + CLASS_WEIGHT)


def _suspects_of_image(rated: Rated, probabilities: np.ndarray) -> Iterator[Suspect]:
    overlaps = ious(rated.labels.boxes, rated.labels.boxes)
    np.fill_diagonal(overlaps, 0)
    likeliest = probabilities.copy()
    likeliest[:, RIGHT] = -1
    likeliest[rated.evidence.other_scores == 0, WRONG_CLASS] = -1  # no other class is seen there
    likeliest[rated.evidence.own_scores == 0, BADLY_PLACED] = -1  # nor its own class, whose box would be suggested
    likeliest[overlaps.max(axis=1) < TWICE_IOU, TWICE] = -1
    for place, (row, kind) in enumerate(zip(rated.rows.tolist(), likeliest.argmax(axis=1).tolist(), strict=True)):
        suspect = Suspect(KIND_NAMES[kind], float(1 - probabilities[place, RIGHT]), rated.image, row)
        if kind == WRONG_CLASS:
            label, score = int(rated.evidence.other_labels[place]), float(rated.evidence.other_scores[place])
            yield suspect._replace(suggested_label=label, score=score)
        elif kind == BADLY_PLACED:
            box, score = rated.evidence.own_boxes[place], float(rated.evidence.own_scores[place])
            yield suspect._replace(suggested_box=box, score=score)
        elif kind == TWICE:
            yield suspect._replace(other_annotation=int(rated.rows[overlaps[place].argmax()]))
        else:
            yield suspect


def _missing_suspects(rated: list[Rated]) -> Iterator[Suspect]:
    """Yields a suspect for each detection that belongs to no label."""
    drawn = [each for each in rated if each.planted]
    missed = np.concatenate([each.missed_features for each in drawn]) if drawn else np.zeros((0, 0))
    free = [each for each in rated if len(each.free.scores)]
    if not len(missed) or not free:
        return
    of_drawn = [each.free_features for each in drawn]
    samples = with_products(np.concatenate([*of_drawn, missed]), DETECTION_PRODUCTS)
    kinds = np.arange(len(samples)) >= len(samples) - len(missed)
    regression = fit(samples, kinds.astype(np.int64), np.where(kinds, MISSING_PRIOR, 1.0))
    for each in free:
        inputs = with_products(each.free_features, DETECTION_PRODUCTS)
        probabilities = regression.probabilities(inputs, 2)[:, 1].tolist()
        for place, probability in enumerate(probabilities):
            label, score = int(each.free.labels[place]), float(each.free.scores[place])
            yield Suspect(MISSING, probability, each.image, None, label, each.free.boxes[place], score)


def _distinct(suspects: list[Suspect], boxes: dict[int, np.ndarray]) -> Iterator[Suspect]:
    """Yields the sorted `suspects`, except those that stem from the same mistake as an earlier, more probable one."""
    label_boxes: dict[int, list[np.ndarray]] = {}
    missing_boxes: dict[int, list[np.ndarray]] = {}
    duplicates: set[int] = set()
    for suspect in suspects:
        if suspect.annotation is None:
            assert suspect.suggested_box is not None
            near = label_boxes.get(suspect.image, []), missing_boxes.setdefault(suspect.image, [])
            limits = SAME_PLACE_IOU, SAME_OBJECT_IOU
            if any(
                (ious(suspect.suggested_box[None], np.array(known)) > limit).any()
                for known, limit in zip(near, limits, strict=True)
                if known
            ):
                continue
            near[1].append(suspect.suggested_box)
        else:
            if suspect.annotation in duplicates:
                continue
            if suspect.other_annotation is not None:
                duplicates.add(suspect.other_annotation)
            label_boxes.setdefault(suspect.image, []).append(boxes[suspect.annotation])
        yield suspect
