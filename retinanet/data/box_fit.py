"""Scores how well a set's boxes fit the pixels: in which reading (see box_readings) do their sides lie on edges?

A box that is read correctly has its sides on edges in its own picture, and not on edges in other pictures. So each box
is scored in each reading, on its own picture and on a few others. z is the mean of paired score differences divided by
its standard error. For the standard error, the boxes of an image count as one observation, because their scores are
correlated.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from retinanet.coco.annotations import Annotations, owners_of_rows
from retinanet.coco.boxes import corners_of
from retinanet.data.box_readings import READINGS, read_boxes
from retinanet.data.edges import Edges, scores_of_boxes, straightness
from retinanet.settings.convert import AS_GIVEN

NUM_OTHERS = 3  # other pictures that each box is scored on
MOST_BOXES = 40  # of an image; more add little, because their errors are correlated
LEAST_SIDE = 3  # pixels of the file; the sides of smaller boxes may be less than a pixel apart in the grey picture
# If a box overlaps a box of another picture by more than this IoU, both as fractions of their pictures, that picture
# may show an object at the same place, and the box isn't scored on it.
ALIKE = 0.5
SEED = 0
NAMES = (*READINGS,)
# Boxes drawn slightly too large or too small are read correctly, but their sides don't lie on edges. So boxes are also
# scored with their sizes multiplied by these factors, around the same centres.
SIZES = (0.7, 0.8, 0.9, 1.1, 1.25)


class Order(NamedTuple):
    """An order of the images by which boxes may have been assigned to the wrong pictures."""

    says: str
    owners: np.ndarray  # int64 [N], the image whose boxes belong to each picture


class Looked(NamedTuple):
    """The scores of boxes on one picture."""

    image: int
    rows: np.ndarray  # int64 [n], indices into BoxFit.rows, like the other rows here
    own: np.ndarray  # float32 [n, readings and SIZES], of the picture's own boxes
    other_rows: np.ndarray  # int64 [m]
    others: np.ndarray  # float32 [m, readings and SIZES], of boxes of other images
    order_rows: list[np.ndarray]  # int64 [k], for each order
    orders: list[np.ndarray]  # float32 [k], of the boxes as given
    straightness: float


class BoxScores(NamedTuple):
    """The scores of n boxes; NaN where a box can't be scored."""

    rows: np.ndarray  # int64 [n], in the annotations, ascending
    images: np.ndarray  # int64 [n], their images
    own: np.ndarray  # float32 [n, readings and SIZES]
    others: np.ndarray  # float32 [n, readings and SIZES], the mean over other pictures without a similar box
    orders: np.ndarray  # float32 [n, orders], of the boxes as given, on the picture that the order gives them
    order_says: list[str]
    straightness: float  # the mean over the pictures


