"""Images with some of the detections or objects of an analysis."""

import numpy as np

from retinanet.analysis import Analysis
from retinanet.annotations import owners_of
from retinanet.data import CocoDataset
from retinanet.plots import Panel


def object_panel(title: str, dataset: CocoDataset, image: int, chosen: np.ndarray) -> Panel:
    """The image with those of its objects that are `chosen` [T]."""
    annotations = dataset.annotations
    shown = chosen & (owners_of(annotations) == image)
    return Panel(title, _pixels(dataset, image), annotations.boxes[shown], annotations.labels[shown], None)


def found_panel(title: str, dataset: CocoDataset, image: int, analysis: Analysis, chosen: np.ndarray) -> Panel:
    """The image with those of its detections that are `chosen` [D], and dashed all its objects."""
    annotations, found = dataset.annotations, analysis.found
    shown = chosen & (found.images == image)
    objects = annotations.boxes[(owners_of(annotations) == image) & ~annotations.crowds]
    return Panel(
        title, _pixels(dataset, image), found.boxes[shown], found.labels[shown], found.scores[shown], outlines=objects
    )


def _pixels(dataset: CocoDataset, image: int) -> np.ndarray:
    return dataset.original(image).permute(1, 2, 0).numpy()
