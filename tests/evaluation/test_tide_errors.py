import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from support.evaluation_sets import one_image, random_set, rows_of, untied_set

from retinanet.coco.annotation_cache import load_annotations
from retinanet.coco.results import found_of
from retinanet.evaluation.average_precision import mean_of_classes
from retinanet.evaluation.coco_table import coco_evaluation
from retinanet.evaluation.matches import evaluated, match_detections
from retinanet.evaluation.tide_errors import (
    BACKGROUND,
    BOTH,
    CLASS,
    DUPLICATE,
    ERROR_KINDS,
    LOCATION,
    MISSED,
    find_errors,
    lost_to_errors,
)

GOOD = (1, 0.9, 0, 0, 10, 10)


def errors_of(annotations, rows):
    found = evaluated(found_of(rows, annotations), annotations)
    matches = match_detections(found, annotations)
    errors = find_errors(matches, annotations)
    lost = lost_to_errors(found, matches, errors, annotations, np.ones((1, len(annotations.image_ids))))
    assert mean_of_classes(lost.classes.swapaxes(0, 1)) == pytest.approx(lost.mean, abs=1e-12)
    return errors, lost.mean[:, 0]


@pytest.mark.parametrize(
    ("wrong", "kind", "lost"),
    [
        # Two objects of class a, one of class b; the first is found. AP50 of a is 51 / 101, of b 0.
        ((2, 0.8, 50, 50, 10, 10), CLASS, {"wrong class": 25}),  # b at the second a: mended, a is found whole
        ((1, 0.8, 50, 50, 10, 4), LOCATION, {"badly placed": 25}),  # IoU 0.4 with the second a
        ((2, 0.8, 50, 50, 10, 4), BOTH, {}),  # the same with the wrong class: nothing to gain
        ((1, 0.8, 0, 0, 10, 9), DUPLICATE, {}),  # behind the only hit: costs nothing
        ((1, 0.8, 150, 150, 10, 10), BACKGROUND, {}),
        ((1, 0.8, 50, 50, 10, 10), -1, {}),  # right
    ],
)
def test_a_kind_each(tmp_path, wrong, kind, lost):
    annotations = one_image(tmp_path, [(1, 0, 0, 10, 10), (1, 50, 50, 10, 10), (2, 100, 100, 10, 10)])
    errors, numbers = errors_of(annotations, rows_of(GOOD, wrong))
    assert errors.kinds.tolist() == [-1, kind]
    second_is_missed = kind in (BOTH, DUPLICATE, BACKGROUND)
    for name, number in zip(ERROR_KINDS, numbers, strict=True):
        if name == "missed":  # b is never found, nor the second a where nothing is meant for it
            assert number == pytest.approx(1 / 2 + (25 / 101 if second_is_missed else 0), abs=1e-9)
        else:
            assert number == pytest.approx(lost.get(name, 0) / 101, abs=1e-9)
    assert errors.missed.tolist() == [False, second_is_missed, True]


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        ((1, 0.95, 50, 50, 10, 10), CLASS),  # a at the b
        ((1, 0.95, 0, 0, 10, 4), LOCATION),
        ((1, 0.95, 50, 50, 10, 4), BOTH),
        ((1, 0.95, 150, 150, 10, 10), BACKGROUND),
    ],
)
def test_what_a_better_score_costs(tmp_path, wrong, kind):
    """A false detection before the only hit halves class a's precision; taking it away gives that back."""
    annotations = one_image(tmp_path, [(1, 0, 0, 10, 10), (2, 50, 50, 10, 10)])
    errors, lost = errors_of(annotations, rows_of(GOOD, wrong))
    assert errors.kinds.tolist() == [kind, -1]
    wanted = np.zeros(6)
    wanted[kind] = 0.5 / 2  # of two classes
    wanted[kind if kind == CLASS else MISSED] += 1 / 2  # mended, it finds the b, which the others miss
    assert lost == pytest.approx(wanted, abs=1e-9)


def test_a_duplicate_before_another_hit(tmp_path):
    annotations = one_image(tmp_path, [(1, 0, 0, 10, 10), (1, 50, 50, 10, 10)])
    rows = rows_of(GOOD, (1, 0.8, 0, 0, 10, 9), (1, 0.7, 50, 50, 10, 10))
    errors, lost = errors_of(annotations, rows)
    assert errors.kinds.tolist() == [-1, DUPLICATE, -1]
    # Precision is 1 up to recall 0.5 (51 of 101 recalls), then 2/3.
    assert lost[DUPLICATE] == pytest.approx(50 / 101 / 3, abs=1e-9)
    assert np.delete(lost, DUPLICATE) == pytest.approx(0, abs=1e-9)


