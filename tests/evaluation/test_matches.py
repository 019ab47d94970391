import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.evaluation_sets import class_aps, one_image, random_set, rows_of

from retinanet.coco.annotation_cache import load_annotations
from retinanet.coco.results import found_of
from retinanet.evaluation import matches as matches_module
from retinanet.evaluation.coco_table import AP50, evaluate
from retinanet.evaluation.matches import IOUS, evaluated, match_detections, match_greedily


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**31), st.sampled_from([-3, 0, 1, 2**40]))
def test_aps_are_pycocotools(tmp_path, seed, first_id):
    """Crowds, ties and all sizes."""
    path, rows = random_set(tmp_path, first_id, seed)
    annotations = load_annotations(path)
    table = evaluate(annotations, found_of(rows, annotations), "pycocotools")
    ap, recall = class_aps(annotations, rows)
    wanted = table.precision[:, :, :, 0, 2].mean(axis=1)  # [10, C]; -1 without objects
    assert np.allclose(np.nan_to_num(ap, nan=-1), wanted, rtol=0, atol=1e-12)
    assert np.nanmean(recall) == pytest.approx(table.numbers[8], abs=1e-12)


def matched(annotations, *detections):
    found = evaluated(found_of(rows_of(*detections), annotations), annotations)
    return match_detections(found, annotations)


def test_each_object_is_taken_once_by_the_best_score(tmp_path):
    annotations = one_image(tmp_path, [(1, 0, 0, 10, 10)])
    matches = matched(annotations, (1, 0.5, 0, 0, 10, 10), (1, 0.9, 0, 0, 10, 8))
    assert matches.hits.sum(axis=1).tolist() == [1] * 10  # the better one to IoU 0.8, then the exact one
    assert matches.hits[:, 0].tolist() == (IOUS <= 0.8).tolist()
    assert matches.objects.tolist() == [0, -1]


def test_another_class_is_no_hit_but_noticed(tmp_path):
    annotations = one_image(tmp_path, [(1, 0, 0, 10, 10), (2, 0, 0, 10, 5)])
    matches = matched(annotations, (2, 0.5, 0, 0, 10, 10))
    assert matches.own_iou.tolist() == [0.5]
    assert matches.other_iou.tolist() == [1]
    assert (matches.own_object.tolist(), matches.other_object.tolist()) == ([1], [0])
    assert matches.any_class.tolist() == [0]
    assert matches.hits[:, 0].tolist() == [True] + [False] * 9


def test_detections_in_a_crowd_are_ignored(tmp_path):
    annotations = one_image(tmp_path, [(1, 100, 100, 10, 10)], crowds=[(1, 0, 0, 50, 50)])
    matches = matched(annotations, (1, 0.9, 0, 0, 10, 10), (1, 0.8, 5, 5, 10, 10), (2, 0.7, 5, 5, 10, 10))
    assert matches.ignored[0].tolist() == [True, True, False]  # a crowd takes many, of its class
    assert not matches.hits.any()
    assert matches.own_iou.tolist() == [0, 0, 0]


def test_no_more_than_100_of_a_class_and_image(tmp_path):
    annotations = one_image(tmp_path, [(1, 0, 0, 10, 10)])
    rows = rows_of(
        *[(1, 0.9 - i / 1000, 50, 50, 5, 5) for i in range(100)], (1, 0.1, 0, 0, 10, 10), (2, 0.05, 0, 0, 9, 9)
    )
    found = evaluated(found_of(rows, annotations), annotations)
    assert len(found.scores) == 101
    assert found.labels.tolist() == [0] * 100 + [1]
    assert not match_detections(found, annotations).hits.any()


def test_nothing_found_and_nothing_to_find(tmp_path):
    annotations = one_image(tmp_path, [(1, 0, 0, 10, 10)])
    assert matched(annotations).hits.shape == (10, 0)
    empty = one_image(tmp_path, [])
    assert not matched(empty, (1, 0.9, 0, 0, 10, 10)).hits.any()


def test_of_equal_overlaps_the_last_is_taken():
    ious = np.array([[[0.6, 0.6, 0.2], [0.6, 0.6, 0.2]]])
    taken, _ = match_greedily(ious, np.full_like(ious, -1), np.array([0.5]))
    assert taken.tolist() == [[[1, 0]]]


@pytest.mark.parametrize("pairs", [1, 40, 10**9])
def test_portions_of_the_images_give_the_same(tmp_path, monkeypatch, pairs):
    path, rows = random_set(tmp_path, seed=3)
    annotations = load_annotations(path)
    found = evaluated(found_of(rows, annotations), annotations)
    wanted = match_detections(found, annotations)
    monkeypatch.setattr(matches_module, "PAIRS_IN_BLOCK", pairs)
    assert all(np.array_equal(*both) for both in zip(match_detections(found, annotations), wanted, strict=True))


def test_of_equal_scores_those_of_the_lower_image_id_come_first(tmp_path):
    """Whatever the order of the images in the file."""
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 200, "height": 200} for i in (2, 1)],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [{"id": i, "image_id": i, "category_id": 1, "bbox": [0, 0, 10, 10]} for i in (1, 2)],
    }
    (tmp_path / "set.json").write_text(json.dumps(content))
    annotations = load_annotations(tmp_path / "set.json")
    rows = [
        {"image_id": image_id, "category_id": 1, "score": 0.5, "bbox": [left, 0, 10, 10]}
        for image_id, left in ((2, 0), (1, 150))
    ]
    ap, _ = class_aps(annotations, rows)
    assert ap[0, 0] == pytest.approx(51 / 101 / 2)  # recall 1/2 at precision 1/2
    assert ap[0, 0] == pytest.approx(evaluate(annotations, found_of(rows, annotations), "pycocotools").numbers[AP50])


def test_half_of_a_detection_in_a_crowd_is_enough(tmp_path):
    annotations = one_image(tmp_path, [(1, 100, 100, 10, 10)], crowds=[(1, 0, 0, 50, 50)])
    matches = matched(annotations, (1, 0.9, 45, 0, 10, 10), (1, 0.8, 46, 0, 10, 10))
    assert matches.ignored[:2].tolist() == [[True, False], [False, False]]


def test_what_lies_at_no_object_is_matched_with_none(tmp_path):
    annotations = one_image(tmp_path, [(1, 0, 0, 10, 10), (2, 20, 0, 10, 10)])
    matches = matched(annotations, (1, 0.9, 100, 100, 10, 10))
    assert [objects.tolist() for objects in (matches.objects, matches.own_object, matches.other_object)] == [[-1]] * 3
