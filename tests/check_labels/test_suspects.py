"""Mistakes planted in a made-up set are the first suspects of a detector that has not seen them, each by its kind."""

import json

import numpy as np
import pytest

from retinanet.check_labels.planted import BADLY_PLACED, NO_OBJECT, TWICE, WRONG_CLASS, planted_in
from retinanet.check_labels.suspects import KINDS, MISSING, rated_images, suspects_in
from retinanet.check_labels.suspects_file import SUSPECTS, summary_lines, suspects_content, write_suspects
from retinanet.coco.annotation_cache import load_annotations
from retinanet.coco.boxes import corners_of
from retinanet.coco.results import Found
from retinanet.evaluation.regions import ImageRegions

SIZE = (300, 400)
NUM_CLASSES = 3


def made_up(num_images, seed=0, num_classes=NUM_CLASSES):
    """The true objects of each image, (box, label), far from each other."""
    draw = np.random.default_rng(seed)
    images = []
    for _ in range(num_images):
        corners = np.array([[20, 20], [220, 20], [20, 160], [220, 160]])[: draw.integers(1, 5)]
        boxes = np.concatenate(
            [corners + draw.integers(0, 20, corners.shape), draw.integers(60, 110, corners.shape)], 1
        )
        images.append(list(zip(boxes.tolist(), draw.integers(num_classes, size=len(boxes)).tolist(), strict=True)))
    return images


def seen_in(images, seed=1, num_classes=NUM_CLASSES):
    """A detector that finds most objects, places them well and sometimes sees what isn't there."""
    draw = np.random.default_rng(seed)
    for image, objects in enumerate(images):
        boxes, scores = [], []
        for box, label in objects:
            for _ in range(4):
                boxes.append(np.array(box) + draw.normal(0, 4, 4))
                scores.append(draw.uniform(0, 0.1, num_classes))
                scores[-1][label] = draw.uniform(0.3, 0.9)
        for _ in range(6):
            boxes.append([*draw.uniform(0, 250, 2), *draw.uniform(20, 90, 2)])
            scores.append(draw.uniform(0, 0.1, num_classes))
        regions = ImageRegions(image, np.array(boxes, float), np.array(scores))
        best = np.lexsort((-regions.scores.max(axis=1),))
        chosen = []
        for row in best:
            if all(np.abs(regions.boxes[row] - regions.boxes[other]).max() > 30 for other in chosen):
                chosen.append(row)
        labels, scores = regions.scores[chosen].argmax(axis=1), regions.scores[chosen].max(axis=1)
        yield regions, Found(np.full(len(chosen), image), labels, scores, regions.boxes[chosen])


def written(path, images, num_classes=NUM_CLASSES):
    annotations = [(image, box, label) for image, objects in enumerate(images) for box, label in objects]
    content = {
        "images": [
            {"id": 100 + image, "file_name": f"{image}.png", "height": SIZE[0], "width": SIZE[1]}
            for image in range(len(images))
        ],
        "annotations": [
            {"id": 1000 + number, "image_id": 100 + image, "category_id": 7 + label, "bbox": box}
            for number, (image, box, label) in enumerate(annotations)
        ],
        "categories": [{"id": 7 + label, "name": f"class{label}"} for label in range(num_classes)],
    }
    path.write_text(json.dumps(content))
    return load_annotations(path)