def test_only_the_best_of_those_meant_for_an_object_is_mended(tmp_path):
    annotations = one_image(tmp_path, [(1, 0, 0, 10, 10)])
    errors, lost = errors_of(annotations, rows_of((1, 0.5, 0, 0, 10, 4), (1, 0.6, 0, 0, 10, 3)))
    assert errors.kinds.tolist() == [LOCATION, LOCATION]
    assert lost[LOCATION] == pytest.approx(1)
    assert not errors.missed.any()


def tide_of(annotations, rows):
    """The algorithm of TIDE 1.0.1, written literally: the AP50 that mending each kind of error adds, by kind."""
    points, num_objects, errors = {}, Counter(), []
    for index, image_id in enumerate(annotations.image_ids.tolist()):
        truths, detections = tide_matched(annotations, index, [row for row in rows if row["image_id"] == image_id])
        num_objects.update(truth["class"] for truth in truths)
        points |= {
            one["name"]: (one["class"], one["score"], one["used"]) for one in detections if one["used"] is not None
        }
        errors += [tide_error(one, truths) for one in detections if not one["used"]]
        errors += [("missed", truth, None) for truth in truths if not truth["used"] and truth["best"] is None]
    base = tide_ap(points.values(), num_objects)
    return {kind: tide_ap(*mended(points, num_objects, errors, kind)) - base for kind in ERROR_KINDS}


def tide_matched(annotations, index, rows):
    """An image's objects and detections, top score first, with what they use: None for a detection in a crowd."""
    truths, crowds = [], []
    for place in range(annotations.first[index], annotations.first[index + 1]):
        truth = {"box": annotations.boxes[place], "class": annotations.labels[place], "best": None, "used": False}
        (crowds if annotations.crowds[place] else truths).append(truth)
    detections = [
        {"name": (index, place), "score": row["score"], "box": row["bbox"]}
        | {"class": annotations.category_ids.index(row["category_id"])}
        for place, row in enumerate(sorted(rows, key=lambda row: -row["score"]))
    ]
    for one in detections:
        one["ious"] = [plain_iou(one["box"], truth["box"]) for truth in truths]
        same = [one["class"] == truth["class"] for truth in truths]
        one["own"] = [iou * is_same for iou, is_same in zip(one["ious"], same, strict=True)]
        one["other"] = [iou * (not is_same) for iou, is_same in zip(one["ious"], same, strict=True)]
        left = [iou * (not truth["used"]) for iou, truth in zip(one["own"], truths, strict=True)]
        one["used"] = bool(truths) and max(left) >= 0.5
        if one["used"]:
            truths[left.index(max(left))]["used"] = True
        elif any(
            one["class"] == crowd["class"] and plain_iou(one["box"], crowd["box"], True) > 0.5 for crowd in crowds
        ):
            one["used"] = None
    return truths, detections


def tide_error(one, truths):
    """The error of a detection that is no hit: its kind, the detection, and the object that it can be mended to."""

    def meant(kind, truth):
        if truth["used"]:
            return kind, one, None
        if truth["best"] is None or truth["best"]["score"] < one["score"]:
            truth["best"] = one
        return kind, one, truth

    if not truths:
        return "background", one, None
    own, other = max(one["own"]), max(one["other"])
    if 0.1 <= own <= 0.5:
        return meant("badly placed", truths[one["own"].index(own)])
    if other >= 0.5:
        return meant("wrong class", truths[one["other"].index(other)])
    if own >= 0.5:
        return "duplicate", one, None
    return ("background" if max(one["ious"]) <= 0.1 else "both"), one, None


def mended(points, num_objects, errors, wanted):
    points, num_objects = dict(points), Counter(num_objects)
    for kind, one, truth in errors:
        if kind != wanted:
            continue
        if kind == "missed":
            num_objects[one["class"]] -= 1
            continue
        points.pop(one["name"], None)  # one in a crowd has none
        if truth is not None and truth["best"] is one:
            points[one["name"]] = truth["class"], one["score"], True
    return points.values(), num_objects


def tide_ap(points, num_objects):
    """The mean AP50 of the classes that have objects."""
    total = 0.0
    for label, count in num_objects.items():
        right = [is_right for of_class, _, is_right in sorted(points, key=lambda one: -one[1]) if of_class == label]
        hits = np.cumsum(right)
        precision = np.maximum.accumulate((hits / np.arange(1, len(right) + 1))[::-1])[::-1]
        places = np.searchsorted(hits / count, np.linspace(0, 1, 101), side="left")
        total += np.append(precision, 0)[places.clip(max=len(right))].mean()
    return total / len(num_objects)