class BoxFit:
    """Collects the scores of the boxes of a set, or only of the boxes in its `chosen` images."""

    def __init__(self, annotations: Annotations, chosen: np.ndarray | None = None) -> None:
        self.annotations = annotations
        rows = np.flatnonzero(~annotations.crowds & (annotations.boxes[:, 2:] >= LEAST_SIDE).all(axis=1))
        images = owners_of_rows(annotations, rows)
        if chosen is not None:
            is_chosen = np.isin(images, chosen)
            rows, images = rows[is_chosen], images[is_chosen]
        self.rows, self.images = _thinned(rows, images)
        self.first = np.searchsorted(self.images, np.arange(len(annotations.sizes) + 1))
        self.orders = possible_orders(annotations) if chosen is None else []
        self.others = self._others()
        shape = len(self.rows), len(NAMES) + len(SIZES)
        self.own = np.full(shape, np.nan, np.float32)
        self.sums = np.zeros(shape, np.float32)
        self.counts = np.zeros(shape, np.uint8)
        self.order_scores = np.full((len(self.rows), len(self.orders)), np.nan, np.float32)
        self.is_looked_at = np.zeros(len(annotations.sizes), bool)
        self.straightness: list[float] = []

    def is_needed(self, image: int) -> bool:
        """Returns True if any box is scored on the picture of this image."""
        return image in self.others or any(len(self._rows(order.owners[image])) for order in self.orders)

    def look(self, image: int, edges: Edges) -> Looked:
        """Scores boxes of this and other images on this image's `edges`. Threads may call this at the same time."""
        places = self._rows(image)
        other_places = np.concatenate([self._rows(other) for other in self.others.get(image, ())] or [places[:0]])
        every = np.concatenate([places, other_places])
        scores = self._scores(edges, every, NAMES, self.annotations.sizes[self.images[every]], SIZES)
        scores[len(places) :][self._are_alike(other_places, places)] = np.nan
        order_places = [self._rows(order.owners[image]) for order in self.orders]
        size = self.annotations.sizes[[image]]  # the boxes are supposed to be in pixels of this picture
        return Looked(
            image,
            places,
            scores[: len(places)],
            other_places,
            scores[len(places) :],
            order_places,
            [self._scores(edges, each, (AS_GIVEN,), size)[:, 0] for each in order_places],
            straightness(edges),
        )

    def add(self, looked: Looked) -> None:
        self.own[looked.rows] = looked.own
        is_scored = ~np.isnan(looked.others)
        np.add.at(self.sums, looked.other_rows, np.where(is_scored, looked.others, 0))
        np.add.at(self.counts, looked.other_rows, is_scored)
        for number, (places, scores) in enumerate(zip(looked.order_rows, looked.orders, strict=True)):
            self.order_scores[places, number] = scores
        self.is_looked_at[looked.image] = True
        self.straightness.append(looked.straightness)

    def scores(self) -> BoxScores:
        """Returns the scores of all boxes whose pictures have been added."""
        with np.errstate(invalid="ignore"):
            others = np.where(self.counts, self.sums / self.counts, np.nan)
        seen = self.is_looked_at[self.images]
        says = [order.says for order in self.orders]
        mean = float(np.mean(self.straightness)) if self.straightness else 0.0
        own, orders = self.own[seen], self.order_scores[seen]
        return BoxScores(self.rows[seen], self.images[seen], own, others[seen], orders, says, mean)

    def _rows(self, image: int) -> np.ndarray:
        """Returns the indices of an image's boxes in `rows`."""
        return np.arange(self.first[image], self.first[image + 1])

    def _scores(
        self, edges: Edges, places: np.ndarray, names: Sequence[str], sizes: np.ndarray, factors: Sequence[float] = ()
    ) -> np.ndarray:
        """Returns the scores of boxes in each reading, and of boxes scaled by `factors`: float32 [n, names + factors].

        Each box is read as a box of a picture whose size is given in `sizes` [n or 1, 2], then converted to fractions
        of that picture.
        """
        boxes = self.annotations.boxes[self.rows[places]]
        resized = [boxes + boxes[:, [2, 3, 2, 3]] * [(1 - by) / 2, (1 - by) / 2, by - 1, by - 1] for by in factors]
        read = np.stack([*(read_boxes(name, boxes, sizes) for name in names), *resized], axis=1)  # [n, both, 4]
        corners = corners_of(read) / sizes[:, None, [1, 0, 1, 0]]
        return scores_of_boxes(edges, corners.reshape(-1, 4)).reshape(read.shape[:2])

    def _are_alike(self, places: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Marks boxes that, as fractions of their pictures, have an IoU above ALIKE with any of `others`: bool [n]."""
        (low, high), (other_low, other_high) = (
            np.split(corners_of(self.annotations.boxes[self.rows[each]]) / self._scales(each), 2, axis=1)
            for each in (places, others)
        )
        both = (np.minimum(high[:, None], other_high) - np.maximum(low[:, None], other_low)).clip(0).prod(axis=2)
        either = (high - low).prod(axis=1)[:, None] + (other_high - other_low).prod(axis=1) - both
        return (both > ALIKE * either).any(axis=1)

    def _scales(self, places: np.ndarray) -> np.ndarray:
        """Returns the (width, height, width, height) of the boxes' images: [n, 4]."""
        return self.annotations.sizes[self.images[places]][:, [1, 0, 1, 0]]

    def _others(self) -> dict[int, np.ndarray]:
        """Returns, for each image with boxes, the other images whose boxes are scored on its picture."""
        images = np.unique(self.images)
        drawn = np.random.default_rng(SEED).permutation(images)
        steps = range(1, min(NUM_OTHERS, len(images) - 1) + 1)
        # Rotating the list of images by different steps pairs no image with itself, and uses every image equally often.
        turned = np.stack([np.roll(drawn, step) for step in steps], axis=1) if steps else drawn[:, None][:, :0]
        return dict(zip(drawn.tolist(), turned, strict=True))


def possible_orders(annotations: Annotations) -> list[Order]:
    """Returns orders, shifted by one or sorted differently, by which boxes may have been assigned to wrong images."""
    names = [annotations.file_name(image) for image in range(len(annotations.sizes))]
    every = np.arange(len(names))
    sorts = {
        "the file's images": every,
        "the names": np.array(sorted(every, key=lambda image: names[image]), np.int64),
        "the numbers in the names": np.array(sorted(every, key=lambda image: natural(names[image])), np.int64),
        "the ids": np.argsort(annotations.image_ids, kind="stable"),
    }
    orders: list[Order] = []

    def add(says: str, pictures: np.ndarray, owners: np.ndarray) -> None:
        """Adds the order that gives each of the `pictures` the boxes of the image at the same index in `owners`."""
        of_picture = np.empty_like(every)
        of_picture[pictures] = owners
        if not any((of_picture == known).all() for known in (every, *(order.owners for order in orders))):
            orders.append(Order(says, of_picture))

    for name, order in sorts.items():
        add(f"of the next image, in the order of {name}", order, np.roll(order, 1))
        add(f"of the previous image, in the order of {name}", order, np.roll(order, -1))
    for name, order in sorts.items():
        for other_name, other in sorts.items():
            says = f"of another image, if boxes follow the order of {other_name}, and pictures the order of {name}"
            add(says, order, other)
    return orders


def natural(name: str) -> list[tuple[int, str]]:
    """Returns a sort key that compares the numbers in names by value, so that 2 comes before 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _thinned(rows: np.ndarray, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns `rows` and `images`, reduced to at most MOST_BOXES rows of each image, evenly spread."""
    counts = np.bincount(images) if len(images) else np.zeros(0, int)
    starts = np.cumsum(counts) - counts
    places, totals = np.arange(len(images)) - starts[images], counts[images]
    most = np.minimum(totals, MOST_BOXES)
    # A row is taken if it is the first of its image to reach the next of `most` even steps.
    is_taken = (places * most) // np.maximum(totals, 1) != ((places - 1) * most) // np.maximum(totals, 1)
    return rows[is_taken], images[is_taken]
