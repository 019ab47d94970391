import numpy as np
import pytest
from support.evaluation_sets import random_set

from retinanet.coco.annotation_cache import load_annotations
from retinanet.coco.results import found_of
from retinanet.evaluation.analysis import analyse
from retinanet.evaluation.coco_table import evaluate
from retinanet.evaluation.compare import compare
from retinanet.evaluation.tide_errors import DUPLICATE
from retinanet.reports.analysis_text import comparison_lines


@pytest.fixture
def case(tmp_path):
    path, rows = random_set(tmp_path, seed=5)
    return load_annotations(path), rows


def test_a_file_against_itself(case):
    annotations, rows = case
    analyses = [analyse(annotations, found_of(rows, annotations), 100) for _ in range(2)]
    comparison = compare(*analyses, annotations)
    assert len(comparison.differences) == 2 + 3
    for one in comparison.differences:
        assert one.difference == (0, 0, 0)
        assert one.wins == 0.5
    assert not comparison.lost_more.any()
    assert (comparison.f1[0] == comparison.f1[1]).all()


def test_a_class_taken_away(case):
    annotations, rows = case
    rest = [row for row in rows if row["category_id"] != 2]
    analyses = [analyse(annotations, found_of(some, annotations), 100) for some in (rows, rest)]
    comparison = compare(*analyses, annotations)
    by_name = {one.name: one for one in comparison.differences}
    tables = [evaluate(annotations, found_of(some, annotations), "pycocotools") for some in (rows, rest)]
    ap = [table.precision[:, :, 1, 0, 2].mean() for table in tables]
    lost = by_name["AP of b"]
    assert (lost.a, lost.b) == pytest.approx(ap)
    assert lost.difference.value == pytest.approx(ap[1] - ap[0], abs=1e-12)
    assert lost.difference.high < 0
    assert by_name["AP of a"].difference == by_name["AP of c"].difference == (0, 0, 0)
    difference = tables[1].numbers[0] - tables[0].numbers[0]
    assert by_name["AP"].difference.value == pytest.approx(difference, abs=1e-12)
    assert by_name["AP"].wins < 0.05
    assert np.array_equal(comparison.lost_more, analyses[1].lost - analyses[0].lost)
    assert comparison.lost_more[DUPLICATE] < 0  # those of the class are gone
    assert (comparison.f1[1] < comparison.f1[0]).any()


def test_pairs_are_surer_than_two_intervals(case):
    """A small change for the better, the same on all images, is known although each number alone is not."""
    annotations, rows = case
    worse = [row for number, row in enumerate(rows) if number % 4]
    a, b = (analyse(annotations, found_of(some, annotations), 300) for some in (worse, rows))
    one = compare(a, b, annotations).differences[0]
    assert one.difference.value == pytest.approx(b.ap.value - a.ap.value)
    assert one.difference.high - one.difference.low < (a.ap.high - a.ap.low) + (b.ap.high - b.ap.low)
    assert one.wins > 0.8


def test_text(case):
    annotations, rows = case
    analyses = [analyse(annotations, found_of(some, annotations), 100) for some in (rows[::2], rows)]
    comparison = compare(*analyses, annotations)
    lines = comparison_lines(comparison, 100, 10)
    assert lines[1].split()[:3] == ["AP", f"{analyses[0].ap.value:.3f}", f"{analyses[1].ap.value:.3f}"]
    assert lines[-3] == "95% intervals in brackets, from 100 bootstrap draws of the 10 images, the same for both"
    assert lines[-2].startswith("The intervals cover other images of this kind, not other seeds: ")
    assert np.isfinite(comparison.f1).all()
    unsure = compare(*(analyse(annotations, found_of(rows, annotations), 0) for _ in range(2)), annotations)
    without = "\n".join(comparison_lines(unsure, 0, 10))
    assert "+0.000            -" in without
    assert "nan" not in without
    assert "interval" not in without


def test_wins_are_of_draws_around_the_difference(case):
    """The draws lie off the value by an amount that differs from file to file, which is no win of either."""
    annotations, rows = case
    one = analyse(annotations, found_of(rows, annotations), 10)
    a, b = (one._replace(drawn_means=np.full((2, 10), offset)) for offset in (0.25, 0.5))
    for difference in compare(a, b, annotations).differences[:2]:
        assert difference.wins == 0.5


def test_one_image_decides_nothing(case):
    """A draw without the only image in which the files differ is a tie, whatever shift the others get."""
    annotations, rows = case
    for only in (1, 2, 4):
        rest = [row for row in rows if row["image_id"] != only]
        a, b = (analyse(annotations, found_of(some, annotations), 200) for some in (rest, rows))
        one = compare(a, b, annotations).differences[0]
        ties = (a.drawn_means[0] == b.drawn_means[0]).mean()
        ahead = (a.drawn_means[0] < b.drawn_means[0]).mean() + ties / 2
        assert 0.2 < ties < 0.5
        assert one.wins == pytest.approx(ahead, abs=0.05)
        assert one.difference.low <= 0
