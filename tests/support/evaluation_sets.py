"""Creates small sets of objects, with detections, for tests of the evaluation."""

import json

import numpy as np

from retinanet.coco.annotation_cache import load_annotations
from retinanet.coco.results import found_of
from retinanet.evaluation.average_precision import average_precision
from retinanet.evaluation.matches import evaluated, match_detections, ranked_classes


def random_set(tmp_path, first_id=1, seed=0, with_crowds=True):
    """Writes a set of ten images with crowds and objects of three classes and all sizes.

    Returns its path, and result rows whose detections lie near the objects. Some scores are tied.
    """
    draw = np.random.default_rng(seed)
    images = [{"id": first_id + i, "file_name": f"{i}.jpg", "width": 400, "height": 300} for i in range(10)]
    annotations, rows = [], []
    for number in range(60):
        side = float(draw.choice([12, 50, 150]))
        box = [float(draw.integers(0, 400 - int(side))), float(draw.integers(0, 300 - int(side))), side, side * 0.9]
        image_id, category_id = first_id + int(draw.integers(10)), first_id + int(draw.integers(3))
        annotations.append(
            {
                "id": first_id + number,
                "image_id": image_id,
                "category_id": category_id,
                "bbox": box,
                "area": side * side * 0.9,
                "iscrowd": int(with_crowds and number % 9 == 0),
            }
        )
        for _ in range(int(draw.integers(0, 3))):
            moved = (np.array(box) + draw.normal(0, side * 0.1, 4)).tolist()
            rows.append(
                {
                    "image_id": image_id,
                    "category_id": first_id + int(draw.integers(3)) if draw.random() < 0.2 else category_id,
                    "bbox": [*moved[:2], abs(moved[2]) + 1, abs(moved[3]) + 1],
                    "score": float(draw.integers(1, 20)) / 20,
                }
            )
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": first_id + i, "name": name} for i, name in enumerate("abc")],
    }
    path = tmp_path / f"set{first_id}.json"
    path.write_text(json.dumps(content))
    return path, rows


def untied_set(tmp_path, seed):
    """Returns a random set and result rows without crowds or ties, which the backends analyse differently."""
    path, rows = random_set(tmp_path, seed=seed, with_crowds=False)
    draw = np.random.default_rng(seed)
    for row in rows:
        row["score"] = float(draw.random())
    return load_annotations(path), rows


def class_aps(annotations, rows):
    """Returns the AP and the recall of each class, both [10 IoUs, C]."""
    found = evaluated(found_of(rows, annotations), annotations)
    once = np.ones((1, len(annotations.image_ids)))
    ranked = ranked_classes(found, match_detections(found, annotations), annotations)
    precisions = [average_precision(one, once) for one in ranked]
    return np.stack([one.ap[:, 0] for one in precisions], axis=1), np.stack([one.recall[:, 0] for one in precisions], 1)


def one_image(tmp_path, objects, crowds=()):
    """Returns a set of one image with `objects` and `crowds`, each (category id, left, top, width, height)."""
    content = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 200, "height": 200}],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
        "annotations": [
            {"id": number, "image_id": 1, "category_id": one[0], "bbox": list(one[1:]), "iscrowd": int(is_crowd)}
            for number, (one, is_crowd) in enumerate(
                [*((one, False) for one in objects), *((one, True) for one in crowds)], start=1
            )
        ],
    }
    (tmp_path / "set.json").write_text(json.dumps(content))
    return load_annotations(tmp_path / "set.json")


def rows_of(*detections):
    """Returns the result rows of `detections`, each (category id, score, left, top, width, height)."""
    return [{"image_id": 1, "category_id": one[0], "score": one[1], "bbox": list(one[2:])} for one in detections]
