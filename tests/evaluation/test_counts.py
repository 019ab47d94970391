import math

import numpy as np
import pytest
from support.evaluation_sets import random_set

from retinanet.coco.annotation_cache import load_annotations
from retinanet.coco.annotations import owners_of
from retinanet.coco.results import found_of
from retinanet.evaluation.analysis import analyse
from retinanet.evaluation.counts import Counts, count_at
from retinanet.evaluation.tide_errors import ERROR_KINDS, MISSED


@pytest.fixture(scope="module", params=range(3))
def case(tmp_path_factory, request):
    path, rows = random_set(tmp_path_factory.mktemp("set"), seed=request.param)
    annotations = load_annotations(path)
    return annotations, analyse(annotations, found_of(rows, annotations), 0)


def counted_one_by_one(annotations, analysis, thresholds):
    """The counts of each class as [right, wrong, missed], of each kind and class, and on images without objects."""
    found, matches = analysis.found, analysis.matches
    by_class = [[0, 0, 0] for _ in annotations.class_names]
    kinds = {kind: [0] * len(annotations.class_names) for kind in range(MISSED)}
    images_with_objects, on_empty = set(owners_of(annotations).tolist()), 0
    reached = set()
    for row, label in enumerate(found.labels.tolist()):
        if not np.float32(found.scores[row]) > np.float32(thresholds[label]):
            continue
        if analysis.errors.kinds[row] >= 0:
            kinds[int(analysis.errors.kinds[row])][label] += 1
        if matches.hits[0, row]:
            by_class[label][0] += 1
            reached.add(int(matches.objects[row]))
        elif not matches.ignored[0, row]:
            by_class[label][1] += 1
            on_empty += int(found.images[row]) not in images_with_objects
    for place, label in enumerate(annotations.labels.tolist()):
        by_class[label][2] += not annotations.crowds[place] and place not in reached
    return (
        by_class,
        list(kinds.values()),
        on_empty / (len(annotations.image_ids) - len(images_with_objects) or math.nan),
    )


@pytest.mark.parametrize("threshold", [0, 0.05, 0.3, 0.5, 0.95, 1])
def test_counts_are_those_of_a_loop(case, threshold):
    annotations, analysis = case
    parts = analysis.found, analysis.matches, analysis.errors, annotations, threshold
    for own in (None, np.array([threshold, 0.25, 0.7])):
        counts = count_at(*parts, own)
        classes, kinds, on_empty = counted_one_by_one(annotations, analysis, [threshold] * 3 if own is None else own)
        assert np.stack(counts.classes, axis=1).tolist() == classes
        assert counts.errors.tolist() == kinds
        assert counts.false_positives_per_empty_image == pytest.approx(on_empty, nan_ok=True)
        assert (counts.confusion.table() == count_at(*parts).confusion.table()).all()
    assert len(counts.errors) == len(ERROR_KINDS) - 1


def test_the_threshold_of_the_best_f1_gives_the_best_f1(case):
    annotations, analysis = case
    counts = count_at(analysis.found, analysis.matches, analysis.errors, annotations, analysis.best.threshold)
    total = counts.classes.total()
    assert (total.f1[0], total.precision[0], total.recall[0]) == analysis.best[1:]
    own = np.array([numbers.best.threshold for numbers in analysis.classes])
    classes = count_at(analysis.found, analysis.matches, analysis.errors, annotations, 0.5, own).classes
    assert classes.f1.tolist() == [numbers.best.f1 for numbers in analysis.classes]


def test_shares_of_nothing_are_not_numbers():
    counts = Counts(np.array([0, 0, 1]), np.array([0, 2, 0]), np.array([0, 0, 3]))
    assert np.isnan(counts.precision).tolist() == [True, False, False]
    assert np.isnan(counts.recall).tolist() == [True, True, False]
    assert np.nan_to_num(counts.f1, nan=-1).tolist() == [-1, 0, 0.4]