def suspects_of(annotations, seen, seed=0):
    rated = list(rated_images(annotations, seen, seed))
    return suspects_in(rated, len(annotations.class_names))


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory):
    """The suspects of a set of 80 images with a mistake of each kind in images 0 to 4, and the set."""
    truth = made_up(80)
    labels = [list(objects) for objects in truth]
    box, label = labels[0][0]
    labels[0][0] = (box, (label + 1) % NUM_CLASSES)
    (left, top, width, height), label = labels[1][0]
    labels[1][0] = ([left + 0.3 * width, top + 0.3 * height, width, height], label)
    labels[2].pop()
    labels[3].append(([150, 100, 70, 60], 1))
    (left, top, width, height), label = labels[4][0]
    labels[4].append(([left + 2, top + 1, width, height - 2], label))
    annotations = written(tmp_path_factory.mktemp("spoiled") / "train.json", labels)
    return suspects_of(annotations, seen_in(truth)), annotations, truth


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        (0, "wrong class"),
        (1, "badly placed box"),
        (2, MISSING),
        (3, "box without an object"),
        (4, "same object twice"),
    ],
)
def test_each_planted_mistake_is_among_the_first_by_its_kind(spoiled, image, kind):
    suspects, *_ = spoiled
    first = [(suspect.image, suspect.kind) for suspect in suspects[:10]]
    assert (image, kind) in first
    assert next(suspect for suspect in suspects if (suspect.image, suspect.kind) == (image, kind)).probability > 0.2


def test_suspects_suggest_what_would_be_right(spoiled):
    suspects, annotations, truth = spoiled
    of_image = {suspect.image: suspect for suspect in reversed(suspects) if suspect.image < 5}
    assert of_image[0].suggested_label == truth[0][0][1]
    for image, (box, label) in ((1, truth[1][0]), (2, truth[2][-1])):
        assert np.abs(corners_of(of_image[image].suggested_box) - corners_of(np.array(box))).max() < 12
        assert of_image[image].suggested_label in (None, label)
    first, second = of_image[4].annotation, of_image[4].other_annotation
    assert {first, second} == {annotations.first[4], annotations.first[5] - 1}


def test_right_labels_are_hardly_suspect(spoiled):
    suspects, *_ = spoiled
    probabilities = [suspect.probability for suspect in suspects]
    assert probabilities == sorted(probabilities, reverse=True)
    rest = [suspect.probability for suspect in suspects if suspect.image >= 5]
    assert np.median(rest) < 0.02
    assert sum(rest) < 12


def test_ids_boxes_and_classes_of_the_file_are_those_of_the_annotations(spoiled, tmp_path):
    suspects, annotations, _ = spoiled
    content = suspects_content(suspects, annotations, "train")
    write_suspects(content, tmp_path / "out" / SUSPECTS)
    assert json.loads((tmp_path / "out" / SUSPECTS).read_text()) == content
    source = json.loads(annotations.path.read_text())
    labels = {each["id"]: each for each in source["annotations"]}
    names = {each["id"]: each["file_name"] for each in source["images"]}
    assert content["annotations"] == {"file": str(annotations.path), "sha256": annotations.fingerprint}
    assert [each["id"] for each in content["suspects"]] == [*range(len(content["suspects"]))]
    for each in content["suspects"]:
        assert each["kind"] in KINDS
        assert names[each["image_id"]] == each["file_name"]
        assert (each["kind"] == MISSING) == (each["annotation_id"] is None)
        if each["annotation_id"] is not None:
            label = labels[each["annotation_id"]]
            assert (label["image_id"], label["category_id"]) == (each["image_id"], each["category_id"])
            assert label["bbox"] == pytest.approx(each["bbox"], abs=0.01)
        else:
            assert each["suggested_bbox"]
            assert each["suggested_category_id"] in (7, 8, 9)
        assert each["other_annotation_id"] is None or each["other_annotation_id"] in labels
    lines = summary_lines(content, len(labels))
    assert lines[0].startswith(f"{len(content['suspects'])} suspects among {len(labels)} labels")


