"""Mistakes are planted one to an object, found in a queue once each, and corrected to what they were."""

import json
from collections import Counter

import numpy as np
import pytest

from benchmarks.accuracy.label_mistakes import (
    CLASS_CHANGE,
    DELETION,
    KINDS,
    MOVED,
    decide,
    entries_of,
    hits_of,
    iou_of,
    measure,
    read_spoiled,
    write_spoiled,
)
from benchmarks.accuracy.label_rankings import average_precision, objectlab, softmin
from retinanet.coco.results import load_results

NUM = 4


@pytest.fixture
def clean(tmp_path):
    """A set of 30 images with two objects each."""
    folder = tmp_path / "clean"
    for name in ("train", "val"):
        (folder / "images" / name).mkdir(parents=True)
        images = [{"id": i, "file_name": f"{i}.png", "width": 200, "height": 100} for i in range(1, 31)]
        annotations = [
            {
                "id": 2 * i + side,
                "image_id": i,
                "category_id": 1 + (i + side) % 3,
                "bbox": [10 + 100 * side, 20, 60, 50],
            }
            for i in range(1, 31)
            for side in (0, 1)
        ]
        categories = [{"id": label, "name": f"class{label}"} for label in (1, 2, 3)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def spoiled(clean, tmp_path):
    write_spoiled(clean, tmp_path / "draw1", NUM, 1)
    return tmp_path / "draw1"


def test_each_mistake_is_in_another_object(clean, spoiled):
    before = {each["id"]: each for each in json.loads((clean / "train.json").read_text())["annotations"]}
    after = {each["id"]: each for each in json.loads((spoiled / "train.json").read_text())["annotations"]}
    mistakes = read_spoiled(spoiled).mistakes
    assert Counter(each["kind"] for each in mistakes) == dict.fromkeys(KINDS, NUM)
    assert len({each["annotation"]["id"] for each in mistakes}) == len(KINDS) * NUM
    for mistake in mistakes:
        old, identity = mistake["annotation"], mistake["annotation"]["id"]
        assert old == before.pop(identity)
        if mistake["kind"] == DELETION:
            assert identity not in after
        elif mistake["kind"] == CLASS_CHANGE:
            assert after[identity]["category_id"] != old["category_id"]
            assert after[identity]["bbox"] == old["bbox"]
        else:
            assert 0.25 < iou_of(np.array(after[identity]["bbox"]), old["bbox"]) < 0.6
    assert all(after[identity] == each for identity, each in before.items())


def a_queue(spoiled):
    """Suspects of label_suspects.json: each mistake twice, the deleted objects in two boxes."""
    suspects = []
    for mistake in read_spoiled(spoiled).mistakes:
        annotation, is_deleted = mistake["annotation"], mistake["kind"] == DELETION
        for shift in (2, 4):
            left, top, width, height = annotation["bbox"]
            box = [left + shift, top, width, height] if is_deleted else None
            identity = None if is_deleted else annotation["id"]
            suspects.append({"image_id": annotation["image_id"], "annotation_id": identity, "suggested_bbox": box})
    return suspects


def test_each_mistake_is_found_once(spoiled):
    read = read_spoiled(spoiled)
    hits = hits_of(entries_of(a_queue(spoiled), read), read)
    assert hits == [number for mistake in range(3 * NUM) for number in (mistake, None)]


def test_the_table_counts_what_is_found(spoiled):
    (spoiled / "label_check").mkdir()
    rows = [
        {"image_id": each["annotation"]["image_id"], "category_id": 1, "bbox": each["annotation"]["bbox"], "score": 0.5}
        for each in read_spoiled(spoiled).mistakes
    ]
    (spoiled / "label_check" / "train_bbox_results.json").write_text(json.dumps(rows))
    (spoiled / "label_check" / "label_suspects.json").write_text(json.dumps({"suspects": a_queue(spoiled)}))
    lines = measure([spoiled])
    assert lines[1].split() == ["draw1:", "check_labels", "0.500", "1.000", "1.00", "1.00", "1.00", "1.000"]
    assert [line.split(":")[1].split()[0].rstrip(",") for line in lines[1:]] == [
        *("check_labels", "naive", "ObjectLab", "hotcoco", "images"),
    ]


def test_what_is_found_among_the_first_is_corrected(clean, spoiled, tmp_path):
    (spoiled / "label_check").mkdir()
    (spoiled / "label_check" / "label_suspects.json").write_text(json.dumps({"suspects": a_queue(spoiled)}))
    assert decide(spoiled, tmp_path / "corrected") == 3 * NUM // 2
    before, after, wrong = (
        {each["id"]: each for each in json.loads((folder / "train.json").read_text())["annotations"]}
        for folder in (clean, tmp_path / "corrected", spoiled)
    )
    mistakes = read_spoiled(spoiled).mistakes
    found = {each["annotation"]["id"] for each in mistakes[: 3 * NUM // 2]}
    for identity, each in before.items():
        assert after.get(identity) == (each if identity in found else wrong.get(identity))
    assert [each["kind"] for each in mistakes[:NUM]] == [CLASS_CHANGE] * NUM
    assert mistakes[-1]["kind"] == MOVED


def test_the_average_precision_is_the_mean_over_the_wanted():
    assert average_precision(np.array([0.9, 0.5, 0.7, 0.1]), np.array([True, True, False, False])) == (1 + 2 / 3) / 2


def test_objectlab_rates_right_labels_best(clean, tmp_path):
    spoiled = read_spoiled_of(clean, tmp_path)
    annotations = spoiled.annotations
    rows = [
        {"image_id": each["image_id"], "category_id": each["category_id"], "bbox": each["bbox"], "score": 0.9}
        for each in json.loads((clean / "train.json").read_text())["annotations"]
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    qualities = objectlab(load_results(tmp_path / "rows.json", annotations), annotations, 0.3, 0.5)
    assert qualities[spoiled.is_spoiled].max() < qualities[~spoiled.is_spoiled].min()
    assert softmin(np.array([0.2, 0.2])) == pytest.approx(0.2)
    assert 0.2 < softmin(np.array([0.2, 0.3])) < 0.25


def read_spoiled_of(clean, tmp_path):
    write_spoiled(clean, tmp_path / "draw2", NUM, 2)
    return read_spoiled(tmp_path / "draw2")
