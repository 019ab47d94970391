import json
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from support.evaluation_sets import one_image, random_set, rows_of, untied_set

from retinanet.coco.annotation_cache import load_annotations
from retinanet.coco.annotations import owners_of
from retinanet.coco.results import found_of
from retinanet.evaluation.analysis import analyse, image_f1
from retinanet.evaluation.coco_table import AP, AP50, coco_evaluation, evaluate
from retinanet.evaluation.matches import box_ious
from retinanet.evaluation.tide_errors import ERROR_KINDS, MISSED
from retinanet.reports.analysis_text import analysis_lines
from retinanet.reports.metrics import metrics_of

OBJECTS = [(1, 0, 0, 10, 10), (1, 50, 50, 10, 10), (2, 100, 100, 10, 10)]
FOUND = [(1, 0.9, 0, 0, 10, 10), (1, 0.8, 150, 0, 9, 9), (1, 0.7, 50, 50, 10, 10), (1, 0.6, 100, 100, 10, 10)]


@pytest.mark.parametrize("seed", range(3))
def test_the_means_are_cocos(tmp_path, seed):
    path, rows = random_set(tmp_path, seed=seed)
    annotations = load_annotations(path)
    analysis = analyse(annotations, found_of(rows, annotations), num_draws=50)
    numbers = evaluate(annotations, found_of(rows, annotations), "pycocotools").numbers
    assert analysis.ap.value == pytest.approx(numbers[AP], abs=1e-12)
    assert analysis.ap50.value == pytest.approx(numbers[AP50], abs=1e-12)
    assert np.mean([one.ar for one in analysis.classes]) == pytest.approx(numbers[8], abs=1e-12)
    assert analysis.ap.low < analysis.ap.value < analysis.ap.high


def has_equal_ious(annotations, found):
    """Whether some detection overlaps two objects of its image alike, by 0.5 or more."""
    owners = owners_of(annotations)
    for image in np.unique(owners):
        boxes, objects = found.boxes[found.images == image], annotations.boxes[owners == image]
        ious = box_ious(boxes[None], objects[None], np.zeros((1, len(objects)), bool))[0]
        ranked = np.sort(ious, axis=1)
        if ((np.diff(ranked, axis=1) < 1e-9) & (ranked[:, 1:] >= 0.5)).any():
            return True
    return False


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**31))
def test_confusions_are_hotcocos(tmp_path, seed):
    annotations, rows = untied_set(tmp_path, seed)
    analysis = analyse(annotations, found_of(rows, annotations), num_draws=0)
    # Of two objects with equal IoU it takes the first, COCO's rules the last.
    assume(not has_equal_ious(annotations, analysis.found))
    theirs = coco_evaluation(annotations, found_of(rows, annotations), "hotcoco").confusion_matrix(
        min_score=analysis.best.threshold
    )
    assert np.array_equal(analysis.confusion.table(), theirs["matrix"])


def test_the_best_threshold_by_trying_all(tmp_path):
    path, rows = random_set(tmp_path, seed=7, with_crowds=False)
    annotations = load_annotations(path)
    analysis = analyse(annotations, found_of(rows, annotations), num_draws=0)
    hits, scores, labels = analysis.matches.hits[0], analysis.found.scores, analysis.found.labels
    for label, one in enumerate(analysis.classes):
        own = labels == label
        f1 = {
            float(score): 2 * hits[own & (scores >= score)].sum() / ((own & (scores >= score)).sum() + one.num_objects)
            for score in np.unique(scores[own])
        }
        assert one.best.f1 == pytest.approx(max(f1.values()))
        best = max(f1, key=lambda score: (f1[score], score))
        assert one.best.threshold == float(np.nextafter(np.float32(best), np.float32(0)))
        taken = own & (scores >= best)
        assert one.best.precision == pytest.approx(hits[taken].mean())
        assert one.best.recall == pytest.approx(hits[taken].sum() / one.num_objects)


def test_by_hand(tmp_path):
    annotations = one_image(tmp_path, OBJECTS)
    analysis = analyse(annotations, found_of(rows_of(*FOUND), annotations), num_draws=0)
    assert analysis.best == pytest.approx((0.7, 2 / 3, 2 / 3, 2 / 3))
    assert analysis.best.threshold == float(np.nextafter(np.float32(0.7), np.float32(0)))
    # Above it, with the one of 0.7: both a found, nothing at the b, one on background.
    assert analysis.confusion.table().tolist() == [[2, 0, 0], [0, 0, 1], [1, 0, 0]]
    assert image_f1(analysis, annotations).tolist() == pytest.approx([2 / 3])
    lines = analysis_lines(analysis, 1)
    assert lines[4].startswith("Never found at any useful score (")
    assert lines[4].endswith(": b (1 object)")
    assert lines[5].startswith("AP50 lost to each kind of error: wrong class 0.5")
    assert lines[6].split("  ")[:3] == ["AP50 lost by class", "1 - AP50", "wrong class"]
    assert [line.split()[:3] for line in lines[7:9]] == [["a", "0.165", "0.000"], ["b", "1.000", "1.000"]]
    assert lines[2].split() == [
        "a",
        "2",
        f"{analysis.class_ap[0, 0]:.3f}",
        "0.835",
        "1.000",
        "0.800",
        "0.6999999",
    ]
    assert lines[3].split() == ["b", "1", "0.000", "0.000", "0.000", "-", "-"]


