import json
import os
import re
from copy import deepcopy

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from support.result_rows import annotations_of, row

from retinanet.submission import fix
from retinanet.submission.check import check_results
from retinanet.submission.fix import possible_readings, read_as, repair

NAN, INFINITY = float("nan"), float("inf")
DIGITS = 1 / 4096
CATEGORY_IDS = (1, 3, 5)  # with gaps: an id that is off by one is none of them
CASES = settings(
    max_examples=int(os.environ.get("MUTATIONS", 100)),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def annotations(tmp_path_factory):
    return annotations_of(tmp_path_factory.mktemp("set"), CATEGORY_IDS)


def good_rows():
    """Boxes that would stick out far if their corners were taken for sizes; image 3 is full of the last class."""
    scores = (0, 0.25 + DIGITS, 0.5 + DIGITS, 0.75 + DIGITS, 1)
    few = [row(1 + i % 2, CATEGORY_IDS[i % 3], (40 + i, 20 + DIGITS, 30, 50), scores[i % 5]) for i in range(20)]
    return few + [row(3, 5, (i / 4 + DIGITS, 30, 70, 45), 0.25 + DIGITS + i / 256) for i in range(100)]


def plain(rows):
    """What JSON says of rows, in which NaN equals itself."""
    return json.dumps(rows)


def every(**changes):
    """Damage to all rows: each key's function of the row's value."""
    return lambda rows: [{**one, **{key: change(one[key]) for key, change in changes.items()}} for one in rows]


def one(index, **changes):
    return lambda rows: [{**other, **changes} if i == index else other for i, other in enumerate(rows)]


def more(*added):
    """Damage by rows that are put in, the first one at the front."""
    return lambda rows: [*added[:1], *rows, *added[1:]]


def corners(box):
    left, top, width, height = box
    return [left, top, left + width, top + height]


def copies(rows):
    return [*rows, *(dict(other) for other in rows[:20] if 0 < other["score"] < 1)]


def halved_copies(rows):
    return [*rows, *({**other, "score": other["score"] / 2} for other in rows[1:20] if other["score"])]


# Damage to good_rows(): (what it does, the finding, the repair). Repaired, they are the good rows again, also after
# several of the damages in this order.
REPAIRED = {
    "score rounded up": (one(4, score=1.0000001), "score not a number from 0 to 1", "score outside 0 to 1"),
    "score rounded down": (one(5, score=-1e-9), "score not a number from 0 to 1", "score outside 0 to 1"),
    "copies": (copies, "duplicates: the same", "rows written twice: all but the first dropped"),
    "crowd": (more(*(row(3, 5, (50, 20, 20, 30 + i), 0.2) for i in range(30))), "more than 100", "more than 100"),
    "flat boxes": (more(row(bbox=(1, 1, 0, 5)), row(bbox=(1, 1, 5, -2))), "bbox without a pos", "bbox without a pos"),
    "NaN in a box": (more(row(bbox=(1, NAN, 5, 5))), "bbox not four finite numbers", "NaN"),
    "infinite box": (more(row(2, bbox=(1, 1, INFINITY, 5))), "bbox not four finite numbers", "NaN"),
    "endless box": (more(row(2, bbox=(1, 1, 10**30, 5))), "bbox not four finite numbers", "NaN"),
    "NaN for a box": (more({**row(), "bbox": NAN}), "bbox not four finite numbers", "NaN"),
    "NaN as score": (more(row(score=NAN), row(2, score=-INFINITY)), "score not a number from 0 to 1", "NaN"),
    "keys": (lambda rows: [{"id": 7, **other, "area": NAN} for other in rows], None, "keys beyond"),
}

# Damage that no repair touches: (what it does, the finding before and after).
LEFT = {
    "no object": (more(5, None), "not an object"),
    "no score": (more({"image_id": 1, "category_id": 1, "bbox": [1, 1, NAN, 0]}), "not an object"),
    "another image": (more(row(9)), "image_id not in the set"),
    "text as id": (more(row("1")), "image_id not in the set"),
    "another category": (more(row(category_id=7)), "category_id not in the set"),
    "no category": (more(row(category_id=None)), "category_id not in the set"),
    "three numbers": (more(row(bbox=(1, 2, 3))), "bbox not four finite numbers"),
    "texts": (more(row(bbox=("1", "2", "3", "4"))), "bbox not four finite numbers"),
    "outside": (more(row(bbox=(100, 2, 9, 3))), "bbox outside of its image"),
    "score None": (more(row(score=None)), "score not a number"),
    "a score far out": (one(9, score=37.5), "score not a number"),
    "duplicates": (halved_copies, "duplicates: the same"),
    "copies without a score": (more(row(bbox=(1, 2, 3, 4), score=None), row(bbox=(1, 2, 3, 4))), "duplicates"),
}

# Damage to a whole column: (what it does, the finding, the reading that undoes it).
COLUMNS = {
    "ids too low": (every(category_id=lambda number: number - 1), "one too low", "--category_offset 1"),
    "ids too high": (every(category_id=lambda number: number + 1), "one too high", "--category_offset -1"),
    "class numbers": (every(category_id=CATEGORY_IDS.index), "counts the classes from 0", "where category_id counts"),
    "corners": (every(bbox=corners), "bbox written as (x1, y1, x2, y2)", "--boxes corners"),
    "fractions": (every(bbox=lambda box: [number / 1000 for number in box]), "bbox in fractions", None),
    "percentages": (every(score=lambda score: 100 * score), "score not a number", None),
    "logits": (every(score=lambda score: 10 * score - 5), "score not a number", None),
    "other images": (every(image_id=lambda number: number + 2), "image_id not in the set", None),
}


@pytest.mark.parametrize("name", REPAIRED)
def test_repaired(name, annotations):
    damage, finding, what = REPAIRED[name]
    damaged = damage(good_rows())
    before = plain(damaged)
    problems = [one.problem for one in check_results(damaged, annotations)]
    assert [finding in problem for problem in problems] == ([] if finding is None else [True])
    rows, (change,) = repair(damaged)
    assert plain(damaged) == before
    assert rows == good_rows()
    assert change.what.startswith(what)
    changed = sum(good not in damaged for good in good_rows())
    assert change.num_rows == (changed or len(damaged) - len(good_rows()))
    assert len(change.examples) == min(change.num_rows, 3)
    assert all(re.match(r"row \d+ (has|had|also had|repeated|was) ", example) for example in change.examples)


@pytest.mark.parametrize("name", LEFT)
def test_left_to_the_user(name, annotations):
    damage, finding = LEFT[name]
    damaged = damage(good_rows())
    rows, changes = repair(damaged)
    assert (plain(rows), changes) == (plain(damaged), [])
    findings = [one for one in check_results(rows, annotations) if finding in one.problem]
    assert findings
    assert not any(one.whole_column for one in findings)


@pytest.mark.parametrize("name", COLUMNS)
def test_whole_columns_are_reported(name, annotations):
    damage, problem, meaning = COLUMNS[name]
    damaged = damage(good_rows())
    findings = [one for one in check_results(damaged, annotations) if one.whole_column]
    assert [problem in one.problem for one in findings] == [True]
    readings = {reading.name: reading.rows for reading in possible_readings(damaged, annotations)}
    assert readings.pop("as given") == damaged
    assert [rows for name, rows in readings.items() if meaning and name.startswith(meaning)] == [good_rows()] * (
        meaning is not None
    )


def test_two_wrong_columns(annotations):
    damaged = COLUMNS["corners"][0](COLUMNS["ids too low"][0](good_rows()))
    readings = {reading.name: reading.rows for reading in possible_readings(damaged, annotations)}
    assert list(readings) == [
        "as given",
        "--category_offset 1",
        "--boxes corners",
        "--boxes corners --category_offset 1",
    ]
    assert readings["--boxes corners --category_offset 1"] == good_rows()


def test_rows_are_read_as_the_flags_say(annotations):
    damaged = [5, *COLUMNS["corners"][0](COLUMNS["ids too high"][0](good_rows())), row(category_id=None, bbox=(1, 2))]
    before = plain(damaged)
    rows = read_as(damaged, corners=True, category_offset=-1)
    assert rows == [5, *good_rows(), row(category_id=None, bbox=(1, 2))]
    assert plain(damaged) == before
    assert read_as(damaged, corners=False, category_offset=0) == damaged


@CASES
@given(names=st.sets(st.sampled_from(list(REPAIRED))), left=st.sampled_from([None, "no object", "another image"]))
def test_several_damages_at_once(names, left, annotations):
    damaged, good = good_rows(), good_rows()
    for name in REPAIRED:
        damaged = REPAIRED[name][0](damaged) if name in names else damaged
    if left:
        damaged, good = LEFT[left][0](damaged), LEFT[left][0](good)
    assert repair(damaged)[0] == good


MANY = 12  # rows of each id


@pytest.mark.parametrize(
    ("category_ids", "used", "right", "is_sure"),
    [
        ((1, 2, 3), (0, 1, 2), [(1, 2, 3)], False),  # or a background and no object of the third class
        ((1, 2, 3), (0,), [(1,)], True),
        ((1, 3, 7), (0, 1, 2), [(1, 3, 7)], True),
        ((1, 3, 7), (0,), [(1,)], True),  # off by one or counted from 0: the same
        ((1, 3, 7), (0, 2), [(1, 3), (1, 7)], True),
        ((1, 3, 7), (2, 8), [(1, 7)], True),
        ((1, 3, 7), (1, 2, 3), [(1, 3, 7)], True),  # counted from 1
        ((1, 3, 7), (1, 2), [(3, 7), (1, 3)], True),  # counted from 0 or from 1
        ((0, 1, 2), (1, 2, 3), [(0, 1, 2)], False),  # or a background behind the classes
        ((0, 1, 2), (3,), [(2,)], True),
        ((10, 20), (0, 1), [(10, 20)], True),
        ((10, 20), (0, 2), [], True),
        ((1, 2, 3), (1, 3), [], False),
    ],
)
def test_category_ids(tmp_path, category_ids, used, right, is_sure):
    annotations = annotations_of(tmp_path, category_ids)
    rows = [row(1 + i % 3, number, (i, 6, 30, 40)) for number in used for i in range(MANY)]
    _, *others = possible_readings(rows, annotations)
    assert [[one["category_id"] for one in other.rows[::MANY]] for other in others] == [list(ids) for ids in right]
    assert any(finding.whole_column for finding in check_results(rows, annotations)) == is_sure


@pytest.mark.parametrize(
    ("num_valid", "odd", "is_sure"),
    [
        (20, {2: 9}, False),  # too few to prove anything
        (100, {2: 11}, False),  # a tenth
        (100, {2: 12}, True),
        (500, {2: 12}, False),
        (500, {2: 6, 3: 6}, False),
        (500, {2: 4, 3: 4, 4: 4}, True),  # no detector has three strays so often
        (5000, {2: 4, 3: 4, 4: 4}, False),
    ],
)
def test_stray_ids_prove_nothing_about_the_others(tmp_path, num_valid, odd, is_sure):
    numbers = [5] * num_valid + [number for number, count in odd.items() for _ in range(count)]
    rows = [row(category_id=number, bbox=(i / 99, 2, 9, 9)) for i, number in enumerate(numbers)]
    findings = check_results(rows, annotations_of(tmp_path, (1, 5, 9, 13, 17)))
    assert any(one.whole_column for one in findings if "category_id" in one.problem) == is_sure


def test_a_background_class_proves_nothing_however_often_it_is_found(tmp_path):
    rows = [row(1 + i % 3, 0 if i % 9 else 2, (i / 9, 6, 30, 40)) for i in range(99)]
    (finding,) = check_results(rows, annotations_of(tmp_path, (1, 2, 3)))
    assert not finding.whole_column


@pytest.mark.parametrize(("num_far", "is_column"), [(10, False), (11, True)])
def test_more_than_one_in_ten_scores_out_are_no_probabilities(annotations, num_far, is_column):
    rows = [row(bbox=(i / 4, 1, 5, 5), score=1.2 if i < num_far else 0.5) for i in range(100)]
    (finding,) = check_results(rows, annotations)
    assert finding.whole_column == is_column


def test_any_number_of_scores_may_be_out_by_rounding():
    rows = [row(bbox=(i / 4, 1, 5, 5), score=1.0005) for i in range(50)]
    assert {one["score"] for one in repair(rows)[0]} == {1.0}


MOST = 3  # detections of an image, in the tests below


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(fix, "MAX_PER_CLASS", MOST)


def some_rows(image_ids, category_ids, numbers, scores):
    box = st.lists(st.sampled_from(numbers), min_size=4, max_size=4)
    keys = {"image_id": image_ids, "category_id": category_ids, "score": scores}
    return st.fixed_dictionaries({**{key: st.sampled_from(values) for key, values in keys.items()}, "bbox": box})


GOOD = some_rows((1, 2, 3), CATEGORY_IDS, (10 + DIGITS, 20, 40), (0, 0.25 + DIGITS, 0.5, 0.5 + DIGITS, 1))
WILD = some_rows(
    (1, 2, 9, "1", True, None),
    (1, 2, 3, None, "1", [], 1.0),
    (0, -5, 10, 40, 90.5, NAN, INFINITY, 2e15, "1", None),
    (0.5, 1, -0.0, 1.0001, 40, -3, NAN, None, "0.5", True, 10**400),
)
SHIFTED = some_rows((1, 2), (0, 1, 2, 4), (0, 20, 45, 60, 75), (0.1, 0.5, 1.5))
BROKEN = st.sampled_from([5, None, [], {}, {"bbox": []}, {**row(), "area": NAN, "caption": "a"}])


@CASES
@given(st.one_of(st.lists(st.one_of(GOOD, WILD, BROKEN), max_size=20), st.lists(SHIFTED, max_size=20), st.lists(GOOD)))
def test_fixed_is_fixed(few, rows):
    before = deepcopy(rows)
    repaired, changes = repair(rows)
    assert plain(rows) == plain(before)
    assert len(repaired) <= len(rows)
    assert bool(changes) == (plain(repaired) != plain(rows))
    again, changes = repair(repaired)
    assert not changes
    assert plain(again) == plain(repaired)


@CASES
@given(st.lists(GOOD, max_size=12))
def test_rows_without_findings_are_unchanged(annotations, rows):
    assume(not check_results(rows, annotations))
    assert repair(rows) == (rows, [])


def literally_ranked(rows):
    """Each row once, and the MOST best of each class and image; of equal ones the first."""

    def better(i, j):
        return rows[i]["score"] > rows[j]["score"] or (rows[i]["score"] == rows[j]["score"] and i < j)

    def same_place(i, j):
        return all(rows[i][key] == rows[j][key] for key in ("image_id", "category_id"))

    once = [i for i in range(len(rows)) if rows[i] not in rows[:i]]
    rank = {i: sum(same_place(i, j) and better(j, i) for j in once) for i in once}
    return [rows[i] for i in once if rank[i] < MOST]


@CASES
@given(st.lists(GOOD, max_size=16))
def test_ranked_as_a_loop_does(few, rows):
    assert repair(rows)[0] == literally_ranked(rows)
