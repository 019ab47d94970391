"""Makes an annotated set from detections, to be corrected by people in an annotation tool or used for training."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from retinanet.coco.boxes import boxes_of, clipped_corners
from retinanet.coco.results import Found
from retinanet.convert.fit import fitted
from retinanet.convert.sets import Box, Labelled, LabelledImage, LabelledSet

SET_NAME = "train"
NO_OUTLINE: dict[str, Any] = {"segmentation": []}  # Datumaro, and so CVAT, drops a COCO annotation without this key


def labelled_image(path: Path, name: str, size: tuple[int, int], detections: Found, image_id: int) -> LabelledImage:
    """Returns an image with its detections as boxes; `size` is the (height, width) of the upright picture."""
    height, width = size
    corners = clipped_corners(detections.boxes, np.tile(size, (len(detections.boxes), 1)))
    columns = (detections.labels, *boxes_of(corners).T, np.zeros(len(corners), bool), detections.scores)
    boxes = [Box(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]
    return LabelledImage(path, name, width, height, boxes, image_id, box_entries=[NO_OUTLINE] * len(boxes))


def prelabels(
    images: Sequence[LabelledImage], kind: str, class_names: list[str], category_ids: list[int], source: Path
) -> Labelled:
    """Returns a dataset of the `images`, adapted to what the format `kind` can express; its notes say what was changed.

    Raises UserError, naming the weights file `source` or an image, if the format can't hold the name of a class or of
    an image.
    """
    return fitted(Labelled(class_names, [LabelledSet(SET_NAME, list(images))], category_ids), kind, source)


class DistinctNames:
    """Gives each image of a set a distinct name: if an earlier image has the same name, a number is added.

    Names that differ only in case count as equal, as on macOS and Windows, and so do names that differ only in their
    suffix, because a label file has its image's name with another suffix. Leading dots are removed
    from file and folder names, because programs that read the dataset skip hidden files.
    """

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def add(self, name: str) -> str:
        """Returns a distinct name for the image called `name`."""
        parts = (part for part in PurePosixPath(name).parts if part not in ("..", "/"))
        path = PurePosixPath(*(part.lstrip(".") or "_" for part in parts))
        free, number = path, 1
        while (key := str(free.with_suffix("")).lower()) in self._taken:
            number += 1
            free = path.with_stem(f"{path.stem}_{number}")
        self._taken.add(key)
        return str(free)
