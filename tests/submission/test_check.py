from pathlib import Path

import pytest
from support.result_rows import annotations_of, row

from retinanet.submission.check import COCO_SETS, check_results, images_without_detection, name_findings

GOOD = "detections_val2017_retinanet_results"


@pytest.fixture
def annotations(tmp_path):
    return annotations_of(tmp_path)


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [row(), row(2), row(2, 3, (0, 0, 100, 80), 1.0), row(3, score=0)],
        [row(bbox=(-5, -5, 30, 30)), row(bbox=(90, 70, 20, 20))],  # over the border, but touching
        [{**row(), "segmentation": []}],
        [row(category_id=1 + i % 3, bbox=(i / 10, 1, 5, 5)) for i in range(300)],  # 100 of each class
        [row(bbox=(0.1, 0.2, 0.3, 0.9)), row(2)],  # a tiny one
    ],
)
def test_good(rows, annotations):
    assert check_results(rows, annotations) == []


@pytest.mark.parametrize(
    ("rows", "words", "count", "example"),
    [
        ({"annotations": []}, "a JSON dict, not a list", 1, None),
        ([row(), 5, row(2)], "not an object with the keys", 1, "row 1 is 5"),
        ([{"image_id": 1, "bbox": [1, 1, 2, 2]}], "not an object with the keys", 1, "row 0 has no category_id, score"),
        ([row(), row(9)], "image_id not in the set", 1, "row 1 has image_id 9"),
        ([row("1")], "image_id not in the set", 1, "row 0 has image_id '1'"),
        ([row([1])], "image_id not in the set", 1, "row 0 has image_id [1]"),
        ([row(category_id=1), row(2, category_id=7)], "category_id not in the set", 1, "row 1 has category_id 7"),
        ([row(category_id=True)], "category_id not in the set", 1, "row 0 has category_id True"),
        ([row(category_id=i) for i in (0, 1, 2)], "category_id not in the set", 1, "row 0 has category_id 0"),
        ([row(category_id=0), row(2, 0)], "off by one: all are one too low", 2, "row 0 has category_id 0"),
        ([row(category_id=4), row(2, 4)], "off by one: all are one too high", 2, "row 0 has category_id 4"),
        ([row(bbox=(1, 2, 3))], "bbox not four finite numbers", 1, "row 0 has bbox [1, 2, 3]"),
        ([row(bbox=(1, 2, float("nan"), 3))], "bbox not four finite numbers", 1, "row 0 has bbox [1, 2, nan, 3]"),
        ([row(bbox=(1, 2, 0, 3))], "bbox without a positive width", 1, "row 0 has bbox [1, 2, 0, 3]"),
        ([row(), row(2, bbox=(100, 2, 9, 3))], "bbox outside of its image", 1, "row 1 bbox [100, 2, 9, 3] in an image"),
        (
            [row(bbox=(0.1, 0.2, 0.3, 0.9)), row(2, bbox=(0, 0, 1, 1))],
            "bbox in fractions of the image's sides",
            2,
            "row 0 bbox",
        ),
        ([row(score=1.5), row(2, score=-0.1)], "score not a number from 0 to 1", 2, "row 0 has score 1.5"),
        ([row(score=float("nan"))], "score not a number from 0 to 1", 1, "row 0 has score nan"),
        ([row(score=None)], "score not a number from 0 to 1", 1, "row 0 has score None"),
        (
            [row(category_id=2, bbox=(i / 10, 1, 5, 5)) for i in range(101)],
            "more than 100 detections of a class",
            1,
            "image 1 has 101 of category 2",
        ),
        ([row(), row(2), row(score=0.4)], "duplicates", 1, "row 2 repeats row 0"),
        ([row(), row(bbox=(5.0, 6.0, 30.0, 40.0))], "duplicates", 1, "row 1 repeats row 0"),
    ],
)
def test_findings(rows, words, count, example, annotations):
    (finding,) = check_results(rows, annotations)
    assert words in finding.problem
    assert finding.num_rows == count
    assert finding.fix
    assert example is None or finding.examples[0].startswith(example)


def test_corners_given_as_sizes_are_recognised(annotations):
    corners = [(60, 40, 95, 75), (10, 10, 30, 30), (50, 50, 100, 80), (2, 3, 90, 80)]
    moved = [(x1 + i / 100, y1, x2, y2) for i in range(5) for x1, y1, x2, y2 in corners]
    (finding,) = check_results([row(bbox=box) for box in moved], annotations)
    assert finding.problem == "bbox written as (x1, y1, x2, y2)"
    assert finding.num_rows == 15
    assert "x2 - x1" in finding.fix
    sizes = [(x1, y1, x2 - x1, y2 - y1) for x1, y1, x2, y2 in moved]
    assert check_results([row(bbox=box) for box in sizes], annotations) == []


