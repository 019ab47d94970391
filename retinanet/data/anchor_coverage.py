"""Counts the objects to which the training matcher assigns an anchor; objects without one are rarely detected."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from retinanet.coco.annotations import owners_of_rows
from retinanet.coco.boxes import resized_corners
from retinanet.data.dataset import CocoDataset, Objects
from retinanet.data.tiles import parts_in_tiles
from retinanet.data.transforms import padded_sizes, resized_sizes, scale_boxes
from retinanet.detector.anchors import DEFAULT_SHAPES, STRIDES, AnchorShapes, anchors_for, cell_anchors, level_shapes
from retinanet.detector.boxes import iou
from retinanet.detector.matching import coordinates, matches_of
from retinanet.detector.settings import BACKGROUND_IOU, DEFAULT_LOSS, LossSettings
from retinanet.detector.structures import AnchorMatches, Targets
from retinanet.runtime.device import one_thread
from retinanet.settings.shared import Tiles, TrainTiles

ROUNDING = 1e-5  # rounding error of an IoU in float32, the format of training
WHOLE = 0.99  # a tile that shows at least this fraction of an object's area is taken to show all of it
CPU = torch.device("cpu")
# If all anchors of an image have to be compared with its objects, so few images are used that at most this many anchors
# are compared, which takes about two seconds.
MOST_ANCHORS = 20_000_000


class AnchorSetup(NamedTuple):
    """The settings that determine the sizes of objects and anchors in the network's input."""

    min_side: int
    max_side: int
    shapes: AnchorShapes = DEFAULT_SHAPES
    tiles: Tiles | None = None
    min_visible: float = TrainTiles.min_visible


class Coverage(NamedTuple):
    """Objects of a dataset (all or a random sample), and a mask of the objects that get an anchor."""

    objects: Objects
    matched: np.ndarray  # bool [n]
    are_all: bool  # False if the objects are a random sample

    @property
    def missed(self) -> float:
        """Returns the fraction of objects without an anchor."""
        return float((~self.matched).mean()) if len(self.matched) else 0.0

    @property
    def missed_by_class(self) -> dict[int, float]:
        """Returns the fraction of objects without an anchor, for each label that has objects."""
        labels = self.objects.labels
        counts, missed = np.bincount(labels), np.bincount(labels, ~self.matched)
        return {label: float(missed[label] / counts[label]) for label in np.flatnonzero(counts).tolist()}


def coverage(
    dataset: CocoDataset, setup: AnchorSetup, loss: LossSettings = DEFAULT_LOSS, most: int = 10**9
) -> Coverage:
    """Runs the training matcher on the objects of `dataset` or, if there are more, on a random sample of about `most`.

    The boxes are not augmented. An anchor belongs to at most one object, so one of two neighbouring objects may get no
    anchor even though some anchors overlap it enough. With tiles, an object also counts as matched if an anchor
    overlaps it enough in a tile that shows all of it.
    """
    objects = _drawn(dataset, most, MOST_ANCHORS // _num_anchors(setup) if loss.matcher != "iou" else len(dataset))
    matched = np.zeros(len(objects.images), bool)
    original = dataset.annotations.sizes[objects.images]
    resized = resized_sizes(original, setup.min_side, setup.max_side)
    starts = np.flatnonzero(np.diff(objects.images, prepend=-1))
    with one_thread():  # an image has few objects, so more threads would mostly wait for each other
        for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), len(matched)], strict=False):
            corners = torch.from_numpy(objects.corners[start:stop].astype(np.float32))
            boxes, _ = scale_boxes(corners, original[start].tolist(), resized[start].tolist())
            height, width = padded_sizes(resized[start]).tolist()
            matched[start:stop] = _matched_in_image(boxes, (height, width), setup.shapes, loss).numpy()
    matched |= _ious_in_tiles(setup, objects.corners, original) >= loss.foreground_iou - ROUNDING
    return Coverage(objects, matched, len(objects.images) == int(dataset.is_learned.sum()))


def _drawn(dataset: CocoDataset, most: int, most_images: int) -> Objects:
    """Returns the objects that training uses; if there are too many, only the objects in a random sample of images."""
    rows = np.flatnonzero(dataset.is_learned)
    images = owners_of_rows(dataset.annotations, rows)
    counts = np.bincount(images, minlength=len(dataset))
    order = np.random.default_rng(0).permutation(np.flatnonzero(counts))
    num_images = min(most_images, int(np.searchsorted(np.cumsum(counts[order]), most, side="right")))
    is_drawn = np.zeros(len(dataset), bool)
    is_drawn[order[: max(1, num_images)]] = True
    return dataset.learned(rows[is_drawn[images]])


def _num_anchors(setup: AnchorSetup) -> int:
    """Returns the number of anchors in the largest possible image."""
    return sum(rows * columns for rows, columns in level_shapes(setup.min_side, setup.max_side)) * setup.shapes.per_cell


