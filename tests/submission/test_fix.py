import json
import os
import re
from copy import deepcopy

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from support.result_rows import annotations_of, row

from retinanet.submission import corrections
from retinanet.submission.check import check_results
from retinanet.submission.fix import fix_results
from retinanet.submission.rows import cannot_be_as_written

NAN, INFINITY = float("nan"), float("inf")
DIGITS = 1 / 4096  # which makes of a round number one that no two detections have by chance
CATEGORY_IDS = (1, 3, 5)  # with gaps: an id that is off by one is none of them
CASES = settings(
    max_examples=int(os.environ.get("MUTATIONS", 200)),
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


def above_1(rows):
    return one(9, score=37.5)(one(0, score=-4)(rows))


def copies(rows):
    return [*rows, *(dict(other) for other in rows[:20] if 0 < other["score"] < 1)]


def halved_copies(rows):
    return [*rows, *({**other, "score": other["score"] / 2} for other in rows[1:20] if other["score"])]


# Damage to good_rows(): (what it does, the finding, the correction). Corrected, they are the good rows again, also
# after several of the damages in this order.
CORRECTED = {
    "score rounded up": (one(4, score=1.0000001), "score not a number from 0 to 1", "score slightly"),
    "score rounded down": (one(5, score=-1e-9), "score not a number from 0 to 1", "score slightly"),
    "a few scores far out": (above_1, "score not a number from 0 to 1", "score slightly or rarely"),
    "copies": (copies, "duplicates: the same", "rows written twice: all but the first dropped"),
    "crowd": (more(*(row(3, 5, (50, 20, 20, 30 + i), 0.2) for i in range(30))), "more than 100", "more than 100"),
    "ids too low": (every(category_id=lambda number: number - 1), "one too low", "category_id off by one"),
    "ids too high": (every(category_id=lambda number: number + 1), "one too high", "category_id off by one"),
    "corners": (every(bbox=corners), "bbox written as (x1, y1, x2, y2)", "bbox written as (x1, y1, x2, y2): now"),
    "flat boxes": (more(row(bbox=(1, 1, 0, 5)), row(bbox=(1, 1, 5, -2))), "bbox without a pos", "bbox without a pos"),
    "NaN in a box": (more(row(bbox=(1, NAN, 5, 5))), "bbox not four finite numbers", "NaN"),
    "infinite box": (more(row(2, bbox=(1, 1, INFINITY, 5))), "bbox not four finite numbers", "NaN"),
    "endless box": (more(row(2, bbox=(1, 1, 10**30, 5))), "bbox not four finite numbers", "NaN"),
    "NaN for a box": (more({**row(), "bbox": NAN}), "bbox not four finite numbers", "NaN"),
    "NaN as score": (more(row(score=NAN), row(2, score=-INFINITY)), "score not a number from 0 to 1", "NaN"),
    "keys": (lambda rows: [{"id": 7, **other, "area": NAN} for other in rows], None, "keys beyond"),
}

# Damage that only the user can fix: (what it does, the finding before and after, the note).
LEFT = {
    "no object": (more(5, None), "not an object", None),
    "no score": (more({"image_id": 1, "category_id": 1, "bbox": [1, 1, NAN, 0]}), "not an object", None),
    "another image": (more(row(9)), "image_id not in the set", None),
    "text as id": (more(row("1")), "image_id not in the set", None),
    "another category": (more(row(category_id=7)), "category_id not in the set", None),
    "no category": (more(row(category_id=None)), "category_id not in the set", None),
    "three numbers": (more(row(bbox=(1, 2, 3))), "bbox not four finite numbers", None),
    "texts": (more(row(bbox=("1", "2", "3", "4"))), "bbox not four finite numbers", None),
    "outside": (more(row(bbox=(100, 2, 9, 3))), "bbox outside of its image", None),
    "score None": (more(row(score=None)), "score not a number", None),
    "per cent": (every(score=lambda score: 100 * score), "score not a number", "of 120 scores are outside 0 to 1"),
    "logits": (every(score=lambda score: 10 * score - 5), "score not a number", "Clipping would tie them"),
    "duplicates": (halved_copies, "duplicates: the same", "duplicates: all but the best score dropped: not these 16"),
    "copies of round numbers": (more(row(), row()), "duplicates: the same", "not these 1 rows, since one box may be"),
    "copies without a score": (more(row(bbox=(1, 2, 3, 4), score=None), row(bbox=(1, 2, 3, 4))), "duplicates", None),
    "crowd of logits": (
        lambda rows: [*(row(3, 5, (50, 20, 20, 20 + i / 4), -2) for i in range(40)), *rows],
        "more than 100",
        "40 of 160 scores are outside 0 to 1",
    ),
}


@pytest.mark.parametrize("name", CORRECTED)
def test_corrected(name, annotations):
    damage, finding, what = CORRECTED[name]
    damaged = damage(good_rows())
    before = plain(damaged)
    found = [one.problem for one in check_results(damaged, annotations)]
    assert [finding in problem for problem in found] == ([] if finding is None else [True])
    fixed = fix_results(damaged, annotations)
    assert plain(damaged) == before
    assert fixed.rows == good_rows()
    assert not fixed.notes
    (change,) = fixed.changes
    assert change.what.startswith(what)
    changed = sum(good not in damaged for good in good_rows())
    assert change.num_rows == (changed or len(damaged) - len(good_rows()))
    assert len(change.examples) == min(change.num_rows, 3)
    assert all(re.match(r"row \d+ (has|had|repeated|was) ", example) for example in change.examples)


@pytest.mark.parametrize("name", LEFT)
def test_left_to_the_user(name, annotations):
    damage, finding, note = LEFT[name]
    damaged = damage(good_rows())
    fixed = fix_results(damaged, annotations)
    assert plain(fixed.rows) == plain(damaged)
    assert not fixed.changes
    assert any(finding in one.problem for one in check_results(fixed.rows, annotations))
    assert [note in one for one in fixed.notes] == ([] if note is None else [True])


@CASES
@given(names=st.sets(st.sampled_from(list(CORRECTED))), left=st.sampled_from([None, "no object", "another image"]))
def test_several_damages_at_once(names, left, annotations):
    damaged, good = good_rows(), good_rows()
    for name in CORRECTED:
        damaged = CORRECTED[name][0](damaged) if name in names else damaged
    if left:
        damaged, good = LEFT[left][0](damaged), LEFT[left][0](good)
    assume(left is None or not names & {"corners", "ids too low", "ids too high"})  # the row added is not of that form
    assert fix_results(damaged, annotations).rows == good


MANY = 12  # rows of each id


@pytest.mark.parametrize(
    ("category_ids", "used", "right"),
    [
        ((1, 2, 3), (0, 1, 2), None),  # all one too low, or a background and no object of the third class
        ((1, 2, 3), (0,), (1,)),
        ((1, 3, 7), (0, 1, 2), (1, 3, 7)),
        ((1, 3, 7), (0,), (1,)),  # off by one or counted from 0: the same
        ((1, 3, 7), (0, 2), None),  # 1 and 3, or 1 and 7
        ((1, 3, 7), (2, 8), (1, 7)),
        ((1, 3, 7), (1, 2, 3), (1, 3, 7)),  # counted from 1
        ((1, 3, 7), (1, 2), None),  # counted from 0 they are 3 and 7, from 1 they are 1 and 3
        ((0, 1, 2), (1, 2, 3), None),  # all one too high, or a background behind the classes
        ((0, 1, 2), (3,), (2,)),
        ((10, 20), (0, 1), (10, 20)),
        ((10, 20), (0, 2), None),
    ],
)
def test_category_ids(tmp_path, category_ids, used, right):
    rows = [row(1 + i % 3, number, (i, 6, 30, 40)) for number in used for i in range(MANY)]
    fixed = fix_results(rows, annotations_of(tmp_path, category_ids))
    assert [one["category_id"] for one in fixed.rows] == [number for number in right or used for _ in range(MANY)]


@pytest.mark.parametrize(
    ("num_valid", "odd", "right"),
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
def test_stray_ids_prove_nothing_about_the_others(num_valid, odd, right):
    numbers = [5] * num_valid + [number for number, count in odd.items() for _ in range(count)]
    rows = [(i, row(category_id=number)) for i, number in enumerate(numbers)]
    assert cannot_be_as_written(rows, [1, 5, 9, 13, 17]) == right


def test_a_background_class_proves_nothing_however_often_it_is_found():
    rows = [row(1 + i % 3, 0 if i % 9 else 2, (i / 9, 6, 30, 40)) for i in range(99)]
    assert not cannot_be_as_written(list(enumerate(rows)), [1, 2, 3])


def test_ids_that_fit_two_ways_are_told(tmp_path):
    rows = [row(category_id=0), row(2, category_id=2)]
    (note,) = fix_results(rows, annotations_of(tmp_path, (1, 3, 7))).notes
    assert note.startswith("category_id off by one: all are one too low, or category_id counts the classes from 0")


@pytest.mark.parametrize(("num_far", "clipped"), [(10, True), (11, False)])
def test_more_than_one_in_ten_scores_out_are_no_probabilities(annotations, num_far, clipped):
    rows = [row(bbox=(i / 4, 1, 5, 5), score=1.2 if i < num_far else 0.5) for i in range(100)]
    fixed = fix_results(rows, annotations)
    assert [one["score"] for one in fixed.rows[:num_far]] == [1.0 if clipped else 1.2] * num_far
    assert len(fixed.notes) == (not clipped)


def test_any_number_of_scores_may_be_out_by_rounding(annotations):
    rows = [row(bbox=(i / 4, 1, 5, 5), score=1.0005) for i in range(50)]
    assert {one["score"] for one in fix_results(rows, annotations).rows} == {1.0}


def test_a_file_of_nothing_but_damage_is_left_as_it_is(annotations):
    rows = [row(score=NAN), row(2, bbox=(1, 1, 0, 0))]
    fixed = fix_results(rows, annotations)
    assert (fixed.rows, fixed.changes) == (rows, [])
    assert "no row would be left" in fixed.notes[0]
    assert fix_results([], annotations) == ([], [], [])


@pytest.mark.parametrize("box", [None, 5, "1234", [0, 0, "1", 5]])
def test_rows_written_twice_whose_box_is_none_are_left_to_the_user(annotations, box):
    rows = [{**row(score=DIGITS), "bbox": box} for _ in range(2)]
    fixed = fix_results(rows, annotations)
    assert (fixed.rows, fixed.changes) == (rows, [])


def test_a_guess_that_would_be_made_twice_is_not_made(annotations):
    # Without the copies of one box, the others would be taken for corners.
    rows = [row(bbox=(10 + DIGITS, 10, 60, 75), score=DIGITS) for _ in range(40)]
    rows += [row(bbox=(40, 30, 95, 70 + i / 4)) for i in range(12)]
    fixed = fix_results(rows, annotations)
    assert (fixed.rows, fixed.changes) == (rows, [])
    assert "would look wrong in another way" in fixed.notes[0]


@pytest.mark.parametrize("name", ["corners", "ids too low", "score rounded up", "copies"])
def test_what_lowers_ap_is_not_done(name, annotations):
    damaged = CORRECTED[name][0](good_rows())
    fixed = fix_results(damaged, annotations, lambda rows: 0.25 if rows == good_rows() else 0.5)
    assert (fixed.rows, fixed.changes) == (damaged, [])
    assert fixed.notes[0].startswith(CORRECTED[name][2])
    assert fixed.notes[0].endswith("since AP would fall from 0.50000 to 0.25000.")


@pytest.mark.parametrize("name", CORRECTED)
def test_what_does_not_lower_ap_is_done(name, annotations):
    (change,) = fix_results(CORRECTED[name][0](good_rows()), annotations, lambda rows: 0.5).changes
    assert change.ap == (0.5, 0.5)


def test_two_wrong_columns_are_judged_together(annotations):
    damaged = CORRECTED["corners"][0](CORRECTED["ids too low"][0](good_rows()))
    # In the wrong classes boxes of the right size may hit less by chance than others do.
    aps = iter([0.02, 0.01, 0.9])
    fixed = fix_results(damaged, annotations, lambda rows: next(aps))
    assert fixed.rows == good_rows()
    assert [change.ap for change in fixed.changes] == [(0.02, 0.01), (0.01, 0.9)]


def test_two_columns_that_lower_ap_together_are_judged_alone(annotations):
    damaged = CORRECTED["corners"][0](CORRECTED["ids too low"][0](good_rows()))
    fixed = fix_results(damaged, annotations, lambda rows: 0.2 if rows != good_rows() else 0.1)
    (change,) = fixed.changes
    assert (change.what.startswith("bbox written as"), change.ap) == (True, (0.2, 0.2))
    assert fixed.notes[0].endswith("since AP would fall from 0.20000 to 0.10000.")


def test_duplicates_go_where_ap_does_not_fall(annotations):
    damaged = halved_copies(good_rows())
    assert fix_results(damaged, annotations, lambda rows: 0.5).rows == good_rows()
    assert fix_results(damaged, annotations, lambda rows: len(rows) / 200).rows == damaged


def test_what_ap_would_be_of_a_guess_is_told(annotations):
    rows = [row(category_id=3), row(2, category_id=2)]
    fixed = fix_results(rows, annotations, lambda rows: len(rows) / 4)
    assert (fixed.rows, fixed.changes) == (rows, [])
    assert fixed.notes[0].endswith(
        "? 1 of 2 rows have an id that is not in the set, which proves nothing about the others."
        " AP is 0.250; with category_id counts the classes from 1 it would be 0.500."
    )


MOST = 3  # detections of an image, in the tests below


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(corrections, "MAX_PER_CLASS", MOST)


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
def test_fixed_is_fixed(few, annotations, rows):
    before = deepcopy(rows)
    fixed = fix_results(rows, annotations)
    assert plain(rows) == plain(before)
    assert len(fixed.rows) <= len(rows)
    assert bool(fixed.changes) == (plain(fixed.rows) != plain(rows))
    again = fix_results(fixed.rows, annotations)
    assert not again.changes
    assert plain(again.rows) == plain(fixed.rows)


@CASES
@given(st.lists(GOOD, max_size=12))
def test_what_has_no_findings_stays(annotations, rows):
    assume(not check_results(rows, annotations))
    assert fix_results(rows, annotations) == (rows, [], [])


def literally_ranked(rows):
    """Each row once, but for round numbers, and the MOST best of each class and image; of equal ones the first."""

    def better(i, j):
        return rows[i]["score"] > rows[j]["score"] or (rows[i]["score"] == rows[j]["score"] and i < j)

    def same_place(i, j):
        return all(rows[i][key] == rows[j][key] for key in ("image_id", "category_id"))

    def round_numbers(i):
        return rows[i]["score"] in (0, 0.5, 1) or 10 + DIGITS not in rows[i]["bbox"]

    once = [i for i in range(len(rows)) if round_numbers(i) or rows[i] not in rows[:i]]
    rank = {i: sum(same_place(i, j) and better(j, i) for j in once) for i in once}
    return [rows[i] for i in once if rank[i] < MOST]


@CASES
@given(st.lists(GOOD, max_size=16))
def test_ranked_as_a_loop_does(few, annotations, rows):
    assert fix_results(rows, annotations).rows == literally_ranked(rows)
