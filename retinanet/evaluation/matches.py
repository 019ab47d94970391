"""Matches detections to objects by the COCO rules, at the ten COCO IoU thresholds."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from retinanet.coco.annotations import Annotations, owners_of
from retinanet.coco.boxes import shared_area
from retinanet.coco.results import Found
from retinanet.evaluation.average_precision import Ranked

IOUS = np.linspace(0.5, 0.95, 10)
MAX_PER_CLASS = 100  # detections per class and image; the COCO evaluation ignores the rest
IMAGES_IN_BLOCK, PAIRS_IN_BLOCK = 256, 2**21  # a pair is a detection and an annotation


class DetectionMatches(NamedTuple):
    """Holds what D detections match; an object is an index into the set's annotations, or -1 for none."""

    hits: np.ndarray  # bool [10, D], true positives at each IoU: detections that match an object of their class
    ignored: np.ndarray  # bool [10, D], detections that match only a crowd of their class, so they don't count
    objects: np.ndarray  # int64 [D], the object matched at IoU 0.5
    # The following fields disregard crowds.
    own_iou: np.ndarray  # [D], the largest IoU with an object of the detection's class
    own_object: np.ndarray  # int64 [D], the object with that IoU
    other_iou: np.ndarray  # [D], the largest IoU with an object of another class
    other_object: np.ndarray  # int64 [D], the object with that IoU
    any_class: np.ndarray  # int64 [D], the object matched at IoU 0.5 if classes are disregarded


class Block(NamedTuple):
    """Holds the detections and annotations of n images, padded to K detections and G annotations per image."""

    detections: np.ndarray  # int64 [n, K], index into Found, or -1
    annotations: np.ndarray  # int64 [n, G], index into the annotations, or -1
    ious: np.ndarray  # [n, K, G]; for a crowd, the fraction of the detection that lies in it; -1 for padding
    same_class: np.ndarray  # bool [n, K, G]
    crowds: np.ndarray  # bool [n, G]


def evaluated(detections: Found, annotations: Annotations) -> Found:
    """Returns the detections that the COCO evaluation counts, by descending score, then image id, then input order."""
    ranks = np.argsort(np.argsort(annotations.image_ids))[detections.images]
    order = np.lexsort((ranks, -detections.scores))  # stable
    groups = (ranks * len(annotations.category_ids) + detections.labels)[order]
    return detections.at(order[_place_in_group(groups) < MAX_PER_CLASS])


def match_detections(detections: Found, annotations: Annotations) -> DetectionMatches:
    """Matches each image's detections to its objects, highest score first and each object at most once."""
    count = len(detections.scores)
    matches = DetectionMatches(
        hits=np.zeros((len(IOUS), count), bool),
        ignored=np.zeros((len(IOUS), count), bool),
        objects=np.full(count, -1),
        own_iou=np.zeros(count),
        own_object=np.full(count, -1),
        other_iou=np.zeros(count),
        other_object=np.full(count, -1),
        any_class=np.full(count, -1),
    )
    if not count or not len(annotations.labels):
        return matches
    for block in _blocks(detections, annotations):
        real = block.detections >= 0
        places = block.detections[real]
        of_objects = np.where(block.crowds[:, None], -1, block.ious)
        ious_same_class = np.where(block.same_class, of_objects, -1)
        taken, ignored = match_greedily(
            ious_same_class, np.where(block.same_class & block.crowds[:, None], block.ious, -1), IOUS
        )
        matches.hits[:, places] = (taken >= 0)[:, real]
        matches.ignored[:, places] = ignored[:, real]
        matches.objects[places] = _annotation_at(block, taken[0])[real]
        for name, ious in (("own", ious_same_class), ("other", np.where(block.same_class, -1, of_objects))):
            best = np.where(ious.max(axis=2) > 0, ious.argmax(axis=2), -1)
            getattr(matches, f"{name}_iou")[places] = ious.max(axis=2)[real].clip(min=0)
            getattr(matches, f"{name}_object")[places] = _annotation_at(block, best)[real]
        any_class, _ = match_greedily(of_objects, np.full_like(of_objects, -1), IOUS[:1])
        matches.any_class[places] = _annotation_at(block, any_class[0])[real]
    return matches


def ranked_classes(
    detections: Found, matches: DetectionMatches, annotations: Annotations, counted_objects: np.ndarray | None = None
) -> list[Ranked]:
    """Returns the input to average_precision for each class.

    `counted_objects`, bool [T], marks the objects that count (default: all).
    """
    owners, num_classes = owners_of(annotations), len(annotations.class_names)
    selected = np.flatnonzero(~annotations.crowds if counted_objects is None else ~annotations.crowds & counted_objects)
    objects_of = _by_label(annotations.labels[selected], num_classes)
    return [
        Ranked(
            detections.images[of_class],
            matches.hits[:, of_class],
            matches.ignored[:, of_class],
            owners[selected[objects]],
        )
        for of_class, objects in zip(_by_label(detections.labels, num_classes), objects_of, strict=True)
    ]


