import numpy as np
import pytest

from retinanet.coco.annotation_cache import load_annotations
from retinanet.data.anchor_coverage import AnchorSetup, coverage
from retinanet.data.anchor_remedies import alternatives, mostly_missed, remedies
from retinanet.data.dataset import CocoDataset
from retinanet.detector.anchors import DEFAULT_SHAPES
from retinanet.detector.settings import DEFAULT_LOSS, LossSettings

SIDES = (96, 160)


@pytest.fixture
def set_of(make_set):
    def dataset(sizes, **labels):
        """An object of each (width, height) in its own image of 384 x 640, four times as large as the network sees."""
        boxes = [[[200 + number % 50, 90, 4 * width, 4 * height]] for number, (width, height) in enumerate(sizes)]
        path = make_set(boxes, size=(384, 640), **labels)
        return CocoDataset(load_annotations(path), path.parent, *SIDES)

    return dataset


def advice(dataset, loss=DEFAULT_LOSS, shapes=DEFAULT_SHAPES, **options):
    setup = AnchorSetup(*SIDES, shapes)
    return remedies(dataset, setup, loss, coverage(dataset, setup), **options)


def squares(sides):
    return [(side, side) for side in sides]


def test_larger_sides_come_first_then_anchors_then_a_forced_match(set_of):
    found = advice(set_of(squares([16] * 10 + [40] * 10)))
    assert [remedy.flags for remedy in found] == [
        "--min_side 144 --max_side 240",  # the smallest that matches nearly all
        "--anchor_scale 2",
        "--matcher low_quality",
    ]
    assert found[0].pixels == 2.25
    assert [remedy.pixels for remedy in found[1:]] == [1, 1]
    assert [remedy.coverage.missed for remedy in found] == [0, 0, 0]


def test_sides_that_do_not_suffice_come_with_other_anchors(set_of):
    found = advice(set_of(squares(np.linspace(6, 20, 40).tolist())))
    assert found[0].flags == "--min_side 192 --max_side 320 --anchor_scale 2"
    assert found[0].pixels == 4
    assert found[1].flags == "--anchor_scale 2"
    assert found[0].coverage.missed < 0.1 < found[1].coverage.missed


def test_long_objects_are_no_matter_of_sides(set_of):
    found = advice(set_of([(11, 66)] * 20))
    assert found[0].flags.startswith("--anchor_ratios")
    assert not any("--min_side" in remedy.flags for remedy in found)


def test_what_changes_little_is_not_named(set_of):
    assert advice(set_of(squares([40] * 96 + [8] * 4))) == []  # nothing can gain five points
    huge = set_of([(1, 1)] * 20)  # that nothing which is tried can match by IoU
    assert [remedy.flags for remedy in advice(huge)] == ["--matcher low_quality"]


def test_a_small_class_that_is_mostly_missed_counts(set_of):
    dataset = set_of(squares([40] * 980 + [16] * 20), labels=[0] * 980 + [1] * 20)
    now = coverage(dataset, AnchorSetup(*SIDES))
    assert now.missed == 0.02
    assert mostly_missed(now) == {1: 1.0}
    assert advice(dataset)[0].flags == "--min_side 144 --max_side 240"


def test_low_quality_is_no_remedy_for_itself_and_fixed_anchors_stay(set_of):
    dataset = set_of(squares([16] * 10 + [40] * 10))
    flags = [remedy.flags for remedy in advice(dataset, LossSettings(matcher="low_quality"), fixed_anchors=True)]
    assert flags == ["--min_side 144 --max_side 240"]


def test_alternatives_are_those_that_change_something_and_the_flags_take():
    names = alternatives(AnchorSetup(608, 1024))
    assert "--min_side 760 --max_side 1280" in names
    assert names["--anchor_scale 3"] == AnchorSetup(608, 1024, DEFAULT_SHAPES._replace(side=3))
    assert "--anchor_scale 3" not in alternatives(names["--anchor_scale 3"])
    assert all(other.min_side >= 64 for other in alternatives(AnchorSetup(64, 64)).values())


@pytest.mark.parametrize(("num_small", "is_mostly"), [(20, False), (21, True)])
def test_half_of_a_class_is_not_most_of_it(set_of, num_small, is_mostly):
    dataset = set_of(squares([16] * num_small + [40] * 20))
    assert bool(mostly_missed(coverage(dataset, AnchorSetup(*SIDES)))) == is_mostly


def test_the_smallest_side_that_the_flags_take_is_tried():
    assert "--min_side 64 --max_side 128" in alternatives(AnchorSetup(128, 256))
    assert "--min_side 63 --max_side 128" not in alternatives(AnchorSetup(126, 256))


def test_where_low_quality_matches_all_a_remedy_is_still_measured_by_iou(set_of):
    dataset = set_of(squares(np.linspace(3, 20, 20).tolist()))
    by_iou = advice(dataset)
    found = advice(dataset, LossSettings(matcher="low_quality"))
    assert [remedy.flags for remedy in found] == [remedy.flags for remedy in by_iou[:-1]]
    assert [remedy.coverage.missed for remedy in found] == [remedy.coverage.missed for remedy in by_iou[:-1]]
    assert found[0].coverage.missed > 0
