from pathlib import Path

import numpy as np
import pytest
from support.built import small_network
from support.data_folder import change_json

from retinanet.checkpoints.resume import Facts
from retinanet.coco.annotation_cache import load_annotations
from retinanet.data.dataset import CocoDataset
from retinanet.detector.anchors import DEFAULT_SHAPES, AnchorShapes
from retinanet.settings.options import with_values
from retinanet.settings.train import TrainSettings
from retinanet.training import opening
from retinanet.training.log_lines import best_line, schedule_hint
from retinanet.training.opening import check_command, data_lines, ranks_changed


@pytest.fixture
def lines(coco_path):
    def of(boxes, categories=2, sides=(64, 96)):
        def change(content):
            content["categories"] = [{"id": number + 1, "name": f"class {number}"} for number in range(categories)]
            content["annotations"] = [
                {"id": number, "image_id": 1, "category_id": 1, "bbox": list(box)} for number, box in enumerate(boxes)
            ]

        change_json(coco_path / "train.json", change)
        dataset = CocoDataset(load_annotations(coco_path / "train.json"), coco_path / "images" / "train", *sides)
        return data_lines(
            dataset,
            DEFAULT_SHAPES,
            with_values(TrainSettings(), {"coco_path": Path("my data"), "min_side": 64, "max_side": 96}),
        ), dataset

    return of


def test_what_there_is_to_learn_and_what_anchors_reach(lines):
    # In 64 x 64 pixels, not resized: an anchor itself, IoUs of 0.43 and 0.25 with it, 2 and 0.4 too far right, dropped.
    boxes = [(4, 4, 32, 32), (10, 9, 20, 22), (12, 12, 16, 16), (50, 4, 16, 16), (48.4, 4, 16, 16), (70, 4, 16, 16)]
    assert lines(boxes)[0] == [
        "Objects to learn: 5 of 2 classes; 1 clipped at the image border",
        "Classes of fewer than 20 objects: class 1 0, class 0 5",
        "Best anchor of 5 objects: matched (IoU 0.5 or more) for 20.0%, IoU 0.4 or more for 20.0%, below for 60.0% "
        "(more: python -m retinanet.check_data --coco_path 'my data' --sets train val --min_side 64 --max_side 96)",
        "Warning: 80.0% of the objects have no anchor with an IoU of 0.5 or more at this size (class 0 80%), so they "
        "are hardly learned",
        "What helps, the most useful first:",
        "  --min_side 96 --max_side 144 leaves 40.0% without an anchor; a step has 2.25 times the pixels and takes "
        "about 2.25 times the time and memory",
        "  --anchor_scale 2 leaves 0.0% without an anchor at about the same cost, but small objects stay small",
        "  --matcher low_quality leaves 60.0% without an anchor at no cost, but most of the anchors it adds barely "
        "overlap their objects and rarely find them",
    ]


def test_few_objects_without_an_anchor_are_no_matter_and_some_no_warning(make_set):
    def levels(num_small, shapes=DEFAULT_SHAPES):
        path = make_set([[[4, 4, 32, 32]]] * 39 + [[[12, 12, 16, 16]]] * num_small, size=(64, 64))
        dataset = CocoDataset(load_annotations(path), path.parent, 64, 96)
        return [line.split(" of the objects")[0] for line in data_lines(dataset, shapes, TrainSettings())[3:4]]

    assert levels(2) == []
    assert levels(3) == ["Note: 7.1%"]
    assert levels(18) == ["Warning: 31.6%"]
    assert levels(18, AnchorShapes(2)) == []


def test_other_matchers_are_not_silent_about_what_they_leave(lines):
    # The smaller of two tiny neighbours gets no anchor, since all that overlap it most overlap the other more.
    _, dataset = lines([(46, 46, 4, 4), (44, 44, 8, 8)])
    for matcher, words in (
        ("low_quality", "--matcher low_quality leaves 50.0% without any; a forced anchor rarely helps"),
        ("atss", "100.0% of the objects get no anchor from --matcher atss at this size"),
    ):
        settings = with_values(TrainSettings(), {"min_side": 64, "max_side": 96, "matcher": matcher})
        assert words in "".join(data_lines(dataset, DEFAULT_SHAPES, settings))


