"""Draws boxes in two readings: as given, and in the reading that fits their pictures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from retinanet.check_data.box_texts import JudgedSet, name_of
from retinanet.data.box_readings import read_boxes
from retinanet.data.box_verdict import NO_READING, OTHERWISE, Verdict
from retinanet.reports.box_pictures import Panel, draw_grid
from retinanet.reports.figures import save_figure
from retinanet.settings.convert import AS_GIVEN

IMAGES_A_GROUP, COLUMNS, PANEL_PIXELS = 8, 4, 360


def draw_readings(judged: Sequence[JudgedSet], path: Path) -> bool:
    """Draws images of groups whose boxes don't fit as given. Without such a group, returns False and writes no file."""
    panels = []
    for each in judged:
        for group, verdict, mask in each.parts():
            if verdict.kind in (OTHERWISE, NO_READING):
                title = f"{each.checked.name}, {name_of(group, each)}"
                panels += _panels(title, each, verdict, mask)
    if not panels:
        return False
    # Sets may differ in their classes by mistake; a class is only a colour here.
    class_names = max((each.checked.dataset.annotations.class_names for each in judged), key=len)
    save_figure(draw_grid(panels, class_names, COLUMNS, size=PANEL_PIXELS, with_names=False), path)
    return True


def _panels(title: str, judged: JudgedSet, verdict: Verdict, mask: np.ndarray) -> list[Panel]:
    dataset, scores = judged.checked.dataset, judged.scores
    annotations = dataset.annotations
    images = np.unique(scores.images[mask])
    drawn = images[np.linspace(0, len(images) - 1, min(IMAGES_A_GROUP, len(images))).astype(int)]
    panels = []
    for image in drawn.tolist():
        rows = scores.rows[mask & (scores.images == image)]
        boxes, sizes = annotations.boxes[rows], annotations.sizes[[image] * len(rows)]
        labels = annotations.labels[rows]
        if verdict.kind == OTHERWISE:
            name = verdict.reading if verdict.reading != AS_GIVEN else "given"
            shown, outlines = read_boxes(verdict.reading, boxes, sizes), boxes
            text = f"{title}: as {name.replace('_', ' ')}"
        else:
            shown, outlines, text = boxes, np.zeros((0, 4)), f"{title}: as given"
        panels.append(Panel(text, dataset.original(image), shown, labels, None, outlines=outlines))
    return panels
