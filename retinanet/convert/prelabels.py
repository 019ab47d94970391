"""Makes an annotated set of detections, for people to correct in an annotation tool, or for training."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from retinanet.coco.boxes import boxes_of, clipped_corners
from retinanet.coco.results import Found
from retinanet.convert.fit import fitted
from retinanet.convert.sets import Box, Labelled, LabelledImage, LabelledSet
from retinanet.settings.convert import COCO

SET_NAME = "train"


def labelled_image(path: Path, name: str, size: tuple[int, int], detections: Found, image_id: int) -> LabelledImage:
    """Returns an image, upright of `size` (height, width), with its detections as boxes."""
    height, width = size
    corners = clipped_corners(detections.boxes, np.tile(size, (len(detections.boxes), 1)))
    columns = (detections.labels, *boxes_of(corners).T, np.zeros(len(corners), bool), detections.scores)
    boxes = [Box(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]
    return LabelledImage(path, name, width, height, boxes, image_id)


def prelabels(
    images: Sequence[LabelledImage], kind: str, class_names: list[str], category_ids: list[int], source: Path
) -> Labelled:
    """Returns the set of the `images` as the format `kind` can express it; the notes say what that changes.

    Raises UserError, which names the weights file `source` or an image, if the format can't hold the name of a class
    or an image.
    """
    renamed, notes = _with_distinct_names(images, kind)
    labelled = Labelled(class_names, [LabelledSet(SET_NAME, renamed)], category_ids, notes)
    return fitted(labelled, kind, source)


def _with_distinct_names(images: Sequence[LabelledImage], kind: str) -> tuple[list[LabelledImage], list[str]]:
    """Adds a number to the name of an image if an earlier one has the same, as of two folders; also returns a note.

    Upper and lower case count as equal, as on macOS and Windows; so do different suffixes where annotations are named
    after the image without it. Hidden files and folders, which readers leave out, lose their dot.
    """
    renamed: list[LabelledImage] = []
    taken: set[str] = set()
    examples: list[str] = []

    def key(path: PurePosixPath) -> str:
        return str(path if kind == COCO else path.with_suffix("")).lower()

    for image in images:
        parts = (part for part in PurePosixPath(image.name).parts if part not in ("..", "/"))
        path = PurePosixPath(*(part.lstrip(".") or "_" for part in parts))
        free, number = path, 1
        while key(free) in taken:
            number += 1
            free = path.with_stem(f"{path.stem}_{number}")
        taken.add(key(free))
        if str(free) != image.name:
            examples.append(f"{image.path} as {free}")
        renamed.append(image._replace(name=str(free)))
    return renamed, [f"images that get another name: {len(examples)}, such as {examples[0]}"] if examples else []