def test_the_command_that_checks_has_the_anchors_that_are_not_the_defaults():
    assert "anchor" not in check_command(TrainSettings())
    how = {"exif": "raw", "white_level": 4095, "max_pixels": 10**9}  # how the run reads its images
    flags = "--exif raw --white_level 4095 --max_pixels 1000000000"
    assert check_command(with_values(TrainSettings(), how)).endswith(f" {flags}")
    settings = with_values(TrainSettings(), {"anchor_scale": 2.5, "anchor_ratios": (0.4, 1.0), "anchor_octaves": 2})
    assert check_command(settings).endswith(" --anchor_scale 2.5 --anchor_ratios 0.4 1 --anchor_octaves 2")


@pytest.mark.parametrize(
    ("num_boxes", "categories", "ending"),
    [
        (20, 1, ": none"),
        (20, 2, ": class 1 0"),
        (0, 11, "class 2 0, class 3 0, class 4 0, class 5 0, class 6 0, class 7 0, class 8 0, and 1 more"),
    ],
)
def test_scarce_classes_are_named_but_not_all(lines, num_boxes, categories, ending):
    assert lines([(1, 1, 9, 9)] * num_boxes, categories)[0][1].endswith(ending)


def test_of_many_objects_some_are_drawn(make_set, monkeypatch):
    draw = np.random.default_rng(0)
    boxes = draw.uniform([0, 0, 4, 4], [20, 20, 44, 44], (3000, 4)).tolist()
    path = make_set([boxes[start : start + 10] for start in range(0, 3000, 10)], size=(64, 64))
    dataset = CocoDataset(load_annotations(path), path.parent, 64, 96)
    every = data_lines(dataset, DEFAULT_SHAPES, TrainSettings())
    assert "Best anchor of 3000 objects:" in every[2]
    monkeypatch.setattr(opening, "MOST_DRAWN", 2000)
    drawn = data_lines(dataset, DEFAULT_SHAPES, TrainSettings())
    assert drawn == data_lines(dataset, DEFAULT_SHAPES, TrainSettings())
    assert drawn[:2] == every[:2]
    assert "Best anchor of 2000 objects drawn: matched (IoU 0.5 or more) for " in drawn[2]
    some, all_of_them = (float(lines[2].split(" for ")[1].split("%")[0]) for lines in (drawn, every))
    assert some == pytest.approx(all_of_them, abs=3)


def test_nothing_to_learn(lines):
    assert lines([])[0][0] == "Objects to learn: 0 of 2 classes; 0 clipped at the image border"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"epochs": 100}, None),
        ({"epochs": 12}, "in 12 the learning rate never falls. Use --milestones 8 10, or --schedule cosine"),
        ({"epochs": 60}, "in 60 the learning rate falls once. Use --milestones 40 53, or --schedule cosine"),
        ({"epochs": 1}, "in 1 the learning rate never falls. Use --schedule cosine"),
        ({"epochs": 12, "schedule": "cosine"}, None),
        ({"epochs": 12, "milestones": (20,)}, None),
    ],
)
def test_milestones_of_another_number_of_epochs(changes, words):
    hint = schedule_hint(with_values(TrainSettings(), changes))
    assert hint is None if words is None else hint.endswith(words)


def test_the_best_epoch_and_how_to_test_it():
    settings = with_values(TrainSettings(), {"coco_path": Path("my data"), "output_path": Path("out"), "epochs": 30})
    assert best_line(0.5, 20, Path("out/best.pt"), settings) == (
        "Best: AP 0.500 after epoch 20 of 30. Evaluate it: python test.py --coco_path 'my data' --set_name val "
        "--checkpoint_path out/best.pt"
    )


@pytest.mark.parametrize(
    ("before", "after", "learns", "expected"),
    [
        ((2, 3), (2, 3), False, []),
        (
            (2, 3),
            (1, 6),
            False,
            ["Processes: 1, 2 until now; still 6 images per step, so only rounding differs from the same run by 2"],
        ),
        (
            (2, 3),
            (1, 6),
            True,
            ["Processes: 1, 2 until now; still 6 images per step, so other numbers than in a run by 2"],
        ),
        (
            (2, 3),
            (3, 3),
            False,
            ["Processes: 3, 2 until now; 9 images per step instead of 6, so other numbers than in a run by 2"],
        ),
    ],
)
def test_what_another_number_of_processes_changes(before, after, learns, expected):
    old, new = (Facts("cpu", "float32", False, "", "", size, ranks) for ranks, size in (before, after))
    assert ranks_changed(old, new, small_network(learn_statistics=learns)) == expected
