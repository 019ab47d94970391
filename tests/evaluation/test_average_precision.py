import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.evaluation_sets import class_aps, random_set

from retinanet.coco.annotation_cache import load_annotations
from retinanet.coco.results import found_of
from retinanet.evaluation import average_precision as module
from retinanet.evaluation.average_precision import average_precision, mean_of_classes
from retinanet.evaluation.coco_table import AP, evaluate
from retinanet.evaluation.matches import evaluated, match_detections, ranked_classes


def copied(path, rows, weights, tmp_path):
    """The set with each image copied as often as its weight says, and the rows of the copies."""
    content = json.loads(path.read_text())
    images, objects, detections = [], [], []
    for image, weight in zip(content["images"], weights, strict=True):
        for _ in range(weight):
            new_id = len(images) + 1
            images.append({**image, "id": new_id})
            for one in content["annotations"]:
                if one["image_id"] == image["id"]:
                    objects.append({**one, "image_id": new_id, "id": len(objects) + 1})
            detections += [{**row, "image_id": new_id} for row in rows if row["image_id"] == image["id"]]
    (tmp_path / "copied.json").write_text(json.dumps({**content, "images": images, "annotations": objects}))
    return load_annotations(tmp_path / "copied.json"), detections


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**31), st.lists(st.integers(0, 3), min_size=10, max_size=10).filter(any))
def test_a_weight_is_so_many_copies_of_the_image(tmp_path, seed, weights):
    path, rows = random_set(tmp_path, seed=seed)
    for number, row in enumerate(rows):
        row["score"] += number / 1e6  # copies of ties would take turns
    annotations = load_annotations(path)
    found = evaluated(found_of(rows, annotations), annotations)
    ranked = ranked_classes(found, match_detections(found, annotations), annotations)
    several = np.array([[1] * 10, weights, [0] * 9 + [1]], np.uint8)
    ap = np.stack([average_precision(one, several).ap for one in ranked], axis=1)  # [10, C, 3]
    copies, copied_rows = copied(path, rows, weights, tmp_path)
    wanted, _ = class_aps(copies, copied_rows)
    assert np.allclose(ap[:, :, 1], wanted, atol=1e-12, equal_nan=True)
    official = evaluate(copies, found_of(copied_rows, copies), "pycocotools").numbers[AP]
    if official >= 0:
        assert mean_of_classes(ap[:, :, 1].mean(axis=0)) == pytest.approx(official, abs=1e-12)


def test_parts_of_the_weightings_give_the_same(tmp_path, monkeypatch):
    path, rows = random_set(tmp_path)
    annotations = load_annotations(path)
    found = evaluated(found_of(rows, annotations), annotations)
    one = ranked_classes(found, match_detections(found, annotations), annotations)[0]
    weights = np.random.default_rng(0).integers(0, 3, (7, 10))
    whole = average_precision(one, weights)
    monkeypatch.setattr(module, "NUMBERS_AT_A_TIME", 2 * len(one.images))
    assert np.array_equal(average_precision(one, weights).ap, whole.ap, equal_nan=True)


def test_mean_of_classes_leaves_out_those_without_objects():
    values = np.array([[0.5, np.nan, np.nan], [0.1, 0.2, np.nan]])
    assert np.array_equal(mean_of_classes(values), [0.3, 0.2, np.nan], equal_nan=True)
