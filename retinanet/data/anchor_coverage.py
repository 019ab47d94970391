"""Which objects an anchor can reach: no training finds what none overlaps enough."""

from typing import NamedTuple

import numpy as np

from retinanet.coco.box_arrays import resized_corners, shared_area
from retinanet.data.transforms import resized_sizes
from retinanet.detector.anchors import DEFAULT_SHAPES, STRIDES, AnchorShapes, cell_anchors
from retinanet.detector.settings import BACKGROUND_IOU, FOREGROUND_IOU

MORE_RATIOS = (0.33, 0.5, 1.0, 2.0, 3.0)
LEAST_MIN_SIDE = 64  # that the flags take


class AnchorSetup(NamedTuple):
    """What decides how large objects are beside the anchors."""

    min_side: int
    max_side: int
    shapes: AnchorShapes = DEFAULT_SHAPES


def best_ious(boxes: np.ndarray, shapes: AnchorShapes = DEFAULT_SHAPES) -> np.ndarray:
    """The largest IoU of each of `boxes` [n, 4], (x1, y1, x2, y2) in network pixels, with any anchor: float64 [n].

    Of the anchors of one shape that whose centre is nearest overlaps most, for along either axis the overlap of two
    lengths falls with the distance of their centres. So one cell of each level suffices: that of the object's centre.
    """
    x1, y1, x2, y2 = np.ascontiguousarray(boxes.T)
    areas = (x2 - x1) * (y2 - y1)
    best = np.zeros(len(boxes))
    for stride in STRIDES:
        x = (np.floor((x1 + x2) / 2 / stride) + 0.5) * stride
        y = (np.floor((y1 + y2) / 2 / stride) + 0.5) * stride
        for left, top, right, bottom in cell_anchors(stride, shapes).tolist():
            shared = shared_area((x1, y1, x2, y2), (x + left, y + top, x + right, y + bottom))
            np.maximum(best, shared / (areas + (right - left) * (bottom - top) - shared), out=best)
    return best


def shares(ious: np.ndarray, foreground: float = FOREGROUND_IOU, background: float = BACKGROUND_IOU) -> list[float]:
    """The shares of objects whose best anchor is matched with them, is ignored, and learns that nothing is there."""
    matched, seen = ious >= foreground, ious >= background
    counts = (matched.sum(), (seen & ~matched).sum(), (~seen).sum())
    return [float(count / max(1, len(ious))) for count in counts]


def alternatives(setup: AnchorSetup) -> dict[str, AnchorSetup]:
    """Other sides and anchors to try, by what is to be set."""
    found = {}
    for factor in (0.5, 0.75, 1.25, 1.5, 2):
        min_side, max_side = round(setup.min_side * factor), round(setup.max_side * factor)
        found[f"--min_side {min_side} --max_side {max_side}"] = setup._replace(min_side=min_side, max_side=max_side)
    found |= {name: setup._replace(shapes=shapes) for name, shapes in other_anchors(setup.shapes).items()}
    return {name: other for name, other in found.items() if other != setup and other.min_side >= LEAST_MIN_SIDE}


def other_anchors(shapes: AnchorShapes) -> dict[str, AnchorShapes]:
    """Anchors to try instead of `shapes`, by their flags."""
    ratios = f"--anchor_ratios {' '.join(f'{ratio:g}' for ratio in MORE_RATIOS)}"
    found = {f"--anchor_scale {side}": shapes._replace(side=side) for side in (2, 3, 6)}
    found[ratios] = shapes._replace(ratios=MORE_RATIOS)
    found |= {f"--anchor_scale {side} {ratios}": shapes._replace(side=side, ratios=MORE_RATIOS) for side in (2, 3)}
    return {name: other for name, other in found.items() if other != shapes}


def ious_of(setup: AnchorSetup, corners: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The best IoU of objects with `corners` [n, 4] in images of the original `sizes` [n, 2]: float64 [n]."""
    boxes = resized_corners(corners, sizes, resized_sizes(sizes, setup.min_side, setup.max_side))
    return best_ious(boxes, setup.shapes)
