"""Provides a small set, and result rows for that set, for tests of result files."""

import json

from retinanet.coco.annotations import read_annotations

SET = {
    "images": [{"id": i, "file_name": f"{i}.jpg", "width": 100, "height": 80} for i in (1, 2, 3)],
    "categories": [{"id": i, "name": str(i)} for i in (1, 2, 3)],
}


def row(image_id=1, category_id=1, bbox=(5, 6, 30, 40), score=0.5):
    return {"image_id": image_id, "category_id": category_id, "bbox": list(bbox), "score": score}


def annotations_of(folder, category_ids=(1, 2, 3)):
    categories = [{"id": i, "name": str(i)} for i in category_ids]
    path = folder / "set.json"
    path.write_text(json.dumps({**SET, "categories": categories}))
    return read_annotations(path)
