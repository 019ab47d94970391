"""Correct result files, made up, are neither changed nor suspected; wrong columns are.

MUTATIONS=10000 in the environment makes as many of them.
"""

import os
from collections import Counter

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from made_up_detectors import made_up

from retinanet.submission.check import check_results
from retinanet.submission.fix import read_as, repair

MOST = 100  # detections of a class in an image that COCO looks at


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("set")


def place_of(row):
    return (row["image_id"], row["category_id"])


def literally_kept(rows):
    """Each row once, and the best of each class in each image."""
    once = [row for i, row in enumerate(rows) if row not in rows[:i]]
    crowded = {place for place, count in Counter(map(place_of, once)).items() if count > MOST}
    best = {
        place: sorted((row for row in once if place_of(row) == place), key=lambda row: -row["score"])[:MOST]
        for place in crowded
    }
    return [row for row in once if place_of(row) not in crowded or any(row is one for one in best[place_of(row)])]


def suspicions(rows, annotations):
    return [finding.problem for finding in check_results(rows, annotations) if finding.whole_column]


@settings(
    max_examples=int(os.environ.get("MUTATIONS", 100)),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.integers(0, 2**40))
def test_correct_files_stay(folder, seed):
    annotations, rows = made_up(seed, folder)
    # Rows that are all of a background class would be findings, one and all.
    assume(not rows or any(row["category_id"] in annotations.category_ids for row in rows))
    repaired, _ = repair(rows)
    assert repaired == literally_kept(rows)
    assert suspicions(repaired, annotations) == []


def corners(row):
    left, top, width, height = row["bbox"]
    return {**row, "bbox": [left, top, left + width, top + height]}


def test_wrong_columns_are_suspected_and_read_as_the_flags_say(folder):
    """Else the test above would pass with nothing suspected at all."""
    suspected = Counter()
    for seed in range(100):
        annotations, rows = made_up(seed, folder)
        damaged = [{**corners(row), "category_id": row["category_id"] - 1} for row in rows]
        problems = " ".join(suspicions(damaged, annotations))
        suspected.update(word for word in ("category_id off by one", "bbox written as") if word in problems)
        read = read_as(damaged, corners=True, category_offset=1)
        assert [row["category_id"] for row in read] == [row["category_id"] for row in rows]
        for one, other in zip(read, rows, strict=True):
            assert one["bbox"] == pytest.approx(other["bbox"])
    assert len(suspected) == 2
    assert min(suspected.values()) >= 5, suspected