@pytest.mark.parametrize("found", ["nearly", "among junk", "usefully"])
def test_a_class_that_only_low_scored_boxes_touch_is_named(tmp_path, found):
    """None of these objects is "missed", as each has a box near it, and mending the boxes gains next to nothing."""
    places = range(0, 200, 20)
    annotations = one_image(tmp_path, [*((1, left, 0, 10, 10) for left in places), (2, 0, 50, 10, 10)])
    junk = [(2, 0.3 - number / 1000, 20 + number, 100, 9, 9) for number in range(60)]
    if found == "usefully":  # at a score of no use to the other class
        junk = [(2, 0.4, 20 + number, 100, 9, 9) for number in range(5)]
    near = (2, 0.2, 0, 50, 10, 4 if found == "nearly" else 10)
    rows = rows_of(*((1, 0.9, left, 0, 10, 10) for left in places), near, *junk)
    analysis = analyse(annotations, found_of(rows, annotations), num_draws=0)
    named = [line for line in analysis_lines(analysis, 1) if line.startswith("Never found at any useful score")]
    metrics = metrics_of(analysis, evaluate(annotations, found_of(rows, annotations), "pycocotools"))
    assert analysis.lost[MISSED] == pytest.approx(0)
    assert analysis.best.threshold > 0.4
    if found == "usefully":
        assert (named, metrics["never_found"]) == ([], [])
        return
    assert named[0].endswith(": b (1 object)")
    assert metrics["never_found"] == ["b"]
    assert list(metrics["classes"][1]["AP50_lost"]) == list(ERROR_KINDS)
    assert analysis.classes[1].ap50.value < 0.02
    assert found != "nearly" or sum(analysis.lost) < 0.01


def test_many_classes_that_are_never_found_are_counted(tmp_path):
    analysis = analyse(one_image(tmp_path, OBJECTS), found_of([], one_image(tmp_path, OBJECTS)), num_draws=0)
    lines = analysis_lines(analysis._replace(classes=analysis.classes * 6), 1)
    (named,) = [line for line in lines if line.startswith("Never found")]
    assert named.count("objects)") == named.count("1 object)") == 5
    assert named.endswith("b (1 object) and 2 more")
    assert not any(line.startswith("AP50 lost by class") for line in lines)


def test_confusions(tmp_path):
    analysis = analyse(
        one_image(tmp_path, OBJECTS),
        found_of(rows_of((1, 0.9, 100, 100, 10, 10), (2, 0.8, 100, 100, 10, 10)), one_image(tmp_path, OBJECTS)),
        0,
    )
    lines = analysis_lines(analysis, 1)
    assert [line.split() for line in lines[-4:]] == [
        ["a", "b", "not", "found"],
        ["a", "0", "0", "2"],
        ["b", "1", "0", "0"],
        ["background", "0", "1", "0"],
    ]
    many = analysis._replace(
        classes=[*analysis.classes, *analysis.classes[:1] * 10],
        confusion=analysis.confusion.between_classes()._replace(num_classes=12),
    )
    assert analysis_lines(many, 1)[-1] == "Most confused at that score: b taken for a (1)"


def test_nothing_found(tmp_path):
    annotations = one_image(tmp_path, OBJECTS)
    analysis = analyse(annotations, found_of([], annotations), num_draws=20)
    assert analysis.ap.value == 0
    assert math.isnan(analysis.best.threshold)
    assert analysis.lost.tolist() == [0, 0, 0, 0, 0, 1]
    assert "no detection hits an object" in "".join(analysis_lines(analysis, 1))
    metrics = metrics_of(analysis, evaluate(annotations, found_of([], annotations), "pycocotools"))
    assert metrics["best_f1"]["f1"] is None
    assert metrics["coco"]["AP"] == 0


def test_a_class_without_objects_is_left_out(tmp_path):
    annotations = one_image(tmp_path, OBJECTS[:2])
    analysis = analyse(annotations, found_of(rows_of(*FOUND), annotations), num_draws=20)
    assert str(analysis.classes[1].ap) == "-"
    assert math.isnan(analysis.classes[1].ar)
    assert analysis.ap50.value == pytest.approx(analysis.class_ap[1, 0])


