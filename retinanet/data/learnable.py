"""Refuses training sets with nothing to learn, and returns warnings about boxes and classes that look wrong.

Without this check, a run on a set with nothing to learn would end with a loss of 0 and no error message.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from retinanet.coco.annotations import Annotations, one_box_for_all, owners_of, placeholder_note
from retinanet.coco.boxes import corners_for_sizes, mirrored_corners, resized_corners
from retinanet.data.anchor_coverage import ROUNDING, best_ious
from retinanet.data.dataset import CocoDataset
from retinanet.data.tiles import parts_in_tiles
from retinanet.detector.anchors import DEFAULT_SHAPES
from retinanet.detector.settings import FOREGROUND_IOU, AnchorShapes
from retinanet.runtime.errors import DataFault
from retinanet.runtime.printable import counted
from retinanet.settings.shared import TrainTiles

SCARCE = 20  # a class with fewer objects than this in a set is scarce

OBJECTS_AT_A_TIME = 2**14  # objects checked together; usually the first part suffices


def require_objects(dataset: CocoDataset) -> None:
    """Raises DataFault if no annotation is an object to train on."""
    if dataset.is_learned.any():
        return
    count = len(dataset.is_learned)
    why = (
        f"of {counted(count, 'annotation')}, {dataset.num_crowds} with iscrowd 1 and {dataset.num_empty} without area "
        "in the image"
        if count
        else 'its "annotations" are empty or missing'
    )
    raise DataFault(
        "nothing_to_learn",
        f"{dataset.annotations.path}: no annotation is an object to train on: {why}. Annotate objects, or train on "
        "another set.",
    )


def require_reach(
    dataset: CocoDataset,
    foreground_iou: float = FOREGROUND_IOU,
    sides: Sequence[int] = (),
    *,
    flip: bool = True,
    shapes: AnchorShapes = DEFAULT_SHAPES,
    tiling: TrainTiles | None = None,
) -> None:
    """Raises DataFault if no anchor of `shapes` has an IoU of at least `foreground_iou` with any object.

    The objects are scaled as if their images were resized to each shorter side in `sides` (default: that of `dataset`).
    With `flip`, mirrored objects count too, because mirroring shifts objects relative to the anchors. With `tiling`,
    the objects in the tiles of one epoch also count.
    """
    largest = 0.0
    for boxes in _network_boxes(dataset, sides, flip, tiling):
        best = best_ious(boxes, shapes)
        if best.max() >= foreground_iou - ROUNDING:
            return
        largest = max(largest, best.max())
    raise DataFault(
        "nothing_reached",
        f"{dataset.annotations.path}: no anchor overlaps an object by an IoU of {foreground_iou:g} (the most is "
        f"{largest:.2g}), so there is nothing to learn. Check the boxes. If they are right and the objects small, "
        "raise --min_side and --max_side, or lower --anchor_scale too. python -m retinanet.check_data says how far.",
    )


def _network_boxes(
    dataset: CocoDataset, sides: Sequence[int], flip: bool, tiling: TrainTiles | None
) -> Iterator[np.ndarray]:
    """Yields the objects' boxes in network input pixels, in chunks: (x1, y1, x2, y2), float64 [n, 4]."""
    rows = np.flatnonzero(dataset.is_learned)
    for start in range(0, len(rows), OBJECTS_AT_A_TIME):
        objects = dataset.learned(rows[start : start + OBJECTS_AT_A_TIME])
        sizes = dataset.annotations.sizes[objects.images]
        parts = [(objects.corners, sizes)]
        if tiling and tiling.tiles:
            seen_parts = parts_in_tiles(objects.corners, sizes, tiling.tiles, tiling.min_visible)
            parts += [(seen.parts, seen.sizes) for seen in seen_parts if len(seen.parts)]
        for corners, original in parts:
            for side in sides or (None,):
                resized = dataset.sizes_of(original, side)
                boxes = resized_corners(corners, original, resized)
                yield boxes
                if flip:
                    yield mirrored_corners(boxes, resized[:, 1])


def warnings_of(dataset: CocoDataset, val: Annotations) -> list[str]:
    """Returns warnings about suspicious boxes and classes in a training set, and about classes that only `val` has."""
    annotations = dataset.annotations
    boxes, sizes = (
        values[dataset.is_learned] for values in (annotations.boxes, annotations.sizes[owners_of(annotations)])
    )
    problems = []
    if len(boxes) and one_box_for_all(annotations):
        problems.append(f"all {len(boxes)} boxes are {boxes[0].tolist()}{placeholder_note(annotations)}")
    if corners_for_sizes(boxes, sizes).any():
        problems.append("boxes reach past their images and look like (x1, y1, x2, y2), not (left, top, width, height)")
    found = [
        f"Warning: {annotations.path}: {problem}. Check the boxes: python -m retinanet.check_data"
        for problem in problems
    ]
    names = annotations.class_names
    if twice := sorted({name for name in names if names.count(name) > 1}):
        found.append(
            f"Warning: {annotations.path}: several categories are called {', '.join(twice)}, and each is trained as a "
            "class of its own. Merge them into one, or give them different names"
        )
    counts, counts_of_val = (
        np.bincount(labels, minlength=len(names))
        for labels in (annotations.labels[dataset.is_learned], val.labels[~val.crowds])
    )
    if unseen := [name for name, own, of_val in zip(names, counts, counts_of_val, strict=True) if of_val and not own]:
        found.append(
            f"Warning: {val.path}: has objects of {', '.join(unseen)}, of which {annotations.path} has none, so they "
            "can't be learned. Annotate some there, or split the images again: python -m retinanet.convert --split"
        )
    return found
