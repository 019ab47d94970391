"""COCO's evaluation. The only file that knows pycocotools."""

import contextlib
import io
from typing import Any, NamedTuple

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from retinanet.annotations import Annotations

AP, AP50 = 0, 1  # rows of the table


class CocoTable(NamedTuple):
    """COCO's twelve numbers, and the twelve lines that pycocotools prints of them."""

    numbers: list[float]
    text: str


def evaluate(annotations: Annotations, rows: list[dict[str, Any]]) -> CocoTable:
    """Compare the result `rows` (image_id, category_id, bbox, score) with the objects of a set.

    The rows must be about the set's images and categories, with finite numbers: pycocotools would take others without
    a word. No rows at all give zeros.
    """
    image_ids, category_ids = set(annotations.image_ids.tolist()), set(annotations.category_ids)
    assert all(row["image_id"] in image_ids and row["category_id"] in category_ids for row in rows)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(_index(_objects(annotations), annotations), _detections(rows, annotations), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        evaluation.summarize()
    return CocoTable([float(number) for number in evaluation.stats], printed.getvalue().rstrip("\n"))


def _objects(annotations: Annotations) -> list[dict[str, Any]]:
    """The set's annotations as pycocotools wants them, numbered from 1: it takes a match with id 0 for none."""
    objects = []
    for image, image_id in enumerate(annotations.image_ids.tolist()):
        for row in range(annotations.first[image], annotations.first[image + 1]):
            objects.append(
                {
                    "id": row + 1,
                    "image_id": image_id,
                    "category_id": annotations.category_ids[annotations.labels[row]],
                    "bbox": annotations.boxes[row].tolist(),
                    "area": float(annotations.areas[row]),
                    "iscrowd": int(annotations.crowds[row]),
                }
            )
    return objects


def _detections(rows: list[dict[str, Any]], annotations: Annotations) -> COCO:
    """What COCO.loadRes makes of a result file, but it fails on an empty one."""
    numbered = [
        {**row, "id": number, "area": row["bbox"][2] * row["bbox"][3], "iscrowd": 0}
        for number, row in enumerate(rows, start=1)
    ]
    return _index(numbered, annotations)


def _index(entries: list[dict[str, Any]], annotations: Annotations) -> COCO:
    coco = COCO()
    coco.dataset = {
        "images": [{"id": image_id} for image_id in annotations.image_ids.tolist()],
        "categories": [{"id": category_id} for category_id in annotations.category_ids],
        "annotations": entries,
    }
    coco.createIndex()
    return coco
