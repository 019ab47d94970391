import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_coco_table import untied_set
from test_matches import one_image, rows_of

from retinanet.coco.results import found_of
from retinanet.evaluation.coco_table import coco_evaluation
from retinanet.evaluation.matches import evaluated, match
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
    matches = match(found, annotations)
    errors = find_errors(matches, annotations)
    lost = lost_to_errors(found, matches, errors, annotations, np.ones((1, len(annotations.image_ids))))
    return errors, lost[:, 0]


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