@pytest.mark.parametrize(
    "boxes",
    [
        [(2 + i / 10, 3, 97, 78) for i in range(90)],  # large, and over the border by up to 10 pixels
        [(60, 40, 95, 75 + i) for i in range(5)],  # far over it, but few
        [(60, 40, 95, 75 - i / 10) for i in range(30)] + [(1, 1 + i, 20, 20 + i) for i in range(70)],  # not most
    ],
)
def test_boxes_over_the_border_are_no_corners(boxes, annotations):
    assert check_results([row(bbox=box) for box in boxes], annotations) == []


def test_one_box_that_was_not_clipped_does_not_hide_it(annotations):
    corners = [(10 + i, 40, 60 + i, 75) for i in range(40)]
    findings = check_results([row(bbox=box) for box in [*corners, (5, 5, 120, 70)]], annotations)
    assert [finding.problem for finding in findings] == ["bbox written as (x1, y1, x2, y2)"]


@pytest.mark.parametrize("first", [0, 1])
def test_labels_written_for_category_ids_with_gaps(tmp_path, first):
    rows = [row(category_id=first + i % 3, bbox=(i, 2, 9, 9)) for i in range(36)]
    (finding,) = check_results(rows, annotations_of(tmp_path, (1, 3, 7)))
    assert finding.problem == f"category_id counts the classes from {first}"
    assert finding.num_rows == 36
    assert "[1, 3, 7]" in finding.fix


def test_a_stray_id_is_a_finding_of_its_own_rows(annotations):
    rows = [row(category_id=1 + i % 2, bbox=(i / 9, 2, 9, 9)) for i in range(90)]
    (finding,) = check_results([*rows, row(category_id=0)], annotations)
    assert (finding.problem, finding.num_rows) == ("category_id not in the set", 1)
    assert "Or is it: category_id off by one: all are one too low?" in finding.fix


def test_only_a_few_examples_of_many(annotations):
    (finding,) = check_results([row(9, bbox=(i, 0, 5, 5)) for i in range(50)], annotations)
    assert finding.num_rows == 50
    assert len(finding.examples) == 3


def test_several_kinds_at_once(annotations):
    findings = check_results([row(9), row(score=3), {}], annotations)
    assert len(findings) == 3


def test_images_without_a_detection(annotations):
    assert images_without_detection([row(2)], annotations) == [1, 3]


@pytest.mark.parametrize(
    ("name", "member", "set_name", "example"),
    [
        (f"{GOOD}.json", None, "val2017", None),
        (f"out/{GOOD}.zip", f"{GOOD}.json", "val2017", None),
        ("detections_test-dev2017_my_net-v1.5_results.zip", None, "test-dev2017", None),
        ("val_bbox_results.json", None, "val", None),  # no set of COCO's: any name
        ("any.zip", "other.json", "val2017mini", None),
        ("val2017_bbox_results.json", None, "val2017", None),  # not handed in yet
        ("val2017_bbox_results.zip", None, "val2017", "the file is called val2017_bbox_results.zip"),
        (f"{GOOD}.zip", None, "test-dev2017", f"the file is called {GOOD}.zip"),
        ("detections_test-dev2017_a_results.zip", None, "test2017", "the file is called detections_test-dev2017_a"),
        ("detections_val2017__results.zip", None, "val2017", "the file is called"),
        ("detections_val2017_my net_results.zip", None, "val2017", "the file is called"),
        ("detections_val2017_a_results.ZIP", None, "val2017", "the file is called"),
        (f"{GOOD}.zip", "detections_val2017_other_results.json", "val2017", f"{GOOD}.zip holds detections_val2017_oth"),
        (f"{GOOD}.zip", f"results/{GOOD}.json", "val2017", f"{GOOD}.zip holds results/"),
    ],
)
def test_names(name, member, set_name, example):
    findings = name_findings(Path(name), member, set_name)
    assert len(findings) == (example is not None)
    for finding in findings:
        assert finding.problem == "file name that COCO's evaluation server doesn't accept"
        assert finding.examples[0].startswith(example)
        assert f"detections_{set_name}_ALGORITHM_results.zip" in finding.fix
        assert not finding.unusable


def test_both_names_wrong():
    (finding,) = name_findings(Path("a.zip"), "b.json", "val2017")
    assert (finding.num_rows, len(finding.examples)) == (2, 2)


def test_the_sets_of_the_server():
    assert {"val2017", "test2017", "test-dev2017", "test-challenge2017"} < set(COCO_SETS)


def test_true_is_not_1_among_duplicates(annotations):
    findings = check_results([row(True), row(1), row([1])], annotations)
    assert ["duplicates" in finding.problem for finding in findings] == [False]
