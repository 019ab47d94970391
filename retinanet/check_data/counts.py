"""Counts a dataset's objects and images by class, size and shape, and measures how well anchors cover the objects."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from retinanet.data.anchor_coverage import AnchorSetup, Coverage, ious_of, shares
from retinanet.data.dataset import CocoDataset, Objects
from retinanet.runtime.printable import printable

SIDES = (8, 16, 32, 64, 128, 256, 512)  # of objects after the resize: square roots of areas
IMAGE_SIDES = (128, 256, 512, 1024, 2048, 4096)  # of images before the resize
SHAPES = (1 / 4, 1 / 3, 1 / 2, 2 / 3, 1, 3 / 2, 2, 3, 4)  # height / width
SHAPE_NAMES = ("1:4", "1:3", "1:2", "2:3", "1:1", "3:2", "2:1", "3:1", "4:1")
AREAS = (32**2, 96**2)  # COCO's limits between small, medium and large, in annotated areas
AREA_NAMES = ("small (area below 32²)", "medium", "large (96² and more)")
BY_AREA, BY_SIDE, BY_CLASS = "by annotated area", "by side after the resize", "by class"


class Histogram(NamedTuple):
    title: str
    names: list[str]  # of the bins
    counts: dict[str, np.ndarray]  # by set: int64 [bins]


class Reach(NamedTuple):
    """The anchor coverage of a group of objects.

    `shares` are three fractions of the objects: matched, unmatched with a best IoU of at least BACKGROUND_IOU, and
    unmatched with a lower best IoU.
    """

    name: str
    num_objects: int
    shares: list[float]


class Counts(NamedTuple):
    """The objects that training uses in a set: their sizes, shapes and counts by class."""

    name: str
    num_images: int
    objects: Objects
    sides: np.ndarray  # float64 [n], after the resize
    shapes: np.ndarray  # float64 [n]
    image_sides: np.ndarray  # float64 [N]
    class_objects: dict[int, int]  # by category id
    class_images: dict[int, int]  # the number of images that contain the class, by category id


def count(name: str, dataset: CocoDataset) -> Counts:
    annotations = dataset.annotations
    objects = dataset.learned(np.arange(len(annotations.labels)))
    x1, y1, x2, y2 = objects.boxes.T
    num_classes = len(annotations.class_names)
    pairs = np.unique(objects.images * max(1, num_classes) + objects.labels)  # each encodes an image and a class
    return Counts(
        name,
        len(dataset),
        objects,
        sides=np.sqrt((x2 - x1) * (y2 - y1)),
        shapes=(y2 - y1) / (x2 - x1),
        image_sides=np.sqrt(annotations.sizes.astype(float).prod(axis=1)),
        class_objects=_by_class(annotations.category_ids, objects.labels),
        class_images=_by_class(annotations.category_ids, pairs % max(1, num_classes)),
    )


def histograms(sets: list[Counts]) -> list[Histogram]:
    """Returns histograms of object sizes, object shapes and image sizes in all sets; a bin includes its lower edge."""
    return [
        _histogram("Objects by side after the resize (square root of the area), pixels", SIDES, SIDES, "sides", sets),
        _histogram("Objects by height : width", SHAPES, SHAPE_NAMES, "shapes", sets),
        _histogram("Images by side (square root of the area), pixels", IMAGE_SIDES, IMAGE_SIDES, "image_sides", sets),
    ]


def reach(now: Coverage, dataset: CocoDataset, setup: AnchorSetup) -> dict[str, list[Reach]]:
    """Returns how well the current anchors cover the objects of `now`: overall, and by area, side and class."""
    objects = now.objects
    ious = ious_of(setup, objects.corners, dataset.annotations.sizes[objects.images])
    kinds = np.digitize(objects.areas, AREAS)
    sides = np.digitize(np.sqrt((objects.boxes[:, 2:] - objects.boxes[:, :2]).prod(axis=1)), SIDES)
    labels = objects.labels

    def group(name: str, mask: np.ndarray) -> Reach:
        return Reach(name, int(mask.sum()), shares(now.matched[mask], ious[mask]))

    return {
        "": [group("all", np.ones(len(ious), bool))],
        BY_AREA: [group(name, kinds == number) for number, name in enumerate(AREA_NAMES)],
        BY_SIDE: [
            group(name, sides == number) for number, name in enumerate(_bin_names(SIDES)) if (sides == number).any()
        ],
        BY_CLASS: [
            group(printable(name), labels == label) for label, name in enumerate(dataset.annotations.class_names)
        ],
    }


def _by_class(category_ids: list[int], labels: np.ndarray) -> dict[int, int]:
    return dict(zip(category_ids, np.bincount(labels, minlength=len(category_ids)).tolist(), strict=True))


def _histogram(title: str, edges: tuple, names: tuple, values: str, sets: list[Counts]) -> Histogram:
    def bin_counts(counts: Counts) -> np.ndarray:
        return np.bincount(np.digitize(getattr(counts, values), edges), minlength=len(edges) + 1)

    by_set = {counts.name: bin_counts(counts) for counts in sets}
    filled = np.flatnonzero(np.sum(list(by_set.values()), axis=0))
    used = slice(filled[0], filled[-1] + 1) if len(filled) else slice(0, 1)  # without empty bins at either end
    return Histogram(title, _bin_names(names)[used], {name: numbers[used] for name, numbers in by_set.items()})


def _bin_names(edges: tuple) -> list[str]:
    between = [f"{low} to {high}" for low, high in pairwise(edges)]
    return [f"below {edges[0]}", *between, f"from {edges[-1]}"]