@pytest.mark.parametrize(("ids", "count"), [([1, 2], 0), ([1, None], 1), ([7, 7], 2)])
def test_labels_that_decisions_cannot_name_are_counted(ids, count):
    """Both labels are in one image."""
    names = dict.fromkeys(("category_id", "suggested_category_id"), 7)
    about = {
        "image_id": 1,
        "file_name": "a.png",
        "kind": "wrong class",
        "probability": 0.5,
        "bbox": [1, 2, 3, 4],
    } | names
    missing = about | {"annotation_id": None, "bbox": None}
    suspects = [missing, *(about | {"annotation_id": each} for each in ids)]
    lines = summary_lines({"classes": [{"id": 7, "name": "cat"}], "suspects": suspects}, 2)
    wanted = f"Note: {count} suspect label{'s' * (count > 1)} without an id, or with the id of another label"
    assert any(line.startswith(wanted) for line in lines) == (count > 0)
    assert any(line.startswith("Note") for line in lines) == (count > 0)


def test_no_box_is_suggested_where_the_class_is_not_seen(tmp_path):
    annotations = written(tmp_path / "train.json", made_up(20))
    regions = ImageRegions(0, np.zeros((0, 4)), np.zeros((0, NUM_CLASSES)))
    found = Found(np.zeros(0, int), np.zeros(0, int), np.zeros(0), np.zeros((0, 4)))
    suspects = suspects_of(annotations, [(regions._replace(image=image), found) for image in range(20)])
    assert suspects
    assert all(each.suggested_box is None for each in suspects)


def test_they_are_repeated_with_the_same_seed(tmp_path):
    truth = made_up(20)
    annotations = written(tmp_path / "train.json", truth)
    first, second = (
        [(each.kind, each.probability) for each in suspects_of(annotations, seen_in(truth), 5)] for _ in range(2)
    )
    assert first == second


@pytest.mark.parametrize("num_classes", [1, 2])
def test_sets_with_few_classes_and_empty_images(tmp_path, num_classes):
    truth = made_up(20, num_classes=num_classes)
    truth[3] = truth[7] = []
    annotations = written(tmp_path / "train.json", truth, num_classes)
    suspects = suspects_of(annotations, seen_in(truth, num_classes=num_classes))
    assert len([suspect for suspect in suspects if suspect.annotation is not None]) == len(annotations.labels)
    assert num_classes > 1 or all(suspect.kind != "wrong class" for suspect in suspects)


def test_a_detector_that_sees_nothing_calls_no_label_a_likely_mistake(tmp_path):
    truth = made_up(20)
    annotations = written(tmp_path / "train.json", truth)
    nothing = Found(np.zeros(0, int), np.zeros(0, int), np.zeros(0), np.zeros((0, 4)))
    seen = [(ImageRegions(image, np.zeros((0, 4)), np.zeros((0, NUM_CLASSES))), nothing) for image in range(20)]
    suspects = suspects_of(annotations, seen)
    assert len(suspects) == len(annotations.labels)
    assert max(suspect.probability for suspect in suspects) < 0.5


def test_made_up_mistakes_are_mistakes():
    draw = np.random.default_rng(0)
    boxes, labels = np.array([[20.0, 30, 80, 60], [250, 200, 90, 90]]), np.array([0, 2])
    others = np.array([[0.1, 0.1, 0.2, 0.2], [0.6, 0.1, 0.3, 0.3]]), np.array([1, 2])
    kinds = set()
    for given in planted_in(boxes, labels, SIZE, NUM_CLASSES, others, draw):
        right, bottom = corners_of(given.boxes).T[2:]
        assert (given.boxes >= 0).all()
        assert (right <= SIZE[1]).all()
        assert (bottom <= SIZE[0]).all()
        for kind, box, label, replaced in zip(*given, strict=True):
            kinds.add(int(kind))
            if kind == WRONG_CLASS:
                assert label != labels[replaced]
                assert (box == boxes[replaced]).all()
            if kind == BADLY_PLACED:
                assert label == labels[replaced]
                assert (box != boxes[replaced]).any()
            if kind in (TWICE, NO_OBJECT):
                assert replaced == -1
    assert kinds == {WRONG_CLASS, BADLY_PLACED, TWICE, NO_OBJECT}
