"""Runs the COCO evaluation with pycocotools, or with hotcoco, which takes a fraction of the time."""

import contextlib
import io
import math
from typing import Any, NamedTuple

import numpy as np

from retinanet.coco.annotations import Annotations, has_objects, placeholder_note
from retinanet.coco.results import Found, rows_of
from retinanet.runtime.console import say
from retinanet.runtime.errors import UserError
from retinanet.settings.shared import BACKENDS, installed_backends

AP, AP50 = 0, 1  # rows of the table
NUMBER_NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
# The twelve lines that pycocotools prints: quantity, abbreviation, IoU, area, limit on detections per image.
LINES = (
    *(("Average Precision", "(AP)", iou, "all", 100) for iou in ("0.50:0.95", "0.50", "0.75")),
    *(("Average Precision", "(AP)", "0.50:0.95", area, 100) for area in ("small", "medium", "large")),
    *(("Average Recall", "(AR)", "0.50:0.95", "all", most) for most in (1, 10, 100)),
    *(("Average Recall", "(AR)", "0.50:0.95", area, 100) for area in ("small", "medium", "large")),
)


class CocoTable(NamedTuple):
    """Holds the twelve COCO metrics, the text that pycocotools prints for them, and the underlying precisions."""

    numbers: list[float]
    text: str
    precision: np.ndarray  # [10 IoUs, 101 recalls, C, 4 areas, 3 limits on detections]; -1 without objects

    def by_name(self, class_names: list[str]) -> dict[str, float]:
        """Returns the twelve metrics and the AP of each class by name; a metric is NaN if no objects count for it."""
        of_classes = self.precision[:, :, :, 0, 2].mean(axis=(0, 1)).tolist()
        names = [*NUMBER_NAMES, *(f"AP of {name}" for name in class_names)]
        numbers = [*self.numbers, *of_classes]
        return {name: number if number >= 0 else math.nan for name, number in zip(names, numbers, strict=True)}


def require_backend(backend: str) -> None:
    """Raises UserError unless `backend` is one of BACKENDS and installed. Call this before starting slow work."""
    if backend not in installed_backends():
        raise UserError(
            f"The COCO table needs {' or '.join(BACKENDS)}, and neither is installed. Run pip install pycocotools."
        )


def evaluate(annotations: Annotations, detections: Found, backend: str) -> CocoTable:
    """Evaluates the detections of a set against its objects.

    All BACKENDS give exactly the same metrics. A metric is -1 if no objects count for it, and 0 if there are such
    objects but no detections. Raises UserError unless `backend` is installed.
    """
    require_backend(backend)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its timings and its table
        evaluation = coco_evaluation(annotations, detections, backend)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    numbers = [float(number) for number in evaluation.stats]
    return CocoTable(numbers, table_text(numbers), evaluation.eval["precision"])


def table_if_objects(
    annotations: Annotations, detections: Found, backend: str, *, or_else: str = "so there is no table"
) -> CocoTable | None:
    """Returns the table of the detections. If the set has no objects, logs that, plus `or_else`, and returns None."""
    if has_objects(annotations):
        return evaluate(annotations, detections, backend)
    say(f"{annotations.path} has no objects to compare with, {or_else}{placeholder_note(annotations)}")
    return None


def coco_evaluation(annotations: Annotations, detections: Found, backend: str) -> Any:
    """Returns the backend's COCOeval object, ready to run."""
    return (_hotcoco if backend == "hotcoco" else _pycocotools)(annotations, detections)


def _hotcoco(annotations: Annotations, detections: Found) -> Any:
    from hotcoco import COCO, COCOeval

    # hotcoco rejects negative ids, so ids are replaced by their ranks, which keep the order that breaks ties.
    ranks = np.argsort(np.argsort(annotations.image_ids))
    rows = np.column_stack([ranks[detections.images], detections.boxes, detections.scores, detections.labels]).astype(
        np.float64
    )
    objects = COCO.from_arrays(
        [{"id": rank} for rank in range(len(ranks))],
        [{"id": label, "name": name} for label, name in enumerate(annotations.class_names)],
        image_ids=np.repeat(ranks, np.diff(annotations.first)),
        category_ids=annotations.labels,
        boxes=annotations.boxes,
        area=annotations.areas,
        iscrowd=annotations.crowds.astype(np.uint8),
    )
    return COCOeval(objects, objects.loadRes(rows), "bbox")


def _pycocotools(annotations: Annotations, detections: Found) -> Any:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    columns = zip(
        np.repeat(annotations.image_ids, np.diff(annotations.first)).tolist(),
        np.array(annotations.category_ids, np.int64)[annotations.labels].tolist(),
        annotations.boxes.tolist(),
        annotations.areas.tolist(),
        annotations.crowds.astype(int).tolist(),
        strict=True,
    )
    names = ("image_id", "category_id", "bbox", "area", "iscrowd")
    objects = [dict(zip(names, values, strict=True)) for values in columns]
    # COCO.loadRes would do the same, but fails on an empty result file. The boxes of objects and rows are upright.
    plain = rows_of(detections, annotations._replace(turns=None))
    rows = [{**row, "area": row["bbox"][2] * row["bbox"][3], "iscrowd": 0} for row in plain]
    both = []
    for entries in (objects, rows):
        for number, entry in enumerate(entries, start=1):  # from 1: pycocotools takes a match with id 0 for no match
            entry["id"] = number
        coco = COCO()
        coco.dataset = {
            "images": [{"id": image_id} for image_id in annotations.image_ids.tolist()],
            "categories": [{"id": category_id} for category_id in annotations.category_ids],
            "annotations": entries,
        }
        coco.createIndex()
        both.append(coco)
    return COCOeval(*both, "bbox")


def table_lines(numbers: dict[str, float]) -> list[str]:
    """Returns the twelve lines of the table for `numbers` from CocoTable.by_name; no lines if `numbers` is empty."""
    if not numbers:
        return []
    return table_text([-1.0 if math.isnan(numbers[name]) else numbers[name] for name in NUMBER_NAMES]).splitlines()


def table_text(numbers: list[float]) -> str:
    """Formats `numbers`, the twelve COCO metrics, as the lines that pycocotools prints."""
    return "\n".join(
        f" {what:<18} {short} @[ IoU={iou:<9} | area={area:>6s} | maxDets={most:>3d} ] = {number:0.3f}"
        for (what, short, iou, area, most), number in zip(LINES, numbers, strict=True)
    )