def _matched_in_image(boxes: Tensor, size: tuple[int, int], shapes: AnchorShapes, loss: LossSettings) -> Tensor:
    """Marks which of the `boxes` [M, 4] in an input of `size` get an anchor: bool [M]."""
    targets = Targets(boxes[None], torch.zeros(1, len(boxes), dtype=torch.int64))
    if loss.matcher == "iou":
        # The few anchors nearest to an object usually suffice. If a neighbouring object takes all of them, the object
        # may still get another anchor, so then all anchors are compared.
        near = _nearest_anchors(boxes, shapes).flatten(0, 1).float()
        matched = _objects_of(matches_of(near, targets, loss), len(boxes))
        best = iou(*coordinates(near, targets))[0].amax(dim=1)
        if not (~matched & (best >= loss.foreground_iou - ROUNDING)).any():
            return matched
    return _objects_of(matches_of(anchors_for(*size, CPU, shapes), targets, loss, size), len(boxes))


def _objects_of(matches: AnchorMatches, num_objects: int) -> Tensor:
    """Marks the objects of an image that have a foreground anchor: bool [M]."""
    has_anchor = torch.zeros(num_objects, dtype=torch.bool)
    has_anchor[matches.objects[0, matches.foreground[0]]] = True
    return has_anchor


def _nearest_anchors(boxes: Tensor, shapes: AnchorShapes) -> Tensor:
    """Returns, for each box, the anchors of the cells that hold its centre: float64 [M, levels * per cell, 4].

    Among anchors of the same shape, the anchor with the nearest centre overlaps the box most: along either axis, the
    overlap of two intervals shrinks as their centres move apart. So no other anchor has a larger IoU with the box.
    """
    strides, cells = _cells_of_levels(shapes)
    centres = (boxes[:, None, :2] + boxes[:, None, 2:]).double() / 2 / strides  # [M, L, 2]
    centres = (centres.floor() + 0.5) * strides
    return (centres.repeat(1, 1, 2)[:, :, None] + cells).flatten(1, 2)


@lru_cache(maxsize=64)
def _cells_of_levels(shapes: AnchorShapes) -> tuple[Tensor, Tensor]:
    """Returns the strides, float64 [L, 1], and each level's anchors centred on the origin, float64 [L, per cell, 4]."""
    strides = torch.tensor(STRIDES, dtype=torch.float64)[:, None]
    return strides, torch.stack([cell_anchors(stride, shapes) for stride in STRIDES])


def best_ious(boxes: np.ndarray, shapes: AnchorShapes = DEFAULT_SHAPES) -> np.ndarray:
    """Returns the largest IoU of each of `boxes` [n, 4] with any anchor: float64 [n].

    Boxes are (x1, y1, x2, y2) in pixels of the network's input.
    """
    corners = torch.from_numpy(np.ascontiguousarray(boxes, np.float64))
    near = _nearest_anchors(corners, shapes)  # [n, levels * per cell, 4]
    return iou(corners[:, None].unbind(2), near.unbind(2)).amax(dim=1).numpy()


def ious_of(setup: AnchorSetup, corners: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Returns the largest IoU of each object with any anchor of the image or its tiles: float64 [n].

    `corners` [n, 4] are the objects' boxes in original pixels, and `sizes` [n, 2] the original sizes of their images.
    """
    boxes = resized_corners(corners, sizes, resized_sizes(sizes, setup.min_side, setup.max_side))
    return np.maximum(best_ious(boxes, setup.shapes), _ious_in_tiles(setup, corners, sizes))


def _ious_in_tiles(setup: AnchorSetup, corners: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Returns the largest IoUs within the tiles of one epoch; 0 for an object that no tile shows completely.

    Detection drops objects that a tile cuts off, so an object is only found in a tile that shows all of it.
    """
    best = np.zeros(len(corners))
    if setup.tiles:
        for seen in parts_in_tiles(corners, sizes, setup.tiles, WHOLE):
            resized = resized_sizes(seen.sizes, setup.min_side, setup.max_side)
            boxes = resized_corners(seen.parts, seen.sizes, resized)
            np.maximum.at(best, seen.objects, best_ious(boxes, setup.shapes))
    return best


def setup_of(dataset: CocoDataset, shapes: AnchorShapes, tiling: TrainTiles) -> AnchorSetup:
    """Returns the setup of a run on `dataset` with anchors of these `shapes`."""
    return AnchorSetup(dataset.min_side, dataset.max_side, shapes, tiling.tiles, tiling.min_visible)


def shares(matched: np.ndarray, ious: np.ndarray, background: float = BACKGROUND_IOU) -> list[float]:
    """Returns the fractions of objects that are `matched` (bool [n]), not matched but near an anchor, and neither.

    An object is near an anchor if its best IoU is at least `background`; its best anchor is then ignored or belongs to
    another object. Otherwise, its best anchor is trained as background.
    """
    counts = (matched.sum(), (~matched & (ious >= background)).sum(), (~matched & (ious < background)).sum())
    return [float(count / max(1, len(ious))) for count in counts]
