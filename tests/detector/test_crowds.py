from dataclasses import replace

import pytest
import torch

from retinanet.detector import matching
from retinanet.detector.anchors import anchors_for
from retinanet.detector.loss import assign, detection_loss
from retinanet.detector.matching import in_crowds
from retinanet.detector.settings import BOX_LOSSES, MATCHERS, LossSettings
from retinanet.detector.structures import CROWD, Predictions, Targets

SIZE = (96, 160)
ANCHORS = anchors_for(*SIZE, torch.device("cpu"))


def targets_of(*images):
    """Of (box, label) pairs, an image a list."""
    most = max(1, *map(len, images))
    padded = [[*image, *[([0, 0, 0, 0], -1)] * (most - len(image))] for image in images]
    return Targets(
        torch.tensor([[box for box, _ in image] for image in padded]).float(),
        torch.tensor([[label for _, label in image] for image in padded]),
    )


def slow_in_crowds(targets):
    found = torch.zeros(len(targets.boxes), len(ANCHORS), dtype=torch.bool)
    for image, (boxes, labels) in enumerate(zip(targets.boxes.tolist(), targets.labels.tolist(), strict=True)):
        for row, (x1, y1, x2, y2) in enumerate(ANCHORS.tolist()):
            for box, label in zip(boxes, labels, strict=True):
                width, height = min(x2, box[2]) - max(x1, box[0]), min(y2, box[3]) - max(y1, box[1])
                if label == CROWD and max(width, 0) * max(height, 0) >= (x2 - x1) * (y2 - y1) / 2:
                    found[image, row] = True
    return found


CASES = {
    "none": targets_of([([10, 10, 50, 60], 0)], []),
    "padding": targets_of([], []),
    "one": targets_of([([10, 10, 81, 70], CROWD)], [([10, 10, 81, 70], 0)]),
    "over an object": targets_of([([10, 10, 50, 60], 1), ([0, 0, 160, 96], CROWD)]),
    "two": targets_of(
        [([0, 0, 41.3, 50.7], CROWD), ([40.1, 0, 80.6, 51.9], CROWD)], [([30.3, 20.7, 120.4, 90.9], CROWD)]
    ),
    "larger than the image": targets_of([([-500, -500, 900, 900], CROWD)]),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("at_a_time", [1000, 2**18])
def test_anchors_in_crowds_are_those_of_one_by_one(monkeypatch, case, at_a_time):
    monkeypatch.setattr(matching, "OVERLAPS_ON_CPU", at_a_time)
    assert torch.equal(in_crowds(ANCHORS, case), slow_in_crowds(case))


def test_half_of_the_anchor_is_enough_and_two_crowds_do_not_add_up():
    anchors = torch.tensor([[0.0, 0, 10, 10]])
    for boxes, wanted in (([[0, 0, 10, 5]], 1), ([[0, 0, 10, 4.9]], 0), ([[0, 0, 10, 4], [0, 5, 10, 9]], 0)):
        assert in_crowds(anchors, targets_of([(box, CROWD) for box in boxes])).tolist() == [[bool(wanted)]]


@pytest.mark.parametrize("matcher", MATCHERS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_only_background_is_ignored(matcher, case):
    """Beside that, crowds change nothing: they are no objects."""
    objects = Targets(case.boxes * (case.labels != CROWD)[..., None], case.labels.clamp(min=-1))
    settings = LossSettings(matcher=matcher)
    plain = assign(ANCHORS, objects, 2, settings, sparse=True, size=SIZE)
    got = assign(ANCHORS, case, 2, replace(settings, ignore_crowds=True), sparse=True, size=SIZE)
    for name in ("rows", "terms", "deltas", "row_weights"):
        assert torch.equal(getattr(got, name), getattr(plain, name))
    foreground = torch.zeros(plain.weights.numel(), dtype=torch.bool).index_fill(0, plain.rows, True)
    ignored = slow_in_crowds(case) & ~foreground.view_as(plain.weights)
    assert torch.equal(got.weights, plain.weights.masked_fill(ignored, 0))


@pytest.mark.parametrize("matcher", MATCHERS)
@pytest.mark.parametrize("box_loss", BOX_LOSSES)
def test_a_crowd_that_covers_all_leaves_nothing_to_learn_but_objects(matcher, box_loss):
    settings = LossSettings(matcher=matcher, box_loss=box_loss, ignore_crowds=True)
    predictions = Predictions(torch.zeros(1, len(ANCHORS), 2), torch.zeros(1, len(ANCHORS), 4))
    losses = detection_loss(predictions, ANCHORS, CASES["larger than the image"], settings, SIZE)
    assert losses == (0, 0)
    losses = detection_loss(predictions, ANCHORS, CASES["over an object"], settings, SIZE)
    assert all(loss > 0 for loss in losses)
