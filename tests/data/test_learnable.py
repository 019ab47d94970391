"""Training sets on which a run would reach a loss of 0 and exit code 0 are refused."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from support.data_folder import change_json
from support.scripts import TINY

from retinanet.coco.annotation_cache import load_annotations
from retinanet.data.anchor_coverage import best_ious
from retinanet.data.dataset import CocoDataset
from retinanet.data.learnable import require_objects, require_reach, warnings_of
from retinanet.data.transforms import flip
from retinanet.detector.anchors import anchors_for
from retinanet.detector.matching import match_anchors
from retinanet.detector.structures import Targets
from retinanet.runtime.errors import DataFault

pytestmark = pytest.mark.usefixtures("narrow_network")

SHORT = (*TINY, "--epochs", 1, "--batch_size", 4, "--workers", 0)


def each(**values):
    """Change every annotation."""

    def change(content):
        for annotation in content["annotations"]:
            annotation.update(values)

    return change


def in_fractions(content):
    sizes = {image["id"]: (image["width"], image["height"]) * 2 for image in content["images"]}
    for annotation in content["annotations"]:
        sides = sizes[annotation["image_id"]]
        annotation["bbox"] = [number / side for number, side in zip(annotation["bbox"], sides, strict=True)]


def on_windows(content):
    for image in content["images"]:
        image["file_name"] = f"images\\train\\{image['file_name']}"


def below_the_folder(content):
    for image in content["images"]:
        image["file_name"] = f"images/train/{image['file_name']}"


MASK = [[5, 5, 40, 5, 40, 40]]
REFUSED = [
    (in_fractions, (), r"train.json: boxes look like fractions of the image (YOLO's), 7 of 7, "),
    (each(bbox=None, segmentation=MASK), (), "train.json: annotation 1: has a segmentation but no bbox"),
    (each(bbox=[0, 0, 0, 0], segmentation=MASK), (), "train.json: annotation 1: has a segmentation but no bbox"),
    (lambda content: content.pop("annotations") and None, (), 'to train on: its "annotations" are empty or missing'),
    (lambda content: content.update(annotations=[]), (), 'to train on: its "annotations" are empty or missing'),
    (each(iscrowd=1), (), "train.json: no annotation is an object to train on: of 7 annotations, 7 with iscrowd 1"),
    (each(iscrowd=1), ("--ignore_crowds",), "of 7 annotations, 7 with iscrowd 1 and 0 without area"),
    (each(bbox=[5, 5, 0, 20]), (), "7 without area in the image. Annotate objects"),
    (each(bbox=[500, 5, 20, 20]), (), "7 without area in the image. Annotate objects"),
    (each(image_id="1"), (), "annotation 1: image_id '1' is not a whole number. Write it without quotes"),
    (on_windows, (), "1.png: no such image. Its file_name looks like a Windows path"),
    (on_windows, (), "with / instead of \\: here '1.png', which is in "),
    (below_the_folder, (), "(8 of 8 missing). '1.png' is in "),
    (each(bbox=[5, 5, 3, 3]), (), "train.json: no anchor overlaps an object by an IoU of 0.5 (the most is 0.0"),
    (each(), ("--foreground_iou", 0.999), "no anchor overlaps an object by an IoU of 0.999 (the most is 0.8"),
    (each(bbox=[5, 5, 3, 3]), ("--find_lr",), "no anchor overlaps an object"),
]


@pytest.mark.parametrize(("change", "flags", "words"), REFUSED)
def test_what_gives_nothing_to_learn_ends_at_once(script, coco_path, tmp_path, change, flags, words):
    change_json(coco_path / "train.json", change)
    output = tmp_path / "output"
    run = script("train", "--coco_path", coco_path, "--output_path", output, *SHORT, *flags)
    assert (run.code, run.out) == (2, "")
    assert words in run.err
    assert "Traceback" not in run.err
    assert not output.exists()


def test_paths_of_windows_are_no_images_to_skip(script, coco_path, tmp_path):
    change_json(coco_path / "train.json", on_windows)
    words = ("--coco_path", coco_path, "--output_path", tmp_path / "output", "--bad_images", "skip")
    run = script("train", *words, *SHORT)
    assert run.code == 2
    assert ".png: no such image. Its file_name looks like a Windows path" in run.err


def test_evaluation_refuses_fractions_too(script, coco_path, tmp_path):
    for name in ("val", "test"):
        change_json(coco_path / f"{name}.json", in_fractions)
    words = ("--coco_path", coco_path, "--output_path", tmp_path / "output")
    for run in (script("train", *words, *SHORT), script("train", *words, *SHORT, "--val_set", "test")):
        assert run.code == 2
        assert "boxes look like fractions of the image" in run.err


def test_other_matchers_and_changes_of_size_may_reach_what_is_small(script, coco_path, tmp_path):
    change_json(coco_path / "train.json", each(bbox=[5, 5, 12, 12]))
    words = ("--coco_path", coco_path, "--output_path", tmp_path / "output", *SHORT)
    for flags in (("--matcher", "low_quality"), ("--train_sides", 64, 192), ("--augment", "jitter")):
        run = script("train", *words, *flags)
        assert run.code == 0, run.err
        assert float(run.out.splitlines()[-1].strip("[]")) > 0
    assert "Warning: " in run.out
    assert "train.json: all 7 boxes are [5.0, 5.0, 12.0, 12.0]" in run.out


def dataset_of(coco_path, boxes):
    def change(content):
        first = content["annotations"][0]
        content["annotations"] = [{**first, "id": number, "bbox": list(box)} for number, box in enumerate(boxes)]

    change_json(coco_path / "train.json", change)
    # Of 76 pixels, which no stride divides: there the mirrored object lies otherwise among the anchors.
    return CocoDataset(load_annotations(coco_path / "train.json"), coco_path / "images" / "train", 76, 96)


@pytest.mark.parametrize("is_mirrored", [False, True])
def test_reach_is_what_training_matches(coco_path, is_mirrored):
    """Random objects about as large as the smallest anchors that reach them; the twin is the training's own matcher."""
    draw, outcomes = np.random.default_rng(1), []
    for _ in range(40):
        left, top = draw.uniform(0, 20, 2)
        width, height = draw.uniform(16, 26, 2)
        dataset = dataset_of(coco_path, [[left, top, width, height]])
        sample = dataset.read(0)
        looks = [(sample.image, sample.boxes)]
        if is_mirrored:
            looks.append(flip(sample.image, sample.boxes))
        is_matched = False
        for image, boxes in looks:
            anchors = anchors_for(*(-(-side // 32) * 32 for side in image.shape[1:]), torch.device("cpu"))
            is_matched |= bool(match_anchors(anchors, Targets(boxes[None], sample.labels[None])).foreground.any())
        with nullcontext() if is_matched else pytest.raises(DataFault, match="no anchor overlaps"):
            require_reach(dataset, flip=is_mirrored)
        outcomes.append(is_matched)
    assert 5 < sum(outcomes) < 35


def test_one_object_is_enough(coco_path, monkeypatch):
    monkeypatch.setattr("retinanet.data.learnable.OBJECTS_AT_A_TIME", 2)
    tiny = [[number, 5, 3, 3] for number in range(7)]
    with pytest.raises(DataFault, match="no anchor overlaps"):
        require_reach(dataset_of(coco_path, tiny))
    dataset = dataset_of(coco_path, [*tiny, [4, 4, 30, 30]])
    require_reach(dataset)
    require_objects(dataset)
    assert warnings_of(dataset, dataset.annotations) == []


def test_a_set_of_corners_is_warned_of(coco_path):
    dataset = dataset_of(coco_path, [[20, 30, 50, 60], [30, 10, 60, 50], [2, 3, 30, 30]])
    found = warnings_of(dataset, dataset.annotations)
    assert len(found) == 1
    assert "boxes reach past their images and look like (x1, y1, x2, y2)" in found[0]


def test_classes_of_one_name_and_classes_of_val_alone_are_warned_of(coco_path):
    change_json(coco_path / "train.json", lambda content: content["categories"].append({"id": 3, "name": "red"}))
    dataset = dataset_of(coco_path, [[4, 4, 30, 30]])
    names, label = dataset.annotations.class_names, int(dataset.annotations.labels[0])
    other = next(each for each in range(3) if each != label)
    val = dataset.annotations._replace(labels=np.array([other]))
    twice, unseen = warnings_of(dataset, val)
    assert f"several categories are called {names[2]}" in twice
    assert f"has objects of {names[other]}, of which {dataset.annotations.path} has none" in unseen


@pytest.mark.parametrize(("above", "is_reached"), [(5e-6, True), (2e-5, False)])
def test_an_iou_is_reached_within_the_rounding_of_training(coco_path, above, is_reached):
    dataset = dataset_of(coco_path, [[4, 4, 30, 30]])
    most = best_ious(dataset.learned(np.arange(1)).boxes).max()
    with nullcontext() if is_reached else pytest.raises(DataFault, match="no anchor overlaps"):
        require_reach(dataset, most + above, flip=False)


def test_the_most_that_is_reached_is_of_all_objects(coco_path, monkeypatch):
    monkeypatch.setattr("retinanet.data.learnable.OBJECTS_AT_A_TIME", 1)
    dataset = dataset_of(coco_path, [[4, 4, 30, 30], [5, 5, 3, 3]])
    most = best_ious(dataset.learned(np.arange(1)).boxes).max()
    with pytest.raises(DataFault, match=rf"\(the most is {most:.2g}\)"):
        require_reach(dataset, 0.99, flip=False)