def has_ties(annotations, rows):
    """Whether a detection could match two objects equally well: then TIDE matches the first of them, COCO the last."""
    for row in rows:
        index = annotations.image_ids.tolist().index(row["image_id"])
        of_image = slice(annotations.first[index], annotations.first[index + 1])
        objects = annotations.boxes[of_image][~annotations.crowds[of_image]]
        ious = [iou for box in objects if (iou := plain_iou(row["bbox"], box)) >= 0.5]
        if len(set(ious)) < len(ious):
            return True
    return False


def plain_iou(box, other, is_crowd=False):
    sides = [min(box[i] + box[i + 2], other[i] + other[i + 2]) - max(box[i], other[i]) for i in (0, 1)]
    shared = max(0, sides[0]) * max(0, sides[1])
    return shared / (box[2] * box[3] if is_crowd else box[2] * box[3] + other[2] * other[3] - shared)


def crowded_set(tmp_path, seed):
    """Untied detections in a set with large crowds of all classes over its objects: annotations and rows."""
    path, rows = random_set(tmp_path, seed=seed)
    draw = np.random.default_rng(seed)
    content = json.loads(path.read_text())
    for one in content["annotations"]:
        if one["iscrowd"]:
            one["bbox"] = [float(side) for side in (draw.integers(200), draw.integers(150), 200, 150)]
    path.write_text(json.dumps(content))
    for row in rows:
        row["score"] = float(draw.random(dtype=np.float32))
    return load_annotations(path), rows


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**31))
def test_with_crowds_it_is_tides(tmp_path, seed):
    annotations, rows = crowded_set(tmp_path, seed)
    assume(not has_ties(annotations, rows))
    _, lost = errors_of(annotations, rows)
    assert dict(zip(ERROR_KINDS, lost, strict=True)) == pytest.approx(tide_of(annotations, rows), abs=1e-9)


@pytest.mark.parametrize(
    ("objects", "kind"),
    [
        ([(1, 40, 40, 10, 4)], LOCATION),
        ([(2, 40, 40, 10, 10), (1, 100, 100, 10, 10)], CLASS),
        ([(1, 100, 100, 10, 10)], -1),  # nothing near it: the crowd excuses it
    ],
)
def test_a_detection_in_a_crowd_counts_where_it_could_find_an_object(tmp_path, objects, kind):
    annotations = one_image(tmp_path, objects, crowds=[(1, 0, 0, 60, 60)])
    errors, lost = errors_of(annotations, rows_of((1, 0.9, 40, 40, 10, 10)))
    assert errors.kinds.tolist() == [kind]
    assert errors.missed.tolist() == [kind == -1, *[True] * (len(objects) - 1), False]
    assert lost[[CLASS, LOCATION]] == pytest.approx([0.5 * (kind == CLASS), 1.0 * (kind == LOCATION)])


def test_a_detection_in_a_crowd_is_no_error_where_the_object_is_found(tmp_path):
    annotations = one_image(tmp_path, [(1, 40, 40, 10, 10)], crowds=[(1, 0, 0, 60, 60)])
    errors, lost = errors_of(annotations, rows_of((1, 0.8, 40, 40, 10, 10), (1, 0.9, 40, 40, 10, 4)))
    assert errors.kinds.tolist() == [-1, -1]
    assert lost == pytest.approx(0)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**31))
def test_hotcoco_finds_the_same(tmp_path, seed):
    """Where nothing is tied and no crowd is there: it takes crowds for objects."""
    annotations, rows = untied_set(tmp_path, seed)
    errors, lost = errors_of(annotations, rows)
    evaluation = coco_evaluation(annotations, found_of(rows, annotations), "hotcoco")
    evaluation.evaluate()
    theirs = evaluation.tide_errors()
    names = ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss")
    counts = [*np.bincount(errors.kinds + 1, minlength=6)[1:].tolist(), int(errors.missed.sum())]
    assert counts == [theirs["counts"][name] for name in names]
    assert lost == pytest.approx([theirs["delta_ap"][name] for name in names], abs=1e-9)


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        ((1, 0.8, 0, 0, 10, 5), LOCATION),  # IoU 0.5 with the a that is found: not yet a duplicate
        ((1, 0.8, 50, 50, 10, 1), LOCATION),  # 0.1 with the other a
        ((2, 0.8, 50, 50, 10, 5), CLASS),  # 0.5
        ((2, 0.8, 50, 50, 10, 1), BACKGROUND),  # 0.1
    ],
)
def test_an_iou_at_the_border_of_two_kinds(tmp_path, wrong, kind):
    annotations = one_image(tmp_path, [(1, 0, 0, 10, 10), (1, 50, 50, 10, 10)])
    rows = rows_of(GOOD, wrong)
    errors, lost = errors_of(annotations, rows)
    assert errors.kinds.tolist() == [-1, kind]
    assert dict(zip(ERROR_KINDS, lost, strict=True)) == pytest.approx(tide_of(annotations, rows), abs=1e-9)