def test_no_interval_where_few_images_have_the_class(tmp_path):
    path, rows = random_set(tmp_path, seed=2)
    content = json.loads(path.read_text())
    rare = [one for one in content["annotations"] if one["category_id"] != 2 or one["image_id"] <= 4]
    path.write_text(json.dumps({**content, "annotations": rare}))
    analysis = analyse(load_annotations(path), found_of(rows, load_annotations(path)), num_draws=50)
    assert [math.isnan(one.ap.low) for one in analysis.classes] == [False, True, False]
    assert not math.isnan(analysis.ap.low)
    assert analysis.classes[1].ap.value >= 0


def test_a_name_with_a_line_break_stays_on_its_line(tmp_path):
    annotations = one_image(tmp_path, OBJECTS)._replace(class_names=["a\nb\t c", "d"])
    lines = analysis_lines(analyse(annotations, found_of(rows_of(*FOUND), annotations), num_draws=0), 1)
    assert lines[2].startswith(r"a\nb\t c")
    assert "AP of a\nb\t c" in evaluate(annotations, found_of(rows_of(*FOUND), annotations), "pycocotools").by_name(
        annotations.class_names
    )


def test_of_thresholds_with_the_same_f1_the_highest_is_named(tmp_path):
    annotations = one_image(tmp_path, [(1, 0, 0, 10, 10), (1, 50, 50, 10, 10)])
    rows = rows_of((1, 0.9, 0, 0, 10, 10), (1, 0.8, 150, 0, 9, 9), (1, 0.7, 150, 50, 9, 9), (1, 0.6, 50, 50, 10, 10))
    best = analyse(annotations, found_of(rows, annotations), num_draws=0).best
    assert best == pytest.approx((0.9, 2 / 3, 1, 1 / 2))  # 2/3 from 0.6 as well, with half the precision


def test_what_crowds_hold_is_neither_asked_for_nor_counted(tmp_path):
    """Two objects and a crowd; one object is found, after two detections in the crowd."""
    annotations = one_image(tmp_path, [(1, 100, 100, 10, 10), (1, 150, 150, 10, 10)], crowds=[(1, 0, 0, 50, 50)])
    rows = rows_of((1, 0.9, 0, 0, 10, 10), (1, 0.8, 20, 20, 10, 10), (1, 0.7, 100, 100, 10, 10))
    analysis = analyse(annotations, found_of(rows, annotations), num_draws=0)
    assert analysis.best == pytest.approx((0.7, 2 / 3, 1, 1 / 2))
    assert analysis.classes[0].best == analysis.best
    assert image_f1(analysis, annotations) == pytest.approx([2 / 3])


def test_a_class_without_objects_is_not_called_never_found(tmp_path):
    annotations = one_image(tmp_path, OBJECTS[:2])
    analysis = analyse(annotations, found_of(rows_of(*FOUND), annotations), num_draws=0)
    assert [one.is_never_found for one in analysis.classes] == [False, False]
    assert not any(line.startswith("Never found") for line in analysis_lines(analysis, 1))


@pytest.mark.parametrize(("num_images", "num_draws"), [(5, 50), (4, 0)])
def test_five_images_with_objects_are_enough_for_intervals(tmp_path, num_images, num_draws):
    path, rows = random_set(tmp_path, seed=2)
    content = json.loads(path.read_text())
    kept = [one for one in content["annotations"] if one["image_id"] <= num_images]
    path.write_text(json.dumps({**content, "annotations": kept}))
    annotations = load_annotations(path)
    analysis = analyse(annotations, found_of(rows, annotations), num_draws=50)
    assert [math.isnan(each.low) for each in (analysis.ap, analysis.ap50)] == [num_draws == 0] * 2
    assert ("95% intervals" in analysis_lines(analysis, 10)[0]) == (num_draws > 0)
    table = evaluate(annotations, found_of(rows, annotations), "pycocotools")
    assert metrics_of(analysis, table)["num_draws"] == num_draws
    assert analysis.ap.value == pytest.approx(table.numbers[AP], abs=1e-12)


@pytest.mark.parametrize(("num_images", "is_known"), [(5, True), (4, False)])
def test_five_images_with_a_class_are_enough_for_its_interval(tmp_path, num_images, is_known):
    """However many objects of it they have."""
    path, rows = random_set(tmp_path, seed=2)
    content = json.loads(path.read_text())
    draw = np.random.default_rng(0)
    others = [one for one in content["annotations"] if one["category_id"] != 2]
    of_class = [
        {**others[0], "id": 1000 + number, "image_id": 1 + number % num_images, "category_id": 2, "iscrowd": 0}
        | {"bbox": [*draw.integers(0, 300, 2).tolist(), 20, 20], "area": 400}
        for number in range(20)
    ]
    path.write_text(json.dumps({**content, "annotations": others + of_class}))
    analysis = analyse(load_annotations(path), found_of(rows, load_annotations(path)), num_draws=50)
    assert math.isnan(analysis.classes[1].ap.low) != is_known
