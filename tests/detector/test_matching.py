import os
import subprocess
import sys
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.scripts import ROOT
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from retinanet.detector import matching
from retinanet.detector.anchors import anchors_for
from retinanet.detector.matching import match_anchors
from retinanet.detector.structures import Targets


def test_borders_of_foreground_and_background():
    anchors = torch.tensor([[0.0, 0, 10, 10]])
    # An object inside of the anchor has an IoU of its area / 100.
    heights = [10.0, 5.0, 4.99, 4.0, 3.99, 0.0]
    targets = Targets(
        torch.tensor([[[0.0, 0, 10, height]] for height in heights]), torch.zeros(len(heights), 1, dtype=torch.int64)
    )
    matches = match_anchors(anchors, targets)
    assert matches.foreground[:, 0].tolist() == [True, True, False, False, False, False]
    assert matches.background[:, 0].tolist() == [False, False, False, False, True, True]


def test_nothing_is_forced_and_padding_matches_nothing():
    anchors = torch.tensor([[0.0, 0, 32, 32], [-16.0, -16, 16, 16]])
    targets = Targets(torch.tensor([[[0.0, 0, 8, 8], [0.0, 0, 0, 0]]]), torch.tensor([[0, -1]]))
    matches = match_anchors(anchors, targets)
    assert not matches.foreground.any()
    assert matches.background.all()


def test_the_object_with_the_largest_overlap_is_taken():
    anchors = torch.tensor([[0.0, 0, 10, 10]])
    targets = Targets(torch.tensor([[[0.0, 0, 10, 6], [0.0, 0, 10, 9], [0.0, 0, 0, 0]]]), torch.tensor([[0, 1, -1]]))
    assert match_anchors(anchors, targets).objects.tolist() == [[1]]


def test_equals_all_overlaps_at_once_however_many_fit(monkeypatch):
    draw = torch.Generator().manual_seed(0)
    anchors = anchors_for(96, 160, torch.device("cpu"))
    corners = torch.rand(3, 5, 2, generator=draw) * 80
    boxes = torch.cat([corners, corners + torch.rand(3, 5, 2, generator=draw) * 80], dim=2)
    boxes[1, 2:] = 0
    boxes[2, 3] = boxes[2, 1]  # equal overlaps: the first is taken
    targets = Targets(boxes, torch.zeros(3, 5, dtype=torch.int64))
    best, objects = torch.stack([box_iou(image_boxes, anchors) for image_boxes in boxes]).max(dim=1)
    for at_a_time in (1, 1000, 2**30):
        monkeypatch.setattr(matching, "OVERLAPS_ON_CPU", at_a_time)
        matches = match_anchors(anchors, targets)
        assert torch.equal(matches.objects, objects)
        assert torch.equal(matches.foreground, best >= 0.5)
        assert torch.equal(matches.background, best < 0.4)
    assert matches.foreground.any()


def slow_low_quality(anchors, boxes):
    """torchvision's Matcher, without the objects that overlap no anchor: it would force these on all anchors."""
    matrix = box_iou(boxes, anchors)
    seen = (matrix > 0).any(dim=1).nonzero().squeeze(1)
    if not len(seen):
        return torch.full((len(anchors),), Matcher.BELOW_LOW_THRESHOLD)
    found = Matcher(0.5, 0.4, allow_low_quality_matches=True)(matrix[seen])
    return torch.where(found >= 0, seen[found.clamp(min=0)], found)


def low_quality_of(anchors, targets):
    """In Matcher's words: the object, or its two negative numbers."""
    objects, foreground, background = match_anchors(anchors, targets, low_quality=True)
    assert not (foreground & background).any()
    rest = torch.where(background, Matcher.BELOW_LOW_THRESHOLD, Matcher.BETWEEN_THRESHOLDS)
    return torch.where(foreground, objects, rest)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.tuples(*[st.integers(0, 160)] * 4), min_size=1, max_size=5), min_size=1, max_size=3),
    st.sampled_from([1000, 2**30]),
)
def test_low_quality_is_torchvisions(images, at_a_time):
    """Whole numbers: many anchors overlap an object equally, in one part of them and in several."""
    anchors = anchors_for(96, 160, torch.device("cpu"))
    boxes = torch.zeros(len(images), 5, 4)
    for row, image in enumerate(images):
        for number, (x1, y1, x2, y2) in enumerate(image):
            boxes[row, number] = torch.tensor([min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)])
    with patch.object(matching, "OVERLAPS_ON_CPU", at_a_time):
        found = low_quality_of(anchors, Targets(boxes, torch.zeros(boxes.shape[:2], dtype=torch.int64)))
    for image, own in enumerate(boxes):
        assert torch.equal(found[image], slow_low_quality(anchors, own))


@pytest.mark.parametrize(
    ("objects", "found"),
    [
        ([], [-1, -1, -1]),
        ([[0, 0, 10, 3]], [0, -1, -1]),  # an IoU of 0.3, for want of a better
        ([[0, 0, 10, 4.5]], [0, -1, -1]),  # which thresholds alone would ignore
        ([[5, 0, 15, 10]], [0, 0, -1]),  # overlaps two equally
        ([[50, 0, 60, 10]], [-1, -1, -1]),  # overlaps none
        ([[0, 0, 10, 3], [0, 5, 10, 9]], [1, -1, -1]),  # the anchor is for the object that overlaps it more
        ([[0, 0, 10, 3], [0, 0, 10, 3]], [0, -1, -1]),
        ([[0, 0, 10, 10], [9, 0, 12, 10]], [0, 1, -1]),
    ],
)
def test_low_quality_by_hand(objects, found):
    anchors = torch.tensor([[0.0, 0, 10, 10], [10, 0, 20, 10], [20, 0, 30, 10]])
    boxes = torch.tensor([*objects, [0, 0, 0, 0]]).float()  # the last is padding
    targets = Targets(boxes[None], torch.zeros(1, len(boxes), dtype=torch.int64))
    assert low_quality_of(anchors, targets)[0].tolist() == found


def test_memory_does_not_grow_with_the_parts():
    """5,000 objects are compared with 52 anchors at a time; what is kept of a part must not scatter the memory."""
    code = """
import resource, torch
from retinanet.detector.anchors import anchors_for
from retinanet.detector.matching import match_anchors
from retinanet.detector.structures import Targets
anchors = anchors_for(256, 256, torch.device("cpu"))
corners = torch.rand(1, 5000, 2) * 240
targets = Targets(torch.cat([corners, corners + 10], dim=2), torch.zeros(1, 5000, dtype=torch.int64))
match_anchors(anchors[:100], targets, low_quality=True)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
match_anchors(anchors, targets, low_quality=True)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert int(ended.stdout) < 40 * 1024  # kilobytes
