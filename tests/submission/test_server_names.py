from pathlib import Path

import pytest

from retinanet.submission.server_names import COCO_SETS, name_findings

GOOD = "detections_val2017_retinanet_results"


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
