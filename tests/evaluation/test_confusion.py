import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from support.evaluation_sets import one_image, rows_of

from retinanet.coco.annotations import Annotations
from retinanet.coco.results import found_of
from retinanet.evaluation.analysis import analyse
from retinanet.evaluation.coco_table import evaluate
from retinanet.evaluation.confusion import Confusion, confusion_of
from retinanet.evaluation.matches import Found, evaluated, match_detections
from retinanet.reports.analysis_charts import confusion_chart
from retinanet.reports.analysis_text import analysis_lines
from retinanet.reports.metrics import metrics_of

MANY = 20_000  # classes: a table of them in int64 has 3.2 GB


def one_object_each(num_classes):
    """Annotations and detections of as many images, each with an object of its class that a detection hits."""
    labels, boxes = np.arange(num_classes), np.tile([0.0, 0.0, 10.0, 10.0], (num_classes, 1))
    annotations = Annotations(
        Path("many.json"),
        class_names=[f"class {label}" for label in labels],
        category_ids=labels.tolist(),
        image_ids=labels,
        file_names=labels.astype(bytes),
        sizes=np.full((num_classes, 2), 64),
        first=np.arange(num_classes + 1),
        boxes=boxes,
        labels=labels,
        crowds=np.zeros(num_classes, bool),
        areas=np.full(num_classes, 100.0),
    )
    return annotations, Found(labels, labels.copy(), np.full(num_classes, 0.5), boxes)


def test_the_pairs_and_their_table():
    confusion = Confusion(3, np.array([0, 0, 2, 3]), np.array([0, 3, 1, 2]), np.array([5, 1, 2, 4]))
    assert confusion.table().tolist() == [[5, 0, 0, 1], [0, 0, 0, 0], [0, 2, 0, 0], [0, 0, 4, 0]]
    assert confusion.table(np.array([0, 2])).tolist() == [[5, 0, 1], [0, 0, 0], [0, 4, 0]]
    between = confusion.between_classes()
    assert [part.tolist() for part in between[1:]] == [[2], [1], [2]]


def test_twenty_thousand_classes_take_no_table_of_their_square():
    annotations, found = one_object_each(MANY)
    few, found_few = one_object_each(2)
    rows = [{"image_id": 0, "category_id": 1, "bbox": found_few.boxes[0].tolist(), "score": 0.5}]
    analysis, table = analyse(few, found_of(rows, few), num_draws=0), evaluate(few, found_of(rows, few), "pycocotools")
    table = table._replace(precision=np.broadcast_to(table.precision[:, :, :1], (10, 101, MANY, 4, 3)))
    found.labels[:5] += 1  # each of the first five is taken for the next
    matches = match_detections(found, annotations)
    tracemalloc.start()
    try:
        confusion = confusion_of(found, matches, annotations, 0.4)
        many = analysis._replace(confusion=confusion, classes=analysis.classes * (MANY // 2))
        last = analysis_lines(many, MANY)[-1]
        told = metrics_of(many, table)["confusion"]
        confusion_chart(confusion, annotations.class_names, 0.5)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 50e6
    assert last.count("taken for") == 5
    assert told["pairs"][:6] == [*([label, label + 1, 1] for label in range(5)), [5, 5, 1]]
    assert "counts" not in told


@pytest.mark.parametrize(("num_classes", "drawn"), [(25, 25), (26, 25), (20_000, 25)])
def test_the_chart_of_many_classes_shows_those_most_confused(num_classes, drawn):
    true = np.arange(num_classes)
    confusion = Confusion(num_classes, true, (true + 1) % num_classes, true + 1)
    axis = confusion_chart(confusion, [f"class {label}" for label in true], 0.5).axes[0]
    names = [label.get_text() for label in axis.get_yticklabels()]
    assert len(names) == drawn + 1
    assert names[-2:] == [f"class {num_classes - 1}", "background"]
    assert ("most confused" in axis.get_title()) == (drawn < num_classes)
    shares = axis.images[0].get_array()
    assert shares.max() == 1


def test_what_a_crowd_holds_is_neither_on_background_nor_missed(tmp_path):
    annotations = one_image(tmp_path, [(1, 100, 100, 10, 10)], crowds=[(1, 0, 0, 50, 50)])
    rows = rows_of((1, 0.9, 0, 0, 10, 10), (2, 0.8, 5, 5, 10, 10))  # the second is of another class than the crowd
    found = evaluated(found_of(rows, annotations), annotations)
    confusion = confusion_of(found, match_detections(found, annotations), annotations, 0.5)
    assert confusion.table().tolist() == [[0, 0, 1], [0, 0, 0], [0, 1, 0]]