def _by_label(labels: np.ndarray, num_classes: int) -> list[np.ndarray]:
    """Returns, for each class, the ascending indices at which it occurs in `labels` [n].

    A single sort keeps this fast even with thousands of classes.
    """
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.searchsorted(labels[order], np.arange(1, num_classes)))


def match_greedily(ious: np.ndarray, crowd_ious: np.ndarray, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Runs COCO's greedy matching: each detection, highest score first, takes the free object that it overlaps most.

    `ious` and `crowd_ious` are [n, K, G], with -1 for pairs that can't match. Returns two arrays [thresholds, n, K]:
    the index along G of the object that each detection takes (-1 for none), and a mask of the detections that take no
    object but lie in a crowd.
    """
    num_images, most, columns = ious.shape
    limits = np.minimum(thresholds, 1 - 1e-10)[:, None]  # as in pycocotools: rounding may carry an IoU of 1 below 1
    taken = np.full((len(thresholds), num_images, most), -1)
    free = np.ones((len(thresholds), num_images, columns), bool)
    rows, images = np.ogrid[: len(thresholds), :num_images]
    for place in range(most):
        free_ious = np.where(free, ious[:, place], -1)[:, :, ::-1]  # [thresholds, n, G]
        best = columns - 1 - free_ious.argmax(axis=2)  # the last of equal IoUs, as in pycocotools
        is_hit = free_ious.max(axis=2) >= limits
        taken[:, :, place] = np.where(is_hit, best, -1)
        free[rows, images, best] &= ~is_hit
    in_crowd = crowd_ious.max(axis=2) >= limits[:, :, None]
    return taken, in_crowd & (taken < 0)


def box_ious(boxes: np.ndarray, others: np.ndarray, crowds: np.ndarray) -> np.ndarray:
    """Returns the IoUs [n, K, G] of (left, top, width, height) `boxes` [n, K, 4] and `others` [n, G, 4].

    Where the other box is a crowd (`crowds`, bool [n, G]), the area of the box in `boxes` replaces the union, as in the
    COCO evaluation.
    """
    first, second = boxes[:, :, None], others[:, None]
    shared = shared_area(first, second)
    area, other_area = first[..., 2] * first[..., 3], second[..., 2] * second[..., 3]
    union = np.where(crowds[:, None], area, area + other_area - shared)
    return np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)


def _blocks(detections: Found, annotations: Annotations) -> Iterator[Block]:
    by_image = np.argsort(detections.images, kind="stable")  # an image's detections stay sorted by score
    edges = np.searchsorted(detections.images[by_image], np.arange(len(annotations.image_ids) + 1))
    for images in _alike(np.diff(edges), np.diff(annotations.first)):
        rows = _padded(edges, images)
        rows = np.where(rows >= 0, by_image[rows], -1)
        annotation_rows = _padded(annotations.first, images)
        # Padding has index -1, which selects the last entry; an IoU of -1, set below, prevents a match.
        crowds = annotations.crowds[annotation_rows]
        ious = box_ious(detections.boxes[rows], annotations.boxes[annotation_rows], crowds)
        ious[(rows < 0)[:, :, None] | (annotation_rows < 0)[:, None]] = -1
        same_class = detections.labels[rows][:, :, None] == annotations.labels[annotation_rows][:, None]
        yield Block(rows, annotation_rows, ious, same_class, crowds)


def _alike(num_detections: np.ndarray, num_annotations: np.ndarray) -> Iterator[np.ndarray]:
    """Yields images with both detections and annotations, in blocks of similar detection counts to limit padding."""
    images = np.flatnonzero((num_detections > 0) & (num_annotations > 0))
    images = images[np.argsort(-num_detections[images], kind="stable")]
    while len(images):
        candidates = images[:IMAGES_IN_BLOCK]
        pairs = num_detections[candidates[0]] * np.maximum.accumulate(num_annotations[candidates])  # per padded image
        count = max(1, int((pairs * np.arange(1, len(candidates) + 1) <= PAIRS_IN_BLOCK).sum()))
        yield candidates[:count]
        images = images[count:]


def _padded(edges: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Returns range(edges[i], edges[i + 1]) for each i in `rows`, padded with -1."""
    starts, counts = edges[rows, None], edges[rows + 1] - edges[rows]
    steps = np.arange(counts.max())
    return np.where(steps < counts[:, None], starts + steps, -1)


def _annotation_at(block: Block, columns: np.ndarray) -> np.ndarray:
    """Maps `columns` [n, K] of the block to annotation indices; -1 stays -1."""
    return np.where(columns >= 0, np.take_along_axis(block.annotations, columns.clip(min=0), axis=1), -1)


def _place_in_group(groups: np.ndarray) -> np.ndarray:
    """Returns, for each entry, the number of earlier entries of the same group."""
    order = np.argsort(groups, kind="stable")
    in_order = groups[order]
    starts = np.flatnonzero(np.diff(in_order, prepend=-1))
    places = np.empty(len(groups), np.int64)
    places[order] = np.arange(len(groups)) - np.repeat(starts, np.diff(starts, append=len(groups)))
    return places
