"""Correct result files stay as they are, and no correction lowers AP: tried on made-up detectors.

MUTATIONS=10000 in the environment makes as many of them.
"""

import os
from collections import Counter

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from made_up_detectors import made_up

from retinanet.coco.results import found_of
from retinanet.evaluation.coco_table import AP, evaluate, installed_backends
from retinanet.submission.corrections import WHOLE_COLUMNS
from retinanet.submission.fix import fix_results, rows_to_evaluate

CASES = settings(
    max_examples=int(os.environ.get("MUTATIONS", 100)),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SEEDS = st.integers(0, 2**40)
MOST = 100  # detections of a class in an image that COCO looks at


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("set")


def measure_of(annotations):
    return lambda rows: evaluate(annotations, found_of(rows, annotations), installed_backends()[0]).numbers[AP]


def ap_of(annotations, rows):
    return measure_of(annotations)(rows_to_evaluate(list(enumerate(rows)), annotations))


def box_of(row):
    return (row["image_id"], row["category_id"], *row["bbox"])


def place_of(row):
    return (row["image_id"], row["category_id"])


def literally_kept(rows):
    """The best of each class in each image: what is beyond them is a finding."""

    crowded = {place for place, count in Counter(map(place_of, rows)).items() if count > MOST}
    best = {
        place: sorted((row for row in rows if place_of(row) == place), key=lambda row: -row["score"])[:MOST]
        for place in crowded
    }
    return [row for row in rows if place_of(row) not in crowded or any(row is one for one in best[place_of(row)])]


def some_correct(seed, folder):
    """A set and a file of which not all rows are of a background class: those would be findings, one and all."""
    annotations, rows = made_up(seed, folder)
    assume(not rows or any(row["category_id"] in annotations.category_ids for row in rows))
    return annotations, rows


@CASES
@given(SEEDS)
def test_correct_files_stay(folder, seed):
    annotations, rows = some_correct(seed, folder)
    fixed = fix_results(rows, annotations)
    assert fixed.rows == literally_kept(rows)
    assert ap_of(annotations, fixed.rows) == ap_of(annotations, rows)


@CASES
@given(SEEDS)
def test_correct_files_stay_where_ap_decides(folder, seed):
    annotations, rows = some_correct(seed, folder)
    fixed = fix_results(rows, annotations, measure_of(annotations))
    dropped = [row for row in rows if not any(row is one for one in fixed.rows)]
    assert len(fixed.rows) + len(dropped) == len(rows)
    boxes, places = Counter(map(box_of, rows)), Counter(map(place_of, rows))
    assert all(boxes[box_of(row)] > 1 or places[place_of(row)] > MOST for row in dropped)
    assert ap_of(annotations, fixed.rows) >= ap_of(annotations, rows)


def changed(key, change):
    return lambda rows: [{**row, key: change(row)} for row in rows]


def corners(row):
    left, top, width, height = row["bbox"]
    return [left, top, left + width, top + height]


DAMAGES = {
    "ids too low": changed("category_id", lambda row: row["category_id"] - 1),
    "ids too high": changed("category_id", lambda row: row["category_id"] + 1),
    "corners": changed("bbox", corners),
    "scores from -0.05 to 1.05": changed("score", lambda row: 1.1 * row["score"] - 0.05),
    "scores a little above 1": changed("score", lambda row: row["score"] * 1.0009),
    "scores of no meaning": changed("score", lambda row: 1.0),
    "copies": lambda rows: [*rows, *map(dict, rows[::2])],
    "duplicates": lambda rows: [{**row, "score": row["score"] / 2} for row in rows[::2]] + rows,
    "boxes without area": lambda rows: [{**row, "bbox": [1, 1, 0, 5]} for row in rows[::3]] + rows,
    "NaN": lambda rows: [{**row, "score": float("nan")} for row in rows[::3]] + rows,
    "crowds": lambda rows: [{**row, "score": row["score"] * (1 - i / 64)} for row in rows for i in range(60)][:400],
}


@CASES
@given(SEEDS, st.lists(st.sampled_from(list(DAMAGES)), min_size=1, max_size=3, unique=True))
def test_no_fix_lowers_ap(folder, seed, names):
    annotations, rows = made_up(seed, folder)
    for name in names:
        rows = DAMAGES[name](rows)
    fixed = fix_results(rows, annotations, measure_of(annotations))
    before, after = ap_of(annotations, rows), ap_of(annotations, fixed.rows)
    assert after >= before
    told = [change.ap for change in fixed.changes]
    assert not told or (told[0][0], told[-1][1]) == (before, after)
    assert all(change.ap[0] <= change.ap[1] for change in fixed.changes if change.what not in WHOLE_COLUMNS)


def test_mistakes_are_still_corrected(folder):
    """Else the tests above would pass with nothing corrected at all."""
    made = Counter()
    for seed in range(100):
        annotations, rows = made_up(seed, folder)
        for name, what in (("ids too low", "category_id"), ("corners", "bbox written as"), ("copies", "rows written")):
            fixed = fix_results(DAMAGES[name](rows), annotations)
            made[name] += any(change.what.startswith(what) for change in fixed.changes)
    assert len(made) == 3
    assert min(made.values()) >= 5, made
