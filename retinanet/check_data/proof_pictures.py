"""Draws pictures for a person to judge: crops of objects, titled with their class, and detections in unseen images."""

from pathlib import Path

import numpy as np

from retinanet.check_data.proof import Part, Proof
from retinanet.data.dataset import CocoDataset
from retinanet.reports.box_pictures import Panel, draw_grid
from retinanet.reports.figures import save_figure

CROPS_A_CLASS, MOST_CLASSES, CROP_PIXELS = 3, 60, 160
MARGIN = 0.2  # around an object, as a fraction of its sides
IMAGES_A_PART, COLUMNS, PANEL_PIXELS = 4, 4, 360
MOST_SHOWN = 3  # detections of an image

CLASSES, DETECTIONS = "classes.png", "detections.png"


def draw_classes(train: CocoDataset, val: CocoDataset | None, path: Path) -> None:
    """Draws a row for each of the most frequent classes: three objects of the training set, then three of val."""
    counts = np.bincount(train.annotations.labels[train.is_learned], minlength=len(train.annotations.class_names))
    labels = np.argsort(-counts, kind="stable")[:MOST_CLASSES]
    panels = [
        panel
        for label in labels.tolist()
        if counts[label]
        for name, dataset in (("train", train), *([("val", val)] if val else []))
        for panel in _crops(name, dataset, label)
    ]
    save_figure(
        draw_grid(panels, train.annotations.class_names, CROPS_A_CLASS * (2 if val else 1), size=CROP_PIXELS), path
    )


def _crops(name: str, dataset: CocoDataset, label: int) -> list[Panel]:
    """Returns panels of objects of the class, evenly spread over the set, plus blank panels if there are too few."""
    annotations = dataset.annotations
    objects = dataset.learned(np.flatnonzero(dataset.is_learned & (annotations.labels == label)))
    shown = np.linspace(0, len(objects.images) - 1, min(CROPS_A_CLASS, len(objects.images))).astype(int)
    none = np.zeros((0, 4)), np.zeros(0, np.int64)
    panels = []
    for place in shown.tolist():
        image = dataset.original(int(objects.images[place]))
        x1, y1, x2, y2 = objects.corners[place]
        columns, rows = MARGIN * (x2 - x1), MARGIN * (y2 - y1)
        top, left = max(0, int(y1 - rows)), max(0, int(x1 - columns))
        crop = image[top : int(y2 + rows) + 1, left : int(x2 + columns) + 1]
        panels.append(Panel(f"{name}: {annotations.class_names[label]}", crop, *none, None))
    blank = Panel("", np.full((1, 1, 3), 255, np.uint8), *none, None)
    return panels + [blank] * (CROPS_A_CLASS - len(panels))


def draw_detections(proof: Proof, path: Path) -> None:
    """Draws the best detections in some unseen images of the training set and of val; annotated boxes are dashed."""
    parts = {"train, unseen": proof.left_out} | ({"val": proof.val} if proof.val else {})
    panels = [panel for name, part in parts.items() for panel in _panels(name, part)]
    save_figure(draw_grid(panels, proof.left_out.dataset.annotations.class_names, COLUMNS, size=PANEL_PIXELS), path)


def _panels(name: str, part: Part) -> list[Panel]:
    annotations, panels = part.dataset.annotations, []
    images = np.unique(part.images)
    for image in images[np.linspace(0, len(images) - 1, min(IMAGES_A_PART, len(images))).astype(int)].tolist():
        found = part.found.at(np.flatnonzero(part.found.images == image)[:MOST_SHOWN])
        rows = slice(annotations.first[image], annotations.first[image + 1])
        panels.append(
            Panel(
                f"{name}: {annotations.file_name(image)}",
                part.dataset.original(image),
                found.boxes,
                found.labels,
                found.scores,
                outlines=annotations.boxes[rows],
                outline_labels=annotations.labels[rows],
            )
        )
    return panels
